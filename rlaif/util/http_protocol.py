"""Uvicorn's HTTP protocol with an end for headers: a client that sends half of them is cut off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADER_SECONDS = 10.0
"""Until the headers of a request are there whole, from the first byte or the connection on."""
MOST_HEADER_BYTES = 64 << 10

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _Protocol
else:
    _Protocol = AutoHTTPProtocol


class BoundedProtocol(_Protocol):
    """Closes connections whose request headers do not arrive in time, or have no end."""

    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """A client is there: its first headers are due."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        began = self.cycle
        super().data_received(data)
        if self.cycle is not None and (self.cycle is not began or not self.cycle.response_complete):
            self._forget_deadline()  # the headers are whole
        elif self._deadline is None:
            self._expect_headers()
        if self._deadline is not None:
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self._cut_off()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._forget_deadline()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._header_bytes = 0
        self._deadline = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._cut_off)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_off(self) -> None:
        self._forget_deadline()
        if not self.transport.is_closing():
            self.transport.close()

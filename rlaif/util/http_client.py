"""Clients of HTTP whose answers have a deadline as a whole, their headers included.

httpx's timeouts are for one read: a server that sends a byte now and then is waited for without
end.  Its network backend (httpcore's public `NetworkBackend`) is wrapped, so that each read has
only what is left of the time.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from rlaif.errors import RlaifError, first_line

_LOCAL = threading.local()


@contextmanager
def answer_until(moment: float) -> Iterator[None]:
    """Within it, this thread's requests end with `httpx.ReadTimeout` after a moment.

    Args:
        moment: on the monotonic clock.
    """
    _LOCAL.until, _LOCAL.seconds = moment, moment - time.monotonic()
    try:
        yield
    finally:
        _LOCAL.until = None


def open_client(
    *, headers: Mapping[str, str], timeout: float, limits: httpx.Limits | None = None
) -> httpx.Client:
    """A client whose requests keep to `answer_until`.

    Raises:
        RlaifError: the environment names a proxy or certificates that can't be used.
    """
    try:
        client = httpx.Client(
            headers=headers, timeout=timeout, limits=limits or httpx.Limits(max_connections=100)
        )
    except (OSError, ssl.SSLError) as error:
        raise RlaifError(
            f"the certificates that the environment names can't be read ({first_line(error)})",
            hint="Set SSL_CERT_FILE or SSL_CERT_DIR to files that exist, or unset them.",
        ) from None
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise RlaifError(
            f"the proxy that the environment names can't be used ({first_line(error)})",
            hint="Install httpx[socks] for a SOCKS proxy, unset ALL_PROXY and HTTP_PROXY, or add "
            "the server's host to NO_PROXY.",
        ) from None
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend)
    return client


def _left(timeout: float | None) -> float | None:
    """The seconds that a read may take.

    Raises:
        httpcore.ReadTimeout: the time is over.
    """
    until: float | None = getattr(_LOCAL, "until", None)
    if until is None:
        return timeout
    left = until - time.monotonic()
    if left <= 0:
        raise _late()
    return left if timeout is None else min(timeout, left)


def _late() -> httpcore.ReadTimeout:
    return httpcore.ReadTimeout(f"no whole answer in {_LOCAL.seconds:.0f} seconds")


class _Stream(httpcore.NetworkStream):
    """A connection whose reads end at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._stream.read(max_bytes, _left(timeout))
        except httpcore.ReadTimeout:
            until: float | None = getattr(_LOCAL, "until", None)
            if until is not None and time.monotonic() >= until:
                raise _late() from None
            raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Opens connections whose reads end at the deadline."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        opened = self._backend.connect_tcp(
            host,
            port,
            timeout=_left(timeout),
            local_address=local_address,
            socket_options=socket_options,
        )
        return _Stream(opened)

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        opened = self._backend.connect_unix_socket(
            path, timeout=_left(timeout), socket_options=socket_options
        )
        return _Stream(opened)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)

"""Request bodies as a whole, bounded in size and time, before an application sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyTooLarge(Exception):
    """A body with more bytes than allowed."""


class BodyTooSlow(Exception):
    """A body that did not arrive in time."""


async def receive_body(receive: Receive, most_bytes: int, seconds: float) -> bytes | None:
    """The whole body; None where the client went away.

    Raises:
        BodyTooLarge: it has more than `most_bytes`.
        BodyTooSlow: it is not whole within `seconds`.
    """
    held, more = bytearray(), True
    deadline = asyncio.get_running_loop().time() + seconds
    while more:
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise BodyTooSlow(f"the body did not arrive within {seconds:g} s") from None
        if message["type"] == "http.disconnect":
            return None
        held += message.get("body", b"")
        if len(held) > most_bytes:
            raise BodyTooLarge(f"the body is larger than {most_bytes} bytes")
        more = message.get("more_body", False)
    return bytes(held)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, then what else comes."""
    whole: MutableMapping[str, Any] | None = {
        "type": "http.request",
        "body": body,
        "more_body": False,
    }

    async def replay() -> MutableMapping[str, Any]:
        nonlocal whole
        if whole is None:
            return await receive()
        given, whole = whole, None
        return given

    return replay

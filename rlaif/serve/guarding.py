"""Who may ask, how much at once, and for how long: checked before a request is read."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
OPEN_PATHS = ("/health", "/docs", "/openapi.json")


class GuardMiddleware:
    """ASGI middleware: the token, and the size of bodies (declared or not).

    Args:
        token: what a bearer must present; None lets everybody ask.
        most_bytes: of a body.
        most_seconds: until it is there whole.
    """

    def __init__(self, app: App, token: str | None, most_bytes: int, most_seconds: float) -> None:
        self._seconds = most_seconds
        self._app = app
        self._token = token.encode() if token else None
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            right = secrets.compare_digest(given.strip(), self._token)
            if scheme.lower() != b"bearer" or not right:
                extra = [(b"www-authenticate", b"Bearer")]
                await _refuse(send, 401, "the token is missing or wrong", extra)
                return
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._most:
            await _refuse(send, 413, f"the body is larger than {self._most} bytes")
            return
        body, more, read = [], True, 0
        deadline = asyncio.get_running_loop().time() + self._seconds
        while more:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                await _refuse(send, 408, f"the body did not arrive within {self._seconds:g} s")
                return
            if message["type"] == "http.disconnect":
                return
            body.append(message.get("body", b""))
            read += len(body[-1])
            if read > self._most:
                await _refuse(send, 413, f"the body is larger than {self._most} bytes")
                return
            more = message.get("more_body", False)
        whole: MutableMapping[str, Any] | None = {
            "type": "http.request",
            "body": b"".join(body),
            "more_body": False,
        }

        async def replay() -> MutableMapping[str, Any]:
            nonlocal whole
            if whole is None:
                return await receive()
            given, whole = whole, None
            return given

        await self._app(scope, replay, send)


async def _refuse(
    send: Send, status: int, message: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    error = {"error": {"message": message, "type": "invalid_request_error", "code": status}}
    body = json.dumps(error).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *(headers or []),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})

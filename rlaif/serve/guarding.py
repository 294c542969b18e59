"""Who may ask, how much at once, and for how long: checked before a request is read."""

from __future__ import annotations

import base64
import json
import secrets

from rlaif.util.asgi import (
    App,
    BodyTooLarge,
    BodyTooSlow,
    Receive,
    Scope,
    Send,
    receive_body,
    replay_body,
)
from rlaif.util.network import is_allowed_host

OPEN_PATHS = ("/health",)
DOCS_FILES = "/docs-files"
_DOCS = ("/docs", "/openapi.json")
"""Pages that a browser opens, which asks for a name and a password, not for a bearer's token."""


class GuardMiddleware:
    """ASGI middleware: the token, and the size of bodies (declared or not).

    Args:
        token: what a bearer must present; None lets everybody ask.
        most_bytes: of a body.
        most_seconds: until it is there whole.
        hosts: names that a `Host` header may have beside this machine's loopback; None for any.
    """

    def __init__(
        self,
        app: App,
        token: str | None,
        most_bytes: int,
        most_seconds: float,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self._seconds, self._hosts = most_seconds, hosts
        self._app = app
        self._token = token.encode() if token else None
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and not is_allowed_host(host, self._hosts):
            # A page whose name was pointed at this machine would read a judge without a token.
            await _refuse(
                send, 421, f"host {host[:100]!r} is not allowed: add it with --allow-host"
            )
            return
        path = scope["path"]
        if self._token is not None and path not in OPEN_PATHS:
            docs = scope["method"] == "GET" and (path in _DOCS or path.startswith(DOCS_FILES))
            if not _shows(self._token, headers.get(b"authorization", b""), basic=docs):
                extra = [(b"www-authenticate", b'Basic realm="rlaif"' if docs else b"Bearer")]
                await _refuse(send, 401, "the token is missing or wrong", extra)
                return
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._most:
            await _refuse(send, 413, f"the body is larger than {self._most} bytes")
            return
        try:
            body = await receive_body(receive, self._most, self._seconds)
        except BodyTooLarge as error:
            await _refuse(send, 413, str(error))
            return
        except BodyTooSlow as error:
            await _refuse(send, 408, str(error))
            return
        if body is not None:
            await self._app(scope, replay_body(body, receive), send)


def _shows(token: bytes, header: bytes, *, basic: bool) -> bool:
    """Whether an `Authorization` header has the token, as a bearer's or (`basic`) as a password."""
    scheme, _, given = header.partition(b" ")
    given = given.strip()
    if basic and scheme.lower() == b"basic":
        try:
            given = base64.b64decode(given, validate=True).partition(b":")[2]
        except ValueError:
            return False
    elif scheme.lower() != b"bearer":
        return False
    return secrets.compare_digest(given, token)


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

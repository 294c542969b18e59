"""Who may come in: the Host header, the token, signed names, and forms that are ours."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlaif.util.asgi import BodyTooLarge, BodyTooSlow, receive_body, replay_body
from rlaif.util.network import host_name, is_allowed_host

MOST_BYTES = 256 << 10
BODY_SECONDS = 30.0
HEADERS = {
    # Nothing from elsewhere, nothing inline: text from data that got into a page could not run.
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class CookieSigner:
    """Signs what the browser keeps and sends back.

    Args:
        secret: of this review; it outlives the server.
    """

    secret: bytes

    @property
    def token_cookie(self) -> str:
        """Its name: of this review, since cookies of one machine do not know ports."""
        return f"rlaif_review_{self.seal('cookie', '')[:8]}"

    @property
    def name_cookie(self) -> str:
        """The same for the reviewer's name."""
        return f"rlaif_reviewer_{self.seal('cookie', '')[:8]}"

    def seal(self, kind: str, text: str) -> str:
        """The signature of a text."""
        return hmac.new(self.secret, f"{kind}:{text}".encode(), hashlib.sha256).hexdigest()[:32]

    def holds(self, kind: str, text: str, given: str) -> bool:
        """Whether a signature is right."""
        return hmac.compare_digest(self.seal(kind, text).encode(), given.encode())

    def named(self, name: str) -> str:
        """A name as a cookie keeps it."""
        return f"{name.encode().hex()}.{self.seal('name', name)}"

    def name(self, cookie: str) -> str:
        """The name that a cookie holds, or "" for one that we did not sign."""
        text, _, seal = cookie.partition(".")
        try:
            name = bytes.fromhex(text).decode()
        except ValueError:
            return ""
        return name if self.holds("name", name, seal) else ""


class AccessMiddleware:
    """ASGI middleware in front of every page.

    Refuses hosts that were not named (a page elsewhere whose name is pointed at this machine would
    use one), forms sent by other pages, bodies over 256 KiB or half sent, and, where there is a
    token, whoever has not shown it.

    Args:
        hosts: names that the browser may ask for, without port; addresses of this machine's own
            loopback are always allowed.
        token: shown once as `?token=...`, then kept as a cookie.
    """

    def __init__(
        self, app: ASGIApp, seals: CookieSigner, hosts: frozenset[str], token: str | None
    ) -> None:
        self._app, self._seals, self._token = app, seals, token
        self._hosts = {host_name(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal:
            await PlainTextResponse(refusal[1], refusal[0], HEADERS)(scope, receive, send)
            return
        if self._token is not None:
            answer = self._ask_token(scope, headers)
            if answer is not None:
                await answer(scope, receive, send)
                return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        try:
            body = await receive_body(receive, MOST_BYTES, BODY_SECONDS)
        except (BodyTooLarge, BodyTooSlow) as error:
            status = 413 if isinstance(error, BodyTooLarge) else 408
            await PlainTextResponse(str(error), status, HEADERS)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, replay_body(body, receive), sealed)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not is_allowed_host(host, self._hosts):
            return 421, f"host {host[:100]!r} is not allowed: add it with --allow-host"
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin")
            if origin is not None and _netloc(origin) != host:
                return 403, "the form came from another site"
            if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return 403, "the form came from another site"
            length = headers.get("content-length", "")
            if not length.isdigit() or int(length) > MOST_BYTES:
                return 413, f"a form can hold at most {MOST_BYTES} bytes"
        return None

    def _ask_token(
        self, scope: Scope, headers: dict[str, str]
    ) -> PlainTextResponse | RedirectResponse | None:
        assert self._token is not None
        kept = cookie_parser(headers.get("cookie", "")).get(self._seals.token_cookie, "")
        if self._seals.holds("token", self._token, kept):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            text = "the token is missing or wrong: open the address that `rlaif review` printed"
            return PlainTextResponse(text, 401, HEADERS)
        answer = RedirectResponse(scope["path"] if scope["path"] == "/" else "/", 303, HEADERS)
        answer.set_cookie(
            self._seals.token_cookie,
            self._seals.seal("token", self._token),
            httponly=True,
            samesite="lax",
            max_age=30 * 86400,  # lax: the address may be opened from a mail
        )
        return answer


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # no address
        return ""

"""Addresses of servers: without their secrets, and whether a key may be sent to them."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit

from rlaif.util.network import is_loopback

_ADDRESS = re.compile(r"((?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]++://)")
_SHORTEST_SECRET = 6
"""Characters; what is shorter is a word that may stand in any message."""
NAMED = "RLAIF_NAMED_ADDRESSES"
"""Environment: addresses that the user named to a recipe, with spaces between."""


def without_secrets(url: str) -> str:
    """An address without user, password, query and fragment.

    A password with `/`, `?` or `#` in it ends the host too soon, and what looks like a port may be
    the beginning of it: only what stands behind the last `@` is sure to hold none.
    """
    scheme, mark, rest = url.partition("://")
    head = re.split("[/?#]", rest, maxsplit=1)[0]
    if mark and "@" in rest and "@" not in head and ":" in head and not head.endswith("]"):
        url = f"{scheme}://{rest.rpartition('@')[2]}"
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, query="", fragment="").geturl()
    except ValueError:  # no address: what may be a secret is cut off
        return url.rpartition("@")[2].partition("?")[0]


def secrets_in(url: str) -> set[str]:
    """The password of an address and the values of its query, as they are written and as sent."""
    try:
        parts = urlsplit(url)
        queried = (value for _, value in parse_qsl(parts.query))
        found = {parts.username or "", parts.password or "", *queried}
        if parts.username or parts.password:  # as it is sent
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            found.add(b64encode(pair.encode()).decode())
    except ValueError:
        return set()
    return {text for secret in found for text in (secret, unquote(secret)) if text}


def mask(text: str, key: str, url: str) -> str:
    """What a server says, without the key and the secrets of its address, which it may say back."""
    for secret in sorted({key, *secrets_in(url)}, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text


def hide_secrets(text: str) -> str:
    """A text, such as a command's argument, with its addresses as `without_secrets` has them."""
    # A password may hold anything: an address ends where the next one begins.
    parts = _ADDRESS.split(text)
    return parts[0] + "".join(
        without_secrets(scheme + rest)
        for scheme, rest in zip(parts[1::2], parts[2::2], strict=True)
    )


def is_named(url: str, others: Iterable[str] = ()) -> bool:
    """Whether the user named a server, or it is on this machine: then it may get the user's key."""
    named = [*os.environ.get(NAMED, "").split(), os.environ.get("OPENAI_BASE_URL", ""), *others]
    own = _server(url)
    return is_loopback(own[0]) or any(_server(address) == own for address in named if address)


def _server(url: str) -> tuple[str, int | None, str]:
    """Host, port and scheme: what goes over https is not sent in the open."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        return (parts.hostname or "").lower(), port, parts.scheme.lower()
    except ValueError:
        return "", None, ""

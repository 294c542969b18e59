"""Addresses of servers: without their secrets, and whether a key may be sent to them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from rlaif.util.network import is_loopback

NAMED = "RLAIF_NAMED_ADDRESSES"
"""Environment: addresses that the user named to a recipe, with spaces between."""


def without_secrets(url: str) -> str:
    """An address without user, password, query and fragment.

    A password with `/`, `?` or `#` in it ends the host too soon: what looks like a port is none.
    """
    scheme, mark, rest = url.partition("://")
    head = re.split("[/?#]", rest, maxsplit=1)[0]
    port = head.rpartition(":")[2] if ":" in head and not head.endswith("]") else ""
    if mark and "@" in rest and "@" not in head and port and not port.isdigit():
        url = f"{scheme}://{rest.rpartition('@')[2]}"
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, query="", fragment="").geturl()
    except ValueError:  # no address: what may be a secret is cut off
        return url.rpartition("@")[2].partition("?")[0]


def is_named(url: str, others: Iterable[str] = ()) -> bool:
    """Whether the user named a server, or it is on this machine: then it may get the user's key."""
    named = [*os.environ.get(NAMED, "").split(), os.environ.get("OPENAI_BASE_URL", ""), *others]
    own = _server(url)
    return is_loopback(own[0]) or any(_server(address) == own for address in named if address)


def _server(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").lower(), parts.port
    except ValueError:
        return "", None

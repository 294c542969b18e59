"""Addresses that servers of ours listen at."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

from rlaif.errors import RlaifError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_allowed_host(header: str, allowed: Collection[str]) -> bool:
    """Whether a `Host` header names this machine's loopback or one of `allowed` names.

    A page from elsewhere whose name was pointed at this machine (DNS rebinding) names its own.

    Args:
        allowed: as `host_name` gives them.
    """
    name = host_name(header)
    return name in allowed or (bool(name) and is_loopback(name))


def host_name(host: str) -> str:
    """A host in lower case, without port and brackets; "" for none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def check_binding(host: str, token: str | None) -> None:
    """Refuse to be open to the network.

    Raises:
        RlaifError: `host` is not loopback and there is no token.
    """
    if not is_loopback(host) and not token:
        raise RlaifError(
            f"--host {host} is reachable from other machines, but no token is set",
            hint="Set a token with --token or $RLAIF_TOKEN, or use --host 127.0.0.1.",
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; port 0 is any free one.

    Raises:
        RlaifError: it is taken, or no address of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        raise RlaifError(
            f"can't listen on {host}:{port} ({error.strerror})", hint="Use another --port."
        ) from None
    return bound

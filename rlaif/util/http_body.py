"""Reads the body of an answer within the time and the size that one may have, unpacked."""

from __future__ import annotations

import time
import zlib

import httpx

ACCEPTED = {"Accept-Encoding": "gzip"}
"""The header of requests: what is packed in other ways, or twice, is refused."""


class BodyRefused(Exception):
    """A body that is too large, or packed in a way that was not asked for."""


def read_body(answer: httpx.Response, *, most: int, until: float) -> httpx.Response:
    """An answer with its whole body.

    Args:
        answer: of a streamed request, whose body nobody has read.
        most: bytes, unpacked.
        until: on the monotonic clock.

    Raises:
        BodyRefused: it is larger, or packed otherwise.
        httpx.HTTPError: it does not come in time.
    """
    packed = answer.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity", "gzip"):
        raise BodyRefused(f"the answer is packed as {packed[:40]!r}, which was not asked for")
    unpack = zlib.decompressobj(31) if packed == "gzip" else None
    held = bytearray()
    began = time.monotonic()
    for piece in answer.iter_raw():
        try:
            held += unpack.decompress(piece, most + 1 - len(held)) if unpack else piece
        except zlib.error as error:
            raise BodyRefused(f"the answer can't be unpacked ({error})") from None
        if len(held) > most:
            raise BodyRefused(f"the answer is larger than {most >> 20} MiB")
        if time.monotonic() > until:
            raise httpx.ReadTimeout(f"no whole answer in {until - began:.0f} seconds")
    own = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(key, value) for key, value in answer.headers.items() if key.lower() not in own]
    return httpx.Response(
        answer.status_code, headers=headers, content=bytes(held), request=answer.request
    )

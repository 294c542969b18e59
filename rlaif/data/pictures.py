"""Pictures that belong to a prompt: found in a row, and loaded for a judge that can see.

A picture is never left out silently: a row is refused where one of them can't be passed on.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlaif.data.messages import BadRow
from rlaif.data.row_model import DataRow, refuse_media
from rlaif.records import Picture

MARK = "[image]"
"""What stands in a text where a picture belongs."""
_MOST_PIXELS = 1 << 26
_MOST_BYTES = 64 << 20


def load_pictures(found: DataRow, folder: str) -> tuple[Picture, ...]:
    """The pictures of a row's prompt, in their order.

    Args:
        folder: where relative paths start; "" where the judge takes text alone.

    Raises:
        BadRow: it has other media, pictures in a response, or one that can't be loaded.
    """
    if not found.media:
        return ()
    if found.media != ("image",):
        refuse_media(found)
    if not folder:
        raise BadRow("has pictures (image), and the judge takes text alone")
    if not found.images:
        raise BadRow("has pictures (image) in a response, or a mark of one that is not there")
    return tuple(_load(value, Path(folder)) for value in _flat(found.images))


def _flat(values: Iterable[object]) -> Iterable[object]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        elif value is not None and value != "":
            yield value


def _load(value: object, folder: Path) -> Picture:
    data, source = _bytes_of(value, folder)
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if width * height > _MOST_PIXELS:
                raise BadRow(f"a picture has {width} x {height} pixels, above {_MOST_PIXELS}")
            image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise BadRow(f"a picture can't be read ({' '.join(str(error).split())[:120]})") from None
    return Picture(data, source)


def _bytes_of(value: object, folder: Path) -> tuple[bytes, str]:
    """The bytes of a picture's file, and how a row that is written names it."""
    if isinstance(value, Mapping):
        held = value.get("bytes")
        if isinstance(held, bytes):
            return held, _as_uri(held)
        if value.get("type") == "base64" and isinstance(value.get("data"), str):
            return _decode(value["data"])
        inner = next(
            (
                value[key]
                for key in ("url", "image_url", "path", "image", "source", "data")
                if value.get(key)
            ),
            None,
        )
        if inner is None:
            raise BadRow("a picture has no bytes, path or address")
        return _bytes_of(inner, folder)
    if isinstance(value, bytes):
        return value, _as_uri(value)
    if not isinstance(value, str):
        raise BadRow(f"a picture is a {type(value).__name__}, not bytes, a path or an address")
    if value.startswith("data:"):
        head, comma, rest = value.partition(",")
        if not comma or not head.endswith(";base64"):
            raise BadRow("a picture's `data:` address is not base64")
        return _decode(rest)
    if value.startswith(("http:", "https:")):
        raise BadRow(f"a picture is at {value[:80]!r}; download it and give its path")
    path = folder / value.removeprefix("file://")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadRow(f"picture {value[:80]!r} is larger than {_MOST_BYTES >> 20} MiB")
        return path.read_bytes(), str(path.resolve())
    except (OSError, ValueError):
        raise BadRow(f"picture {value[:80]!r} is not a file that can be read") from None


def _decode(text: str) -> tuple[bytes, str]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRow("a picture's base64 is broken") from None
    return data, _as_uri(data)


def _as_uri(data: bytes) -> str:
    return f"data:image/*;base64,{base64.b64encode(data).decode()}"

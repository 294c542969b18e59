"""Content addresses of large files, kept so that a resumed run need not read its input again."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from rlaif.util.files import write_atomically
from rlaif.util.hashing import file_digest
from rlaif.util.paths import is_url
from rlaif.util.user_cache import user_cache_dir

LARGE = 256 << 20
"""Bytes from which on an address is kept; smaller files are read again."""
MOST_KEPT = 1000
NAME = "digests.v1.json"


def kept_digest(path: Path) -> str:
    """The address of a file's bytes, as `file_digest` gives it.

    That of a large file is taken as known while its size and its time of change are the same.
    """
    stat = path.stat()
    changed = getattr(stat, "st_mtime_ns", 0)
    if stat.st_size < LARGE or not changed:
        return file_digest(path)
    name = str(path) if is_url(path) else str(path.resolve())
    state = [stat.st_size, changed]
    file = user_cache_dir() / NAME
    kept: dict[str, object] = {}
    with suppress(OSError, ValueError):
        read = json.loads(file.read_text(encoding="utf-8"))
        kept = read if isinstance(read, dict) else {}
    known = kept.get(name)
    if isinstance(known, list) and known[:2] == state and isinstance(known[-1], str):
        return str(known[-1])
    found = file_digest(path)
    kept.pop(name, None)
    kept[name] = [*state, found]
    with suppress(OSError):  # it is only read again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(dict(list(kept.items())[-MOST_KEPT:])))
    return found

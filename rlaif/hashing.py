"""Content addresses: how constitutions, templates, inputs and models are told apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_WHOLE = 64 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10


def digest(value: object) -> str:
    """32 hex digits of the canonical JSON of `value` (BLAKE2b, 128 bits)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """32 hex digits of a file's bytes.

    Files over 64 MiB (model weights) are addressed by size and 64 evenly spaced samples of
    64 KiB: hashing an 8B judge in full would take longer than loading it.
    """
    size = path.stat().st_size
    state = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        if size <= _WHOLE:
            while block := file.read(1 << 20):
                state.update(block)
        else:
            for i in range(_SAMPLES):
                file.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                state.update(file.read(_SAMPLE_BYTES))
    return state.hexdigest()


def folder_digest(folder: Path, patterns: tuple[str, ...]) -> str:
    """One address for the files of `folder` that match `patterns`, names included."""
    files = sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_file()})
    return digest({p.name: file_digest(p) for p in files})

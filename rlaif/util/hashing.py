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


def file_digest(path: Path, *, sampled: bool = False) -> str:
    """32 hex digits of a file's bytes.

    Args:
        sampled: address a file over 64 MiB by its size and 64 evenly spaced samples of 64 KiB.
            For model weights only: a training changes all of them, and hashing an 8B judge in
            full would take longer than loading it.
    """
    size = path.stat().st_size
    state = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        if size <= _WHOLE or not sampled:
            while block := file.read(1 << 20):
                state.update(block)
        else:
            for i in range(_SAMPLES):
                file.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                state.update(file.read(_SAMPLE_BYTES))
    return state.hexdigest()


def folder_digest(folder: Path, patterns: tuple[str, ...], *, sampled: bool = False) -> str:
    """One address for the files of `folder` that match `patterns`, relative paths included."""
    files = sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_file()})
    return digest({str(p.relative_to(folder)): file_digest(p, sampled=sampled) for p in files})

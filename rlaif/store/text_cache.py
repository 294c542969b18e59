"""What models wrote, kept for good: a run that is killed or changed writes nothing twice.

Keys are content addresses of model, prompt tokens and sampling, seed included.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlaif.records import GenerationRequest
from rlaif.store.database import Database, cache_folder

_APPLICATION = 0x524C5458
_SCHEMA = """
CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, text TEXT, finished INTEGER, tokens INTEGER)
    WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Written:
    """A text by a model.

    Attributes:
        finished: False where the token limit cut it.
        tokens: how many it has.
    """

    text: str
    finished: bool
    tokens: int


def default_text_cache_path() -> Path:
    """Beside the verdict cache."""
    return cache_folder() / "texts.v1.sqlite"


def text_key(fingerprint: str, request: GenerationRequest) -> bytes:
    """16 bytes for a model and a request, without the request's name."""
    sampling = (request.max_tokens, request.temperature, request.top_p, request.seed)
    state = hashlib.blake2b(repr((fingerprint, sampling)).encode(), digest_size=16)
    state.update(array("I", request.token_ids).tobytes())
    return state.digest()


class TextCache:
    """Texts by key.

    Raises:
        RlaifError: the file can't be opened, or (from every method) breaks in use.
    """

    def __init__(self, path: Path) -> None:
        self._file = Database(path, _APPLICATION, _SCHEMA, "text cache")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Written]:
        """The texts known for `keys`."""
        found: dict[bytes, Written] = {}
        with self._file.guarded():
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, text, finished, tokens FROM texts WHERE key IN ({marks})"
                for key, text, finished, tokens in self._file.reader.execute(query, part):
                    found[key] = Written(text, bool(finished), tokens)
        return found

    def put(self, texts: Iterable[tuple[bytes, Written]]) -> None:
        """Keep texts, in one transaction."""
        rows = [(key, w.text, w.finished, w.tokens) for key, w in texts]
        if rows:
            with self._file.guarded():
                self._file.writer.execute("BEGIN IMMEDIATE")
                self._file.writer.executemany("INSERT OR IGNORE INTO texts VALUES (?,?,?,?)", rows)
                self._file.writer.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

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
from rlaif.store.database import Database
from rlaif.util.user_cache import user_cache_dir

_APPLICATION = 0x524C5458
_SCHEMA = """
CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, text TEXT, finished INTEGER, tokens INTEGER)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS times (key BLOB PRIMARY KEY, made TEXT) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """A text by a model.

    Attributes:
        finished: False where the token limit cut it.
        tokens: how many it has.
        made: when it was written, UTC; "" where that was not kept.
    """

    text: str
    finished: bool
    tokens: int
    made: str = ""


def text_cache_path(folder: Path | None = None) -> Path:
    """The file in a cache folder, beside the verdict cache; None for the user's."""
    return (folder or user_cache_dir()) / "texts.v1.sqlite"


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

    def get(self, keys: Sequence[bytes]) -> dict[bytes, GeneratedText]:
        """The texts known for `keys`."""
        found: dict[bytes, GeneratedText] = {}
        with self._file.guarded():
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                query = (
                    "SELECT key, text, finished, tokens, coalesce(made, '') "
                    f"FROM texts LEFT JOIN times USING (key) WHERE key IN ({marks})"
                )
                for key, text, finished, tokens, made in self._file.reader.execute(query, part):
                    # What something else wrote into the file is no text: it is asked again.
                    if isinstance(text, str) and isinstance(tokens, int) and isinstance(made, str):
                        found[key] = GeneratedText(text, bool(finished), tokens, made)
        return found

    def put(self, texts: Iterable[tuple[bytes, GeneratedText]]) -> None:
        """Keep texts, in one transaction."""
        kept = list(texts)
        if kept:
            with self._file.guarded():
                write = self._file.writer
                write.execute("BEGIN IMMEDIATE")
                write.executemany(
                    "INSERT OR IGNORE INTO texts VALUES (?,?,?,?)",
                    [(key, w.text, w.finished, w.tokens) for key, w in kept],
                )
                write.executemany(
                    "INSERT OR IGNORE INTO times VALUES (?,?)", [(key, w.made) for key, w in kept]
                )
                write.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

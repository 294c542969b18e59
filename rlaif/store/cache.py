"""The verdict cache: what a judge answered to exactly these tokens, kept for good.

Keys are content addresses of model, prompt tokens and label tokens, so a change to one
principle leaves every other answer in place.  SQLite in write-ahead mode: what `put` returned
from survives a killed process, and several runs may share one file.
"""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlaif.errors import RlaifError

_APPLICATION = 0x524C4146
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, logprobs BLOB, reasoning TEXT)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS speeds (judge TEXT, engine TEXT, verdicts_per_second REAL,
                                   PRIMARY KEY (judge, engine));
"""


def default_cache_path() -> Path:
    """`$RLAIF_CACHE_DIR`, or the user's cache folder, with the file's name."""
    folder = os.environ.get("RLAIF_CACHE_DIR")
    if folder:
        return Path(folder) / "verdicts.v1.sqlite"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "rlaif" / "verdicts.v1.sqlite"


@dataclass(slots=True)
class Answer:
    """Label log-probabilities, and what the judge wrote before them ("" for nothing)."""

    logprobs: tuple[float, ...]
    reasoning: str = ""


def answer_keys(
    fingerprint: str,
    context: Sequence[int],
    tails: Iterable[Sequence[int]],
    label_ids: Iterable[Sequence[int]],
) -> list[bytes]:
    """16 bytes for each prompt `context + tail`: model (and manner), prompt and label tokens."""
    state = hashlib.blake2b(fingerprint.encode(), digest_size=16)
    state.update(array("I", context).tobytes())
    labels = b"".join(b"|" + array("I", spelled).tobytes() for spelled in label_ids)
    keys = []
    for tail in tails:
        own = state.copy()
        own.update(array("I", tail).tobytes() + labels)
        keys.append(own.digest())
    return keys


class VerdictCache:
    """Label log-probabilities by key.

    Args:
        path: the SQLite file; made if missing.

    Raises:
        RlaifError: the file cannot be opened or is not a cache; from every method: it cannot be
            read or written any more (disk full, damaged, locked by another process).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Two connections: reading does not wait for a write, whichever thread does either.
            self._db, self._reader = (
                sqlite3.connect(
                    path,
                    timeout=60,
                    isolation_level=None,
                    check_same_thread=False,
                    cached_statements=8,
                )
                for _ in range(2)
            )
            known = self._db.execute("PRAGMA application_id").fetchone()[0]
            tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and known != _APPLICATION:
                raise sqlite3.DatabaseError("it is a database of something else")
            self._db.execute(f"PRAGMA application_id={_APPLICATION}")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint=8000")
            for connection in (self._db, self._reader):
                connection.execute("PRAGMA cache_size=-1000")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise RlaifError(
                f"verdict cache {str(path)!r} could not be opened ({error})",
                hint="Name another file with --cache; it is made if missing.",
            ) from None

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RlaifError(
                f"verdict cache {str(self._path)!r} failed ({error})",
                hint="Check the space left there, or name another file with --cache; then run the "
                "same command again: it goes on where it stopped.",
            ) from None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        """The answers known for `keys`."""
        found: dict[bytes, Answer] = {}
        with self._guarded():
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                rows = self._reader.execute(
                    f"SELECT key, logprobs, reasoning FROM answers WHERE key IN ({marks})", part
                )
                for key, blob, reasoning in rows:
                    found[key] = Answer(struct.unpack(f"<{len(blob) // 8}d", blob), reasoning)
        return found

    def put(self, answers: Iterable[tuple[bytes, Answer]]) -> None:
        """Keep answers, in one transaction.  NaN is never kept."""
        rows = sorted(
            (key, struct.pack(f"<{len(answer.logprobs)}d", *answer.logprobs), answer.reasoning)
            for key, answer in answers
            if not any(map(math.isnan, answer.logprobs))
        )  # in the order of the index: neighbours share a page
        if not rows:
            return
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            for start in range(0, len(rows), 100):
                # Many rows a statement: each one lets go of the interpreter's lock once.
                part = rows[start : start + 100]
                marks = ",".join(["(?,?,?)"] * len(part))
                values = [value for row in part for value in row]
                self._db.execute(f"INSERT OR IGNORE INTO answers VALUES {marks}", values)
            self._db.execute("COMMIT")

    def record_rate(self, judge: str, engine: str, verdicts_per_second: float) -> None:
        """Remember how fast a judge was here on an engine, for `--dry-run` and `--engine auto`."""
        with self._guarded():
            self._db.execute(
                "INSERT OR REPLACE INTO speeds VALUES (?, ?, ?)",
                (judge, engine, verdicts_per_second),
            )

    def rates(self, judge: str) -> dict[str, float]:
        """Verdicts per second of the judge's last run here on each engine."""
        with self._guarded():
            rows = self._db.execute(
                "SELECT engine, verdicts_per_second FROM speeds WHERE judge = ?", (judge,)
            )
            return {engine: float(rate) for engine, rate in rows}

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._db.close()

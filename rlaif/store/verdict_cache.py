"""The verdict cache: what a judge answered to exactly these tokens, kept for good.

Keys are content addresses of model, prompt tokens and label tokens, so a change to one
principle leaves every other answer in place.  SQLite in write-ahead mode: what `put` returned
from survives a killed process, and several runs may share one file.
"""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlaif.store.database import Database
from rlaif.util.user_cache import user_cache_dir

_APPLICATION = 0x524C4146
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, logprobs BLOB, reasoning TEXT)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rates (judge TEXT, engine TEXT, conditions TEXT,
    verdicts_per_second REAL, PRIMARY KEY (judge, engine, conditions));
DROP TABLE IF EXISTS speeds;
"""


_SIZES = range(8, 8 * 64 + 1, 8)
"""Bytes of the log-probabilities of one to 64 labels."""


def verdict_cache_path(folder: Path | None = None) -> Path:
    """The file in a cache folder; None for the user's."""
    return (folder or user_cache_dir()) / "verdicts.v1.sqlite"


@dataclass(slots=True)
class CachedAnswer:
    """Label log-probabilities, and what the judge wrote before them ("" for nothing)."""

    logprobs: tuple[float, ...]
    reasoning: str = ""


class AnswerStore(Protocol):
    """Where answers are known and kept: a `VerdictCache`, or what stands for one elsewhere."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, CachedAnswer]:
        """See `VerdictCache.get`."""
        ...

    def put(self, answers: Sequence[tuple[bytes, CachedAnswer]]) -> None:
        """See `VerdictCache.put`."""
        ...


def answer_keys(
    fingerprint: str,
    context: Sequence[int],
    tails: Iterable[Sequence[int]],
    label_ids: Iterable[Sequence[int]],
) -> list[bytes]:
    """16 bytes for each prompt `context + tail`: model (and manner), prompt and label tokens.

    The first five bytes are of the prompt's beginning alone (a power of two of its tokens, at most
    three quarters), so that the questions about a text stand together in the file: what is written
    together is on few pages, however large the file is.
    """
    state = hashlib.blake2b(fingerprint.encode(), digest_size=11)
    ids = array("I", context)
    state.update(ids.tobytes())
    labels = b"".join(b"|" + array("I", spelled).tobytes() for spelled in label_ids)
    beginnings: dict[int, bytes] = {}
    keys = []
    for tail in tails:
        rest = array("I", tail)
        length = 1 << ((len(ids) + len(rest)) * 3 // 4).bit_length() >> 1
        beginning = beginnings.get(length)
        if beginning is None:
            first = (ids if length <= len(ids) else ids + rest)[:length]
            beginning = hashlib.blake2b(first.tobytes(), digest_size=5).digest()
            if length <= len(ids):
                beginnings[length] = beginning
        own = state.copy()
        own.update(rest.tobytes() + labels)
        keys.append(beginning + own.digest())
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
        self._file = Database(path, _APPLICATION, _SCHEMA, "verdict cache")
        self._db, self._reader = self._file.writer, self._file.reader
        self._guarded = self._file.guarded

    def get(self, keys: Sequence[bytes]) -> dict[bytes, CachedAnswer]:
        """The answers known for `keys`."""
        found: dict[bytes, CachedAnswer] = {}
        with self._guarded():
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                rows = self._reader.execute(
                    f"SELECT key, logprobs, reasoning FROM answers WHERE key IN ({marks})", part
                )
                for key, blob, reasoning in rows:
                    # What something else wrote into the file is no answer: it is asked again.
                    whole = isinstance(blob, bytes) and len(blob) in _SIZES
                    if whole and isinstance(reasoning, str):
                        values = struct.unpack(f"<{len(blob) // 8}d", blob)
                        found[key] = CachedAnswer(values, reasoning)
        return found

    def put(self, answers: Iterable[tuple[bytes, CachedAnswer]]) -> None:
        """Keep answers, in one transaction.  NaN is never kept."""
        rows = sorted(
            (key, struct.pack(f"<{len(answer.logprobs)}d", *answer.logprobs), answer.reasoning)
            for key, answer in answers
            if not any(map(math.isnan, answer.logprobs))
        )  # in the order of the index: neighbors share a page
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

    def record_rate(
        self, judge: str, engine: str, verdicts_per_second: float, conditions: str = ""
    ) -> None:
        """Remember how fast a judge was here on an engine.

        Args:
            conditions: of a benchmark: rates under different ones are not compared; they begin
                with the numbers that the judge is in.  "" for a labeling run.
        """
        with self._guarded():
            self._db.execute(
                "INSERT OR REPLACE INTO rates VALUES (?, ?, ?, ?)",
                (judge, engine, conditions, verdicts_per_second),
            )

    def rates(self, judge: str, *, benchmarks: bool, numbers: str = "") -> dict[str, float]:
        """Verdicts per second of the judge on each engine, as last measured here.

        Args:
            numbers: only benchmarks of the judge in these, see `EngineSettings.numbers`.
            benchmarks: those of benchmarks: the last conditions under which several engines were
                measured, else the last at all; otherwise those of labeling runs.
        """
        with self._guarded():
            rows = self._db.execute(
                "SELECT conditions, engine, verdicts_per_second FROM rates "
                f"WHERE judge = ? AND conditions {'!=' if benchmarks else '='} '' ORDER BY rowid",
                (judge,),
            ).fetchall()
        found: dict[str, dict[str, float]] = {}
        for conditions, engine, rate in rows:
            if not conditions.startswith(numbers):
                continue
            known = found.pop(conditions, {})
            found[conditions] = {**known, engine: float(rate)}  # the last measured stands last
        several = [rates for rates in found.values() if len(rates) > 1]
        return (several or list(found.values()) or [{}])[-1]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

"""The answers about one part of a run, in files beside it: no database is shared by the workers.

A file is a Parquet table of keys (16 bytes, in order), label log-probabilities and reasonings.
While a part is under way, what was answered is added as small files; when it is done, one file
takes their place.
"""

from __future__ import annotations

import bisect
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rlaif.store.verdict_cache import CachedAnswer
from rlaif.util.paths import forget_listings, is_url

ANSWERS = "answers.parquet"
SEGMENTS = "answers-under-way"
KEY_BYTES, MOST_LABELS = 16, 64
REMOTE_SECONDS = 2.0
"""Where each file costs a request, answers are written so often; elsewhere, whenever they come."""

_log = logging.getLogger(__name__)
Numbers: TypeAlias = "npt.NDArray[np.uint64]"


class KnownAnswers:
    """Answers of several files, found by binary search.

    Args:
        files: those that are missing or damaged hold nothing; of an answer that is in several, the
            first counts.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        tables = [table for table in map(_read, files) if table is not None]
        table = pa.concat_tables([_schema().empty_table(), *tables]).combine_chunks()
        high, low = _halves(b"".join(table["key"].to_pylist()))
        self._order = np.lexsort((low, high))  # stable: of equal keys, the first file's is first
        self._high, self._low = high[self._order], low[self._order]
        lists = pa.concat_arrays([*table["logprobs"].chunks, pa.array([], _schema()[1].type)])
        self._starts = lists.offsets.to_numpy()
        self._values = lists.values.to_numpy(zero_copy_only=False)
        self._reasonings = table["reasoning"]
        self._silent = pc.equal(self._reasonings, "").to_numpy()

    def __len__(self) -> int:
        return len(self._order)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, CachedAnswer]:
        """The answers known for `keys`."""
        if not keys or not len(self):
            return {}
        high, low = _halves(b"".join(keys))
        at = np.searchsorted(self._high, high, side="left")
        wanted = np.arange(len(keys))
        found: dict[bytes, CachedAnswer] = {}
        while len(wanted):  # as often as keys begin alike
            inside = at < len(self)
            wanted, at = wanted[inside], at[inside]
            alike = self._high[at] == high[wanted]
            wanted, at = wanted[alike], at[alike]
            same = self._low[at] == low[wanted]
            places = self._order[at[same]]
            for i, answer in zip(wanted[same].tolist(), self._answers(places), strict=True):
                if answer is not None:
                    found[keys[i]] = answer
            wanted, at = wanted[~same], at[~same] + 1
        return found

    def _answers(self, places: npt.NDArray[np.int64]) -> Iterator[CachedAnswer | None]:
        """None where something else wrote into the file: it is asked again."""
        starts, ends = self._starts[places], self._starts[places + 1]
        silent = self._silent[places].tolist()
        lists: list[list[float]]
        if len(places) and (ends - starts == ends[0] - starts[0]).all():
            columns = np.arange(ends[0] - starts[0])
            lists = self._values[starts[:, None] + columns].tolist()
        else:
            lists = [self._values[s:e].tolist() for s, e in zip(starts, ends, strict=True)]
        for values, nothing, place in zip(lists, silent, places, strict=True):
            reasoning = "" if nothing else self._reasonings[int(place)].as_py()
            whole = reasoning is not None and 1 <= len(values) <= MOST_LABELS
            if whole and not any(map(math.isnan, values)):
                yield CachedAnswer(tuple(values), reasoning)
            else:
                yield None


class PartAnswers:
    """An `AnswerStore` for one part; what an attempt leaves when it dies, the next one knows.

    Args:
        folder: of the part.
        attempt: names the files of this attempt.
        earlier: folders of the same part in other runs.
    """

    def __init__(self, folder: Path, attempt: str, earlier: Sequence[Path] = ()) -> None:
        self._folder, self._attempt = folder, attempt
        under_way = folder / SEGMENTS
        under_way.mkdir(parents=True, exist_ok=True)
        forget_listings(folder)
        own = sorted(under_way.glob("*.parquet"), key=lambda p: p.name)
        self._known = KnownAnswers([*own, *(e / ANSWERS for e in earlier)])
        self._asked: dict[bytes, CachedAnswer] = {}
        self._unsaved: dict[bytes, CachedAnswer] = {}
        self._patience = REMOTE_SECONDS if is_url(folder) else 0.0
        self._saved, self._files = time.monotonic(), 0

    def get(self, keys: Sequence[bytes]) -> dict[bytes, CachedAnswer]:
        """The answers known for `keys`."""
        found = {key: self._asked[key] for key in keys if key in self._asked}
        more = self._known.find([key for key in keys if key not in found])
        self._asked |= more
        return found | more

    def put(self, answers: Sequence[tuple[bytes, CachedAnswer]]) -> None:
        """Keep answers.  NaN is never kept."""
        for key, answer in answers:
            if key not in self._asked and not any(map(math.isnan, answer.logprobs)):
                self._asked[key] = self._unsaved[key] = answer
        if self._unsaved and time.monotonic() - self._saved >= self._patience:
            self._save()

    def _save(self) -> None:
        name = f"{self._attempt}-{self._files:06d}.parquet"
        write_key_file(self._folder / SEGMENTS / name, self._unsaved)
        self._unsaved, self._files = {}, self._files + 1
        self._saved = time.monotonic()

    def finish(self, file: Path) -> None:
        """Write all that was asked, and nothing else, to one file."""
        write_key_file(file, self._asked)
        self._unsaved = {}


class RunAnswers:
    """The answers of a finished run in parts; those of one part are held at a time.

    Args:
        files: with the answers of each part.
        firsts: the number of each part's first row in the whole input, from 0, in their order.
    """

    def __init__(self, files: Sequence[Path], firsts: Sequence[int]) -> None:
        self._files, self._firsts = files, firsts
        self._part, self._held = -1, KnownAnswers([])

    def of_row(self, row: int, keys: Sequence[bytes]) -> dict[bytes, CachedAnswer]:
        """The answers known for `keys`, which ask about a row of the input.

        Args:
            row: its number, from 0.
        """
        part = bisect.bisect_right(self._firsts, row) - 1
        if part != self._part:
            self._part, self._held = part, KnownAnswers([self._files[part]])
        return self._held.find(keys)


def write_key_file(file: Path, answers: Mapping[bytes, CachedAnswer]) -> None:
    """Write answers in the order of their keys; whoever reads meanwhile sees all or nothing."""
    import pyarrow as pa

    rows = sorted(answers.items(), key=lambda row: row[0])
    columns = [
        [key for key, _ in rows],
        [answer.logprobs for _, answer in rows],
        [answer.reasoning for _, answer in rows],
    ]
    schema = _schema()
    arrays = [pa.array(c, kind) for c, kind in zip(columns, schema.types, strict=True)]
    write_table(pa.Table.from_arrays(arrays, schema=schema), file, repeating=["reasoning"])


def write_table(table: Any, file: Path, *, repeating: Sequence[str]) -> None:
    """Write a Parquet file so that no half of it is ever seen.

    Args:
        repeating: columns whose values come again and again.
    """
    import pyarrow.parquet as pq

    settings = {"compression": "zstd", "use_dictionary": list(repeating), "write_statistics": False}
    if is_url(file):
        with file.open("wb") as sink:  # an object appears once it is whole
            pq.write_table(table, sink, **settings)
        return
    unfinished = file.with_name(f".{file.name}")
    pq.write_table(table, unfinished, **settings)
    unfinished.replace(file)


def _schema() -> Any:
    import pyarrow as pa

    fields = {
        "key": pa.binary(KEY_BYTES),
        "logprobs": pa.list_(pa.float64()),
        "reasoning": pa.string(),
    }
    return pa.schema(list(fields.items()))


def _read(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open("rb") as source:
            table = pq.read_table(source).select(["key", "logprobs", "reasoning"])
            found = table.cast(_schema())
            if found["key"].null_count:
                raise ValueError("a key is missing")
            return found
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        _log.warning("%s can't be read (%s): what it held is asked again", file, reason)
        return None


def _halves(keys: bytes) -> tuple[Numbers, Numbers]:
    """Keys as two numbers each, in the order of their bytes."""
    numbers = np.frombuffer(keys, dtype=">u8").reshape(-1, 2).astype(np.uint64)
    return numbers[:, 0].copy(), numbers[:, 1].copy()

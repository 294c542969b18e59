"""Answers beside a part: an oracle in a dictionary, attempts that die, files of others."""

from __future__ import annotations

import logging
import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.store.part_answers import (
    ANSWERS,
    SEGMENTS,
    KnownAnswers,
    PartAnswers,
    RunAnswers,
    write_key_file,
)
from rlaif.store.verdict_cache import CachedAnswer

# Few beginnings: many keys are alike in their first eight bytes.
KEYS = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from([b"a" * 8, b"\xff" * 8, b"\0" * 8]),
    st.binary(min_size=8, max_size=8),
)
VALUES = st.floats(max_value=0.0, allow_nan=False)
ANSWER = st.builds(
    CachedAnswer,
    st.lists(VALUES, min_size=1, max_size=4).map(tuple),
    st.sampled_from(["", "", "because", "ä \n"]),
)
FILES = st.lists(st.dictionaries(KEYS, ANSWER, max_size=20), max_size=3)


@given(files=FILES, more=st.lists(KEYS, max_size=10))
def test_what_is_found_is_what_a_dictionary_finds(
    files: list[dict[bytes, CachedAnswer]],
    more: list[bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("answers")
    expected: dict[bytes, CachedAnswer] = {}
    for number, answers in enumerate(files):
        write_key_file(folder / f"{number}.parquet", answers)
        expected = answers | expected  # the first file counts
    known = KnownAnswers([folder / f"{n}.parquet" for n in range(len(files))])
    asked = [key for answers in files for key in answers] + more
    assert known.find(asked) == {key: expected[key] for key in asked if key in expected}
    assert known.find([]) == {}


def answers_of(rng: random.Random, count: int) -> dict[bytes, CachedAnswer]:
    return {
        rng.randbytes(16): CachedAnswer((-rng.random(), -rng.random()), rng.choice(["", "why"]))
        for _ in range(count)
    }


def test_an_attempt_knows_what_those_before_it_were_told(tmp_path: Path) -> None:
    rng = random.Random(1)
    asked = answers_of(rng, 300)
    keys = list(asked)
    first = PartAnswers(tmp_path, "1")
    assert first.get(keys) == {}
    first.put([(key, asked[key]) for key in keys[:100]])
    first.put([(key, asked[key]) for key in keys[100:120]])
    # It dies.  What it is told later by somebody else's file is not its own.
    other = CachedAnswer((-9.0, -9.0))
    second = PartAnswers(tmp_path, "2")
    assert second.get(keys) == {key: asked[key] for key in keys[:120]}
    second.put([(keys[0], other), *((key, asked[key]) for key in keys[120:])])
    assert second.get(keys) == asked, "what is known is not told anew"
    second.finish(tmp_path / ANSWERS)
    assert KnownAnswers([tmp_path / ANSWERS]).find(keys) == asked


def test_the_last_file_holds_what_was_asked_and_nothing_else(tmp_path: Path) -> None:
    rng = random.Random(2)
    earlier, new = answers_of(rng, 50), answers_of(rng, 10)
    (tmp_path / "before").mkdir()
    write_key_file(tmp_path / "before" / ANSWERS, earlier)
    part = PartAnswers(tmp_path / "part", "1", [tmp_path / "before"])
    wanted = list(earlier)[:20]
    part.get(wanted)
    part.put(list(new.items()))
    part.finish(tmp_path / ANSWERS)
    again = PartAnswers(tmp_path / "other", "7", [tmp_path / "before"])
    again.put(list(new.items())[::-1])
    again.get(wanted[::-1])
    again.finish(tmp_path / "again.parquet")
    assert pq.read_table(tmp_path / ANSWERS).num_rows == 30
    assert (tmp_path / ANSWERS).read_bytes() == (tmp_path / "again.parquet").read_bytes()
    keys = pq.read_table(tmp_path / ANSWERS)["key"].to_pylist()
    assert keys == sorted(keys)


def test_not_a_number_is_no_answer(tmp_path: Path) -> None:
    part = PartAnswers(tmp_path, "1")
    part.put([(b"k" * 16, CachedAnswer((math.nan, 0.0)))])
    assert part.get([b"k" * 16]) == {}
    assert not list((tmp_path / SEGMENTS).iterdir())


@pytest.mark.parametrize(
    "table",
    [
        {"key": [b"k" * 16], "logprobs": [[math.nan, -1.0]], "reasoning": [""]},
        {"key": [b"k" * 16], "logprobs": [[]], "reasoning": [""]},
        {"key": [b"k" * 16], "logprobs": [[-1.0] * 65], "reasoning": [""]},
        {"key": [b"k" * 16], "logprobs": [None], "reasoning": [""]},
        {"key": [b"k" * 16], "logprobs": [[-1.0]], "reasoning": [None]},
        {"key": [None], "logprobs": [[-1.0]], "reasoning": [""]},
        {"key": [b"short"], "logprobs": [[-1.0]], "reasoning": [""]},
        {"key": [b"k" * 16], "logprobs": ["x"], "reasoning": [""]},
        {"other": [1]},
    ],
)
def test_what_something_else_wrote_is_no_answer(
    tmp_path: Path, table: dict[str, list[object]], caplog: pytest.LogCaptureFixture
) -> None:
    pq.write_table(pa.table(table), tmp_path / ANSWERS)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / ANSWERS).write_bytes((tmp_path / ANSWERS).read_bytes()[:-9])
    good = {b"g" * 16: CachedAnswer((-0.5, -1.5))}
    write_key_file(tmp_path / "good.parquet", good)
    with caplog.at_level(logging.WARNING):
        known = KnownAnswers(
            [tmp_path / ANSWERS, tmp_path / "torn" / ANSWERS, tmp_path / "good.parquet"]
        )
    assert known.find([b"k" * 16, b"g" * 16]) == good
    assert "is asked again" in caplog.text


def test_a_finished_run_is_read_by_its_rows(tmp_path: Path) -> None:
    rng = random.Random(3)
    parts = [answers_of(rng, n) for n in (5, 0, 7)]
    files = [tmp_path / f"{n}.parquet" for n in range(3)]
    for file, answers in zip(files, parts, strict=True):
        write_key_file(file, answers)
    run = RunAnswers(files, [0, 10, 20])
    everything = [key for answers in parts for key in answers]
    for row, part in ((0, 0), (9, 0), (10, 1), (25, 2), (3, 0)):
        assert run.of_row(row, everything) == parts[part]

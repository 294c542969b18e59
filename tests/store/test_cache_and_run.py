"""The verdict cache and the run directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.errors import RlaifError
from rlaif.runs.directory import RunDirectory, check_config, read_manifest
from rlaif.store.verdict_cache import CachedAnswer, VerdictCache, answer_keys

CONFIG = {"format": 1, "judge": {"model": "m", "dtype": "auto"}, "orders": "both"}


def test_key_depends_on_model_tokens_and_labels_alone() -> None:
    def key(model: str = "m", ids=(1, 2, 3), labels=((4,), (5,)), cut: int = 1) -> bytes:
        return answer_keys(model, ids[:cut], [ids[cut:]], labels)[0]

    assert key() == key(cut=0) == key(cut=2) == key(ids=[1, 2, 3])
    assert answer_keys("m", [1], [[2, 3], [2]], [(4,), (5,)]) == [key(), key(ids=(1, 2))]
    others = [
        key(model="n"),
        key(ids=(1, 2)),
        key(labels=((4,), (6,))),
        key(labels=((5,), (4,))),
        key(labels=((4, 5), ())),
        key(ids=(1, 2, 3, 4)),
    ]
    assert len({key(), *others}) == 7


def test_questions_about_a_text_stand_together_in_the_file() -> None:
    context, other = list(range(300)), list(range(1000, 1300))
    tails = [[7, n] for n in range(50)]
    mine, theirs = (answer_keys("m", ids, tails, [(4,), (5,)]) for ids in (context, other))
    assert len(set(mine + theirs)) == 100
    assert len({key[-4:] for key in mine}) == 50, "sampled reasonings take their seeds from these"
    ranked = sorted(mine + theirs)
    assert set(ranked[:50]) in (set(mine), set(theirs))
    # Wherever a prompt is cut, its address is the same.
    whole = [*context, *tails[3]]
    for cut in (0, 17, 255, 256, 257, 301, 302):
        assert answer_keys("m", whole[:cut], [whole[cut:]], [(4,), (5,)])[0] == mine[3]


def test_answers_survive_reopening_and_two_writers(tmp_path: Path) -> None:
    one, two = VerdictCache(tmp_path / "c.sqlite"), VerdictCache(tmp_path / "c.sqlite")
    one.put(
        [(b"a", CachedAnswer((-0.1, -2.5), "because")), (b"n", CachedAnswer((float("nan"), 0.0)))]
    )
    two.put([(b"b", CachedAnswer((-0.3, float("-inf"))))])
    one.close()
    two.close()
    again = VerdictCache(tmp_path / "c.sqlite")
    expected = {
        b"a": CachedAnswer((-0.1, -2.5), "because"),
        b"b": CachedAnswer((-0.3, float("-inf"))),
    }
    assert again.get([b"a", b"b", b"n", b"z"]) == expected
    many = [i.to_bytes(4, "big") for i in range(1200)]
    again.put((key, CachedAnswer((0.0, float(i)))) for i, key in enumerate(many))
    assert again.get(many)[many[1100]] == CachedAnswer((0.0, 1100.0))


def test_cache_that_breaks_while_in_use_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    cache = VerdictCache(path)
    keys = [i.to_bytes(16, "big") for i in range(5000)]
    cache.put((key, CachedAnswer((0.0, 1.0))) for key in keys)
    cache.close()
    data = bytearray(path.read_bytes())
    for start in range(32768, len(data) - 64, 4096):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(bytes(data))
    broken = VerdictCache(path)
    with pytest.raises(RlaifError, match=r"c\.sqlite' failed .*malformed.*another folder with"):
        broken.get(keys)
    broken.close()
    with pytest.raises(RlaifError, match="failed"):
        broken.put([(b"k", CachedAnswer((0.0, 1.0)))])


def test_file_that_is_no_cache_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_text("this is not a database, whatever its name says" * 100)
    with pytest.raises(RlaifError, match="verdict cache"):
        VerdictCache(path)


def test_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "diary.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE answers (question TEXT)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(RlaifError, match=r"different kind of database.*another folder"):
        VerdictCache(path)
    assert path.read_bytes() == before


def test_kill_between_folder_and_config_leaves_a_usable_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / ".run.yaml.tmp").write_text("form")
    RunDirectory(folder, CONFIG).close()


def test_rows_after_the_journal_are_cut_and_before_it_kept(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", CONFIG)
    run.append("preferences.jsonl", {"n": 1})
    run.checkpoint(rows=1, tally={"rows": 1})
    run.append("preferences.jsonl", {"n": 2})
    run.append("verdicts.jsonl", {"n": 2})
    run.close()
    with (tmp_path / "run" / "verdicts.jsonl").open("a") as file:
        file.write('{"torn')
    run = RunDirectory(tmp_path / "run", CONFIG)
    assert run.journal["rows"] == 1
    run.append("preferences.jsonl", {"n": 3})
    run.close()
    rows = (tmp_path / "run" / "preferences.jsonl").read_text().splitlines()
    assert [json.loads(row)["n"] for row in rows] == [1, 3]
    assert (tmp_path / "run" / "verdicts.jsonl").read_text() == ""


def test_other_configuration_is_refused_naming_the_keys(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run", CONFIG).close()
    changed = {**CONFIG, "orders": "one", "judge": {"model": "m", "dtype": "float32"}}
    with pytest.raises(RlaifError) as caught:
        RunDirectory(tmp_path / "run", changed)
    assert "judge.dtype: 'auto' -> 'float32'" in str(caught.value)
    assert "orders: 'both' -> 'one'" in str(caught.value)


def test_folder_in_use_or_of_something_else_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", CONFIG)
    with pytest.raises(RlaifError, match="in use"):
        RunDirectory(tmp_path / "run", CONFIG)
    run.close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(RlaifError, match="no run"):
        check_config(tmp_path / "other", CONFIG)
    with pytest.raises(RlaifError, match="is a file"):
        check_config(tmp_path / "other" / "thesis.txt", CONFIG)
    with pytest.raises(RlaifError, match="not complete"):
        read_manifest(tmp_path / "run")
    with pytest.raises(RlaifError, match="not a run directory"):
        read_manifest(tmp_path / "other")


def test_rates_under_different_conditions_are_not_compared(tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path / "c.sqlite")
    assert cache.rates("j", benchmarks=True) == {}
    cache.record_rate("j", "vllm", 10.0, "short")
    cache.record_rate("j", "packed", 20.0, "short")
    cache.record_rate("j", "vllm", 99.0)  # a labeling run
    cache.record_rate("j", "vllm", 30.0, "long")  # of one engine only: compares nothing
    assert cache.rates("j", benchmarks=True) == {"vllm": 10.0, "packed": 20.0}
    assert cache.rates("j", benchmarks=False) == {"vllm": 99.0}
    cache.record_rate("j", "packed", 5.0, "long")
    assert cache.rates("j", benchmarks=True) == {"vllm": 30.0, "packed": 5.0}
    cache.record_rate("j", "packed", 21.0, "short")
    assert cache.rates("j", benchmarks=True) == {"vllm": 10.0, "packed": 21.0}

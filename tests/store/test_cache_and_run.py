"""The verdict cache and the run directory."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
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


@pytest.mark.parametrize("blob", [b"", b"12345", "text", 7, b"\0" * 4096])
def test_what_something_else_wrote_into_the_cache_is_no_answer(
    tmp_path: Path, blob: object
) -> None:
    path = tmp_path / "verdicts.sqlite"
    with closing(VerdictCache(path)) as cache:
        cache.put(
            [(b"k" * 16, CachedAnswer((-1.0, -0.5))), (b"o" * 16, CachedAnswer((-2.0, -3.0)))]
        )
    with sqlite3.connect(path) as db:
        db.execute("UPDATE answers SET logprobs = ? WHERE key = ?", (blob, b"k" * 16))
    with closing(VerdictCache(path)) as cache:
        assert list(cache.get([b"k" * 16, b"o" * 16])) == [b"o" * 16]


@pytest.mark.parametrize(
    "name", [".lock", ".run.yaml.tmp", ".journal.json.tmp", ".manifest.json.tmp"]
)
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    victim, out = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    out.mkdir()
    if name != ".lock":
        (out / "run.yaml").write_text("format: 1\njudge: {model: m, dtype: auto}\norders: both\n")
    (out / name).symlink_to(victim)
    if name == ".lock":
        with pytest.raises(RlaifError, match=r"\.lock' can't be opened"):
            RunDirectory(out, CONFIG)
    else:
        with closing(RunDirectory(out, CONFIG)) as run:
            run.append("verdicts.jsonl", {"x": 1})
            run.checkpoint(rows=1, tally=None)
            run.write_manifest({"config": CONFIG, "counts": {}, "seconds": 1.0})
    assert victim.read_text() == "mine"
    assert victim.stat().st_size == 4


def test_what_a_checkpoint_says_is_on_the_disk_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row files are synced, then the journal, then it takes its place: in this order."""
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    with closing(RunDirectory(tmp_path / "run", CONFIG)) as run:
        names = {file.fileno(): name for name, file in run._files.items()}

        def noting_sync(descriptor: int) -> None:
            done.append(names.get(descriptor, "other"))
            sync(descriptor)

        def noting_replace(one: Path, two: Path) -> None:
            done.append(f"replace {Path(two).name}")
            replace(one, two)

        monkeypatch.setattr(os, "fsync", noting_sync)
        monkeypatch.setattr(os, "replace", noting_replace)
        run.append("verdicts.jsonl", {"x": 1})
        run.checkpoint(rows=1, tally=None)
        assert done == ["verdicts.jsonl", "other", "replace journal.json", "other"]
        done.clear()
        run.checkpoint(rows=1, tally=None)
        assert "verdicts.jsonl" not in done, "what did not grow is there already"


@pytest.mark.parametrize(
    "change",
    [
        {"counts": []},
        {"seconds": "long"},
        {"tokens": {"computed": "many"}},
        {"config": None},
        {"last_process": {"tokens": []}},
    ],
)
def test_a_damaged_manifest_is_said(tmp_path: Path, change: dict[str, object]) -> None:
    with closing(RunDirectory(tmp_path / "run", CONFIG)) as run:
        run.write_manifest({"config": CONFIG, "counts": {}, "seconds": 1.0, **change})
    with pytest.raises(RlaifError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path / "run")


@pytest.mark.parametrize("journal", ['{"rows": -1, "bytes": {}, "tally": null}', "[" * 10_000, "7"])
def test_an_odd_journal_is_counted_anew(tmp_path: Path, journal: str) -> None:
    with closing(RunDirectory(tmp_path / "run", CONFIG)) as run:
        run.append("verdicts.jsonl", {"x": 1})
        run.checkpoint(rows=1, tally=None)
    (tmp_path / "run" / "journal.json").write_text(journal)
    with closing(RunDirectory(tmp_path / "run", CONFIG)) as run:
        assert run.journal["rows"] == 0
    assert (tmp_path / "run" / "verdicts.jsonl").read_bytes() == b""

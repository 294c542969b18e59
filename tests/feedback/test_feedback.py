"""`rlaif import-feedback`: logs into preferences, caps, personal data."""

from __future__ import annotations

import importlib
import json
import linecache
import math
import random
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from rlaif.cli.main import main
from rlaif.errors import RlaifError
from rlaif.feedback.importing import FeedbackReport, FeedbackSettings, import_feedback
from rlaif.feedback.personal import redact
from rlaif.runs.lineage import lineage
from rlaif.runs.unfinished_marker import mark_unfinished
from rlaif.training.data import read_human_pairs
from rlaif.util.user_functions import _import, allow_functions
from tests.generation.helpers import read, write_rows


def imported(
    tmp_path: Path, rows: list[dict[str, Any]], **settings: Any
) -> tuple[FeedbackReport, list[dict[str, Any]], list[dict[str, Any]]]:
    tmp_path.mkdir(exist_ok=True)
    data = write_rows(tmp_path / "log.jsonl", rows)
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    report = import_feedback(data, out, FeedbackSettings(**settings))
    return report, read(out / "preferences.jsonl"), read(out / "kto.jsonl")


def said(row: dict[str, Any], key: str) -> str:
    return str(row[key][0]["content"])


def test_each_kind_of_feedback_becomes_what_it_says(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"user": "ann", "prompt": "q1", "response": "bad text", "edited": "better text"},
        {"user": "bob", "prompt": "q2", "response": "third", "regenerated": ["first", "second"]},
        {"user": "ann", "prompt": "q3", "response": "liked", "thumbs": "up", "model": "m1"},
        {"user": "bob", "prompt": "q3", "response": "disliked", "thumbs": "down"},
        {"user": "cid", "prompt": "q4", "response": "five stars", "rating": 5},
        {"user": "cid", "prompt": "q4", "response": "four stars", "rating": 4},
        {"user": "dan", "prompt": "q4", "response": "three stars", "rating": 3},
        {"user": "dan", "prompt": "q5", "response": "nothing said"},
    ]
    report, pairs, kto = imported(tmp_path, rows)
    found = {(said(r, "chosen"), said(r, "rejected")): r["p_chosen"] for r in pairs}
    assert found == {
        ("better text", "bad text"): 0.9,
        ("third", "first"): 0.7,
        ("third", "second"): 0.7,
        ("liked", "disliked"): 0.8,
        # One user's ratings only: dan's three is on a scale of its own.
        ("five stars", "four stars"): 0.8,
    }
    assert {said(r, "completion"): r["label"] for r in kto} == {
        "bad text": False,
        "better text": True,
        "first": False,
        "second": False,
        "liked": True,
        "disliked": False,
        "five stars": True,
        "four stars": True,
    }
    assert (report.events, report.unreadable, report.users) == (7, 1, 4)
    edited = next(r for r in pairs if said(r, "chosen") == "better text")["provenance"]
    assert edited["origins"]["chosen"]["kind"] == "human"
    liked = next(r for r in pairs if said(r, "chosen") == "liked")["provenance"]
    assert liked["origins"]["chosen"]["model"] == "m1"
    # What the trainer reads.
    trained, bad = read_human_pairs(str(next(tmp_path.glob("out*")) / "preferences.jsonl"))
    assert (len(trained), bad) == (5, 0)
    assert {row.p_chosen for row in trained} == {0.9, 0.8, 0.7}


def test_users_add_up_as_log_odds_and_cancel_out(tmp_path: Path) -> None:
    def edit(user: str, one: str, two: str) -> dict[str, Any]:
        return {"user": user, "prompt": "q", "response": one, "edited": two}

    rows = [
        edit("a", "x", "y"),
        edit("b", "x", "y"),
        edit("a", "x", "y"),
        edit("c", "y", "x"),
        edit("a", "s", "t"),
        edit("b", "t", "s"),
    ]
    report, pairs, _ = imported(tmp_path, rows)
    # Two for, one against (a's second edit is not counted again): log-odds of 0.9, once.
    (pair,) = pairs
    assert (said(pair, "chosen"), pair["p_chosen"]) == ("y", 0.9)
    assert report.undecided == 1
    many = [edit(f"user {i}", "x", "y") for i in range(9)]
    assert imported(tmp_path / "m", many)[1][0]["p_chosen"] == 0.99
    two = imported(tmp_path / "n", many[:2], p_edit=0.8)[1][0]["p_chosen"]
    assert two == pytest.approx(1 / (1 + math.exp(-2 * math.log(0.8 / 0.2))), abs=1e-5)


def test_no_user_speaks_for_all_and_none_is_named(tmp_path: Path) -> None:
    rows = [
        {"user": "loud@example.org", "prompt": f"q{i}", "response": "r", "thumbs": -1}
        for i in range(50)
    ] + [{"user": f"quiet{i}", "prompt": f"p{i}", "response": "r", "thumbs": 1} for i in range(5)]
    report, _, kto = imported(tmp_path, rows, per_user=3)
    assert (report.capped, len(kto)) == (47, 8)
    out = next(tmp_path.glob("out*"))
    written = "".join(p.read_text() for p in out.iterdir())
    assert "loud" not in written
    assert "quiet" not in written
    others = imported(tmp_path, rows, per_user=3, seed=1)[2]
    assert {str(r["prompt"]) for r in others} != {str(r["prompt"]) for r in kto}


PERSONAL = {
    "write to ann.b+c@mail.example.org now": "write to [email] now",
    "call +44 20 7946 0958 or (555) 123-4567": "call [phone] or [phone]",
    "card 4111 1111 1111 1111 please": "card [card] please",
    "IBAN GB29 NWBK 6016 1331 9268 19.": "IBAN [bank account].",
    "host 192.168.10.254 answers": "host [ip address] answers",
    "card 4111111111111111 12/25": "card [card] 12/25",
    "IBAN BE68 5390 0754 7034 PAID": "IBAN [bank account] PAID",
    "from 2001:db8:85a3::8a2e:370:7334 now": "from [ip address] now",
    "my number 078-05-1120": "my number [social security number]",
    "https://bob:hunter2@host.example/x": "https://[password]@host.example/x",
}
ORDINARY = (
    "in 1999 there were 4,200 of 10.5 kinds",
    "version 1.2.3 of 2024-01-31",
    "x = 123456789012",
    "order 4111 1111 1111 1112",
    "call me at noon @ the café",
    "5 + 7 = 12 and 3-4-5 triangles",
    "GB29 is a postcode area, not NWBK",
    "RFC 2119 section 10.1.1",
    "a@b",
    "call f(555, 123)",
)


def test_personal_data_is_taken_out_and_nothing_else() -> None:
    for before, after in PERSONAL.items():
        assert redact(before) == after
    for text in ORDINARY:
        assert redact(text) == text
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(rng.choices("0123456789 -.+()@AB:/", k=rng.randint(1, 200)))
        redact(text)


def test_filters_are_pluggable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_functions("my_filter")
    (tmp_path / "my_filter.py").write_text(
        "def names(text):\n    return None if 'drop' in text else text.replace('Ann', '[name]')\n"
        "def broken(text):\n    return 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [
        {"prompt": "I am Ann", "response": "Hi Ann", "edited": "Hello Ann"},
        {"prompt": "drop me", "response": "x", "edited": "y"},
        {"prompt": "mail a@b.example", "response": "x", "edited": "y"},
    ]
    report, pairs, _ = imported(tmp_path, rows, personal="my_filter:names")
    assert (report.unreadable, report.redacted) == (1, 1)
    assert said(pairs[0], "chosen") == "Hello [name]"
    assert "a@b.example" in json.dumps(pairs), "the built-in filter is another"
    with pytest.raises(RlaifError, match="returned int, not a string"):
        imported(tmp_path, rows, personal="my_filter:broken")
    for name in ("my_filter:missing", "no.such:thing", "nonsense"):
        with pytest.raises(RlaifError, match=r"filter|package\.module"):
            imported(tmp_path, rows, personal=name)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(
        "question,answer,who,verdict\nq1,one,ann,up\nq1,two,bob,down\nq2,three,ann,maybe\n"
    )
    words = ["rlaif", "import-feedback", "log.csv", "-o", "out"]
    for name, column in (
        ("prompt", "question"),
        ("response", "answer"),
        ("user", "who"),
        ("thumbs", "verdict"),
    ):
        words += ["--map", f"{name}={column}"]
    for _ in range(2):  # run again, it reports
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as done:
            main()
        assert not done.value.code
        shown = capsys.readouterr().out
        assert "preferences" in shown
        assert read(Path("out/rejected.jsonl"))[0]["reason"] == (
            "the thumbs value is neither up nor down"
        )
    (pair,) = read(Path("out/preferences.jsonl"))
    assert (said(pair, "chosen"), said(pair, "rejected")) == ("one", "two")
    monkeypatch.setattr("sys.argv", [*words, "--per-user", "1"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert "holds another import (per_user: 20 -> 1)" in capsys.readouterr().err


def votes(prompt: str, **counts: tuple[int, int]) -> list[dict[str, Any]]:
    """Up and down votes on each completion, every one by another user."""
    return [
        {"user": f"{name}{way}{i}", "prompt": prompt, "response": name, "thumbs": way}
        for name, (up, down) in counts.items()
        for way, n in (("up", up), ("down", down))
        for i in range(n)
    ]


def test_thumbs_compare_what_users_make_of_both(tmp_path: Path) -> None:
    """The net approval of both sides counts, and the smaller majority of the two."""
    assert imported(tmp_path / "a", votes("q", good=(10, 20), bad=(0, 1)))[1] == []
    one = imported(tmp_path / "b", votes("q", good=(1, 0), bad=(0, 10)))[1]
    other = imported(tmp_path / "c", votes("q", good=(10, 0), bad=(0, 1)))[1]
    assert one[0]["p_chosen"] == other[0]["p_chosen"] == 0.8
    two = imported(tmp_path / "d", votes("q", good=(5, 3), bad=(0, 9)))[1]
    assert two[0]["p_chosen"] == pytest.approx(1 / (1 + 1 / 16), abs=1e-5)
    # Who thinks again is heard once, as of last.
    rows = [
        {"user": "a", "prompt": "q", "response": text, "thumbs": thumbs}
        for text, thumbs in (("x", "up"), ("y", "down"), ("x", "down"), ("y", "up"))
    ]
    (pair,) = imported(tmp_path / "e", rows)[1]
    assert (said(pair, "chosen"), said(pair, "rejected")) == ("y", "x")


def test_sparse_logs_lists_and_flags(tmp_path: Path) -> None:
    data = write_rows(
        tmp_path / "log.jsonl",
        [{"q": "one", "a": "text", "vote": "up"}, {"q": "two", "a": "text", "fix": "better text"}],
    )
    report = import_feedback(
        data,
        tmp_path / "o",
        FeedbackSettings(),
        mapping={"prompt": "q", "response": "a", "thumbs": "vote", "edited": "fix"},
    )
    assert (report.events, report.unreadable) == (2, 0)
    rows = [
        {"prompt": "q", "response": "new", "regenerated": '["old one", "older one"]'},
        {"prompt": "r", "response": "new", "regenerated": "true", "rating": 5},
        {"prompt": "s", "response": "new", "feedback": "call me at a@b.example", "rating": 1},
    ]
    _, pairs, kto = imported(tmp_path / "p", rows)
    assert {said(r, "rejected") for r in pairs} == {"old one", "older one"}
    new = {said(r, "prompt"): r["label"] for r in kto if said(r, "completion") == "new"}
    assert new == {"r": True, "s": False}
    told = {"kind": "model", "model": "m", "system": "You help a@b.example"}
    leak = [
        {"prompt": "q", "response": "x", "feedback": "write to a@b.example"},
        {"prompt": "q", "response": "x", "thumbs": "up", "origin": told},
    ]
    imported(tmp_path / "l", leak)
    written = "".join(p.read_text() for p in (tmp_path / "l").glob("out*/*"))
    assert "a@b.example" not in written


def test_the_folder_loads_by_name_and_is_followed_to_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"user": "ann", "prompt": f"q{i}", "response": "bad", "edited": "good"} for i in range(4)
    ]
    log = write_rows(tmp_path / "log.jsonl", rows)
    out = tmp_path / "out"
    settings = FeedbackSettings()
    report = import_feedback(log, out, settings)
    for name, count in (("preferences", report.preferences), ("kto", report.kto)):
        loaded = datasets.load_dataset(
            str(out), name, split="train", cache_dir=str(tmp_path / "cache")
        )
        assert len(loaded) == count > 0
    tree = list(lineage(str(out / "preferences.jsonl")).lines())
    assert tree[0] == f"feedback {out}: 4 preferences; 1 users"
    assert tree[1].startswith(f"└─ from data {log}")
    # What is gone is written again, and so is what a kill left half done; what is there stays.
    (out / "kto.jsonl").unlink()
    again = import_feedback(log, out, settings)
    assert len(read(out / "kto.jsonl")) == again.kto == report.kto
    (out / "feedback.json").unlink()
    with pytest.raises(RlaifError, match="holds files but no import"):
        import_feedback(log, out, settings)
    with mark_unfinished(out):
        assert import_feedback(log, out, settings).kto == report.kto
        (out / ".unfinished").touch()
    write_rows(tmp_path / "log.jsonl", rows[:3])
    changed = next(line for line in lineage(str(out)).lines() if "!" in line)
    assert "log.jsonl has changed since it was used" in changed


def test_another_filter_is_another_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_functions("own_filter")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_filter", raising=False)
    own = tmp_path / "own_filter.py"
    own.write_text("def clean(text):\n    return text\n")
    log = write_rows(tmp_path / "log.jsonl", [{"prompt": "q", "response": "r", "thumbs": "up"}])
    settings = FeedbackSettings(personal="own_filter:clean")
    import_feedback(log, tmp_path / "out", settings)
    own.write_text("def clean(text):\n    return text.replace('r', 'x')\n")
    _import.cache_clear()
    del sys.modules["own_filter"]
    importlib.invalidate_caches()
    linecache.clearcache()
    with pytest.raises(RlaifError, match=r"holds another import \(filter: "):
        import_feedback(log, tmp_path / "out", settings)


def test_half_a_character_is_a_bad_row(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"user": "\\ud800", "prompt": "q", "response": "r", "thumbs": "up"}\n'
        '{"user": "ann \\ud83d\\ude00", "prompt": "q", "response": "r", "thumbs": "up"}\n'
    )
    report = import_feedback(str(log), tmp_path / "out", FeedbackSettings())
    assert (report.events, report.unreadable) == (1, 1)
    (bad,) = read(tmp_path / "out" / "rejected.jsonl")
    assert (bad["place"], "surrogate" in bad["reason"]) == ("line 1", True)


def test_no_user_has_more_preferences_than_the_cap(tmp_path: Path) -> None:
    drafts = [f"draft {i}" for i in range(60)]
    rows: list[dict[str, Any]] = [
        {"user": "busy", "prompt": "q", "response": "kept", "regenerated": drafts},
        *(
            {"user": "rater", "prompt": "r", "response": f"answer {i}", "rating": 1 + i % 5}
            for i in range(20)
        ),
        {"user": "calm", "prompt": "s", "response": "a", "edited": "b"},
    ]
    report, pairs, kto = imported(tmp_path, rows, per_user=8)
    assert report.capped == 12  # of the rater's twenty events
    for found, of in ((pairs, {"busy": 8, "rater": 8, "calm": 1}), (kto, {"busy": 8, "calm": 2})):
        counts = dict.fromkeys(of, 0)
        for row in found:
            for name, prompt in (("busy", "q"), ("rater", "r"), ("calm", "s")):
                if name in counts and row["prompt"][0]["content"] == prompt:
                    counts[name] += 1
        assert counts == of
    # The same draw each time; another seed draws others.
    assert imported(tmp_path / "again", rows, per_user=8)[1] == pairs
    assert imported(tmp_path / "other", rows, per_user=8, seed=1)[1] != pairs


def test_pairs_of_several_votes_name_all_of_them(tmp_path: Path) -> None:
    (pair,) = imported(tmp_path, votes("q", good=(3, 0), bad=(0, 3)))[1]
    assert pair["provenance"]["source"] == "3 vote"
    assert pair["provenance"]["users"].count("u") == 6
    assert pair["p_chosen"] == pytest.approx(1 / (1 + 1 / 4**3), abs=1e-5)


def test_what_tables_write_is_read_for_what_it_means(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(
        "prompt,response,user,thumbs,rating,edited\n"
        "q,good,a,1.0,,false\n"
        "q,bad,b,0.0,n/a,true\n"
        "r,good,a,thumbs-up,,False\n"
        "r,bad,b,\U0001f44e\U0001f3fd,nan,\n"
        "s,good,a,up,n/a,0\n"
        "s,bad,b,Thumbs down,,1\n"
    )
    report = import_feedback(str(log), tmp_path / "out", FeedbackSettings())
    assert (report.events, report.unreadable) == (6, 0)
    found = read(tmp_path / "out" / "preferences.jsonl")
    assert [(said(p, "chosen"), said(p, "rejected")) for p in found] == [("good", "bad")] * 3
    assert not any("edit" in p["provenance"]["source"] for p in found)


def test_chats_and_lists_of_drafts_are_read(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "kept"}]
    rows = [{"messages": chat, "thumbs": "up", "regenerated": [{"text": "first"}, "second"]}]
    report, pairs, _ = imported(tmp_path, rows)
    assert report.unreadable == 0
    assert {said(p, "rejected") for p in pairs} == {"first", "second"}
    assert {said(p, "chosen") for p in pairs} == {"kept"}


def test_a_filter_is_asked_about_texts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_functions("strict_filter")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "strict_filter.py").write_text(
        "def clean(text):\n    return text[0].upper() + text[1:]\n"
    )
    rows = [{"prompt": "q", "response": "bad", "edited": "good", "user": "a"}]
    report, pairs, _ = imported(tmp_path / "x", rows, personal="strict_filter:clean")
    assert report.unreadable == 0
    assert said(pairs[0], "chosen") == "Good"

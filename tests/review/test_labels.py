"""What people said: combined, applied, exported, imported, and used."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from datasets import load_dataset

from rlaif.audits.rows import read_audited
from rlaif.cli.label import print_summary
from rlaif.cli.main import cli
from rlaif.data.sources import open_source
from rlaif.errors import RlaifError
from rlaif.evaluation.bias.report import bias_report
from rlaif.evaluation.bias.style import measure_style
from rlaif.evaluation.outcomes import read_outcomes
from rlaif.evaluation.win_rates import human_win_rates
from rlaif.labeling.job import summary_of
from rlaif.review.exchange import shortened_names
from rlaif.review.store import DESK, ReviewStore
from rlaif.review.votes import combine
from rlaif.runs.directory import read_manifest
from rlaif.training.data import find_labels, read_preferences
from tests.labeling.helpers import CONSTITUTION, label, rows
from tests.review.helpers import labeled, store_of


def invoke(*args: str) -> Any:
    return CliRunner().invoke(cli, list(args), catch_exceptions=False)


def refused(*args: str) -> str:
    found = CliRunner().invoke(cli, list(args))
    assert isinstance(found.exception, RlaifError), found.output
    return str(found.exception)


@pytest.fixture
def reviewed(tmp_path: Path) -> Path:
    """A run of which anna reversed, confirmed, tied, edited and skipped pairs, and ben saw some."""
    run = labeled(tmp_path, 60)
    with closing(store_of(run, 30, overlap=0.0)) as store:
        tasks = [t for t in store.tasks() if t.item.winner]
        undecided = [t for t in store.tasks() if not t.item.winner]
        other = {"a": "b", "b": "a"}
        say = lambda t, v, **more: store.decide(t.number, "anna", v, first="a", **more)  # noqa: E731
        say(tasks[0], other[tasks[0].item.winner], note="wrong, clearly")
        say(tasks[1], tasks[1].item.winner)
        say(tasks[2], "tie")
        say(tasks[3], "skip")
        say(tasks[4], tasks[4].item.winner, edited="a much better answer", pasted=3)
        if undecided:
            say(undecided[0], "b")
        for t in tasks[:2]:
            store.decide(t.number, "ben", t.item.winner, first="b")
    return run


def test_votes_are_combined_by_their_odds(reviewed: Path) -> None:
    with closing(ReviewStore(reviewed / DESK)) as store:
        tasks = list(store.tasks())
        found = {f.task.number: f for f in combine(tasks, store.decisions(), certainty=0.9)}
    decided = [t for t in tasks if t.item.winner]
    split, both, tie = (found[t.number] for t in decided[:3])
    assert (split.winner, split.p_a) == ("tie", 0.5)  # anna and ben contradict each other
    assert split.split
    assert not split.corrects
    assert not tie.split
    assert tie.corrects
    side = both.p_a if both.winner == "a" else 1 - both.p_a
    assert side == pytest.approx(0.81 / (0.81 + 0.01))
    assert (tie.winner, tie.p_a) == ("tie", 0.5)
    assert decided[3].number not in found  # skipped
    one = found[decided[4].number]
    assert max(one.p_a, 1 - one.p_a) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="certainty"):
        combine(tasks, [], certainty=0.5)


def test_applied_labels_reach_the_trainer(reviewed: Path, tmp_path: Path) -> None:
    out = tmp_path / "reviewed"
    counts = json.loads(invoke("labels", "apply", str(reviewed), "-o", str(out), "--json").output)
    before = {
        (r["provenance"]["row"], r["provenance"]["id"]): r
        for r in rows(reviewed, "preferences.jsonl") + rows(reviewed, "undecided.jsonl")
    }
    after = rows(out, "preferences.jsonl")
    human = [r for r in after if r["provenance"]["status"] == "human"]
    edited = [r for r in human if "/edit-" in r["provenance"]["id"]]
    assert counts["edits"] == len(edited) == 1
    assert edited[0]["chosen"][-1]["content"] == "a much better answer"
    assert edited[0]["provenance"]["origin_chosen"] == "human"
    assert edited[0]["p_chosen"] == 0.95
    for row in human:
        if row in edited:
            continue
        old = before[row["provenance"]["row"], row["provenance"]["id"]]
        texts = {old[k][-1]["content"] for k in ("chosen", "rejected", "a", "b") if k in old}
        assert {row["chosen"][-1]["content"], row["rejected"][-1]["content"]} == texts
    assert (counts["untied"], counts["disputed"]) == (1, 1)
    assert counts["corrected"] == 0
    assert counts["confirmed"] >= 2
    manifest = read_manifest(out)
    assert manifest["counts"]["decided"] == len(after)
    trained = read_preferences(find_labels(out))
    assert sum(row.source == "human" for row in trained) == len(human)
    # One schema, whichever rows people labeled; and a second call changes nothing.
    loaded = load_dataset("json", data_files=str(out / "preferences.jsonl"), split="train")
    assert len(loaded) == len(after)
    again = json.loads(invoke("labels", "apply", str(reviewed), "-o", str(out), "--json").output)
    assert again == counts
    for command in (["calibrate", str(out), "--human-labels", "x.jsonl"], ["review", str(out)]):
        assert "already contains human labels" in refused(*command)
    # A kill between the rows and the manifest is fixed by the same command.
    (out / "manifest.json").unlink()
    invoke("labels", "apply", str(reviewed), "-o", str(out))
    assert read_manifest(out)["counts"] == manifest["counts"]
    with closing(ReviewStore(reviewed / DESK)) as store:
        task = next(t for t in store.tasks() if store.decision(t.number, "anna") is not None)
        store.decide(task.number, "anna", "a", first="a", note="another note")
    assert "different config" in refused("labels", "apply", str(reviewed), "-o", str(out))


def test_cards_and_lineage_know_of_the_review(reviewed: Path, tmp_path: Path) -> None:
    out, mixed = tmp_path / "reviewed", tmp_path / "mixed"
    invoke("labels", "apply", str(reviewed), "-o", str(out))
    facts = json.loads(invoke("labels", "report", str(reviewed), "--json").output)
    assert json.loads((out / "review.json").read_text()) == facts
    invoke("mix", f"{out}=1", "--min-human", "0", "-o", str(mixed))
    card = (mixed / "README.md").read_text()
    assert f"humans reviewed {facts['labels']} pairs" in card
    assert f"agreement with the judge's labels: {facts['agreement']['rate']:.1%}" in card
    assert "no human review" not in card

    def lines(name: Path) -> list[str]:
        return invoke("lineage", str(name)).output.splitlines()

    tree = lines(mixed)
    for depth, name in enumerate((mixed, out, reviewed, tmp_path / "pairs.jsonl")):
        (line,) = [text for text in tree if f" {name}: " in f" {text}"]
        assert len(line) - len(line.lstrip(" └├─│")) == 3 * depth, tree
    assert f"{facts['labels']} pairs labeled by humans" in "\n".join(tree)
    assert not [text for text in tree if "!" in text]
    with (out / "preferences.jsonl").open("a") as file:
        file.write("{}\n")
    (warning,) = [text for text in lines(mixed) if "!" in text]
    assert "preferences.jsonl has changed since it was used" in warning


def test_a_reversed_label_swaps_sides_and_probabilities(tmp_path: Path) -> None:
    run = labeled(tmp_path, 40)
    with closing(store_of(run, 40, overlap=0.0)) as store:
        tasks = [t for t in store.tasks() if t.item.winner]
        for task in tasks:
            store.decide(task.number, "anna", "b" if task.item.winner == "a" else "a", first="a")
    out = tmp_path / "out"
    counts = json.loads(invoke("labels", "apply", str(run), "-o", str(out), "--json").output)
    assert counts["corrected"] == len(tasks) > 10
    old = {r["provenance"]["id"]: r for r in rows(run, "preferences.jsonl")}
    for row in rows(out, "preferences.jsonl"):
        was = old[row["provenance"]["id"]]
        assert (row["chosen"], row["rejected"]) == (was["rejected"], was["chosen"])
        assert row["provenance"]["origin_chosen"] == was["provenance"]["origin_rejected"]
        assert row["provenance"]["human"]["judge_p_chosen"] == pytest.approx(
            1 - was["p_chosen"], abs=1e-5
        )
        for now, then in zip(
            row["provenance"]["principles"], was["provenance"]["principles"], strict=True
        ):
            assert now["p_chosen"] == pytest.approx(1 - then["p_chosen"], abs=1e-5)


def test_tools_of_a_prompt_stay_with_it_whatever_people_say(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
    data, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    lines = [
        {"prompt": f"q{i}", "response_a": f"one {i}", "response_b": f"two {i}", "tools": tools}
        for i in range(40)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "c.yaml").write_text(CONSTITUTION)
    label(data, tmp_path / "c.yaml", tmp_path / "run")
    with closing(store_of(tmp_path / "run", 40, overlap=0.0)) as store:
        for k, task in enumerate(store.tasks()):
            edit = {"edited": f"better {k}"} if k % 4 == 3 else {}
            store.decide(task.number, "anna", ("a", "b", "tie")[k % 3], first="a", **edit)
    counts = json.loads(
        invoke("labels", "apply", str(tmp_path / "run"), "-o", str(out), "--json").output
    )
    assert min(counts[k] for k in ("corrected", "confirmed", "untied", "edits")) > 0
    found = rows(out, "preferences.jsonl") + rows(out, "undecided.jsonl")
    assert len(found) == 40 + counts["edits"]
    assert all(row["tools"][0]["function"]["name"] == "look_up" for row in found)


@pytest.mark.parametrize("form", ["jsonl", "csv", "argilla", "label-studio"])
def test_labels_survive_the_way_out_and_in(reviewed: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"labels.{form}"
    invoke("labels", "export", str(reviewed), "-o", str(file), "--format", form)
    with closing(ReviewStore(reviewed / DESK)) as store:
        said = combine(store.tasks(), store.decisions())
    (reviewed / DESK).unlink()
    for companion in reviewed.glob(f"{DESK}-*"):
        companion.unlink()
    store_of(reviewed, 30, overlap=0.0).close()
    before = invoke("labels", "import", str(reviewed), str(file), "--format", form)
    assert "already present" in before.output
    with closing(ReviewStore(reviewed / DESK)) as store:
        again = combine(store.tasks(), store.decisions())
        assert not any(d.blind for d in store.decisions())  # they may have seen the judge's column
    assert [(f.task.number, f.winner, f.p_a) for f in said] == [
        (f.task.number, f.winner, f.p_a) for f in again
    ]
    edits = [[e.text for e in f.edits] for f in said if f.edits]
    assert (
        [[e.text for e in f.edits] for f in again if f.edits] == edits == [["a much better answer"]]
    )
    once_more = invoke("labels", "import", str(reviewed), str(file), "--format", form)
    assert once_more.output.startswith("0 labels added")


@pytest.mark.parametrize("form", ["jsonl", "csv", "argilla", "label-studio"])
def test_a_reviewer_s_own_file_adds_nothing(reviewed: Path, tmp_path: Path, form: str) -> None:
    """Reviewers whom a tool names by an id are known again; edits stay their writer's."""
    file = tmp_path / f"labels.{form}"
    invoke("labels", "export", str(reviewed), "-o", str(file), "--format", form)
    found = invoke("labels", "import", str(reviewed), str(file), "--format", form)
    assert found.output.startswith("0 labels added")


def test_odd_texts_survive_a_spreadsheet_s_file(tmp_path: Path) -> None:
    """Line ends of all kinds, formulas, long fields and several turns; and calibrate reads it."""
    odd = "=cmd|' /C calc'!A0\r+1\u2028new\u2029\x85\"quoted\", end " + "long " * 40_000
    lines = []
    for i in range(80):
        turns = [
            {"role": "user", "content": f"hello {i}"},
            {"role": "assistant", "content": "yes?"},
            {"role": "user", "content": "-go on"},
        ]
        lines.append(
            {
                "id": f"n{i}",
                "prompt": turns,
                "response_a": f"{odd if i == 0 else '@short'} {i}",
                "response_b": f"other {i} b c d e",
            }
        )
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "constitution.yaml").write_text(CONSTITUTION)
    label(tmp_path / "pairs.jsonl", tmp_path / "constitution.yaml", tmp_path / "run")
    run = tmp_path / "run"
    with closing(store_of(run, 80, audit_share=1.0, overlap=0.0)) as store:
        for k, task in enumerate(t for t in store.tasks() if t.item.winner):
            right = task.item.winner if k % 4 else ("b" if task.item.winner == "a" else "a")
            store.decide(task.number, "anna", right, first="a", note="=1+1")  # type: ignore[arg-type]
        said = len(store.decisions())
    for form in ("csv", "jsonl"):
        file = tmp_path / f"labels.{form}"
        invoke("labels", "export", str(run), "-o", str(file), "--format", form)
        assert invoke("labels", "import", str(run), str(file), "--format", form).output.startswith(
            "0 labels"
        )
        out = tmp_path / f"{form}.json"
        invoke("calibrate", str(run), "--human-labels", str(file), "-o", str(out))
        assert json.loads(out.read_text())["labels"] == said
    assert '"\'=1+1"' not in (tmp_path / "labels.csv").read_text()  # inside a cell of JSON
    assert "\"'@short" in (tmp_path / "labels.csv").read_text()


def test_edits_of_several_messages_change_the_last(tmp_path: Path) -> None:
    talk = [
        {"role": "assistant", "content": "let me look"},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "it is 42"},
    ]
    rows_in = [
        {
            "id": f"n{i}",
            "prompt": [{"role": "user", "content": f"q {i}"}],
            "response_a": talk,
            "response_b": [{"role": "assistant", "content": f"no {i} b c d"}],
        }
        for i in range(12)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows_in))
    (tmp_path / "constitution.yaml").write_text(CONSTITUTION)
    label(tmp_path / "pairs.jsonl", tmp_path / "constitution.yaml", tmp_path / "run")
    with closing(store_of(tmp_path / "run", 5, overlap=0.0)) as store:
        task = next(store.tasks())
        store.decide(task.number, "anna", "a", first="a", edited="it is surely 42")
    invoke("labels", "apply", str(tmp_path / "run"), "-o", str(tmp_path / "out"))
    (own,) = (
        r for r in rows(tmp_path / "out", "preferences.jsonl") if "/edit-" in r["provenance"]["id"]
    )
    assert [m["content"] for m in own["chosen"]] == ["let me look", "42", "it is surely 42"]
    assert own["rejected"] == talk


def test_labels_that_the_queue_picked_do_not_pass_for_random_ones(tmp_path: Path) -> None:
    run = labeled(tmp_path, 200)
    with closing(store_of(run, 150, audit_share=0.6, overlap=0.0)) as store:
        audited = 0
        for k, task in enumerate(t for t in store.tasks() if t.item.winner):
            right = task.item.winner if k % 4 else ("b" if task.item.winner == "a" else "a")
            store.decide(task.number, "anna", right, first="a")  # type: ignore[arg-type]
            audited += task.audit
    file = tmp_path / "human.jsonl"
    invoke("labels", "export", str(run), "-o", str(file))
    found = invoke(
        "calibrate", str(run), "--human-labels", str(file), "-o", str(tmp_path / "c.json")
    )
    assert "selected as uncertain" in found.output
    assert json.loads((tmp_path / "c.json").read_text())["labels"] == audited


def test_a_queue_for_others_hides_the_judge_unless_asked(reviewed: Path, tmp_path: Path) -> None:
    for form, key in (("argilla", "suggestions"), ("label-studio", "predictions")):
        file = tmp_path / "queue.json"
        invoke("labels", "export", str(reviewed), "-o", str(file), "--format", form)
        assert not any(record.get(key) for record in json.loads(file.read_text()))
        invoke("labels", "export", str(reviewed), "-o", str(file), "--format", form, "--with-judge")
        assert any(record.get(key) for record in json.loads(file.read_text()))
    assert 'toName="prompt"' in (tmp_path / "queue.xml").read_text()


def test_what_people_fill_in_is_read(reviewed: Path, tmp_path: Path) -> None:
    """Label Studio's own export (names, cancelled ones, seconds) and a CSV from a spreadsheet."""
    with closing(ReviewStore(reviewed / DESK)) as store:
        task = next(t for t in store.tasks() if store.decision(t.number, "anna") is None)
    name = f"{task.item.row}:{task.item.id}"
    choice = {
        "from_name": "preference",
        "to_name": "prompt",
        "type": "choices",
        "value": {"choices": ["b"]},
    }
    note = {"from_name": "note", "to_name": "prompt", "type": "textarea", "value": {"text": ["hm"]}}
    file = tmp_path / "ls.json"
    file.write_text(
        json.dumps(
            [
                {
                    "id": 1,
                    "data": {"id": name},
                    "annotations": [
                        {"result": [choice], "was_cancelled": True, "completed_by": 4},
                        {
                            "result": [choice, note],
                            "was_cancelled": False,
                            "lead_time": 7.5,
                            "completed_by": {"email": "eve@example.org"},
                        },
                    ],
                }
            ]
        )
    )
    invoke("labels", "import", str(reviewed), str(file), "--format", "label-studio")
    with closing(ReviewStore(reviewed / DESK)) as store:
        said = store.decision(task.number, "eve@example.org")
    assert said is not None
    assert (said.verdict, said.note, said.seconds) == ("b", "hm", 7.5)
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(f"id,row,label,reviewer\r\n{task.item.id},{task.item.row},Tie,mallory\r\n")
    invoke("labels", "import", str(reviewed), str(sheet), "--format", "csv")
    with closing(ReviewStore(reviewed / DESK)) as store:
        assert store.decision(task.number, "mallory").verdict == "tie"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("jsonl", '{"id": "x"', "labels:1:1"),
        ("jsonl", '{"label": "a"}', "identifies no pair"),
        ("csv", "id,row,label,reviewer\nn1,2,left,me\n", "'left' is not a valid label"),
        ("csv", "id,row,label\nn1,2,a\n", "has no reviewer for"),
        ("jsonl", '{"id": "n1", "row": 2, "votes": "{"}', "labels:1:1: not JSON"),
        ("argilla", "{}", "is not a list of records"),
        ("argilla", '[{"responses": {"preference": [{"value": "a"}]}}]', "is not argilla"),
        ("label-studio", "[1]", "is not a list of records"),
        ("label-studio", '[{"annotations": [{}]}]', "is not label-studio"),
        ("jsonl", "", "contains no labels"),
    ],
)
def test_bad_files_are_one_clear_sentence(
    reviewed: Path, tmp_path: Path, form: str, text: str, expected: str
) -> None:
    file = tmp_path / "labels"
    file.write_text(text)
    message = refused("labels", "import", str(reviewed), str(file), "--format", form)
    assert expected in message


def test_report_counts_what_was_corrected(reviewed: Path) -> None:
    found = json.loads(invoke("labels", "report", str(reviewed), "--json").output)
    assert found["labels"] >= 4
    assert found["corrected"] == 1  # one that anna calls a tie; on another she and ben disagree
    text = invoke("labels", "reviewers", str(reviewed)).output
    assert "anna" in text
    assert "ben" in text


def test_no_review_is_said(tmp_path: Path) -> None:
    run = labeled(tmp_path, 5)
    assert "has no review" in refused("labels", "report", str(run))
    store_of(run, 5).close()
    assert "has no human labels" in refused("labels", "apply", str(run), "-o", str(tmp_path / "x"))


def test_exported_labels_calibrate_and_estimate(tmp_path: Path) -> None:
    """The way from the page to `rlaif calibrate`: labels are matched by text to the run's pairs."""
    run = labeled(tmp_path, 120)
    with closing(store_of(run, 120, audit_share=1.0, overlap=0.0)) as store:
        for k, task in enumerate(t for t in store.tasks() if t.item.winner):
            right = task.item.winner if k % 4 else ("b" if task.item.winner == "a" else "a")
            store.decide(task.number, "anna", right, first="a")  # type: ignore[arg-type]
    file = tmp_path / "human.jsonl"
    invoke("labels", "export", str(run), "-o", str(file), "--audit-only")
    found = invoke(
        "calibrate", str(run), "--human-labels", str(file), "-o", str(tmp_path / "c.json")
    )
    assert found.exit_code == 0
    assert (tmp_path / "c.json").exists()


def test_contradictions_count_as_votes_in_every_estimate(tmp_path: Path) -> None:
    run = labeled(tmp_path, 120)
    right = against = 0
    with closing(store_of(run, 120, overlap=1.0, audit_share=1.0)) as store:
        tasks = [t for t in store.tasks() if t.item.winner]
        for i, task in enumerate(tasks):
            other = "b" if task.item.winner == "a" else "a"
            votes = (task.item.winner, other if i % 5 < 2 else task.item.winner)
            for who, vote in zip(("anna", "ben"), votes, strict=True):
                store.decide(task.number, who, vote, first="a")
                right += vote == task.item.winner
                against += vote != task.item.winner
    of_votes = right / (right + against)
    facts = json.loads(invoke("labels", "report", str(run), "--json").output)
    assert facts["agreement"]["total"] == len(tasks)
    assert facts["agreement"]["rate"] == pytest.approx(of_votes, abs=0.08)
    assert facts["agreement"]["rate"] < 0.95
    out = tmp_path / "h.jsonl"
    invoke("labels", "export", str(run), "-o", str(out))
    exported = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["label"] for row in exported} == {"a", "b"}
    share = sum(row["label"] == row["judge"] for row in exported) / len(exported)
    assert share == pytest.approx(of_votes, abs=0.08)
    # And back in, nothing is new.
    done = invoke("labels", "import", str(run), str(out))
    assert done.output.startswith("0 labels added")


def test_what_was_said_first_counts_whatever_was_undone(tmp_path: Path) -> None:
    run = labeled(tmp_path, 60)
    with closing(store_of(run, 60, overlap=0.0, audit_share=1.0)) as store:
        tasks = [t for t in store.tasks() if t.item.winner]
        for i, task in enumerate(tasks):
            other = "b" if task.item.winner == "a" else "a"
            store.decide(task.number, "mallory", other, first="ab"[i % 2], seconds=60.0)
            if i % 2:
                assert store.undo("mallory") == task.number
            store.decide(task.number, "mallory", task.item.winner, first="ab"[i % 2], seconds=5.0)
    facts = json.loads(invoke("labels", "report", str(run), "--json").output)
    assert facts["agreement"]["hits"] == 0
    assert facts["minutes"] == pytest.approx(len(tasks) * 65 / 60)
    reviewers = json.loads(invoke("labels", "reviewers", str(run), "--json").output)["reviewers"]
    assert (reviewers[0]["judge"]["hits"], reviewers[0]["judge"]["total"]) == (0, len(tasks))
    assert reviewers[0]["changed"]["rate"] == 1.0
    # What is applied is what they say now.
    counts = invoke("labels", "apply", str(run), "-o", str(tmp_path / "out"), "--json").output
    assert json.loads(counts)["confirmed"] == len(tasks)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_corrected_or_filled_in_file_is_read_as_it_says(
    reviewed: Path, tmp_path: Path, form: str
) -> None:
    file = tmp_path / f"labels.{form}"
    invoke("labels", "export", str(reviewed), "-o", str(file), "--format", form, "--queue")
    read = (
        list(csv.DictReader(io.StringIO(file.read_text())))
        if form == "csv"
        else [json.loads(line) for line in file.read_text().splitlines()]
    )
    empty = [row for row in read if not row["label"]]
    with closing(ReviewStore(reviewed / DESK)) as store:
        assert len(read) == len(list(store.tasks()))
        before = len(store.decisions())
    assert empty
    assert {(row["judge"], row["votes"]) for row in empty} == {("", "")}, "the judge is not shown"

    def import_(*flags: str) -> str:
        if form == "csv":
            with file.open("w", newline="") as out:
                writer = csv.DictWriter(out, [*read[0], "reviewer"])
                writer.writeheader()
                writer.writerows(read)
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in read))
        return str(
            invoke("labels", "import", str(reviewed), str(file), "--format", form, *flags).output
        )

    assert import_().startswith("0 labels added"), "what is empty says nothing"
    changed = next(row for row in read if row["votes"] and "," not in row["reviewers"])
    changed["label"] = {"a": "b", "b": "tie", "tie": "a"}[changed["label"]]
    empty[0]["label"] = "a"
    assert import_("--reviewer", "carl").startswith("2 labels added")
    with closing(ReviewStore(reviewed / DESK)) as store:
        new = store.decisions()[before:]
        assert [d.reviewer for d in new] == ["carl", "carl"]
        assert {d.verdict for d in new} == {changed["label"], "a"}


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_sheet_from_a_spreadsheet_of_another_country(
    reviewed: Path, tmp_path: Path, separator: str
) -> None:
    with closing(ReviewStore(reviewed / DESK)) as store:
        task = next(iter(store.tasks()))
    lines = [["id", "row", "label", "reviewer"], [task.item.id, str(task.item.row), "b", "zoe"]]
    file = tmp_path / "sheet.csv"
    file.write_text("\ufeff" + "".join(separator.join(line) + "\r\n" for line in lines))
    done = invoke("labels", "import", str(reviewed), str(file), "--format", "csv")
    assert done.output.startswith("1 labels added")
    with closing(ReviewStore(reviewed / DESK)) as store:
        assert store.decision(task.number, "zoe").verdict == "b"  # type: ignore[union-attr]


def test_a_column_that_is_there_twice_is_refused(reviewed: Path, tmp_path: Path) -> None:
    file = tmp_path / "sheet.csv"
    file.write_text("id,row,label,label,reviewer\n1,1,a,b,zoe\n")
    done = CliRunner().invoke(
        cli, ["labels", "import", str(reviewed), str(file), "--format", "csv"]
    )
    assert "'label' is there twice" in str(done.exception)


def test_ids_that_lost_their_zeros_are_matched_where_one_pair_can_be_meant() -> None:
    found = shortened_names(["1:007", "1:1.50", "2:07", "2:0007", "3:9", "3:x07", "4:-0", "5:00"])
    assert found == {"1:7": "1:007", "1:1.5": "1:1.50", "5:0": "5:00"}


def test_labels_without_edits_take_none_away(reviewed: Path, tmp_path: Path) -> None:
    with closing(ReviewStore(reviewed / DESK)) as store:
        edited = next(d for d in store.decisions() if d.edited)
        task = store.task(edited.item)
    assert task is not None
    file = tmp_path / "own.csv"
    file.write_text(
        f"id,row,label,reviewer\n{task.item.id},{task.item.row},{edited.verdict},anna\n"
    )
    done = invoke("labels", "import", str(reviewed), str(file), "--format", "csv")
    assert done.output.startswith("0 labels added, 1 already present")
    counts = json.loads(
        invoke("labels", "apply", str(reviewed), "-o", str(tmp_path / "o"), "--json").output
    )
    assert counts["edits"] == 1


def test_exported_pairs_mix_as_pairs_that_people_ranked(reviewed: Path, tmp_path: Path) -> None:
    file = tmp_path / "human.jsonl"
    invoke("labels", "export", str(reviewed), "-o", str(file))
    rows_ = [json.loads(line) for line in file.read_text().splitlines()]
    sided = {
        row["response_" + ("a" if row["p_a"] > 0.5 else "b")][-1]["content"]
        for row in rows_
        if row["p_a"] != 0.5
    }
    assert len(sided) > 1
    invoke(
        "mix",
        f"{file}=1",
        "--human-labeled",
        str(file),
        "--min-human",
        "0",
        "-o",
        str(tmp_path / "m"),
    )
    loaded = load_dataset(str(tmp_path / "m"), split="train", cache_dir=str(tmp_path / "cache"))
    assert {row["chosen"][-1]["content"] for row in loaded} == sided
    assert {row["provenance"]["status"] for row in loaded} == {"human"}
    assert {text for row in read_audited(str(file)) for text in row.texts} == sided


def test_a_run_with_labels_of_people_is_verified_where_it_was_judged(
    reviewed: Path, tmp_path: Path
) -> None:
    invoke("labels", "apply", str(reviewed), "-o", str(tmp_path / "out"))
    said = refused("verify", str(tmp_path / "out"))
    assert "holds labels of people" in said
    assert str(reviewed) in said


def test_what_people_say_is_no_bias_of_the_judge(tmp_path: Path) -> None:
    run = labeled(tmp_path, 200)
    with closing(store_of(run, 200, overlap=0.0)) as store:
        for task in store.tasks():  # always the longer one
            store.decide(
                task.number, "anna", "b", first="a", edited="mine" if task.number < 5 else ""
            )
    out = tmp_path / "out"
    invoke("labels", "apply", str(run), "-o", str(out))
    before, after = (read_outcomes(folder, measure=measure_style) for folder in (run, out))
    assert after.ids == before.ids
    assert after.p_a == pytest.approx(before.p_a, abs=1e-4)
    assert (after.winner == before.winner).all()
    one, two = (
        [
            (f.name, round(f.value or 0.0, 2))
            for f in bias_report(o, groups=[str(r) for r in o.rows]).findings
        ]
        for o in (before, after)
    )
    assert one == two
    with pytest.raises(RlaifError, match="already contains human labels"):
        human_win_rates(out, open_source(str(tmp_path / "pairs.jsonl")))
    tree = invoke("lineage", str(out)).output
    assert "pairs labeled by humans" in tree


def test_an_applied_run_knows_who_plants(tmp_path: Path) -> None:
    run = labeled(tmp_path, 40)
    with closing(store_of(run, 40, overlap=1.0)) as store:
        tasks = [t for t in store.tasks() if t.item.winner][:6]
        for task in tasks:
            for who, vote in (("anna", "a"), ("bob", "b")):
                store.decide(task.number, who, vote, first="a")
    out = str(tmp_path / "out")
    assert json.loads(invoke("labels", "apply", str(run), "-o", out, "--json").output)["disputed"]
    with closing(ReviewStore(run / DESK)) as store:
        store.plant("anna", 0.2)
    assert "different config" in refused("labels", "apply", str(run), "-o", out)
    page = invoke("report", str(run)).output.strip()
    assert "6 pairs reviewed" in Path(page).read_text()


def test_the_summary_of_a_reviewed_run_says_what_people_found(reviewed: Path) -> None:
    judge = ["--judge", "hashed", "--engine", "scripted", "--template", "demo"]
    folder = reviewed.parent
    plain = CliRunner().invoke(
        cli,
        [
            "label",
            str(folder / "pairs.jsonl"),
            "-c",
            str(folder / "constitution.yaml"),
            *judge,
            "-o",
            str(folder / "other"),
        ],
        catch_exceptions=False,
    )
    assert "review minutes" not in plain.output
    summary = summary_of(reviewed, None)
    with CliRunner().isolation() as (out, *_):
        print_summary(summary)
        shown = out.getvalue().decode()
    facts = json.loads((reviewed / "review.json").read_text())
    assert re.search(rf"review minutes .* for {facts['labels']} pairs", shown)
    assert re.search(rf"judge labels overturned +{facts['corrected']}\b", shown)
    assert f"of {facts['agreement']['total']} random pairs" in shown

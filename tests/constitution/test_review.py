"""Lint's advice and what a diff says will be asked again."""

from __future__ import annotations

from pathlib import Path

from rlaif.constitution.load import load_constitution
from rlaif.constitution.review import diff, lint
from rlaif.constitution.schema import json_schema

HEAD = 'schema: 1\nname: a\nversion: "1"\nprinciples:\n'
EXAMPLE = "    examples: [{prompt: p, chosen: good, rejected: bad}]\n"


def load(folder: Path, body: str, name: str = "c.yaml"):
    (folder / name).write_text(HEAD + body)
    return load_constitution(str(folder / name))


def test_lint_finds_each_kind_of_weakness_and_its_line(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "  - id: good\n    preference: Which response is kind?\n"
        + EXAMPLE
        + "  - id: inverted\n    preference: Which response is more harmful?\n"
        + EXAMPLE
        + "  - id: same\n    preference: Which  response is KIND?\n"
        + EXAMPLE
        + "  - id: bare\n    preference: Be kind.\n"
        + "  - id: half\n    preference: Which answer is short?\n    critique: Say.\n"
        + EXAMPLE,
    )
    found = {
        (w.principle, w.place.line, w.message.split(";")[0].split(",")[0]) for w in lint(loaded)
    }
    assert found == {
        ("inverted", 8, "asks for the worse response"),
        ("same", 11, "asks the same question as 'good'"),
        ("bare", 14, "does not say what to compare (responses"),
        ("bare", 14, "has no examples"),
        ("half", 16, "sets only one of `critique` and `revision`"),
    }


def test_diff_tells_what_costs_judge_calls(tmp_path: Path) -> None:
    old = load(
        tmp_path,
        "  - {id: a, preference: Which response is 1.}\n"
        "  - {id: b, preference: Which response is 2.}\n"
        "  - {id: c, preference: Which response is 3.}\n",
        "old.yaml",
    )
    new = load(
        tmp_path,
        "  - {id: a, preference: Which response is one.}\n"
        "  - {id: b, preference: Which response is 2., weight: 2.0}\n"
        "  - {id: d, check: {kind: json}}\n"
        "  - {id: e, preference: Which response is 5.}\n",
        "new.yaml",
    )
    changes = {(c.principle, c.asks_judge_again) for c in diff(old.constitution, new.constitution)}
    assert changes == {("a", True), ("b", False), ("c", False), ("d", False), ("e", True)}
    assert diff(old.constitution, old.constitution) == []


def test_json_schema_accepts_every_shipped_file_and_refuses_a_typo() -> None:
    import yaml
    from jsonschema import Draft202012Validator

    from rlaif.util.resources import data_root

    validator = Draft202012Validator(json_schema())
    for path in (data_root() / "constitutions").glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        assert list(validator.iter_errors(document)) == [], path
        document["principles"][0]["wieght"] = 1
        assert list(validator.iter_errors(document))

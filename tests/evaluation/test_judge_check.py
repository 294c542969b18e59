"""Finding the template that a judge answers to, against figures that follow from its rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from rlaif import Judge
from rlaif.cli.main import cli
from rlaif.constitution.load import load_constitution
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import RlaifError
from rlaif.evaluation.judge_check import (
    TemplateCheck,
    check_templates,
    pairs_of_data,
    pairs_of_examples,
    recommend,
    vary_prefills,
)
from rlaif.labeling.judge_file import read_judge_file
from rlaif.runs.directory import read_run_config
from rlaif.templates.judge import load_judge_template

CONSTITUTION = """\
schema: 1
name: small
version: "1"
principles:
  - id: one
    preference: "Which response is one?"
    examples:
      - {prompt: p, chosen: good 1, rejected: bad 1}
      - {prompt: p, chosen: good 2, rejected: bad 2}
      - {prompt: p, chosen: bad 3, rejected: good 3}
  - id: two
    preference: "Which response is two?"
    examples: [{prompt: q, chosen: good 4, rejected: bad 4}]
  - {id: short, check: {kind: max_length, words: 3}}
"""


@pytest.fixture
def constitution(tmp_path: Path) -> str:
    path = tmp_path / "c.yaml"
    path.write_text(CONSTITUTION)
    return str(path)


def likes_good(text: str) -> tuple[float, float]:
    """Log-odds of 2 for the response that is called good, 3 for the first; and a label only after
    the word "Response".
    """
    first = text.index("good") < text.index("bad")
    return (2.0 if first else -2.0) + 3.0, 0.9 if text.endswith("Response") else 0.1


def test_figures_follow_from_the_judge_s_rule(constitution: str) -> None:
    known = pairs_of_examples(load_constitution(constitution).constitution)
    assert len(known) == 4  # the check has no judge
    shipped = load_judge_template("pairwise")
    tried = [shipped, replace(shipped, prefill="")]
    opened, bare = check_templates(ScriptedEngine(likes_good), tried, known, floor=0.5)
    assert opened.label_mass == pytest.approx((0.9, 0.9))
    assert opened.valid == 1.0
    assert opened.consistency == 0.0  # 3 + 2 and 3 - 2 are both for the first
    assert opened.offset == pytest.approx(3.0)
    assert list(opened.right.values()) == [1.0, 1.0, 0.0, 1.0]
    assert opened.agreement == 0.75
    assert bare.label_mass == pytest.approx((0.1, 0.1))
    assert bare.valid == 0.0
    assert bare.consistency is bare.offset is None
    assert bare.agreement == 0.5
    assert opened.tokens - bare.tokens == len(" The better response is Response")
    assert recommend([bare, opened], "pairwise") is opened
    assert recommend([bare], "pairwise") is None


def test_labeled_data_is_judged_by_all_its_principles(tmp_path: Path, constitution: str) -> None:
    rows = [
        {"prompt": f"q {k}", "response_a": f"good {k}", "response_b": f"bad {k}", "winner": w}
        for k, w in enumerate(["a", "b", "tie", "a"])
    ]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = pairs_of_data(str(path), load_constitution(constitution).constitution, 10)
    (check,) = check_templates(
        ScriptedEngine(likes_good), [load_judge_template("pairwise")], known, floor=0.5
    )
    # The check `short` has its say, too, and finds both alike; a tie is no pair to be right on.
    assert list(check.right.values()) == [1.0, 0.0, 1.0]
    assert len(pairs_of_data(str(path), load_constitution(constitution).constitution, 2)) == 2


def test_a_label_that_is_no_token_is_told_and_the_others_go_on(
    tmp_path: Path, constitution: str
) -> None:
    known = pairs_of_examples(load_constitution(constitution).constitution)
    fine = load_judge_template("pairwise")
    wrong = replace(fine, labels=("First", "Second"))
    bad, good = check_templates(ScriptedEngine(likes_good), [wrong, fine], known, floor=0.5)
    assert "longer than one byte" in bad.problem
    assert good.valid == 1.0
    assert recommend([bad, good], "pairwise") is good


@pytest.mark.parametrize(
    ("right", "other", "kept"),
    [
        ([0.0] * 5, [1.0] * 5, False),  # 5 of 5: 1 / 32 is below 5%
        ([0.0] * 4, [1.0] * 4, True),  # 4 of 4: 1 / 16 is not
        ([1.0, 0.0, 0.0], [0.0, 1.0, 1.0], True),
        ([0.0] * 9 + [1.0], [1.0] * 9 + [0.0], False),  # 11 / 1024
        ([1.0] * 5, [1.0] * 5, True),
    ],
)
def test_the_default_is_kept_unless_another_is_surely_better(
    right: list[float], other: list[float], kept: bool
) -> None:
    default, better = (
        TemplateCheck(
            replace(load_judge_template("pairwise"), name=name),
            valid=1.0,
            right=dict(enumerate(values)),
        )
        for name, values in (("pairwise", right), ("other", other))
    )
    assert recommend([better, default], "pairwise") is (default if kept else better)


def test_each_way_to_ask_is_tried_once() -> None:
    shipped = load_judge_template("pairwise")
    tried = vary_prefills([shipped, replace(shipped, name="twin")])
    assert len({t.hash for t in tried}) == len(tried) == 4
    assert tried[0] is shipped


def check(*line: str) -> Result:
    return CliRunner().invoke(
        cli, ["judge", "check", "hashed", "--engine", "scripted", *line, "--json"]
    )


def test_what_is_recommended_is_a_judge_everywhere(
    tmp_path: Path, constitution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own.txt"
    own.write_text("---\nlabels: [A, B]\n---\n{{conversation}} {{first}} {{second}} {{principle}}")
    done = check("-c", constitution, "--template", "own.txt", "--write", "sub/judge.yaml")
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["pairs"] == 4
    assert len(found["checks"]) == 4
    best = found["recommended"]
    file = yaml.safe_load(Path("sub/judge.yaml").read_text())
    assert file["model"] == "hashed"
    assert file["engine"] == "scripted"
    assert file["checked"]["label_mass"] == pytest.approx(best["label_mass"], abs=1e-4)
    named, _ = read_judge_file(Path("sub/judge.yaml"))
    template = load_judge_template(named["template"])
    assert template.prefill == best["prefill"]

    Path("pairs.jsonl").write_text('{"prompt": "p", "chosen": "x", "rejected": "y"}\n')
    flags = ["--judge", "sub/judge.yaml"]
    label = ["label", "pairs.jsonl", "-c", constitution, "-o", "run", *flags]
    assert CliRunner().invoke(cli, label).exit_code == 0
    config = read_run_config(Path("run"))
    assert config["judge"]["model"] == "hashed"
    assert config["template"]["hash"] == template.hash
    for line in (
        ["constitution", "test", constitution, *flags],
        ["eval", "pairs.jsonl", "-c", constitution, "-o", "eval", *flags],
        ["label", "pairs.jsonl", "-c", constitution, "-o", "panel", *flags, *flags],
        ["generate", "pairs.jsonl", "-m", "demo", "-c", constitution, "-o", "gen"],
    ):
        more = ["--keep", "best", "--dry-run", *flags] if line[0] == "generate" else []
        said = CliRunner().invoke(cli, [*line, *more])
        assert not isinstance(said.exception, RlaifError), (line, said.exception)
    with Judge(constitution, "sub/judge.yaml", pointwise="anchored") as judge:
        found_row = judge.compare("p", "x", "y")
        assert found_row.provenance.judge == "hashed"
        assert found_row.provenance.template_hash == template.hash


def test_a_flag_wins_over_the_file(tmp_path: Path, constitution: str) -> None:
    (tmp_path / "j.yaml").write_text("model: one\nengine: vllm\ntemplate: demo\n")
    (tmp_path / "d.jsonl").write_text('{"prompt": "p", "chosen": "x", "rejected": "y"}\n')
    line = ["label", str(tmp_path / "d.jsonl"), "-c", constitution, "-o", str(tmp_path / "run")]
    line += ["-j", str(tmp_path / "j.yaml"), "--engine", "scripted", "--template", "pairwise"]
    done = CliRunner().invoke(cli, line)
    assert done.exit_code == 0, done.exception
    config = read_run_config(tmp_path / "run")
    assert (config["judge"]["model"], config["judge"]["engine"]) == ("one", "scripted")
    assert config["template"]["name"] == "pairwise"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("engine: vllm\n", "names the judge's `model`"),
        ("model: x\ntemperature: 1\n", r"j.yaml:2:1: unknown key 'temperature'"),
        ("- x\n", "names the judge's `model`"),
        ("model: x\ndtype: float7\nengine: scripted\n", r"j.yaml:2:8: dtype"),
    ],
)
def test_what_is_wrong_with_a_judge_file_is_said_with_its_place(
    tmp_path: Path, constitution: str, text: str, match: str
) -> None:
    (tmp_path / "j.yaml").write_text(text)
    (tmp_path / "d.jsonl").write_text('{"prompt": "p", "chosen": "x", "rejected": "y"}\n')
    line = ["label", str(tmp_path / "d.jsonl"), "-c", constitution, "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(cli, [*line, "-j", str(tmp_path / "j.yaml")])
    with pytest.raises(RlaifError, match=match):
        raise done.exception or AssertionError(done.output)


def test_a_judge_that_answers_to_nothing_is_one_clear_error(constitution: str) -> None:
    done = check("-c", constitution, "--option", "label_mass=0.05")
    assert isinstance(done.exception, RlaifError)
    assert "answers to no template with a label" in done.exception.message
    lower = check("-c", constitution, "--option", "label_mass=0.05", "--label-mass-floor", "0.01")
    assert lower.exit_code == 0


def test_a_constitution_without_examples_says_so(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "schema: 1\nname: s\nversion: '1'\nprinciples: [{id: a, preference: 'Which?'}]\n"
    )
    done = check("-c", str(path))
    assert isinstance(done.exception, RlaifError)
    assert "--data" in (done.exception.hint or "")

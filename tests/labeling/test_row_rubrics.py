"""What a row brings along: a reference answer, its own criteria; and what principles add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Constitution
from rlaif.data.messages import BadRow
from rlaif.data.row_rubrics import read_reference, read_rubric, write_rubric
from rlaif.engines.scripted import ByteCodec, hashed_rule
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.judging.questions import plan_questions, principles_for
from rlaif.judging.rendering import Renderer, describe_principle
from rlaif.records import Criterion, Pair
from rlaif.runs.labels import read_labels
from rlaif.templates.judge import load_judge_template
from rlaif.util.hashing import digest
from tests.labeling.helpers import rows

RUBRIC: list[Any] = [
    "Names the capital.",
    {"criterion": "States a population that is wrong.", "points": -4},
    {"text": "Is one sentence.", "weight": 2.5, "tier": 2},
    {"description": "Weighs nothing.", "weight": 0},
]


def test_rubrics_are_read_as_they_are_written() -> None:
    expected = (
        Criterion("rubric-1", "Names the capital."),
        Criterion("rubric-2", "States a population that is wrong.", -4.0),
        Criterion("rubric-3", "Is one sentence.", 2.5, 2),
    )
    assert read_rubric(RUBRIC) == expected
    assert read_rubric(json.dumps(RUBRIC)) == expected
    assert read_rubric({"question": "Is it short?"}) == (Criterion("rubric-1", "Is it short?"),)
    assert read_rubric("Is it short?") == (Criterion("rubric-1", "Is it short?"),)
    kept = read_rubric([{"text": "x", "weight": 0}, "y"])
    assert kept == (Criterion("rubric-1", "y"),)
    assert read_rubric(write_rubric(expected)) == expected
    for nothing in (None, "", "  ", [], float("nan")):
        assert read_rubric(nothing) == ()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (3, "a int; it must be a list"),
        ("[1, 2", "begins like JSON and is none"),
        ([3], "criterion 1 of the rubric is a int"),
        ([{"weight": 1}], "has none of criterion"),
        ([{"text": "x", "criterion": "y"}], "several texts"),
        ([{"text": "x", "weight": 1, "points": 2}], "several weights"),
        ([{"text": "x", "weight": "high"}], "the weight 'high'"),
        ([{"text": "x", "weight": True}], "the weight 'True'"),
        ([{"text": "x", "weight": float("nan")}], "the weight 'nan'"),
        ([{"text": "x", "weight": 1e9}], "from -1000 to 1000"),
        ([{"text": "x", "tier": 0}], "the tier '0'"),
        (["x"] * 201, "201 criteria; the limit is 200"),
        (["x" * 10_001], "10001 characters; the limit is 10000"),
        ([{"text": "x", "weight": 10**400}], "from -1000 to 1000"),
        ("[" * 100_000, "begins like JSON and is none"),
    ],
)
def test_what_is_no_rubric_is_refused_with_the_reason(wrong: object, said: str) -> None:
    with pytest.raises(BadRow, match=said):
        read_rubric(wrong)


@pytest.mark.parametrize("column", ["rubrics", "context", "answer", "label", "response_c"])
def test_a_column_that_is_named_plays_no_other_role(column: str, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    with data.open("w") as file:
        for n in range(30):
            row = {"prompt": f"Name city {n}.", "response_a": f"City {n}.", "response_b": "No."}
            rubric = [{"criterion": f"Names city number {n}.", "weight": 2}, {"criterion": "Kind."}]
            value = f"The city is {n}." if column != "rubrics" else rubric
            file.write(json.dumps({**row, column: value}) + "\n")
    role = "rubric" if column == "rubrics" else "reference"
    flags = ["-c", "overall", "-j", "hashed", "--engine", "scripted", "--keep-going"]
    flags += ["--map", f"{role}={column}", "-o", str(tmp_path / "run")]
    if role == "reference":
        flags += ["--template", "reference"]
    done = CliRunner().invoke(
        cli, ["label", str(data), *flags, "--cache-dir", str(tmp_path / "cache")]
    )
    assert done.exit_code == 0, done.exception or done.output
    labels = list(read_labels(tmp_path / "run"))
    assert len(labels) == 30
    for label in labels:
        assert [m["content"] for m in label.prompt] == [f"Name city {label.row - 1}."]
        evidence = label.data["provenance"]
        assert bool(evidence.get("criteria" if role == "rubric" else "reference"))


def test_a_reference_that_no_template_shows_is_refused(tmp_path: Path) -> None:
    flags = write(tmp_path)
    done = CliRunner().invoke(cli, [*flags, "--map", "reference=gold", "-o", str(tmp_path / "r")])
    assert isinstance(done.exception, RlaifError)
    assert "has no place for the reference" in str(done.exception)
    told = CliRunner().invoke(
        cli, ["constitution", "lint", str(tmp_path / "c.yaml"), "--template", "reference"]
    )
    assert told.exit_code == 0, told.exception


def test_a_cascade_over_a_constitution_with_such_ids_goes_on(tmp_path: Path) -> None:
    """Only mapped rubrics take the ids `rubric-1`, `rubric-2`, ..."""
    flags = write(tmp_path)
    text = (tmp_path / "c.yaml").read_text().replace("polite\n", "rubric-1\n")
    (tmp_path / "c.yaml").write_text(text)
    other = tmp_path / "judge.yaml"
    other.write_text("model: other\nengine: scripted\n")
    done = CliRunner().invoke(
        cli, [*flags, "-j", str(other), "--panel", "cascade", "-o", str(tmp_path / "run")]
    )
    assert done.exit_code == 0, done.exception or done.output


def test_reference_answers_are_text() -> None:
    assert [read_reference(v) for v in ("Oslo ", ["Oslo"], 42, None)] == ["Oslo", "Oslo", "42", ""]
    for wrong in (["a", "b"], {"a": 1}, True):
        with pytest.raises(BadRow, match="the reference answer is"):
            read_reference(wrong)


def write(folder: Path, count: int = 6) -> list[str]:
    """Rows with and without a reference and a rubric; the flags to label them."""
    with (folder / "pairs.jsonl").open("w") as file:
        for n in range(count):
            row: dict[str, Any] = {
                "id": f"p{n}",
                "prompt": f"What is the capital of country {n}?",
                "responses": [f"It is city {n}.", f"I do not know city {n}."],
                "gold": f"City {n}" if n else None,
                "rubrics": [f"Names city {n}.", {"text": "Is rude.", "points": -2}] if n else [],
            }
            file.write(json.dumps(row) + "\n")
    (folder / "c.yaml").write_text(
        "schema: 1\nname: c\nversion: '1'\nprinciples:\n"
        "- id: polite\n  preference: Who is polite?\n"
        "  rationale: People come back.\n  examples:\n"
        "  - {prompt: Hi, chosen: Hello!, rejected: Go.}\n"
        "  - {prompt: Bye, chosen: Goodbye!, rejected: Went.}\n"
    )
    return [
        *("label", str(folder / "pairs.jsonl"), "-c", str(folder / "c.yaml")),
        *("-j", "hashed", "--engine", "scripted", "--cache-dir", str(folder / "cache")),
        *("--keep-going", "--tie-margin", "0"),
    ]


def test_a_row_s_own_criteria_are_principles_of_that_row(tmp_path: Path) -> None:
    line = [*write(tmp_path), "--map", "rubric=rubrics", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(cli, line)
    assert done.exit_code == 0, done.exception or done.output
    labels = {label.id: label for label in read_labels(tmp_path / "run")}
    assert [p.principle for p in labels["p0"].principles] == ["polite"]
    for n in range(1, 6):
        label = labels[f"p{n}"]
        assert {p.principle: p.weight for p in label.principles} == {
            "polite": 1.0,
            "rubric-1": 1.0,
            "rubric-2": 2.0,
        }
        assert label.criteria == {"rubric-1": f"Names city {n}.", "rubric-2": "Is rude."}
    # The judge read the criterion itself, in both orders.
    verdicts = {
        (v["pair"], v["principle"], v["order"]): v for v in rows(tmp_path / "run", "verdicts.jsonl")
    }
    template = load_judge_template("pairwise")
    prompt = template.render(
        conversation="User: What is the capital of country 3?",
        first="I do not know city 3.",
        second="It is city 3.",
        principle="Which response does less of what this describes? Is rude.",
    )
    logit, _ = hashed_rule(f"user: {prompt}\nassistant: {template.prefill}")
    assert verdicts["p3", "rubric-2", "ba"]["logit"] == pytest.approx(logit, abs=1e-4)
    told = CliRunner().invoke(
        cli, ["verify", str(tmp_path / "run"), "--cache-dir", str(tmp_path / "cache")]
    )
    assert told.exit_code == 0, told.output


def test_a_reference_is_read_and_rows_without_one_are_left_undecided(tmp_path: Path) -> None:
    flags = write(tmp_path)
    bare = CliRunner().invoke(cli, [*flags, "--template", "reference", "-o", str(tmp_path / "no")])
    assert isinstance(bare.exception, RlaifError)
    assert "no column is named. Name it in `rlaif label` with --map" in str(bare.exception)
    line = [*flags, "--template", "reference", "--map", "reference=gold"]
    done = CliRunner().invoke(cli, [*line, "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.exception or done.output
    labels = {label.id: label for label in read_labels(tmp_path / "run")}
    assert labels["p0"].status == "abstained"
    assert "needs a reference, and the row has none" in labels["p0"].reason
    template = load_judge_template("reference")
    text = template.render(
        conversation="User: What is the capital of country 2?",
        first="It is city 2.",
        second="I do not know city 2.",
        principle="Who is polite?\n\nWhy it matters: People come back.",
        reference="City 2",
    )
    logit, _ = hashed_rule(f"user: {text}\nassistant: {template.prefill}")
    verdict = next(
        v
        for v in rows(tmp_path / "run", "verdicts.jsonl")
        if (v["pair"], v["order"]) == ("p2", "ab")
    )
    assert verdict["logit"] == pytest.approx(logit, abs=1e-4)
    assert labels["p2"].data["provenance"]["reference"] == "City 2"


def test_examples_are_shown_as_many_as_asked_and_lint_tells_their_cost(tmp_path: Path) -> None:
    flags = write(tmp_path)
    (principle,) = load_constitution(str(tmp_path / "c.yaml")).constitution.principles
    assert describe_principle(principle) == "Who is polite?\n\nWhy it matters: People come back."
    two = describe_principle(principle, 2)
    assert two.index("Better: Hello!") < two.index("Better: Goodbye!")
    assert "Response A" not in two
    for shots in (0, 1):
        out = tmp_path / f"run{shots}"
        done = CliRunner().invoke(cli, [*flags, "--shots", str(shots), "-o", str(out)])
        assert done.exit_code == 0, done.exception or done.output
    kept = [
        {
            (v["pair"], v["order"]): v["request"]
            for v in rows(tmp_path / f"run{n}", "verdicts.jsonl")
        }
        for n in (0, 1)
    ]
    assert kept[0].keys() == kept[1].keys()
    assert not set(kept[0].values()) & set(kept[1].values())  # other prompts, asked anew
    told = CliRunner().invoke(
        cli, ["constitution", "lint", str(tmp_path / "c.yaml"), "--template", "pairwise", "--json"]
    )
    tokens = json.loads(told.stdout)["tokens_of_shots"]
    assert set(tokens) == {"1", "2"}
    assert 0 < tokens["1"] < tokens["2"]


def test_places_of_a_template(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text(
        "---\nlabels: [A, B]\n---\n{{tools}}\n{{rubric}}\n{{conversation}}\n{{first}}\n{{second}}\n"
        "{{principle}}"
    )
    renderer = Renderer(load_judge_template(str(path)), ByteCodec())
    pair = Pair(
        id="p",
        prompt=[{"role": "user", "content": "Hi {{principle}}"}],
        a=[{"role": "assistant", "content": "A"}],
        b=[{"role": "assistant", "content": "B"}],
        tools=[{"name": "f"}],
        criteria=(Criterion("rubric-1", "Is kind."), Criterion("rubric-2", "Lies.", -2)),
    )
    constitution = Constitution.model_validate(
        {"schema": 1, "name": "c", "version": "1", "principles": [{"id": "x", "preference": "Q?"}]}
    )
    principles = principles_for(pair, constitution)
    assert [p.id for p in principles] == ["x", "rubric-1", "rubric-2"]
    first = renderer.requests(pair, plan_questions(pair, principles), "q")[0]
    assert ByteCodec().decode(first.token_ids) == (
        'user: [tool] {"name": "f"}\n- (+1) Is kind.\n- (-2) Lies.\n'
        "User: Hi {{principle}}\nA\nB\nQ?\nassistant:"
    )
    bare = Pair("p", pair.prompt, pair.a, pair.b)
    with pytest.raises(ConversationRefused, match="needs a rubric"):
        renderer.requests(bare, plan_questions(bare, principles[:1]), "q")


def test_old_constitutions_keep_their_hash_and_ids_of_rubrics_are_kept_apart(
    tmp_path: Path,
) -> None:
    base = {"schema": 1, "name": "c", "version": "1"}
    plain = Constitution.model_validate({**base, "principles": [{"id": "x", "preference": "Q?"}]})
    reasoned = Constitution.model_validate(
        {**base, "principles": [{"id": "x", "preference": "Q?", "rationale": "R."}]}
    )
    assert plain.hash != reasoned.hash
    said = plain.model_dump(mode="json", by_alias=True, exclude={"extends", "drop"})
    for principle in said["principles"]:
        assert principle.pop("rationale") is None
        assert principle.pop("translations") == {}
    assert plain.hash == digest(said)
    flags = write(tmp_path)
    text = (tmp_path / "c.yaml").read_text().replace("polite\n", "rubric-1\n")
    (tmp_path / "c.yaml").write_text(text)
    done = CliRunner().invoke(cli, [*flags, "--map", "rubric=rubrics", "-o", str(tmp_path / "r")])
    assert isinstance(done.exception, RlaifError)
    assert "has a principle 'rubric-1'" in str(done.exception)


def test_later_judges_of_a_cascade_read_them_and_other_commands_say_that_they_do_not(
    tmp_path: Path,
) -> None:
    flags = write(tmp_path)
    other = tmp_path / "judge.yaml"
    other.write_text("model: other\nengine: scripted\n")
    line = [*flags, "--map", "rubric=rubrics", "-j", str(other), "--panel", "cascade"]
    done = CliRunner().invoke(cli, [*line, "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.exception or done.output
    asked = [
        {row["principle"] for row in rows(folder, "verdicts.jsonl")}
        for folder in sorted((tmp_path / "run" / "members").glob("*/"))
    ]
    assert len(asked) == 2
    assert all({"polite", "rubric-1", "rubric-2"} == names for names in asked)
    data = str(tmp_path / "pairs.jsonl")
    told = CliRunner().invoke(
        cli, ["eval", data, "-c", str(tmp_path / "c.yaml"), "--map", "rubric=rubrics", "-o", "x"]
    )
    assert isinstance(told.exception, RlaifError)
    assert "does not read a row's rubric" in str(told.exception)

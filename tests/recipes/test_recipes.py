"""`rlaif run`: what is done, what runs again, and what is wrong with a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlaif.cli.main import main
from rlaif.cli.run import _commands
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.recipes.load import load_recipe
from rlaif.recipes.plan import DONE, graph, plan_steps
from rlaif.util.user_functions import IN_RECIPE
from tests.generation.helpers import read, write_rows

RECIPE = """\
name: small
needs: {prompts: a file of prompts.}
values: {n: 2, floor: 0.5}
steps:
  candidates: {run: generate, input: $prompts, model: hashed, engine: scripted, n: $n}
  other: {run: generate, input: $prompts, model: hashed, engine: scripted, n: 3, seed: 1}
  guard: {run: guard, input: "@candidates", against: "@other", floor: $floor}
  labels:
    {run: label, input: "@candidates", constitution: c.yaml, judge: hashed, engine: scripted,
     template: demo}
"""
CONSTITUTION = """\
schema: 1
name: c
version: "1"
principles:
  - {id: one, preference: "Which response is one?"}
"""


def write(folder: Path, recipe: str = RECIPE) -> Path:
    (folder / "c.yaml").write_text(CONSTITUTION)
    write_rows(folder / "prompts.jsonl", [{"prompt": f"q {i}"} for i in range(20)])
    (folder / "r.yaml").write_text(recipe)
    return folder / "r.yaml"


def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["rlaif", "run", *arguments])
    capfd.readouterr()
    with pytest.raises(SystemExit) as done:
        main()
    shown = capfd.readouterr()
    assert isinstance(done.value.code, int)
    return done.value.code, shown.out, shown.err


def states(recipe: Path, work: Path, **given: str) -> dict[str, str]:
    values = {"prompts": str(recipe.parent / "prompts.jsonl"), **given}
    steps = plan_steps(load_recipe(str(recipe), values), work, _commands())
    return {name: state for name, _, _, state in graph(steps)}


@pytest.mark.slow
def test_steps_run_once_and_a_change_runs_what_depends_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe, work = write(tmp_path), tmp_path / "work"
    arguments = [str(recipe), "--set", f"prompts={tmp_path / 'prompts.jsonl'}", "-o", str(work)]
    code, out, err = run(monkeypatch, capfd, *arguments, "--json")
    assert code == 0, err
    folders = {name: Path(step["folder"]) for name, step in json.loads(out).items()}
    assert len(read(folders["candidates"] / "candidates.jsonl")) == 20
    assert (folders["labels"] / "preferences.jsonl").exists()
    assert set(states(recipe, work).values()) == {"done"}
    kept = json.loads((folders["guard"] / "guard.json").read_text())
    assert kept["tripped"] == []
    assert kept["depth"] == 1
    stamp = (folders["labels"] / DONE).stat().st_mtime_ns
    code, _, err = run(monkeypatch, capfd, *arguments)
    assert code == 0
    assert "$ rlaif" not in err, "nothing runs again"
    assert (folders["labels"] / DONE).stat().st_mtime_ns == stamp
    # A changed constitution: the labels alone.
    (tmp_path / "c.yaml").write_text(CONSTITUTION.replace("is one", "is two"))
    assert states(recipe, work) == {
        "candidates": "done",
        "other": "done",
        "guard": "done",
        "labels": "will run again (changed)",
    }
    (tmp_path / "c.yaml").write_text(CONSTITUTION)
    # A changed value: its step and what stands on it.
    assert states(recipe, work, n="4") == {
        "candidates": "will run again (changed)",
        "other": "done",
        "guard": "will run again (after candidates)",
        "labels": "will run again (after candidates)",
    }
    # Results that were cut are no results.
    whole = (folders["candidates"] / "candidates.jsonl").read_bytes()
    (folders["candidates"] / "candidates.jsonl").write_bytes(whole[: whole.rindex(b"\n", 0, -1)])
    with pytest.raises(RlaifError, match=r"candidates.jsonl has .* it was cut or edited"):
        states(recipe, work)
    (folders["candidates"] / "candidates.jsonl").write_bytes(whole)
    # Changed prompts: everything; and the old results are still there for the old ones.
    before = (tmp_path / "prompts.jsonl").read_text()
    (tmp_path / "prompts.jsonl").write_text(before + '{"prompt": "one more"}\n')
    assert "done" not in states(recipe, work).values()
    (tmp_path / "prompts.jsonl").write_text(before)
    assert set(states(recipe, work).values()) == {"done"}


@pytest.mark.slow
def test_a_step_that_fails_stops_the_recipe_with_its_place_and_later_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    same = RECIPE.replace("n: $n}", "n: $n, near_duplicate: 1.0, temperature: 0.1}")
    same = same.replace("floor: 0.5", "floor: 0.5, depth: 0")
    recipe = write(tmp_path, same.replace("floor: $floor", "floor: $floor, max_depth: $depth"))
    arguments = [
        str(recipe),
        "--set",
        f"prompts={tmp_path / 'prompts.jsonl'}",
        "-o",
        str(tmp_path / "work"),
    ]
    code, _, err = run(monkeypatch, capfd, *arguments)
    assert code == 2
    assert "the guard tripped" in err
    assert "r.yaml:7:3: step 'guard' failed (exit code 3)" in err
    assert states(recipe, tmp_path / "work")["labels"] == "will run"
    code, _, err = run(monkeypatch, capfd, *arguments, "--set", "depth=1")
    assert code == 0, err
    assert err.count("$ rlaif") == 2, "the guard and the labels"


def test_rounds_refer_to_the_round_before(tmp_path: Path) -> None:
    recipe = write(
        tmp_path,
        """\
values: {policy: base, rounds: 3}
rounds:
  count: $rounds
  start: {policy: $policy}
  steps:
    samples: {run: generate, input: prompts.jsonl, model: "@previous.policy"}
    labels: {run: label, input: "@samples", constitution: c.yaml}
    policy: {run: train-dpo, input: "@labels", model: "@previous.policy"}
""",
    )
    loaded = load_recipe(str(recipe), {"rounds": "2"})
    assert [s.name for s in loaded.steps] == [
        f"round-{r}.{name}" for r in (1, 2) for name in ("samples", "labels", "policy")
    ]
    assert loaded.steps[0].arguments["model"] == "base"
    assert loaded.steps[3].arguments["model"] == "@round-1.policy"
    assert loaded.steps[5].needs == ["round-2.labels", "round-1.policy"]
    steps = plan_steps(loaded, tmp_path / "w", _commands())
    assert steps[3].argv[steps[3].argv.index("--model") + 1] == str(steps[2].folder)
    assert steps[4].argv[1] == str(steps[3].folder / "candidates.jsonl")


def test_shares_and_settings_follow_references_in_rounds_and_steps_may_come_after(
    tmp_path: Path,
) -> None:
    recipe = write(
        tmp_path,
        """\
rounds:
  count: 2
  start: {policy: base}
  steps:
    samples: {run: generate, input: prompts.jsonl, model: ["@previous.policy,n=2", other]}
    mixed: {run: mix, input: ["@samples=0.8", "prompts.jsonl=0.2"]}
    policy: {run: train-sft, input: "@mixed", model: "@previous.policy"}
after:
  answers: {run: generate, input: prompts.jsonl, model: [base, "@last.policy,n=3"]}
""",
    )
    loaded = load_recipe(str(recipe), {})
    by_name = {s.name: s for s in loaded.steps}
    assert by_name["round-1.samples"].arguments["model"] == ["base,n=2", "other"]
    assert by_name["round-2.samples"].arguments["model"] == ["@round-1.policy,n=2", "other"]
    assert by_name["round-2.mixed"].arguments["input"] == [
        "@round-2.samples=0.8",
        "prompts.jsonl=0.2",
    ]
    assert by_name["round-2.policy"].arguments["input"] == "@round-2.mixed"
    assert by_name["answers"].needs == ["round-2.policy"]
    steps = {p.step.name: p for p in plan_steps(loaded, tmp_path / "w", _commands())}
    argv = steps["answers"].argv
    assert argv[argv.index("--model") + 3] == f"{steps['round-2.policy'].folder},n=3"
    assert steps["round-2.mixed"].argv[1] == (
        f"{steps['round-2.samples'].folder}/candidates.jsonl=0.8"
    )


def test_an_input_that_is_not_there_is_known_before_anything_runs(tmp_path: Path) -> None:
    recipe = write(
        tmp_path, RECIPE.replace('input: "@candidates", against', "input: none.jsonl, against")
    )
    with pytest.raises(RlaifError, match=r"step 'guard': 'none\.jsonl' does not exist") as error:
        states(recipe, tmp_path / "w")
    assert str(error.value.place).endswith("r.yaml:7:30")


def test_files_that_a_settings_file_names_are_inputs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sys.yaml").write_text("- You are brief.\n")
    (tmp_path / "cfg.yaml").write_text(f"system: {tmp_path / 'sys.yaml'}\n")
    recipe = write(tmp_path, RECIPE.replace("n: $n}", "n: $n, config: cfg.yaml}"))
    values = {"prompts": str(tmp_path / "prompts.jsonl")}

    def address() -> str:
        return plan_steps(load_recipe(str(recipe), values), tmp_path / "w", _commands())[0].hash

    before = address()
    assert address() == before
    (tmp_path / "sys.yaml").write_text("- You are long.\n")
    assert address() != before


@pytest.mark.parametrize("count", ["²", "x" * 300])
def test_odd_values_are_errors_with_their_place(tmp_path: Path, count: str) -> None:
    recipe = write(
        tmp_path,
        "values: {rounds: 2}\nrounds:\n  count: $rounds\n  steps:\n"
        "    a: {run: generate, input: prompts.jsonl}\n",
    )
    with pytest.raises(RlaifError, match="count is"):
        load_recipe(str(recipe), {"rounds": count})


@pytest.mark.parametrize(
    "name", ["constitutional-ai", "rlaif", "distillation", "on-policy", "self-instruct"]
)
def test_shipped_recipes_fit_their_commands(tmp_path: Path, name: str) -> None:
    prompts = write_rows(tmp_path / "p.jsonl", [{"prompt": "q"}])
    more = {
        "constitutional-ai": ["heldout"],
        "on-policy": ["human", "heldout"],
        "self-instruct": ["human"],
    }
    first = "seeds" if name == "self-instruct" else "prompts"
    given = dict.fromkeys([first, *more.get(name, [])], prompts)
    steps = plan_steps(load_recipe(name, given), tmp_path / "w", _commands())
    assert len(steps) >= 2
    with pytest.raises(RlaifError, match=rf"needs '{first}': a file of .*--set {first}="):
        load_recipe(name, {})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("run: guard", "run: gaurd", r"r\.yaml:7:16: step 'guard' runs 'gaurd'.*Did you mean 'gu"),
        ("floor: $floor", "flor: 1", r"r\.yaml:7:\d+: step 'guard': guard has no option 'flor'"),
        (
            'input: "@candidates", aga',
            'input: "@labels", aga',
            r"@labels, which is not before this step",
        ),
        ('input: "@candidates", aga', 'input: "@nope", aga', r"@nope, which is not a step"),
        ("n: $n", "n: $m", r"r\.yaml:5:\d+: unknown value \$m"),
        (
            "n: $n",
            "n: {a: 1}",
            r"r\.yaml:5:\d+: 'n' of step 'candidates' is not a string, a number",
        ),
        ("steps:", "stesp:", r"r\.yaml:4:1: unknown key 'stesp'. Did you mean 'steps'"),
        ("  guard:", "  Guard!:", r"r\.yaml:7:3: step name 'Guard!' must be lowercase"),
        ("input: $prompts, model: hashed, engine: scripted, n: $n", "model: x", "has no input"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_with_its_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    recipe = write(tmp_path, RECIPE.replace(old, new, 1))
    with pytest.raises(RlaifError, match=message):
        plan_steps(
            load_recipe(str(recipe), {"prompts": str(tmp_path / "prompts.jsonl")}),
            tmp_path / "w",
            _commands(),
        )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("input: $prompts,", 'input: ["--allow-functions=os", $prompts],', "take for a flag"),
        ("model: hashed", 'model: "--config=x"', "take for a flag"),
    ],
)
def test_a_value_of_a_recipe_is_never_a_flag(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    recipe = write(tmp_path, RECIPE.replace(old, new, 1))
    with pytest.raises(RlaifError, match=message):
        plan_steps(
            load_recipe(str(recipe), {"prompts": str(tmp_path / "prompts.jsonl")}),
            tmp_path / "w",
            _commands(),
        )


def test_no_option_turns_the_code_of_a_model_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (True, "true", 1, "yes"):
        with pytest.raises(ValidationError, match="never run"):
            EngineSettings(model="x", options={"trust_remote_code": value})
    EngineSettings(model="x", options={"worker_cls": "mine.Worker"})
    monkeypatch.setenv(IN_RECIPE, "1")
    with pytest.raises(ValidationError, match="can't name code"):
        EngineSettings(model="x", options={"worker_cls": "mine.Worker"})


def test_a_mix_takes_shares_of_steps_and_files(tmp_path: Path) -> None:
    recipe = write(
        tmp_path,
        """\
steps:
  one: {run: generate, input: prompts.jsonl, model: hashed, engine: scripted}
  both: {run: mix, input: ["@one=0.75", prompts.jsonl=0.25]}
  trained: {run: train-sft, input: "@both", model: demo}
""",
    )
    steps = plan_steps(load_recipe(str(recipe), {}), tmp_path / "w", _commands())
    assert steps[1].argv[1:3] == [
        f"{steps[0].folder}/candidates.jsonl=0.75",
        f"{tmp_path}/prompts.jsonl=0.25",
    ]
    assert steps[2].argv[1] == str(steps[1].folder)
    recipe.write_text(recipe.read_text().replace("=0.25", "=0.5"))
    other = plan_steps(load_recipe(str(recipe), {}), tmp_path / "w", _commands())
    assert other[0].hash == steps[0].hash
    assert other[1].hash != steps[1].hash


def test_values_that_a_recipe_does_not_have_are_refused(tmp_path: Path) -> None:
    recipe = write(tmp_path)
    with pytest.raises(
        RlaifError, match=r"has no value 'm'\. It has these values: prompts, n, floor"
    ):
        load_recipe(str(recipe), {"m": "1"})
    with pytest.raises(RlaifError, match="Did you mean 'rlaif'"):
        load_recipe("rlaf", {})


@pytest.mark.slow
def test_a_reason_lets_a_recipe_go_on_and_runs_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = RECIPE.replace("floor: 0.5}", 'floor: 1.0, override: ""}')
    text = text.replace("floor: $floor}", "max_depth: 0, override: $override}")
    recipe = write(tmp_path, text)
    arguments = [
        str(recipe),
        "--set",
        f"prompts={tmp_path / 'prompts.jsonl'}",
        "-o",
        str(tmp_path / "work"),
    ]
    code, _, err = run(monkeypatch, capfd, *arguments)
    assert code == 2
    assert "1 synthetic generations deep, above the maximum of 0" in err
    code, _, err = run(monkeypatch, capfd, *arguments, "--set", "override=looked at by hand")
    assert code == 0
    (kept,) = (tmp_path / "work" / "guard").glob("*/guard.json")
    assert json.loads(kept.read_text())["override"] == "looked at by hand"
    # Without the reason, and with another, all is done.
    for more in ([], ["--set", "override=another"]):
        values = dict(pair.split("=", 1) for pair in more[1:])
        assert set(states(recipe, tmp_path / "work", **values).values()) == {"done"}

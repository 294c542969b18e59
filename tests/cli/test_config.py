"""A run's own `run.yaml` as `--config`: the same command again, without its flags."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from tests.labeling.helpers import contents, write_inputs

BY_ONE = [
    *("-j", "hashed", "--engine", "scripted", "--orders", "one", "--seed", "3"),
    *("--tie-margin", "0.1", "--pooling", "mean", "--principles", "sample", "--limit", "9"),
    *("--chat-option", "effort=low", "--option", "fail_every=7", "--label-mass-floor", "0.4"),
]
BY_PANEL = [
    *("-j", "hashed", "-j", "hashed,template=demo,weight=2", "--panel", "weighted"),
    *("--engine", "scripted", "--tie-margin", "0.1"),
]
BY_CASCADE = [
    *("-j", "hashed,template=demo", "-j", "hashed", "--panel", "cascade"),
    *("--engine", "scripted", "--seed", "5", "--min-coverage", "0.5"),
]


def run(*arguments: str) -> None:
    done = CliRunner().invoke(cli, ["label", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("flags", [BY_ONE, BY_PANEL, BY_CASCADE])
def test_run_yaml_as_config_reproduces_the_run(tmp_path: Path, flags: list[str]) -> None:
    data, constitution = write_inputs(tmp_path, 12)
    where = [str(data), "-c", str(constitution), "-o"]
    plain, first, again = (tmp_path / name for name in ("plain", "first", "again"))
    run(*where, str(plain), *flags[:2], "--engine", "scripted")
    run(*where, str(first), *flags)
    run(*where, str(again), "--config", str(first / "run.yaml"))
    written = (first / "run.yaml").read_text()
    assert (again / "run.yaml").read_text() == written
    assert contents(again) == contents(first)
    # The flags mattered, and flags that are given beside the file win over it.
    assert contents(first) != contents(plain)
    changed = tmp_path / "changed"
    run(*where, str(changed), "--config", str(first / "run.yaml"), "--tie-margin", "0.2")
    margin = yaml.safe_load((changed / "run.yaml").read_text())["aggregation"]["tie_margin"]
    assert margin == 0.2
    assert "&id" not in written


def test_settings_of_the_judge_may_stand_under_it(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 3)
    config = tmp_path / "label.yaml"
    config.write_text(
        "judge: {model: hashed, engine: scripted, seed: 4}\naggregation: {pooling: mean}\n"
    )
    out = tmp_path / "out"
    run(str(data), "-c", str(constitution), "-o", str(out), "--config", str(config))
    written = yaml.safe_load((out / "run.yaml").read_text())
    assert written["judge"]["engine"] == "scripted"
    assert written["aggregation"]["pooling"] == "mean"
    config.write_text("judge: {model: hashed, engin: scripted}\n")
    done = CliRunner().invoke(
        cli, ["label", str(data), "-c", str(constitution), "-o", "x", "--config", str(config)]
    )
    assert "label.yaml:1:24: unknown setting 'engin'" in str(done.exception)
    assert "Did you mean 'engine'?" in str(done.exception)


RUNS = ("first", "again")


def cli_run(*arguments: str) -> None:
    done = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output


def without_times(path: Path) -> str:
    return re.sub(r'"(time|seconds)": ?("[^"]*"|[\d.]+)', "", path.read_text())


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "prompts.jsonl"
    rows = [{"asked": f"What is the number of things in box {i}?", "kind": i} for i in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(
    ("line", "again", "file"),
    [
        (
            "generate prompts.jsonl --engine scripted -m hashed -m other,n=2,temperature=0.3 "
            "-c demo -j third --judge-template demo --keep 2 --target length:short "
            "--map prompt=asked --ignore kind",
            "generate prompts.jsonl -c demo",
            "candidates.jsonl",
        ),
        (
            "synth-prompts prompts.jsonl --engine scripted -m hashed --count 4 --template red-team "
            "--template multi-turn --map prompt=asked --ignore kind --seed 3",
            "synth-prompts prompts.jsonl",
            "prompts.jsonl",
        ),
    ],
)
def test_run_yaml_of_a_generation_reproduces_it(
    prompts: Path, line: str, again: str, file: str
) -> None:
    cli_run(*line.split(), "-o", "first")
    cli_run(*again.split(), "--config", "first/run.yaml", "-o", "again")
    assert Path("again/run.yaml").read_text() == Path("first/run.yaml").read_text()
    assert without_times(Path("again") / file) == without_times(Path("first") / file)
    assert Path("first", file).stat().st_size > 0


def test_run_yaml_of_a_critique_reproduces_it_and_its_labels(prompts: Path) -> None:
    pairs = [{"prompt": f"p {i}", "response": f"an answer of {i}"} for i in range(6)]
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    line = "critique answers.jsonl -c demo --engine scripted -m hashed -j second --rounds 2"
    cli_run(*line.split(), "--judge-template", "pairwise", "-o", "first")
    cli_run(
        *("critique", "answers.jsonl", "-c", "demo"),
        *("--config", "first/run.yaml", "-o", "again"),
    )
    assert Path("again/run.yaml").read_text() == Path("first/run.yaml").read_text()
    assert Path("again/pairs.jsonl").read_text() == Path("first/pairs.jsonl").read_text()
    judges = [
        yaml.safe_load(Path(run, "labels/run.yaml").read_text()) for run in ("first", "again")
    ]
    assert judges[0]["judge"] == judges[1]["judge"]
    assert judges[0]["judge"]["model"] == "second"
    assert judges[0]["template"] == judges[1]["template"]


def test_models_and_judge_of_a_generation_may_stand_in_a_file(prompts: Path) -> None:
    Path("g.yaml").write_text(
        "engine: scripted\n"
        "models:\n  - demo\n  - {model: two, n: 3}\n"
        "judge: {model: third, template: demo}\n"
        "keep: 1\nlayout: {prompt: [asked], ignore: [kind]}\n"
    )
    line = ["generate", "prompts.jsonl", "-c", "demo", "--config", "g.yaml"]
    cli_run(*line, "-o", "first")
    found = yaml.safe_load(Path("first/run.yaml").read_text())
    assert [(m["model"], m["sampling"]["n"]) for m in found["models"]] == [
        ("demo-policy", 4),
        ("two", 3),
    ]
    assert (found["judge"]["model"], found["judge_template"]["name"]) == ("third", "demo")
    # Flags win.
    cli_run(*line, "-m", "other", "-j", "fourth", "--judge-template", "pairwise", "-o", "second")
    found = yaml.safe_load(Path("second/run.yaml").read_text())
    assert [m["model"] for m in found["models"]] == ["other"]
    assert (found["judge"]["model"], found["judge_template"]["name"]) == ("fourth", "pairwise")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: one\n", r"g\.yaml:1:9: `models` is no list"),
        ("models: [{n: 2}]\n", r"`models` is no list of models"),
        (
            "models:\n  - model: x\n    sampling: {n: 2, m: 2}\n",
            r"g\.yaml:3:25: unknown setting 'm' of model 'x'",
        ),
        ("models: [{model: x, m: 2}]\n", r"g\.yaml:1:24: unknown setting 'm' of model 'x'"),
        ("models: [{model: x, n: 0}]\n", "n: "),
        ("models: [x]\njudge: 3\n", r"g\.yaml:2:8: `judge` names no model"),
        ("models: [x]\njudge: {model: j, modle: k}\n", "unknown setting 'modle' of `judge`"),
        ("models: [x]\njudge_template: [a]\n", r"g\.yaml:2:17: judge_template is \['a'\]"),
        ("models: [x]\ntargets: length:short\n", r"g\.yaml:2:10: `targets` is no list"),
        ("models: [x]\nlayout: prompt\n", r"g\.yaml:2:9: `layout` is no mapping"),
        ("models: [x]\nlayout: {promt: a}\n", "promt"),
        ("keep: 1\n", "no model is given"),
    ],
)
@pytest.mark.usefixtures("prompts")
def test_what_is_wrong_in_such_a_file_is_one_line_with_its_place(text: str, message: str) -> None:
    Path("g.yaml").write_text(text)
    line = ["generate", "prompts.jsonl", "--engine", "scripted", "--config", "g.yaml", "-o", "x"]
    with pytest.raises(RlaifError, match=message):
        CliRunner().invoke(cli, line, catch_exceptions=False)


def test_a_revision_is_of_the_model_that_it_is_given_for(prompts: Path) -> None:
    """A commit of one model's repository means nothing in that of another."""
    line = ["generate", "prompts.jsonl", "--engine", "scripted", "-m", "writer", "--revision", "v2"]
    line += ["-c", "demo", "--keep", "1", "--map", "prompt=asked", "--ignore", "kind"]
    cli_run(*line, "-j", "judge", "-o", "first")
    found = yaml.safe_load(Path("first/run.yaml").read_text())
    assert found["models"][0]["revision"] == "v2"
    assert found["judge"]["revision"] is None
    answers = [{"prompt": "p", "response": "an answer"}]
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    line = ["critique", "answers.jsonl", "-c", "demo", "--engine", "scripted", "-m", "writer"]
    line += ["--revision", "v2"]
    for judge, revision in (("judge", None), ("writer", "v2")):
        cli_run(*line, "-j", judge, "-o", f"by-{judge}")
        label = yaml.safe_load(Path(f"by-{judge}/labels/run.yaml").read_text())
        assert label["judge"]["revision"] == revision


def test_the_configuration_of_another_command_is_refused(prompts: Path) -> None:
    flags = "prompts.jsonl --engine scripted -m hashed --map prompt=asked --ignore kind -o first"
    cli_run("generate", *flags.split())
    line = ["synth-prompts", "prompts.jsonl", "--config", "first/run.yaml", "-o", "x"]
    with pytest.raises(RlaifError, match="configuration of a `rlaif generate` run"):
        CliRunner().invoke(cli, line, catch_exceptions=False)


def refused(line: str, match: str) -> None:
    with pytest.raises(RlaifError, match=match):
        CliRunner().invoke(cli, line.split(), catch_exceptions=False)


def said_by(line: str) -> str:
    done = CliRunner().invoke(cli, line.split(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stderr


def test_flags_win_over_what_a_file_says_of_a_model(prompts: Path) -> None:
    Path("g.yaml").write_text(
        "models:\n  - {model: one, engine: scripted, n: 3, temperature: 0.2}\n"
        "layout: {prompt: [asked]}\n"
    )
    line = ["generate", "prompts.jsonl", "--config", "g.yaml", "--ignore", "kind"]
    cli_run(*line, "-n", "2", "--temperature", "0.9", "-o", "out")
    (found,) = yaml.safe_load(Path("out/run.yaml").read_text())["models"]
    assert (found["sampling"]["n"], found["sampling"]["temperature"]) == (2, 0.9)
    assert found["engine"] == "scripted"
    Path("bad.yaml").write_text("n: 2\nmodels:\n  - one\n  - {model: two, n: 0}\n")
    refused(
        "generate prompts.jsonl --engine scripted --config bad.yaml -o x", r"bad\.yaml:4:21: n: "
    )


def test_a_critique_holds_its_judge_and_whether_it_verified(prompts: Path) -> None:
    Path("answers.jsonl").write_text('{"prompt": "p", "response": "an answer"}\n')
    line = "critique answers.jsonl -c demo --engine scripted -m hashed"
    cli_run(*f"{line} -j second --judge-template demo -o first".split())
    Path("kept.yaml").write_text(Path("first/run.yaml").read_text())
    cli_run(*["critique", "answers.jsonl", "-c", "demo", "--config", "kept.yaml", "-o", "again"])
    label = yaml.safe_load(Path("again/labels/run.yaml").read_text())
    assert (label["judge"]["model"], label["template"]["name"]) == ("second", "demo")
    cli_run(*f"{line} --no-verify -o plain".split())
    cli_run(
        *["critique", "answers.jsonl", "-c", "demo", "--config", "plain/run.yaml", "-o", "bare2"]
    )
    assert not Path("bare2/labels").exists()
    # All that a file says of the judge holds for it.
    Path("floor.yaml").write_text("judge: {model: third, label_mass_floor: 0.9}\n")
    cli_run(*f"{line} --config floor.yaml -o floor".split())
    assert yaml.safe_load(Path("floor/labels/run.yaml").read_text())["label_mass_floor"] == 0.9
    Path("floor.yaml").write_text("judge: {model: third, label_mass_floor: 7}\n")
    refused(f"{line} --config floor.yaml -o x", r"floor\.yaml:1:41: label_mass_floor")
    Path("dtype.yaml").write_text("judge: {model: third, dtype: int3}\n")
    refused(f"{line} --config dtype.yaml -o x", r"dtype\.yaml:1:30: dtype")


def test_files_that_changed_since_a_run_are_named(prompts: Path) -> None:
    Path("systems.yaml").write_text("- Be brief.\n")
    flags = "prompts.jsonl --engine scripted -m hashed --map prompt=asked --ignore kind"
    cli_run(*f"generate {flags} --system systems.yaml -o first".split())
    again = "generate prompts.jsonl --config first/run.yaml -o"
    assert "changed since" not in said_by(f"{again} same")
    Path("systems.yaml").write_text("- Be long.\n")
    assert "systems.yaml changed since first/run.yaml: this is not the same run" in said_by(
        f"{again} other"
    )


def test_a_judge_that_a_flag_names_has_no_revision_of_the_file_s(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 3)
    config = tmp_path / "c.yml"
    config.write_text("judge: {model: hashed, engine: scripted, revision: abc}\n")
    for flags, revision in ((["-j", "other"], None), ([], "abc")):
        out = tmp_path / f"out-{revision}"
        run(str(data), "-c", str(constitution), "--config", str(config), *flags, "-o", str(out))
        found = yaml.safe_load((out / "run.yaml").read_text())
        assert found["judge"]["revision"] == revision


@pytest.mark.usefixtures("prompts")
def test_files_that_mean_two_things_or_nothing_are_refused() -> None:
    Path("twice.yaml").write_text("tie_margin: 0.1\naggregation: {tie_margin: 0.3}\n")
    line = "prompts.jsonl -c demo --engine scripted -j hashed -o x --config"
    refused(f"label {line} twice.yaml", r"twice\.yaml:2:15: setting 'tie_margin' is given twice")
    Path("judge.yaml").write_text("judge: demo\n")
    refused("train-dpo run -o x --config judge.yaml", "unknown setting 'judge'")
    refused("synth-prompts prompts.jsonl -o x --config judge.yaml", "unknown setting 'judge'")
    Path("writer.yaml").write_text("writer: x\n")
    with pytest.raises(RlaifError) as found:
        CliRunner().invoke(
            cli,
            ["critique", "prompts.jsonl", "-c", "demo", "-o", "x", "--config", "writer.yaml"],
            catch_exceptions=False,
        )
    assert "--writer" not in str(found.value).replace("--writer-templates", "")


def test_the_configuration_of_label_where_it_fits(tmp_path: Path) -> None:
    rows_ = [
        {"asked": f"q {i}", "one": f"a {i}", "two": f"b {i}", "label": "ab"[i % 2]}
        for i in range(40)
    ]
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_))
    maps = ["--map", "prompt=asked", "--map", "response_a=one", "--map", "response_b=two"]
    flags = ["-c", "demo", "--engine", "scripted", "-j", "hashed", "-o", str(tmp_path / "run")]
    run(str(data), *maps, *flags)
    config = ["--config", str(tmp_path / "run" / "run.yaml"), "-o"]
    cli_run("eval", str(data), "-c", "demo", *config, str(tmp_path / "eval"))
    cli_run("constitution", "ablate", "demo", str(data), *config, str(tmp_path / "ablate"))
    for line in ("generate x.jsonl", "synth-prompts x.jsonl"):
        refused(" ".join([line, *config, "x"]), "configuration of a `rlaif label` run")

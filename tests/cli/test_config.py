"""A run's own `run.yaml` as `--config`: the same command again, without its flags."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from rlaif.cli.main import cli
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

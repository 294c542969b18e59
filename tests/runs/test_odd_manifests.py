"""Manifests, settings and cards that somebody damaged or made: one line, and no traceback."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from rlaif.runs.lineage import lineage
from rlaif.util.plain_yaml import load_plain_yaml
from tests.review.helpers import labeled

ODD: list[Any] = [
    None,
    True,
    -1,
    float("nan"),
    float("inf"),
    "x",
    [],
    {},
    [[]],
    {"a": [1]},
    [None],
    10**400,
]
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [{', '.join(['*' + chr(97 + k)] * 10)}]\n" for k in range(9)
)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    inner = value.items() if isinstance(value, dict) else []
    inner = enumerate(value[:2]) if isinstance(value, list) else inner
    for key, item in inner:
        found += paths_in(item, (*path, key))
    return found


def damage(manifest: dict[str, Any], path: tuple[Any, ...], odd: Any) -> Any:
    made = copy.deepcopy(manifest)
    if not path:
        return odd
    inside: Any = made
    for key in path[:-1]:
        inside = inside[key]
    if odd == "gone" and isinstance(inside, dict):
        del inside[path[-1]]
    else:
        inside[path[-1]] = odd
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("odd"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["report", "RUN"],
        ["lineage", "RUN"],
        ["push", "RUN", "me/data", "--dry-run"],
        ["mix", "RUN=1", "--min-human", "0", "-o", "OUT"],
        ["audit", "RUN"],
    ],
)
def test_a_damaged_manifest_is_one_line(run: Path, tmp_path: Path, words: list[str]) -> None:
    file = run / "manifest.json"
    whole = file.read_text()
    manifest = json.loads(whole)
    draws = random.Random(words[0])
    places = paths_in(manifest)
    try:
        for number in range(40):
            odd = draws.choice([*ODD, "gone"])
            path = draws.choice(places)
            file.write_text(json.dumps(damage(manifest, path, odd)))
            made = [
                w.replace("RUN", str(run)).replace("OUT", str(tmp_path / f"o{number}"))
                for w in words
            ]
            error = CliRunner().invoke(cli, made).exception
            assert error is None or isinstance(error, RlaifError | SystemExit), (path, odd, error)
    finally:
        file.write_text(whole)


def test_a_bomb_of_aliases_is_no_yaml(run: Path) -> None:
    with pytest.raises(ValueError, match="too many values"):
        load_plain_yaml(BOMB)
    with pytest.raises(ValueError, match="has no end"):
        load_plain_yaml("a: &a [*a]")
    with pytest.raises(ValueError, match="nested too deep"):
        load_plain_yaml("[" * 5000 + "]" * 5000)
    assert load_plain_yaml("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}
    whole = (run / "run.yaml").read_text()
    try:
        (run / "run.yaml").write_text(BOMB)
        lineage(run)
        with pytest.raises(RlaifError, match="not a run directory"):
            CliRunner().invoke(cli, ["report", str(run)], catch_exceptions=False)
    finally:
        (run / "run.yaml").write_text(whole)

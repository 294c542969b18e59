"""How the code stands: long functions say why, names mean one thing, calls name their arguments."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "rlaif"
MAX_FUNCTION, MAX_CLASS = 60, 250
WHY = "Long because "
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions() -> Iterator[tuple[Path, Definition]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield path, node


def test_what_is_long_says_why() -> None:
    found = []
    for path, node in definitions():
        lines = (node.end_lineno or 0) - node.lineno + 1
        most = MAX_CLASS if isinstance(node, ast.ClassDef) else MAX_FUNCTION
        if lines > most and WHY not in (ast.get_docstring(node) or ""):
            found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: {lines} lines")
    assert not found, "\n".join(found)


def test_no_class_name_means_two_things() -> None:
    """Neither that of a class, nor that of a type that an alias names."""
    places, meant = defaultdict(list), defaultdict(set)
    for path, node in definitions():
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            places[node.name].append(str(path.relative_to(PACKAGE)))
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            made = getattr(getattr(node, "value", None), "func", None)
            if isinstance(node, ast.Assign) and getattr(made, "id", "") not in MAKE_VARIABLES:
                for target in node.targets:
                    if isinstance(target, ast.Name) and re.match("[A-Z][a-z]", target.id):
                        meant[target.id].add(ast.unparse(node.value))
                        places[target.id].append(str(path.relative_to(PACKAGE)))
    assert len(places) > 200
    doubled = {name: where for name, where in places.items() if len(where) > 1}
    assert not {name: where for name, where in doubled.items() if len(meant[name]) != 1}


MAKE_VARIABLES = {"TypeVar", "ParamSpec"}
"""What makes type variables: each file has its own."""
MAX_POSITIONAL = 4
TAKE_ANY = {"_ranks", "field_validator", "suppress", "max", "min", "_linear_pointwise", "_rlaif"}
"""What takes any number of equal arguments; and torch's own kernels."""


def test_calls_with_many_arguments_name_them() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "engines" / "cpu"):
            continue  # compiled kernels take no keywords
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or len(node.args) <= MAX_POSITIONAL:
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in TAKE_ANY:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {name}")
    assert not found, "\n".join(found)


PLUGIN_POINTS = {"command", "create", "fingerprint"}
"""What every command or engine has under the same name: `main.py` and `EngineSpec` take them."""


def test_no_function_name_means_two_things() -> None:
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    public = {name: where for name, where in places.items() if not name.startswith("_")}
    assert len(public) > 500
    doubled = {name: where for name, where in public.items() if len(where) > 1}
    assert doubled.keys() <= PLUGIN_POINTS, doubled
    for name in PLUGIN_POINTS & doubled.keys():
        assert {where.split("/")[0] for where in doubled[name]} in ({"cli"}, {"engines"})


def test_no_formatting_is_switched_off() -> None:
    for folder in ("rlaif", "tests", "scripts"):
        for path in (PACKAGE.parent / folder).rglob("*.py"):
            assert "fmt: " + "skip" not in path.read_text(), path
            assert "fmt: " + "off" not in path.read_text(), path

"""Imports functions that users name: checks, filters, attributes, detectors.

A constitution, a recipe or a settings file may come from a stranger, and importing a module runs
it.  So a function that a file names runs only where the user allows it: with `--allow-functions`,
in the environment (`RLAIF_ALLOW_FUNCTIONS`), or by `rlaif.allow_functions` in Python.  What the
user names on the command line is allowed by that.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from rlaif.errors import RlaifError

HINT = "Use package.module:function; install its package, or add its folder to PYTHONPATH."
ALLOWED, IN_RECIPE = "RLAIF_ALLOW_FUNCTIONS", "RLAIF_IN_RECIPE"
"""Environment: what is allowed, with commas between; and whether a recipe runs the command."""


def allow_functions(*names: str) -> None:
    """Let files name functions of these modules: checks of constitutions, filters and the like.

    Args:
        names: modules (`my_package.checks`), packages (`my_package`: all that is in it), or single
            functions (`my_package.checks:is_polite`).  Processes that are started later may, too.

    Raises:
        RlaifError: one of them is no such name.
    """
    for name in names:
        parts = name.replace(":", ".", 1).split(".")
        if not all(part.isidentifier() for part in parts):
            raise RlaifError(
                f"--allow-functions {name!r} is not a module or a function",
                hint="Write my_package.checks, or my_package.checks:function.",
            )
    held = allowed_functions()
    os.environ[ALLOWED] = ",".join(dict.fromkeys((*held, *names)))


def allowed_functions() -> tuple[str, ...]:
    """What the user allowed, in order."""
    return tuple(name for name in os.environ.get(ALLOWED, "").split(",") if name.strip())


def is_allowed(name: str) -> bool:
    """Whether a function may run that a file names."""
    module = name.partition(":")[0]
    return any(
        name == held or module == held or module.startswith(f"{held}.")
        for held in allowed_functions()
    )


def allow_typed(name: str) -> None:
    """Allow a function that the user names on the command line; a command that a recipe runs has
    no user there.
    """
    if ":" in name and not os.environ.get(IN_RECIPE):
        allow_functions(name)


def load_function(name: str, what: str = "function") -> Callable[..., Any]:
    """Import `package.module:function`.

    Args:
        what: it is, for errors.

    Raises:
        RlaifError: it is not allowed, or can't be imported or called.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise RlaifError(f"{what} {name!r} is not of the form package.module:function", hint=HINT)
    if not is_allowed(name):
        raise RlaifError(
            f"{what} {name!r} is not run: a file names it, and functions run only where you allow "
            "them",
            hint=f"If you trust {module}, add --allow-functions {module}.",
        )
    return _import(name, what)


@cache
def _import(name: str, what: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything
        raise RlaifError(f"{what} {name!r} could not be imported ({error})", hint=HINT) from None
    if not callable(function):
        raise RlaifError(f"{what} {name!r} is not a function", hint=HINT)
    home = getattr(function, "__module__", None) or module
    own = home.partition(".")[0].lstrip("_") == module.partition(".")[0]  # `_json` is json's in C
    lent = not own and not is_allowed(home)
    if lent and name not in allowed_functions():
        # An allowed module that imports `shutil` does not lend out what is in it.
        raise RlaifError(
            f"{what} {name!r} is a function of {home!r}, which {module!r} only imports",
            hint=f"Define one in {module}, or name {home} with --allow-functions.",
        )
    return function  # type: ignore[no-any-return]


def check_allowed(names: Iterable[str], what: str = "function") -> None:
    """Refuse functions that files name and nobody allowed, without importing any.

    Raises:
        RlaifError: there is one.
    """
    for name in names:
        if not is_allowed(name):
            load_function(name, what)


def function_source(name: str, what: str = "function") -> str:
    """The text that defines a function, or its name where there is none to read.

    Raises:
        RlaifError: as `load_function`.
    """
    function = load_function(name, what)
    try:
        return inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError):
        return name

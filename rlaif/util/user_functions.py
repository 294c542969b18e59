"""Imports functions that users name: checks, filters, attributes, detectors."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from rlaif.errors import RlaifError

HINT = "Use package.module:function; install its package, or add its folder to PYTHONPATH."


@cache
def load_function(name: str, what: str = "function") -> Callable[..., Any]:
    """Import `package.module:function`.

    Args:
        what: it is, for errors.

    Raises:
        RlaifError: it can't be imported or called.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise RlaifError(f"{what} {name!r} is not of the form package.module:function", hint=HINT)
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything
        raise RlaifError(f"{what} {name!r} could not be imported ({error})", hint=HINT) from None
    if not callable(function):
        raise RlaifError(f"{what} {name!r} is not a function", hint=HINT)
    return function  # type: ignore[no-any-return]


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

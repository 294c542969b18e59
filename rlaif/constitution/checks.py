"""Runs a programmatic principle on one completion: a fact, so no judge is asked."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable
from functools import cache

import regex

from rlaif.constitution.schema import (
    Check,
    ForbiddenPhrasesCheck,
    JsonCheck,
    MaxLengthCheck,
    PythonCheck,
    RegexCheck,
)
from rlaif.errors import RlaifError

REGEX_SECONDS = 1.0
"""A pattern that backtracks for longer on one text has no answer (a reason, not a hang)."""

CheckFunction = Callable[[str, str], object]


class CheckFailed(Exception):
    """The check itself broke on this text; the message is the reason to record."""


def run_check(check: Check, prompt: str, completion: str) -> bool:
    """Whether `completion` passes.

    Raises:
        CheckFailed: it could not be decided (a regex that runs too long, a function that raises).
    """
    match check:
        case RegexCheck():
            return _regex(check, completion)
        case MaxLengthCheck(words=int() as words):
            return len(completion.split()) <= words
        case MaxLengthCheck(characters=int() as characters):
            return len(completion) <= characters
        case JsonCheck():
            return _is_json(completion)
        case ForbiddenPhrasesCheck():
            text = completion.casefold() if check.ignore_case else completion
            phrases = (p.casefold() if check.ignore_case else p for p in check.phrases)
            return not any(phrase in text for phrase in phrases)
        case PythonCheck():
            function = load_function(check.function)
            try:
                with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                    return bool(function(prompt, completion))
            except (Exception, SystemExit) as error:  # a user's function may raise anything
                raise CheckFailed(f"{check.function} raised {type(error).__name__}") from error
    raise AssertionError(check)


def _regex(check: RegexCheck, completion: str) -> bool:
    try:
        found = regex.search(check.pattern, completion, timeout=REGEX_SECONDS) is not None
    except TimeoutError:
        raise CheckFailed(f"regex took more than {REGEX_SECONDS:g} s") from None
    return found == (check.must == "match")


def _is_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


def function_source(name: str) -> str:
    """The text that defines a check function, or its name where there is none to read."""
    try:
        return inspect.getsource(inspect.getmodule(load_function(name)) or load_function(name))
    except (OSError, TypeError):
        return name


@cache
def load_function(name: str) -> CheckFunction:
    """Import `package.module:function`.

    Raises:
        RlaifError: it can't be imported or called.
    """
    module_name, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything
        raise RlaifError(
            f"function {name!r} could not be imported ({error})",
            hint="Install its package, or put its folder on PYTHONPATH.",
        ) from None
    if not callable(function):
        raise RlaifError(f"{name!r} is not a function", hint="Name a function.")
    return function  # type: ignore[no-any-return]

"""Runs a programmatic principle on one completion: a fact, so no judge is asked."""

from __future__ import annotations

import contextlib
import json
import sys

import regex

from rlaif.constitution.schema import (
    Check,
    Constitution,
    ForbiddenPhrasesCheck,
    JsonCheck,
    MaxLengthCheck,
    PythonCheck,
    RegexCheck,
)
from rlaif.util.user_functions import check_allowed, load_function
from rlaif.util.words import count_words, find_phrase

REGEX_SECONDS = 1.0
"""A pattern that backtracks for longer on one text has no answer (a reason, not a hang)."""


class CheckFailed(Exception):
    """The check itself broke on this text; the message is the reason to record."""


def check_functions(constitution: Constitution) -> None:
    """Refuse a constitution that calls functions which nobody allowed, before anything is asked.

    Raises:
        RlaifError: it does; see `user_functions`.
    """
    for principle in constitution.principles:
        if isinstance(principle.check, PythonCheck):
            check_allowed([principle.check.function], f"principle {principle.id!r}: check")


def run_check(check: Check, prompt: str, completion: str) -> bool:
    """Whether `completion` passes.

    Raises:
        CheckFailed: it could not be decided (a regex that runs too long, a function that raises).
    """
    match check:
        case RegexCheck():
            return _regex(check, completion)
        case MaxLengthCheck(words=int() as words):
            return count_words(completion) <= words
        case MaxLengthCheck(characters=int() as characters):
            return len(completion) <= characters
        case JsonCheck():
            return _is_json(completion)
        case ForbiddenPhrasesCheck():
            ignore = check.ignore_case
            return not any(find_phrase(p, completion, ignore_case=ignore) for p in check.phrases)
        case PythonCheck():
            function = load_function(check.function, "check")
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
        raise CheckFailed(f"regex timed out after {REGEX_SECONDS:g} s") from None
    return found == (check.must == "match")


def _is_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True

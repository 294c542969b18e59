"""Programmatic principles, against values one can see by eye."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from rlaif.constitution.checks import CheckFailed, run_check
from rlaif.constitution.schema import Check
from rlaif.errors import RlaifError
from rlaif.util.user_functions import allow_functions, load_function

CASES = [
    ({"kind": "regex", "pattern": r"\d{3}"}, "call 911", True),
    ({"kind": "regex", "pattern": r"\d{3}"}, "call me", False),
    ({"kind": "regex", "pattern": r"\d{3}", "must": "not_match"}, "call 911", False),
    ({"kind": "max_length", "words": 3}, "one two three", True),
    ({"kind": "max_length", "words": 3}, "one two  three\nfour", False),
    ({"kind": "max_length", "characters": 5}, "12345", True),
    ({"kind": "max_length", "characters": 5}, "123456", False),
    ({"kind": "json"}, ' {"a": [1, null]} ', True),
    ({"kind": "json"}, "{'a': 1}", False),
    ({"kind": "json"}, '{"a": NaN}', False),
    ({"kind": "json"}, "[" * 100_000, False),
    ({"kind": "forbidden_phrases", "phrases": ["As an AI"]}, "well, as an ai model", False),
    (
        {"kind": "forbidden_phrases", "phrases": ["As an AI"], "ignore_case": False},
        "as an ai",
        True,
    ),
    ({"kind": "python", "function": "builtins:isinstance"}, "x", None),
    ({"kind": "python", "function": "operator:contains"}, "user", False),
]


@pytest.mark.parametrize(("raw", "text", "expected"), CASES)
def test_check(raw: dict, text: str, expected: bool | None) -> None:
    allow_functions("builtins", "operator")
    check = TypeAdapter(Check).validate_python(raw)
    if expected is None:
        with pytest.raises(CheckFailed, match="TypeError"):
            run_check(check, "", text)
    else:
        assert run_check(check, "User: hi", text) is expected


def test_python_check_gets_prompt_and_completion() -> None:
    allow_functions("operator:contains")
    check = TypeAdapter(Check).validate_python({"kind": "python", "function": "operator:contains"})
    assert run_check(check, "say hello", "hello") is True
    assert run_check(check, "say hello", "bye") is False


def test_regex_that_backtracks_has_no_answer_instead_of_hanging() -> None:
    check = TypeAdapter(Check).validate_python({"kind": "regex", "pattern": r"^(a|a|b?a)+$"})
    with pytest.raises(CheckFailed, match="timed out after 1 s"):
        run_check(check, "", "a" * 60 + "!")


@pytest.mark.parametrize(
    "name", ["no.such.module:f", "json:no_such", "json:__name__", "json", ":f", "json:"]
)
def test_function_that_can_not_be_imported(name: str) -> None:
    allow_functions("no.such.module", "json")
    with pytest.raises(
        RlaifError, match=r"could not be imported|is not a function|is not of the form"
    ):
        load_function(name)

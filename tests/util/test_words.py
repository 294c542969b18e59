"""Words in any script, and phrases however they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rlaif.constitution.checks import run_check
from rlaif.constitution.schema import Check
from rlaif.util.words import count_words, fold_text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("one two  three\n", 3),
        ("don't stop - now", 4),
        ("naïve café", 2),
        ("今日は天気がいい。", 8),
        ("我喜欢 Python 编程", 6),
        ("สวัสดี", 4),
        ("안녕하세요 여러분", 2),
        ("नमस्ते दुनिया", 2),
        ("Привет, мир!", 2),
        ("ꦗꦮꦗꦮ", 4),
        ("ㄅㄆㄇ", 3),
        ("😀😀", 2),
        ("one\u200btwo\u200bthree", 3),
    ],
)
def test_words_are_counted_in_any_script(text: str, count: int) -> None:
    assert count_words(text) == count


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_spaced_scripts_count_as_they_are_split(text: str) -> None:
    assert count_words(text) == len(text.split())


def forbids(phrase: str, text: str, *, ignore_case: bool = True) -> bool:
    check = TypeAdapter(Check).validate_python(
        {"kind": "forbidden_phrases", "phrases": [phrase], "ignore_case": ignore_case}
    )
    return not run_check(check, "", text)


@pytest.mark.parametrize(
    "text",
    [
        "As an AI, I can't.",
        "as\u00a0an AI",
        "As a\u200bn AI",
        "As an A\u200dI model",
        "Ａｓ ａｎ ＡＩ",
        "As an  \n AI",
        "As\u2060 an\ufeff AI",
        "a\u00ads an ai",
        "as\u200ban\u200bAI",
        "a\U000e0100s an AI",
        "a\u2800s an AI",
        "a\u0001s an AI",
        "a\u180bs an \ufffcAI",
        "as\u2800an\u2800AI",
        "as\u3164an\u115fAI",
        "a\u200bs\u200ban\u200bA\u200bI",
        "as \u3164 an\uffa0AI",
        "as\x1can\x00AI",
        "as\u200b an A\x1fI",
    ],
)
def test_a_forbidden_phrase_is_found_however_it_is_written(text: str) -> None:
    assert forbids("as an AI", text)


def test_forms_of_one_letter_are_one() -> None:
    assert forbids("caf\u00e9", "CAFE\u0301")
    assert forbids("straße", "STRASSE")
    assert not forbids("café", "cafe")
    assert not forbids("As an AI", "as an ai", ignore_case=False)
    assert forbids("As an AI", "As a\u200bn AI", ignore_case=False)


@given(st.text(max_size=40))
def test_folding_twice_changes_nothing(text: str) -> None:
    once = fold_text(text)
    assert fold_text(once) == once


def test_a_word_limit_holds_for_text_without_spaces() -> None:
    check = TypeAdapter(Check).validate_python({"kind": "max_length", "words": 10})
    assert not run_check(check, "", "これはとても長い答えで、空白がひとつもありません。")
    assert run_check(check, "", "短い答え。")


def test_quotation_marks_and_hyphens_are_what_they_stand_for() -> None:
    assert forbids("don't", "I don\u2019t know")
    assert forbids("well-known", "a well\u2011known fact")
    assert forbids("caf\u00e9", "cafe\u200d\u0301", ignore_case=False)


def test_marks_piled_up_do_not_hang() -> None:
    """To sort hundreds of thousands of marks takes hours; a letter has thirty at most."""
    assert forbids("bomb", "a bomb" + "\u0301\u0316" * 300_000)


@pytest.mark.parametrize("blank", ["\u200b", "\u2800", "\u3164", "\u115f", "\uffa0", "\u3000"])
def test_blanks_stand_between_words(blank: str) -> None:
    assert count_words(blank.join(["one", "two", "three"])) == 3
    assert not forbids("as an AI", f"was{blank}and AIr")


def test_marks_and_quotes_of_any_kind_are_found() -> None:
    assert forbids("caf\u00e9 noir", "cafe\u200b\u0301\u3164noir")
    for quote in "\u2019\u201b\u02bb\u2032\uff07":
        assert forbids("don't", f"I don{quote}t know")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", 1),
        ("\u2764\ufe0f\u2764\ufe0f\u2764\ufe0f", 3),
        ("\U0001f44d\U0001f3fd", 1),
        ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", 2),
        ("good \U0001f44d job", 3),
        ("Foo\u2122 costs 5\u00a9", 3),
    ],
)
def test_each_emoji_is_one_word(text: str, count: int) -> None:
    assert count_words(text) == count

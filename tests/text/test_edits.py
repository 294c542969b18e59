"""Texts with a few words changed: how many are found, and what is not one."""

from __future__ import annotations

import random

import pytest

from rlaif.text.contamination import Contamination
from rlaif.text.duplicates import resemblance, shingles
from rlaif.text.edits import differ_little, edits_allowed
from rlaif.text.near_duplicates import TextFields, near_duplicates

WORDS = [f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)]
"""Few enough that texts share words, and common ones."""


def sentence(rng: random.Random, length: int) -> list[str]:
    return [WORDS[min(int(rng.expovariate(1 / 90)), 599)] for _ in range(length)]


def edited(rng: random.Random, words: list[str], edits: int) -> list[str]:
    """Words replaced, taken out and put in, anywhere."""
    found = list(words)
    for _ in range(edits):
        at = rng.randrange(len(found))
        how = rng.choice(["replace", "delete", "insert"])
        if how == "delete":
            del found[at]
        else:
            found[at : at + (how == "replace")] = [rng.choice(WORDS)]
    return found


@pytest.mark.parametrize("length", [14, 20, 40, 80])
def test_rows_with_a_few_words_changed_are_found(length: int) -> None:
    """All of them, where the runs alone find few in short texts; and no other pair."""
    rng = random.Random(length)
    edits = max(1, length // 20)
    originals = [(sentence(rng, length), sentence(rng, length)) for _ in range(60)]
    changed = [
        (edited(rng, prompt, rng.randint(0, edits)), edited(rng, answer, edits))
        for prompt, answer in originals
    ]
    rows = [TextFields(" ".join(p), " ".join(a)) for p, a in [*originals, *changed]]
    found = near_duplicates(rows, 0.9)
    assert found == {60 + i: i for i in range(60)}
    by_runs = sum(
        resemblance(shingles(one.answer), shingles(two.answer)) >= 0.9
        for one, two in zip(rows[:60], rows[60:], strict=True)
    )
    assert by_runs < 10
    assert near_duplicates(rows, 1.0) == {}


def test_what_differs_in_a_number_a_sign_or_a_short_answer_is_no_duplicate() -> None:
    ask = "Tom has {} apples and gives two thirds of them to his sister , how many remain"
    answer = "He keeps one third of the apples he had , that is {} apples in all"
    rows = [TextFields(ask.format(n), answer.format(n // 3)) for n in (9, 12, 15)]
    rows += [TextFields(ask.format(9) + " x - y", answer.format(3))]
    rows += [TextFields(ask.format(9) + " x + y", answer.format(3))]
    rows += [TextFields(ask.format("seven"), "seven"), TextFields(ask.format("eight"), "eight")]
    assert near_duplicates(rows, 0.9) == {}
    long = sentence(random.Random(0), 30)
    other = [*long[:14], "else", *long[15:]]
    # A pair's two short answers together are no long one.
    pair = [TextFields("same prompt", " ".join(words[8:22]), answers=2) for words in (long, other)]
    assert near_duplicates(pair, 0.9) == {}


def test_edits_are_counted_in_words() -> None:
    assert [edits_allowed(n, 0.9) for n in (9, 10, 19, 20, 100)] == [0, 1, 1, 2, 10]
    assert edits_allowed(100, 1.0) == 0
    base = [f"w{chr(97 + i)}" for i in range(20)]
    assert differ_little(base, [*base[:3], "x", *base[4:]], 0.9)
    assert differ_little(base, base[1:], 0.9)
    assert not differ_little(base, base[2:], 0.9)
    assert not differ_little([*base, "7"], [*base, "8"], 0.9)
    assert not differ_little(base, base[::-1], 0.9)


@pytest.mark.parametrize("length", [10, 16, 30, 60, 150])
def test_edited_evaluation_prompts_are_found_inside_longer_texts(length: int) -> None:
    """With edits of a tenth of the words, evenly spread where runs of 13 words are the longest
    that could survive; and texts of the same words in another order are not found.
    """
    rng = random.Random(length)
    prompts = [sentence(rng, length) for _ in range(40)]
    found = Contamination([" ".join(p) for p in prompts], 13)
    hidden = []
    for prompt in prompts:
        changed = list(prompt)
        for at in range(5, length - 4, 10):
            changed[at] = "changed"
        around = sentence(rng, 25), sentence(rng, 25)
        hidden.append(" ".join([*around[0], *changed, *around[1]]))
    assert all(map(found.finds, hidden))
    others = [sentence(rng, 50 + length) for _ in range(200)]
    shuffled = [rng.sample(p, len(p)) for p in prompts]
    assert not any(found.finds(" ".join(text)) for text in [*others, *shuffled])


def test_a_changed_number_or_a_short_prompt_is_another_question() -> None:
    evaluated = "A train goes 60 miles in one hour , how far does it go in 3 hours"
    found = Contamination([evaluated, "What is the capital of France?"], 13)
    assert (
        found.finds(
            "Please answer: a train runs 60 miles in an hour , how far does it go in 3 hours ?"
        )
        is False
    )
    assert found.finds("Please: a train goes 60 miles in one hour , how far does it get in 3 hours")
    assert not found.finds("a train goes 80 miles in one hour , how far does it get in 5 hours")
    assert not found.finds("What is the capital of Spain?")
    assert found.finds("what is the capital of france")

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


def misspelled(rng: random.Random, word: str) -> str:
    """A letter other than the first is another one, missing, or there twice."""
    at = rng.randrange(1, len(word))
    how = rng.choice(["other", "missing", "twice"])
    middle = {"other": "q", "missing": "", "twice": 2 * word[at]}[how]
    return word[:at] + middle + word[at + 1 :]


def edited(rng: random.Random, words: list[str], edits: int) -> list[str]:
    """Words misspelled, taken out and put in, at places of their own."""
    found = list(words)
    for at in sorted(rng.sample(range(len(words)), edits), reverse=True):
        how = rng.choice(["misspell", "delete", "insert"])
        if how == "delete":
            del found[at]
        elif how == "insert":
            found.insert(at, rng.choice(WORDS))
        else:
            found[at] = misspelled(rng, found[at])
    return found


@pytest.mark.parametrize("length", [14, 20, 40, 80])
def test_rows_with_a_few_words_changed_are_found(length: int) -> None:
    """Nearly all of them, where the runs alone find few in short texts; and no other pair."""
    rng = random.Random(length)
    edits = max(1, length // 20)
    originals = [(sentence(rng, length), sentence(rng, length)) for _ in range(60)]
    changed = [
        (edited(rng, prompt, rng.randint(0, edits)), edited(rng, answer, edits))
        for prompt, answer in originals
    ]
    rows = [TextFields(" ".join(p), " ".join(a)) for p, a in [*originals, *changed]]
    found = near_duplicates(rows, 0.9, edited=True)
    assert found.items() <= {60 + i: i for i in range(60)}.items()
    assert len(found) >= (60 if edits == 1 else 50)
    by_runs = sum(
        resemblance(shingles(one.answer), shingles(two.answer)) >= 0.9
        for one, two in zip(rows[:60], rows[60:], strict=True)
    )
    assert by_runs < 10
    assert near_duplicates(rows, 1.0, edited=True) == {}
    assert len(near_duplicates(rows, 0.9)) < 10


def test_what_differs_in_a_number_a_sign_or_a_short_answer_is_no_duplicate() -> None:
    ask = "Tom has {} apples and gives two thirds of them to his sister , how many remain"
    answer = "He keeps one third of the apples he had , that is {} apples in all"
    rows = [TextFields(ask.format(n), answer.format(n // 3)) for n in (9, 12, 15)]
    rows += [TextFields(ask.format(9) + " x - y", answer.format(3))]
    rows += [TextFields(ask.format(9) + " x + y", answer.format(3))]
    rows += [TextFields(ask.format("seven"), "seven"), TextFields(ask.format("eight"), "eight")]
    assert near_duplicates(rows, 0.9, edited=True) == {}
    # The edits of a pair are not all spent on a short completion.
    rejected = "I would rather not say anything about that since I am no doctor and you should ask"
    chosen = ("No, wine makes it likelier.", "Yes, that is harmless.", "Only with a meal, please.")
    pairs = [
        TextFields("may I drink wine with this medicine", f"{c}\n{rejected}", parts=(c, rejected))
        for c in chosen
    ]
    assert near_duplicates(pairs, 0.9, edited=True) == {}


TEMPLATES = {
    "names": (
        "Give a short overview of the history and the culture of {} for a tourist",
        ("France", "Germany", "Poland", "Spain", "Japan", "Kenya", "Chile", "Norway"),
    ),
    "numbers in words": (
        "In her basket Anna has {} apples and gives two to her brother how many are left",
        ("three", "four", "five", "seven", "twelve", "twenty"),
    ),
    "opposites": (
        "Explain in simple words why it is {} to mix these two cleaning agents at home",
        ("safe", "not safe", "unsafe", "dangerous", "never safe"),
    ),
    "near names": (
        "What is the capital of {} and how many people live there in the city today",
        ("Iran", "Iraq", "Niger", "Nigeria", "Austria", "Australia", "Slovakia", "Slovenia"),
    ),
    "letters as words": ("请你告诉我现在{}国的首都是哪一个城市", ("法", "德", "英", "美", "泰")),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_with_another_word_in_it_is_another_text(name: str) -> None:
    template, words = TEMPLATES[name]
    texts = [template.format(word) for word in words]
    rows = [TextFields(text, "") for text in texts]
    rows += [TextFields("tell me", text + " I think so and so do most others") for text in texts]
    assert near_duplicates(rows, 0.9, edited=True) == {}
    found = Contamination(texts[:1], 13)
    assert found.finds(texts[0])
    assert not any(map(found.finds, texts[1:]))


def test_candidates_are_all_that_a_full_comparison_finds() -> None:
    rng = random.Random(8)
    rows = []
    for _ in range(60):
        prompt, parts = sentence(rng, rng.randint(5, 25)), [sentence(rng, 18), sentence(rng, 14)]
        rows.append((prompt, parts))
        for _ in range(rng.randint(0, 2)):
            rows.append(
                (
                    edited(rng, prompt, rng.randint(0, 1)),
                    [edited(rng, part, rng.randint(0, 2)) for part in rng.sample(parts, 2)],
                )
            )
    fields = [
        TextFields(" ".join(p), "\n".join(sorted(map(" ".join, a))), tuple(map(" ".join, a)))
        for p, a in rows
    ]

    def near(one: TextFields, two: TextFields) -> bool:
        def alike(first: str, second: str) -> bool:
            return differ_little(first.split(), second.split())

        def runs(first: str, second: str) -> bool:
            return resemblance(shingles(first), shingles(second)) >= 0.9

        (a, b), (c, d) = one.parts, two.parts
        answers = runs(one.answer, two.answer)
        answers = answers or (alike(a, c) and alike(b, d)) or (alike(a, d) and alike(b, c))
        return answers and (runs(one.prompt, two.prompt) or alike(one.prompt, two.prompt))

    kept: list[int] = []
    expected = {}
    for i, row in enumerate(fields):
        twin = next((j for j in kept if near(row, fields[j])), None)
        if twin is None:
            kept.append(i)
        else:
            expected[i] = twin
    assert near_duplicates(fields, 0.9, edited=True) == expected
    assert len(expected) > 10


def test_edits_are_counted_in_words() -> None:
    assert [edits_allowed(n, 0.9) for n in (9, 10, 19, 20, 100)] == [0, 1, 1, 2, 10]
    assert edits_allowed(100, 1.0) == 0
    base = [f"word{chr(97 + i)}" for i in range(20)]
    assert differ_little(base, [*base[:3], "wordda", *base[4:]])
    assert differ_little(base, [*base[:3], "wodrd", *base[4:]])
    assert differ_little(base, [*base[:3], "more", *base[3:]])
    assert differ_little(base, base[1:])
    assert not differ_little(base, base[2:])
    assert not differ_little(base, [*base[:3], "other", *base[4:]])
    assert not differ_little(base, [*base[:3], "not", *base[3:]])
    assert not differ_little([*base, "7"], [*base, "8"])
    assert not differ_little(base, [*base, "7"])
    assert not differ_little(base, base[::-1])
    assert differ_little(base, ["before", *base[:5], *base[6:], "after", "it"], within=True)


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
            changed[at] = misspelled(rng, changed[at])
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
    assert (
        found.finds("Please: a train goes 60 miles in one hour , how far does it gos in 3 hours")
        is False
    )
    assert found.finds(
        "Please: a train goes 60 miles in one hour , how far does it now go in 3 hours"
    )
    assert not found.finds("a train goes 80 miles in one hour , how far does it get in 5 hours")
    assert not found.finds("What is the capital of Spain?")
    assert found.finds("what is the capital of france")

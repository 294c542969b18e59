"""Advice on a valid constitution (`lint`) and what changed between two (`diff`).

Lint warns of what loads but judges badly; it never refuses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rlaif.constitution.load import LoadedConstitution
from rlaif.constitution.schema import Constitution, Principle
from rlaif.constitution.wording import is_vague, joined_qualities, names, opposite
from rlaif.errors import Place

_ASKS_FOR_WORSE = re.compile(
    r"\b(which|choose|pick|select)\b[^.?!]*?\b(worse|worst|more (?:harmful|dangerous|offensive|"
    r"rude|toxic|dishonest|biased|unhelpful))\b",
    re.IGNORECASE,
)


_ASKED = ("preference", "rationale", "translations", "applies_to", "check")
"""Fields of a principle that are a part of what models are asked."""


@dataclass(frozen=True)
class LintWarning:
    """One piece of advice about one principle."""

    place: Place
    principle: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.principle}: {self.message}"


def lint(loaded: LoadedConstitution, unread: Collection[str] = ()) -> list[LintWarning]:
    """Everything worth a second look, in file order.

    Args:
        unread: ids of principles in other languages than English: advice on wording knows no other.
    """
    warnings = []
    languages = loaded.constitution.languages
    asked: dict[str, str] = {}
    for principle in loaded.constitution.principles:
        place = loaded.places[principle.id]
        english = principle.id not in unread
        advice = [*(_wording(principle) if english else []), *_advice(principle, languages)]
        warnings += [LintWarning(place, principle.id, text) for text in advice]
        question = " ".join((principle.preference or "").lower().split())
        if question and question in asked:
            text = f"asks the same question as {asked[question]!r}, so it counts twice"
            warnings.append(LintWarning(place, principle.id, text))
        asked.setdefault(question, principle.id)
        warnings += [
            LintWarning(place, principle.id, text)
            for text in _conflicts(principle, loaded.constitution.principles)
        ]
    return warnings


def _conflicts(principle: Principle, others: Sequence[Principle]) -> list[str]:
    """Principles before this one, of its tier and for the same pairs, that ask for the opposite."""
    found = []
    for other in others:
        if other.id == principle.id:
            break
        if other.tier != principle.tier or not _meet(principle, other):
            continue
        sides = opposite(principle.preference or "", other.preference or "")
        if sides is not None:
            found.append(
                f"asks for {sides[0]}, but {other.id!r} in the same tier asks for "
                f"{sides[1]}: they cancel out; move one to another tier, or restrict one "
                "with applies_to"
            )
    return found


def _meet(one: Principle, two: Principle) -> bool:
    if one.applies_to is None or two.applies_to is None:
        return True
    return not set(one.applies_to.tags).isdisjoint(two.applies_to.tags)


def _wording(principle: Principle) -> list[str]:
    """Advice that reads English words."""
    advice = []
    question = principle.preference
    if question and _ASKS_FOR_WORSE.search(question):
        advice.append(
            "asks for the worse response; ask which one is better (`polarity` does not flip "
            "the verdict)"
        )
    if question and not re.search(r"\b(response|answer|reply|completion|summary)", question, re.I):
        advice.append("does not say what to compare (responses, answers)")
    if question and is_vague(question):
        advice.append(
            "is vague: it names no specific quality, so each judge decides by its own taste"
        )
    if question and (joined := joined_qualities(question)):
        advice.append(
            f"asks for {names(joined)} together: a response may have one without the "
            "other; split it into two principles"
        )
    return advice


def _advice(principle: Principle, languages: Collection[str]) -> list[str]:
    """Advice that reads no words."""
    advice = []
    question = principle.preference
    lacking = sorted(set(languages) - principle.translations.keys())
    if question and lacking:
        advice.append(
            f"has no translation into {', '.join(lacking)}, as others have: rows in that language "
            "are asked about it in its own words"
        )
    if question and not principle.examples:
        advice.append("has no examples, so nothing tests how the judge applies it")
    if (principle.critique is None) != (principle.revision is None):
        advice.append("sets only one of `critique` and `revision`")
    return advice


@dataclass(frozen=True)
class PrincipleChange:
    """What happened to one principle, or to the constitution's head (principle "")."""

    principle: str
    what: str
    asks_judge_again: bool


def diff(old: Constitution, new: Constitution) -> list[PrincipleChange]:
    """Changes from `old` to `new`, and which of them cost judge calls in the next run."""
    changes = []
    before = {p.id: p for p in old.principles}
    after = {p.id: p for p in new.principles}
    for name in ("name", "version", "license", "description"):
        one, two = getattr(old, name), getattr(new, name)
        if one != two:
            changes.append(PrincipleChange("", f"{name}: {one!r} -> {two!r}", False))
    for identity in [*before, *(i for i in after if i not in before)]:
        if identity not in after:
            changes.append(PrincipleChange(identity, "removed", False))
        elif identity not in before:
            changes.append(PrincipleChange(identity, "added", after[identity].judged))
        else:
            changes += _field_changes(before[identity], after[identity])
    return changes


def _field_changes(old: Principle, new: Principle) -> list[PrincipleChange]:
    changes = []
    one, two = old.model_dump(mode="json"), new.model_dump(mode="json")
    for key, value in one.items():
        if value == two[key]:
            continue
        if key == "examples":
            text = f"examples: {len(old.examples)} -> {len(new.examples)} (or reworded)"
        else:
            text = f"{key}: {value!r} -> {two[key]!r}"
        asks = new.judged and key in _ASKED
        changes.append(PrincipleChange(old.id, text, asks))
    return changes

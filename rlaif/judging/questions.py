"""Plans what is asked about a pair: which principles, in which orders; and what needs no asking."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlaif.constitution.schema import Constitution, Principle
from rlaif.records import Criterion, Message, Order, Pair
from rlaif.templates.messages import message_text

OrdersMode = Literal["both", "one"]
PrinciplesMode = Literal["all", "sample"]


@dataclass(slots=True)
class Question:
    """One judge call: this principle, with the responses in this order."""

    principle: Principle
    order: Order


def screen(pair: Pair) -> tuple[Literal["tie", "abstained"], str] | None:
    """What is settled before any judge is asked, and why; None if the pair is to be judged.

    Identical completions tie.  An empty completion is abstained from: whether silence beats a
    bad answer is for the constitution's author to say, not for a default.
    """
    if _are_equal(list(pair.a), list(pair.b)) or (
        len(pair.a) == len(pair.b) == 1
        and _are_equal(pair.a[0].get("tool_calls"), pair.b[0].get("tool_calls"))
        and _text(pair.a) == _text(pair.b)
    ):
        return "tie", "identical completions"
    for name, side in (("a", pair.a), ("b", pair.b)):
        if not _text(side).strip():
            return "abstained", f"completion {name} is empty"
    if not any(message_text(m).strip() for m in pair.prompt):
        return "abstained", "prompt is empty"
    return None


def _are_equal(one: object, two: object) -> bool:
    """Whether two values are the same as JSON, where `true`, 1 and 1.0 differ."""
    return one == two and (
        one is None or json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    )


def _text(messages: object) -> str:
    turns: list[Message] = list(messages)  # type: ignore[call-overload]
    return "\x1f".join(map(message_text, turns))


def principles_for(
    pair: Pair, constitution: Constitution, *, mode: PrinciplesMode = "all", seed: int = 0
) -> list[Principle]:
    """The principles to consult: the constitution's in file order, then the row's own.

    "sample" draws one judge principle per pair, as Constitutional AI (Bai et al. 2022,
    arXiv:2212.08073, section 4.1) does, by `seed` and pair id; checks cost nothing and stay.
    """
    said = constitution.in_language(pair.language)
    applicable = [*said.applicable(pair.tags), *map(principle_of, pair.criteria)]
    asked = [p for p in applicable if p.check is None]
    if mode == "sample" and len(asked) > 1:
        drawn = random.Random(f"{seed}/{pair.id}").choice(asked)
        return [p for p in applicable if p.check is not None or p is drawn]
    return applicable


def principle_of(criterion: Criterion) -> Principle:
    """A row's own criterion as a principle."""
    asks = "Which response meets this criterion better?"
    if criterion.weight < 0:
        asks = "Which response does less of what this describes?"
    return Principle(
        id=criterion.id,
        tier=criterion.tier,
        weight=abs(criterion.weight),
        preference=f"{asks} {criterion.text}",
    )


def plan_questions(
    pair: Pair, principles: Sequence[Principle], *, orders: OrdersMode = "both", seed: int = 0
) -> list[Question]:
    """The model calls for a pair (checks by program need none), one order after the other.

    With one order, which completion is shown first is drawn by `seed` and pair id.
    """
    asked = [p for p in principles if p.judged]
    both: tuple[Order, ...] = ("ab", "ba")
    if orders == "one":
        bit = hashlib.blake2b(f"{seed}/{pair.id}".encode(), digest_size=1).digest()[0] & 1
        both = (both[bit],)
    return [Question(principle, order) for order in both for principle in asked]

"""Folds what users did into preferences and into rows for KTO."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from rlaif.data.origins import origin_columns
from rlaif.feedback.events import FeedbackEvent
from rlaif.records import Message, Origin
from rlaif.templates.messages import conversation_text
from rlaif.util.numerics import sigmoid

_Item = TypeVar("_Item")
SURE = 0.99
"""However many users agree, no label of a log is surer."""


class EventReliability(BaseModel):
    """How far what a user does is believed: the probability that the preference holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    p_edit: float = Field(
        default=0.9,
        gt=0.5,
        lt=1,
        description="Probability that an edit is better than the original completion.",
    )
    p_vote: float = Field(
        default=0.8,
        gt=0.5,
        lt=1,
        description="Probability that the higher-rated of two completions is better.",
    )
    p_regeneration: float = Field(
        default=0.7,
        gt=0.5,
        lt=1,
        description="Probability that a kept completion is better than a regenerated one.",
    )


@dataclass
class _ScoredPair:
    """Evidence for `one` over `two`, whose texts are in sorted order, as log-odds."""

    prompt: list[Message]
    one: str
    two: str
    log_odds: float = 0.0
    users: set[tuple[str, str]] = field(default_factory=set)
    sources: Counter[str] = field(default_factory=Counter)


@dataclass
class AggregatedFeedback:
    """What came of the events.

    Attributes:
        undecided: pairs on which users cancel out; split: completions with as many for as against.
    """

    preferences: list[dict[str, Any]]
    kto: list[dict[str, Any]]
    undecided: int = 0
    split: int = 0


@dataclass(frozen=True)
class _Vote:
    """That one completion is better than another.

    Attributes:
        owners: who says so; "" is nobody known.
        times: how often it counts.
    """

    event: FeedbackEvent
    better: str
    worse: str
    p: float
    source: str
    owners: tuple[str, ...]
    times: int = 1


def aggregate_events(
    events: Sequence[FeedbackEvent],
    belief: EventReliability,
    users: dict[str, str],
    *,
    per_user: int,
    seed: int,
) -> AggregatedFeedback:
    """Preferences (`prompt`, `chosen`, `rejected`, `p_chosen`) and KTO rows (`prompt`,
    `completion`, `label`; Ethayarajh et al. 2024, arXiv:2402.01306), in the order of the log.

    What several users say of the same pair is added up as log-odds, as if each were right or wrong
    by himself; one user counts once a pair and kind.

    Args:
        users: names under which users appear in the rows.
        per_user: most preferences, and most KTO rows, that rest on one user alone; drawn by `seed`.
    """
    given = _collect(events, belief)
    pairs: dict[tuple[str, str, str], _ScoredPair] = {}
    for vote in _capped(given.votes, lambda v: v.owners, per_user, seed):
        _add(pairs, vote)
    thumbs: dict[tuple[str, str], list[tuple[FeedbackEvent, bool]]] = {}
    for event, text, good in _capped(given.judged, lambda j: (j[0].user,), per_user, seed):
        thumbs.setdefault((conversation_text(event.prompt), text), []).append((event, good))
    found = AggregatedFeedback([], [])
    for number, (pair_key, pair) in enumerate(pairs.items(), 1):
        if abs(pair.log_odds) < 1e-9:
            found.undecided += 1
        else:
            found.preferences.append(
                _preference_row(number=number, key=pair_key, pair=pair, given=given, users=users)
            )
    for number, (text_key, events_of) in enumerate(thumbs.items(), 1):
        by_user = {event.user or str(id(event)): good for event, good in events_of}
        balance = sum(1 if good else -1 for good in by_user.values())
        if not balance:
            found.split += 1
        else:
            prompt = events_of[0][0].prompt
            found.kto.append(
                _kto_row(
                    number=number,
                    key=text_key,
                    prompt=prompt,
                    by_user=by_user,
                    label=balance > 0,
                    given=given,
                    users=users,
                )
            )
    return found


@dataclass
class _Collected:
    """What the events say, before anything is capped or added up.

    Attributes:
        votes: comparisons of two completions.
        judged: single completions called good or bad.
        origins, prompts: of completions and of prompts, by their texts.
    """

    votes: list[_Vote] = field(default_factory=list)
    judged: list[tuple[FeedbackEvent, str, bool]] = field(default_factory=list)
    origins: dict[tuple[str, str], Origin] = field(default_factory=dict)
    prompts: dict[str, Origin] = field(default_factory=dict)


def _collect(events: Sequence[FeedbackEvent], belief: EventReliability) -> _Collected:
    given = _Collected()
    rated: dict[str, list[FeedbackEvent]] = {}
    for event in events:
        key = conversation_text(event.prompt)
        given.prompts.setdefault(key, event.prompt_origin)
        given.origins.setdefault((key, event.completion), event.origin)
        compared = []
        if event.edited:
            made = Origin("human", depth=event.origin.depth)
            given.origins.setdefault((key, event.edited), made)
            compared.append((event.edited, event.completion, belief.p_edit, "edit"))
        for old in event.discarded:
            given.origins.setdefault((key, old), event.origin)
            compared.append((event.completion, old, belief.p_regeneration, "regeneration"))
        given.votes += [
            _Vote(event=event, better=better, worse=worse, p=p, source=source, owners=(event.user,))
            for better, worse, p, source in compared
        ]
        given.judged += [(event, text, good) for text, good in _judgments(event)]
        if event.rating is not None or event.good is not None:
            rated.setdefault(key, []).append(event)
    for same in rated.values():
        given.votes += _ranked(same, belief.p_vote)
    return given


def _preference_row(
    number: int,
    key: tuple[str, str, str],
    pair: _ScoredPair,
    given: _Collected,
    users: dict[str, str],
) -> dict[str, Any]:
    prompt, one, two = key
    chosen, rejected = (one, two) if pair.log_odds > 0 else (two, one)
    evidence = _evidence(
        name=f"feedback-{number}",
        sources=pair.sources,
        owners=[user for user, _ in pair.users],
        users=users,
        origins={
            "prompt": given.prompts[prompt],
            "chosen": given.origins[prompt, chosen],
            "rejected": given.origins[prompt, rejected],
        },
    )
    return {
        "prompt": pair.prompt,
        "chosen": _said(chosen),
        "rejected": _said(rejected),
        "p_chosen": round(min(sigmoid(abs(pair.log_odds)), SURE), 5),
        "provenance": evidence,
    }


def _kto_row(
    number: int,
    key: tuple[str, str],
    prompt: list[Message],
    by_user: dict[str, bool],
    label: bool,
    *,
    given: _Collected,
    users: dict[str, str],
) -> dict[str, Any]:
    evidence = _evidence(
        name=f"kto-{number}",
        sources=Counter(["vote"] * len(by_user)),
        owners=by_user,
        users=users,
        origins={"prompt": given.prompts[key[0]], "completion": given.origins[key]},
    )
    return {
        "prompt": prompt,
        "completion": _said(key[1]),
        "label": label,
        "provenance": evidence,
    }


def _judgments(event: FeedbackEvent) -> Iterator[tuple[str, bool]]:
    """What an event says of single completions."""
    if event.good is not None:
        yield event.completion, event.good
    elif event.edited:
        yield event.completion, False
    if event.edited:
        yield event.edited, True
    for old in event.discarded:
        yield old, False


def _ranked(events: Sequence[FeedbackEvent], p: float) -> Iterator[_Vote]:
    """Which completions of one prompt are better than which.

    By thumbs: one that more users like than dislike over one that more dislike, as often as the
    fewer of these majorities: a vote on one side alone compares nothing.  By ratings: a higher over
    a lower one by the same user, since users rate on scales of their own.  Of a user's opinions on
    one completion the last counts.
    """
    last: dict[tuple[str, str], FeedbackEvent] = {}
    for event in events:
        last[event.user or f"\0{id(event)}", event.completion] = event
    net: Counter[str] = Counter()
    of: dict[str, FeedbackEvent] = {}
    voters: dict[tuple[str, bool], list[str]] = {}
    by_user: dict[str, list[FeedbackEvent]] = {}
    for (user, completion), event in last.items():
        if event.good is not None:
            net[completion] += 1 if event.good else -1
            of.setdefault(completion, event)
            voters.setdefault((completion, event.good), []).append(event.user)
        if event.user and event.rating is not None:
            by_user.setdefault(user, []).append(event)
    liked = [c for c in net if net[c] > 0]
    disliked = [c for c in net if net[c] < 0]
    for better, worse in product(liked, disliked):
        owners = tuple(dict.fromkeys(voters[better, True] + voters[worse, False]))
        times = min(net[better], -net[worse])
        yield _Vote(
            event=of[better],
            better=better,
            worse=worse,
            p=p,
            source="vote",
            owners=owners,
            times=times,
        )
    for user, own in by_user.items():
        for better_, worse_ in product(own, own):
            assert better_.rating is not None
            assert worse_.rating is not None
            told = net[better_.completion] > 0 > net[worse_.completion]
            if better_.rating > worse_.rating and not told:
                yield _Vote(
                    event=better_,
                    better=better_.completion,
                    worse=worse_.completion,
                    p=p,
                    source="vote",
                    owners=(user,),
                )


def _capped(
    items: Sequence[_Item], owners: Callable[[_Item], tuple[str, ...]], most: int, seed: int
) -> list[_Item]:
    """Items in their order, without those for which none of their owners has a say left."""
    left: dict[str, int] = {}
    kept = []
    for place in random.Random(seed).sample(range(len(items)), len(items)):
        named = owners(items[place])
        if all(user and left.setdefault(user, most) <= 0 for user in named):
            continue
        kept.append(place)
        for user in filter(None, named):
            left[user] = left.setdefault(user, most) - 1
    return [items[place] for place in sorted(kept)]


def _add(pairs: dict[tuple[str, str, str], _ScoredPair], said: _Vote) -> None:
    """Count an opinion, unless its owners said the same already."""
    if said.better.split() == said.worse.split():
        return
    key = conversation_text(said.event.prompt)
    one, two = sorted((said.better, said.worse))
    pair = pairs.setdefault((key, one, two), _ScoredPair(said.event.prompt, one, two))
    own = {(user or f"\0{id(said.event)}", said.source) for user in said.owners}
    if own <= pair.users:
        return
    pair.users |= own
    pair.sources[said.source] += said.times
    odds = said.times * math.log(said.p / (1 - said.p))
    pair.log_odds += odds if said.better == one else -odds


def _said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _evidence(
    name: str,
    sources: Counter[str],
    owners: Iterable[str],
    users: dict[str, str],
    origins: dict[str, Origin],
) -> dict[str, Any]:
    named = {users[own] for own in owners if own in users}
    return {
        "id": name,
        "status": "human",
        "source": ", ".join(f"{n} {what}" for what, n in sources.items()),
        "users": ",".join(sorted(named)),
        "depth": max(origin.depth for origin in origins.values()),
        "origins": {what: origin_columns(origin) for what, origin in origins.items()},
    }

"""From what reviewers said to labels, and what a random audit says about all labels.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlaif.evaluation.stats.intervals import Share, share, share_of
from rlaif.review.human_error import estimate_human_error, odds_of, take_out_error
from rlaif.review.store import Decision, ReviewTask
from rlaif.util.hashing import digest
from rlaif.util.numerics import sigmoid

CERTAINTY = 0.95
"""How likely one person's vote is right, if nothing else is said."""
LONGEST = 300.0
"""Seconds that a decision counts for at most: what is longer was a break."""
Winner = Literal["a", "b", "tie"]


@dataclass(frozen=True)
class ReviewerEdit:
    """A completion that a reviewer wrote from one of a pair, `at` seconds since 1970."""

    reviewer: str
    side: str
    text: str
    at: float = 0.0


@dataclass(frozen=True)
class HumanLabel:
    """What people say of a pair, taken together.

    Attributes:
        votes: by reviewer: "a", "b" or "tie".
        winner: of the votes; "tie" where as many speak for either.
        split: people contradict each other: no tie that anybody called.
        p_a: probability that `a` is better.
        notes: by reviewer.
    """

    task: ReviewTask
    votes: dict[str, str]
    winner: Winner
    p_a: float
    edits: list[ReviewerEdit]
    notes: dict[str, str]
    seconds: float
    split: bool = False

    @property
    def corrects(self) -> bool:
        """Whether people reverse the judge's label, or call it a tie."""
        judge = self.task.item.winner
        return bool(judge) and not self.split and self.winner != judge


def combine(
    tasks: Iterable[ReviewTask],
    decisions: Sequence[Decision],
    *,
    certainty: float | None = CERTAINTY,
    expert: str = "",
) -> list[HumanLabel]:
    """The labels of all pairs that somebody decided, in the order of the queue.

    Of several decisions of one reviewer the last counts.  Votes are independent and each right
    with probability `certainty`, so their log-odds add up.  On planted pairs the expert's counts
    alone.

    Args:
        certainty: None: each reviewer's own, see `estimate_human_error`; `CERTAINTY` where too few
            pairs have two votes.

    Raises:
        ValueError: `certainty` is not between 0.5 and 1.
    """
    if certainty is not None and not 0.5 < certainty < 1.0:
        raise ValueError("certainty must be between 0.5 and 1")
    tasks = list(tasks)
    errors: Mapping[str, float] = {}
    if certainty is None:
        error = estimate_human_error(tasks, first_said(decisions), expert=expert)
        errors = error.by_reviewer if error else {}
    rest = 1.0 - (certainty or CERTAINTY)
    by_item: dict[int, dict[str, Decision]] = {}
    seconds: dict[int, float] = {}
    for d in decisions:
        by_item.setdefault(d.item, {})[d.reviewer] = d
        seconds[d.item] = seconds.get(d.item, 0.0) + min(d.seconds, LONGEST)
    found = []
    for task in tasks:
        last = {who: d for who, d in by_item.get(task.number, {}).items() if d.verdict != "skip"}
        if not last:
            continue
        counted = [last[expert]] if task.gold and expert in last else list(last.values())
        sides = [({"a": 1, "b": -1}.get(d.verdict, 0), d.reviewer) for d in counted]
        balance = math.fsum(side * odds_of(errors.get(who, rest)) for side, who in sides)
        winner: Winner = "a" if balance > 0 else "b" if balance < 0 else "tie"
        found.append(
            HumanLabel(
                task=task,
                votes={who: d.verdict for who, d in last.items()},
                winner=winner,
                p_a=sigmoid(balance),
                edits=[
                    ReviewerEdit(who, d.verdict, d.edited, d.at)
                    for who, d in last.items()
                    if d.edited
                ],
                notes={who: d.note for who, d in last.items() if d.note},
                seconds=seconds[task.number],
                split=balance == 0 and any(d.verdict != "tie" for d in counted),
            )
        )
    return found


def first_said(decisions: Sequence[Decision]) -> list[Decision]:
    """Of each pair and reviewer what they said first, before they saw what the judge says.

    It is what estimates rest on: whoever takes an answer back, or changes it, has seen the judge's.
    Notes are the last ones; so are edits, where the side is the same.

    Args:
        decisions: in order of time, those that were taken back too.  A pair of which all were, and
            none given again, is in as well.
    """
    found: dict[tuple[int, str], Decision] = {}
    for d in decisions:
        key = (d.item, d.reviewer)
        first = found.get(key)
        if first is None or first.verdict == "skip":
            found[key] = d
        elif d.verdict == first.verdict:
            found[key] = replace(first, note=d.note, edited=d.edited, pasted=d.pasted)
        else:
            found[key] = replace(first, note=d.note)
    return list(found.values())


def drawn_vote(votes: Mapping[str, str], name: str) -> str:
    """One of the votes on a pair, drawn by its name: so the share of agreement with what is drawn
    is that of votes, also where people contradict each other.
    """
    chosen = int(digest(["vote", name])[:8], 16) % len(votes)
    return votes[sorted(votes)[chosen]]


def as_drawn(found: HumanLabel) -> HumanLabel:
    """The label with one of its votes as the winner, unless it is a planted pair's."""
    if found.task.gold or len(set(found.votes.values())) == 1:
        return found
    name = f"{found.task.item.row}:{found.task.item.id}"
    winner = drawn_vote(found.votes, name)
    return replace(found, winner=winner, split=False)  # type: ignore[arg-type]


@dataclass(frozen=True)
class AuditResult:
    """How good the judge's labels are, by pairs that were drawn at random.

    Attributes:
        agreement: of people with the judge, where both decided, in the audit.
        wrong: share of all the run's pairs whose label people reverse, or call a tie: with its 95%
            interval.
        whole: whether the most doubtful pairs were all seen, so that they are counted and not
            estimated.
    """

    agreement: Share
    wrong: Share
    whole: bool


def audit_labels(
    labels: Sequence[HumanLabel], tasks: Sequence[ReviewTask], total: int
) -> AuditResult:
    """Estimates over all pairs of the run from the audit.

    Where the most doubtful pairs, which are in the queue for certain, all have a label, they are
    counted, and the audit's other pairs stand for the rest (a stratified estimate with one stratum
    known: Cochran 1977); else the audit alone stands for all.  Of several votes on a pair one
    counts, drawn by chance.

    Args:
        total: pairs in the run that were judged.
    """
    labels = [as_drawn(found) for found in labels]
    label = {found.task.number: found for found in labels}
    audited = [found for found in labels if found.task.audit]
    decided = [f for f in audited if f.task.item.winner and f.winner != "tie"]
    agreement = share_of([f.winner == f.task.item.winner for f in decided], _prompts(decided))
    if not total:  # a damaged run: nothing stands for anything
        return AuditResult(agreement, share(0, 0), False)
    certain = [task for task in tasks if task.certain]
    seen = [label[task.number] for task in certain if task.number in label]
    others = [found for found in audited if not found.task.certain]
    if len(seen) == total:  # every pair of the run: nothing is estimated
        hits = sum(f.corrects for f in seen)
        return AuditResult(agreement, Share(hits, total, *[hits / total] * 3), True)
    if len(seen) < len(certain) or not others:
        wrong = share_of([f.corrects for f in audited], _prompts(audited))
        return AuditResult(agreement, wrong, False)
    rest = share_of([f.corrects for f in others], _prompts(others))
    known, weight = sum(f.corrects for f in seen), total - len(certain)
    rate, low, high = ((known + weight * x) / total for x in (rest.rate, rest.low, rest.high))
    return AuditResult(
        agreement, Share(hits=round(rate * total), total=total, rate=rate, low=low, high=high), True
    )


def _prompts(labels: Sequence[HumanLabel]) -> list[str]:
    """What names each label's prompt."""
    return [digest(found.task.item.prompt) for found in labels]


def review_facts(
    tasks: Sequence[ReviewTask],
    decisions: Sequence[Decision],
    total: int,
    *,
    certainty: float | None = CERTAINTY,
    expert: str = "",
) -> dict[str, Any]:
    """What a review found, as reports and data cards hold it (`review.json`).

    Args:
        decisions: all of them, those that were taken back too.
        total: pairs in the run that were judged.
    """
    said = first_said(decisions)
    labels = combine(tasks, said, certainty=certainty, expert=expert)
    found = audit_labels(labels, tasks, total)
    error = estimate_human_error(tasks, said, expert=expert)
    corrected = None
    if error is not None:
        overturned = [as_drawn(f) for f in labels if f.task.audit and as_drawn(f).corrects]
        ties = sum(f.winner == "tie" for f in overturned) / max(1, len(overturned))
        corrected = vars(take_out_error(found.wrong, ties, error))
    return {
        "labels": len(labels),
        "of": len(tasks),
        "corrected": sum(label.corrects for label in labels),
        "minutes": sum(min(d.seconds, LONGEST) for d in decisions) / 60,
        "agreement": vars(found.agreement),
        "wrong": vars(found.wrong),
        "wrong_without_human_error": corrected,
        "human_error": None if error is None else {**vars(error), "ceiling": error.ceiling},
        "counted": found.whole,
        "pairs": total,
    }

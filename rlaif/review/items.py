"""The pairs of a run as a reviewer meets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlaif.records import Message
from rlaif.runs.labels import LabelRow, read_labels

Messages = list[Message]


@dataclass(frozen=True)
class PrincipleEvidence:
    """What the judge thinks by one principle: the probability that `a` is better, or why not."""

    principle: str
    p_a: float
    invalid: str = ""


@dataclass(frozen=True)
class ReviewItem:
    """A pair with what the judge said.

    Attributes:
        row: number of the input row; with `id` it names the pair.
        status, winner, reason: "decided", "tie" or "abstained"; "a", "b" or ""; why undecided.
        p_a: probability that `a` is better.
        order_consistency: share of clear principles that both orders agree on.
        prompt_injection: what in the completions looks like prompt injection, or "".
        judges: of a panel: each judge's name and its `p_a`.
        origins: who wrote `a` and `b`.
        criteria: the row's own rubric: texts by the id of their principle.
    """

    id: str
    row: int
    prompt: Messages
    a: Messages
    b: Messages
    status: str
    winner: str
    reason: str
    p_a: float
    order_consistency: float
    prompt_injection: str = ""
    tags: tuple[str, ...] = ()
    opinions: list[PrincipleEvidence] = field(default_factory=list)
    judges: list[tuple[str, float]] = field(default_factory=list)
    origins: tuple[str, str] = ("", "")
    criteria: dict[str, str] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """As JSON takes it; `from_data` reads it."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> ReviewItem:
        """The item that `as_data` was called on."""
        return cls(
            **{
                **data,
                "opinions": [PrincipleEvidence(**o) for o in data["opinions"]],
                "judges": [(name, p) for name, p in data["judges"]],
                "origins": tuple(data["origins"]),
                "tags": tuple(data["tags"]),
            }
        )


def read_items(run: Path) -> Iterator[ReviewItem]:
    """The pairs of a labeling run, the decided ones first.

    Raises:
        RlaifError: a row is damaged, or the folder holds no run.
    """
    return map(_item, read_labels(run))


def _item(label: LabelRow) -> ReviewItem:
    return ReviewItem(
        id=label.id,
        row=label.row,
        prompt=label.prompt,
        a=label.a,
        b=label.b,
        status=label.status,
        winner=label.winner,
        reason=label.reason,
        p_a=label.p_a,
        order_consistency=label.order_consistency,
        prompt_injection=label.prompt_injection,
        tags=label.tags,
        opinions=[PrincipleEvidence(o.principle, o.p_a, o.invalid) for o in label.principles],
        judges=list(label.judges),
        origins=label.origins,
        criteria=dict(label.criteria),
    )

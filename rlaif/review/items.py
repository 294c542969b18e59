"""The pairs of a run as a reviewer meets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlaif.errors import Place, RlaifError
from rlaif.runs.directory import read_rows

Messages = list[dict[str, str]]


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
        hostile: what in the completions speaks to the judge, or "".
        judges: of a panel: each judge's name and its `p_a`.
        origins: who wrote `a` and `b`.
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
    for name in ("preferences.jsonl", "undecided.jsonl"):
        for number, row in read_rows(run / name):
            try:
                yield _item(row)
            except (KeyError, TypeError, ValueError) as error:
                raise RlaifError(
                    f"row is damaged ({type(error).__name__}: {error})",
                    hint="Label again into a new folder: verdicts come from the cache.",
                    place=Place(run / name, number, 1),
                ) from None


def _item(row: dict[str, Any]) -> ReviewItem:
    evidence = row["provenance"]
    decided = "chosen" in row
    one, two = (row["chosen"], row["rejected"]) if decided else (row["a"], row["b"])
    p = float(row["p_chosen"] if decided else row["p_a"])
    names = ("origin_chosen", "origin_rejected") if decided else ("origin_a", "origin_b")
    origins = (str(evidence.get(names[0], "")), str(evidence.get(names[1], "")))
    turned = evidence["winner"] == "b"

    def of_a(value: float) -> float:
        return 1.0 - value if turned else value

    if turned:
        one, two, origins = two, one, origins[::-1]
    return ReviewItem(
        id=str(evidence["id"]),
        row=int(evidence["row"]),
        prompt=list(row["prompt"]),
        a=list(one),
        b=list(two),
        status=str(evidence["status"]),
        winner=str(evidence["winner"]),
        reason=str(evidence["reason"]),
        p_a=of_a(p),
        order_consistency=float(evidence["order_consistency"]),
        prompt_injection=str(evidence.get("prompt_injection", "")),
        tags=tuple(t for t in str(evidence.get("tags", "")).split(",") if t),
        opinions=[
            PrincipleEvidence(str(o["principle"]), of_a(float(o["p_chosen"])), str(o["invalid"]))
            for o in evidence["principles"]
        ],
        judges=[(str(j["judge"]), of_a(float(j["p_chosen"]))) for j in evidence.get("judges", [])],
        origins=origins,
    )

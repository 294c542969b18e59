"""What a judge answers through the Python API and over HTTP: one form for both.

Probabilities are from 0 to 1 and speak for `a` where two responses are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from rlaif.records import PrincipleScore


class _BaseAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PrincipleVerdict(_BaseAnswer):
    """What one principle says of a pair."""

    principle: str
    tier: int
    weight: float
    p_a: float = Field(
        description="Probability that `a` is better under this principle; 0.5 if it has no opinion."
    )
    position_offset: float | None = Field(
        description="Position bias in log-odds, positive toward the response shown first; null "
        "unless both orders were judged."
    )
    flipped: bool = Field(description="Whether the two orders prefer different responses.")
    label_mass: float | None = Field(
        description="Minimum probability mass on the labels; null for checks."
    )
    source: Literal["judge", "check"]
    invalid: str = Field(description="Why there is no valid opinion; empty if there is one.")

    @classmethod
    def of(cls, score: PrincipleScore) -> PrincipleVerdict:
        """From a aggregated score."""
        return cls(
            principle=score.principle,
            tier=score.tier,
            weight=score.weight,
            p_a=score.p_a,
            position_offset=score.position_logit,
            flipped=score.flipped,
            label_mass=score.label_mass,
            source=score.source,
            invalid=score.invalid,
        )


class Provenance(_BaseAnswer):
    """Where an answer comes from."""

    constitution: str = Field(description="name@version")
    constitution_hash: str
    judge: str
    judge_fingerprint: str
    template_hash: str
    calibration: str = Field(default="", description="Hash of the calibration, or empty.")


class Comparison(_BaseAnswer):
    """Which of two responses follows the constitution better."""

    id: str = ""
    status: Literal["decided", "tie", "abstained"]
    winner: Literal["a", "b"] | None = Field(description="null unless status is `decided`")
    p_a: float = Field(description="Probability that `a` is better; 0.5 if unknown.")
    margin: float = Field(description="|2 p_a - 1|")
    reason: str = Field(description="Why the pair is a tie or an abstention; empty if decided.")
    deciding_tier: int | None
    order_consistency: float | None = Field(
        description="Share of principles with a clear opinion that agree in both orders."
    )
    principles: list[PrincipleVerdict]
    provenance: Provenance

    def _cells(self) -> dict[str, str]:
        deciding = [o for o in self.principles if o.tier == self.deciding_tier]
        strongest = max(deciding or self.principles, key=lambda o: abs(o.p_a - 0.5), default=None)
        return {
            "id": self.id,
            "winner": self.winner or self.status,
            "p(a)": f"{self.p_a:.3f}",
            "margin": f"{self.margin:.3f}",
            "strongest principle": f"{strongest.principle} {strongest.p_a:.2f}"
            if strongest
            else "",
            "why undecided": self.reason,
        }

    def _repr_html_(self) -> str:
        rows = [
            {
                "principle": o.principle,
                "tier": str(o.tier),
                "p(a)": f"{o.p_a:.3f}" if not o.invalid else "-",
                "position bias": "-" if o.position_offset is None else f"{o.position_offset:+.2f}",
                "why invalid": o.invalid,
            }
            for o in self.principles
        ]
        return _html([self._cells()]) + _html(rows)


class PrincipleMark(_BaseAnswer):
    """What one principle says of a single response."""

    principle: str
    tier: int
    weight: float
    p: float | None = Field(
        description="0: violates the principle, 1: follows it; null if invalid."
    )
    label_mass: float | None = Field(
        description="Minimum probability mass on the labels; null for checks."
    )
    invalid: str
    grade: float | None = Field(
        default=None, description="Expected grade, where the judge was asked for one on a scale."
    )
    spread: float | None = Field(default=None, description="Standard deviation of the grade.")


class Score(_BaseAnswer):
    """How well one response follows the constitution."""

    id: str = ""
    score: float | None = Field(description="Weighted mean over principles; null if unknown.")
    reason: str = Field(description="Why there is no score; empty if there is one.")
    principles: list[PrincipleMark]
    provenance: Provenance

    def _cells(self) -> dict[str, str]:
        marks = {m.principle: "-" if m.p is None else f"{m.p:.3f}" for m in self.principles}
        score = "-" if self.score is None else f"{self.score:.3f}"
        return {"id": self.id, "score": score, **marks, "why no score": self.reason}

    def _repr_html_(self) -> str:
        return _html([self._cells()])


class PrincipleCritique(_BaseAnswer):
    """What was written about a response by one principle."""

    principle: str
    critique: str
    finds_nothing: bool = Field(description="Whether the critique found nothing to fix.")
    revision: str = Field(description="Empty if not requested or not needed.")
    failed: str = Field(description="Why a text is missing; empty if none is.")


class Critique(_BaseAnswer):
    """What is wrong with one response, by principle."""

    id: str = ""
    principles: list[PrincipleCritique]
    provenance: Provenance

    def _cells(self) -> dict[str, str]:
        found = [p.principle for p in self.principles if not (p.finds_nothing or p.failed)]
        return {"id": self.id, "to fix": ", ".join(found) or "nothing"}

    def _repr_html_(self) -> str:
        return _html(
            [p.model_dump(include={"principle", "critique", "revision"}) for p in self.principles]
        )


AnswerType = TypeVar("AnswerType", Comparison, Score, Critique)


class AnswerList(list[AnswerType], Generic[AnswerType]):
    """A list of answers that a notebook shows as a table."""

    _MOST_SHOWN = 200

    def to_rows(self) -> list[dict[str, Any]]:
        """Plain dictionaries, for pandas or datasets."""
        return [answer.model_dump() for answer in self]

    def _repr_html_(self) -> str:
        shown = _html([answer._cells() for answer in self[: self._MOST_SHOWN]])
        more = len(self) - self._MOST_SHOWN
        return shown + (f"<p>... and {more} more</p>" if more > 0 else "")


def _html(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p>nothing</p>"
    names = [
        n for n in dict.fromkeys(n for row in rows for n in row) if any(r.get(n) for r in rows)
    ]
    head = _line("th", names)
    body = "".join(_line("td", [str(row.get(name, "")) for name in names]) for row in rows)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _line(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

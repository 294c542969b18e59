"""What a labeling run said, as arrays: the input of every statistic.

Sign convention: positive speaks for response `a`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rlaif.errors import RlaifError
from rlaif.judging.aggregation import AggregationSettings, aggregate, score_principle
from rlaif.judging.panel import measure_dissent
from rlaif.records import Message, Preference, PrincipleScore, Verdict
from rlaif.runs.directory import VERDICTS, read_manifest
from rlaif.runs.labels import LabelRow, damaged_row, read_labels, read_verdicts
from rlaif.templates.messages import message_text
from rlaif.util.hashing import digest
from rlaif.util.validation import describe_problem

Floats = NDArray[np.float64]
SMALLEST = 1e-5
("Clips probabilities before log odds are taken, because rows are rounded to five decimals.")


def logit(p: Floats) -> Floats:
    """Log-odds in nats, finite."""
    kept = np.clip(p, SMALLEST, 1.0 - SMALLEST)
    return np.asarray(np.log(kept) - np.log1p(-kept))


@dataclass(frozen=True)
class PrincipleOutcomes:
    """One principle's opinions of the pairs of a run; NaN where it has none.

    Attributes:
        ab, ba: log-odds that `a` is better with `a` shown first, and with `b` shown first.
        asked: where it was consulted: it applied to the pair, and nothing had been settled.
        source: "judge" or "check".
    """

    ab: Floats
    ba: Floats
    asked: NDArray[np.bool_]
    tier: int
    weight: float
    source: str

    @property
    def logits(self) -> Floats:
        """Log-odds that `a` is better, the orders aggregated."""
        stacked = np.stack([self.ab, self.ba])
        known = np.isfinite(stacked)
        total = np.where(known, stacked, 0.0).sum(axis=0)
        count = known.sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    @property
    def position(self) -> Floats:
        """What follows the position: positive favors what is shown first; NaN with one order."""
        return np.asarray((self.ab - self.ba) / 2.0)


@dataclass(frozen=True)
class Outcomes:
    """The pairs of a run in input order, n of them.

    Attributes:
        ids: the pairs' names.
        rows: number of each pair's input row, from 1.
        p_a: probability that `a` is better; 0.5 for ties and abstentions without an opinion.
        winner: 1 for `a`, -1 for `b`, 0 for none.
        status: "decided", "tie" or "abstained".
        principles: opinions by principle.
        origins: who wrote `a` and who wrote `b`.
        texts: measures of `a` and of `b`, by name: what `measure` returned.
        name: of judge and constitution, for people.
        plain: whether aggregation the opinions anew gives the preferences: one judge, asked
            everything, not calibrated.
        members: of a panel: its judges' models.
        prompts: what names each pair's prompt by its content; empty where it is not known.
        dissent: of a panel: share of its judges on the other side than the winner; NaN where there
            is no winner.
    """

    ids: list[str]
    rows: NDArray[np.int64]
    p_a: Floats
    winner: NDArray[np.int64]
    status: list[str]
    principles: dict[str, PrincipleOutcomes]
    origins: tuple[list[str], list[str]]
    texts: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)
    name: str = ""
    judge: str = ""
    aggregation: AggregationSettings = field(default_factory=AggregationSettings)
    orders: str = "both"
    plain: bool = True
    members: tuple[str, ...] = ()
    prompts: list[str] = field(default_factory=list)
    dissent: Floats | None = None

    @property
    def groups(self) -> list[str]:
        """What hangs together: pairs of one prompt, or of one row where prompts are not known."""
        return self.prompts or [str(row) for row in self.rows]

    @property
    def judges(self) -> tuple[str, ...]:
        """The models that judged: several for a panel."""
        return self.members or (self.judge,)

    @property
    def decided(self) -> NDArray[np.bool_]:
        """Where there is a winner."""
        return np.asarray(self.winner != 0)

    @property
    def confidence(self) -> Floats:
        """Probability of the winner: from 0.5 to 1."""
        return np.asarray(np.maximum(self.p_a, 1.0 - self.p_a))

    def scores(self, i: int, *, order: str = "both", leave_out: str = "") -> list[PrincipleScore]:
        """The principles' opinions of pair `i` as records, by both orders or one ("ab", "ba")."""
        found = []
        for name, o in self.principles.items():
            if name == leave_out:
                continue
            if not o.asked[i]:
                continue
            ab, ba = float(o.ab[i]), float(o.ba[i])
            orders = (("ab", ab, ab), ("ba", ba, -ba))
            verdicts = [
                Verdict(name, side, value, 1.0)  # type: ignore[arg-type]
                for side, known, value in orders
                if order in ("both", side) and known == known
            ]
            wanted = 2 if self.orders == "both" and order == "both" else 1
            if o.source == "check" and ab == ab:
                found.append(PrincipleScore(name, o.tier, o.weight, ab, source="check"))
            elif o.source == "check" or len(verdicts) < wanted:
                found.append(PrincipleScore(name, o.tier, o.weight, 0.0, invalid="no verdict"))
            else:
                found.append(score_principle(_PrincipleWeight(name, o.tier, o.weight), verdicts))  # type: ignore[arg-type]
        return found

    def aggregated(self, i: int, *, order: str = "both", leave_out: str = "") -> Preference:
        """The preference of pair `i` aggregated anew; of a panel's only what judges say of it."""
        if self.dissent is not None:
            dissent = float(self.dissent[i])
            return Preference(
                status=self.status[i],  # type: ignore[arg-type]
                winner={1: "a", -1: "b"}.get(int(self.winner[i])),  # type: ignore[arg-type]
                p_a=float(self.p_a[i]),
                margin=abs(2.0 * float(self.p_a[i]) - 1.0),
                scores=(),
                dissent=None if math.isnan(dissent) else dissent,
            )
        return aggregate(self.scores(i, order=order, leave_out=leave_out), self.aggregation)


@dataclass(frozen=True)
class _PrincipleWeight:
    """What aggregation needs to know about a principle."""

    id: str
    tier: int
    weight: float


Measure = Callable[[Sequence[Message]], Mapping[str, float]]


def read_outcomes(run: Path, *, measure: Measure | None = None) -> Outcomes:
    """The outcomes of a complete labeling run.

    Args:
        measure: numbers taken of each completion, such as its length in words.

    Raises:
        RlaifError: it is no complete run, or a row is damaged.

    Of a run in which people's labels count (`rlaif labels apply`) it is what the judge said,
    without the pairs that people wrote.  Long because it fills one field after the other.
    """
    config = read_manifest(run)["config"]
    if "constitution" not in config or "judge" not in config:
        raise RlaifError(
            f"{str(run)!r} is not a labeling run", hint="Use the output folder of `rlaif label`."
        )
    # The same order for every run of the same input, whatever was decided.
    try:
        least = AggregationSettings(**config.get("aggregation", {})).tie_margin
    except (ValidationError, TypeError) as error:
        why = describe_problem(error) if isinstance(error, ValidationError) else str(error)
        raise RlaifError(
            f"the aggregation of {str(run)!r} is damaged ({why})",
            hint="Label again into a new folder; cached verdicts are reused.",
        ) from None
    pairs = sorted(_judged(run, measure, least), key=lambda pair: pair.label.key)
    where = {pair.label.key: i for i, pair in enumerate(pairs)}
    principles = _principles(pairs)
    _fill_verdicts(run, principles, where)
    measures = list(pairs[0].measures[0]) if pairs else []
    c = config["constitution"]
    return Outcomes(
        ids=[pair.label.id for pair in pairs],
        rows=np.array([pair.label.row for pair in pairs], dtype=np.int64),
        p_a=np.array([pair.p_a for pair in pairs], dtype=np.float64),
        winner=np.array([{"a": 1, "b": -1}.get(pair.winner, 0) for pair in pairs], dtype=np.int64),
        status=[pair.status for pair in pairs],
        principles=principles,
        origins=(
            [pair.label.origins[0] for pair in pairs],
            [pair.label.origins[1] for pair in pairs],
        ),
        texts={
            name: (
                np.array([pair.measures[0][name] for pair in pairs], dtype=np.float64),
                np.array([pair.measures[1][name] for pair in pairs], dtype=np.float64),
            )
            for name in measures
        },
        name=f"{config['judge']['model']} with {c['name']} {c['version']}",
        judge=str(config["judge"]["model"]),
        aggregation=AggregationSettings(**config.get("aggregation", {})),
        orders=str(config.get("orders", "both")),
        plain="panel" not in config
        and "calibration" not in config
        and config.get("stop", "never") == "never"
        and config.get("orders") != "adaptive",
        members=tuple(str(member["judge"]["model"]) for member in config.get("members", [])),
        prompts=[talk_key(pair.label.prompt) for pair in pairs],
        dissent=_dissent(pairs) if "panel" in config else None,
    )


def _dissent(pairs: Sequence[_JudgedRow]) -> Floats:
    """The share of a panel's judges on the other side than the winner of each pair."""
    found = [
        measure_dissent([p for _, p in pair.label.judges], pair.winner or None) for pair in pairs
    ]
    return np.array([np.nan if value is None else value for value in found])


def talk_key(messages: Sequence[Message]) -> str:
    """What names a conversation or a response by its content."""
    return digest(
        [[m["role"], m["content"], *([message_text(m)] if len(m) > 2 else [])] for m in messages]
    )


@dataclass(frozen=True)
class _JudgedRow:
    """A label as the judge had it, with measures of both completions."""

    label: LabelRow
    winner: str
    p_a: float
    status: str
    measures: tuple[Mapping[str, float], Mapping[str, float]]


def _judged(run: Path, measure: Measure | None, least: float) -> Iterator[_JudgedRow]:
    """The pairs that the judge saw.

    Args:
        least: margin under which the judge calls a tie.
    """
    for label in read_labels(run):
        if label.is_human_edit:
            continue
        winner, p, status = label.winner, label.p_a, label.status
        if label.human.get("votes"):
            p = float(label.human["judge_p_chosen"])
            p = 1.0 - p if label.winner == "b" else p
            winner = "" if abs(2.0 * p - 1.0) < least or p == 0.5 else "a" if p > 0.5 else "b"
            status = "decided" if winner else "tie"
        measures = (measure(label.a), measure(label.b)) if measure else ({}, {})
        yield _JudgedRow(
            label=replace(label, data={}), winner=winner, p_a=p, status=status, measures=measures
        )


def _principles(pairs: Sequence[_JudgedRow]) -> dict[str, PrincipleOutcomes]:
    """Every principle with the pairs that it was asked about; checks with their values."""
    n = len(pairs)
    found: dict[str, PrincipleOutcomes] = {}
    for i, pair in enumerate(pairs):
        for p in pair.label.principles:
            own = found.get(p.principle)
            if own is None:
                own = found[p.principle] = PrincipleOutcomes(
                    ab=np.full(n, np.nan),
                    ba=np.full(n, np.nan),
                    asked=np.zeros(n, dtype=np.bool_),
                    tier=p.tier,
                    weight=p.weight,
                    source=p.source,
                )
            own.asked[i] = True
            if p.source == "check" and not p.invalid:
                own.ab[i] = own.ba[i] = np.log(p.p_a) - np.log1p(-p.p_a)
    return found


def _fill_verdicts(
    run: Path, principles: Mapping[str, PrincipleOutcomes], where: Mapping[tuple[int, str], int]
) -> None:
    """The judge's verdicts in both orders.

    Raises:
        RlaifError: a row is damaged.
    """
    # A panel's run holds several judges' verdicts on one question: their mean counts.
    several: dict[tuple[str, str, int], int] = {}
    for number, verdict in enumerate(read_verdicts(run), 1):
        at, own = where.get(verdict.key), principles.get(verdict.principle)
        if at is None or own is None:
            raise damaged_row(run / VERDICTS, number, "no label names its pair and principle")
        if verdict.invalid:
            continue
        sign, values = (1.0, own.ab) if verdict.order == "ab" else (-1.0, own.ba)
        if verdict.judge:
            key = verdict.principle, verdict.order, at
            n = several[key] = several.get(key, 0) + 1
            old = 0.0 if n == 1 else values[at]
            values[at] = old + (sign * verdict.logit - old) / n
        else:
            values[at] = sign * verdict.logit

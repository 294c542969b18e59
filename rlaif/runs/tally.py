"""A run's running tally: small, mergeable by continuing, and plain data for the journal."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rlaif.errors import RlaifError
from rlaif.records import CLEAR, CUT, Origin, Preference, Verdict
from rlaif.util.validation import describe_problem

MARGIN_BINS = 20
MOST_REASONS = 100
MOST_ORIGINS = 500
MOST_ROWS = 3
_MOST = 1 << 53
"""What no run counts to."""


@dataclass
class PrincipleTally:
    """Counts for one principle over all pairs it was consulted on."""

    valid: int = 0
    invalid: int = 0
    both_orders: int = 0
    clear: int = 0
    flipped: int = 0
    flipped_to_first: int = 0
    position_logit_sum: float = 0.0
    agrees: int = 0
    disagrees: int = 0
    silent: int = 0
    source: str = "judge"

    @property
    def flip_rate(self) -> float | None:
        """Share of pairs on which the same position won in both orders (position bias).

        Only pairs on which one order at least was clear count: where the judge has no opinion,
        the sign of its answers is noise.
        """
        return self.flipped / self.clear if self.clear else None

    @property
    def position_offset(self) -> float | None:
        """Mean logit that follows the position: positive favors what is shown first."""
        return self.position_logit_sum / self.both_orders if self.both_orders else None


@dataclass
class OriginTally:
    """How much of a run's text is from one place; the first input rows that hold it."""

    kind: str = ""
    model: str = ""
    license: str = ""
    depth: int = 0
    prompts: int = 0
    completions: int = 0
    rows: list[int] = field(default_factory=list)


@dataclass
class Tally:
    """Counts for a run."""

    rows: int = 0
    rejected: int = 0
    pairs: int = 0
    decided: int = 0
    tie: int = 0
    abstained: int = 0
    invalid_verdicts: int = 0
    verdicts: int = 0
    spared: int = 0
    prompt_injection: int = 0
    cut_reasonings: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, list[list[str]]] = field(default_factory=dict)
    margins: list[int] = field(default_factory=lambda: [0] * MARGIN_BINS)
    tiers: dict[str, int] = field(default_factory=dict)
    principles: dict[str, PrincipleTally] = field(default_factory=dict)
    origins: dict[str, OriginTally] = field(default_factory=dict)

    @property
    def self_agreement(self) -> float | None:
        """Share of clear opinions that both orders share; None where one order was asked."""
        clear = sum(p.clear for p in self.principles.values())
        return 1.0 - sum(p.flipped for p in self.principles.values()) / clear if clear else None

    def add_rejected(self) -> None:
        """Count an input row that could not be read."""
        self.rejected += 1

    def add_origins(self, origins: Sequence[Origin], row: int) -> None:
        """Count where a pair's prompt and completions are from."""
        prompt, *completions = origins
        self._origin(prompt, row).prompts += 1
        for origin in completions:
            self._origin(origin, row).completions += 1

    def add_reason(self, reason: str) -> None:
        """Count why a pair has no winner."""
        numbers = _NUMBER.findall(reason[:_LONGEST])
        self._reason(_kind(reason), 1, [[n, n] for n in numbers])

    @property
    def reasons_in_words(self) -> dict[str, int]:
        """The reasons, each with its numbers; those that differ as a range."""
        return {_fill(key, self.numbers.get(key, [])): n for key, n in self.reasons.items()}

    def absorb(self, later: Tally) -> None:
        """Count on with the tally of rows that follow.

        What comes out is the tally of all rows, unless those have more kinds of reasons or origins
        than are kept apart: then more of them count as "other".
        """
        _add_numbers(self, later)
        for reason, count in later.reasons.items():
            self._reason(reason, count, later.numbers.get(reason, []))
        self.margins = [a + b for a, b in zip(self.margins, later.margins, strict=True)]
        for tier, count in later.tiers.items():
            self.tiers[tier] = self.tiers.get(tier, 0) + count
        for name, principle in later.principles.items():
            blank = PrincipleTally(source=principle.source)
            _add_numbers(self.principles.setdefault(name, blank), principle)
        for key, theirs in later.origins.items():
            origin = Origin(
                kind=theirs.kind, model=theirs.model, license=theirs.license, depth=theirs.depth
            )
            found = self._origin_of(key, origin)
            found.prompts += theirs.prompts
            found.completions += theirs.completions
            new = [row for row in theirs.rows if row not in found.rows]
            found.rows += new[: MOST_ROWS - len(found.rows)]

    def _reason(self, key: str, count: int, numbers: list[list[str]]) -> None:
        if key not in self.reasons and len(self.reasons) >= MOST_REASONS:
            key = "other"
        self.reasons[key] = self.reasons.get(key, 0) + count
        if key == "other" or not numbers:
            return
        known = self.numbers.setdefault(key, [list(n) for n in numbers])
        for mine, theirs in zip(known, numbers, strict=False):
            mine[:] = [min(mine[0], theirs[0], key=_value), max(mine[1], theirs[1], key=_value)]

    def _origin(self, origin: Origin, row: int) -> OriginTally:
        key = f"{origin.kind or 'unknown'} {origin.model} {origin.license} {origin.depth}"
        found = self._origin_of(key, origin)
        if len(found.rows) < MOST_ROWS and row not in found.rows:
            found.rows.append(row)
        return found

    def _origin_of(self, key: str, origin: Origin) -> OriginTally:
        found = self.origins.get(key)
        if found is None:
            if len(self.origins) >= MOST_ORIGINS:
                key, origin = "other", Origin(depth=origin.depth)
            found = self.origins.setdefault(
                key, OriginTally(origin.kind, origin.model, origin.license, origin.depth)
            )
        return found

    def add(self, preference: Preference, verdicts: list[Verdict], *, spared: int = 0) -> None:
        """Count one finished pair; `spared` questions about it were not asked."""
        self.pairs += 1
        self.spared += spared
        match preference.status:
            case "decided":
                self.decided += 1
                where = min(MARGIN_BINS - 1, int(preference.margin * MARGIN_BINS))
                self.margins[where] += 1
                tier = preference.deciding_tier
                key = "all" if tier is None else str(tier)
                self.tiers[key] = self.tiers.get(key, 0) + 1
            case "tie":
                self.tie += 1
            case _:
                self.abstained += 1
        if preference.status != "decided":
            self.add_reason(preference.reason)
        self.verdicts += len(verdicts)
        self.invalid_verdicts += sum(1 for v in verdicts if v.invalid)
        self.cut_reasonings += sum(1 for v in verdicts if CUT in v.reasoning)
        for score in preference.scores:
            tally = self.principles.get(score.principle)
            if tally is None:
                tally = self.principles[score.principle] = PrincipleTally(source=score.source)
            if score.invalid:
                tally.invalid += 1
                continue
            tally.valid += 1
            if score.position_logit is not None:
                tally.both_orders += 1
                tally.position_logit_sum += score.position_logit
                if score.clear:
                    tally.clear += 1
                    tally.flipped += score.flipped
                    tally.flipped_to_first += score.flipped and score.position_logit > 0
            if preference.winner is None or abs(score.sign) < CLEAR:
                tally.silent += 1
            elif (score.sign > 0) == (preference.winner == "a"):
                tally.agrees += 1
            else:
                tally.disagrees += 1


def _add_numbers(to: Any, other: Any) -> None:
    """Add every field that is a number."""
    for name, value in vars(other).items():
        if isinstance(value, int | float):
            setattr(to, name, getattr(to, name) + value)


_TALLY = TypeAdapter(Tally)


def load_tally(data: object) -> Tally:
    """A tally from the plain data of a journal or manifest.

    Raises:
        RlaifError: it is none.
    """
    try:
        found = _TALLY.validate_python(data)
        if found.pairs >= _MOST or any(
            isinstance(n, int) and abs(n) >= _MOST
            for tally in found.principles.values()
            for n in vars(tally).values()
        ):
            raise RlaifError(
                "the counts of a run are damaged (a number is too large)",
                hint="Label again into a new folder; cached verdicts are reused.",
            )
        return found
    except ValidationError as error:
        raise RlaifError(
            f"the counts of a run are damaged ({describe_problem(error)})",
            hint="Label again into a new folder; cached verdicts are reused.",
        ) from None


_OF_POSITION = ("both_orders", "clear", "flipped", "flipped_to_first", "position_logit_sum")


def dump_positions(tally: Tally) -> dict[str, dict[str, float]]:
    """What a tally says of positions, by principle, as plain data."""
    return {
        name: {key: getattr(found, key) for key in _OF_POSITION}
        for name, found in tally.principles.items()
    }


@dataclass(frozen=True)
class Positions:
    """What a run knows of position bias.

    Attributes:
        principles: the counts to read it from.
        pilot_pairs: how many pairs of a pilot they are of; 0 for the run's own.
        consistency: share of clear opinions that both orders share; None where nothing is known.
    """

    principles: Mapping[str, PrincipleTally]
    pilot_pairs: int
    consistency: float | None


def read_positions(tally: Tally, stopping: object) -> Positions:
    """Position figures of a run: of its pilot, where what was asked depended on the answers.

    Args:
        stopping: what the manifest says of early stopping; None for a run that asked everything.
    """
    told = stopping.get("position") if isinstance(stopping, Mapping) else None
    if not isinstance(stopping, Mapping) or not isinstance(told, Mapping):
        return Positions(tally.principles, 0, tally.self_agreement)
    try:
        found = Tally(
            principles={
                str(name): PrincipleTally(**{key: counts[key] for key in _OF_POSITION})
                for name, counts in told.items()
            }
        )
        consistency = found.self_agreement
        offsets = [p.position_offset for p in found.principles.values()]
        if not all(isinstance(x, float | int | None) for x in (consistency, *offsets)):
            raise TypeError
        return Positions(found.principles, int(stopping["pilot_pairs"]), consistency)
    except (TypeError, KeyError, ValueError, AttributeError):
        raise RlaifError(
            "what the manifest says of the pilot's positions is damaged",
            hint="Label again into a new folder; cached verdicts are reused.",
        ) from None


def dump_tally(tally: Tally) -> dict[str, Any]:
    """A tally as plain data."""
    return asdict(tally)


def _kind(reason: str) -> str:
    """A reason without its numbers, so that equal causes count together."""
    return _NUMBER.sub("N", reason[:_LONGEST])


_LONGEST = 160
_NUMBER = re.compile(r"(?<![^\s()])[^\s()\d]*+\d[^\s()]*+")


def _value(text: str) -> tuple[float, str]:
    """A number's place in their order; what is none comes last."""
    try:
        return float(text.strip(",;:%")), text
    except ValueError:
        return math.inf, text


def _fill(kind: str, numbers: list[list[str]]) -> str:
    """A kind of reason with the least and the greatest of each of its numbers."""
    texts = iter(numbers)

    def shown(_: re.Match[str]) -> str:
        least, most = next(texts, ["N", "N"])
        return least if least == most else f"{least} to {most}"

    return re.sub(r"\bN\b", shown, kind)

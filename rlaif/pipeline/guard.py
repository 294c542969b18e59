"""Stops a loop in which a model learns from itself before it collapses: behind `rlaif guard`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rlaif.errors import RlaifError
from rlaif.prompts import completion_text
from rlaif.records import Rejected
from rlaif.stages.diversity import diversity, matched
from rlaif.stages.layouts import BadRow, read_candidates
from rlaif.store.sources import open_source

FEWEST_TEXTS = 10


class GuardSettings(BaseModel):
    """What trips the guard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    floor: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Least diversity as a share of the reference's, by each measure and at equal "
        "length. Two samples of one model differ by a few percent; a fifth less is a trend.",
    )
    min_human: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Least share of rows of human origin, by weight. A tenth of fresh human data "
        "in each round has been seen to keep models from collapsing, but no share is proven.",
    )
    max_depth: int | None = Field(
        default=None, ge=0, description="Most synthetic generations that a row may be deep."
    )
    seed: int = 0


@dataclass(frozen=True)
class GuardReport:
    """What was measured.

    Attributes:
        measures: by name: of the data, of the reference, and the first's diversity as a share.
        human_share: of the rows, by weight; None where no row says where it is from.
        depth: the deepest row.
        tripped: what is wrong, one sentence each; empty if nothing is.
    """

    rows: int
    measures: dict[str, dict[str, float]]
    human_share: float | None
    depth: int
    tripped: list[str]


def guard(data: str, reference: str | None, settings: GuardSettings) -> GuardReport:
    """Measure `data`, against `reference` if there is one.

    A completion that stands for near-duplicates of its prompt (`copies`) counts as often: a model
    that says one thing to each prompt has lost diversity too.

    Raises:
        RlaifError: one of them has no text to measure.
    """
    rows = list(_rows(data))
    texts = [text for row in rows for text in row.texts]
    measures: dict[str, dict[str, float]] = {}
    tripped = []
    if reference is not None:
        before = [text for row in _rows(reference) for text in row.texts]
        if min(len(texts), len(before)) < FEWEST_TEXTS:
            tripped.append(
                f"{len(texts)} texts against {len(before)} are too few to compare: it takes "
                f"{FEWEST_TEXTS}"
            )
        now, then = (asdict(diversity(side, settings.seed))
                     for side in matched(texts, before, settings.seed))  # fmt: skip
        for name in now:
            share = _share(name, now[name], then[name])
            measures[name] = {"data": now[name], "reference": then[name], "share": share}
            if share < settings.floor:
                tripped.append(
                    f"diversity by {name.replace('_', ' ')} is {share:.0%} of the reference's, "
                    f"under the floor of {settings.floor:.0%}"
                )
    else:
        measures = {
            name: {"data": value} for name, value in asdict(diversity(texts, settings.seed)).items()
        }
    human_share = _human_share(rows)
    if settings.min_human and (human_share is None or human_share < settings.min_human):
        shown = (
            "unknown (no row says where it is from)"
            if human_share is None
            else f"{human_share:.1%}"
        )
        tripped.append(f"the human share is {shown}, under {settings.min_human:.1%}")
    depth = max((row.depth for row in rows), default=0)
    if settings.max_depth is not None and depth > settings.max_depth:
        tripped.append(f"a row is {depth} synthetic generations deep, over {settings.max_depth}")
    return GuardReport(len(rows), measures, human_share, depth, tripped)


def _share(name: str, now: float, then: float) -> float:
    """Diversity now over diversity then: of what compresses, or of what is not repeated."""
    if name == "compression_ratio":
        return then / now
    return (1.0 - now) / (1.0 - then) if then < 1.0 else 1.0


@dataclass(frozen=True)
class _Row:
    texts: list[str]
    weight: float
    kind: str
    depth: int


def _rows(data: str) -> Iterator[_Row]:
    """Completions where there are some, else prompts."""
    found = 0
    for row in _readable(data):
        read = _read(row)
        if read is not None:
            found += 1
            yield read
    if not found:
        raise RlaifError(
            f"{data!r} has no row with a prompt or a completion", hint="Check its columns."
        )


def _readable(data: str) -> Iterator[Mapping[str, object]]:
    for _, row in open_source(data).rows():
        if not isinstance(row, Rejected):
            yield row


def _weight(row: Mapping[str, object]) -> float:
    weight = row.get("weight", 1.0)
    return float(weight) if isinstance(weight, int | float) and 0 <= weight < 1e12 else 1.0


def _read(row: Mapping[str, object]) -> _Row | None:
    prompt = row.get("prompt")
    try:
        read = read_candidates(row)
        said = [completion_text(c.messages) for c in read.completions]
        texts = [text for text, n in zip(said, _copies(row, len(said)), strict=True)
                 for _ in range(n)]  # fmt: skip
    except BadRow:
        if isinstance(prompt, str):
            texts = [prompt]
        elif isinstance(prompt, list) and prompt:
            texts = [" ".join(str(m.get("content")) for m in prompt if isinstance(m, Mapping))]
        else:
            return None
    origins = [o for o in _origins(row) if isinstance(o, Mapping)]
    kinds = {str(o.get("kind", "")) for o in origins}
    depths = [d for o in origins if isinstance(d := o.get("depth"), int)]
    kind = "human" if kinds == {"human"} else "model" if kinds - {""} else ""
    return _Row(texts, _weight(row), kind, max(depths, default=0))


def _copies(row: Mapping[str, object], count: int) -> list[int]:
    """How many near-duplicates each completion stands for."""
    listed = row.get("completions")
    if not isinstance(listed, list) or len(listed) != count:
        return [1] * count
    found = [item.get("copies") if isinstance(item, Mapping) else None for item in listed]
    return [n if isinstance(n, int) and 0 < n < 10_000 else 1 for n in found]


def _origins(row: Mapping[str, object]) -> Iterator[Any]:
    evidence = row.get("provenance")
    for holder in (row, evidence if isinstance(evidence, Mapping) else {}):
        yield holder.get("origin")
    listed = row.get("completions")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, Mapping):
            yield item.get("origin")
    if isinstance(evidence, Mapping) and "depth" in evidence:
        yield {"kind": "human" if evidence.get("status") == "human" else "model",
               "depth": evidence["depth"]}  # fmt: skip


def _human_share(rows: list[_Row]) -> float | None:
    if not any(row.kind for row in rows):
        return None
    total = sum(row.weight for row in rows)
    return sum(row.weight for row in rows if row.kind == "human") / total if total else 0.0

"""An audit from rows to findings: behind `rlaif audit`, `rlaif guard` and every training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.audits.checks import FIXES, AuditCheck, decide, exact
from rlaif.audits.half_sampling import sampled
from rlaif.audits.measures import (
    LEAST_TEXTS,
    Found,
    drifts,
    drifts_by_slice,
    losses,
    perplexities,
    repeats,
    slices,
)
from rlaif.audits.rows import AuditRow, human_labeled, human_written
from rlaif.audits.thresholds import Thresholds
from rlaif.data.languages import language_of
from rlaif.data.slices import slice_values
from rlaif.errors import RlaifError
from rlaif.evaluation.bias.findings import BiasFinding
from rlaif.evaluation.bias.report import bias_report
from rlaif.evaluation.bias.style import measure_style
from rlaif.evaluation.outcomes import read_outcomes

Scorer = Callable[[Sequence[str]], Sequence[float]]
Embedder = Callable[[Sequence[str]], NDArray[Any]]


@dataclass(frozen=True)
class AuditExtras:
    """What an audit looks at if it is told to.

    Attributes:
        columns: by which slices are made, beside tags and languages.
        attributes: scores of texts by name, such as a toxicity classifier.
        perplexity: mean negative log-likelihood of texts, in nats a token.
        embed: unit vectors of texts; shape (texts, dimensions).
        run: a labeling run, for its judge's biases.
    """

    columns: Sequence[str] = ()
    attributes: Mapping[str, Scorer] = field(default_factory=dict)
    perplexity: Scorer | None = None
    embed: Embedder | None = None
    run: Path | None = None


@dataclass
class AuditReport:
    """What was found.

    Attributes:
        human_written: share of rows whose texts people wrote, by weight; None where no row says.
        human_labeled: share of rows whose label is of people, by weight; None where no row says.
        depth: the deepest row.
        by_slice: mean of each attribute in each tag and language: slice, attribute, texts, of the
            data and of the reference.
        biases: of the judge.
        notes: what could not be measured, and why.
        tripped: what is wrong, one sentence each, and what would fix it.
    """

    rows: int
    texts: int
    reference_rows: int
    human_written: float | None
    human_labeled: float | None
    depth: int
    checks: list[AuditCheck] = field(default_factory=list)
    by_slice: list[dict[str, Any]] = field(default_factory=list)
    biases: list[BiasFinding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tripped: list[dict[str, str]] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @property
    def sentences(self) -> list[str]:
        """What is wrong."""
        return [item["what"] for item in self.tripped]

    @property
    def fixes(self) -> list[str]:
        """What would fix it, without repetition."""
        return list(dict.fromkeys(item["fix"] for item in self.tripped))

    def trip(self, what: str, group: str) -> None:
        """Add a reason to stop."""
        self.tripped.append({"what": what, "group": group, "fix": FIXES[group]})


def audit(
    data: Sequence[AuditRow],
    reference: Sequence[AuditRow] | None,
    limits: Thresholds,
    extras: AuditExtras | None = None,
) -> AuditReport:
    """DiversityMeasure `data`, against `reference` if there is one.

    Raises:
        RlaifError: a scorer gives other than one number a text.

    Long because each measure is one call whose results the next ones rest on.
    """
    extras = extras or AuditExtras()
    texts = sum(len(row.texts) for row in data)
    report = AuditReport(
        rows=len(data),
        texts=texts,
        reference_rows=len(reference or ()),
        human_written=human_written(data),
        human_labeled=human_labeled(data),
        depth=max((row.depth for row in data), default=0),
    )
    _origin(report, limits)
    found: Found = []
    if reference is not None and min(len(data), len(reference)) < LEAST_TEXTS:
        report.trip(
            f"too few rows to compare: {len(data)} rows against {len(reference)}, minimum "
            f"{LEAST_TEXTS}; this says nothing about their diversity",
            "size",
        )
    elif reference is not None:
        ours, theirs = sampled(data, limits.seed), sampled(reference, limits.seed + 1)
        vectors = None
        if extras.embed is not None:
            vectors = (_embedded(ours, extras.embed), _embedded(theirs, extras.embed))
        found += losses(ours, theirs, limits, vectors)
        scores = {
            name: (_scored(ours, scorer, name), _scored(theirs, scorer, name))
            for name, scorer in extras.attributes.items()
        }
        found += drifts(ours, theirs, limits, scores)
        _check_columns(data, reference, extras.columns)
        found += slices(data, reference, limits, extras.columns)
        if extras.perplexity is not None:
            measured = [_scored(side, extras.perplexity, "perplexity") for side in (ours, theirs)]
            found += perplexities(measured[0], measured[1], limits)
        where = [[_slices_of(row) for row in rows] for rows in (ours, theirs)]
        for name, values in scores.items():
            found += drifts_by_slice(name, values, (where[0], where[1]), limits)
        report.by_slice = _by_slice((ours, theirs), scores)
        _unmeasured(report=report, found=found, data=data, reference=reference, extras=extras)
    else:
        report.notes.append(
            "no comparison data: diversity, tails, drift and slices need --against DATA"
        )
        report.by_slice = _attributes_alone(sampled(data, limits.seed), extras)
    if len(data) >= LEAST_TEXTS:
        enough = reference if reference and len(reference) >= LEAST_TEXTS else None
        found += repeats(data, enough, limits)
    elif reference is None:
        report.notes.append(f"repetition: not measured with fewer than {LEAST_TEXTS} rows")
    report.checks += decide(found)
    for check in report.checks:
        if check.tripped and check.group != "origin":
            report.trip(check.sentence, check.group)
    if extras.run is not None:
        _biases(report, extras.run, limits)
    return report


def _check_columns(
    data: Sequence[AuditRow], reference: Sequence[AuditRow], columns: Sequence[str]
) -> None:
    for column in columns:
        if not any(slice_values(row.raw, column) for row in (*data, *reference)):
            raise RlaifError(
                f"neither the data nor the reference has a column {column!r}",
                hint="Check the name; use a dotted path for nested columns.",
            )


def _unmeasured(
    report: AuditReport,
    found: Found,
    data: Sequence[AuditRow],
    reference: Sequence[AuditRow],
    extras: AuditExtras,
) -> None:
    """Note what was asked for, or is usual, and could not be measured."""
    names = {check.name for check, _ in found}
    groups = {check.group for check, _ in found}
    for name in extras.attributes:
        if name not in names:
            report.notes.append(
                f"attribute {name!r}: not measured; too few scores, or all scores are equal"
            )
    if extras.perplexity is not None and "perplexity" not in groups:
        report.notes.append("perplexity: not measured; too few texts with at least two tokens")
    fewest = min(len({row.prompt for row in side}) for side in (data, reference))
    if "diversity" not in groups:
        report.notes.append("diversity: not measured; too little text")
    elif fewest < LEAST_TEXTS:
        report.notes.append(
            f"diversity: one side has only {fewest} distinct prompts, so rows were "
            "sampled individually (completions for few prompts can look alike) and tails "
            "were not compared"
        )
    elif "tail" not in groups:
        report.notes.append("vocabulary tail: not measured; too little text")
    if any(row.tags for row in reference) and not any(row.tags for row in data):
        report.notes.append(
            "tags: the reference has tags but the data has none, so slices by tag were skipped"
        )
    for column in extras.columns:
        if not any(slice_values(row.raw, column) for row in data):
            report.notes.append(
                f"column {column!r}: missing from the data, so its slices were skipped "
                "(labels and mixes keep tags and drop other columns)"
            )


def _origin(report: AuditReport, limits: Thresholds) -> None:
    wanted = limits.min_human if report.depth >= limits.human_wanted_from else 0.0
    share = report.human_written
    if share is None:
        report.notes.append("no row states its origin")
        if wanted:
            report.trip(
                "the human-written share is unknown (no row states its origin), below the "
                f"minimum of {wanted:.1%}",
                "origin",
            )
    else:
        # A row that is left out for its length must not stop what was mixed as a tenth.
        slack = min(1.0 / max(report.rows, 1), 0.1 * wanted)
        check = exact(
            AuditCheck(
                name="human-written rows",
                group="origin",
                value=share,
                low=share,
                high=share,
                data=share,
                reference=None,
                limit=wanted,
                unit="share by weight",
            ),
            slack,
        )
        report.checks.append(check)
        if check.tripped:
            report.trip(
                f"the human-written share is {share:.1%}, below the minimum of {wanted:.1%}",
                "origin",
            )
    if limits.max_depth is not None and report.depth > limits.max_depth:
        report.trip(
            f"a row is {report.depth} synthetic generations deep, above the maximum of "
            f"{limits.max_depth}",
            "origin",
        )


def _scored(rows: Sequence[AuditRow], scorer: Scorer, name: str) -> list[float]:
    """Mean score of each row's texts."""
    texts = [text for row in rows for text in row.texts]
    try:
        values = [float(value) for value in scorer(texts)]
    except Exception as error:  # a user's function raises what it likes
        raise RlaifError(
            f"{name!r} failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
            hint="It must take a list of texts and return one number for each.",
        ) from error
    if len(values) != len(texts):
        raise RlaifError(
            f"{name!r} returned {len(values)} numbers for {len(texts)} texts",
            hint="It must take a list of texts and return one number for each.",
        )
    found, at = [], 0
    for row in rows:
        known = [v for v in values[at : at + len(row.texts)] if np.isfinite(v)]
        found.append(float(np.mean(known)) if known else float("nan"))
        at += len(row.texts)
    return found


def _embedded(rows: Sequence[AuditRow], embed: Embedder) -> list[NDArray[Any]]:
    vectors = np.asarray(embed([text for row in rows for text in row.texts]))
    ends = np.cumsum([len(row.texts) for row in rows])[:-1]
    return list(np.split(vectors, ends))


def _slices_of(row: AuditRow) -> list[str]:
    return [*(f"tag:{tag}" for tag in sorted(row.tags)), f"language:{language_of(row.texts[0])}"]


def _by_slice(
    sides: tuple[Sequence[AuditRow], Sequence[AuditRow]],
    scores: Mapping[str, tuple[list[float], list[float]]],
) -> list[dict[str, Any]]:
    if not scores:
        return []
    where = [[_slices_of(row) for row in rows] for rows in sides]
    names = sorted({name for side in where for row in side for name in row})
    found = []
    for name in names:
        for attribute, values in scores.items():
            means, counts = [], []
            for side, own in zip(where, values, strict=True):
                picked = [
                    v for row, v in zip(side, own, strict=True) if name in row and np.isfinite(v)
                ]
                means.append(float(np.mean(picked)) if picked else None)
                counts.append(len(picked))
            found.append(
                {
                    "slice": name,
                    "attribute": attribute,
                    "rows": counts[0],
                    "data": means[0],
                    "reference_rows": counts[1],
                    "reference": means[1],
                }
            )
    return found


def _attributes_alone(rows: Sequence[AuditRow], extras: AuditExtras) -> list[dict[str, Any]]:
    scores: dict[str, tuple[list[float], list[float]]] = {
        name: (_scored(rows, scorer, name), []) for name, scorer in extras.attributes.items()
    }
    return _by_slice((rows, []), scores)


def _biases(report: AuditReport, run: Path, limits: Thresholds) -> None:
    outcomes = read_outcomes(run, measure=measure_style)
    found = bias_report(outcomes, groups=[str(row) for row in outcomes.rows])
    report.biases = sorted(found.findings, key=lambda f: not f.flagged)
    report.notes += found.warnings
    for finding in report.biases:
        if finding.flagged and limits.biases == "trip":
            report.trip(f"the judge is biased: {finding.name} {finding.shown}", "bias")

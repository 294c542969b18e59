"""Runs an evaluation: every judge and constitution over the same labeled pairs, one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlaif.evaluation.bias.report import BiasReport, bias_report
from rlaif.evaluation.bias.style import measure_style
from rlaif.evaluation.bias.variants import (
    Attack,
    AttackResult,
    Variant,
    attack_results,
    attacked,
    probe_findings,
    probed,
    write_variants,
)
from rlaif.evaluation.judge_report import JudgeComparison, JudgeReport, compare_judges, judge_report
from rlaif.evaluation.labeled import PAIRS, LabeledData, aligned
from rlaif.evaluation.outcomes import Outcomes, read_outcomes
from rlaif.evaluation.panels import PanelReport, panel_outcomes, panel_report
from rlaif.judging.panel import PanelMode
from rlaif.labeling.job import prepare, run_label, with_engine
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext
from rlaif.runs.directory import read_rows
from rlaif.runs.labels import read_labels
from rlaif.util.hashing import digest


@dataclass(frozen=True)
class JudgeUnderTest:
    """A judge with a constitution, to be measured."""

    constitution: str
    settings: LabelSettings


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        folders: the labeling run of each candidate, by its name.
    """

    reports: list[JudgeReport]
    comparisons: list[JudgeComparison]
    folders: dict[str, Path]
    biases: dict[str, BiasReport] = field(default_factory=dict)
    panels: list[PanelReport] = field(default_factory=list)
    attacks: dict[str, list[AttackResult]] = field(default_factory=dict)
    rejected: int = 0


def evaluate(
    candidates: Sequence[JudgeUnderTest],
    data: LabeledData,
    folder: Path,
    context: RunContext = RunContext(),
    *,
    bias: bool = False,
    attacks: Sequence[Attack] = (),
    most_variants: int = 100,
    panels: Sequence[PanelMode] = (),
) -> Evaluation:
    """Judge the pairs of `folder/pairs.jsonl` with every candidate, and measure.

    Judges run one after the other, each in its own engine; what was judged before comes from the
    runs in `folder` or from the cache.

    Raises:
        RlaifError: a candidate can't be used, or a run in `folder` has another configuration.

    Long because it measures one judge after the other, then all of them together.
    """
    judged: list[tuple[Outcomes, LabeledData]] = []
    folders: dict[str, Path] = {}
    biases: dict[str, BiasReport] = {}
    results: dict[str, list[AttackResult]] = {}
    for candidate in candidates:
        settings = with_engine(candidate.settings, folder, context)
        job = prepare(str(folder / PAIRS), candidate.constitution, settings)
        # An edited constitution gets a run of its own; what it shares comes from the cache.
        out = folder / f"{_slug(candidate)}-{digest(job.config)[:8]}"
        run_label(job, out, context)
        outcomes = _renamed(read_outcomes(out, measure=measure_style), candidate, folders)
        judged.append((outcomes, aligned(data, outcomes)))
        folders[outcomes.name] = out
        ask = _VariantCaller(
            constitution=candidate.constitution, settings=settings, base=out, context=context
        )
        if bias:
            own = judged[-1][1]
            biases[outcomes.name] = _measure_biases(
                outcomes=outcomes, own=own, folder=folder, ask=ask, most=most_variants
            )
        if attacks:
            tried = list(
                attacked(
                    rows=_rows(folder),
                    base=outcomes,
                    attacks=attacks,
                    template=job.template,
                    most=most_variants,
                )
            )
            # Without a decided pair there is no losing response to attack through.
            said = ask.about(tried, "attacks") if tried else outcomes
            results[outcomes.name] = attack_results(tried, said, outcomes, ask.prompt_injection)
    reports = [judge_report(outcomes, own) for outcomes, own in judged]
    comparisons = compare_judges(judged) if len(judged) > 1 else []
    members, (_, own) = [outcomes for outcomes, _ in judged], judged[0]
    found = []
    for mode in panels:
        aggregated, asked_last = panel_outcomes(members, mode)
        reports.append(judge_report(aggregated, own, by_order=False))
        found.append(
            panel_report(
                members, aggregated, own.label, own.group, mode=mode, asked_last=asked_last
            )
        )
    return Evaluation(
        reports=reports,
        comparisons=comparisons,
        folders=folders,
        biases=biases,
        panels=found,
        attacks=results,
        rejected=data.dropped,
    )


def _renamed(outcomes: Outcomes, candidate: JudgeUnderTest, taken: Mapping[str, Path]) -> Outcomes:
    """With a name that no other judge has."""
    if outcomes.name in taken:
        outcomes = replace(outcomes, name=f"{outcomes.name} ({candidate.settings.template})")
    if outcomes.name in taken:
        outcomes = replace(outcomes, name=f"{outcomes.name} #{len(taken) + 1}")
    return outcomes


def _measure_biases(
    outcomes: Outcomes, own: LabeledData, folder: Path, ask: _VariantCaller, most: int
) -> BiasReport:
    """Biases by labels, and by what the judge says of probe pairs."""
    probes = list(probed(_rows(folder), most))
    also = probe_findings(probes, ask.about(probes, "probes"))
    return bias_report(outcomes, label=own.label, groups=own.group, also=also)


class _VariantCaller:
    """Asks one judge about variants of the pairs that it was asked about.

    Attributes:
        prompt_injection: of the last variants, whether it was found in each.
    """

    def __init__(
        self,
        constitution: str,
        settings: LabelSettings,
        base: Path,
        context: RunContext,
    ) -> None:
        self._constitution = constitution
        # Variants are all judged in full, whatever the pairs were.
        orders = "one" if settings.orders == "one" else "both"
        update = {
            "orders": orders,
            "stop": "never",
            "prompt_injection": "flag",
            "calibration": None,
            "agreement_target": None,
        }
        self._settings = settings.model_copy(update=update)
        self._base, self._context = base, context
        self.prompt_injection: list[bool] = []

    def about(self, variants: Sequence[Variant], what: str) -> Outcomes:
        """What the judge says of variants, one a row."""
        data = self._base.with_name(f"{self._base.name}-{what}.jsonl")
        write_variants(data, variants)
        job = prepare(str(data), self._constitution, self._settings)
        out = self._base.with_name(f"{self._base.name}-{what}-{digest(job.config)[:8]}")
        run_label(job, out, self._context)
        self.prompt_injection = [False] * len(variants)
        for label in read_labels(out):
            side = "a: " if variants[label.row - 1].side > 0 else "b: "
            self.prompt_injection[label.row - 1] = side in f"{label.prompt_injection} "
        return read_outcomes(out)


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The labeled pairs, by place."""
    return [row for _, row in read_rows(folder / PAIRS)]


def _slug(candidate: JudgeUnderTest) -> str:
    name = f"{candidate.settings.judge.model}-{Path(candidate.constitution).stem}"
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[-80:]

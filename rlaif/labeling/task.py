"""What every pair of a run is judged by; small enough to be sent to where labelers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlaif.constitution.schema import Constitution
from rlaif.labeling.load_calibration import Aggregator
from rlaif.labeling.settings import LabelSettings
from rlaif.templates.judge import JudgeTemplate
from rlaif.util.hashing import digest


@dataclass(frozen=True)
class LabelTask:
    """How pairs are judged and what their labels carry.

    Attributes:
        aggregator: from a pair's principle scores to its preference.
        stamp: provenance that every row carries (constitution, judge, template).
        functions: that the user allows the constitution to call, wherever labelers are.
        check_command: what the user is told to run if the first verdicts can't be used; "" to go
            on whatever they are.
    """

    constitution: Constitution
    template: JudgeTemplate
    settings: LabelSettings
    aggregator: Aggregator
    stamp: dict[str, Any]
    functions: tuple[str, ...] = ()
    check_command: str = ""


def describe_manner(fingerprint: str, task: LabelTask, reasons: bool) -> str:
    """What an answer depends on beside its prompt: the model and, with it, how it reasons.

    Args:
        fingerprint: of the engine.
        reasons: whether the judge writes before it answers.
    """
    template = task.template
    scored = [template.prefill, template.then] if template.scores else []
    if not reasons:
        return digest([fingerprint, *scored]) if scored else fingerprint
    s = task.settings
    manner = [fingerprint, template.answer, s.reasoning_tokens, "up to its answer", *scored]
    if s.reasoning_samples > 1:
        manner += [s.reasoning_samples, s.reasoning_temperature, s.seed]
    # Without samples, what was answered before there was a choice came to its end by itself.
    if (s.reasoning_cut == "invalid") == (s.reasoning_samples == 1):
        manner.append(f"cut: {s.reasoning_cut}")
    return digest(manner)

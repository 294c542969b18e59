"""Loads a calibration for a labeling job, and the threshold that an agreement target asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlaif.errors import Place, RlaifError
from rlaif.judging.aggregation import AggregationSettings, aggregate
from rlaif.judging.calibration import Calibration, calibrated, tempered
from rlaif.labeling.settings import LabelSettings
from rlaif.records import Preference, PrincipleScore
from rlaif.util.hashing import digest
from rlaif.util.validation import explain

_WHERE = ("base_url", "served")
"""Options of engines that say where a judge is, and not how it answers."""
CONFIDENCE = (
    "aggregation",
    "orders",
    "principles",
    "stop",
    "label_mass_floor",
    "reasoning_clamp",
    "reasoning_samples",
)
"""Settings that change how sure a judge is."""


def made_for(config: Mapping[str, Any]) -> dict[str, str]:
    """What a calibration depends on, of a run's resolved configuration."""
    return {
        "judge": str(config["judge"]["model"]),
        "judge_fingerprint": str(config["judge"]["fingerprint"]),
        "constitution": f"{config['constitution']['name']} {config['constitution']['version']}",
        "constitution_hash": str(config["constitution"]["hash"]),
        "template_hash": str(config["template"]["hash"]),
        "aggregation": digest([config.get(k) for k in CONFIDENCE]),
        **({"asked": digest(asked)} if (asked := _asked_with(config)) else {}),
    }


def _reasoning_of(config: Mapping[str, Any]) -> list[Any]:
    """How long a judge may reason, and what follows if that is not enough; empty for the usual."""
    fields = LabelSettings.model_fields
    told = [(name, config.get(name)) for name in ("reasoning_tokens", "reasoning_cut")]
    return [[name, value] for name, value in told if value not in (None, fields[name].default)]


def _asked_with(config: Mapping[str, Any]) -> dict[str, Any]:
    """What else a judge was asked with, where it is not the usual: options of its engine, examples,
    what rows bring, and the judges of a panel.
    """
    layout = config.get("layout") or {}
    options = config["judge"].get("options") or {}
    found = {
        "options": {k: v for k, v in options.items() if k not in _WHERE},
        "reasoning": _reasoning_of(config),
        "shots": config.get("shots"),
        "reference": bool(layout.get("reference")),
        "rubric": bool(layout.get("rubric")),
        "members": [
            [made_for(member), (member.get("calibration") or {}).get("hash", "")]
            for member in config.get("members", [])
        ],
    }
    return {name: value for name, value in found.items() if value}


def load_calibration(path: str) -> Calibration:
    """Read a calibration file; `load_aggregator` also checks what it was fitted for.

    Raises:
        RlaifError: it is missing or is none.
    """
    try:
        return Calibration.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise RlaifError(
            f"could not read calibration {path!r} ({error.strerror})",
            hint="Create one with `rlaif calibrate`.",
        ) from None
    except ValidationError as error:
        hint = "Create the calibration again with `rlaif calibrate`."
        raise explain(error, hint=hint, default=Place(Path(path))) from None


_WHAT = {
    "judge_fingerprint": "a different judge",
    "constitution_hash": "a different constitution",
    "template_hash": "a different judge template",
    "aggregation": "other settings of aggregation, orders or principles",
    "asked": "other engine options, examples (--shots), references or rubrics",
}


def check_fits(calibration: Calibration, config: Mapping[str, Any], path: str) -> None:
    """Refuse a calibration that was fitted for something else.

    Raises:
        RlaifError: it was.
    """
    now = made_for(config)
    for key, what in _WHAT.items():
        if calibration.made_for.get(key, "") != now.get(key, ""):
            before = calibration.made_for
            raise RlaifError(
                f"calibration {path!r} was fitted for {what} ({before.get('judge', '?')} with "
                f"{before.get('constitution', '?')})",
                hint="Use the judge and settings it was fitted for, or run `rlaif calibrate` "
                "on a run of this judge.",
            )


@dataclass(frozen=True)
class CertifiedThreshold:
    """A threshold with what was shown about it."""

    threshold: float
    facts: dict[str, float]


def certify_target(calibration: Calibration, target: float, delta: float) -> CertifiedThreshold:
    """The threshold of confidence that an agreement target asks for.

    Raises:
        RlaifError: the labels of the calibration do not certify it; with how many more would.
    """
    import numpy as np  # noqa: PLC0415 - only where a target is asked for

    from rlaif.judging.selective import certify, missing_labels  # noqa: PLC0415

    confidence = np.array([c for c, _ in calibration.points])
    right = np.array([r for _, r in calibration.points])
    found = certify(confidence, right, target=target, delta=delta)
    if found.threshold is None:
        more = missing_labels(confidence, right, target=target, delta=delta)
        hint = (
            "More labels are unlikely to help: lower the target, or use a better judge."
            if more is None
            else (f"Label about {more} more random pairs and calibrate again, or lower the target.")
        )
        raise RlaifError(
            f"agreement of {target:g} can't be certified from {len(right)} labels", hint=hint
        )
    facts = {
        "target": target,
        "delta": delta,
        "threshold": found.threshold,
        "coverage_of_labels": round(found.coverage, 4),
        "agreement_of_labels": round(found.agreement, 4),
        "certified": round(found.bound, 4),
    }
    return CertifiedThreshold(found.threshold, facts)


@dataclass(frozen=True)
class Aggregator:
    """From a pair's opinions to its preference: aggregated, calibrated, and held to a target.

    Attributes:
        threshold: least confidence, before calibration, of a decision.
        calibration_hash: content address of the calibration, for provenance; "" for none.
    """

    settings: AggregationSettings
    calibration: Calibration | None = None
    threshold: float | None = None
    calibration_hash: str = ""

    def preference(self, scores: list[PrincipleScore]) -> Preference:
        """The preference of a pair."""
        if self.calibration is not None:
            scores = tempered(scores, self.calibration.principles)
        return calibrated(aggregate(scores, self.settings), self.calibration, self.threshold)


def load_aggregator(
    path: str | None, settings: AggregationSettings, config: Mapping[str, Any]
) -> Aggregator:
    """How opinions become preferences, calibrated where a calibration is given.

    Args:
        path: the calibration; None for none.
        config: what `made_for` needs of the run or of the judge that it is for.

    Raises:
        RlaifError: the calibration can't be read, or was fitted for something else.
    """
    if path is None:
        return Aggregator(settings)
    found = load_calibration(path)
    check_fits(found, config, path)
    return Aggregator(settings, found, calibration_hash=digest(found.model_dump(mode="json")))

"""The configuration of a labeling run, and the part of it that a run's results depend on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlaif.constitution.schema import Constitution
from rlaif.data.pairing import PairingMode
from rlaif.data.sources import Source
from rlaif.engines.base import SPEED_ONLY, EngineSettings
from rlaif.engines.registry import speed_options
from rlaif.judging.aggregation import AggregationSettings
from rlaif.judging.questions import PrinciplesMode
from rlaif.templates.judge import JudgeTemplate


class LabelSettings(BaseModel):
    """Everything that `rlaif label` can be told, apart from data and constitution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: EngineSettings
    template: str = Field(default="pairwise", description="Judge prompt layout: name or path.")
    orders: Literal["both", "one", "adaptive"] = Field(
        default="both",
        description="Show each pair both ways round, one way, or the second only where the first "
        "could be overturned.",
    )
    stop: Literal["never", "exact", "likely"] = Field(
        default="never",
        description="Ask no more about a pair once what is left could not (exact), or is unlikely "
        "to (likely), change its decision.",
    )
    stop_error: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="With --stop likely or --orders adaptive: most decisions that may change, "
        "shown on a pilot with 95% confidence.",
    )
    pilot: int = Field(
        default=400,
        ge=100,
        description="Rows drawn at random whose pairs are asked everything first, to learn when to "
        "stop.",
    )
    principles: PrinciplesMode = Field(
        default="all", description="Ask every principle, or one drawn per pair."
    )
    label_mass_floor: float = Field(
        default=0.5, ge=0, le=1, description="Least probability on the labels of a verdict."
    )
    reasoning_tokens: int = Field(
        default=512, ge=1, description="For templates that let the judge reason: most tokens."
    )
    reasoning_samples: int = Field(
        default=1,
        ge=1,
        le=100,
        description="With reasoning: how often the judge reasons about each question; the label "
        "probabilities are averaged.",
    )
    reasoning_temperature: float = Field(
        default=0.7, gt=0, le=10, description="With several samples; a single one is greedy."
    )
    reasoning_clamp: float = Field(
        default=0.6,
        gt=0.5,
        le=1,
        description="With reasoning, probabilities are kept within [1 - this, this].",
    )
    calibration: str | None = Field(
        default=None, description="File of `rlaif calibrate`: how sure this judge may be."
    )
    agreement_target: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Abstain below the confidence from which people agree at least this often; "
        "needs --calibration.",
    )
    agreement_delta: float = Field(
        default=0.05, gt=0, lt=1, description="Chance that the agreement target is missed."
    )
    prompt_injection: Literal["flag", "hold"] = Field(
        default="flag",
        description="Completions that speak to the judge (instructions, fake turns, hidden "
        "characters): note it with the row, or hold the pair back unjudged.",
    )
    aggregation: AggregationSettings = AggregationSettings()
    pairs: PairingMode = "all"
    pairs_per_prompt: int = Field(default=1, ge=1, description="For `pairs: sample`.")
    mapping: dict[str, str] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1, description="Stop after this many rows.")
    seed: int = 0

    def resolved(
        self,
        source: Source,
        constitution: Constitution,
        template: JudgeTemplate,
        model_fingerprint: str,
    ) -> dict[str, Any]:
        """What `run.yaml` holds: every value that the results depend on, with content hashes."""
        own = self.model_dump(mode="json", exclude={"judge": SPEED_ONLY})
        judge = {**own.pop("judge"), "fingerprint": model_fingerprint}
        for name in speed_options(self.judge):
            judge["options"].pop(name, None)
        return {
            "format": 1,
            "input": {
                "path": source.name,
                "split": source.split,
                "hash": source.fingerprint(),
            },
            "constitution": {
                "name": constitution.name,
                "version": constitution.version,
                "hash": constitution.hash,
            },
            "judge": judge,
            **own,
            "template": {"name": self.template, "hash": template.hash},
        }

"""The configuration of a labeling run, and the part of it that a run's results depend on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from rlaif.constitution.schema import Constitution
from rlaif.data.layout import Layout
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
    template: str = Field(
        default="pairwise",
        description="Judge prompt template: a name or a path. [default: demo for the demo judge, "
        "else pairwise]",
    )
    orders: Literal["both", "one", "adaptive"] = Field(
        default="both",
        description="Judge each pair in both orders, in one, or (adaptive) in the second "
        "only if it "
        "could change the result.",
    )
    stop: Literal["never", "exact", "likely"] = Field(
        default="never",
        description="Stop judging a pair once the remaining verdicts cannot (exact), or are "
        "unlikely "
        "to (likely), change its decision.",
    )
    stop_error: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="With --stop likely or --orders adaptive: maximum share of decisions that may "
        "change, at 95% confidence on the pilot.",
    )
    pilot: int = Field(
        default=400,
        ge=100,
        description="Random rows judged in full first, to learn when to stop.",
    )
    principles: PrinciplesMode = Field(
        default="all", description="Judge all principles, or one sampled per pair."
    )
    shots: int = Field(
        default=0,
        ge=0,
        le=20,
        description="Examples of each principle that the judge is shown; `constitution lint "
        "--template` tells what they cost.",
    )
    label_mass_floor: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Minimum probability mass on the two labels; verdicts below it are invalid.",
    )
    reasoning_tokens: int = Field(
        default=512,
        ge=1,
        description="With reasoning templates: maximum generated tokens of reasoning.",
    )
    reasoning_cut: Literal["answer", "invalid"] = Field(
        default="answer",
        description="With reasoning that reaches --reasoning-tokens: end it there and read the "
        "answer (budget forcing, Muennighoff et al. 2025), or call the verdict invalid. Behind "
        "a chat server it is invalid.",
    )
    reasoning_samples: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Reasoning samples per judge call; their probabilities are averaged.",
    )
    reasoning_temperature: float = Field(
        default=0.7,
        gt=0,
        le=10,
        description="Temperature with several reasoning samples; a single one is greedy.",
    )
    reasoning_clamp: float = Field(
        default=0.6,
        gt=0.5,
        le=1,
        description="With reasoning: train on probabilities clamped to [1 - X, X]. Verdicts, "
        "labels and reports keep the judge's own.",
    )
    calibration: str | None = Field(
        default=None,
        description="Calibration file from `rlaif calibrate`; corrects the confidence of the "
        "judge, or of the whole panel.",
    )
    agreement_target: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Minimum agreement with human labels; pairs below the confidence that "
        "this needs "
        "are abstentions. Needs --calibration.",
    )
    agreement_delta: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Probability, at most, that the agreement target is missed.",
    )
    prompt_injection: Literal["flag", "hold"] = Field(
        default="flag",
        description="Completions with possible prompt injection (English "
        "instructions, fake turns, hidden characters): flag the row, or hold the pair back as an "
        "abstention.",
    )
    aggregation: AggregationSettings = AggregationSettings()
    pairs: PairingMode = "all"
    weight_by: Literal["pair", "prompt"] = Field(
        default="pair",
        description="Weight of pairs in training: each pair counts alike, or each prompt does, "
        "however many pairs its responses make.",
    )
    pairs_per_prompt: int = Field(
        default=1, ge=1, description="Pairs per prompt with `pairs: sample`."
    )
    layout: Layout = Layout()
    _pictures_from: str = PrivateAttr(default="")
    limit: int | None = Field(
        default=None, ge=1, description="Maximum number of input rows to read."
    )
    seed: int = Field(default=0, description="Random seed for what a run samples.")

    @property
    def pictures_from(self) -> str:
        """Where relative paths of pictures start; "" where the judge takes text alone."""
        return self._pictures_from

    def with_pictures(self, folder: str) -> LabelSettings:
        """The same settings for a judge that sees pictures."""
        found = self.model_copy()
        found._pictures_from = folder
        return found

    def resolved(
        self,
        source: Source,
        constitution: Constitution,
        template: JudgeTemplate,
        model_fingerprint: str,
    ) -> dict[str, Any]:
        """What `run.yaml` holds: every value that the results depend on, with content hashes."""
        own = self.model_dump(mode="json", exclude={"judge": SPEED_ONLY})
        own["layout"] = self.layout.to_data()
        if not self.shots:  # as runs were before there were any
            del own["shots"]
        if self.weight_by == "pair":
            del own["weight_by"]
        if not template.answer:
            del own["reasoning_cut"]
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
            "template": {"name": self.template, **template.hashes(constitution.languages)},
        }

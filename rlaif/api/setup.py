"""One constitution with one judge, ready to answer: what server, plug-ins and Python API share.

Nothing here runs; a `Service` drives the questions made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rlaif.api.service import Questions
from rlaif.constitution.checks import check_functions
from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Constitution, Principle
from rlaif.data.single_rows import BadRow, DataRow, read_row
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import (
    can_generate,
    codec_for,
    has_tokens,
    model_fingerprint,
    speed_options,
)
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.generation.critique_calls import WRITER, CritiqueCaller, CritiqueResult
from rlaif.generation.judge_calls import JUDGE, PairCaller
from rlaif.generation.pointwise_calls import (
    AnchoredScorer,
    DirectScorer,
    PointwiseScore,
    load_pointwise_template,
)
from rlaif.judging.aggregation import AggregationSettings
from rlaif.judging.questions import OrdersMode, principles_for
from rlaif.judging.row_language import in_language_of, with_language
from rlaif.labeling.load_calibration import Aggregator, load_aggregator
from rlaif.labeling.reward_principles import add_reward_models
from rlaif.labeling.settings import LabelSettings
from rlaif.records import Message, Pair, Preference
from rlaif.runs.rows import make_stamp
from rlaif.templates.judge import JudgeTemplate, default_template, load_judge_template
from rlaif.templates.messages import message_text
from rlaif.templates.writer import load_writer_templates

ANCHORED = "anchored"
DEMO = "demo"


class JudgeSettings(BaseModel):
    """How a judge judges, apart from the constitution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: EngineSettings
    writer: EngineSettings | None = None
    template: str = Field(
        default="pairwise", description="Judge prompt template: a name or a path."
    )
    pointwise: str = Field(
        default="pointwise",
        description="Template (name or path) for scoring a single response, or `anchored` to "
        "compare "
        "it with each principle's examples.",
    )
    writer_templates: str = Field(
        default="plain", description="Templates for critiques and revisions: a name or a folder."
    )
    orders: OrdersMode = Field(
        default="both", description="Judge each pair in both orders, or in one random order."
    )
    label_mass_floor: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Minimum probability mass on the two labels; verdicts below it are invalid.",
    )
    calibration: str | None = Field(
        default=None,
        description="Calibration file from `rlaif calibrate`; corrects the judge's confidence.",
    )
    critique_tokens: int = Field(
        default=256, ge=1, description="Maximum number of tokens per critique."
    )
    revision_tokens: int = Field(
        default=1024, ge=1, description="Maximum number of tokens per revision."
    )
    aggregation: AggregationSettings = AggregationSettings()
    seed: int = Field(default=0, description="Random seed of critiques and scores.")


def with_defaults(values: Mapping[str, Any], judge: EngineSettings) -> dict[str, Any]:
    """Settings by name, with what fits the judge where nothing is said."""
    demo = judge.model == DEMO
    found = dict(values)
    found.setdefault("template", default_template(judge.model, judge.engine))
    compares = demo or judge.engine == "reward-model"
    found.setdefault("pointwise", ANCHORED if compares else "pointwise")
    found.setdefault("writer_templates", "demo" if demo else "plain")
    if found.get("writer") is None:
        found["writer"] = judge.model_copy(update={"model": "demo-writer"}) if demo else judge
    return {**found, "judge": judge}


@dataclass(frozen=True)
class JudgeSetup:
    """Makes the questions about pairs and single responses.

    Attributes:
        stamp: the provenance that every answer carries.
    """

    settings: JudgeSettings
    constitution: Constitution
    judging: PairCaller
    pointwise: DirectScorer | AnchoredScorer
    criticizing: CritiqueCaller | None
    stamp: dict[str, str]

    def compare(self, row: Mapping[str, object]) -> Questions[Preference]:
        """Which of two responses is better.

        Args:
            row: any layout of `rlaif label` with two responses.

        Raises:
            BadRow: (at once) no layout fits, or there are not two responses.
        """
        read = read_row(row)
        if len(read.completions) != 2:
            raise BadRow(f"got {len(read.completions)} responses, expected two")
        one, two = (c.messages for c in read.completions)
        return self.compare_pair(Pair(read.id, read.prompt, one, two, tags=read.tags))

    def compare_pair(self, pair: Pair) -> Questions[Preference]:
        """Which of a pair's two responses is better."""
        pair = with_language(pair, self.constitution)
        (found,) = yield from self.judging.compare([pair], principles_for(pair, self.constitution))
        return found

    def score(
        self, row: Mapping[str, object], *, principles: list[str] | None = None
    ) -> Questions[PointwiseScore]:
        """How well one response follows the constitution.

        Args:
            principles: their ids; None for all that apply.

        Raises:
            BadRow: (at once) no layout fits, there is not one response, or a principle is unknown.
        """
        read = _single(row)
        response = read.completions[0].messages
        asked = self.named(principles, read.tags, read.prompt)
        return self.score_response(read.prompt, response, asked)

    def score_response(
        self, prompt: list[Message], response: list[Message], principles: list[Principle]
    ) -> Questions[PointwiseScore]:
        """How well a response follows some principles; an empty one is not scored."""
        if not any(message_text(m).strip() for m in response):
            return PointwiseScore(None, (), "the response is empty")
        try:
            return (yield from self.pointwise.score(prompt, response, principles))
        except ConversationRefused as error:
            return PointwiseScore(None, (), error.message)

    def criticize(
        self, row: Mapping[str, object], *, principles: list[str] | None, revise: bool
    ) -> Questions[list[CritiqueResult]]:
        """What is wrong with one response, by principle.

        Args:
            principles: their ids; None for all that apply.

        Raises:
            BadRow: (at once) no layout fits, there is not one response, or a principle is unknown.
            RlaifError: (at once) nobody here writes.
        """
        if self.criticizing is None:
            raise RlaifError(
                f"engine {self.settings.judge.engine!r} cannot generate critiques",
                hint="Set a writer model, or use --engine vllm.",
            )
        read = _single(row)
        return self.criticizing.criticize(
            read.prompt,
            read.completions[0].messages,
            self.named(principles, read.tags, read.prompt),
            revise=revise,
        )

    def named(
        self,
        names: list[str] | None,
        tags: frozenset[str] = frozenset(),
        prompt: Sequence[Message] = (),
    ) -> list[Principle]:
        """The principles with some ids; those that apply where there are none.

        Args:
            prompt: in whose language they are wanted.

        Raises:
            BadRow: one is unknown.
        """
        said = in_language_of(prompt, self.constitution) if prompt else self.constitution
        if names is None:
            return said.applicable(tags)
        known = {p.id: p for p in said.principles}
        for name in names:
            if name not in known:
                raise BadRow(f"unknown principle {name!r}; known: {', '.join(known)}")
        return [known[name] for name in names]


def prepare_judge(constitution: str, settings: JudgeSettings) -> JudgeSetup:
    """Load and check the parts.

    Raises:
        RlaifError: constitution, template or model can't be used.
    """
    loaded = load_constitution(constitution).constitution
    check_functions(loaded)
    judge = add_reward_models(settings.judge, loaded)
    settings = settings.model_copy(update={"judge": judge})
    template = load_judge_template(settings.template)
    codec = codec_for(settings.judge)
    aggregator = _aggregator(settings, loaded, template)
    judging = PairCaller(
        template=template,
        codec=codec,
        aggregation=settings.aggregation,
        label_mass_floor=settings.label_mass_floor,
        orders=settings.orders,
        seed=settings.seed,
        aggregator=aggregator,
    )
    assert judging.renderer  # a label that is no token of this judge is known now
    coverage = settings.aggregation.min_coverage
    pointwise: DirectScorer | AnchoredScorer = AnchoredScorer(judging, coverage)
    if settings.pointwise != ANCHORED:
        pointwise = DirectScorer(
            load_pointwise_template(settings.pointwise), codec, settings.label_mass_floor, coverage
        )
        if pointwise.template.settings["scores"] and not has_tokens(settings.judge):
            raise RlaifError(
                f"pointwise template {settings.pointwise!r} reads grades, which engine "
                f"{settings.judge.engine!r} can't read",
                hint="Use the template `pointwise`, or an engine that reads token probabilities.",
            )
    pointwise.check()
    criticizing = None
    writer = settings.writer or settings.judge
    if can_generate(writer):
        criticizing = CritiqueCaller(
            load_writer_templates(settings.writer_templates),
            codec if writer == settings.judge else codec_for(writer),
            (settings.critique_tokens, settings.revision_tokens),
        )
    stamp = make_stamp(
        constitution=loaded,
        judge=settings.judge.model,
        fingerprint=model_fingerprint(settings.judge),
        template=template,
        calibration=aggregator.calibration_hash,
    )
    return JudgeSetup(
        settings=settings,
        constitution=loaded,
        judging=judging,
        pointwise=pointwise,
        criticizing=criticizing,
        stamp=stamp,
    )


def _aggregator(
    settings: JudgeSettings, constitution: Constitution, template: JudgeTemplate
) -> Aggregator:
    """Calibrated where a calibration is given.

    Raises:
        RlaifError: it was fitted for something else.
    """
    if settings.calibration is None:
        return Aggregator(settings.aggregation)
    config = {
        "judge": {
            "model": settings.judge.model,
            "fingerprint": model_fingerprint(settings.judge),
            "options": {
                k: v
                for k, v in settings.judge.options.items()
                if k not in speed_options(settings.judge)
            },
        },
        "constitution": {
            "name": constitution.name,
            "version": constitution.version,
            "hash": constitution.hash,
        },
        "template": {"hash": template.hash},
        "aggregation": settings.aggregation.model_dump(mode="json"),
        "orders": settings.orders,
        "principles": "all",
        "stop": "never",
        "label_mass_floor": settings.label_mass_floor,
        "reasoning_clamp": LabelSettings.model_fields["reasoning_clamp"].default,
        "reasoning_samples": LabelSettings.model_fields["reasoning_samples"].default,
    }
    return load_aggregator(settings.calibration, settings.aggregation, config)


def models_of(settings: JudgeSettings) -> dict[str, EngineSettings]:
    """The judge and the writer, by role."""
    return {JUDGE: settings.judge, WRITER: settings.writer or settings.judge}


def _single(row: Mapping[str, object]) -> DataRow:
    read = read_row(row)
    if len(read.completions) != 1:
        raise BadRow(f"got {len(read.completions)} responses, expected one")
    return read

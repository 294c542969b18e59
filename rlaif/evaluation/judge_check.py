"""Finds the template with which a judge is read best, on pairs whose better response is known.

A judge can be asked in many ways, and which of them it answers with a label is seen at once: in
the probability on the two labels.  Whether it then says something is seen in two orders of the
same pair (Zheng et al. 2023, arXiv:2306.05685, section 3.4, on position bias).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from statistics import mean, median

from scipy.stats import binomtest

from rlaif.constitution.schema import Constitution, Principle
from rlaif.data.dataset import explained_without_flags, open_dataset
from rlaif.data.labeled_pairs import LabeledPair, read_labeled
from rlaif.data.messages import BadRow
from rlaif.engines.base import Engine
from rlaif.engines.segments import shared_length
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.judging.aggregation import AggregationSettings, aggregate
from rlaif.judging.questions import Question, plan_questions, screen
from rlaif.judging.rendering import Renderer
from rlaif.judging.row_language import with_language
from rlaif.judging.scoring import score_pair
from rlaif.judging.verdicts import read_verdict
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, Pair, Rejected, Verdict
from rlaif.templates.judge import JudgeTemplate

PREFILLS = ("", "The better response is Response", "The better response is", "Answer:")
"""What is tried beside a template's own way of opening the answer."""
READABLE = 0.9
"""Share of valid verdicts from which on a template is one to recommend."""
SURE = 0.05
"""Chance at which a template that looks better than the default may be no better."""


@dataclass(frozen=True)
class KnownPair:
    """A pair whose better response is known.

    Attributes:
        principles: those that are asked about it.
        better: "a", "b" or "tie".
    """

    pair: Pair
    principles: tuple[Principle, ...]
    better: str


@dataclass
class TemplateCheck:
    """How a judge answers to one template.

    Attributes:
        label_mass: probability on the two labels: median and least over all questions.
        valid: share of questions whose label mass reaches the floor.
        consistency: share of principles on which both orders prefer the same response; None where
            no pair of verdicts is valid.
        offset: mean log-odds that follow the position; positive favors what is shown first.
        right: by number of the pair 1, 0, or one half for a tie or a verdict that is missing.
        tokens: mean length of a prompt.
        problem: why the judge can't be asked with it, or "".
    """

    template: JudgeTemplate
    label_mass: tuple[float, float] = (0.0, 0.0)
    valid: float = 0.0
    consistency: float | None = None
    offset: float | None = None
    right: dict[int, float] = field(default_factory=dict)
    tokens: float = 0.0
    problem: str = ""

    @property
    def agreement(self) -> float | None:
        """Share of pairs on which the judge prefers what is known to be better."""
        return mean(self.right.values()) if self.right else None


def pairs_of_examples(constitution: Constitution) -> list[KnownPair]:
    """The examples of all principles that a judge is asked about, each by its own principle."""
    return [
        KnownPair(
            Pair(
                f"{principle.id}/{number}",
                example.conversation,
                [{"role": "assistant", "content": example.chosen}],
                [{"role": "assistant", "content": example.rejected}],
            ),
            (principle,),
            "a",
        )
        for principle in constitution.principles
        if principle.check is None
        for number, example in enumerate(principle.examples, 1)
    ]


def pairs_of_data(data: str, constitution: Constitution, limit: int) -> list[KnownPair]:
    """The first pairs of labeled data, by all principles that apply.

    Raises:
        RlaifError: there is no such data, or nothing in it says which response is better.
    """
    with explained_without_flags(data):
        opened = open_dataset(data, need="verdict")
    found = list(islice(_labeled(opened), limit))
    if not found:
        raise RlaifError(
            f"{data}: no row could be read as a labeled pair", hint="See `rlaif inspect`."
        )
    return [_known(labeled, constitution) for labeled in found]


def _labeled(opened: object) -> Iterator[LabeledPair]:
    for place, row in opened.source.rows():  # type: ignore[attr-defined]
        if isinstance(row, Rejected):
            continue
        try:
            yield from read_labeled(row, place, opened.reader)  # type: ignore[attr-defined]
        except BadRow:
            continue


def _known(labeled: LabeledPair, constitution: Constitution) -> KnownPair:
    pair = Pair(
        labeled.id, labeled.prompt, labeled.a.messages, labeled.b.messages, tags=labeled.tags
    )
    pair = with_language(pair, constitution)
    said = constitution.in_language(pair.language)
    principles = [p for p in said.applicable(labeled.tags) if p.check is None]
    return KnownPair(pair, tuple(principles), labeled.label)


def vary_prefills(templates: Sequence[JudgeTemplate]) -> list[JudgeTemplate]:
    """Each template as it is, and with the other ways of opening the answer."""
    found: dict[str, JudgeTemplate] = {}
    for template in templates:
        others = [replace(template, prefill=prefill) for prefill in PREFILLS]
        for one in (template, *others):
            found.setdefault(one.hash, one)
    return list(found.values())


def check_templates(
    engine: Engine, templates: Sequence[JudgeTemplate], known: Sequence[KnownPair], *, floor: float
) -> list[TemplateCheck]:
    """Ask about all pairs, in both orders, with each template.

    Args:
        floor: least label mass of a valid verdict.

    Raises:
        RlaifError: the engine stops.
    """
    checks = [_Check(template, engine, known) for template in templates]
    by_number = {str(n): check for n, check in enumerate(checks)}
    requests = [
        replace(request, id=f"{n}/{request.id}")
        for n, check in by_number.items()
        for request in check.requests
    ]
    # What a prompt shares with the one before it is computed once.
    for before, request in pairwise(requests):
        request.shared = shared_length([before.token_ids, request.token_ids])
    for results in engine.run(iter(requests)):
        for result in results:
            assert isinstance(result, ChoiceResult | Failure)
            number, _, name = result.id.partition("/")
            by_number[number].answers[name] = result
    return [check.read(floor) for check in checks]


class _Check:
    """The questions with one template, and what came of them."""

    def __init__(self, template: JudgeTemplate, engine: Engine, known: Sequence[KnownPair]) -> None:
        self._template, self._known = template, known
        self._questions: list[list[Question]] = []
        self.requests: list[ChoiceRequest] = []
        self.answers: dict[str, ChoiceResult | Failure] = {}
        self._problem = ""
        try:
            renderer = Renderer(template, engine.codec)
        except RlaifError as error:
            self._problem = error.message
            return
        for n, one in enumerate(known):
            questions = plan_questions(one.pair, one.principles)
            try:
                if screen(one.pair) is not None:
                    questions = []
                found = renderer.requests(one.pair, questions, str(n))
            except ConversationRefused:
                questions, found = [], []
            if any(len(r.token_ids) > engine.max_prompt_tokens for r in found):
                questions, found = [], []
            self._questions.append(questions)
            self.requests += found

    def read(self, floor: float) -> TemplateCheck:
        """The figures."""
        found = TemplateCheck(self._template, problem=self._problem)
        if not self.requests:
            found.problem = found.problem or "no pair can be asked about"
            return found
        verdicts = [
            [
                read_verdict(
                    self.answers[f"{n}/{i}"],
                    principle=question.principle.id,
                    order=question.order,
                    floor=floor,
                )
                for i, question in enumerate(questions)
            ]
            for n, questions in enumerate(self._questions)
        ]
        every = [verdict for of_pair in verdicts for verdict in of_pair]
        masses = [v.label_mass for v in every]
        found.label_mass = median(masses), min(masses)
        found.valid = mean(not v.invalid for v in every)
        found.tokens = mean(len(r.token_ids) for r in self.requests)
        both = [pair for of_pair in verdicts for pair in _both_orders(of_pair)]
        if both:
            found.consistency = mean(ab.logit * ba.logit < 0 for ab, ba in both)
            found.offset = mean((ab.logit + ba.logit) / 2 for ab, ba in both)
        found.right = {
            n: _right(one, of_pair)
            for n, (one, of_pair) in enumerate(zip(self._known, verdicts, strict=True))
            if one.better != "tie" and of_pair
        }
        return found


def _both_orders(verdicts: Sequence[Verdict]) -> Iterator[tuple[Verdict, Verdict]]:
    """The valid verdicts on one pair by principle, where both orders have one."""
    valid = {(v.principle, v.order): v for v in verdicts if not v.invalid}
    for principle in dict.fromkeys(v.principle for v in verdicts):
        ab, ba = valid.get((principle, "ab")), valid.get((principle, "ba"))
        if ab is not None and ba is not None:
            yield ab, ba


def _right(one: KnownPair, verdicts: Sequence[Verdict]) -> float:
    """1 if the verdicts together prefer the better response, 0 if the other one, else one half."""
    settings = AggregationSettings(tie_margin=0.0, min_coverage=0.0)
    found = aggregate(score_pair(one.pair, one.principles, verdicts), settings)
    return 0.5 if found.winner is None else float(found.winner == one.better)


def recommend(checks: Sequence[TemplateCheck], default: str) -> TemplateCheck | None:
    """The template to use; None where the judge answers to none of them with a label.

    The default is kept unless another one agrees better by more than chance (an exact sign test
    on the pairs on which the two differ; McNemar 1947).

    Args:
        default: the name of the template that is used where nothing is said.
    """
    readable = [c for c in checks if c.valid >= READABLE and not c.problem]
    if not readable:
        return None
    own = next((c for c in readable if c.template.name == default), None)
    best = max(readable, key=lambda c: (c.agreement or 0.0, c.consistency or 0.0, c.valid))
    if own is None or _is_better(best, own):
        return best
    return own


def _is_better(one: TemplateCheck, other: TemplateCheck) -> bool:
    gains = [one.right[n] - other.right[n] for n in one.right.keys() & other.right.keys()]
    won, lost = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    if won <= lost:
        return False
    return float(binomtest(won, won + lost, 0.5, alternative="greater").pvalue) < SURE

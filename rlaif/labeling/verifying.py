"""Checks a finished run against its data, its verdicts, the cache, and the judge itself.

Every pair is planned again: the address of each prompt must be the one that its verdict names, the
verdicts must be those that the cache holds, and the row that they come to must be the row in the
file.  Then a random sample of the questions is put to the judge once more.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from rlaif.engines.base import Engine
from rlaif.engines.model_origin import text_origins
from rlaif.engines.registry import create_engine, has_tokens, reads_principles
from rlaif.errors import RlaifError
from rlaif.judging.early_stopping import StoppingRule, follows_stages
from rlaif.judging.rendering import Renderer
from rlaif.judging.scoring import score_pair
from rlaif.judging.verdicts import read_verdict
from rlaif.labeling.job import LabelJob
from rlaif.labeling.pilot import asks_adaptively, rule_of_run
from rlaif.labeling.planner import PlannedPair, Planner
from rlaif.labeling.task import LabelTask, describe_manner
from rlaif.records import ChoiceRequest, ChoiceResult, GenerationResult, Order, Preference, Verdict
from rlaif.runs.context import RunContext
from rlaif.runs.directory import (
    JOURNAL,
    PREFERENCES,
    REJECTED,
    ROW_FILES,
    UNDECIDED,
    VERDICTS,
    differences,
    is_complete,
    read_manifest,
    read_run_config,
)
from rlaif.runs.parts import has_parts, load_index, part_files
from rlaif.runs.replaying import (
    ROUNDED,
    RowsByInput,
    RunRow,
    counts_apart,
    first_apart,
    read_lines,
)
from rlaif.runs.rows import VerdictRows, label_row, rejected_row
from rlaif.runs.tally import MOST_ORIGINS, MOST_REASONS, Tally, dump_tally
from rlaif.store.part_answers import ANSWERS, RunAnswers
from rlaif.store.verdict_cache import CachedAnswer, VerdictCache
from rlaif.util.numerics import sigmoid

TOLERANCES = {"float32": 1e-3}
TOLERANCE = 0.3
"""Nats that a judge's log-odds may differ by when it is asked again, in numbers of 16 bits or
fewer, whose sums depend on what else is in the batch."""
MOST_FINDINGS = 1000
LEAST_SHIFT = 1e-3
"""A probability that moves less than this is the same, however far its log-odds moved."""


@dataclass(frozen=True)
class Finding:
    """Something in a run that does not follow from the rest of it.

    Attributes:
        file: of the run.
        line: in it, from 1; 0 for the file as a whole.
    """

    file: str
    line: int
    what: str


@dataclass
class Verification:
    """What was checked, and what was found.

    Attributes:
        pairs, verdicts: how many were checked.
        uncached: verdicts that the cache does not hold; they were taken as the run has them.
        asked: questions that the judge was asked again.
        answered_now: of these, failed ones (not for their label mass or length) that the judge
            answers now: it may have been away, or somebody took the answer out.
        tolerance: nats by which the judge's log-odds may differ.
        largest: the largest difference in log-odds among those that were asked again.
        more: findings beyond those that are kept.
    """

    rows: int = 0
    pairs: int = 0
    verdicts: int = 0
    uncached: int = 0
    asked: int = 0
    answered_now: int = 0
    tolerance: float = 0.0
    largest: float = 0.0
    more: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, file: str, line: int, what: str) -> None:
        """Note a finding."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(file, line, what))
        else:
            self.more += 1

    def detectable(self, confidence: float = 0.95) -> float:
        """The share of altered answers of which at least one would have been asked again, with
        this confidence: 1 - (1 - c)^(1/n) for n independent questions; 1 for none.
        """
        return 1.0 if not self.asked else 1.0 - (1.0 - confidence) ** (1.0 / self.asked)


def verify_run(
    run: Path,
    job: LabelJob,
    context: RunContext = RunContext(),
    *,
    ask: int = 500,
    seed: int = 0,
    tolerance: float | None = None,
) -> Verification:
    """Check a run.

    Args:
        job: the run's own, prepared again from its settings and its constitution.
        ask: questions to put to the judge again, drawn at random.
        tolerance: see `Verification`; default: by the numbers that the judge is in.

    Raises:
        RlaifError: it is no complete labeling run, or the judge can't be started.
    """
    found = Verification()
    manifest = read_manifest(run, sizes=False)
    try:
        is_complete(run)
    except RlaifError as error:
        found.add("manifest.json", 0, error.message)
    _check_settings(run, job, manifest, found)
    judge = job.settings.judge
    found.tolerance = tolerance if tolerance is not None else _tolerance(judge.numbers)
    with closing(VerdictCache(context.verdicts_path)) as shared:
        context.on_engine(judge)
        with closing(create_engine(judge)) as engine:
            rule = rule_of_run(job.settings, job.task.aggregator, manifest)
            if rule is None and asks_adaptively(job.settings):
                what = "does not keep by what rule the run stopped asking"
                found.add("manifest.json", 0, what)
            replay = _Replay(
                run,
                job.task,
                engine,
                known=_known_answers(run, shared),
                found=found,
                draws=random.Random(seed),
                rule=rule,
            )
            replay.check(job, ask)
            _ask_again(replay.sample.kept, engine, found, job.settings.label_mass_floor)
    _check_manifest(run, manifest, job, found)
    if found.answered_now > max(2, 0.01 * found.asked):
        what = (
            f"{found.answered_now} of {found.asked} questions that were asked again are called "
            "failures, and the judge answers them"
        )
        found.add(VERDICTS, 0, what)
    _check_counts(run, manifest, replay.tally, found)
    return found


KnownOf: TypeAlias = Callable[[int, list[bytes]], dict[bytes, CachedAnswer]]
"""The answers known for keys that ask about a row of the input: its number, from 0."""


def _known_answers(run: Path, shared: VerdictCache) -> KnownOf:
    """Those beside the parts of a run, or those of the cache."""
    if not has_parts(run):
        return lambda _, keys: shared.get(keys)
    firsts = [first for first, _ in load_index(run).spans]
    return RunAnswers(part_files(run, ANSWERS), firsts).of_row


def _tolerance(numbers: str) -> float:
    return next((t for kind, t in TOLERANCES.items() if numbers.startswith(kind)), TOLERANCE)


def _check_settings(
    run: Path, job: LabelJob, manifest: Mapping[str, Any], found: Verification
) -> None:
    """Whether data, principles, template and judge are those that the run names."""
    stated = read_run_config(run)
    if manifest["config"] != stated:
        found.add("manifest.json", 0, f"its config is not run.yaml's ({_differ(manifest, stated)})")
    changed = differences(_without_path(stated), _without_path(job.config))
    if changed:
        found.add("run.yaml", 0, f"what it names has changed: {changed}")


def _differ(manifest: Mapping[str, Any], stated: Mapping[str, Any]) -> str:
    return differences(manifest["config"], stated) or "other values"


def _without_path(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what says where things are."""
    own = json.loads(json.dumps(dict(config)))
    for name in ("input", "calibration"):
        if isinstance(own.get(name), dict):
            own[name].pop("path", None)
    return dict(own)


@dataclass(frozen=True)
class _Asked:
    """A question to be asked again.

    Attributes:
        line: of its verdict.
    """

    request: ChoiceRequest
    verdict: Verdict
    line: int


class _Sample:
    """Questions drawn so that each has the same chance (Vitter's algorithm R).

    Attributes:
        kept: those that were drawn.
    """

    def __init__(self, draws: random.Random) -> None:
        self._draws, self._seen = draws, 0
        self.kept: list[_Asked] = []

    def offer(self, asked: _Asked, most: int) -> None:
        """Keep a question, or not."""
        self._seen += 1
        if len(self.kept) < most:
            self.kept.append(asked)
            return
        place = self._draws.randrange(self._seen)
        if place < most:
            self.kept[place] = asked


class _Replay:
    """Plans a run's pairs again and holds its files against what they come to."""

    def __init__(
        self,
        run: Path,
        task: LabelTask,
        engine: Engine,
        known: KnownOf,
        found: Verification,
        draws: random.Random,
        rule: StoppingRule | None,
    ) -> None:
        self._run, self._task, self._known_of, self._found = run, task, known, found
        self._rule = rule
        self._renderer = Renderer(task.template, engine.codec, task.settings.shots)
        self._engine = engine
        self.sample = _Sample(draws)
        self.tally = Tally()
        judge = task.settings.judge
        self._may_vote = not has_tokens(judge) and reads_principles(judge)

    def check(self, job: LabelJob, ask: int) -> None:
        """Go through the run's rows."""
        planner = Planner(
            constitution=self._task.constitution,
            renderer=self._renderer,
            settings=self._task.settings,
            manner=describe_manner(self._engine.fingerprint, self._task, self._renderer.reasons),
            most_tokens=self._engine.max_prompt_tokens,
        )
        labels = RowsByInput(self._run, (PREFERENCES, UNDECIDED), "provenance")
        verdicts = RowsByInput(self._run, (VERDICTS,), "")
        rejected = read_lines(self._run / REJECTED)
        group: list[PlannedPair] = []
        for window in planner.windows(job.source, 0):
            for item in window:
                group.append(item)
                if not item.ends_row:
                    continue
                self._found.rows += 1
                self.tally.rows += 1
                if item.rejected is not None:
                    self._check_rejected(next(rejected, None), rejected_row(item.rejected))
                else:
                    row = item.pair.row if item.pair is not None else 0
                    self._check_row(group, labels.of_row(row), verdicts.of_row(row), ask)
                group = []
        for file, line, row in [*labels.rest(), *verdicts.rest()]:
            self._found.add(file, line, f"row {row} of the input has no such pair")
        for line, _ in rejected:
            self._found.add(REJECTED, line, "no row of the input was rejected so")

    def _check_rejected(
        self, stated: tuple[int, dict[str, Any]] | None, expected: dict[str, Any]
    ) -> None:
        self.tally.add_rejected()
        if stated is None:
            self._found.add(REJECTED, 0, f"{expected['place']} is missing")
        elif stated[1] != expected:
            self._found.add(REJECTED, stated[0], f"is not {expected['place']} as it is rejected")

    def _check_row(
        self,
        group: list[PlannedPair],
        labels: list[RunRow],
        verdicts: list[RunRow],
        ask: int,
    ) -> None:
        by_id: dict[str, RunRow] = {}
        for label in labels:
            name = str(label.data["provenance"].get("id"))
            if name in by_id:
                self._found.add(label.file, label.line, "a second label of the same pair")
            by_id[name] = label
        told: dict[tuple[str, str, str], RunRow] = {}
        for verdict in verdicts:
            key = tuple(str(verdict.data.get(name)) for name in ("pair", "principle", "order"))
            if key in told:
                self._found.add(VERDICTS, verdict.line, "a second verdict on the same question")
            told[key] = verdict  # type: ignore[index]
        keys = [key for item in group for key in item.keys]
        known = self._known_of(self._found.rows - 1, keys)
        for item in group:
            assert item.pair is not None
            self._check_pair(item, by_id.pop(item.pair.id, None), told, known=known, ask=ask)
        for label in by_id.values():
            self._found.add(label.file, label.line, "the input has no such pair")
        for row in told.values():
            self._found.add(VERDICTS, row.line, "the input has no such question")

    def _check_pair(
        self,
        item: PlannedPair,
        label: RunRow | None,
        told: dict[tuple[str, str, str], RunRow],
        known: Mapping[bytes, CachedAnswer],
        ask: int,
    ) -> None:
        pair = item.pair
        assert pair is not None
        self._found.pairs += 1
        tails = {i: (branch, tail) for branch in item.branches for i, tail in branch.tails}
        answers: dict[int, Verdict] = {}
        for i, question in enumerate(item.questions):
            row = told.pop((pair.id, question.principle.id, question.order), None)
            if row is None:
                if not asks_adaptively(self._task.settings):
                    what = f"no verdict on {question.principle.id} {question.order}"
                    self._found.add(VERDICTS, 0, f"{_name(pair.row, pair.id)}: {what}")
                continue
            answers[i] = verdict = self._check_verdict(
                item, row, item.keys[i], known=known, order=question.order
            )
            if not self._is_drawn(verdict):
                branch, tail = tails[i]
                request = ChoiceRequest(
                    id="",
                    token_ids=branch.context + tail,
                    label_ids=self._renderer.label_ids,
                    pictures=branch.pictures,
                )
                self.sample.offer(_Asked(request, verdict, row.line), ask)
        if not _follows_stopping(self._rule, item, answers):
            what = "other questions were asked than its stopping rule asks"
            self._found.add(VERDICTS, 0, f"{_name(pair.row, pair.id)}: {what}")
        if label is None:
            self._found.add(PREFERENCES, 0, f"{_name(pair.row, pair.id)} has no label")
        self._check_label(item, label, list(answers.values()))

    def _check_verdict(
        self,
        item: PlannedPair,
        row: RunRow,
        key: bytes,
        known: Mapping[bytes, CachedAnswer],
        order: Order,
    ) -> Verdict:
        """A recorded verdict, as exactly as it is known."""
        self._found.verdicts += 1
        data = row.data
        assert item.pair is not None
        try:
            stated = Verdict(
                str(data["principle"]),
                order,
                _number(data["logit"]),
                _number(data["label_mass"], 0.0, 1.0),
                invalid=str(data["invalid"]),
                reasoning=str(data.get("reasoning", "")),
            )
            p_first = _number(data["p_first"], 0.0, 1.0)
        except (KeyError, TypeError, ValueError) as error:
            self._found.add(VERDICTS, row.line, f"is damaged ({type(error).__name__}: {error})")
            return Verdict(str(data.get("principle")), order, 0.0, 0.0, invalid="damaged")
        expected = json.loads(VerdictRows(item.pair, [stated], [key]).lines())
        if odd := first_apart(expected, data):
            self._found.add(VERDICTS, row.line, f"is no verdict as runs keep it: {odd}")
        if data.get("request") != key.hex():
            self._found.add(
                VERDICTS, row.line, "`request` is not the address of the prompt that the row gives"
            )
        if abs(p_first - sigmoid(stated.logit)) > ROUNDED:
            self._found.add(VERDICTS, row.line, f"p_first {p_first} is not that of its logit")
        if key not in known:
            self._found.uncached += not stated.invalid
            return stated
        settings = self._task.settings
        kept = read_verdict(
            ChoiceResult("", known[key].logprobs),
            principle=stated.principle,
            order=order,
            floor=settings.label_mass_floor,
            reasoning=known[key].reasoning,
        )
        apart = max(abs(kept.logit - stated.logit), abs(kept.label_mass - stated.label_mass))
        if apart > ROUNDED or kept.invalid != stated.invalid or kept.reasoning != stated.reasoning:
            self._found.add(
                VERDICTS,
                row.line,
                f"the verdict cache has another answer (log-odds {kept.logit:.5f}"
                f"{'; ' + kept.invalid if kept.invalid else ''})",
            )
            return stated
        return kept

    def _check_label(
        self, item: PlannedPair, label: RunRow | None, verdicts: list[Verdict]
    ) -> None:
        """Whether the row is what the verdicts come to; counts what they come to."""
        assert item.pair is not None
        left = len(item.questions) - len(verdicts)
        ways = self._preferences(item, verdicts, stopped=left > 0)
        fits = next(ways)
        apart = self._is_row(item, label, fits)
        if apart:
            fits = next((way for way in ways if not self._is_row(item, label, way)), fits)
            apart = self._is_row(item, label, fits)
        self.tally.add(fits, verdicts, spared=left)
        self.tally.add_origins(item.pair.origins, item.pair.row)
        self.tally.prompt_injection += bool(item.prompt_injection)
        if apart and label is not None:
            self._found.add(label.file, label.line, f"does not follow from its verdicts: {apart}")

    def _is_row(self, item: PlannedPair, label: RunRow | None, preference: Preference) -> str:
        """Where a row is not the preference's; "" for nowhere."""
        assert item.pair is not None
        if label is None:
            return "there is none"
        decided = preference.status == "decided"
        file = PREFERENCES if decided else UNDECIDED
        expected = label_row(item.pair, preference, self._task.stamp, item.prompt_injection)
        expected = json.loads(json.dumps(expected))
        return f"belongs into {file}" if file != label.file else first_apart(expected, label.data)

    def _preferences(
        self, item: PlannedPair, verdicts: list[Verdict], *, stopped: bool
    ) -> Iterator[Preference]:
        """What the verdicts come to; also with thresholds as far off as verdicts are rounded."""
        assert item.pair is not None
        if item.settled is not None:
            yield item.settled
            return
        scores = score_pair(item.pair, item.principles, verdicts, asked_only=stopped)
        aggregator = self._task.aggregator
        yield aggregator.preference(scores)
        own = aggregator.settings
        for clear in (-ROUNDED, ROUNDED):
            for tie in (-ROUNDED, ROUNDED):
                moved = own.model_copy(
                    update={
                        "clear_margin": own.clear_margin + clear,
                        "tie_margin": own.tie_margin + tie,
                    }
                )
                found = replace(aggregator, settings=moved).preference(scores)
                yield replace(
                    found,
                    reason=found.reason.replace(f"{moved.tie_margin:g}", f"{own.tie_margin:g}"),
                )

    def _is_drawn(self, verdict: Verdict) -> bool:
        """Whether an answer comes out otherwise each time: a reasoning, or a chat server's votes.

        Of no other judge: a text put into a row keeps nobody from asking again.
        """
        voted = bool(verdict.reasoning) or _DRAWN in verdict.invalid
        several = self._renderer.reasons or bool(self._renderer.scores)
        return several or (voted and self._may_vote)


def _follows_stopping(
    rule: StoppingRule | None, item: PlannedPair, answers: Mapping[int, Verdict]
) -> bool:
    """Whether the questions are those that the run's rule asks, rounded verdicts allowed."""
    pair = item.pair
    if rule is None or item.settled is not None or pair is None:
        return True
    own = rule.aggregation
    return any(
        follows_stages(
            replace(
                rule,
                aggregation=own.model_copy(
                    update={
                        "clear_margin": own.clear_margin + off,
                        "tie_margin": own.tie_margin + off,
                    }
                ),
            ),
            pair,
            item.principles,
            questions=item.questions,
            answers=answers,
        )
        for off in (0.0, -ROUNDED, ROUNDED)
    )


def _ask_again(sample: list[_Asked], engine: Engine, found: Verification, floor: float) -> None:
    """Put questions to the judge once more, and hold its answers against the run's."""
    requests = {str(k): asked for k, asked in enumerate(sample)}
    ordered = (replace(asked.request, id=name) for name, asked in requests.items())
    for results in engine.run(ordered):
        for result in results:
            asked = requests[result.id]
            found.asked += 1
            assert not isinstance(result, GenerationResult)
            told = read_verdict(
                result,
                principle=asked.verdict.principle,
                order=asked.verdict.order,
                floor=floor,
            )
            if asked.verdict.invalid:
                _check_unanswered(asked, told, found, floor)
                continue
            if told.invalid:
                found.add(VERDICTS, asked.line, f"the judge gives no such answer ({told.invalid})")
                continue
            assert isinstance(result, ChoiceResult)
            if result.evidence != asked.verdict.reasoning:
                found.add(VERDICTS, asked.line, "`reasoning` is not what the judge's engine says")
            apart = abs(told.logit - asked.verdict.logit)
            moved = abs(sigmoid(told.logit) - sigmoid(asked.verdict.logit))
            if moved > LEAST_SHIFT:
                found.largest = max(found.largest, apart)
            if apart > found.tolerance and moved > LEAST_SHIFT:
                found.add(
                    VERDICTS,
                    asked.line,
                    f"the judge answers otherwise (log-odds {told.logit:.4f}, not "
                    f"{asked.verdict.logit:.4f})",
                )


def _check_unanswered(asked: _Asked, told: Verdict, found: Verification, floor: float) -> None:
    """Whether the judge has an answer to a question that the run calls unanswered."""
    if told.invalid:
        return
    said = asked.verdict.invalid
    if "label mass" in said or "tokens; the limit" in said:
        # What decides these is the judge's own, and the same whenever it is asked.
        if told.label_mass > floor + found.tolerance * floor:
            what = f"the judge answers this (log-odds {told.logit:.4f}), which is called {said!r}"
            found.add(VERDICTS, asked.line, what)
    else:
        found.answered_now += 1


def _check_manifest(
    run: Path, manifest: Mapping[str, Any], job: LabelJob, found: Verification
) -> None:
    """Whether the manifest says what every finished run's says."""
    sizes = manifest.get("bytes")
    for name in ROW_FILES:
        if (run / name).exists() and not (isinstance(sizes, dict) and name in sizes):
            found.add("manifest.json", 0, f"does not say how large {name} was in the end")
    judges = manifest.get("judges")
    expected = text_origins(job.settings.judge)
    if judges != json.loads(json.dumps(expected)):
        found.add("manifest.json", 0, "does not name the judge and its license as they are")


def _check_counts(
    run: Path, manifest: Mapping[str, Any], tally: Tally, found: Verification
) -> None:
    stated, expected = dict(manifest["counts"]), dump_tally(tally)
    if len(tally.reasons) >= MOST_REASONS or len(tally.origins) >= MOST_ORIGINS:
        for name in ("reasons", "numbers", "origins"):  # the rest counts as "other"
            stated.pop(name, None)
            expected.pop(name)
    few = 2 + tally.pairs // 1000 if found.uncached else 0
    for name in list(dict.fromkeys([*expected, *stated])):
        exact = name not in _ROUNDED_COUNTS
        one, two = ({name: c[name]} if name in c else {} for c in (expected, stated))
        apart = counts_apart(one, two, few=0 if exact else few)
        if apart:
            found.add("manifest.json", 0, f"its counts are not those of the rows: {apart}")
    journal = run / JOURNAL
    if journal.exists():
        try:
            rows = json.loads(journal.read_text(encoding="utf-8"))["rows"]
        except (ValueError, KeyError, TypeError, RecursionError):
            rows = None
        if rows != found.rows:
            found.add(JOURNAL, 0, f"tells of {rows} rows, and there are {found.rows}")


_DRAWN = "answers can be read"
"""In the reason of a verdict whose votes all said nothing."""
_ROUNDED_COUNTS = ("margins", "principles")
"""Counts of numbers that may fall on either side of a bound when they are rounded."""


def _number(value: Any, least: float = -math.inf, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:40]!r} is no number")
    if not (math.isfinite(value) and least - ROUNDED <= value <= most + ROUNDED):
        raise ValueError(f"{value} is out of range")
    return float(value)


def _name(row: int, pair: str) -> str:
    return f"row {row} ({pair})" if pair else f"row {row}"

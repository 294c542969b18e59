"""The labeling loop: rows stream in, judge requests stream out, finished pairs are written.

Rows are read, tokenized and planned ahead of the judge, window by window; within a window the
requests walk the tree of their prefixes.  Pairs are written in input order.  The engine pulls
requests from a generator, so what is open at any time is bounded.  A preference is written after
the answers that it rests on are in the verdict cache.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from rlaif.constitution.schema import Constitution
from rlaif.data.sources import RowsInOrder
from rlaif.engines.base import Engine
from rlaif.errors import RlaifError
from rlaif.judging.early_stopping import JudgedPair, StoppingRule
from rlaif.judging.prefix_order import BlockCache, TokenCount, common_length, walk
from rlaif.judging.rendering import Branches, Renderer
from rlaif.judging.scoring import score_pair
from rlaif.judging.thinking import after_thinking
from rlaif.judging.verdicts import mean_of_samples, read_verdict
from rlaif.labeling.calibration import Aggregator
from rlaif.labeling.planner import PlannedPair, Planner, window_questions
from rlaif.labeling.settings import LabelSettings
from rlaif.labeling.usage import UsageMeter
from rlaif.records import (
    ChoiceRequest,
    ChoiceResult,
    Failure,
    GenerationResult,
    Request,
    Result,
)
from rlaif.runs.directory import JOURNAL, RowSink, RunDirectory
from rlaif.runs.rows import preference_row, rejected_row, undecided_row, verdict_lines
from rlaif.runs.tally import Tally, dump_tally, load_tally
from rlaif.runs.writer import RunWriter
from rlaif.store.verdict_cache import AnswerStore, CachedAnswer
from rlaif.templates.judge import JudgeTemplate
from rlaif.util.gc import ThrottledGC
from rlaif.util.hashing import digest
from rlaif.util.prefetch import Prefetcher

MOST_OPEN_PAIRS = 2048
WINDOWS_AHEAD = 2
MOST_TAILS = 4096
MOST_FAILURES = 10_000
"""Failed questions remembered, so that their duplicates are not asked to fail again."""
CHECKPOINT_SECONDS = 0.5


@dataclass
class LabelProgress:
    """How far a run is.

    Attributes:
        rows: input rows finished, in this process and before it.
        verdicts: judge answers in this process, from the cache or not.
        cached: those from the cache or shared with an equal question of this run.
        seconds: since this process began to judge.
    """

    rows: int = 0
    verdicts: int = 0
    cached: int = 0
    seconds: float = 0.0


class Labeler:
    """Labels one source into one run directory.

    Args:
        stamp: provenance that every row carries (constitution, judge, template).
        on_progress: called after every batch of answers.
        known: what the engine's prefix cache holds from earlier runs; default: nothing.
        aggregation: from opinions to preferences; default: by `settings.aggregation`, uncalibrated.
        stopping: when a pair needs no more questions; default: all are asked.
        observe: told every judged pair with its verdicts.
        spending: counts what it costs; default: from now on, for `run`.

    Attributes:
        progress: how far the run is.
        tokens: of the questions asked in this process, as planned (reasoning comes on top).
    """

    def __init__(
        self,
        *,
        engine: Engine,
        cache: AnswerStore,
        run: RowSink,
        constitution: Constitution,
        template: JudgeTemplate,
        settings: LabelSettings,
        stamp: dict[str, str],
        on_progress: Callable[[LabelProgress], None] = lambda _: None,
        known: BlockCache | None = None,
        aggregator: Aggregator | None = None,
        stopping: StoppingRule | None = None,
        observe: Callable[[JudgedPair], None] | None = None,
        usage: UsageMeter | None = None,
    ) -> None:
        self._engine = engine
        self._cache = cache
        self._run = run
        self._constitution = constitution
        self._settings = settings
        self._aggregator = aggregator or Aggregator(settings.aggregation)
        self._stamp = stamp
        self._on_progress = on_progress
        self._renderer = Renderer(template, engine.codec)
        manner = self._describe_manner(template)
        self._planner = Planner(
            constitution=constitution,
            renderer=self._renderer,
            settings=settings,
            manner=manner,
            stopping=stopping,
            most_questions=window_questions(engine.sharing),
        )
        self._stopping = stopping
        self._observe = observe
        # Pairs whose next group of questions is to be asked.
        self._again: deque[PlannedPair] = deque()
        self._queue: deque[PlannedPair] = deque()
        self._waiting: dict[bytes, list[tuple[PlannedPair, int]]] = {}
        self._asked: dict[str, tuple[bytes, ChoiceRequest]] = {}
        self._written: dict[str, str] = {}
        self._ready: deque[Request] = deque()
        # Answers that the cache may not know yet, by the batch of the writer they went into.
        self._fresh: dict[bytes, CachedAnswer] = {}
        self._failed: dict[bytes, Failure] = {}
        self._uncommitted: deque[tuple[int, list[bytes]]] = deque()
        self._last: tuple[list[int], list[int]] = ([], [])
        self._tails: dict[tuple[int, int], tuple[list[int], list[int], int]] = {}
        self._sharing = engine.sharing
        self._known = known or block_cache(engine)
        self._samples: dict[str, dict[int, tuple[ChoiceResult | Failure, str]]] = {}
        self._next_request = 0
        self._checkpointed = time.monotonic()
        self.usage = usage or UsageMeter(run, engine)
        self._tally = tally_of(run)
        self.progress = LabelProgress(rows=self._tally.rows)
        self.tokens = TokenCount()

    def label(self, source: RowsInOrder, first: int = 0) -> Tally:
        """Judge every row of `source` that the run has not finished yet; the tally at the end.

        Args:
            first: the number of the source's first row in the whole input, from 0.
        """
        with closing(RunWriter(self._cache, self._run)) as self._writer, ThrottledGC() as garbage:
            try:
                for results in self._engine.run(self._requests(source, first)):
                    self._take(results)
                    self._report()
                    garbage.maybe_collect()
            finally:
                self.usage.keep()
            assert not self._queue, "a pair was left without all its verdicts"
            self._checkpoint()
        return self._tally

    @property
    def reasons(self) -> bool:
        """Whether the judge writes before it answers: its tokens can't be told beforehand."""
        return self._renderer.reasons

    def _requests(self, source: RowsInOrder, first: int) -> Iterator[Request | None]:
        windows = self._planner.windows(source, first + self._tally.rows, first)
        planned = Prefetcher(windows, WINDOWS_AHEAD)
        try:
            while True:
                while len(self._queue) >= MOST_OPEN_PAIRS:
                    yield self._later()
                window = planned.poll(wait=not self._waiting)
                if window is not None:
                    yield from self._ask(window)
                elif planned.exhausted:
                    break
                else:
                    yield self._later()
            while self._queue:
                yield self._later()
        finally:
            planned.close()

    def _later(self) -> Request | None:
        """What is to be asked while nothing new is planned: what follows on answers, or nothing."""
        while not self._ready and self._again:
            self._follow_up()
        return self._ready.popleft() if self._ready else None

    def _follow_up(self) -> None:
        """Make ready the next groups of questions of pairs whose last group is answered."""
        items = list(self._again)
        self._again.clear()
        branches = [(item, branch) for item in items for branch in item.branches]
        for n in walk([branch.path for _, branch in branches]):
            item, branch = branches[n]
            for i, tail in branch.tails:
                if i in item.stages[item.stage]:
                    self._ready += self._put(item, i, branch, tail)
        self._flush()

    def _ask(self, window: list[PlannedPair]) -> Iterator[Request]:
        """Requests for what neither the cache nor a request in flight answers."""
        while self._uncommitted and self._uncommitted[0][0] <= self._writer.committed:
            for key in self._uncommitted.popleft()[1]:
                self._fresh.pop(key, None)
        known = self._fresh | self._cache.get([key for item in window for key in item.keys])
        for item in window:
            self._queue.append(item)
            for i, key in enumerate(item.keys):
                if key in known:
                    item.known[i] = known[key]
            self._recall(item)
        self._flush()
        branches = [(item, branch) for item in window for branch in item.branches]
        for n in walk([branch.path for _, branch in branches]):
            item, branch = branches[n]
            for i, tail in branch.tails:
                if item.stopped or i not in item.stages[item.stage]:
                    continue
                while (later := self._later()) is not None:
                    yield later
                yield from self._put(item, i, branch, tail)
        if self._stopping is None:
            for item in window:
                item.branches.clear()  # their tokens are not needed any more
        self._flush()

    def _put(
        self, item: PlannedPair, i: int, branch: Branches, tail: list[int]
    ) -> Iterator[Request]:
        """Requests for a question, unless its answer is known or under way."""
        key = item.keys[i]
        if i in item.answers or i in item.pending:
            return
        item.pending.add(i)
        if key in self._waiting:
            self._waiting[key].append((item, i))
        elif key in self._fresh:
            answer = self._fresh[key]
            result = ChoiceResult("", answer.logprobs)
            self._answer(item, i, result, answer.reasoning, cached=True)
            self._go_on(item)
        elif key in self._failed:
            self._answer(item, i, self._failed[key], "", cached=True)
            self._go_on(item)
        else:
            request = self._request(branch, tail)
            self._waiting[key] = [(item, i)]
            self._asked[request.id] = (key, request)
            if self._renderer.reasons:
                yield from self._reasonings(request, key)
            else:
                yield request

    def _recall(self, item: PlannedPair) -> None:
        """Answer the group that is being asked from the cache, and those after it."""
        while item.stages:
            for i in item.stages[item.stage]:
                if i in item.known and i not in item.answers:
                    answer = item.known[i]
                    result = ChoiceResult("", answer.logprobs)
                    self._answer(item, i, result, answer.reasoning, cached=True)
            if not item.turn(self._stopping):
                break

    def _go_on(self, item: PlannedPair) -> None:
        """After an answer: the next group is asked once this one is complete."""
        if item.turn(self._stopping):
            self._recall(item)
            if not item.complete:
                self._again.append(item)

    def _reasonings(self, request: ChoiceRequest, key: bytes) -> Iterator[Request]:
        """What lets the judge reason about a question: once, or several times by chance."""
        s = self._settings
        if s.reasoning_samples == 1:
            yield self._renderer.reasoning(request, s.reasoning_tokens)
            return
        for sample in range(s.reasoning_samples):
            one = replace(request, id=f"{request.id}/{sample}")
            self._asked[one.id] = (key, one)
            seed = (int.from_bytes(key[-4:], "big") + s.seed + sample) % (1 << 31)
            yield self._renderer.reasoning(one, s.reasoning_tokens, s.reasoning_temperature, seed)

    def _request(self, branch: Branches, tail: list[int]) -> ChoiceRequest:
        self._next_request += 1
        context, before = self._last
        if context is branch.context:
            shared = len(context) + self._shared_by_tails(before, tail)
        else:
            shared = common_length(context + before, branch.context + tail)
        self._last = branch.context, tail
        ids = branch.context + tail
        if len(ids) <= self._engine.max_prompt_tokens:
            self.tokens.add(len(ids), shared, self._spared(branch.context, tail, shared))
        return ChoiceRequest(str(self._next_request), ids, self._renderer.label_ids, shared)

    def _shared_by_tails(self, before: list[int], tail: list[int]) -> int:
        """Leading tokens that two tails share; the same two follow each other in every context."""
        key = (id(before), id(tail))
        found = self._tails.get(key)
        if found is None:
            if len(self._tails) >= MOST_TAILS:
                self._tails.clear()
            # Kept together with the lists, so that no other list gets their identity.
            found = self._tails[key] = (before, tail, common_length(before, tail))
        return found[2]

    def _spared(self, context: list[int], tail: list[int], shared: int) -> int:
        """Tokens of a prompt that the engine is going to spare."""
        if self._sharing is None:
            return 0
        if self._known is not None:
            return self._known.spares(context, tail)
        return min(shared, len(context) + len(tail) - 1)

    def _take(self, results: list[Result]) -> None:
        final = [r for r in map(self._advance, results) if r is not None]
        answers = [
            (self._asked[r.id][0], CachedAnswer(r.logprobs, self._written.get(r.id, "")))
            for r in final
            if isinstance(r, ChoiceResult)
        ]
        self._uncommitted.append((self._writer.answers(answers), [key for key, _ in answers]))
        self._fresh.update(answers)
        for result in final:
            key, _ = self._asked.pop(result.id)
            if isinstance(result, Failure):
                if len(self._failed) >= MOST_FAILURES:
                    self._failed.clear()
                self._failed[key] = result
            reasoning = self._written.pop(result.id, "")
            for n, (item, i) in enumerate(self._waiting.pop(key)):
                self._answer(item, i, result, reasoning, cached=n > 0)
                self._go_on(item)
        self._flush()
        self._writer.hand_over()

    def _advance(self, result: Result) -> ChoiceResult | Failure | None:
        """A result as it is, or None where reasoning is done and the answer is still to be read."""
        if not isinstance(result, GenerationResult):
            return self._sampled(result)
        self.usage.wrote(len(result.token_ids))
        if not result.finished:
            most = self._settings.reasoning_tokens
            return self._sampled(Failure(result.id, f"reasoning was cut at {most} tokens"))
        text = self._renderer.text(result)
        if after_thinking(text) is None:
            return self._sampled(Failure(result.id, "the judge's thinking never ended"))
        self._written[result.id] = text
        question = self._asked[result.id][1]
        self._ready.append(self._renderer.after_reasoning(question, result))
        return None

    def _sampled(self, result: ChoiceResult | Failure) -> ChoiceResult | Failure | None:
        """With several samples of a question: their mean once all are there, else None."""
        whole, slash, number = result.id.partition("/")
        if not slash:
            return result
        self._asked.pop(result.id)
        came = self._samples.setdefault(whole, {})
        came[int(number)] = result, self._written.pop(result.id, "")
        if len(came) < self._settings.reasoning_samples:
            return None
        # In the order in which they were asked: that in which they came is the engine's.
        samples = [sample for _, sample in sorted(self._samples.pop(whole).items())]
        self._written[whole] = "\n\n".join(text for _, text in samples if text)
        return mean_of_samples(whole, [found for found, _ in samples])

    def _describe_manner(self, template: JudgeTemplate) -> str:
        """What an answer depends on beside its prompt: the model and, with it, how it reasons."""
        if not self._renderer.reasons:
            return self._engine.fingerprint
        s = self._settings
        manner = [self._engine.fingerprint, template.answer, s.reasoning_tokens]
        if s.reasoning_samples > 1:
            manner += [s.reasoning_samples, s.reasoning_temperature, s.seed]
        return digest(manner)

    def _answer(
        self,
        item: PlannedPair,
        index: int,
        result: ChoiceResult | Failure,
        reasoning: str,
        *,
        cached: bool,
    ) -> None:
        question = item.questions[index]
        item.answers[index] = read_verdict(
            result,
            principle=question.principle.id,
            order=question.order,
            floor=self._settings.label_mass_floor,
            clamp=self._settings.reasoning_clamp if self._renderer.reasons else 1.0,
            cached=cached,
            reasoning=reasoning,
        )
        self.progress.verdicts += 1
        self.progress.cached += cached

    def _flush(self) -> None:
        """Write the finished pairs at the head of the queue."""
        while self._queue and self._queue[0].complete:
            item = self._queue.popleft()
            if item.rejected is not None:
                self._writer.row("rejected.jsonl", rejected_row(item.rejected))
                self._tally.add_rejected()
            else:
                self._write(item)
            if item.ends_row:
                self._tally.rows += 1
                self.progress.rows = self._tally.rows
                if time.monotonic() - self._checkpointed > CHECKPOINT_SECONDS:
                    self._checkpoint()

    def _write(self, item: PlannedPair) -> None:
        assert item.pair is not None
        asked = [i for i in range(len(item.questions)) if i in item.answers]
        verdicts = [item.answers[i] for i in asked]
        if item.settled is not None:
            preference = item.settled
        else:
            scores = score_pair(item.pair, item.principles, verdicts, asked_only=item.stopped)
            preference = self._aggregator.preference(scores)
        if verdicts:
            keys = [item.keys[i] for i in asked]
            self._writer.row("verdicts.jsonl", verdict_lines(item.pair, verdicts, keys))
        if self._observe is not None and item.settled is None:
            self._observe(JudgedPair(item.pair, item.principles, item.questions, verdicts))
        if preference.status == "decided":
            row = preference_row(item.pair, preference, self._stamp, item.prompt_injection)
            self._writer.row("preferences.jsonl", row)
        else:
            row = undecided_row(item.pair, preference, self._stamp, item.prompt_injection)
            self._writer.row("undecided.jsonl", row)
        self._tally.add(preference, verdicts, spared=len(item.questions) - len(asked))
        self._tally.add_origins(item.pair.origins, item.pair.row)
        self._tally.prompt_injection += bool(item.prompt_injection)

    def _checkpoint(self) -> None:
        """Journal the state; called only between two rows."""
        self._writer.checkpoint(rows=self._tally.rows, tally=dump_tally(self._tally))
        self._checkpointed = time.monotonic()

    def _report(self) -> None:
        self.usage.save_periodically()
        self.progress.seconds = self.usage.here
        self._on_progress(self.progress)


def block_cache(engine: Engine) -> BlockCache | None:
    """A model of the engine's prefix cache, empty; None if it has none."""
    if engine.sharing is None or not engine.sharing.capacity:
        return None
    return BlockCache(engine.sharing.block, engine.sharing.capacity)


def tally_of(run: RowSink) -> Tally:
    """How far a run is.

    Raises:
        RlaifError: its journal is damaged.
    """
    try:
        return load_tally(run.journal["tally"] or {})
    except ValueError:
        path = run.path / JOURNAL if isinstance(run, RunDirectory) else JOURNAL
        raise RlaifError(
            f"{path} is damaged",
            hint="Delete it: the run is folded again from the verdict cache.",
        ) from None

"""The labeling loop: rows stream in, judge requests stream out, finished pairs are written.

Rows are read, tokenized and planned ahead of the judge, window by window; within a window the
requests walk the tree of their prefixes.  The engine pulls requests from a generator, so what is
open at any time is bounded.  Pairs are written in input order, after the answers that they rest
on are in the verdict cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import cast

from rlaif.data.sources import RowsInOrder
from rlaif.engines.base import Engine
from rlaif.engines.registry import has_tokens, open_pairs
from rlaif.errors import RlaifError
from rlaif.judging.early_stopping import JudgedPair, StoppingRule
from rlaif.judging.prefix_order import BlockCache, TokenCount, walk
from rlaif.judging.rendering import Branches, Renderer
from rlaif.judging.verdicts import read_verdict
from rlaif.labeling.asking import Asker
from rlaif.labeling.budget import Budget
from rlaif.labeling.first_look import FirstLook
from rlaif.labeling.in_flight import InFlight, JudgeReply
from rlaif.labeling.planner import PlannedPair, Planner, window_questions
from rlaif.labeling.reasoning import ReasoningSampler
from rlaif.labeling.run_output import RunOutput, load_run_tally
from rlaif.labeling.task import LabelTask, describe_manner
from rlaif.labeling.token_accounting import TokenAccounting
from rlaif.labeling.usage import UsageMeter
from rlaif.records import (
    AnyRequest,
    ChoiceResult,
    Failure,
    GenerationResult,
    Request,
    Result,
)
from rlaif.runs.cost import Prices
from rlaif.runs.directory import RowSink
from rlaif.runs.tally import Tally
from rlaif.runs.writer import RunWriter
from rlaif.store.verdict_cache import AnswerStore
from rlaif.util.gc import ThrottledGC
from rlaif.util.prefetch import Prefetcher

MAX_OPEN_PAIRS = 2048
WINDOWS_AHEAD = 2


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
    """Labels one source into one run directory; `label` is called once.

    Args:
        on_progress: called after every batch of answers.
        known: what the engine's prefix cache holds from earlier runs; default: nothing.
        stopping: when a pair needs no more questions; default: all are asked.
        observe: told every judged pair with its verdicts.
        usage: counts what it costs; default: from now on, for `run`.
        prices: with what the run may cost; default: any amount.

    Attributes:
        progress: how far the run is.
    """

    def __init__(
        self,
        task: LabelTask,
        engine: Engine,
        cache: AnswerStore,
        run: RowSink,
        *,
        on_progress: Callable[[LabelProgress], None] = lambda _: None,
        known: BlockCache | None = None,
        stopping: StoppingRule | None = None,
        observe: Callable[[JudgedPair], None] | None = None,
        usage: UsageMeter | None = None,
        prices: Prices | None = None,
    ) -> None:
        self._task, self._engine, self._cache, self._run = task, engine, cache, run
        self._on_progress, self._stopping, self._observe = on_progress, stopping, observe
        self._renderer = Renderer(task.template, engine.codec, task.settings.shots)
        self._planner = Planner(
            constitution=task.constitution,
            renderer=self._renderer,
            settings=task.settings,
            manner=describe_manner(engine.fingerprint, task, self._renderer.reasons),
            stopping=stopping,
            most_questions=window_questions(engine.sharing),
            most_tokens=engine.max_prompt_tokens,
        )
        self._accounting = TokenAccounting(engine, known)
        self._look = FirstLook(task.check_command) if task.check_command else None
        self._tally = load_run_tally(run)
        self.usage = usage or UsageMeter(run, engine)
        self.progress = LabelProgress(rows=self._tally.rows)
        # Pairs whose next group of questions is to be asked, and requests that are ready.
        self._advanced: deque[PlannedPair] = deque()
        self._ready: deque[AnyRequest] = deque()
        # A chat server's tokens are counted by the engine, as the server tells them.
        self._counts_written = has_tokens(task.settings.judge)
        self._most_open = open_pairs(task.settings.judge) or MAX_OPEN_PAIRS
        self._budget = Budget(prices or Prices(), self.usage)

    @property
    def tokens(self) -> TokenCount:
        """Of the questions asked in this process, as planned (reasoning comes on top)."""
        return self._accounting.tokens

    @property
    def reasons(self) -> bool:
        """Whether the judge writes before it answers: its tokens can't be told beforehand."""
        return self._renderer.reasons

    def label(self, source: RowsInOrder, first: int = 0) -> Tally:
        """Judge every row of `source` that the run has not finished yet; the tally at the end.

        Args:
            first: the number of the source's first row in the whole input, from 0.
        """
        with closing(RunWriter(self._cache, self._run)) as self._writer, ThrottledGC() as garbage:
            self._in_flight = InFlight(self._cache, self._writer)
            self._sampler = ReasoningSampler(self._renderer, self._task.settings, self._in_flight)
            self._asker = Asker(
                self._renderer,
                self._accounting,
                in_flight=self._in_flight,
                sampler=self._sampler,
                together=getattr(self._engine, "takes_contexts", False),
                on_recall=self._recall,
            )
            self._output = RunOutput(self._task, self._writer, self._tally, self._observe)
            try:
                asked = self._budget.limit(self._schedule(source, first))
                for results in self._engine.run(cast("Iterator[Request | None]", asked)):
                    self._budget.note_answers(len(results))
                    self._take(results)
                    self._report()
                    garbage.maybe_collect()
            finally:
                self.usage.save()
            self._budget.check(self._tally.rows)
            assert not self._output, "a pair was left without all its verdicts"
            self._output.checkpoint()
            self.progress.rows = self._tally.rows
        return self._tally

    def _schedule(self, source: RowsInOrder, first: int) -> Iterator[AnyRequest | None]:
        """Requests, as the engine asks for them; None while there is nothing to ask."""
        windows = self._planner.windows(source, first + self._tally.rows, first)
        planned = Prefetcher(windows, WINDOWS_AHEAD)
        try:
            while True:
                while len(self._output) >= self._most_open:
                    yield self._next_ready()
                window = planned.poll(wait=not self._in_flight)
                if window is not None:
                    yield from self._open(window)
                elif planned.exhausted:
                    break
                else:
                    yield self._next_ready()
            while self._output:
                yield self._next_ready()
        finally:
            planned.close()

    def _next_ready(self) -> AnyRequest | None:
        """What follows on answers, while nothing new is planned; None for nothing."""
        while not self._ready and self._advanced:
            items = list(self._advanced)
            self._advanced.clear()
            for item, branch in self._walk(items):
                self._ready += self._asker.ask(item, branch)
            self._output.flush()
        return self._ready.popleft() if self._ready else None

    def _open(self, window: list[PlannedPair]) -> Iterator[AnyRequest]:
        """Requests for what neither the cache nor a request in flight answers."""
        known = self._in_flight.look_up([key for item in window for key in item.keys])
        for item in window:
            self._output.add(item)
            for i, key in enumerate(item.keys):
                if key in known:
                    item.known[i] = known[key]
            self._answer_from_cache(item)
        self._output.flush()
        for item, branch in self._walk(window):
            asked = self._asker.ask(item, branch)
            while True:
                while (ready := self._next_ready()) is not None:
                    yield ready
                if (request := next(asked, None)) is None:
                    break
                yield request
        if self._stopping is None:
            for item in window:
                item.branches.clear()  # their tokens are not needed any more
        self._output.flush()

    def _walk(self, items: list[PlannedPair]) -> Iterator[tuple[PlannedPair, Branches]]:
        """Where questions are to be asked now, so that neighbors share prefixes."""
        branches = [(item, branch) for item in items for branch in item.branches]
        for n in walk([branch.path for _, branch in branches]):
            yield branches[n]

    def _recall(self, item: PlannedPair, index: int, reply: JudgeReply) -> None:
        """An equal question was answered since the window was looked up."""
        self._answer(item, index, reply, cached=True)
        self._advance(item)

    def _take(self, results: list[Result]) -> None:
        """Postprocess a batch of the engine's: read verdicts, write what is finished."""
        replies = []
        for result in results:
            if isinstance(result, GenerationResult) and self._counts_written:
                self.usage.add_generated(len(result.token_ids))
            found = self._sampler.advance(result)
            if isinstance(found, JudgeReply):
                replies.append(found)
            elif found is not None:
                self._ready.append(found)
        for item, index, reply, shared in self._in_flight.settle(replies):
            self._answer(item, index, reply, cached=shared)
            self._advance(item)
        for result in results:
            if isinstance(result, Failure) and result.passing:
                self._writer.hand_over()
                raise RlaifError(
                    f"the judge stopped responding ({result.reason})",
                    hint="Check its server, then rerun the same command to resume.",
                )
        self._output.flush()
        self._writer.hand_over()

    def _answer(self, item: PlannedPair, index: int, reply: JudgeReply, *, cached: bool) -> None:
        question, settings = item.questions[index], self._task.settings
        item.answers[index] = read_verdict(
            reply.result,
            principle=question.principle.id,
            order=question.order,
            floor=settings.label_mass_floor,
            cached=cached,
            reasoning=reply.reasoning,
        )
        self.progress.verdicts += 1
        self.progress.cached += cached
        if self._look is not None and question.principle.reward_model is None:
            self._look.take(item.answers[index])
            if self._look.done:
                self._look = None

    def _answer_from_cache(self, item: PlannedPair) -> None:
        """Answer the group that is being asked from the cache, and those after it."""
        while item.stages:
            for i in item.stages[item.stage]:
                if i in item.known and i not in item.answers:
                    answer = item.known[i]
                    reply = JudgeReply(ChoiceResult("", answer.logprobs), answer.reasoning)
                    self._answer(item, i, reply, cached=True)
            if not item.turn(self._stopping):
                break

    def _advance(self, item: PlannedPair) -> None:
        """After an answer: the next group is asked once this one is complete."""
        if item.turn(self._stopping):
            self._answer_from_cache(item)
            if not item.complete:
                self._advanced.append(item)

    def _report(self) -> None:
        self.usage.save_periodically()
        self.progress.rows = self._tally.rows
        self.progress.seconds = self.usage.seconds_here
        self._on_progress(self.progress)

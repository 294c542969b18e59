"""A judge that answers whoever asks, from any thread, batched together.

The engine has a thread of its own.  Questions are tokenized in a second one, ahead of it, and go
into the running batch as they come; nobody waits for a batch to fill up or to end.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from typing import Any, TypeVar, cast

from rlaif.engines.base import Engine, EngineSettings, EngineStats
from rlaif.engines.roles import start_engines
from rlaif.errors import RlaifError
from rlaif.generation.conversations import (
    Conversation,
    ConversationCounts,
    ConversationModel,
    ConversationRows,
    ConversationRunner,
    PartialRows,
    Query,
    Reply,
)
from rlaif.runs.context import RunContext
from rlaif.store.text_cache import TextCache
from rlaif.store.verdict_cache import VerdictCache
from rlaif.util.prefetch import Prefetcher

Answered = TypeVar("Answered")
Questions = Generator[list[Query], list[Reply], Answered]
"""A conversation that returns what its asker wants to know."""
PRIMED_AHEAD = 64


class QueueFull(RlaifError):
    """Too much is waiting already."""


class ServiceStopped(RlaifError):
    """The engine has died, or was closed."""


class Service:
    """Runs models and drives the conversations that are put to them.

    Args:
        models: by role; equal settings share one engine.
        context: where answers are kept, and who is told of starting engines.
        most_waiting: questions (conversations) that may be under way before `submit` refuses.

    Raises:
        RlaifError: an engine can't start, or a cache can't be opened.
    """

    def __init__(
        self,
        models: Mapping[str, EngineSettings],
        context: RunContext = RunContext(),
        *,
        most_waiting: int | None = None,
    ) -> None:
        self._models = dict(models)
        self._context = context
        self.most_waiting = most_waiting
        self._incoming: queue.Queue[Conversation | None] = queue.Queue()
        # Guards what the counters say and whether anything is taken still.
        self._lock = threading.Lock()
        # Conversations render and tokenize; those of one service do so one at a time.
        self._rendering = threading.Lock()
        self._open: set[Future[Any]] = set()
        self._closed = False
        self._problem: BaseException | None = None
        self._ready: Future[None] = Future()
        self._engines: list[Engine] = []
        self.counts = ConversationCounts()
        self._thread = threading.Thread(target=self._work, name="rlaif-judge", daemon=True)
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            self._thread.join()
            raise

    @property
    def waiting(self) -> int:
        """Conversations under way."""
        return len(self._open)

    @property
    def problem(self) -> BaseException | None:
        """What stopped the engine, if anything did."""
        return self._problem

    def stats(self) -> EngineStats:
        """The engines' counters, together."""
        found = [engine.stats() for engine in self._engines]
        return EngineStats(
            sum(s.requests for s in found),
            sum(s.prompt_tokens for s in found),
            sum(s.cached_tokens for s in found),
            sum(s.idle_seconds for s in found),
        )

    def submit(self, questions: Questions[Answered]) -> Future[Answered]:
        """Put a conversation to the models.

        Returns:
            What the conversation returns; cancel it, and what it has not asked yet is not asked.

        Raises:
            Busy: `most_waiting` conversations are under way.
            Stopped: the service is closed, or its engine has died (then also from the future).
        """
        future: Future[Answered] = Future()
        with self._lock:
            if self._problem is not None:
                raise ServiceStopped(f"the judge has stopped ({self._problem})", hint="Restart it.")
            if self._closed:
                raise ServiceStopped("the judge is closed", hint="Create a new one.")
            if self.most_waiting is not None and len(self._open) >= self.most_waiting:
                raise QueueFull(
                    f"{len(self._open)} requests are already waiting", hint="Try again later."
                )
            self._open.add(future)
        future.add_done_callback(self._forget)
        self._incoming.put(self._answering(questions, future))
        return future

    def close(self) -> None:
        """Finish what was taken, then stop the engines; safe to call twice."""
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._incoming.put(None)
        self._thread.join()

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)

    def _answering(self, questions: Questions[Answered], future: Future[Answered]) -> Conversation:
        """The conversation as the runner takes it: its result, or its error, goes to the future."""
        told: list[Reply] | None = None
        while not future.cancelled():
            try:
                with self._rendering:
                    asks = next(questions) if told is None else questions.send(told)
            except StopIteration as end:
                with suppress(Exception):  # cancelled in this very moment
                    future.set_result(end.value)
                break
            except Exception as error:
                with suppress(Exception):
                    future.set_exception(error)
                break
            told = yield asks
        return []

    def _primed(self) -> Iterator[Conversation]:
        """Conversations with their first questions ready."""
        while True:
            conversation = self._incoming.get()
            if conversation is None:
                return
            try:
                asks = next(conversation)
            except StopIteration:
                continue
            yield _go_on(asks, conversation)

    def _work(self) -> None:
        try:
            with ExitStack() as stack:
                runner = self._start(stack)
                self._ready.set_result(None)
                coming = Prefetcher(self._primed(), PRIMED_AHEAD)
                stack.callback(coming.close)
                runner.run(coming)
        except BaseException as error:  # told to whoever waits
            if not self._ready.done():
                self._ready.set_exception(error)
                return
            with self._lock:
                self._problem = error
                left = list(self._open)
            told = ServiceStopped(f"the judge has stopped ({error})", hint="Restart it.")
            for future in left:
                with suppress(Exception):
                    future.set_exception(told)

    def _start(self, stack: ExitStack) -> ConversationRunner:
        texts = stack.enter_context(closing(TextCache(self._context.texts_path)))
        verdicts = stack.enter_context(closing(VerdictCache(self._context.verdicts_path)))
        engines = start_engines(self._models, stack, self._context.on_engine)
        self._engines = list({id(engine): engine for engine in engines.values()}.values())
        workers = {role: ConversationModel(e.fingerprint, e) for role, e in engines.items()}
        runner = ConversationRunner(workers, texts, verdicts, on_rows=_nothing, ordered=False)
        self.counts = runner.counts
        return runner


def _nothing(rows: ConversationRows) -> None:
    assert not rows


def _go_on(asks: list[Query] | PartialRows, conversation: Conversation) -> Conversation:
    """The conversation from its first questions on."""
    told = yield asks
    while True:
        try:
            asks = conversation.send(told)
        except StopIteration as end:
            return cast(ConversationRows, end.value)
        told = yield asks

"""A judge that answers whoever asks, from any thread, batched together.

The engine has a thread of its own.  Questions are tokenized in a second one, ahead of it, and go
into the running batch as they come; nobody waits for a batch to fill up or to end.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
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
from rlaif.records import Failure
from rlaif.runs.context import RunContext
from rlaif.store.lenient import LenientTexts, LenientVerdicts
from rlaif.store.text_cache import TextCache
from rlaif.store.verdict_cache import VerdictCache
from rlaif.util.prefetch import Prefetcher

Answered = TypeVar("Answered")
Questions = Generator[list[Query], list[Reply], Answered]
"""A conversation that returns what its asker wants to know."""
PRIMED_AHEAD = 64
_LONGEST_PAUSE = 30.0
"""Seconds between two attempts to start an engine again."""
_STEADY = 60.0
"""Seconds after which an engine that was started again counts as running."""


class QueueFull(RlaifError):
    """Too much is waiting already."""


class ServiceStopped(RlaifError):
    """The engine has died, or was closed."""


class ServiceRestarting(RlaifError):
    """The engine has died and is started again, or did not answer this time."""


@dataclass(frozen=True)
class Recovery:
    """How a service comes back from a fault.

    Attributes:
        seconds: of failed attempts, after which a dead engine is given up.
        tell: told of what failed, and of coming back.
        give_up: called when the engine is given up.
    """

    seconds: float
    tell: Callable[[str], None]
    give_up: Callable[[], None] = lambda: None


class Service:
    """Runs models and drives the conversations that are put to them.

    Args:
        models: by role; equal settings share one engine.
        context: where answers are kept, and who is told of starting engines.
        most_waiting: questions (conversations) that may be under way before `submit` refuses.
        recovery: start an engine again that died, and go on without a cache that fails; default:
            the service is over then.

    Raises:
        RlaifError: an engine can't start, or a cache can't be opened.
    """

    def __init__(
        self,
        models: Mapping[str, EngineSettings],
        context: RunContext = RunContext(),
        *,
        most_waiting: int | None = None,
        recovery: Recovery | None = None,
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
        self._restarts = _Restarts(recovery)
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

    @property
    def restarting(self) -> bool:
        """Whether the engine died and is not back yet."""
        return self._restarts.down

    def stats(self) -> EngineStats:
        """The counters of the engines that run now, together."""
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
            QueueFull: `most_waiting` conversations are under way.
            ServiceStopped: the service is closed, or its engine has died.
            ServiceRestarting: the engine has died and is started again.

        What happens to the engine later comes from the future.
        """
        future: Future[Answered] = Future()
        with self._lock:
            if self._problem is not None:
                raise ServiceStopped(f"the judge has stopped ({self._problem})", hint="Restart it.")
            if self._closed:
                raise ServiceStopped("the judge is closed", hint="Create a new one.")
            if self.restarting:
                raise ServiceRestarting("the judge is restarting", hint="Try again later.")
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
            self._restarts.closing.set()
        self._thread.join()

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)

    def _answering(self, questions: Questions[Answered], future: Future[Answered]) -> Conversation:
        """The conversation as the runner takes it: its result, or its error, goes to the future."""
        told: list[Reply] | None = None
        while not future.done():
            try:
                for reply in told or ():
                    if isinstance(reply, Failure) and reply.passing:
                        raise ServiceRestarting(
                            f"the model's server did not answer ({reply.reason})",
                            hint="Try again later.",
                        )
                with self._rendering:
                    asks = next(questions) if told is None else questions.send(told)
            except StopIteration as end:
                with suppress(Exception):  # canceled in this very moment
                    future.set_result(end.value)
                break
            except Exception as error:
                with suppress(Exception):
                    future.set_exception(error)
                break
            told = yield asks
        return []

    def _primed(self, over: threading.Event) -> Iterator[Conversation]:
        """Conversations with their first questions ready, until it is `over`."""
        while True:
            conversation = self._incoming.get()
            if over.is_set():  # somebody else reads now
                self._incoming.put(conversation)
                return
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
                texts, verdicts = self._open_caches(stack)
                while True:
                    try:
                        self._run(texts, verdicts)
                        return
                    except Exception as error:
                        if not (self._ready.done() and self._restarts.begin(error)):
                            raise
                    self._fail_open(
                        ServiceRestarting("the judge is restarting", hint="Try again later.")
                    )
                    if not self._restarts.wait():
                        return
        except BaseException as error:  # told to whoever waits
            if not self._ready.done():
                self._ready.set_exception(error)
                return
            with self._lock:
                self._problem = error
            told = ServiceStopped(f"the judge has stopped ({error})", hint="Restart it.")
            self._fail_open(told)
            self._restarts.give_up(error)

    def _fail_open(self, error: RlaifError) -> None:
        with self._lock:
            left = list(self._open)
        for future in left:
            with suppress(Exception):  # answered in this very moment
                future.set_exception(error)

    def _open_caches(self, stack: ExitStack) -> tuple[TextCache, VerdictCache]:
        where = self._context.texts_path, self._context.verdicts_path
        recovery = self._restarts.recovery
        if recovery is None:
            texts, verdicts = TextCache(where[0]), VerdictCache(where[1])
        else:
            texts = LenientTexts(where[0], recovery.tell)
            verdicts = LenientVerdicts(where[1], recovery.tell)
        return stack.enter_context(closing(texts)), stack.enter_context(closing(verdicts))

    def _run(self, texts: TextCache, verdicts: VerdictCache) -> None:
        """Start the engines and answer until the service is closed.

        Raises:
            Exception: an engine can't start, or died.
        """
        with ExitStack() as stack:
            engines = start_engines(self._models, stack, self._context.on_engine)
            self._engines = list({id(engine): engine for engine in engines.values()}.values())
            workers = {role: ConversationModel(e.fingerprint, e) for role, e in engines.items()}
            runner = ConversationRunner(
                workers,
                texts,
                verdicts,
                on_rows=_nothing,
                on_progress=lambda _: self._restarts.note_answer(),
                ordered=False,
                stops=False,
            )
            runner.counts = self.counts
            over = threading.Event()
            coming = Prefetcher(self._primed(over), PRIMED_AHEAD)
            stack.callback(coming.close)
            # So that the thread lets go of what it waits for, and does not take what comes next.
            stack.callback(self._incoming.put, _woken())
            stack.callback(over.set)
            if self._ready.done():
                self._restarts.end()
            else:
                self._ready.set_result(None)
            runner.run(coming)


class _Restarts:
    """When a dead engine is started again, and when it is given up."""

    def __init__(self, recovery: Recovery | None) -> None:
        self.recovery = recovery
        self.closing = threading.Event()
        self.down = False
        self._tries = 0
        self._answered = False
        self._since = self._up = time.monotonic()

    def note_answer(self) -> None:
        """The engine works."""
        self._answered = True

    def begin(self, error: Exception) -> bool:
        """Whether to try again after this error."""
        if self.recovery is None or self.closing.is_set():
            return False
        now = time.monotonic()
        if self._answered or not self._tries or (not self.down and now - self._up > _STEADY):
            self._since, self._tries = now, 0
        self._answered = False
        if now - self._since >= self.recovery.seconds:
            return False
        self.down = True
        self._tries += 1
        self.recovery.tell(f"the judge failed ({error}); restarting it")
        return True

    def wait(self) -> bool:
        """Pause before the next attempt; False where the service was closed meanwhile."""
        return not self.closing.wait(min(_LONGEST_PAUSE, 2.0 ** (self._tries - 2)))

    def end(self) -> None:
        """The engine runs again."""
        self.down, self._up = False, time.monotonic()
        assert self.recovery is not None
        self.recovery.tell("the judge is running again")

    def give_up(self, error: BaseException) -> None:
        """Tell that no attempt follows."""
        if self.recovery is not None and not self.closing.is_set():
            self.recovery.tell(f"the judge has stopped ({error})")
            self.recovery.give_up()


def _woken() -> Conversation:
    """A conversation that asks nothing."""
    yield from ()
    return []


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

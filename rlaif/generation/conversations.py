"""Runs many conversations with models side by side, each of which is sequential in itself.

A *conversation* is a generator: it yields the queries that it has now, gets their replies, and in
the end returns its rows.  While one conversation waits for a reply the others fill the engine's
batch.  Every reply is durable before its conversation goes on, so that a killed run asks nothing
twice; rows come out in the order in which the conversations were started.  A long conversation may
give some of its rows on the way, as `PartialRows`.  Conversations may also arrive over time
(`ConversationSource`), for as long as a server runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from rlaif.engines.base import Engine
from rlaif.errors import RlaifError
from rlaif.generation.lanes import EngineQueue, Lanes, make_lanes
from rlaif.records import (
    ChoiceRequest,
    ChoiceResult,
    Failure,
    GenerationRequest,
    GenerationResult,
    Request,
    Result,
)
from rlaif.store.text_cache import GeneratedText, TextCache, text_key
from rlaif.store.verdict_cache import CachedAnswer, VerdictCache, answer_keys
from rlaif.util.clock import utc_now

MAX_OPEN_CONVERSATIONS = 1024
SUPPLY = 256
"""Requests that wait for each engine, where several run side by side."""
POLL = 0.02
"""Seconds between looks for conversations that arrive over time."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question of a conversation.

    Attributes:
        role: which model is asked: a name among the workers.
        request: its id does not matter.
    """

    role: str
    request: Request


Reply = GeneratedText | ChoiceResult | Failure
ConversationRows = list[tuple[str, dict[str, object]]]


@dataclass(frozen=True, slots=True)
class PartialRows:
    """Rows that a conversation gives before its end; it is told nothing for them."""

    rows: ConversationRows


Conversation = Generator[list[Query] | PartialRows, list[Reply], ConversationRows]


class ConversationSource(Protocol):
    """Conversations of which not all are there yet."""

    exhausted: bool

    def poll(self, *, wait: bool) -> Conversation | None:
        """The next one; None if there is none yet (with `wait`, only at the end)."""
        ...


class _IterableSource:
    """Conversations of an iterable: all are there."""

    def __init__(self, conversations: Iterable[Conversation]) -> None:
        self._conversations = iter(conversations)
        self.exhausted = False

    def poll(self, *, wait: bool) -> Conversation | None:
        conversation = next(self._conversations, None)
        self.exhausted = conversation is None
        return conversation


@dataclass(frozen=True)
class ConversationModel:
    """A model that conversations may ask.

    Attributes:
        fingerprint: addresses its answers.
        engine: None for one that is not running: only what it said before is known.
    """

    fingerprint: str
    engine: Engine | None


@dataclass
class ConversationCounts:
    """Questions asked in this process, found in the caches, and failed; and tokens written."""

    asked: int = 0
    cached: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass
class _OpenConversation:
    """A conversation that has begun; `missing` replies are on their way, `parts` wait."""

    conversation: Conversation
    answers: list[Reply | None] = field(default_factory=list)
    missing: int = 0
    parts: list[ConversationRows] = field(default_factory=list)
    rows: ConversationRows | None = None


class ConversationRunner:
    """Drives conversations to their ends.

    Args:
        workers: by role; two roles may share one engine.
        texts, verdicts: where answers are kept.
        on_rows: told the rows of each conversation, in order.
        on_part: told the rows that the conversation whose turn it is gives on the way.
        ordered: whether the rows of a conversation wait for those of the conversations before it.
        stops: whether a fault that may pass ends the run, so that it can go on later; otherwise
            the conversation is told of it like of any other.
        on_progress: called after every batch of answers.

    Attributes:
        counts: what happened so far.
    """

    def __init__(
        self,
        workers: Mapping[str, ConversationModel],
        texts: TextCache,
        verdicts: VerdictCache,
        *,
        on_rows: Callable[[ConversationRows], None],
        on_part: Callable[[ConversationRows], None] = lambda _: None,
        on_progress: Callable[[ConversationCounts], None] = lambda _: None,
        ordered: bool = True,
        stops: bool = True,
    ) -> None:
        self._ordered, self._stops = ordered, stops
        self._workers = workers
        self._texts = texts
        self._verdicts = verdicts
        self._on_rows = on_rows
        self._on_part = on_part
        self._on_progress = on_progress
        self._open: dict[int, _OpenConversation] = {}
        self._started = self._written = 0
        self._queues: dict[int, EngineQueue] = {}
        for worker in workers.values():
            if worker.engine is not None:
                self._queues[id(worker.engine)] = EngineQueue(worker.engine)
        # Of each request on its way: its key, and who waits for the answer.
        self._asked: dict[str, tuple[bytes, Request, list[tuple[int, int]]]] = {}
        self._by_key: dict[bytes, str] = {}
        self._next = 0
        self.counts = ConversationCounts()

    def run(self, conversations: Iterable[Conversation] | ConversationSource) -> None:
        """Run every conversation to its end.

        Raises:
            RlaifError: an engine stopped, or a cache can't be written.
        """
        source = (
            _IterableSource(conversations) if isinstance(conversations, Iterable) else conversations
        )
        lanes = make_lanes(self._queues)
        if len(lanes) > 1:
            self._run_side_by_side(source, lanes)
        else:
            self._run_in_turn(source)
        assert not self._open, "a conversation was left without its answers"

    def _run_in_turn(self, source: ConversationSource) -> None:
        """One engine at a time, in this thread."""
        while True:
            waiting = [queue for queue in self._queues.values() if queue]
            if waiting:
                fullest = max(waiting, key=len)
                for results in fullest.engine.run(self._feed(fullest, source)):
                    fullest.answered(len(results))
                    self._take(results)
                    self._on_progress(self.counts)
            elif not self._begin(source, wait=True):
                break

    def _run_side_by_side(
        self, source: ConversationSource, lanes: Sequence[Sequence[EngineQueue]]
    ) -> None:
        """Each lane of engines in its thread; conversations go on in this one."""
        with Lanes(lanes) as threads:
            while True:
                while min(map(len, self._queues.values())) < SUPPLY and self._begin(
                    source, wait=False
                ):
                    pass
                threads.wake()
                if not self._asked:
                    if not self._begin(source, wait=True):
                        break
                    continue
                # Conversations may also come while engines work.
                results = threads.results(None if source.exhausted else POLL)
                if results:
                    self._take(results)
                    self._on_progress(self.counts)

    def _begin(self, source: ConversationSource, *, wait: bool) -> bool:
        """Start a conversation; False if there is none, or (with `wait`) none left, or no room."""
        if len(self._open) >= MAX_OPEN_CONVERSATIONS or source.exhausted:
            return False
        conversation = source.poll(wait=wait)
        if conversation is None:
            return False
        self._open[self._started] = _OpenConversation(conversation)
        self._started += 1
        self._advance(self._started - 1, None)
        return True

    def _feed(self, own: EngineQueue, source: ConversationSource) -> Iterator[Request | None]:
        """The requests of one engine, until nothing is left that it could do now."""
        while True:
            request = own.take()
            if request is not None:
                yield request
            elif self._begin(source, wait=False):
                continue
            elif own.flying:
                yield None
            else:
                return

    def _advance(self, number: int, answers: list[Reply] | None) -> None:
        """Let a conversation go on as far as the caches know the answers."""
        opened = self._open[number]
        while True:
            try:
                asks = (
                    next(opened.conversation)
                    if answers is None
                    else opened.conversation.send(answers)
                )
            except StopIteration as end:
                opened.rows = end.value
                if self._ordered:
                    self._flush()
                else:
                    del self._open[number]
                    self._on_rows(end.value)
                return
            if isinstance(asks, PartialRows):
                opened.parts.append(asks.rows)
                self._flush()
                answers = []
                continue
            opened.answers = [None] * len(asks)
            self._look_up(number, opened, asks)
            if opened.missing:
                return
            answers = [a for a in opened.answers if a is not None]

    def _look_up(self, number: int, opened: _OpenConversation, asks: Sequence[Query]) -> None:
        keys = [self._key(ask) for ask in asks]
        texts = self._texts.get(
            [k for k, a in zip(keys, asks, strict=True) if isinstance(a.request, GenerationRequest)]
        )
        verdicts = self._verdicts.get(
            [k for k, a in zip(keys, asks, strict=True) if isinstance(a.request, ChoiceRequest)]
        )
        opened.missing = 0
        for i, (key, ask) in enumerate(zip(keys, asks, strict=True)):
            if key in texts:
                opened.answers[i] = texts[key]
                self.counts.cached += 1
            elif key in verdicts:
                opened.answers[i] = ChoiceResult("", verdicts[key].logprobs)
                self.counts.cached += 1
            else:
                self._enqueue(key, ask, number, i)

    def _key(self, ask: Query) -> bytes:
        fingerprint = self._workers[ask.role].fingerprint
        if isinstance(ask.request, GenerationRequest):
            return text_key(fingerprint, ask.request)
        ids = ask.request.token_ids
        return answer_keys(fingerprint, ids, [()], ask.request.label_ids)[0]

    def _enqueue(self, key: bytes, ask: Query, number: int, index: int) -> None:
        opened = self._open[number]
        engine = self._workers[ask.role].engine
        if engine is None:
            opened.answers[index] = Failure("", f"no result from {ask.role}")
            self.counts.failed += 1
            return
        opened.missing += 1
        if key in self._by_key:
            self._asked[self._by_key[key]][2].append((number, index))
            return
        self._next += 1
        name = f"{id(engine)}/{self._next}"
        request = replace(ask.request, id=name)
        self._asked[name] = (key, request, [(number, index)])
        self._by_key[key] = name
        self._queues[id(engine)].put(request)
        self.counts.asked += 1

    def _take(self, results: Sequence[Result]) -> None:
        """Keep answers, then hand them to the conversations that wait."""
        told: list[tuple[str, Reply]] = []
        texts: list[tuple[bytes, GeneratedText]] = []
        verdicts: list[tuple[bytes, CachedAnswer]] = []
        for result in results:
            key, _, _ = self._asked[result.id]
            if isinstance(result, GenerationResult):
                number = int(result.id.partition("/")[0])
                text = self._queues[number].engine.codec.decode(result.token_ids).strip()
                written = GeneratedText(text, result.finished, len(result.token_ids), utc_now())
                self.counts.tokens += written.tokens
                texts.append((key, written))
                told.append((result.id, written))
            elif isinstance(result, ChoiceResult):
                verdicts.append((key, CachedAnswer(result.logprobs)))
                told.append((result.id, result))
            else:
                self.counts.failed += 1
                told.append((result.id, result))
        self._texts.put(texts)
        self._verdicts.put(verdicts)
        for result in results:
            if self._stops and isinstance(result, Failure) and result.passing:
                raise RlaifError(
                    f"a model stopped responding ({result.reason})",
                    hint="Check the model's server, then rerun the same command to resume.",
                )
        ready = []
        for name, answer in told:
            key, _, waiting = self._asked.pop(name)
            del self._by_key[key]
            for number, index in waiting:
                opened = self._open[number]
                opened.answers[index] = answer
                opened.missing -= 1
                if not opened.missing:
                    ready.append(number)
        for number in ready:
            self._advance(number, [a for a in self._open[number].answers if a is not None])

    def _flush(self) -> None:
        while self._written in self._open:
            opened = self._open[self._written]
            for rows in opened.parts:
                self._on_part(rows)
            opened.parts = []
            if opened.rows is None:
                return
            del self._open[self._written]
            self._written += 1
            self._on_rows(opened.rows)

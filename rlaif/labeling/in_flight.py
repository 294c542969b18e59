"""Which questions are under way, who waits for them, and which answers are known already.

A question is addressed by the key of its answer in the verdict cache.  Equal questions are asked
once: whoever has one too waits for the same answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rlaif.labeling.planner import PlannedPair
from rlaif.records import ChoiceRequest, ChoiceResult, Failure
from rlaif.runs.writer import RunWriter
from rlaif.store.verdict_cache import AnswerStore, CachedAnswer

MAX_FAILURES = 10_000
"""Failed questions remembered, so that their duplicates are not asked to fail again."""


@dataclass(slots=True)
class JudgeReply:
    """The answer to a question, and what the judge wrote before it ("" for nothing)."""

    result: ChoiceResult | Failure
    reasoning: str = ""


class InFlight:
    """Questions by key, from the look-up in the cache to the durable answer.

    Args:
        cache: answers of earlier runs and processes.
        writer: makes answers durable.
    """

    def __init__(self, cache: AnswerStore, writer: RunWriter) -> None:
        self._cache, self._writer = cache, writer
        self._waiting: dict[bytes, list[tuple[PlannedPair, int]]] = {}
        self._keys: dict[str, bytes] = {}
        self._requests: dict[str, ChoiceRequest] = {}
        # Answers that the cache may not know yet, by the batch of the writer they went into.
        self._fresh: dict[bytes, CachedAnswer] = {}
        self._failed: dict[bytes, Failure] = {}
        self._uncommitted: deque[tuple[int, list[bytes]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, CachedAnswer]:
        """The answers that the cache or this process has."""
        while self._uncommitted and self._uncommitted[0][0] <= self._writer.committed:
            for key in self._uncommitted.popleft()[1]:
                self._fresh.pop(key, None)
        return self._fresh | self._cache.get(keys)

    def recall(self, key: bytes) -> JudgeReply | None:
        """What came of an equal question since the last look-up, if anything did."""
        if key in self._fresh:
            answer = self._fresh[key]
            return JudgeReply(ChoiceResult("", answer.logprobs), answer.reasoning)
        failure = self._failed.get(key)
        return None if failure is None else JudgeReply(failure)

    def join(self, key: bytes, item: PlannedPair, index: int) -> bool:
        """Wait for the answer to an equal question; False if none is under way."""
        if key not in self._waiting:
            return False
        self._waiting[key].append((item, index))
        return True

    def open(self, key: bytes, item: PlannedPair, index: int, request_id: str) -> None:
        """A question is going to be asked."""
        self._waiting[key] = [(item, index)]
        self._keys[request_id] = key

    def track(self, request: ChoiceRequest, key: bytes) -> None:
        """A request that what follows on its result is made of."""
        self._keys[request.id], self._requests[request.id] = key, request

    def untrack(self, request_id: str) -> None:
        """It is answered."""
        self._requests.pop(request_id)
        self._keys.pop(request_id)

    def request(self, request_id: str) -> ChoiceRequest:
        """The question behind a request."""
        return self._requests[request_id]

    def _take_key(self, request_id: str) -> bytes:
        self._requests.pop(request_id, None)
        return self._keys.pop(request_id)

    def settle(
        self, replies: Iterable[JudgeReply]
    ) -> Iterator[tuple[PlannedPair, int, JudgeReply, bool]]:
        """Keep answers, and give them to those who wait.

        Yields:
            A pair, the number of its question, the reply, and whether somebody else had asked.
        """
        settled = [(self._take_key(reply.result.id), reply) for reply in replies]
        answers = [
            (key, CachedAnswer(reply.result.logprobs, reply.reasoning))
            for key, reply in settled
            if isinstance(reply.result, ChoiceResult)
        ]
        self._uncommitted.append((self._writer.answers(answers), [key for key, _ in answers]))
        self._fresh.update(answers)
        for key, reply in settled:
            if isinstance(reply.result, Failure):
                if len(self._failed) >= MAX_FAILURES:
                    self._failed.clear()
                self._failed[key] = reply.result
            for n, (item, index) in enumerate(self._waiting.pop(key)):
                yield item, index, reply, n > 0

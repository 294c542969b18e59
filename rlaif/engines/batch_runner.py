"""Answers an engine's requests by batch files: everything that can be asked now goes into one.

A batch takes hours and costs less.  The calls of all open requests are made in rounds: one round
is one batch, or several if it is large.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import httpx

from rlaif.engines.base import Intake
from rlaif.engines.batch_files import BatchFiles
from rlaif.engines.batch_ledger import BatchLedger, BatchRecord
from rlaif.engines.server_calls import ServerCall, ServerCalls, finish
from rlaif.engines.server_client import Unusable, may_pass
from rlaif.records import Failure, Request, Result
from rlaif.util.hashing import digest

MOST_REQUESTS, MOST_BYTES = 50_000, 100 << 20
"""What a file holds at most: OpenAI takes 50,000 requests and 200 MB."""
_LINGER = 2.0
"""Seconds without a new request after which a batch is closed: rows are still being read."""


class BatchedModel(Protocol):
    """An engine whose requests are sent in batches."""

    fingerprint: str

    @property
    def manner(self) -> Mapping[str, Any]:
        """What was learned of how the server wants to be asked."""
        ...

    def take_manner(self, manner: Mapping[str, Any]) -> None:
        """Ask as an earlier process learned to."""
        ...

    def calls(self, request: Request) -> ServerCalls:
        """The calls that lead to the answer of a request."""
        ...

    def send(self, call: ServerCall) -> Result:
        """The result of one call, without a batch."""
        ...


@dataclass
class _OpenCall:
    """A call of the round.

    Attributes:
        id: hash of what is sent.
        tries: how often it was sent in vain.
    """

    call: ServerCall
    body: dict[str, Any]
    id: str
    tries: int = 0
    result: Result | None = None


@dataclass
class _OpenRequest:
    steps: Generator[list[ServerCall], list[Result], Result]
    calls: list[_OpenCall] = field(default_factory=list)


class BatchRunner:
    """Sends requests in batches and finds those again that were sent before.

    Args:
        most: requests in one batch.
        retries: how often a request is sent again that met a passing fault.
    """

    def __init__(
        self, files: BatchFiles, ledger: BatchLedger, *, endpoint: str, most: int, retries: int
    ) -> None:
        self._files, self._ledger, self._endpoint = files, ledger, endpoint
        self._most, self._retries = min(most, MOST_REQUESTS), retries
        self._ids: dict[tuple[str, str], frozenset[str]] = {}

    def run(
        self, requests: Iterable[Request | None], model: BatchedModel
    ) -> Iterator[list[Result]]:
        """Answer requests, as many together as there are; each batch is waited for."""
        intake = Intake(requests)
        known = self._ledger.load_manner(model.fingerprint)
        model.take_manner(known)
        open_: list[_OpenRequest] = []
        while True:
            taken: list[Request] = []
            last = time.monotonic()
            while not intake.exhausted and len(open_) + len(taken) < self._most:
                new = intake.take(self._most - len(open_) - len(taken))
                taken += new
                if not new:
                    if not (open_ or taken) or time.monotonic() - last > _LINGER:
                        break
                    time.sleep(0.02)
                else:
                    last = time.monotonic()
            if taken and not known:
                # One request is asked at once: it shows how the server wants to be asked.
                found = self._answer_alone(taken.pop(0), model)
                if not isinstance(found, Failure):
                    known = dict(model.manner)
                    self._ledger.keep_manner(model.fingerprint, known)
                yield [found]
            ended = self._start(taken, model, open_)
            if open_:
                self._make_round([call for request in open_ for call in request.calls])
                ended += self._advance(open_)
            elif not taken and intake.exhausted:
                return
            yield ended

    def _answer_alone(self, request: Request, model: BatchedModel) -> Result:
        """Answer one request without a batch, and keep what the server said as if it were one."""
        kept: dict[str, tuple[Mapping[str, Any], Any]] = {}

        def ask(call: ServerCall) -> Result:
            opened = _open(call)
            known = self._answers({opened.id})
            if known.get(opened.id, (0, None))[0] == 200 and self._settle(opened, known):
                assert opened.result is not None
                return opened.result  # it was asked by a process that died since
            said: list[Any] = []

            def take(name: str, answer: httpx.Response) -> Result:
                said.append(answer.json())
                return call.take(name, answer)

            found = model.send(replace(call, take=take))
            if said:
                kept[opened.id] = opened.body, said[-1]
                self._ledger.keep_alone(kept, self._endpoint)
            return found

        return finish(model.calls(request), lambda calls: [ask(call) for call in calls])

    def _start(
        self, taken: list[Request], model: BatchedModel, open_: list[_OpenRequest]
    ) -> list[Result]:
        ended = []
        for request in taken:
            started = _OpenRequest(model.calls(request))
            try:
                started.calls = [_open(call) for call in next(started.steps)]
                open_.append(started)
            except StopIteration as answered:
                ended.append(answered.value)
        return ended

    def _advance(self, open_: list[_OpenRequest]) -> list[Result]:
        """Give all open requests their results; the answers that they end with."""
        ended, still = [], []
        for request in open_:
            results = [call.result for call in request.calls if call.result is not None]
            try:
                request.calls = [_open(call) for call in request.steps.send(results)]
                still.append(request)
            except StopIteration as answered:
                ended.append(answered.value)
        open_[:] = still
        return ended

    def _make_round(self, calls: list[_OpenCall]) -> None:
        """Send what was not sent before, wait, and read the answers."""
        same: Counter[str] = Counter()
        for call in calls:
            same[call.id] += 1
            if same[call.id] > 1:  # drawn several times: each gets an answer of its own
                call.id = f"{call.id}-{same[call.id]}"
        unanswered = calls
        while unanswered:
            for record in self._send({call.id: call.body for call in unanswered}):
                self._files.wait(record)
            answers = self._answers({call.id for call in unanswered})
            unanswered = [call for call in unanswered if not self._settle(call, answers)]

    def _send(self, bodies: Mapping[str, Mapping[str, Any]]) -> list[BatchRecord]:
        """The batches under way that hold these requests; new ones for those that none holds."""
        with self._ledger.locked():
            missing, under_way = dict(bodies), []
            for record in self._ledger.records():
                held = self._held(record) & bodies.keys()
                if held and not record.ended:
                    under_way.append(record)
                for name in held:
                    missing.pop(name, None)
            under_way += [self._ledger.add(part, self._endpoint) for part in self._cut(missing)]
            return [self._files.submit(record) for record in under_way]

    def _held(self, record: BatchRecord) -> frozenset[str]:
        """The requests that a batch answered, or may still answer."""
        if record.ended == "failed":
            return frozenset()
        key = (record.name, record.ended)
        if key not in self._ids:
            good = (name for name, status, _ in record.answers() if status == 200)
            self._ids[key] = frozenset(good if record.ended else record.ids())
        return self._ids[key]

    def _cut(
        self, bodies: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[dict[str, Mapping[str, Any]]]:
        part: dict[str, Mapping[str, Any]] = {}
        size = 0
        for name, body in bodies.items():
            own = len(json.dumps(body, ensure_ascii=False).encode()) + 200
            if part and (len(part) >= self._most or size + own > MOST_BYTES):
                yield part
                part, size = {}, 0
            part[name] = body
            size += own
        if part:
            yield part

    def _answers(self, ids: set[str]) -> dict[str, tuple[int, Any]]:
        """What came back for requests: of several answers a good one, else the last."""
        found: dict[str, tuple[int, Any]] = {}
        for record in self._ledger.records():
            if record.ended in ("", "failed") or ids.isdisjoint(record.ids()):
                continue
            for name, status, body in record.answers():
                if name in ids and not (name in found and found[name][0] == 200):
                    found[name] = status, body
        return found

    def _settle(self, call: _OpenCall, answers: Mapping[str, tuple[int, Any]]) -> bool:
        """Read the answer to a call; False if it is to be sent again."""
        status, body = answers.get(call.id, (0, None))
        name = call.call.name
        if status == 200:
            try:
                call.result = call.call.read(httpx.Response(200, json=body))
            except Unusable as error:
                call.result = Failure(name, str(error))
            return True
        said = " ".join(json.dumps(body, ensure_ascii=False).split())[:200] if body else "no answer"
        reason = f"status {status}: {said}" if status else f"the batch ended without it: {said}"
        passing = status == 0 or may_pass(status)
        call.tries += 1
        if passing and call.tries <= self._retries:
            return False
        call.result = Failure(name, reason, passing)
        return True


def _open(call: ServerCall) -> _OpenCall:
    body = call.make()
    return _OpenCall(call, body, digest([body, call.draw])[:32])

"""A judge behind `rlaif serve`, with the methods of `Judge`."""

from __future__ import annotations

import math
import os
import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from rlaif.api.answers import Comparison, Critique, Score
from rlaif.api.judge import PairMapping, TextOrMessages, count_answers, pair_row, single_row
from rlaif.data.single_rows import BadRow, DataRow, read_row
from rlaif.errors import RlaifError
from rlaif.util.addresses import mask, without_secrets
from rlaif.util.http_body import ACCEPTED, BodyRefused, read_body
from rlaif.util.http_client import answer_until, open_client
from rlaif.util.validation import explain

TOKEN_VARIABLE = "RLAIF_TOKEN"
ROWS_PER_REQUEST = 32
REQUESTS_AT_ONCE = 8
Found = TypeVar("Found", Comparison, Score)
Answer = TypeVar("Answer", Comparison, Score, Critique)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_MOST_BYTES = 256 << 20
"""Bytes of one answer, unpacked: one to some thousands of rows with their evidence."""
_LONGEST_PAUSE = 30.0


class RemoteJudge:
    """Asks a server.

    Args:
        url: such as `http://127.0.0.1:8000`.
        constitution: its name; needed where the server has several.
        token: of the server; default: `$RLAIF_TOKEN`.
        timeout: seconds for one request, also while the server is too busy for it.

    Raises:
        RlaifError: from every method: the server does not answer, or refuses with a reason.
    """

    def __init__(
        self,
        url: str,
        *,
        constitution: str | None = None,
        token: str | None = None,
        timeout: float = 600.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._shown = without_secrets(self._url)
        self._answered = False
        self._constitution = constitution
        token = token or os.environ.get(TOKEN_VARIABLE)
        self._token = token or ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        self._client = open_client(headers=headers, timeout=timeout)

    def compare(
        self,
        prompt: TextOrMessages,
        a: TextOrMessages,
        b: TextOrMessages,
        *,
        tags: Sequence[str] = (),
    ) -> Comparison:
        """See `Judge.compare`."""
        return next(self.compare_many([pair_row((prompt, a, b), tags)]))

    def compare_many(
        self, rows: Iterable[PairMapping | Sequence[TextOrMessages]], *, progress: bool = False
    ) -> Iterator[Comparison]:
        """See `Judge.compare_many`."""
        bar = count_answers(rows, "pair") if progress else None
        return self._many(
            rows=map(_pair, rows), endpoint="pairwise", key="pairs", form=Comparison, bar=bar
        )

    def score(
        self, prompt: TextOrMessages, response: TextOrMessages, *, tags: Sequence[str] = ()
    ) -> Score:
        """See `Judge.score`."""
        return next(self.score_many([single_row((prompt, response), tags)]))

    def score_many(
        self, rows: Iterable[PairMapping | Sequence[TextOrMessages]], *, progress: bool = False
    ) -> Iterator[Score]:
        """See `Judge.score_many`."""
        bar = count_answers(rows, "response") if progress else None
        return self._many(
            rows=map(_single, rows), endpoint="pointwise", key="items", form=Score, bar=bar
        )

    def critique(
        self,
        prompt: TextOrMessages,
        response: TextOrMessages,
        *,
        principles: Sequence[str] | None = None,
        revise: bool = False,
    ) -> Critique:
        """See `Judge.critique`."""
        row = {**_single((prompt, response)), "revise": revise}
        if principles is not None:
            row["principles"] = list(principles)
        return self._read(self._post("critique", self._addressed(row)), Critique)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> RemoteJudge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _addressed(self, body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "constitution": self._constitution} if self._constitution else body

    def _many(
        self,
        rows: Iterable[dict[str, Any]],
        endpoint: str,
        key: str,
        form: type[Found],
        bar: Any,
    ) -> Iterator[Found]:
        def ask(batch: list[dict[str, Any]]) -> list[Found]:
            answer = self._post(endpoint, self._addressed({key: batch}), splits=len(batch) > 1)
            if answer is None:  # more than the server ever takes at once
                half = len(batch) // 2
                return ask(batch[:half]) + ask(batch[half:])
            return self._read_results(answer, form, len(batch))

        waiting: deque[Future[list[Found]]] = deque()
        pool = ThreadPoolExecutor(REQUESTS_AT_ONCE)
        source = iter(rows)
        try:
            while True:
                while len(waiting) < 2 * REQUESTS_AT_ONCE:
                    batch = _take(source, ROWS_PER_REQUEST)
                    if not batch:
                        break
                    waiting.append(pool.submit(ask, batch))
                if not waiting:
                    return
                for answer in waiting.popleft().result():
                    if bar is not None:
                        bar.update()
                    yield answer
        finally:
            pool.shutdown(cancel_futures=True)
            if bar is not None:
                bar.close()

    def _read_results(self, answer: dict[str, Any], form: type[Found], asked: int) -> list[Found]:
        """The answers to a batch: one to each question, or an error."""
        results = answer.get("results")
        if not isinstance(results, list) or len(results) != asked:
            given = len(results) if isinstance(results, list) else "no"
            raise RlaifError(
                f"{self._shown} returned {given} results for {asked} questions",
                hint="Check that `rlaif serve` is running at this URL.",
            )
        for item in results:
            if isinstance(item, dict) and "error" in item:
                said = mask(str(item["error"]), self._token, self._url)
                raise RlaifError(said, hint="Fix or remove that row.")
        return [self._read(item, form) for item in results]

    def _read(self, item: Any, form: type[Answer]) -> Answer:
        try:
            return form.model_validate(item)
        except ValidationError as error:
            problem = explain(error, hint="Use the same version of rlaif on both sides.")
            raise RlaifError(
                f"{self._shown} returned an answer that can't be read ({problem.message})",
                hint=problem.hint,
            ) from None

    def _post(
        self, endpoint: str, body: dict[str, Any], *, splits: bool = False
    ) -> dict[str, Any] | None:
        """The server's answer; None (only if it `splits`) where the body is too large."""
        deadline = time.monotonic() + self._timeout
        attempt = 0
        while True:
            pause = min(_LONGEST_PAUSE, 0.5 * 2.0**attempt)
            attempt += 1
            try:
                address = f"{self._url}/v1/judge/{endpoint}"
                with (
                    answer_until(deadline),
                    self._client.stream("POST", address, json=body, headers=ACCEPTED) as said,
                ):
                    answer = read_body(said, most=_MOST_BYTES, until=deadline)
            except (httpx.HTTPError, httpx.InvalidURL, BodyRefused, ValueError) as error:
                # A server that answered before, or took the request, may be back in a moment.
                passing = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
                if isinstance(error, httpx.ConnectError):
                    passing = self._answered
                if passing and time.monotonic() + pause < deadline:
                    time.sleep(pause)
                    continue
                raise RlaifError(
                    f"no response from {self._shown} ({type(error).__name__}: {error})",
                    hint="Check the URL, and that `rlaif serve` is running there.",
                ) from None
            pause = max(pause if answer.status_code != 429 else 0.0, _retry_after(answer))
            if answer.status_code not in _PASSING or time.monotonic() + pause > deadline:
                break
            # Somewhat apart, so that many who wait do not come back together.
            time.sleep(pause * random.uniform(0.5, 1.0))
        self._answered = self._answered or answer.status_code == 200
        if splits and answer.status_code == 413:
            return None
        if answer.status_code != 200:
            raise RlaifError(
                f"{self._shown} rejected the request: "
                f"{mask(_reason(answer), self._token, self._url)}",
                hint="Fix the cause that the server reports.",
            )
        try:
            found = answer.json()
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise RlaifError(
                f"{self._shown} did not return a JSON object",
                hint="Check that `rlaif serve` is running at this URL.",
            )
        return found


def _pair(given: PairMapping | Sequence[TextOrMessages]) -> dict[str, Any]:
    """A pair as the server takes it, read here as `Judge` reads it."""
    try:
        read = read_row(pair_row(given))
        if len(read.completions) != 2:
            raise BadRow(f"got {len(read.completions)} responses, expected two")
    except BadRow as error:
        raise RlaifError(str(error), hint="Pass strings or lists of chat messages.") from None
    a, b = (completion.messages for completion in read.completions)
    return {**_common(read), "response_a": a, "response_b": b}


def _single(given: PairMapping | Sequence[TextOrMessages]) -> dict[str, Any]:
    """A response as the server takes it."""
    try:
        read = read_row(single_row(given))
        if len(read.completions) != 1:
            raise BadRow(f"got {len(read.completions)} responses, expected one")
    except BadRow as error:
        raise RlaifError(str(error), hint="Pass strings or lists of chat messages.") from None
    return {**_common(read), "response": read.completions[0].messages}


def _common(read: DataRow) -> dict[str, Any]:
    return {"prompt": read.prompt, "id": read.id, "tags": sorted(read.tags)}


def _take(source: Iterator[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    batch = []
    for row in source:
        batch.append(row)
        if len(batch) == most:
            break
    return batch


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the server asks to wait, within reason; 1 where it says it in another way."""
    try:
        seconds = float(answer.headers.get("Retry-After", 0))
    except ValueError:  # a date
        return 1.0
    return min(_LONGEST_PAUSE, max(0.0, seconds)) if math.isfinite(seconds) else _LONGEST_PAUSE


def _reason(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        return f"{answer.status_code}, {error['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.reason_phrase}"

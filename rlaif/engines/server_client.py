"""Asks a server many things at once: retries what may pass, waits when told, stops when closed."""

from __future__ import annotations

import itertools
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rlaif.engines.base import EngineSettings, Intake
from rlaif.engines.request_limit import RequestLimit
from rlaif.errors import EngineStopped, RlaifError, first_line
from rlaif.records import Failure, Request, Result
from rlaif.util.addresses import is_named, mask, without_secrets
from rlaif.util.http_body import ACCEPTED, BodyRefused, read_body
from rlaif.util.http_client import answer_until, open_client
from rlaif.util.user_functions import IN_RECIPE

KEY_VARIABLE = "OPENAI_API_KEY"
PASSING = (408, 409, 425, 429)
"""What may pass, beside all faults of a server (500 and above)."""
_BUSY = (429, 503, 529)
"""What a server says that gets more than it takes."""
_GONE = (401, 402, 403, 404, 407, 410)
"""What a server that answered before says when a key ran out, or a model was unloaded."""
_LONGEST_WAIT = 60.0
_LONGEST_TIMEOUT = 86_400
_ENOUGH_RETRIES = 3
"""Retries after which a request that fails still is not met by a passing fault."""
_OF_OPENED = ("continue_final_message", "add_generation_prompt")
"""Parameters of a request whose answer is begun."""
_MOST_REFUSED = 16
"""Requests refused in a row before the server is asked whether it still answers at all."""
_FEW_REFUSED = 4
"""Refused requests that say as much of a server that never answered."""
_BROKEN = ("abort", "aborted", "cancelled", "canceled", "error", "failed")
"""How servers say that they broke an answer off."""
_MOST_BYTES = 16 << 20
"""Bytes of one answer, unpacked; a label's or a text's is far below."""


class Unusable(Exception):
    """A server answered, and what it said is no answer to the question."""


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer; `passing` where asking again later may well succeed."""

    reason: str
    passing: bool


class ServerClient:
    """Connections to one server.

    Args:
        url: what paths are put behind.
        most: requests under way at once.
        retries: how often a request is sent again that met a passing fault.
        timeout: seconds for one answer.
        is_answer: whether a successful response holds what was asked for, and no error or page.

    Raises:
        RlaifError: the environment's key is none, or its proxy or certificates can't be used.

    Long because it is all that may go wrong between one server and the requests to it.
    """

    def __init__(
        self,
        url: str,
        *,
        most: int,
        retries: int,
        timeout: float,
        is_answer: Callable[[httpx.Response], bool] | None = None,
    ) -> None:
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key.isascii() or not key.isprintable():
            raise RlaifError(
                f"{KEY_VARIABLE} contains characters that an API key cannot have",
                hint="Set it to the server's API key.",
            )
        if key and os.environ.get(IN_RECIPE) and not is_named(url):
            raise RlaifError(
                f"a recipe names the server {without_secrets(url)!r}, and your {KEY_VARIABLE} is "
                "not sent to addresses that you did not name",
                hint="If you trust it, name it with --set or OPENAI_BASE_URL; or unset the key.",
            )
        self._url, self._most, self._retries = url.rstrip("/"), most, retries
        self._timeout = timeout
        self._is_answer = is_answer or _is_answer
        self._key = key
        self._who, self._key_name = f"the server at {without_secrets(self._url)!r}", KEY_VARIABLE
        headers = {**ACCEPTED, **({"Authorization": f"Bearer {key}"} if key else {})}
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        self._client = open_client(headers=headers, timeout=timeout, limits=limits)
        self._pool = ThreadPoolExecutor(most)
        self._stopping = False
        self._answered = 0
        self._last_answer = -float("inf")
        self._limit = RequestLimit(most)
        self._refused: set[str] = set()
        self._good: Callable[[], Result] | None = None
        self._asked: tuple[str, dict[str, Any], Callable[[httpx.Response], Result]] | None = None
        self._probes = itertools.count(1)

    def get(self, path: str) -> httpx.Response:
        """The answer to a first request; closes the client where there is none.

        Raises:
            RlaifError: no server answers, or it refuses the key.
        """
        try:
            seconds = min(self._timeout, 30.0)
            with answer_until(time.monotonic() + seconds):
                url, until = f"{self._url}{path}", time.monotonic() + seconds
                with self._client.stream("GET", url, timeout=seconds) as answer:
                    found = read_body(answer, most=_MOST_BYTES, until=until)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, BodyRefused) as error:
            self.close()
            raise RlaifError(
                f"no server answers at {without_secrets(self._url)!r} ({first_line(error)})",
                hint="Start the server, or set its address with --option "
                "base_url=http://HOST:PORT/v1.",
            ) from None
        if found.status_code in (401, 403):
            self.close()
            raise RlaifError(
                f"{self._who} rejected the API key (status {found.status_code})",
                hint=f"Set {self._key_name} in the environment to a valid key.",
            )
        return found

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response | Refusal:
        """A successful answer, or why there is none.

        Raises:
            EngineStopped: the server answers nobody any more: what is not asked yet can be asked
                when it is back.
        """
        reason, passing, busy = "", True, False
        began = time.monotonic()
        for attempt in range(self._retries + 1):
            if attempt:
                self._pause(min(_LONGEST_WAIT, 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)))
            self._pause(self._limit.pause)
            if self._stopping:
                return Refusal("the engine was closed", False)
            sent = time.monotonic()
            try:
                answer = self._send(path, body)
            except (httpx.HTTPError, BodyRefused) as error:
                reason = f"{type(error).__name__.strip('_')}: {error}"
                continue
            if answer.status_code == 200 and self._is_answer(answer):
                self._answered += 1
                self._last_answer = time.monotonic()
                self._limit.note_success()
                return answer
            busy = answer.status_code in _BUSY
            if busy:
                self._limit.note_busy(sent, _retry_after(answer))
            said = self.hide(" ".join(answer.text.split()))
            if answer.status_code == 200:
                said = "a web page" if _is_page(answer) else f"no answer: {said}"
            reason = f"status {answer.status_code}: {said[:200]}"
            gone = answer.status_code in _GONE
            if gone and not self._answered:
                raise EngineStopped(
                    f"{self._who} refuses requests ({reason})",
                    hint=f"Check the model's name and {self._key_name}, then rerun the same "
                    "command.",
                )
            moved = answer.status_code == 200 or 300 <= answer.status_code < 400
            if not (may_pass(answer.status_code) or moved or gone):
                return Refusal(reason, False)
            if attempt < self._retries:
                self._pause(_retry_after(answer))
        # A request that breaks the server each time, while others are answered, is at fault itself.
        own = self._retries >= _ENOUGH_RETRIES and not busy and self._answers_hello()
        if self._last_answer < began and not self._stopping and not own:
            # Nobody was answered since: it is not this request.
            raise EngineStopped(
                f"{self._who} does not answer any more ({reason})",
                hint="Rerun the same command to resume once it is back.",
            )
        return Refusal(reason, passing and not own)

    def ask(
        self,
        path: str,
        body: dict[str, Any],
        name: str,
        read: Callable[[httpx.Response], Result],
    ) -> Result:
        """What `read` makes of a successful answer to the request of that id, or a failure.

        `read` raises `Unusable` where the server did its part: that is no refusal.

        Raises:
            EngineStopped: see `post`.
        """
        self._asked = (path, body, read)

        def once() -> Result:
            answer = self.post(path, body)
            if isinstance(answer, Refusal):
                return Failure(name, answer.reason, answer.passing)
            return read(answer)

        try:
            result = once()
        except Unusable as error:
            return Failure(name, str(error))
        if not isinstance(result, Failure):
            self._good = once
            self._refused.discard(name)
        elif not result.passing:
            self._refused.add(name)
        return result

    def forgive(self, names: Iterable[str]) -> None:
        """Requests by those ids were answered after all, if in another way."""
        self._refused.difference_update(names)

    def _send(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """An answer, read within the time and the size that one may have.

        Raises:
            httpx.HTTPError: there is none in time.
            BodyRefused: it is too large.
        """
        until = time.monotonic() + self._timeout
        with (
            answer_until(until),
            self._client.stream("POST", f"{self._url}{path}", json=body) as answer,
        ):
            return read_body(answer, most=_MOST_BYTES, until=until)

    def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        """What the server says to one request, whatever it says.

        Args:
            content: as httpx takes it: `json`, `params`, `files`, `data`.

        Raises:
            httpx.HTTPError: nothing in time.
            BodyRefused: it is too large.
        """
        until = time.monotonic() + self._timeout
        with (
            answer_until(until),
            self._client.stream(method, f"{self._url}{path}", **content) as answer,
        ):
            return read_body(answer, most=_MOST_BYTES, until=until)

    def download(self, path: str, to: Path) -> None:
        """A file of any size.

        Raises:
            httpx.HTTPError: it does not come, or not whole.
        """
        with self._client.stream("GET", f"{self._url}{path}") as answer:
            answer.raise_for_status()
            with to.open("wb") as file:
                for piece in answer.iter_bytes():
                    file.write(piece)

    def run(
        self, requests: Iterable[Request | None], answer: Callable[[Request], Result]
    ) -> Iterator[list[Result]]:
        """What `answer` makes of requests, as many at once as allowed, as they finish.

        What the server refuses is held back until it has answered another request: a server that
        refuses all of them, as it does after a change of its settings, makes nobody's rows bad.

        Raises:
            EngineStopped: the server answers nobody any more, or refuses what it answered before.
        """
        intake = Intake(requests)
        flying: set[Future[Result]] = set()
        held: list[Result] = []
        while True:
            for request in intake.take(self._limit.allowed - len(flying)):
                flying.add(self._pool.submit(answer, request))
            if not flying:
                if held:  # nobody asks for more until these are told
                    self._check_refusals(held)
                    yield held
                    held = []
                elif intake.exhausted:
                    return
                continue
            done, flying = wait(flying, return_when=FIRST_COMPLETED)
            came = [future.result() for future in done]
            refused = [r for r in came if r.id in self._refused]
            self._refused.difference_update(r.id for r in refused)
            others = [r for r in came if r not in refused]
            held += refused
            if held and any(not isinstance(r, Failure) for r in others):
                others, held = [*held, *others], []
            elif len(held) >= _MOST_REFUSED:
                self._check_refusals(held)
                others, held = [*held, *others], []
            yield others

    def _check_refusals(self, held: Sequence[Result]) -> None:
        """See whether the server still answers what it answered before.

        Raises:
            EngineStopped: it does not, or it never answered anything and refused several.
        """
        reason = next(r.reason for r in reversed(held) if isinstance(r, Failure))
        if self._answers_hello():
            return  # the requests are at fault, however many
        if self._good is None:
            if len(held) < _FEW_REFUSED:
                return
            raise EngineStopped(
                f"{self._who} refuses every request ({reason})",
                hint="Mend what it refuses, then rerun the same command to resume.",
            )
        try:
            again = self._good()
        except Unusable:
            return
        if isinstance(again, Failure) and not again.passing:
            raise EngineStopped(
                f"{self._who} refuses what it answered before ({again.reason})",
                hint="Rerun the same command to resume once it is back as it was.",
            )

    def _answers_hello(self) -> bool:
        """Whether the server answers a harmless question that is asked as the last one was."""
        if self._asked is None or "messages" not in self._asked[1]:
            return False
        path, body, read = self._asked
        hello = {"role": "user", "content": f"Say hello. ({next(self._probes)})"}
        own = {k: v for k, v in body.items() if k not in _OF_OPENED}
        try:
            answer = self._send(path, {**own, "messages": [hello]})
            whole = answer.status_code == 200 and self._is_answer(answer)
            return whole and not isinstance(read(answer), Failure)
        except Unusable:
            return True
        except (httpx.HTTPError, BodyRefused):
            return False

    def hide(self, text: str) -> str:
        """A text of the server's without the key."""
        return mask(text, self._key, self._url)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            time.sleep(min(0.1, seconds))

    def close(self) -> None:
        """Let go of what is under way."""
        self._stopping = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()


def may_pass(status: int) -> bool:
    """Whether asking again later may succeed."""
    return status in PASSING or status >= 500


def _is_answer(answer: httpx.Response) -> bool:
    """Whether a server answered with choices, and not with a page, an error or half an object."""
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return False
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not choices:
        return False
    choice = choices[0]
    if not isinstance(choice, dict):
        return True  # read by whoever knows what was asked for
    broken = choice.get("error") or (found.get("error") and not choice.get("message"))
    return not broken and str(choice.get("finish_reason")).lower() not in _BROKEN


def _is_page(answer: httpx.Response) -> bool:
    """Whether a proxy or a portal answered with a web page."""
    return answer.content[:64].lstrip()[:1] == b"<"


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the server asks to wait."""
    try:
        seconds = float(answer.headers.get("retry-after", 0))
    except ValueError:  # a date: the usual pauses do
        return 0.0
    if math.isnan(seconds):
        return 0.0
    return min(_LONGEST_WAIT, max(0.0, seconds)) if math.isfinite(seconds) else _LONGEST_WAIT


SPEED_OPTIONS = ("batch", "poll", "retries", "timeout")
"Options that do not affect results."


def server_url(settings: EngineSettings) -> str:
    """The address that the settings or the environment name.

    Raises:
        RlaifError: neither does.
    """
    url = settings.options.get("base_url") or os.environ.get("OPENAI_BASE_URL")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise RlaifError(
            f"engine {settings.engine!r} needs a server address",
            hint="Add --option base_url=http://HOST:PORT/v1 or set OPENAI_BASE_URL.",
        )
    return url


def patience(settings: EngineSettings, known: tuple[str, ...]) -> tuple[int, float]:
    """The options `retries` (5) and `timeout` (600 seconds), checked.

    Args:
        known: the engine's options.

    Raises:
        RlaifError: an option is unknown or wrong.
    """
    unknown = settings.options.keys() - set(known)
    if unknown:
        names = f"{', '.join(known[:-1])} and {known[-1]}"
        raise RlaifError(
            f"engine {settings.engine!r} has no option {min(unknown)!r}",
            hint=f"Available options: {names}.",
        )
    retries, timeout = settings.options.get("retries", 5), settings.options.get("timeout", 600)
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 100:
        raise RlaifError(
            f"invalid value {retries!r} for option retries", hint="Use an integer from 0 to 100."
        )
    whole = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not (whole and 0 < timeout <= _LONGEST_TIMEOUT):
        raise RlaifError(
            f"invalid value {str(timeout)[:40]} for option timeout",
            hint=f"Use a number of seconds above 0, at most {_LONGEST_TIMEOUT}.",
        )
    return retries, float(timeout)

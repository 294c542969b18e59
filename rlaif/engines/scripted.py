"""An engine without a model: deterministic answers by rule, for tests of ours and of users.

Its tokens are UTF-8 bytes, so a rule sees exactly the text that a judge would read.
"""

from __future__ import annotations

import hashlib
import math
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, Intake
from rlaif.errors import RlaifError
from rlaif.records import (
    ChoiceRequest,
    ChoiceResult,
    Failure,
    GenerationRequest,
    GenerationResult,
    Message,
    Request,
    Result,
)
from rlaif.util.hashing import digest

ScriptedRule = Callable[[str], tuple[float, float] | str | None]
("Maps a prompt's text to (log odds of the first label, label mass), a failure reason, or None.")
ScriptedWriter = Callable[[str, GenerationRequest], str]
("Maps a prompt's text and a request to the generated text, cut at the request's token limit.")


class ByteCodec:
    """UTF-8 bytes as tokens, and a chat template of one line per message."""

    eos_ids = (0,)

    def __init__(self) -> None:
        self._tails: dict[tuple[str, str], list[int]] = {}

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Each message as `role: content`, then `assistant:`."""
        text = "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:"
        return list(text.encode("utf-8", "replace"))

    def encode_branches(
        self, shared: str, tails: Sequence[str], fixed: int = 0, prefill: str = ""
    ) -> tuple[list[int], list[list[int]]]:
        """See `Codec.encode_branches`; bytes join anywhere."""
        context = list(f"user: {shared}".encode("utf-8", "replace"))
        return context, [self._tail(tail, prefill) for tail in tails]

    def _tail(self, tail: str, prefill: str) -> list[int]:
        key = (tail, prefill)
        if key not in self._tails:
            if len(self._tails) >= 4096:
                self._tails.clear()
            opened = f" {prefill}" if prefill else ""
            self._tails[key] = list(f"{tail}\nassistant:{opened}".encode("utf-8", "replace"))
        return self._tails[key]

    def encode_text(self, text: str) -> list[int]:
        """The bytes of the text."""
        return list(text.encode("utf-8", "replace"))

    def spellings(self, label: str) -> tuple[int, ...]:
        """The label's byte; labels of this engine are single characters."""
        data = label.encode()
        if len(data) != 1:
            raise RlaifError(f"label {label!r} is longer than one byte", hint="Use A and B.")
        return (data[0],)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the bytes."""
        return bytes(token_ids).decode("utf-8", "replace")


def hashed_rule(text: str) -> tuple[float, float]:
    """A log-odds between -6 and 6 and a label mass of 0.99, from a hash of the prompt."""
    return (zlib.crc32(text.encode()) / 0xFFFFFFFF - 0.5) * 12.0, 0.99


def scripted_text(text: str, request: GenerationRequest) -> str:
    """The word "scripted"; above temperature 0 with a number from a hash of prompt and seed."""
    if not request.temperature:
        return "scripted"
    return f"scripted {zlib.crc32(f'{request.seed}/{text}'.encode()) % 100_000}"


class ScriptedEngine:
    """Answers by `rule`, and writes by `writer`.

    Args:
        rule: prompt text to an answer; see `ScriptedRule`.
        writer: prompt text and request to a text; see `ScriptedWriter`.
        delay: seconds per batch, to imitate work.
        fail_every: each request whose hash is divisible by this fails; 0 for none.
    """

    def __init__(
        self,
        rule: ScriptedRule = hashed_rule,
        writer: ScriptedWriter = scripted_text,
        *,
        name: str = "hashed",
        delay: float = 0.0,
        fail_every: int = 0,
        max_in_flight: int = 64,
        max_prompt_tokens: int = 1 << 20,
    ) -> None:
        self.codec = ByteCodec()
        self.fingerprint = digest({"scripted": name, "fail_every": fail_every})
        self.max_prompt_tokens = max_prompt_tokens
        self._rule = rule
        self._writer = writer
        self._delay = delay
        self._fail_every = fail_every
        self.sharing = None
        self._max_in_flight = max_in_flight
        self._requests = 0
        self._tokens = 0

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer half of what is in flight at a time, the newest first."""
        intake = Intake(requests)
        waiting: deque[Request] = deque()
        while True:
            waiting += intake.take(self._max_in_flight - len(waiting))
            if waiting:
                if self._delay:
                    time.sleep(self._delay)
                yield [self._answer(waiting.pop()) for _ in range((len(waiting) + 1) // 2)]
            elif intake.exhausted:
                return

    def _answer(self, request: Request) -> Result:
        self._requests += 1
        self._tokens += len(request.token_ids)
        text = self.codec.decode(request.token_ids)
        if self._fail_every:
            stamp = hashlib.blake2b(text.encode(), digest_size=4).digest()
            if int.from_bytes(stamp, "big") % self._fail_every == 0:
                return Failure(request.id, "scripted failure")
        if not isinstance(request, ChoiceRequest):
            written = self._writer(text, request).encode()
            kept = tuple(written[: request.max_tokens])
            return GenerationResult(request.id, kept, finished=len(written) == len(kept))
        if len(request.label_ids) != 2:
            return Failure(request.id, "scripted answers are one of two labels")
        answer = self._rule(text)
        if answer is None or isinstance(answer, str):
            return Failure(request.id, answer or "scripted failure")
        logit, mass = answer
        first = mass / (1.0 + math.exp(-logit))
        logs = [math.log(p) if p > 0 else -math.inf for p in (first, mass - first)]
        return ChoiceResult(request.id, (logs[0], logs[1]))

    def stats(self) -> EngineStats:
        """Requests answered and bytes read."""
        return EngineStats(self._requests, self._tokens, 0)

    def close(self) -> None:
        """Nothing to release."""


def fingerprint(settings: EngineSettings) -> str:
    """There are no model files: the rule's name and what changes its answers."""
    manner = {name: settings.options[name] for name in _MANNERS if name in settings.options}
    held = {"scripted": settings.model, "fail_every": settings.options.get("fail_every", 0)}
    return digest({**held, **manner})


_MANNERS = {"label_mass": (0.0, 1.0), "position": (-60.0, 60.0)}
"""Options that change how the rule answers, with their limits."""


def create(settings: EngineSettings) -> ScriptedEngine:
    """The hashed rule; options: `delay` (seconds a batch), `fail_every`, `label_mass`, and
    `position` (log-odds added for the response that is shown first).
    """
    unknown = settings.options.keys() - {"delay", "fail_every", *_MANNERS}
    if unknown:
        raise RlaifError(
            f"engine 'scripted' has no option {min(unknown)!r}",
            hint="Available options: delay, fail_every, label_mass and position.",
        )
    for name, (least, most) in _MANNERS.items():
        value = settings.options.get(name, 0.0)
        if not isinstance(value, int | float) or not least <= value <= most:
            raise RlaifError(
                f"invalid value {value!r} for option {name}",
                hint=f"Use a number from {least:g} to {most:g}.",
            )
    delay, fail_every = settings.options.get("delay", 0.0), settings.options.get("fail_every", 0)
    if not isinstance(delay, int | float) or not 0 <= delay < 3600:
        raise RlaifError(
            f"invalid value {delay!r} for option delay",
            hint="Use a number of seconds from 0 to below 3600.",
        )
    if not isinstance(fail_every, int) or fail_every < 0:
        raise RlaifError(
            f"invalid value {fail_every!r} for option fail_every",
            hint="Use an integer of 0 or more.",
        )
    mass, shift = settings.options.get("label_mass"), settings.options.get("position", 0.0)

    def rule(text: str) -> tuple[float, float]:
        logit, usual = hashed_rule(text)
        return logit + float(shift), usual if mass is None else float(mass)

    return ScriptedEngine(
        rule, delay=delay, fail_every=fail_every, max_in_flight=settings.most_in_flight
    )


SPEC = EngineSpec(
    create=create,
    codec=lambda settings: ByteCodec(),
    fingerprint=fingerprint,
)

"""A judge together with the reward models that answer some principles in its place.

A question to a reward model travels as the judge's do: as token ids, which begin with a mark that
is no token and with the content address of the model.  So caches, resuming and evidence are those
of every verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from rlaif.constitution.schema import RewardModelCheck
from rlaif.engines.base import Engine, EngineStats
from rlaif.records import (
    AnyRequest,
    ChoiceRequest,
    ChoiceResult,
    Codec,
    ContextRequest,
    Failure,
    Message,
    Request,
    Result,
)
from rlaif.util.hashing import digest
from rlaif.util.numerics import log_sigmoid

_MARK = 0xFFFFFFFF
_HEAD = 5
"""The mark, and four numbers of the address."""
_BATCH = 64
"""Questions to reward models that are answered together, while the judge computes."""

Address = tuple[int, ...]


class PairCodec(Protocol):
    """A reward model's rendering, as `engines.reward_model.RewardCodec` has it."""

    def encode_pair(
        self, prompt: Sequence[Message], first: Sequence[Message], second: Sequence[Message]
    ) -> list[int]:
        """Both conversations as one list of numbers."""
        ...


def address_of(model: RewardModelCheck, fingerprint: str) -> Address:
    """What names a reward model in a question.

    Args:
        fingerprint: of the model's files.
    """
    kind = {"T": model.temperature, "by": model.backend}
    known = digest({"reward model": fingerprint, **kind}).encode()
    return tuple(int.from_bytes(known[4 * n : 4 * n + 4], "big") for n in range(_HEAD - 1))


def asks_reward_model(request: Request) -> bool:
    """Whether a question is one to a reward model."""
    return len(request.token_ids) > _HEAD and request.token_ids[0] == _MARK


class CodecWithRewards:
    """The judge's rendering, which knows those of the reward models too."""

    def __init__(
        self, judge: Codec, rewards: Mapping[RewardModelCheck, tuple[Address, PairCodec]]
    ) -> None:
        self._judge, self._rewards = judge, dict(rewards)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_judge":
            raise AttributeError(name)
        return getattr(self._judge, name)

    def encode_reward(
        self,
        model: RewardModelCheck,
        prompt: Sequence[Message],
        first: Sequence[Message],
        second: Sequence[Message],
    ) -> list[int]:
        """The question which of two responses has the higher reward.

        Raises:
            ConversationRefused: the model's chat template does not take one of them.
        """
        address, codec = self._rewards[model]
        return [_MARK, *address, *codec.encode_pair(prompt, first, second)]


class JudgeWithRewards:
    """Answers questions by the judge or by the reward model that they name.

    Args:
        judge: its results come as they finish; reward models are asked in between.
        rewards: by what names them: the running model and its temperature.
    """

    def __init__(
        self,
        judge: Engine,
        codec: CodecWithRewards,
        rewards: Mapping[Address, tuple[Engine, float]],
    ) -> None:
        self._judge, self._rewards = judge, dict(rewards)
        self.codec: Any = codec

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_judge":
            raise AttributeError(name)
        return getattr(self._judge, name)

    @property
    def fingerprint(self) -> str:
        """The judge's: questions to reward models name theirs."""
        return self._judge.fingerprint

    def run(self, requests: Iterable[AnyRequest | None]) -> Iterator[list[Result]]:
        """Answer requests; those to reward models wait for company, but for no answer."""
        split = _Split(requests, self._score)
        while not split.exhausted:
            asked = cast("Iterator[Request | None]", split.for_judge())
            for results in self._judge.run(asked):
                split.open -= len(results)
                yield [*results, *split.take_scored()]
            scored = split.take_scored()
            if scored:
                yield scored

    def _score(self, requests: Sequence[ChoiceRequest]) -> list[Result]:
        found: list[Result] = []
        for address in dict.fromkeys(tuple(r.token_ids[1:_HEAD]) for r in requests):
            mine = [r for r in requests if tuple(r.token_ids[1:_HEAD]) == address]
            if address not in self._rewards:
                found += [Failure(r.id, "its reward model is not running here") for r in mine]
                continue
            engine, temperature = self._rewards[address]
            plain = [ChoiceRequest(r.id, r.token_ids[_HEAD:], r.label_ids) for r in mine]
            for results in engine.run(plain):
                found += [_at(temperature, result) for result in results]
        return found

    def stats(self) -> EngineStats:
        """The counters of all of them."""
        found = self._judge.stats()
        for engine in dict.fromkeys(engine for engine, _ in self._rewards.values()):
            found = found.plus(engine.stats())
        return found

    def close(self) -> None:
        """Stop all of them."""
        try:
            self._judge.close()
        finally:
            for engine, _ in self._rewards.values():
                engine.close()


def _at(temperature: float, result: Result) -> Result:
    """A result at temperature 1, at another one."""
    if not isinstance(result, ChoiceResult):
        return result
    logit = (result.logprobs[0] - result.logprobs[1]) / temperature
    return ChoiceResult(result.id, (log_sigmoid(logit), log_sigmoid(-logit)), result.evidence)


class _Split:
    """Requests, parted: the judge pulls its own, and those to reward models are answered.

    Attributes:
        open: requests that the judge has not answered yet.
        exhausted: whether there are no more.
    """

    def __init__(self, requests: Iterable[AnyRequest | None], score: Any) -> None:
        self._source, self._score = iter(requests), score
        self._waiting: list[Request] = []
        self._scored: list[Result] = []
        self.open = 0
        self.exhausted = False

    def for_judge(self) -> Iterator[AnyRequest | None]:
        """The judge's requests.  It ends where the source waits for answers of reward models, and
        the judge has nothing to answer that would give the occasion to tell them.
        """
        for request in self._source:
            if isinstance(request, ContextRequest):
                self.open += len(request.ids)
                yield request
                continue
            if request is not None and asks_reward_model(request):
                self._waiting.append(request)
                if len(self._waiting) >= _BATCH:
                    self._answer()
                continue
            if request is None:
                self._answer()
                if self._scored and not self.open:
                    return
            else:
                self.open += 1
            yield request
        self.exhausted = True
        self._answer()

    def take_scored(self) -> list[Result]:
        """What reward models have answered."""
        found, self._scored = self._scored, []
        return found

    def _answer(self) -> None:
        if self._waiting:
            asked, self._waiting = self._waiting, []
            self._scored += self._score(asked)

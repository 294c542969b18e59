"""Reward models as judges: sequence classifiers that score one response to a conversation.

A pair's log-odds are the difference of its rewards over a temperature, as in the Bradley-Terry
model that they are trained by (Christiano et al. 2017, arXiv:1706.03741, section 2.2.3):
p = sigmoid((r_first - r_second) / T).  They read no principle, and know no position.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
import transformers

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, Intake
from rlaif.engines.causal_model import load_whole
from rlaif.engines.codec import HFCodec, context_length
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.transformers_engine import DTYPES, steady_positions
from rlaif.engines.vllm_start import (
    dtype_of,
    refuse_wrong,
    sequence_length,
    start_vllm,
    stop_vllm,
    unscaled_length,
)
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, Message, Request, Result
from rlaif.templates.messages import message_text
from rlaif.util.hashing import digest
from rlaif.util.numerics import log_sigmoid

_KEPT_REWARDS = 1 << 16
"""Rewards remembered: both orders of a pair, and other pairs with the same response, need no
second pass."""
_OPTIONS = ("temperature", "backend", "batch_size")


class RewardCodec(HFCodec):
    """A reward model's rendering: whole conversations, two of them to a question."""

    def encode_pair(
        self, prompt: Sequence[Message], first: Sequence[Message], second: Sequence[Message]
    ) -> list[int]:
        """Both conversations, the first headed by how many tokens it has.

        Raises:
            ConversationRefused: the chat template does not take one of them.
        """
        one, two = (self.encode_whole([_flat(m) for m in (*prompt, *s)]) for s in (first, second))
        return [len(one), *one, *two]

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Raises ConversationRefused: there is nothing that a reward model would answer."""
        raise ConversationRefused(
            "a reward model compares two responses, and answers no question about one",
            hint="Use a judge that is a language model.",
        )

    def spellings(self, label: str) -> tuple[int, ...]:
        """A number for each label: it has no tokens."""
        return (int.from_bytes(label.encode()[:3], "big"),)


def _flat(message: Message) -> Message:
    """A message with its calls and its thought as text: few reward models know more."""
    return {"role": message["role"], "content": message_text(message)}


class Scorer(Protocol):
    """What computes rewards.

    Attributes:
        dtype: of its weights, with how they are quantized.
    """

    dtype: str

    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """The reward of each conversation, given as token ids."""
        ...

    def close(self) -> None:
        """Release memory and processes; safe to call twice."""
        ...


class TransformersScorer:
    """Plain forward passes of the `transformers` library, its head in float32.

    Raises:
        RlaifError: it can't be loaded, lacks weights, or has not one output.
    """

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        auto = torch.float32 if self._device == "cpu" else "auto"
        dtype = DTYPES.get(settings.dtype, auto)
        model = load_whole(
            transformers.AutoModelForSequenceClassification, files.path, files.name, dtype
        )
        self._model: Any = model.to(self._device).eval()
        head = getattr(self._model, "score", None)
        if head is not None and self._model.dtype != torch.float32:
            head.float()
            head.register_forward_pre_hook(lambda _module, given: (given[0].float(),))
        self._pad = self._model.config.get_text_config().pad_token_id
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        longest = settings.max_model_len or context_length(files)
        # Some positions depend on the longest conversation of a pass.
        self._alone = steady_positions(self._model.config) < longest

    @torch.inference_mode()
    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """One padded batch; one by one where the model names no token to pad with, or where what
        shares a pass would change its positions.
        """
        if len(rows) > 1 and (self._alone or self._pad is None):
            return [reward for row in rows for reward in self.score([row])]
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad or 0)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(list(row))
            mask[i, : len(row)] = 1
        out = self._model(input_ids=ids.to(self._device), attention_mask=mask.to(self._device))
        return [float(reward) for reward in out.logits[:, 0].float()]

    def close(self) -> None:
        """Drop the weights."""
        self._model = None


class VLLMScorer:
    """vLLM's pooling runner, without the activation that would bend rewards.

    Raises:
        RlaifError: vLLM does not start with the model.
    """

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        refuse_wrong(files)
        length, _ = sequence_length(files, settings)
        length = min(length, unscaled_length(files))
        self.dtype = f"{dtype_of(settings)} {settings.quantization or ''}".strip()
        own = {"runner": "pooling", "convert": "classify"}
        self._llm: Any = start_vllm(files, settings, own, length=length, dtype=dtype_of(settings))
        from vllm import PoolingParams  # noqa: PLC0415 - after its start, see `start_vllm`

        self._parameters = PoolingParams(use_activation=False)

    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """All of them at once: vLLM schedules them."""
        found = self._llm.encode(
            [{"prompt_token_ids": list(row)} for row in rows],
            pooling_params=self._parameters,
            pooling_task="classify",
            use_tqdm=False,
        )
        return [float(one.outputs.data.flatten()[0]) for one in found]

    def close(self) -> None:
        """Stop its engine."""
        if self._llm is not None:
            stop_vllm(self._llm)
        self._llm = None


class RewardEngine:
    """Answers which of two responses has the higher reward.

    Args:
        temperature: rewards per nat of log-odds.
        batch_size: pairs that are scored together.
    """

    def __init__(
        self,
        files: ModelFiles,
        settings: EngineSettings,
        scorer: Scorer,
        *,
        temperature: float,
        batch_size: int,
        backend: str,
    ) -> None:
        self.codec = RewardCodec(files, settings.chat_template_options, settings.max_model_len)
        self._longest = settings.max_model_len or context_length(files)
        if backend == "vllm":
            self._longest = min(sequence_length(files, settings)[0], unscaled_length(files))
        self.max_prompt_tokens = 2 * self._longest + 1
        self.sharing = None
        self._scorer, self._temperature, self._batch_size = scorer, temperature, batch_size
        kind = {"dtype": scorer.dtype, "by": f"reward-model {backend}", "T": temperature}
        self.fingerprint = digest({"model": files.fingerprint, **kind})
        self._rewards: OrderedDict[tuple[int, ...], float] = OrderedDict()
        self._requests = self._tokens = self._cached = 0

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer in batches, in order."""
        intake = Intake(requests)
        while not intake.exhausted:
            batch = intake.take(self._batch_size)
            if batch:
                yield self._answer(batch)

    def _answer(self, batch: Sequence[Request]) -> list[Result]:
        sides: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        refused: dict[str, str] = {}
        for request in batch:
            if not isinstance(request, ChoiceRequest):
                refused[request.id] = "a reward model writes nothing"
                continue
            count = request.token_ids[0]
            ids = tuple(request.token_ids[1:])
            one, two = ids[:count], ids[count:]
            longest = max(len(one), len(two))
            if longest > self._longest:
                limit = f"the limit is {self._longest}"
                refused[request.id] = f"a conversation has {longest} tokens; {limit}"
                continue
            sides[request.id] = one, two
        self._score([side for both in sides.values() for side in both])
        self._requests += len(batch)
        results: list[Result] = [Failure(name, reason) for name, reason in refused.items()]
        for name, (one, two) in sides.items():
            results.append(self._compare(name, self._rewards[one], self._rewards[two]))
        while len(self._rewards) > _KEPT_REWARDS:
            self._rewards.popitem(last=False)
        return results

    def _compare(self, name: str, one: float, two: float) -> Result:
        if not (math.isfinite(one) and math.isfinite(two)):
            return Failure(name, f"a reward is no finite number ({one:g} and {two:g})")
        logit = (one - two) / self._temperature
        logs = log_sigmoid(logit), log_sigmoid(-logit)
        return ChoiceResult(name, logs, evidence=f"rewards {one:.4f} and {two:.4f}")

    def _score(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Make sure that the reward of each conversation is known."""
        fresh = [row for row in dict.fromkeys(rows) if row not in self._rewards]
        for row in rows:
            if row in self._rewards:
                self._rewards.move_to_end(row)
        self._tokens += sum(map(len, rows))
        self._cached += sum(map(len, rows)) - sum(map(len, fresh))
        if fresh:
            fresh.sort(key=len)
            self._rewards.update(zip(fresh, self._scorer.score(fresh), strict=True))

    def stats(self) -> EngineStats:
        """Requests and tokens; cached are those of conversations whose reward was known."""
        return EngineStats(self._requests, self._tokens, self._cached)

    def close(self) -> None:
        """Drop the weights."""
        self._scorer.close()


_SCORERS: dict[str, Callable[[ModelFiles, EngineSettings], Scorer]] = {
    "transformers": TransformersScorer,
    "vllm": VLLMScorer,
}


def create(settings: EngineSettings) -> RewardEngine:
    """Load the model; options: `temperature` (1), `backend` (transformers, vllm), `batch_size`.

    Raises:
        RlaifError: an option is wrong, or the model is no reward model or can't be loaded.
    """
    options = dict(settings.options)
    temperature, backend = options.pop("temperature", 1.0), options.pop("backend", "transformers")
    batch_size = options.pop("batch_size", 8)
    if options:
        raise RlaifError(
            f"engine 'reward-model' has no option {next(iter(options))!r}",
            hint=f"Available options: {', '.join(_OPTIONS)}.",
        )
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not 0 < float(temperature) < math.inf:
        raise RlaifError(
            f"invalid value {temperature!r} for option temperature", hint="Use a number above 0."
        )
    if backend not in _SCORERS:
        raise RlaifError(
            f"invalid value {backend!r} for option backend",
            hint=f"Use one of: {', '.join(_SCORERS)}.",
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise RlaifError(
            f"invalid value {batch_size!r} for option batch_size",
            hint="Use an integer of 1 or more.",
        )
    if settings.quantization and backend != "vllm":
        raise RlaifError(
            "engine 'reward-model' does not support quantization on transformers",
            hint="Use --option backend=vllm.",
        )
    files = resolve_model(settings.model, settings.revision)
    refuse_no_reward(files)
    return RewardEngine(
        files,
        settings,
        _SCORERS[str(backend)](files, settings),
        temperature=float(temperature),
        batch_size=batch_size,
        backend=str(backend),
    )


def refuse_no_reward(files: ModelFiles) -> None:
    """Refuse a model that is no classifier of sequences with one output.

    Raises:
        RlaifError: it is not, by its config.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(files.path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise RlaifError(
            f"config of {files.name!r} could not be read ({error})", hint="Check config.json."
        ) from None
    kinds = [str(kind) for kind in getattr(config, "architectures", None) or []]
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        named = f"a {kinds[0]}" if kinds else "of no known kind"
        raise RlaifError(
            f"model {files.name!r} is {named}: it has no reward",
            hint="Use a model whose architecture ends in ForSequenceClassification, or another "
            "--engine for a language model.",
        )
    if config.num_labels != 1:
        raise RlaifError(
            f"model {files.name!r} has {config.num_labels} outputs; a reward model has one",
            hint="Use a reward model with `num_labels: 1`.",
        )


def codec(settings: EngineSettings) -> RewardCodec:
    """Its rendering, without its weights."""
    files = resolve_model(settings.model, settings.revision)
    return RewardCodec(files, settings.chat_template_options, settings.max_model_len)


SPEC = EngineSpec(
    create=create,
    codec=codec,
    speed_options=("batch_size",),
    can_generate=lambda settings: False,
    has_tokens=False,
    reads_principles=False,
)

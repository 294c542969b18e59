"""The engine contract: settings, requests in, results out, and what a plug-in declares.

An engine takes requests from an iterator and gives results as they finish, in any order, by
id.  It pulls a request only when it has room, so what is in flight stays bounded.  A request
that fails is a `Failure` result; only a broken engine raises.  A `None` from the iterator says
"nothing to ask for now": the engine answers what it has and comes back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal, Protocol

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_serializer,
)

from rlaif.constitution.schema import RewardModelCheck
from rlaif.records import Codec, Request, Result
from rlaif.util.addresses import without_secrets
from rlaif.util.user_functions import IN_RECIPE

Option = str | int | float | bool
_CODE = {
    "distributed_executor_backend",
    "logits_processors",
    "reasoning_parser_plugin",
    "scheduler_cls",
    "tool_parser_plugin",
    "worker_cls",
    "worker_extension_cls",
}
"""Arguments of vLLM that name code to load."""

SPEED_ONLY = {
    "max_in_flight",
    "data_parallel_size",
    "tensor_parallel_size",
    "gpu_memory_utilization",
    "kv_cache_gib",
}
"""Fields of `EngineSettings` that change no answer, and so no run's identity."""

LONGEST_TOKEN = 128
"""Characters that a token stands for at most: the longest are runs of spaces."""


class EngineSettings(BaseModel):
    """Which model an engine runs, and how.

    The first group decides the numbers that come out and is part of a run's identity; the
    second decides speed only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = Field(
        default="vllm",
        description="Inference engine (`rlaif engines` lists them); auto picks the fastest that "
        "`rlaif bench` measured on this machine.",
    )
    model: str = Field(
        description="Model folder, Hugging Face model ID, or `demo` for the bundled demo judge."
    )
    revision: str | None = Field(default=None, description="Hub revision: branch, tag, or commit.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Data type of the weights; auto: the model's own (float32 on CPU).",
    )
    quantization: str | None = Field(
        default=None, description="Quantization method, as in vLLM: fp8, awq, gptq, ..."
    )
    seed: int = Field(default=0, description="Random seed of the engine.")
    max_model_len: int | None = Field(
        default=None,
        ge=16,
        description="Maximum context length in tokens. [default: the model's, at most 16384]",
    )
    chat_template_options: dict[str, Option] = Field(
        default={"enable_thinking": False},
        description="Variables for the model's chat template. A judge must start its answer with a "
        "label, so thinking is disabled where the template supports it.",
    )

    max_in_flight: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of concurrent requests to the engine. [default: vllm: as many "
        "as three of its steps take; others: 256]",
    )
    data_parallel_size: int = Field(
        default=1, ge=1, description="Number of model replicas, each on its own devices."
    )
    tensor_parallel_size: int = Field(
        default=1, ge=1, description="Number of devices to shard each replica across."
    )
    gpu_memory_utilization: float = Field(
        default=0.9, gt=0, le=1, description="Share of GPU memory that vLLM may use."
    )
    kv_cache_gib: float = Field(default=1.0, gt=0, description="KV cache size in GiB on CPU.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Arguments passed to the engine unchanged."
    )

    _reward_models: tuple[RewardModelCheck, ...] = PrivateAttr(())

    @field_validator("options")
    @classmethod
    def _without_code(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Model code stays off, and no file names code to load."""
        for key, value in options.items():
            if not isinstance(value, Option | list | dict):
                raise ValueError(f"{key}: use a text, a number, true, false, a list or a mapping")
        inside = list(_named(options))
        if any(k == "trust_remote_code" and v not in (None, False, "false") for k, v in inside):
            raise ValueError("trust_remote_code: the code of a model is never run")
        named = sorted(_CODE & {key for key, _ in inside})
        if named and os.environ.get(IN_RECIPE):
            raise ValueError(f"{named[0]}: a recipe can't name code to load")
        return options

    @field_serializer("options", when_used="json")
    def _without_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        """What is written to files names no user and no password of an address."""
        return {key: _shown(value) for key, value in options.items()}

    @model_serializer(mode="wrap")
    def _without_unsaid(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A chat server gets variables of its template only if the user said so: what was not said
        is not written down as if it were.
        """
        found: dict[str, Any] = dump(self)
        if (
            self.engine in ("openai", "litellm")
            and "chat_template_options" not in self.model_fields_set
        ):
            found.pop("chat_template_options", None)
        return found

    @property
    def reward_models(self) -> tuple[RewardModelCheck, ...]:
        """Those that answer some of the constitution's principles: part of it, and not of what is
        said of the judge.
        """
        return self._reward_models

    def with_reward_models(self, models: Sequence[RewardModelCheck]) -> EngineSettings:
        """The same judge, beside other reward models."""
        found = self.model_copy()
        found._reward_models = tuple(models)
        return found

    @property
    def most_in_flight(self) -> int:
        """Requests at once for engines that count requests alone."""
        return self.max_in_flight or 256

    @property
    def numbers(self) -> str:
        """What kind of numbers the judge is in, as asked: not every engine takes every kind."""
        return f"{self.dtype}, {self.quantization or 'as it is'}; "


def _named(value: object) -> Iterator[tuple[str, object]]:
    """All names in options with their values, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from _named(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner)


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) and "://" in value else value


@dataclass(frozen=True)
class EngineStats:
    """What an engine did so far, by its own counters.

    Attributes:
        prompt_tokens: tokens of all prompts.
        cached_tokens: those of them that it did not compute, since it had them already.
        idle_seconds: how long it had room and nothing to do.
        written_tokens: tokens of answers from which labels were read.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    idle_seconds: float = 0.0
    written_tokens: int = 0

    def plus(self, other: EngineStats) -> EngineStats:
        """Both together."""
        both = zip(astuple(self), astuple(other), strict=True)
        return EngineStats(*(one + two for one, two in both))


@dataclass(frozen=True)
class PrefixSharing:
    """How an engine spares the tokens that neighboring prompts share.

    Attributes:
        block: prefixes are shared in multiples of this many tokens.
        capacity: tokens of keys and values it can hold; 0 if it keeps those of the prompt before
            and no others.
    """

    block: int
    capacity: int


class Engine(Protocol):
    """A running model.

    One whose attribute `elsewhere` is true computes in another process or on a server, so others
    may run beside it.  One whose attribute `takes_contexts` is true is given `ContextRequest`s as
    well, and answers each of their choices by its id; others get the choices one by one.
    """

    @property
    def fingerprint(self) -> str:
        """Content address of the model and of whatever changes its numbers."""
        ...

    @property
    def codec(self) -> Codec:
        """The model's text rendering."""
        ...

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt it takes."""
        ...

    @property
    def sharing(self) -> PrefixSharing | None:
        """How it shares prefixes; None if it computes every prompt from scratch."""
        ...

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer requests; results come in batches as they finish."""
        ...

    def stats(self) -> EngineStats:
        """Counters since the start."""
        ...

    def close(self) -> None:
        """Release memory and processes; safe to call twice."""
        ...


class Intake:
    """Takes requests from an iterator as there is room, and minds its pauses (`None`).

    Attributes:
        exhausted: whether there are no more.
        waited: seconds spent on getting them.
    """

    def __init__(self, requests: Iterable[Request | None]) -> None:
        self._source = iter(requests)
        self.exhausted = False
        self.waited = 0.0

    def take(self, room: int) -> list[Request]:
        """At most `room` requests: fewer at a pause or at the end."""
        taken: list[Request] = []
        began = time.perf_counter()
        while not self.exhausted and len(taken) < room:
            try:
                request = next(self._source)
            except StopIteration:
                self.exhausted = True
                break
            if request is None:
                break
            taken.append(request)
        self.waited += time.perf_counter() - began
        return taken


def _always(settings: EngineSettings) -> bool:
    return True


def _never(settings: EngineSettings) -> bool:
    return False


def _no_number(settings: EngineSettings) -> int | None:
    return None


@dataclass(frozen=True)
class EngineSpec:
    """What a module declares of its engine; a plug-in's entry point names one.

    Attributes:
        create: starts the engine.
        codec: the model's text rendering; None for the tokenizer among the model's files.
        fingerprint: content address of the model; None for that of the model's files.
        speed_options: names of `EngineSettings.options` that change no answer.
        can_generate: whether the engine generates text, beside reading labels.
        takes_pictures: whether requests may hold pictures; then the codec has
            `encode_with_pictures`, as `engines.codec.HFCodec` has it.
        open_pairs: how many pairs the labeling loop may have open, for engines that ask many
            requests together; None for the usual number.
        has_tokens: whether its codec's tokens are the model's, so that a run's can be planned.
        reads_principles: whether it judges by the principle; a reward model has an opinion of its
            own, and judges by one principle alone.
        takes_nested_options: whether options may be lists and mappings, and not plain values alone.
        replicates_itself: whether it starts `data_parallel_size` replicas by itself.
        backend: where workers with an engine each are started (a `workers.Backend`); None for
            processes on this machine.
    """

    create: Callable[[EngineSettings], Engine]
    codec: Callable[[EngineSettings], Codec] | None = None
    fingerprint: Callable[[EngineSettings], str] | None = None
    speed_options: tuple[str, ...] = ()
    can_generate: Callable[[EngineSettings], bool] = _always
    takes_pictures: Callable[[EngineSettings], bool] = _never
    open_pairs: Callable[[EngineSettings], int | None] = _no_number
    has_tokens: bool = True
    reads_principles: bool = True
    takes_nested_options: bool = False
    replicates_itself: bool = False
    backend: Callable[[EngineSettings], Any] | None = None

    @property
    def has_files(self) -> bool:
        """Whether the engine runs a model's files: not a rule, nor a model behind a server."""
        return self.fingerprint is None or self.replicates_itself

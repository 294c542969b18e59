"""The engine contract, and the registry that finds an engine by name.

An engine takes requests from an iterator and gives results as they finish, in any order, by
id.  It pulls a request only when it has room, so what is in flight stays bounded.  A request
that fails is a `Failure` result; only a broken engine raises.  A `None` from the iterator says
"nothing to ask for now": the engine answers what it has and comes back.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from rlaif.errors import RlaifError
from rlaif.records import Codec, Request, Result

ENTRY_POINT_GROUP = "rlaif.engines"


Option = str | int | float | bool


class EngineSettings(BaseModel):
    """Which model an engine runs, and how.

    The first group decides the numbers that come out and is part of a run's identity; the
    second decides speed only.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = Field(
        default="vllm",
        description="`rlaif engines` lists them; auto takes what `rlaif bench` found fastest here.",
    )
    model: str = Field(description="A folder, a hub id, or `demo` for the embedded judge.")
    revision: str | None = Field(default=None, description="Hub revision: branch, tag, commit.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: str | None = Field(default=None, description="As vLLM's: fp8, awq, gptq, ...")
    seed: int = 0
    max_model_len: int | None = Field(
        default=None, ge=16, description="Longest prompt. Default: the model's, at most 16384."
    )
    chat_template_options: dict[str, Option] = Field(
        default={"enable_thinking": False},
        description="Variables of the model's chat template. A judge that is asked for a label "
        "at once must not open with a thinking block, so thinking is off where it can be.",
    )

    max_in_flight: int = Field(default=256, ge=1, description="Requests given to the engine.")
    data_parallel_size: int = Field(
        default=1, ge=1, description="Copies of the judge, each on devices of its own."
    )
    tensor_parallel_size: int = Field(
        default=1, ge=1, description="Devices that one copy of the judge is spread over."
    )
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    kv_cache_gib: float = Field(default=1.0, gt=0, description="KV cache on the CPU.")
    options: dict[str, Option] = Field(
        default_factory=dict, description="Passed to the engine as they are."
    )

    @property
    def numbers(self) -> str:
        """What kind of numbers the judge is in, as asked: not every engine takes every kind."""
        return f"{self.dtype}, {self.quantization or 'as it is'}; "


@dataclass(frozen=True)
class EngineStats:
    """What an engine did so far, by its own counters.

    Attributes:
        prompt_tokens: tokens of all prompts.
        cached_tokens: those of them that it did not compute, since it had them already.
        idle_seconds: how long it had room and nothing to do.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    idle_seconds: float = 0.0

    def plus(self, other: EngineStats) -> EngineStats:
        """Both together."""
        return EngineStats(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.idle_seconds + other.idle_seconds,
        )


@dataclass(frozen=True)
class PrefixSharing:
    """How an engine spares the tokens that neighbouring prompts share.

    Attributes:
        block: prefixes are shared in multiples of this many tokens.
        capacity: tokens of keys and values it can hold; 0 if it keeps those of the prompt before
            and no others.
    """

    block: int
    capacity: int


class Engine(Protocol):
    """A running model.

    Attributes:
        fingerprint: content address of the model and of whatever changes its numbers.
        codec: its text rendering.
        max_prompt_tokens: the longest prompt it takes.
        sharing: how it shares prefixes; None if it computes every prompt from scratch.
    """

    fingerprint: str
    codec: Codec
    max_prompt_tokens: int
    sharing: PrefixSharing | None

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


EngineFactory = Callable[[EngineSettings], Engine]


@dataclass(frozen=True)
class EngineInfo:
    """An engine as `rlaif engines` shows it.

    Attributes:
        module: the library it needs; its absence makes the engine unavailable.
        target: `package.module:factory`.
        reads: how it reads a verdict, and why so.
    """

    name: str
    summary: str
    module: str
    install: str
    target: str
    reads: str = ""

    @property
    def available(self) -> bool:
        """Whether its library is installed here."""
        return not self.module or find_spec(self.module) is not None


_BUILTIN = (
    EngineInfo(
        name="vllm",
        summary="vLLM in this process, on a GPU or with its CPU build; the default",
        module="vllm",
        install="pip install 'rlaif[vllm]' (GPU), or run scripts/setup.sh in a checkout (CPU build)",
        target="rlaif.engines.vllm_engine:create",
        reads="one prefill, log-probabilities of exactly the label tokens, float32 head; "
        "steps in this process, prefix blocks of 16 tokens (32 on a CPU) by "
        "xxhash. A classification head would lose the label mass (and was slower: BENCHMARKS.md).",
    ),
    EngineInfo(
        name="packed",
        summary="one forward pass per tree of questions, over transformers weights: for small judges",
        module="transformers",
        install="pip install rlaif",
        target="rlaif.engines.packed_engine:create",
        reads="all questions about a context in one pass under a tree mask, logits where answers are "
        "read and nowhere else, float32 head; every token once. On a CPU, models like Llama, "
        "Mistral and Qwen in float32 run on kernels of its own, if numba is there.",
    ),
    EngineInfo(
        name="transformers",
        summary="plain forward passes of the transformers library: slow, exact, the reference",
        module="transformers",
        install="pip install rlaif",
        target="rlaif.engines.transformers_engine:create",
        reads="left-padded batches, full logits of the last position.",
    ),
    EngineInfo(
        name="ray",
        summary="copies of another engine as actors on a Ray cluster: several machines",
        module="ray",
        install="pip install 'rlaif[ray]'",
        target="rlaif.engines.ray_engine:create",
        reads="as the engine inside, `--option inner=vllm` or another; contexts stay whole on a copy.",
    ),
    EngineInfo(
        name="vllm-server",
        summary="a judge behind `vllm serve --enable-scale-out`: other machines, or one engine for many",
        module="transformers",
        install="pip install rlaif",
        target="rlaif.engines.vllm_server:create",
        reads="as vllm does, over HTTP: token ids in, log-probabilities of exactly the label tokens out.",
    ),
    EngineInfo(
        name="openai",
        summary="a model behind a chat server (vllm serve, or a service): for writing, not for judging",
        module="httpx",
        install="pip install rlaif",
        target="rlaif.engines.openai_engine:create",
        reads="it does not: chat servers tell the likeliest tokens, not the labels' exact probability.",
    ),
    EngineInfo(
        name="scripted",
        summary="answers by a fixed rule without any model: for tests and dry experiments",
        module="",
        install="",
        target="rlaif.engines.scripted:create",
    ),
)


def model_fingerprint(settings: EngineSettings) -> str:
    """Content address of the model that `settings` names, without starting an engine.

    An engine's module may define `fingerprint(settings)`; else the model's files are addressed.

    Raises:
        RlaifError: the engine or the model is not found.
    """
    own = getattr(_module(settings.engine), "fingerprint", None)
    if own is not None:
        return str(own(settings))
    hub = importlib.import_module("rlaif.engines.hub")
    return str(hub.resolve_model(settings.model, settings.revision).fingerprint)


def codec_for(settings: EngineSettings) -> Codec:
    """The text rendering of a model, without starting an engine.

    An engine's module may define `codec(settings)`; else the model's own tokenizer is loaded.

    Raises:
        RlaifError: the engine, the model or its tokenizer is not found.
    """
    own = getattr(_module(settings.engine), "codec", None)
    if own is None:
        codecs = importlib.import_module("rlaif.engines.codec")
        hub = importlib.import_module("rlaif.engines.hub")
        files = hub.resolve_model(settings.model, settings.revision)
        found: Codec = codecs.HFCodec(files, settings.chat_template_options)
        return found
    codec: Codec = own(settings)
    return codec


def speed_options(settings: EngineSettings) -> tuple[str, ...]:
    """Names of the engine's options that change no answer: its module's `SPEED_OPTIONS`."""
    return tuple(getattr(_module(settings.engine), "SPEED_OPTIONS", ()))


def has_files(settings: EngineSettings) -> bool:
    """Whether the engine runs a model's files: not one by rule, nor one behind a server."""
    module = _module(settings.engine)
    return getattr(module, "fingerprint", None) is None or getattr(
        module, "REPLICATES_ITSELF", False
    )


def can_generate(settings: EngineSettings) -> bool:
    """Whether the engine writes text, beside reading labels.

    An engine's module may define `generates(settings)`; else it does.
    """
    own = getattr(_module(settings.engine), "generates", None)
    return True if own is None else bool(own(settings))


def list_engines() -> list[EngineInfo]:
    """Built-in engines, then those that installed packages add by entry point."""
    found = list(_BUILTIN)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        source = entry.dist.name if entry.dist else "a package"
        found.append(
            EngineInfo(
                name=entry.name,
                summary=f"added by {source}",
                module="",
                install="",
                target=entry.value,
            )
        )
    return found


def _find(name: str) -> EngineInfo:
    engines = {info.name: info for info in list_engines()}
    info = engines.get(name)
    if info is None:
        close = get_close_matches(name, engines, n=1)
        guess = f"Did you mean {close[0]!r}? " if close else ""
        raise RlaifError(
            f"engine {name!r} is unknown", hint=f"{guess}Use one of: {', '.join(engines)}."
        )
    if not info.available:
        raise RlaifError(
            f"engine {info.name!r} needs the package {info.module!r}, which is not installed",
            hint=f"Install it: {info.install}.",
        )
    return info


def _module(name: str) -> ModuleType:
    return importlib.import_module(_find(name).target.partition(":")[0])


def backend_for(settings: EngineSettings) -> Any:
    """Where `settings.data_parallel_size` workers with an engine each can be started.

    Returns:
        See `rlaif.engines.workers.Backend`.

    Raises:
        RlaifError: no such engine, or too few devices.
    """
    own = getattr(_module(settings.engine), "backend", None)
    return (own or importlib.import_module("rlaif.engines.workers").processes)(settings)


def create_engine(settings: EngineSettings) -> Engine:
    """Start the engine that `settings.engine` names.

    Raises:
        RlaifError: no such engine, its library is not installed, or the model can't be loaded.
    """
    attribute = _find(settings.engine).target.partition(":")[2]
    module = _module(settings.engine)
    if settings.data_parallel_size > 1 and not getattr(module, "REPLICATES_ITSELF", False):
        replicas = importlib.import_module("rlaif.engines.replicas")
        engine: Engine = replicas.on_this_machine(settings, codec_for(settings))
        return engine
    factory: EngineFactory = getattr(module, attribute)
    return factory(settings)

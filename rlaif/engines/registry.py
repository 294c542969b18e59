"""Finds an engine by name, and starts it: the built-in ones, and those of other packages.

A package adds an engine with an entry point in the group `rlaif.engines` that names an
`EngineSpec`.  Modules of engines are imported when their engine is used, and not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, cast

from rlaif.constitution.schema import RewardModelCheck
from rlaif.engines.base import Engine, EngineSettings, EngineSpec
from rlaif.engines.replicas import Replica, ReplicatedEngine
from rlaif.engines.with_rewards import (
    Address,
    CodecWithRewards,
    JudgeWithRewards,
    address_of,
)
from rlaif.engines.workers import Backend, open_process_backend
from rlaif.errors import RlaifError
from rlaif.records import Codec
from rlaif.util.hashing import digest

ENTRY_POINT_GROUP = "rlaif.engines"


@dataclass(frozen=True)
class EngineInfo:
    """An engine as `rlaif engines` shows it.

    Attributes:
        module: the library it needs; its absence makes the engine unavailable.
        target: `package.module:name` of its `EngineSpec`.
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


_PIP_RLAIF = "pip install . in the checkout"
_BUILTIN = (
    EngineInfo(
        name="vllm",
        summary="vLLM in this process, GPU or CPU build (default)",
        module="vllm",
        install="pip install '.[vllm]' in the checkout on a GPU machine, or run scripts/setup.sh "
        "(CPU build)",
        target="rlaif.engines.vllm_engine:SPEC",
        reads="One prefill per verdict. Reads exact log-probabilities of the label tokens from a "
        "float32 head. Prefix blocks have 16 tokens (32 on a CPU).",
    ),
    EngineInfo(
        name="packed",
        summary="one forward pass per tree of questions; fastest for small judges",
        module="transformers",
        install=_PIP_RLAIF,
        target="rlaif.engines.packed_engine:SPEC",
        reads="All questions about a context share one pass under a tree mask, so every token is "
        "computed once. Logits are computed only at answer positions, with a float32 head. On a "
        "CPU, float32 models like Llama, Mistral and Qwen run on built-in kernels (needs numba).",
    ),
    EngineInfo(
        name="transformers",
        summary="plain transformers forward passes: slow, exact, the reference",
        module="transformers",
        install=_PIP_RLAIF,
        target="rlaif.engines.transformers_engine:SPEC",
        reads="Left-padded batches; full logits at the last position.",
    ),
    EngineInfo(
        name="ray",
        summary="replicas of another engine as actors on a Ray cluster",
        module="ray",
        install="pip install '.[ray]' in the checkout",
        target="rlaif.engines.ray_engine:SPEC",
        reads="As the inner engine does; choose it with `--option inner=vllm`. Questions about one "
        "context stay on one replica.",
    ),
    EngineInfo(
        name="reward-model",
        summary="a reward model (sequence classifier) as the judge of whole pairs",
        module="transformers",
        install=_PIP_RLAIF,
        target="rlaif.engines.reward_model:SPEC",
        reads="p = sigmoid((r_first - r_second) / T); T is `--option temperature`. It reads no "
        "principle and has no position bias. `--option backend=vllm` uses vLLM's pooling runner.",
    ),
    EngineInfo(
        name="vllm-server",
        summary="a judge behind `vllm serve --enable-scale-out`",
        module="transformers",
        install=_PIP_RLAIF,
        target="rlaif.engines.vllm_server:SPEC",
        reads="As the vllm engine, over HTTP: token IDs in, exact label log-probabilities out.",
    ),
    EngineInfo(
        name="sglang-server",
        summary="a judge behind an SGLang server (untried on the real server)",
        module="transformers",
        install=_PIP_RLAIF,
        target="rlaif.engines.sglang_server:SPEC",
        reads="Token IDs in, exact label log-probabilities out. All questions about a context "
        "go in one request; `--option score=true` uses multi-item scoring.",
    ),
    EngineInfo(
        name="openai",
        summary="a chat server with an OpenAI API: vLLM, SGLang, llama.cpp, Ollama, OpenAI, ...",
        module="httpx",
        install=_PIP_RLAIF,
        target="rlaif.engines.openai_engine:SPEC",
        reads="From the likeliest tokens (`top_logprobs`) where the server gives them. A label "
        "that is not among them gets the bound that they leave. Elsewhere by votes, drawn until "
        "the answer is clear; the probability is their posterior mean.",
    ),
    EngineInfo(
        name="litellm",
        summary="other providers' APIs through LiteLLM: Anthropic, Gemini, Bedrock, ...",
        module="litellm",
        install="pip install '.[litellm]' in the checkout",
        target="rlaif.engines.litellm_engine:SPEC",
        reads="As the openai engine does. Models are named as LiteLLM names them, such as "
        "`anthropic/MODEL`; keys come from the environment.",
    ),
    EngineInfo(
        name="recorded",
        summary="verdicts that were recorded elsewhere (`rlaif import-verdicts`)",
        module="",
        install="",
        target="rlaif.labeling.recorded:SPEC",
        reads="Winners or probabilities of any judge, from a file.",
    ),
    EngineInfo(
        name="scripted",
        summary="answers by a fixed rule, without a model: for tests",
        module="",
        install="",
        target="rlaif.engines.scripted:SPEC",
    ),
)


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


def load_spec(name: str) -> EngineSpec:
    """The declaration of the engine with a name; imports its module.

    Raises:
        RlaifError: no such engine, its library is not installed, or what its entry point names
            is no `EngineSpec`.
    """
    info = _find(name)
    module, _, attribute = info.target.partition(":")
    spec = getattr(importlib.import_module(module), attribute, None)
    if not isinstance(spec, EngineSpec):
        raise RlaifError(
            f"engine {name!r}: {info.target!r} is no EngineSpec",
            hint="Let the entry point name a `rlaif.engines.base.EngineSpec`.",
        )
    return spec


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


def model_fingerprint(settings: EngineSettings) -> str:
    """Content address of the model that `settings` names, and of the reward models beside it,
    without starting an engine.

    Raises:
        RlaifError: the engine or the model is not found.
    """
    if settings.reward_models:
        beside = [model_fingerprint(reward_settings(m)) for m in settings.reward_models]
        return digest([model_fingerprint(settings.with_reward_models(())), *beside])
    spec = load_spec(settings.engine)
    if spec.fingerprint is not None:
        return spec.fingerprint(settings)
    from rlaif.engines.hub import resolve_model

    return resolve_model(settings.model, settings.revision).fingerprint


def reward_settings(model: RewardModelCheck) -> EngineSettings:
    """How a reward model runs that answers principles beside a judge."""
    return EngineSettings(
        engine="reward-model",
        model=model.model,
        revision=model.revision,
        options={"backend": model.backend},
    )


def codec_for(settings: EngineSettings) -> Codec:
    """The text rendering of a model, without starting an engine.

    Raises:
        RlaifError: the engine, the model or its tokenizer is not found.
    """
    if settings.reward_models:
        return _with_rewards(codec_for(settings.with_reward_models(())), settings.reward_models)
    spec = load_spec(settings.engine)
    if spec.codec is not None:
        return spec.codec(settings)
    from rlaif.engines.codec import HFCodec
    from rlaif.engines.hub import resolve_model

    files = resolve_model(settings.model, settings.revision)
    return HFCodec(files, settings.chat_template_options, settings.max_model_len)


def _with_rewards(judge: Codec, models: Sequence[RewardModelCheck]) -> Codec:
    """A judge's codec that renders the questions to reward models too.

    Raises:
        RlaifError: one is not found.
    """
    rewards: dict[RewardModelCheck, tuple[Address, Any]] = {}
    for model in models:
        settings = reward_settings(model)
        address = address_of(model, model_fingerprint(settings))
        rewards[model] = address, codec_for(settings)
    found: Any = CodecWithRewards(judge, rewards)
    return cast(Codec, found)


def speed_options(settings: EngineSettings) -> tuple[str, ...]:
    """Names of the engine's options that change no answer."""
    return load_spec(settings.engine).speed_options


def has_files(settings: EngineSettings) -> bool:
    """Whether the engine runs a model's files: not a rule, nor a model behind a server."""
    return load_spec(settings.engine).has_files


def has_tokens(settings: EngineSettings) -> bool:
    """Whether the engine's tokens are the model's: those of a chat server are not known here."""
    return load_spec(settings.engine).has_tokens


def reads_principles(settings: EngineSettings) -> bool:
    """Whether the engine judges by the principle that it is asked about."""
    return load_spec(settings.engine).reads_principles


def open_pairs(settings: EngineSettings) -> int | None:
    """How many pairs the labeling loop may have open; None for the usual number."""
    return load_spec(settings.engine).open_pairs(settings)


def can_generate(settings: EngineSettings) -> bool:
    """Whether the engine generates text, beside reading labels."""
    return load_spec(settings.engine).can_generate(settings)


def takes_pictures(settings: EngineSettings) -> bool:
    """Whether the judge sees pictures: the engine passes them on, and the model takes them."""
    return load_spec(settings.engine).takes_pictures(settings)


def open_backend(settings: EngineSettings) -> Backend:
    """Where `settings.data_parallel_size` workers with an engine each can be started.

    Raises:
        RlaifError: no such engine, or too few devices.
    """
    backend: Backend = (load_spec(settings.engine).backend or open_process_backend)(settings)
    return backend


def create_engine(settings: EngineSettings) -> Engine:
    """Start the engine that `settings.engine` names, and the reward models beside it.

    Raises:
        RlaifError: no such engine, its library is not installed, or a model can't be loaded.
    """
    if settings.reward_models:
        return _start_with_rewards(settings)
    spec = load_spec(settings.engine)
    _refuse_nested(settings, spec)
    if settings.data_parallel_size > 1 and not spec.replicates_itself:
        return _start_replicas(settings)
    return spec.create(settings)


def _refuse_nested(settings: EngineSettings, spec: EngineSpec) -> None:
    """Refuse lists and mappings for engines whose options are plain values.

    Raises:
        RlaifError: there is one.
    """
    if spec.takes_nested_options:
        return
    for name, value in settings.options.items():
        if isinstance(value, list | dict):
            raise RlaifError(
                f"option {name} of engine {settings.engine!r} is a plain value, not {value!r}",
                hint="Lists and mappings are for vllm.",
            )


def _start_with_rewards(settings: EngineSettings) -> Engine:
    """Reward models first: they are told at once if they can't be loaded.  Those on vLLM share the
    GPU's memory with the judge evenly, as other models that run together do.
    """
    on_vllm = {(m.model, m.revision) for m in settings.reward_models if m.backend == "vllm"}
    share = settings.gpu_memory_utilization / (1 + len(on_vllm))
    shared = {"gpu_memory_utilization": share}
    with ExitStack() as undo:
        running: dict[tuple[str | None, ...], Engine] = {}
        rewards: dict[Address, tuple[Engine, float]] = {}
        for model in settings.reward_models:
            named = model.model, model.revision, model.backend
            own = reward_settings(model)
            if named not in running:
                started = create_engine(own.model_copy(update=shared))
                running[named] = undo.enter_context(closing(started))
            address = address_of(model, model_fingerprint(own))
            rewards[address] = running[named], model.temperature
        judge = create_engine(settings.with_reward_models(()).model_copy(update=shared))
        undo.callback(judge.close)
        codec: Any = _with_rewards(judge.codec, settings.reward_models)
        found = JudgeWithRewards(judge, codec, rewards)
        undo.pop_all()
    return cast(Engine, found)


def _start_replicas(settings: EngineSettings) -> ReplicatedEngine:
    """An engine of `settings.data_parallel_size` replicas in processes.

    Raises:
        RlaifError: there are too few GPUs, or a replica does not start.
    """
    codec = codec_for(settings)
    backend = open_process_backend(settings)
    backend.make = partial(Replica, create_engine)
    return ReplicatedEngine.start(backend, codec, settings)

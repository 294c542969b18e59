"""Starts the models that run together: roles with equal settings share one engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing

from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine


def start_engines(
    models: Mapping[str, EngineSettings],
    stack: ExitStack,
    on_engine: Callable[[EngineSettings], None],
) -> dict[str, Engine]:
    """An engine for each role; engines share a GPU's memory evenly.

    Args:
        stack: closes them.
        on_engine: told each model's settings before it starts.

    Raises:
        RlaifError: one can't start.
    """
    started: dict[tuple[object, ...], Engine] = {}
    found = {}
    kinds = {_kind(settings) for settings in models.values()}
    for role, settings in models.items():
        kind = _kind(settings)
        if kind not in started:
            on_engine(settings)
            share = settings.gpu_memory_utilization / len(kinds)
            own = settings.model_copy(update={"gpu_memory_utilization": share})
            started[kind] = stack.enter_context(closing(create_engine(own)))
        found[role] = started[kind]
    return found


def _kind(settings: EngineSettings) -> tuple[object, ...]:
    return settings.model_dump_json(), settings.reward_models

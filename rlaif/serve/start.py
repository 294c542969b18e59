"""From names to a running server."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI

from rlaif.api.judge import Judge
from rlaif.api.service import Recovery, Service
from rlaif.api.setup import JudgeSettings, models_of, prepare_judge
from rlaif.errors import RlaifError
from rlaif.generation.critique_calls import WRITER
from rlaif.runs.context import RunContext
from rlaif.serve.app import build_app
from rlaif.serve.server import RequestLimits, Server, read_aliases


def open_server(
    constitutions: Sequence[str],
    settings: JudgeSettings,
    *,
    aliases: Sequence[str] = (),
    token: str | None = None,
    body_bytes: int = 16 << 20,
    seconds: float = 600.0,
    most_waiting: int | None = 8192,
    hosts: frozenset[str] | None = None,
    recovery: Recovery | None = None,
    context: RunContext = RunContext(),
) -> FastAPI:
    """Check everything, start the engines, and build the application.

    Args:
        hosts: see `RequestLimits`.
        recovery: see `Service`.

    Raises:
        RlaifError: a constitution, an alias or a setting can't be used, or an engine can't start.
    """
    setups = [prepare_judge(name, settings) for name in constitutions]
    names = [setup.constitution.name for setup in setups]
    if len(set(names)) < len(names):
        raise RlaifError(
            f"two constitutions have the same name ({', '.join(names)})",
            hint="Rename one; it is part of the model names.",
        )
    known = read_aliases(aliases, names)
    asked = dict.fromkeys(m for setup in setups for m in setup.settings.judge.reward_models)
    judge = settings.judge.with_reward_models(tuple(asked))
    models = models_of(settings.model_copy(update={"judge": judge}))
    if setups[0].criticizing is None:
        models.pop(WRITER)
    service = Service(models, context, most_waiting=most_waiting, recovery=recovery)
    limits = RequestLimits(token, body_bytes, seconds, hosts)
    judges = {setup.constitution.name: Judge.of(setup, service=service) for setup in setups}
    return build_app(Server(judges, service, known, limits))

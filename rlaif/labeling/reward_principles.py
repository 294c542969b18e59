"""Reward models that the constitution asks: they run beside the judge."""

from __future__ import annotations

from rlaif.constitution.schema import Constitution
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import reads_principles
from rlaif.errors import RlaifError
from rlaif.labeling.settings import LabelSettings


def add_reward_models(judge: EngineSettings, constitution: Constitution) -> EngineSettings:
    """The judge, beside the reward models that the constitution asks.

    Raises:
        RlaifError: a judge that reads no principle is asked about several.
    """
    ids = [p.id for p in constitution.principles if p.check is None]
    if len(ids) > 1 and not reads_principles(judge):
        raise RlaifError(
            f"a reward model reads no principle, and constitution {constitution.name!r} asks about "
            f"{len(ids)}",
            hint="Use one principle, such as -c overall.",
        )
    asked = [p.reward_model for p in constitution.principles if p.reward_model is not None]
    return judge.with_reward_models(tuple(dict.fromkeys(asked)))


def with_reward_models(settings: LabelSettings, constitution: Constitution) -> LabelSettings:
    """Settings whose judge runs beside the reward models that the constitution asks.

    Raises:
        RlaifError: as `add_reward_models`.
    """
    judge = add_reward_models(settings.judge, constitution)
    return settings.model_copy(update={"judge": judge})

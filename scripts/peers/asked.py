"""The prompts of a made-up job, as rlaif plans them and as plain scripts write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.data.pairing import make_pairs
from rlaif.data.single_rows import read_row
from rlaif.engines.base import EngineSettings, PrefixSharing
from rlaif.judging.prefix_order import walk
from rlaif.judging.rendering import Renderer
from rlaif.labeling.job import LabelJob
from rlaif.labeling.planner import Planner, window_questions
from rlaif.records import Codec
from rlaif.templates.messages import completion_text, conversation_text


def judge_settings(model: str, engine: str, dtype: str) -> EngineSettings:
    """The judge as every contender runs it."""
    dummy = not any(Path(model).glob("*.safetensors"))
    options: dict[str, str | int | float | bool] = {}
    if dummy:
        options["load_format"] = "dummy"
    return EngineSettings(engine=engine, model=model, dtype=dtype, options=options)  # type: ignore[arg-type]


def principle_first(job: LabelJob) -> list[str]:
    """What a plain script asks: the principle, then the pair; one prompt per verdict."""
    prompts = []
    for _, row in job.source.rows():
        assert isinstance(row, dict)
        for pair in make_pairs(read_row(row), ""):
            for one, two in ((pair.a, pair.b), (pair.b, pair.a)):
                prompts += [
                    f"Which response follows the principle better? Principle: {p.preference}\n\n"
                    f"[Conversation]\n{conversation_text(pair.prompt)}\n\n"
                    f"[Response A]\n{completion_text(one)}\n\n"
                    f"[Response B]\n{completion_text(two)}\n\nAnswer A or B."
                    for p in job.constitution.principles
                ]
    return prompts


def planned_prompts(
    job: LabelJob, codec: Codec, sharing: PrefixSharing | None = None
) -> tuple[list[Any], list[int]]:
    """Every prompt that rlaif would ask, in its order, and the label tokens."""
    from vllm import TokensPrompt

    renderer = Renderer(job.template, codec)
    planner = Planner(
        constitution=job.constitution,
        renderer=renderer,
        settings=job.settings,
        manner="bench",
        stopping=None,
        most_questions=window_questions(sharing),
    )
    prompts = []
    for window in planner.windows(job.source, 0):
        branches = [b for item in window for b in item.branches]
        for n in walk([b.path for b in branches]):
            prompts += [
                TokensPrompt(prompt_token_ids=branches[n].context + tail)
                for _, tail in branches[n].tails
            ]
    return prompts, [token for spelled in renderer.label_ids for token in spelled]

"""Tokens as planned against tokens as computed, on real vLLM with a large and a tiny cache."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rlaif.demo.world import World
from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.labeling.job import prepare
from rlaif.labeling.labeler import Labeler
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.directory import RunDirectory
from rlaif.store.verdict_cache import VerdictCache

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def tiny_cache() -> Iterator[Engine]:
    """Room for 1,280 tokens: a few prompts."""
    engine = create_engine(EngineSettings(model="demo", options={"num_gpu_blocks_override": 40}))
    yield engine
    engine.close()


def write_pairs(path: Path, seed: int) -> None:
    """Prompts with two to four responses, some prompts twice, two system texts in turn."""
    world, rng = World(seed, "test"), random.Random(seed)
    systems = ["Be kind. " * 12, "Be brief and plain. " * 9]
    lines = []
    for i in range(24):
        prompt = world.prompt()
        for _ in range(1 + (i % 3 == 0)):
            responses = [world.response(prompt) for _ in range(rng.choice([2, 3, 4]))]
            lines.append({"system": systems[i % 2], "prompt": prompt, "responses": responses})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def label(engine: Engine, folder: Path, seed: int) -> tuple[Labeler, int, int]:
    """The labeler after the run, and the tokens that the engine had and computed."""
    folder.mkdir()
    write_pairs(folder / "pairs.jsonl", seed)
    settings = LabelSettings(judge=EngineSettings(model="demo"), template="demo")
    job = prepare(str(folder / "pairs.jsonl"), "demo", settings)
    before = engine.stats()
    with (
        closing(VerdictCache(folder / "cache.sqlite")) as cache,
        closing(RunDirectory(folder / "run", job.config)) as run,
    ):
        labeler = Labeler(job.task, engine, cache, run)
        labeler.label(job.source)
    after = engine.stats()
    prompt = after.prompt_tokens - before.prompt_tokens
    return labeler, prompt, prompt - (after.cached_tokens - before.cached_tokens)


@pytest.mark.parametrize("which", ["tiny_cache", "demo_judge"])
def test_vllm_computes_what_was_planned(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    engine = request.getfixturevalue(which)
    labeler, prompt, computed = label(engine, tmp_path / "run", 31 if which == "tiny_cache" else 32)
    assert labeler.tokens.prompt == prompt
    assert computed == pytest.approx(labeler.tokens.predicted, rel=0.02)
    assert labeler.tokens.unique <= computed
    assert computed < 0.5 * prompt, "nothing was shared: the comparison would be empty"


def test_prompts_that_come_again_when_the_cache_is_about_full(tmp_path: Path) -> None:
    """Blocks of which requests fill a part only take room too: that decides what is at hand."""
    world, rng = World(41, "test"), random.Random(41)
    prompts = [[world.prompt() for _ in range(9)] for _ in range(100)]
    rows = [
        {"prompt": " ".join(parts), "responses": [world.response(rng.choice(parts)) for _ in "ab"]}
        for _ in range(3)
        for parts in prompts
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = EngineSettings(model="demo", options={"num_gpu_blocks_override": 1300})
    settings = LabelSettings(judge=judge, template="demo", label_mass_floor=0.0)
    job = prepare(str(data), "demo", settings)
    with (
        closing(create_engine(judge)) as engine,
        closing(VerdictCache(tmp_path / "cache.sqlite")) as cache,
        closing(RunDirectory(tmp_path / "run", job.config)) as run,
    ):
        labeler = Labeler(job.task, engine, cache, run)
        labeler.label(job.source)
        stats = engine.stats()
    computed = stats.prompt_tokens - stats.cached_tokens
    print(computed, labeler.tokens)
    assert computed == pytest.approx(labeler.tokens.predicted, rel=0.02)


def test_packed_engine_computes_what_was_planned_and_not_a_token_more(tmp_path: Path) -> None:
    engine = create_engine(
        EngineSettings(engine="packed", model="demo", options={"batch_tokens": 200})
    )
    labeler, _, computed = label(engine, tmp_path / "run", 33)
    assert computed == labeler.tokens.predicted == labeler.tokens.unique

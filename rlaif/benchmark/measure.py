"""Runs a made-up labeling job and says where the time went."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlaif.benchmark.limits import judge_cost, matmul_rate
from rlaif.benchmark.workload import Workload, write_constitution, write_synthetic_pairs
from rlaif.engines.base import Engine, EngineSettings, EngineStats
from rlaif.engines.hub import resolve_model
from rlaif.engines.registry import codec_for, create_engine
from rlaif.engines.replicas import ReplicatedEngine
from rlaif.errors import RlaifError
from rlaif.judging.prefix_order import TokenCount
from rlaif.labeling.job import LabelJob, prepare
from rlaif.labeling.labeler import Labeler
from rlaif.labeling.settings import LabelSettings
from rlaif.labeling.token_accounting import block_cache
from rlaif.records import Request, Result
from rlaif.runs.directory import RunDirectory
from rlaif.store.verdict_cache import VerdictCache


class WatchedEngine:
    """An engine that notes how long its caller kept it waiting.

    Attributes:
        asking: seconds spent getting requests: planning, as far as it was not done ahead.
        telling: seconds spent by the caller on results: aggregation and storing.
        known: what its prefix cache holds, over several runs.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.fingerprint, self.codec = engine.fingerprint, engine.codec
        self.max_prompt_tokens, self.sharing = engine.max_prompt_tokens, engine.sharing
        self.takes_contexts = getattr(engine, "takes_contexts", False)
        self.asking = self.telling = 0.0
        self.known = block_cache(engine)

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """See `Engine.run`."""
        for results in self._engine.run(self._watched(requests)):
            began = time.perf_counter()
            yield results
            self.telling += time.perf_counter() - began

    def _watched(self, requests: Iterable[Request | None]) -> Iterator[Request | None]:
        source = iter(requests)
        while True:
            began = time.perf_counter()
            try:
                request = next(source)
            except StopIteration:
                return
            finally:
                self.asking += time.perf_counter() - began
            yield request

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return self._engine.stats()

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()


@dataclass(frozen=True)
class Timing:
    """One labeling run.

    Attributes:
        seconds: wall clock, from the first row read to the last row written.
        verdicts, pairs: answered.
        computed: prompt tokens that the engine computed, by its own counters.
        tokens: as planned.
        asking, telling: see `WatchedEngine`.
        idle: seconds that the engine had nothing to do.
    """

    seconds: float
    verdicts: int
    pairs: int
    computed: int
    tokens: TokenCount
    asking: float
    telling: float
    idle: float


def label_once(engine: WatchedEngine, job: LabelJob, folder: Path) -> Timing:
    """Label a job with a cache and a run folder of its own, made in `folder`."""
    before = engine.stats()
    engine.asking = engine.telling = 0.0
    with (
        closing(VerdictCache(folder / "cache.sqlite")) as cache,
        closing(RunDirectory(folder / "run", job.config)) as run,
    ):
        labeler = Labeler(job.task, engine, cache, run, known=engine.known)
        began = time.perf_counter()
        tally = labeler.label(job.source)
        seconds = time.perf_counter() - began
    if tally.invalid_verdicts:
        raise RlaifError(
            f"{tally.invalid_verdicts} of {tally.verdicts} synthetic judge calls had no "
            f"valid verdict: the judge accepts at most {engine.max_prompt_tokens} tokens",
            hint="Lower --context, or shorten the template.",
        )
    after = engine.stats()
    return Timing(
        seconds=seconds,
        verdicts=tally.verdicts,
        pairs=tally.pairs,
        computed=(after.prompt_tokens - before.prompt_tokens)
        - (after.cached_tokens - before.cached_tokens),
        tokens=labeler.tokens,
        asking=engine.asking,
        telling=engine.telling,
        idle=after.idle_seconds - before.idle_seconds,
    )


def write_job(folder: Path, workload: Workload, settings: LabelSettings, *, seed: int) -> LabelJob:
    """A made-up job in `folder`."""
    folder.mkdir(parents=True)
    write_synthetic_pairs(folder / "pairs.jsonl", workload, codec_for(settings.judge), seed=seed)
    write_constitution(folder / "constitution.yaml", workload)
    return prepare(str(folder / "pairs.jsonl"), str(folder / "constitution.yaml"), settings)


def workload_settings(judge: EngineSettings, workload: Workload, template: str) -> LabelSettings:
    """How a made-up job is judged: no answer is refused, since random judges are measured too."""
    return LabelSettings(
        judge=judge,
        template=template,
        orders="both" if workload.both_orders else "one",
        label_mass_floor=0.0,
    )


def bench(
    judge: EngineSettings,
    workload: Workload,
    *,
    template: str,
    repetitions: int = 3,
    price_per_hour: float | None = None,
) -> dict[str, Any]:
    """Measure one judge on one engine.  New pairs each repetition; a first one is not counted.

    Returns:
        The repetition of median duration, as `rates` and `against_limit` describe it.

    Raises:
        RlaifError: the engine can't start or the judge can't be used.
    """
    files = resolve_model(judge.model, judge.revision)
    settings = workload_settings(judge, workload, template)
    timings = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        closing(create_engine(judge)) as started,
    ):
        if isinstance(started, ReplicatedEngine):
            started.wait_for_all()
        engine = WatchedEngine(started)
        for repetition in range(repetitions + 1):
            job = write_job(Path(scratch) / str(repetition), workload, settings, seed=repetition)
            timing = label_once(engine, job, Path(scratch) / str(repetition))
            if repetition:
                timings.append(timing)
    timings.sort(key=lambda t: t.seconds)
    middle = timings[len(timings) // 2]
    found: dict[str, Any] = {
        "engine": judge.engine,
        "judge": judge.model,
        "fingerprint": files.fingerprint,
        "workload": vars(workload),
        "repetitions": repetitions,
        **rates(middle),
    }
    if judge.engine != "scripted":
        found |= against_limit(middle, files.path, judge)
    if price_per_hour is not None:
        hours = middle.seconds / 3600 / middle.pairs * 1000
        found["cost_per_1000_pairs"] = round(price_per_hour * hours, 6)
    return found


def rates(timing: Timing) -> dict[str, Any]:
    """What a run did per second, and where its time went."""
    t = timing.seconds
    inside = t - timing.asking - timing.telling
    return {
        "seconds": t,
        "verdicts_per_second": timing.verdicts / t,
        "pairs_per_second": timing.pairs / t,
        "computed_tokens_per_second": timing.computed / t,
        "unique_tokens_per_second": timing.tokens.unique / t,
        "prefix_cache_hit_rate": 1 - timing.computed / timing.tokens.prompt,
        "computed_over_planned": timing.computed / timing.tokens.predicted,
        "computed_over_unique": timing.computed / timing.tokens.unique,
        "share_of_time": {
            "engine": inside / t,
            "waiting for the planner": timing.asking / t,
            "aggregating and storing": timing.telling / t,
        },
        "engine_idle_seconds": timing.idle,
    }


def against_limit(timing: Timing, model: Path, judge: EngineSettings) -> dict[str, Any]:
    """Model FLOP/s over the matmul rate of this machine: as computed, and of what was needed.

    A token counts as computed in every layer, also where an engine leaves out what no answer
    needs of the last one (packed on a CPU).
    """
    on_gpu = torch.cuda.is_available()
    kinds = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    dtype = kinds.get(judge.dtype, torch.bfloat16) if on_gpu else torch.float32
    cost = judge_cost(model)
    if judge.quantization:
        return {"parameters": cost.parameters}  # whose products have another rate
    devices = judge.data_parallel_size * judge.tensor_parallel_size if on_gpu else 1
    peak = devices * matmul_rate(dtype)
    needed = cost.flops(timing.tokens.unique, timing.tokens.attended, timing.verdicts)
    # What was computed twice was attended from about as far back as the rest.
    again = timing.computed / timing.tokens.unique
    done = cost.flops(timing.computed, timing.tokens.attended * again, timing.verdicts)
    return {
        "parameters": cost.parameters,
        "matmul_flops_per_second": peak,
        "model_flops_utilization": done / timing.seconds / peak,
        "limit_fraction": needed / timing.seconds / peak,
    }

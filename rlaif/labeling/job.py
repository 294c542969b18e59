"""A labeling job from names to a finished run directory: the function behind `rlaif label`.

Everything that can be wrong with the input is found before the engine starts and before
anything is written.
"""

from __future__ import annotations

import re
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rlaif.constitution.checks import check_functions
from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Constitution, PythonCheck
from rlaif.data.dataset import open_dataset
from rlaif.data.layout import set_fields
from rlaif.data.messages import BadRow
from rlaif.data.reading import Reader
from rlaif.data.sources import Source
from rlaif.engines.base import Engine, EngineSettings, EngineStats
from rlaif.engines.model_origin import text_origins
from rlaif.engines.registry import (
    can_generate,
    create_engine,
    has_tokens,
    list_engines,
    model_fingerprint,
    reads_principles,
    takes_pictures,
)
from rlaif.errors import RlaifError
from rlaif.labeling.carry_over import compare_confidence
from rlaif.labeling.labeler import Labeler
from rlaif.labeling.load_calibration import (
    Aggregator,
    certify_target,
    load_aggregator,
)
from rlaif.labeling.part_pool import PartedLabeling, PartPool
from rlaif.labeling.part_run import PartPlan, claim_parts, find_earlier, index_parts
from rlaif.labeling.pilot import Pilot, asks_adaptively, learn_stopping, stopping_facts
from rlaif.labeling.planner import pairs_of
from rlaif.labeling.reward_principles import with_reward_models
from rlaif.labeling.settings import LabelSettings
from rlaif.labeling.shard_pool import ShardedLabeling, ShardPool
from rlaif.labeling.task import LabelTask
from rlaif.labeling.usage import UsageMeter
from rlaif.runs.context import RunContext
from rlaif.runs.cost import Prices, TokenUsage, cost_of
from rlaif.runs.directory import (
    CONSTITUTION,
    ROW_FILES,
    RunDirectory,
    check_config,
    check_writable,
    is_complete,
    read_manifest,
    read_run_config,
)
from rlaif.runs.parts import PartIndex, has_parts
from rlaif.runs.rows import make_stamp
from rlaif.runs.tally import Tally, dump_tally, load_tally
from rlaif.runs.versions import library_versions
from rlaif.store.verdict_cache import VerdictCache
from rlaif.templates.judge import JudgeTemplate, load_judge_template
from rlaif.util.clock import utc_now
from rlaif.util.files import write_atomically
from rlaif.util.hashing import digest
from rlaif.util.user_functions import allowed_functions, function_source

ENOUGH_FOR_A_RATE = 200
"""Verdicts of a run from which on its speed says something about the next."""


@dataclass(frozen=True)
class LabelJob:
    """A checked job: its parts loaded, nothing started, nothing written.

    Attributes:
        columns: which columns of the data are read as what, on one line.
        constitution_name: as it was asked for.
    """

    settings: LabelSettings
    source: Source
    constitution: Constitution
    template: JudgeTemplate
    config: dict[str, Any]
    aggregator: Aggregator
    columns: str = ""
    constitution_name: str = ""

    @property
    def task(self) -> LabelTask:
        """What every pair is judged by."""
        judge = self.config["judge"]
        stamp = make_stamp(
            constitution=self.constitution,
            judge=str(judge["model"]),
            fingerprint=str(judge["fingerprint"]),
            template=self.template,
            calibration=self.aggregator.calibration_hash,
            clamp=self.settings.reasoning_clamp if self.template.answer else 1.0,
        )
        return LabelTask(
            constitution=self.constitution,
            template=self.template,
            settings=self.settings,
            aggregator=self.aggregator,
            stamp=stamp,
            functions=allowed_functions(),
        )

    def watched_task(self, context: RunContext) -> LabelTask:
        """The same; its first verdicts are looked at if the context says so."""
        if not context.first_look:
            return self.task
        engine = self.settings.judge
        command = f"rlaif judge check {engine.model} -c {self.constitution_name}"
        if engine.engine != "vllm":
            command += f" --engine {engine.engine}"
        return replace(self.task, check_command=command)


def choose_engine(judge: EngineSettings, out: Path, context: RunContext) -> EngineSettings:
    """The settings with an engine in place of "auto".

    That which the judge has in a run in `out` if there is one: the run itself, one of a panel's
    members, or one in a folder of several; else the one that `rlaif bench` measured to be the
    fastest for this judge, in the same numbers, here; else vLLM.
    """
    if judge.engine != "auto":
        return judge
    known = {info.name for info in list_engines() if info.available}
    for run in (out, *sorted(out.glob("*/")), *sorted(out.glob("members/*/"))):
        with suppress(RlaifError):
            ran = read_run_config(run).get("judge")
            if isinstance(ran, dict) and ran.get("model") == judge.model:
                engine = str(ran.get("engine"))
                if engine in known:
                    return judge.model_copy(update={"engine": engine})
    fallback = "vllm" if "vllm" in known else "transformers"
    fingerprint = model_fingerprint(judge.model_copy(update={"engine": "transformers"}))
    with closing(VerdictCache(context.verdicts_path)) as cache:
        measured = cache.rates(fingerprint, benchmarks=True, numbers=judge.numbers)
    rates = {e: rate for e, rate in measured.items() if e in known}
    engine = max(rates, key=lambda name: rates[name], default=fallback)
    return judge.model_copy(update={"engine": engine})


def with_engine(settings: LabelSettings, out: Path, context: RunContext) -> LabelSettings:
    """The settings with the judge's engine chosen; see `choose_engine`."""
    judge = choose_engine(settings.judge, out, context)
    return settings.model_copy(update={"judge": judge})


def prepare(
    data: str, constitution: str, settings: LabelSettings, *, split: str = "train"
) -> LabelJob:
    """Load and check the parts of a job.

    Raises:
        RlaifError: input, constitution, template or model can't be used; with the place.
    """
    loaded = load_constitution(constitution)
    template = load_judge_template(settings.template)
    if template.answer and not can_generate(settings.judge):
        raise RlaifError(
            f"template {settings.template!r} uses reasoning, but engine "
            f"{settings.judge.engine!r} cannot generate text",
            hint="Use --engine vllm, or a template without `answer`.",
        )
    if template.scores and not has_tokens(settings.judge):
        raise RlaifError(
            f"template {settings.template!r} reads scores, which engine "
            f"{settings.judge.engine!r} can't read",
            hint="Use a template with two labels, or an engine that reads token probabilities.",
        )
    if settings.orders == "adaptive" and settings.stop != "never":
        raise RlaifError(
            "--orders adaptive and --stop cannot be combined", hint="Use only one of them."
        )
    if settings.stop == "exact" and settings.agreement_target is not None:
        raise RlaifError(
            "--stop exact keeps decisions but not the confidence that --agreement-target needs",
            hint="Use --stop likely, which checks both on its pilot, or --stop never.",
        )
    settings = with_reward_models(settings, loaded.constitution)
    dataset = open_dataset(data, split=split, given=set_fields(settings.layout), need="responses")
    source = dataset.source
    folder = str(Path(source.name).parent) if takes_pictures(settings.judge) else ""
    settings = settings.model_copy(update={"layout": dataset.layout}).with_pictures(folder)
    functions = [
        p.check.function for p in loaded.constitution.principles if isinstance(p.check, PythonCheck)
    ]
    check_functions(loaded.constitution)
    _check_own(settings, template, loaded.constitution)
    _probe(source, settings)
    fingerprint = model_fingerprint(settings.judge)
    config = settings.resolved(source, loaded.constitution, template, fingerprint)
    config["checks"] = {name: digest(function_source(name)) for name in functions}
    aggregator = _aggregator(settings, config)
    return LabelJob(
        settings=settings,
        source=source,
        constitution=loaded.constitution,
        template=template,
        config=config,
        aggregator=aggregator,
        columns=dataset.summary,
        constitution_name=constitution,
    )


def _check_own(
    settings: LabelSettings, template: JudgeTemplate, constitution: Constitution
) -> None:
    """Refuse a template with places for which no column is named, and ids that rubrics take.

    Raises:
        RlaifError: it has, or the constitution has.
    """
    for slot, column in (
        ("reference", settings.layout.reference),
        ("rubric", settings.layout.rubric),
    ):
        if template.uses(slot) and not column:
            raise RlaifError(
                f"template {template.name!r} has a place for the {slot}, and no column is named",
                hint=f"Name it in `rlaif label` with --map {slot}=COLUMN, or use another template.",
            )
    if settings.layout.reference and not template.uses("reference"):
        raise RlaifError(
            f"template {template.name!r} has no place for the reference of --map reference="
            f"{settings.layout.reference}",
            hint="Use --template reference, or one of your own with {{reference}}.",
        )
    if settings.layout.language and not constitution.languages:
        raise RlaifError(
            f"--map language={settings.layout.language}: constitution {constitution.name!r} has no "
            "translations, so a row's language changes nothing",
            hint="Remove it, or give principles `translations:`.",
        )
    if not reads_principles(settings.judge) and (settings.layout.rubric or settings.shots):
        what = "rubric" if settings.layout.rubric else "examples (--shots)"
        raise RlaifError(
            f"a reward model reads no {what}", hint="Remove it, or use a language model."
        )
    taken = [p.id for p in constitution.principles if re.fullmatch(r"rubric-\d+", p.id)]
    if taken and settings.layout.rubric:
        raise RlaifError(
            f"constitution {constitution.name!r} has a principle {taken[0]!r}, as the rows' "
            "rubrics have",
            hint="Rename the principle.",
        )


def _aggregator(settings: LabelSettings, config: dict[str, Any]) -> Aggregator:
    """How opinions become preferences; what it was made of goes into the configuration.

    Raises:
        RlaifError: the calibration is for another judge, or does not certify the target.
    """
    if settings.calibration is None:
        for name in ("calibration", "agreement_target", "agreement_delta"):
            config.pop(name)
        if settings.agreement_target is not None:
            raise RlaifError(
                "--agreement-target needs a calibration from human labels",
                hint="Pass a file from `rlaif calibrate` with --calibration.",
            )
        return Aggregator(settings.aggregation)
    found = load_aggregator(settings.calibration, settings.aggregation, config)
    assert found.calibration is not None
    if settings.agreement_target is not None:
        certificate = certify_target(
            found.calibration, settings.agreement_target, settings.agreement_delta
        )
        found = replace(found, threshold=certificate.threshold)
        config["agreement"] = certificate.facts
    config["calibration"] = {"path": settings.calibration, "hash": found.calibration_hash}
    return found


def _probe(source: Source, settings: LabelSettings) -> None:
    """Read on to the first usable row, so that an unusable input is known at once."""
    rejected, last = 0, ""
    reader = Reader(settings.layout)
    for number, (place, row) in enumerate(source.rows()):
        if settings.limit is not None and number >= settings.limit:
            break
        try:
            next(pairs_of(row, number, settings, reader))
            return
        except BadRow as error:
            rejected += 1
            last = f"{place}: {error}"
    if not rejected:
        raise RlaifError(f"input {source.name!r} has no rows", hint="Check the file.")
    raise RlaifError(
        f"none of the {rejected} rows of {source.name!r} could be read (last error: {last})",
        hint="Use --map to name the columns of other layouts.",
    )


@dataclass(frozen=True)
class Split:
    """How a job is split among labelers, one around each replica of the judge.

    Attributes:
        shard_rows: rows handed over at a time; None for no shards.
        parts: the parts that labelers read and write themselves; None for none.
    """

    shard_rows: int | None = None
    parts: PartPlan | None = None

    @property
    def flag(self) -> str:
        """The flag that asked for it; "" for none."""
        if self.parts is not None:
            return "--part-rows"
        return "" if self.shard_rows is None else "--shard-rows"

    def check(self, settings: LabelSettings) -> None:
        """Refuse it where what is asked depends on what was answered before.

        Raises:
            RlaifError: it does, or both ways were asked for.
        """
        if self.parts is not None and self.shard_rows is not None:
            raise RlaifError(
                "--part-rows cannot be combined with --shard-rows", hint="Use only one of them."
            )
        if self.flag and asks_adaptively(settings):
            raise RlaifError(
                f"{self.flag} cannot be combined with --stop or --orders adaptive",
                hint="Remove one of these flags.",
            )


@dataclass(frozen=True)
class LabelSummary:
    """A finished run: its tally and manifest; `fresh` is False if it was complete already."""

    path: Path
    tally: Tally
    manifest: dict[str, Any]
    fresh: bool


def run_label(
    job: LabelJob,
    out: Path,
    context: RunContext = RunContext(),
    *,
    prices: Prices | None = None,
    split: Split = Split(),
) -> LabelSummary:
    """Run the job, or resume it, or report it if it is complete.

    Args:
        context: told a `LabelProgress` after every batch of answers.
        prices: for the cost in the manifest.
        split: by how many labelers, `data_parallel_size` of them; default: one labeler feeds all
            replicas of the judge.

    Raises:
        RlaifError: `out` is not this run, the engine can't start or stops, no row is readable.
    """
    split.check(job.settings)
    check_config(out, job.config)
    check_writable(out)
    if is_complete(out):
        return summary_of(out, prices)
    index = index_parts(
        out, source=job.source, config=job.config, plan=split.parts, limit=job.settings.limit
    )
    judge = job.settings.judge
    with closing(VerdictCache(context.verdicts_path)) as cache:
        context.on_engine(judge)
        engine = _start(job, split, context)
        files = ROW_FILES if index is None else ()
        with closing(engine), closing(RunDirectory(out, job.config, files)) as run:
            write_atomically(out / CONSTITUTION, job.constitution.merged_yaml())
            if isinstance(engine, PartPool):
                assert index is not None
                assert split.parts is not None
                done = _label_in_parts(
                    job=job, pool=engine, run=run, context=context, index=index, plan=split.parts
                )
            elif isinstance(engine, ShardPool):
                assert split.shard_rows is not None
                done = _label_in_shards(
                    job=job, pool=engine, run=run, context=context, shard_rows=split.shard_rows
                )
            else:
                done = _label_alone(
                    job=job, engine=engine, run=run, context=context, cache=cache, prices=prices
                )
            _record_rate(job, done, cache)
            manifest = _manifest(job, done, engine.stats(), prices)
            if job.settings.agreement_target is not None and job.aggregator.calibration:
                manifest["agreement_carries_over"] = compare_confidence(
                    out, job.aggregator.calibration, job.settings.aggregation
                )
            manifest |= {} if index is None else {"parts": index.facts}
            run.write_manifest(manifest)
    return LabelSummary(out, done.tally, manifest, fresh=True)


def _record_rate(job: LabelJob, done: _Labeled, cache: VerdictCache) -> None:
    """Remember how fast the judge was, for the estimates of later runs."""
    seconds = done.labeler.progress.seconds
    if done.asked >= ENOUGH_FOR_A_RATE and seconds > 0:
        judge = job.config["judge"]
        fingerprint, engine = str(judge["fingerprint"]), job.settings.judge.engine
        cache.record_rate(fingerprint, engine, done.asked / seconds)


def _start(job: LabelJob, split: Split, context: RunContext) -> Engine | ShardPool | PartPool:
    """The judge, or labelers that each have one."""
    judge = job.settings.judge
    if split.parts is not None:
        return PartPool(judge, job.watched_task(context))
    if split.shard_rows is not None:
        return ShardPool(judge, job.watched_task(context), context.verdicts_path)
    return create_engine(judge)


@dataclass(frozen=True)
class _Labeled:
    """What a labeling came to in this process.

    Attributes:
        pilot: how it was found when pairs needed no more questions; None where all were asked.
    """

    labeler: Labeler | ShardedLabeling | PartedLabeling
    tally: Tally
    pilot: Pilot | None = None

    @property
    def pilot_asked(self) -> int:
        """Questions that the judge answered for the pilot."""
        return 0 if self.pilot is None else self.pilot.asked

    @property
    def asked(self) -> int:
        """Questions that the judge answered."""
        progress = self.labeler.progress
        return progress.verdicts - progress.cached + self.pilot_asked


def _label_alone(
    *,
    job: LabelJob,
    engine: Engine,
    run: RunDirectory,
    context: RunContext,
    cache: VerdictCache,
    prices: Prices | None,
) -> _Labeled:
    """One labeler, which feeds the engine with all its replicas."""
    usage = UsageMeter(run, engine)
    pilot = learn_stopping(
        task=job.watched_task(context), source=job.source, engine=engine, cache=cache, usage=usage
    )
    labeler = Labeler(
        job.watched_task(context),
        engine,
        cache,
        run,
        on_progress=context.on_progress,
        stopping=None if pilot is None else pilot.chosen.stopping,
        usage=usage,
        prices=prices,
    )
    return _Labeled(labeler, labeler.label(job.source), pilot)


def _label_in_shards(
    job: LabelJob, pool: ShardPool, run: RunDirectory, context: RunContext, shard_rows: int
) -> _Labeled:
    """A labeler around each replica, which takes shards of the input."""
    labeler = ShardedLabeling(
        pool,
        run,
        UsageMeter(run, pool),
        shard_rows=shard_rows,
        limit=job.settings.limit,
        reasons=bool(job.template.answer),
        on_progress=context.on_progress,
    )
    return _Labeled(labeler, labeler.label(job.source))


def _label_in_parts(
    job: LabelJob,
    pool: PartPool,
    run: RunDirectory,
    context: RunContext,
    index: PartIndex,
    plan: PartPlan,
) -> _Labeled:
    """A labeler around each replica, which reads and writes parts."""
    if not has_parts(run.path):
        index.save(run.path)
    claim_parts(index, run.path, job.config)
    labeler = PartedLabeling(
        pool,
        run.path,
        index,
        UsageMeter(run, pool),
        reasons=bool(job.template.answer),
        earlier=find_earlier(index, plan.answers_from),
        on_progress=context.on_progress,
    )
    return _Labeled(labeler, labeler.label())


def _manifest(
    job: LabelJob, done: _Labeled, stats: EngineStats, prices: Prices | None
) -> dict[str, Any]:
    labeler, usage, progress = done.labeler, done.labeler.usage, done.labeler.progress
    manifest = run_manifest(
        config=job.config,
        tally=done.tally,
        seconds=usage.seconds,
        tokens=usage.tokens,
        prices=prices,
    )
    manifest["judges"] = text_origins(job.settings.judge)
    several = labeler.reasons or bool(job.template.scores or job.settings.judge.reward_models)
    plans = not several and has_tokens(job.settings.judge)
    if done.pilot is not None:
        manifest["stopping"] = stopping_facts(done.pilot, done.tally)
    manifest["last_process"] = {
        "verdicts_asked": done.asked,
        # What the pilot asked, the run finds in the cache.
        "verdicts_from_cache": max(0, progress.cached - done.pilot_asked),
        "seconds": round(progress.seconds, 3),
        "tokens": {
            "from_scratch": stats.prompt_tokens,
            "computed": stats.prompt_tokens - stats.cached_tokens,
            "planned": labeler.tokens.predicted if plans else None,
            "by_token": labeler.tokens.unique if plans else None,
        },
        "engine_idle_seconds": round(stats.idle_seconds, 3),
    }
    return manifest


def summary_of(out: Path, prices: Prices | None) -> LabelSummary:
    """A complete run, at the prices that are given now."""
    manifest = read_manifest(out)
    tally = load_tally(manifest["counts"])
    if prices is not None and prices.known and "tokens" in manifest:
        manifest["cost"] = cost_of(
            prices,
            seconds=manifest["seconds"],
            tokens=TokenUsage(**manifest["tokens"]),
            labels=tally.decided,
        )
    return LabelSummary(out, tally, manifest, fresh=False)


def run_manifest(
    config: dict[str, Any],
    tally: Tally,
    seconds: float,
    tokens: TokenUsage,
    prices: Prices | None,
) -> dict[str, Any]:
    """What every manifest of a labeling run holds."""
    cost = cost_of(prices or Prices(), seconds=seconds, tokens=tokens, labels=tally.decided)
    return {
        "format": 1,
        "finished": utc_now(),
        "config": config,
        "libraries": library_versions(),
        "counts": dump_tally(tally),
        "seconds": round(seconds, 3),
        "tokens": asdict(tokens),
        "cost": cost,
    }

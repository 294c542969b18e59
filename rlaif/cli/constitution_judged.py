"""`rlaif constitution` with a judge: test, coverage, ablate, induce."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.judges import judge_settings
from rlaif.cli.label import LabelScreen, Screens
from rlaif.cli.label_flags import label_settings
from rlaif.cli.model_flags import assignments, engine_flags, spread
from rlaif.cli.options import build, merge_settings, settings_options
from rlaif.cli.output import note, percent, print_json, quiet_libraries, table
from rlaif.constitution.load import LoadedConstitution, load_constitution
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.pipeline.settings import LabelSettings
from rlaif.stages.folding import FoldSettings
from rlaif.stages.layouts import FIELDS

_TEST_EXAMPLES = """
\b
Examples:
  rlaif constitution test my.yaml --judge Qwen/Qwen3-8B
  rlaif constitution test my.yaml -j Qwen/Qwen3-8B --junit report.xml     in CI
  rlaif constitution test my.yaml -j Qwen/Qwen3-8B --watch                while writing

Answers are cached: after an edit only what changed is asked again.
"""


@click.command(name="test", epilog=_TEST_EXAMPLES)
@click.argument("constitution", metavar="C")
@click.option("-j", "--judge", default="demo", show_default=True, help="Model that judges.")
@click.option(
    "--margin", default=0.05, show_default=True, type=click.FloatRange(0, 1),
    help="Least margin |2p - 1| with which `chosen` must win.",
)  # fmt: skip
@click.option("--junit", metavar="FILE", help="Also write JUnit XML.")
@click.option("--watch", is_flag=True, help="Stay, and test again whenever a file changes.")
@click.option("--config", metavar="FILE", help="YAML file with any of the settings below.")
@click.option("--cache", metavar="DIR", help="What the judge said. [default: the user's]")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@click.option("--template", help="Judge prompt layout: name or path.")
@engine_flags
def test_command(
    constitution: str,
    judge: str,
    margin: float,
    junit: str | None,
    watch: bool,
    config: str | None,
    cache: str | None,
    as_json: bool,
    template: str | None,
    **flags: Any,
) -> None:
    """Run each principle's own examples through the judge.

    An example passes if its principle, asked alone and in both orders, prefers `chosen` to
    `rejected` by the margin. Exits with 1 if any fails, or if there is none.
    """
    quiet_libraries()
    from rlaif.pipeline.comparing import JUDGE, Judging
    from rlaif.pipeline.judge_setup import (
        ANCHORED,
        JudgeSettings,
        prepare_judge,
        with_defaults,
    )
    from rlaif.pipeline.service import Service

    values, places = merge_settings(
        {**spread(flags), "model": judge, "template": template}, config,
        (JudgeSettings, EngineSettings), hidden=frozenset({"judge", "writer", "fold"}),
    )  # fmt: skip
    if values.get("engine") in (None, "auto"):
        values["engine"] = "vllm"
    engine = build(EngineSettings, values, places)
    own = {k: v for k, v in values.items() if k in JudgeSettings.model_fields}
    own["pointwise"] = ANCHORED  # asks for no labels beyond those of the judge's template
    settings = build(JudgeSettings, with_defaults(own, engine), places)

    with ExitStack() as stack:
        services: list[Service] = []

        def once() -> bool:
            loaded = load_constitution(constitution)
            judging: Judging = prepare_judge(constitution, settings).judging
            asks = any(p.check is None and p.examples for p in loaded.constitution.principles)
            if asks and not services:
                note(f"starting the judge {judge!r} on {engine.engine} ...")
                service = Service({JUDGE: engine}, cache_folder=Path(cache) if cache else None)
                services.append(stack.enter_context(closing(service)))
            return _test(loaded, judging, services, margin, junit, as_json)

        if not watch:
            passed = once()
        else:
            _watch(constitution, once)
            passed = True
    if not passed:
        sys.exit(1)


def _test(
    loaded: LoadedConstitution,
    judging: Any,
    services: list[Any],
    margin: float,
    junit: str | None,
    as_json: bool,
) -> bool:
    from rlaif.evaluation import constitution_tests as tests

    results = tests.run_examples(loaded, judging, services[0] if services else None, margin=margin)
    if junit:
        try:
            Path(junit).write_text(tests.junit(loaded.constitution.name, results), encoding="utf-8")
        except OSError as error:
            raise RlaifError(
                f"{junit!r} can't be written ({error.strerror})", hint="Name another file."
            ) from None
    if as_json:
        print_json([
            {"principle": r.principle, "example": r.number, "passed": r.passed,
             "p_chosen": r.p_chosen, "margin": r.margin, "flipped": r.flipped, "reason": r.reason,
             "place": str(r.place)}
            for r in results
        ])  # fmt: skip
    else:
        rows = []
        for principle in loaded.constitution.principles:
            own = [r for r in results if r.principle == principle.id]
            if not own:
                rows.append((principle.id, "no examples", "-", "-"))
                continue
            good, flips = sum(r.passed for r in own), sum(r.flipped for r in own)
            least = f"{min(r.margin for r in own):+.3f}"
            rows.append((principle.id, f"{good} of {len(own)}", least, str(flips)))
        click.echo(table(["principle", "passed", "least margin", "order flips"], rows))
        for r in results:
            if not r.passed:
                click.echo(f"FAILED {r.place}: {r.principle}, example {r.number}: {r.reason}")
                click.echo(f"       prompt: {' '.join(r.prompt.split())[:90]}")
        failed = sum(not r.passed for r in results)
        click.echo(f"{len(results) - failed} of {len(results)} examples passed")
    if not results:
        note("no principle has examples, so nothing was tested")
    return bool(results) and all(r.passed for r in results)


def _watch(constitution: str, once: Callable[[], bool]) -> None:
    """Test now and after every change of the file or one that it extends, until Ctrl-C."""
    files = {Path(constitution)}
    while True:
        # Taken before anything is read, so that no change is missed.
        seen = _stamps(files)
        try:
            loaded = load_constitution(constitution)
            files = {Path(loaded.path), *(Path(p.file) for p in loaded.places.values())}
            seen = {**_stamps(files), **{f: s for f, s in seen.items() if f in files}}
            once()
        except RlaifError as error:
            click.echo(f"error: {error}", err=True)
            if error.place is not None:  # a file that is extended, perhaps
                broken = Path(error.place.file)
                files.add(broken)
                seen.setdefault(broken, _stamps({broken})[broken])
        note("waiting for a change (Ctrl-C stops)")
        while _stamps(set(seen)) == seen:
            time.sleep(0.2)
        click.echo("")


def _stamps(files: set[Path]) -> dict[Path, int]:
    return {f: f.stat().st_mtime_ns if f.exists() else 0 for f in files}


_COVERAGE_EXAMPLES = """
\b
Examples:
  rlaif constitution coverage my.yaml pairs.jsonl --judge Qwen/Qwen3-8B -o runs/coverage
  rlaif constitution coverage my.yaml runs/first            of a labeling run; asks nothing
"""


@click.command(name="coverage", epilog=_COVERAGE_EXAMPLES)
@click.argument("constitution", metavar="C")
@click.argument("data")
@click.option("-o", "--out", help="Folder of the run; not needed where DATA is one.")
@click.option("-j", "--judge", default="demo", show_default=True, help="Model that judges.")
@click.option("--config", metavar="FILE", help="YAML file with any of the settings below.")
@click.option("--split", default="train", show_default=True, help="Split of a data set.")
@click.option("--cache", metavar="FILE", help="Verdict cache. [default: the user's]")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@settings_options(
    LabelSettings,
    skip=frozenset({"judge", "fold", "pairs", "pairs_per_prompt", "principles", "calibration",
                    "agreement_target", "agreement_delta"}),
)  # fmt: skip
@settings_options(FoldSettings)
@engine_flags
def coverage_command(
    constitution: str,
    data: str,
    out: str | None,
    judge: str,
    config: str | None,
    split: str,
    cache: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Say which principles decide, which never matter, which repeat or contradict each other.

    DATA is pairs to judge, or a labeling run of this constitution. Two principles contradict
    each other where their opinions of the same pairs correlate by -0.3 or less, and say the same
    from 0.9 on, where a corrected test confirms it.
    """
    quiet_libraries()
    from rlaif.evaluation.coverage import coverage
    from rlaif.evaluation.outcomes import read_outcomes
    from rlaif.pipeline.job import choose_engine, prepare, run_label
    from rlaif.store.run_directory import CONFIG, read_run_config

    loaded = load_constitution(constitution)
    run = Path(data)
    if (run / CONFIG).exists():
        used = read_run_config(run).get("constitution", {})
        if used.get("hash") != loaded.constitution.hash:
            raise RlaifError(
                f"run {data!r} was labeled with another constitution ({used.get('name', '?')} "
                f"{used.get('version', '?')}) than {constitution!r}",
                hint="Label again: verdicts that still hold come from the cache.",
            )
    else:
        if out is None:
            raise RlaifError("where should the run go?", hint="Name a folder with -o.")
        run = Path(out)
        cache_path = Path(cache) if cache else None
        settings = label_settings(config, {**flags, "judge": judge})
        chosen = choose_engine(settings.judge, run, cache_path)
        settings = settings.model_copy(update={"judge": chosen})
        job = prepare(data, constitution, settings, split=split)
        with closing(LabelScreen(job.source.count(settings.limit), settings.judge)) as screen:
            run_label(
                job, run, cache_path=cache_path, on_progress=screen.progress,
                on_engine=screen.engine,
            )  # fmt: skip
    found = coverage(read_outcomes(run))
    if as_json:
        print_json({
            "pairs": found.pairs,
            "principles": [{**vars(u), "verdict": u.verdict} for u in found.principles],
            "pairs_of_principles": [{**vars(t), "verdict": t.verdict} for t in found.ties],
        })  # fmt: skip
        return
    rows = [
        (u.principle, u.asked, percent(u.opinions), percent(u.agrees), u.decides, u.verdict)
        for u in found.principles
    ]
    head = ["principle", "pairs", "has an opinion", "decision follows", "decides", ""]
    click.echo(table(head, rows))
    click.echo("decides: pairs whose decision would be another, or none, without the principle")
    for t in found.ties:
        click.echo(
            f"{t.first} and {t.second} {t.verdict}: correlation {t.correlation:+.2f} on {t.n} "
            f"pairs, p = {t.p:.2g}"
        )


@click.command(name="ablate")
@click.argument("constitution", metavar="C")
@click.argument("labeled")
@click.option("-o", "--out", required=True, help="Folder of the evaluation; made if missing.")
@click.option("-j", "--judge", default="demo", show_default=True, help="Model that judges.")
@click.option("--config", metavar="FILE", help="YAML file with any of the settings below.")
@click.option("--split", default="train", show_default=True, help="Split of a data set.")
@click.option(
    "--map", "maps", multiple=True, metavar="NAME=COLUMN",
    help=f"Where a field is; NAME is label, subset, or one of {', '.join(FIELDS)}.",
)  # fmt: skip
@click.option("--cache", metavar="FILE", help="Verdict cache. [default: the user's]")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@settings_options(
    LabelSettings,
    skip=frozenset({"judge", "fold", "pairs", "pairs_per_prompt", "principles", "calibration",
                    "agreement_target", "agreement_delta"}),
)  # fmt: skip
@settings_options(FoldSettings)
@engine_flags
def ablate_command(
    constitution: str,
    labeled: str,
    out: str,
    judge: str,
    config: str | None,
    split: str,
    maps: tuple[str, ...],
    cache: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show how agreement with people changes when each principle is left out.

    LABELED is data as `rlaif eval` takes it. The judge is asked once; leaving a principle out
    asks nothing. "helps" and "hurts" are said only where a test says so.
    """
    quiet_libraries()
    from rlaif.evaluation.coverage import ablate
    from rlaif.evaluation.labeled import aligned, write_pairs
    from rlaif.evaluation.outcomes import read_outcomes
    from rlaif.evaluation.run import Candidate, evaluate
    from rlaif.store.sources import open_source

    mapping = assignments("--map", maps, (*FIELDS, "label", "subset"))
    limit = flags.pop("limit", None)
    candidate = Candidate(constitution, judge_settings(judge, config, flags)[0])
    folder = Path(out)
    data = write_pairs(open_source(labeled, split), folder, mapping=mapping, limit=limit)
    with closing(Screens(len(data.label))) as screens:
        found = evaluate(
            [candidate], data, folder, cache_path=Path(cache) if cache else None,
            on_progress=screens.progress, on_engine=screens.engine,
        )  # fmt: skip
    (run,) = found.folders.values()
    outcomes = read_outcomes(run)
    own = aligned(data, outcomes)
    ablations = ablate(outcomes, own.label, own.group)
    if as_json:
        print_json([
            {"principle": a.principle, "accuracy_without": a.accuracy,
             "difference": vars(a.test.difference), "p": a.p_adjusted, "verdict": a.verdict}
            for a in ablations
        ])  # fmt: skip
        return
    click.echo(f"accuracy with all: {found.reports[0].agreement.accuracy}")
    rows = [
        (a.principle, percent(a.accuracy), a.test.difference, f"{a.p_adjusted:.4f}", a.verdict)
        for a in ablations
    ]
    click.echo(table(["left out", "accuracy", "difference", "p (Holm)", "the principle"], rows))


_INDUCE_EXAMPLES = """
\b
Examples:
  rlaif constitution induce labeled.jsonl -m Qwen/Qwen3-8B -j Qwen/Qwen3-8B -o induced
  rlaif constitution induce labeled.jsonl -m big,engine=openai,base_url=http://... -j J -o induced
"""


@click.command(name="induce", epilog=_INDUCE_EXAMPLES)
@click.argument("labeled")
@click.option("-o", "--out", required=True, help="Folder of the result; made if missing.")
@click.option("-m", "--model", "writer", required=True, help="Model that proposes principles.")
@click.option("-j", "--judge", default="demo", show_default=True, help="Model that tests them.")
@click.option("--name", default="induced", show_default=True, help="Of the constitution.")
@click.option(
    "--pairs", default=50, show_default=True, type=click.IntRange(1),
    help="Pairs that principles are proposed for.",
)  # fmt: skip
@click.option(
    "--per-pair", default=2, show_default=True, type=click.IntRange(1, 20),
    help="Proposals for each.",
)  # fmt: skip
@click.option(
    "--candidates", default=20, show_default=True, type=click.IntRange(1, 200),
    help="Most candidates that the judge tests.",
)  # fmt: skip
@click.option(
    "--most", default=8, show_default=True, type=click.IntRange(1, 100), help="Most that are kept."
)
@click.option(
    "--proposal", default="plain", show_default=True, metavar="TEMPLATE",
    help="How the model is asked: a name, or a file such as prompts/induce/plain.txt.",
)  # fmt: skip
@click.option("--config", metavar="FILE", help="YAML file with any of the settings below.")
@click.option("--split", default="train", show_default=True, help="Split of a data set.")
@click.option(
    "--map", "maps", multiple=True, metavar="NAME=COLUMN",
    help=f"Where a field is; NAME is label, subset, or one of {', '.join(FIELDS)}.",
)  # fmt: skip
@click.option("--cache", metavar="DIR", help="What models said. [default: the user's]")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@settings_options(
    LabelSettings,
    skip=frozenset({"judge", "fold", "pairs", "pairs_per_prompt", "principles", "calibration",
                    "agreement_target", "agreement_delta", "stop", "stop_error", "pilot"}),
)  # fmt: skip
@engine_flags
def induce_command(
    labeled: str,
    out: str,
    writer: str,
    judge: str,
    name: str,
    pairs: int,
    per_pair: int,
    candidates: int,
    most: int,
    proposal: str,
    config: str | None,
    split: str,
    maps: tuple[str, ...],
    cache: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Propose principles that explain given preferences: a draft constitution.

    A model proposes a rule for each of some pairs; near-duplicates are merged; the judge applies
    each to all pairs; those are kept that agree with people beyond chance, add something to the
    others, and hold on a quarter of the data kept aside; another quarter, which decides nothing,
    gives the accuracy that is printed. (Inverse constitutional AI.)
    """
    quiet_libraries()
    from rlaif.evaluation.inducing import RESULT, induce, model_proposer
    from rlaif.evaluation.labeled import write_pairs
    from rlaif.pipeline.job import choose_engine
    from rlaif.store.cache import default_cache_path
    from rlaif.store.sources import open_source

    limit = flags.pop("limit", None)
    mapping = assignments("--map", maps, (*FIELDS, "label", "subset"))
    folder, cache_folder = Path(out), Path(cache) if cache else None
    cache_path = cache_folder / default_cache_path().name if cache_folder else None
    settings, _ = judge_settings(judge, config, flags)
    engine = choose_engine(settings.judge, folder / "new", cache_path)
    settings = settings.model_copy(update={"judge": engine})
    proposer, _ = judge_settings(writer, config, {**flags, "template": None})
    writing = choose_engine(proposer.judge, folder / "new", cache_path)
    if writing.engine == "packed":
        writing = writing.model_copy(update={"engine": "vllm"})
    data = write_pairs(open_source(labeled, split), folder, mapping=mapping, limit=limit)
    propose = model_proposer(
        writing, template=proposal, per_pair=per_pair, cache_folder=cache_folder,
        on_engine=lambda model: note(f"starting {model!r} ..."),
    )  # fmt: skip
    with closing(Screens(len(data.label))) as screens:
        found = induce(
            data, folder, propose, settings, name=name, pairs=pairs, candidates=candidates,
            most=most, cache_path=cache_path, on_progress=screens.progress,
            on_engine=lambda state: screens.engine(settings, state),
        )  # fmt: skip
    if as_json:
        print_json({
            "constitution": str(folder / RESULT) if found.kept else None,
            "accuracy": vars(found.accuracy),
            "kept": [{"id": k.candidate.id, "question": k.candidate.question,
                      "accuracy": vars(k.accuracy), "opinions": k.opinions,
                      "proposed": k.candidate.proposed} for k in found.kept],
            "dropped": [{"question": c.question, "proposed": c.proposed, "reason": reason}
                        for c, reason in found.dropped],
        })  # fmt: skip
        return
    rows = [
        (k.candidate.question, str(k.accuracy), percent(k.opinions), k.candidate.proposed)
        for k in found.kept
    ]
    click.echo(table(["kept", "right, kept aside", "has an opinion", "proposed"], rows))
    if found.dropped:
        dropped = [(c.question, reason) for c, reason in found.dropped]
        click.echo("\n" + table(["dropped", "why"], dropped))
    click.echo(f"\ntogether right on {found.accuracy} of {found.accuracy.n} pairs kept aside")
    click.echo(str(folder / RESULT) if found.kept else "nothing was kept, so there is no draft")

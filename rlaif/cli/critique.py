"""`rlaif critique`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.generation_screen import GenerationScreen, print_generation, print_survey
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.license_notes import licenses_flag, note_models
from rlaif.cli.common.model_flags import assignments, engine_flags, generation_flags, spread
from rlaif.cli.common.options import build, merge_settings, settings_options
from rlaif.cli.common.output import note, percent, print_json, quiet_libraries, table
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import model_fingerprint
from rlaif.generation.critique import PAIRS, CritiqueSettings, prepare_critique
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext
from rlaif.templates.judge import load_judge_template

_EXAMPLES = """
\b
Examples:
  rlaif critique runs/candidates/candidates.jsonl -c demo -o runs/revised
  rlaif critique answers.jsonl -c my.yaml --model Qwen/Qwen3-8B --judge Qwen/Qwen3-8B -o runs/r
  rlaif critique answers.jsonl -c my.yaml --model M --judge J --until-no-gain --rounds 8 -o runs/r
  rlaif train-sft runs/revised --model demo -o policies/revised

DATA holds prompts with one response or more: what `rlaif generate` wrote, or any layout that
`rlaif label` reads. In OUT: trace.jsonl (every critique and revision, with its principle),
pairs.jsonl (originals and final revisions), labels/ (the judge's labels of those pairs, which
`rlaif report` shows and `rlaif train-dpo` trains on) and sft.jsonl (the revisions that the judge
found better, for `rlaif train-sft`). Run the same command again after a stop: it goes on where it
stopped.
"""


@click.command(cls=Command, name="critique", epilog=_EXAMPLES)
@click.argument("data")
@click.option("-c", "--constitution", required=True, help="A YAML file or a shipped name.")
@click.option("-o", "--out", required=True, help="Folder of the run; made if missing.")
@click.option("-m", "--model", default="demo", show_default=True, help="Who criticizes, revises.")
@click.option(
    "-j", "--judge", help="Who verifies the revisions. [default: the model; demo for demo]"
)
@click.option("--judge-engine", help="Its engine. [default: as --engine]")
@click.option("--judge-template", help="Judge prompt layout: name or path.")
@click.option(
    "--writer-templates",
    help="Critique and revision layout: a shipped name, or a folder with critique.txt and "
    "revision.txt.",
)
@click.option("--verify/--no-verify", default=True, help="Let the judge label the pairs.")
@generation_flags
@licenses_flag
@settings_options(CritiqueSettings)
@engine_flags
def command(
    data: str,
    constitution: str,
    out: str,
    model: str,
    judge: str | None,
    judge_engine: str | None,
    judge_template: str | None,
    writer_templates: str | None,
    verify: bool,
    config: str | None,
    split: str,
    maps: tuple[str, ...],
    cache_dir: Path | None,
    dry_run: bool,
    as_json: bool,
    licenses: str,
    **flags: Any,
) -> None:
    """Criticize and revise responses by a constitution, and have a judge verify the revisions.

    The supervised half of Constitutional AI: round after round, a principle's critique request,
    then its revision request.
    """
    quiet_libraries()
    names = (CritiqueSettings, EngineSettings)
    values, places = merge_settings(spread(flags), config, names, hidden=frozenset({"model"}))
    settings = build(CritiqueSettings, values, places)
    writer = build(
        EngineSettings, {**values, "model": "demo-writer" if model == "demo" else model}, places
    )
    judge = judge or model
    judging = build(
        EngineSettings,
        {**values, "model": judge, "engine": judge_engine or values.get("engine", "vllm")},
        places,
    )
    judge_template = judge_template or ("demo" if judge == "demo" else "pairwise")
    from rlaif.generation.runner import run_generation, survey
    from rlaif.generation.verified import LABELS, write_sft
    from rlaif.labeling.job import prepare, run_label

    job = prepare_critique(
        data,
        constitution,
        writer,
        settings,
        templates=writer_templates or ("demo" if model == "demo" else "plain"),
        judge=judging,
        judge_template=judge_template,
        mapping=assignments("--map", maps),
        split=split,
    )
    if verify:
        # What the judge needs is checked before the writer starts.
        load_judge_template(judge_template)
        model_fingerprint(judging)
    if dry_run:
        print_survey(survey(job, RunContext(cache_dir)), as_json=as_json)
        return
    judges = [("labels", judging)] if verify else []
    note_models(licenses, [("completions", writer), *judges])
    screen = GenerationScreen(settings.limit, "response")
    with closing(screen):
        summary = run_generation(job, Path(out), screen.context(cache_dir))
    revised = int(summary.counts.get("revised", 0))
    if verify and revised:
        label = LabelSettings(judge=judging, template=judge_template)
        check = prepare(str(Path(out) / PAIRS), constitution, label)
        with closing(LabelScreen(revised)) as labeling:
            run_label(check, Path(out) / LABELS, labeling.context(cache_dir))
    found = write_sft(Path(out), verified=verify and bool(revised))
    if as_json:
        shown = vars(found) if verify else None
        print_json({"run": out, "fresh": summary.fresh, **summary.manifest, "verified": shown})
        return
    print_generation(summary, "revised", as_json=False)
    if not verify:
        note("no revision was verified: sft.jsonl holds all of them")
        return
    if settings.until_no_gain:
        note("each revision was taken because the judge liked it: it repeats its own word here")
    decided = found.better + found.worse
    rows = [
        (
            "better than the original",
            found.better,
            percent(found.better / decided if decided else None),
        ),
        ("worse", found.worse, percent(found.worse / decided if decided else None)),
        ("undecided", found.undecided, "-"),
    ]
    click.echo("\n" + table(["revisions, by the judge", "pairs", "of decided"], rows))

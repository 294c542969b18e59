"""`rlaif synth-prompts`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.config_file import note_changes
from rlaif.cli.common.generation_screen import GenerationScreen, print_generation, print_survey
from rlaif.cli.common.judges import given_text
from rlaif.cli.common.layout_flags import layout_fields, layout_flags, with_file_layout
from rlaif.cli.common.license_notes import licenses_flag, note_models
from rlaif.cli.common.model_flags import engine_flags, generation_flags, spread, text_list
from rlaif.cli.common.options import build, merge_settings, settings_options
from rlaif.cli.common.output import note, quiet_libraries
from rlaif.engines.base import EngineSettings
from rlaif.generation.prompts import TEMPLATES, SynthesisSettings, prepare_synthesis
from rlaif.runs.context import RunContext

_EXAMPLES = f"""
\b
Examples:
  rlaif synth-prompts seeds.jsonl --model Qwen/Qwen3-8B --count 1000 -o runs/prompts
  rlaif synth-prompts seeds.jsonl -m M --template red-team --template multi-turn -o runs/p
  rlaif synth-prompts seeds.jsonl -m M --topics mine.txt --evaluation test.jsonl -o runs/p

SEEDS holds a few human-written prompts. Shipped templates: {", ".join(TEMPLATES)}; they are
text files in prompts/synth that you can copy and edit. OUT/prompts.jsonl gets the new prompts
as they are generated, and at the end the seeds, with origin and weight, for `rlaif generate`.
If the run is interrupted, rerun the same command to resume.
"""


@click.command(cls=Command, name="synth-prompts", epilog=_EXAMPLES)
@click.argument("seeds")
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option("-m", "--model", help="Model that generates the prompts. [default: demo]")
@click.option(
    "--template",
    "templates",
    multiple=True,
    help="Prompt template: a shipped name or a path; repeat to alternate between several. "
    "[default: self-instruct]",
)
@click.option("--topics", help="File with one topic per line. [default: topics]")
@click.option("--personas", help="File with one persona per line. [default: personas]")
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    metavar="DATA",
    help="Evaluation data; new prompts that overlap with it are dropped; repeatable.",
)
@generation_flags
@layout_flags
@licenses_flag
@settings_options(SynthesisSettings)
@engine_flags
def command(
    seeds: str,
    out: str,
    model: str | None,
    templates: tuple[str, ...],
    topics: str | None,
    personas: str | None,
    evaluations: tuple[str, ...],
    config: str | None,
    split: str,
    cache_dir: Path | None,
    dry_run: bool,
    as_json: bool,
    licenses: str,
    **flags: Any,
) -> None:
    """Generate new prompts from a few human-written ones (Self-Instruct).

    New prompts that are similar to a known one, or share an n-gram with evaluation data, are
    dropped and counted.

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    given = layout_fields(flags)
    names = (SynthesisSettings, EngineSettings)
    values, places = merge_settings(
        {**spread(flags), "model": model},
        config,
        names,
        also=("templates", "topics", "personas", "evaluations", "layout"),
    )
    model = str(values.pop("model", "demo"))
    templates = templates or text_list(values, places, "templates")
    settings = build(SynthesisSettings, values, places)
    shown = "demo-writer" if model == "demo" else model
    engine = build(EngineSettings, {**values, "model": shown}, places)
    from rlaif.generation.runner import run_generation, survey

    job = prepare_synthesis(
        seeds,
        engine,
        settings,
        templates=templates or (("demo",) if model == "demo" else ("self-instruct",)),
        topics=topics or given_text(values, places, "topics") or "topics",
        personas=personas or given_text(values, places, "personas") or "personas",
        evaluations=evaluations or text_list(values, places, "evaluations"),
        given=with_file_layout(given, values, places),
        split=split,
    )
    note_changes(config, job.config)
    if dry_run:
        print_survey(survey(job, RunContext(cache_dir)), as_json=as_json)
        return
    note_models(licenses, [("prompts", engine)])
    screen = GenerationScreen(settings.count, "prompt", written=True)
    with closing(screen):
        summary = run_generation(job, Path(out), screen.context(cache_dir))
    made = int(summary.counts.get("new prompts", 0))
    if made < settings.count:
        note(
            f"only {made} of {settings.count} prompts: the last batches brought nothing "
            "new. Use other templates, topics or seeds, or a higher temperature."
        )
    print_generation(summary, "synthesized", as_json=as_json)

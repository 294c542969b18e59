"""`rlaif generate`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.config_file import note_changes
from rlaif.cli.common.generation_screen import GenerationScreen, print_generation, print_survey
from rlaif.cli.common.judges import OF_A_SIDE_JUDGE, judge_beside
from rlaif.cli.common.layout_flags import layout_fields, layout_flags, with_file_layout
from rlaif.cli.common.license_notes import licenses_flag, note_models
from rlaif.cli.common.model_flags import (
    engine_flags,
    generation_flags,
    model_with_settings,
    models_of_file,
    spread,
    text_list,
)
from rlaif.cli.common.options import build, merge_settings, settings_options
from rlaif.cli.common.output import note, quiet_libraries
from rlaif.engines.base import EngineSettings
from rlaif.errors import Place, RlaifError
from rlaif.generation.candidates import (
    GenerateSettings,
    SamplingSettings,
    Teacher,
    prepare_generate,
)
from rlaif.runs.context import RunContext

_EXAMPLES = """
\b
Examples:
  rlaif generate prompts.jsonl --model demo -n 4 -o runs/candidates
  rlaif generate prompts.jsonl -m Qwen/Qwen3-4B -m google/gemma-3-4b-it,n=2 -o runs/two
  rlaif generate p.jsonl -m big,engine=openai,base_url=http://host:8000/v1 -m small -o runs/x
  rlaif generate prompts.jsonl -m M -n 8 --keep 2 -c my.yaml --judge J -o runs/best
  rlaif generate p.jsonl -m M -n 8 --keep 1 -c my.yaml --target principle:be-concise -o runs/y

PROMPTS is a .jsonl, .json, .parquet or .csv file, a folder saved by datasets, or hub:NAME.
Each row has a prompt, as text or chat messages. OUT/candidates.jsonl is the input for `rlaif
label` and `rlaif critique`. If the run is interrupted, rerun the same command to resume.
"""


@click.command(cls=Command, name="generate", epilog=_EXAMPLES)
@click.argument("prompts")
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="MODEL[,NAME=VALUE...]",
    help="Model to sample from: a local folder, a Hub ID or `demo`; repeat for several, which "
    "run one after another. Settings of one model follow its name: n, temperature, "
    "top_p, max_tokens, revision, dtype, engine, base_url.",
)
@click.option(
    "-n", "n", type=int, help="Completions per prompt and model. [default: 4; 1<=x<=10000]"
)
@click.option("-c", "--constitution", help="Constitution for ranking completions with --keep.")
@click.option("-j", "--judge", help="Judge model that ranks completions. [default: demo]")
@click.option("--judge-engine", help="Engine of the judge. [default: same as --engine]")
@click.option("--judge-template", help="Judge prompt template: a name or a path.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="WHAT",
    help="Target for kept completions: principle:ID, language:en, length:short, length:long "
    "or length:20-80 (words); repeatable.",
)
@generation_flags
@layout_flags
@licenses_flag
@settings_options(SamplingSettings, skip=frozenset({"n"}))
@settings_options(GenerateSettings)
@engine_flags
def command(
    prompts: str,
    out: str,
    models: tuple[str, ...],
    constitution: str | None,
    judge: str | None,
    judge_engine: str | None,
    judge_template: str | None,
    targets: tuple[str, ...],
    config: str | None,
    split: str,
    cache_dir: Path | None,
    dry_run: bool,
    as_json: bool,
    licenses: str,
    **flags: Any,
) -> None:
    """Generate candidate completions for prompts, with one or more models.

    Every completion records its origin: model, revision, sampling parameters, seed, license
    and number of synthetic generations.
    """
    quiet_libraries()
    given = layout_fields(flags)
    names = (GenerateSettings, SamplingSettings, EngineSettings)
    values, places = merge_settings(
        spread(flags),
        config,
        names,
        hidden=frozenset({"model"}),
        also=(*OF_A_SIDE_JUDGE, "models", "targets", "layout"),
    )
    settings = build(GenerateSettings, values, places)
    teachers = _teachers(models, values, places, spread(flags))
    from rlaif.generation.runner import run_generation, survey

    ranking = judge_beside(
        judge, judge_engine, judge_template, default="demo", values=values, places=places
    )
    if ranking.calibration is not None:
        note("the judge's calibration has no effect here: completions are ranked, not labeled")
    job = prepare_generate(
        prompts,
        teachers,
        settings,
        given=with_file_layout(given, values, places),
        split=split,
        constitution=constitution,
        judge=ranking,
        targets=targets or text_list(values, places, "targets"),
    )
    note_changes(config, job.config)
    if dry_run:
        print_survey(survey(job, RunContext(cache_dir)), as_json=as_json)
        return
    note_models(licenses, [("completions", t.engine) for t in teachers])
    screen = GenerationScreen(job.source.count(settings.limit))
    with closing(screen):
        summary = run_generation(job, Path(out), screen.context(cache_dir))
    print_generation(summary, "generated", as_json=as_json)


def _teachers(
    models: tuple[str, ...],
    values: Mapping[str, Any],
    places: Mapping[str, Place],
    flags: Mapping[str, Any],
) -> list[Teacher]:
    """The models of `-m`, or else those of the settings file."""
    if not models and "models" not in values:
        raise RlaifError(
            "no model is given", hint="Add -m MODEL, or `models` in the --config file."
        )
    found = []
    for text in models:
        name = text.partition(",")[0]
        shown = "demo-policy" + text.removeprefix(name) if name == "demo" else text
        found.append(model_with_settings(shown, values, SamplingSettings))
    if not models:
        found = models_of_file(values, places, SamplingSettings, flags)
    return [Teacher(engine, sampling) for engine, sampling in found]

"""`rlaif critique`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.config_file import note_changes
from rlaif.cli.common.generation_screen import GenerationScreen, print_generation, print_survey
from rlaif.cli.common.judges import OF_A_SIDE_JUDGE, given_text, judge_beside
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.layout_flags import layout_fields, layout_flags, with_file_layout
from rlaif.cli.common.license_notes import licenses_flag, note_models
from rlaif.cli.common.model_flags import engine_flags, generation_flags, spread
from rlaif.cli.common.options import build, merge_settings, settings_options
from rlaif.cli.common.output import echo, note, percent, print_json, quiet_libraries, table
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import model_fingerprint
from rlaif.generation.critique import PAIRS, CritiqueSettings, prepare_critique
from rlaif.generation.verified import LABELS
from rlaif.runs.context import RunContext
from rlaif.templates.judge import load_judge_template

_EXAMPLES = """
\b
Examples:
  rlaif critique runs/candidates/candidates.jsonl -c demo -o runs/revised
  rlaif critique answers.jsonl -c my.yaml -m Qwen/Qwen3-8B -j Qwen/Qwen3-8B -o runs/r
  rlaif critique answers.jsonl -c my.yaml -m M -j J --until-no-gain --rounds 8 -o runs/r
  rlaif train-sft runs/revised --model demo -o policies/revised

DATA holds prompts with one or more responses: the output of `rlaif generate`, or any layout
that `rlaif label` reads. OUT gets trace.jsonl (every critique and revision, with its
principle) and pairs.jsonl (originals and final revisions). OUT/labels holds the judge's
labels of those pairs, for `rlaif report` and `rlaif train-dpo`. OUT/sft.jsonl holds the
revisions that the judge preferred, for `rlaif train-sft`. If the run is interrupted, rerun
the same command to resume.
"""


@click.command(cls=Command, name="critique", epilog=_EXAMPLES)
@click.argument("data")
@click.option(
    "-c", "--constitution", required=True, help="Constitution: a YAML file or a shipped name."
)
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option(
    "-m",
    "--model",
    help="Model that generates critiques and revisions. [default: demo]",
)
@click.option(
    "-j", "--judge", help="Judge model that verifies the revisions. [default: same as --model]"
)
@click.option("--judge-engine", help="Engine of the judge. [default: same as --engine]")
@click.option("--judge-template", help="Judge prompt template: a name or a path.")
@click.option(
    "--writer-templates",
    help="Prompt templates for critique and revision: a shipped name, or a folder with "
    "critique.txt and revision.txt.",
)
@click.option(
    "--verify/--no-verify",
    default=None,
    help="Have the judge label original and revision as pairs, and keep only the better revisions "
    "for SFT. [default: on]",
)
@generation_flags
@layout_flags
@licenses_flag
@settings_options(CritiqueSettings)
@engine_flags
def command(
    data: str,
    constitution: str,
    out: str,
    model: str | None,
    judge: str | None,
    judge_engine: str | None,
    judge_template: str | None,
    writer_templates: str | None,
    verify: bool | None,
    config: str | None,
    split: str,
    cache_dir: Path | None,
    dry_run: bool,
    as_json: bool,
    licenses: str,
    **flags: Any,
) -> None:
    """Criticize and revise responses by a constitution; a judge verifies the revisions.

    This is the supervised phase of Constitutional AI. In each round, the model criticizes the
    response by a principle, then revises it.

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    given = layout_fields(flags)
    names = (CritiqueSettings, EngineSettings)
    values, places = merge_settings(
        {**spread(flags), "model": model},
        config,
        names,
        also=(*OF_A_SIDE_JUDGE, "writer_templates", "layout", "verify"),
    )
    model = str(values.pop("model", "demo"))
    verify = values.get("verify", True) if verify is None else verify
    writer_templates = writer_templates or given_text(values, places, "writer_templates")
    settings = build(CritiqueSettings, values, places)
    writer = build(
        EngineSettings, {**values, "model": "demo-writer" if model == "demo" else model}, places
    )
    judging = judge_beside(
        judge, judge_engine, judge_template, default=model, values=values, places=places
    )
    from rlaif.data.layout import OWN_TEXT_PAIRS
    from rlaif.generation.runner import run_generation, survey
    from rlaif.generation.verified import write_sft
    from rlaif.labeling.job import prepare, run_label

    job = prepare_critique(
        data,
        constitution,
        writer,
        settings,
        templates=writer_templates or ("demo" if model == "demo" else "plain"),
        judge=judging,
        verify=bool(verify),
        given=with_file_layout(given, values, places),
        split=split,
    )
    if verify:
        # What the judge needs is checked before the writer starts.
        load_judge_template(judging.template)
        model_fingerprint(judging.judge)
    note_changes(config, job.config)
    if dry_run:
        print_survey(survey(job, RunContext(cache_dir)), as_json=as_json)
        return
    judges = [("labels", judging.judge)] if verify else []
    note_models(licenses, [("completions", writer), *judges])
    screen = GenerationScreen(settings.limit, "response")
    with closing(screen):
        summary = run_generation(job, Path(out), screen.context(cache_dir))
    revised = int(summary.counts.get("revised", 0))
    if verify and revised:
        # Not found out from what models wrote: a text of theirs may look like a conversation.
        known = judging.model_copy(update={"layout": OWN_TEXT_PAIRS})
        check = prepare(str(Path(out) / PAIRS), constitution, known)
        with closing(LabelScreen(revised)) as labeling:
            run_label(check, Path(out) / LABELS, labeling.context(cache_dir))
    found = write_sft(Path(out), verified=verify and bool(revised))
    if as_json:
        shown = vars(found) if verify else None
        print_json({"run": out, "fresh": summary.fresh, **summary.manifest, "verified": shown})
        return
    print_generation(summary, "revised", as_json=False)
    if verify:
        _print_verified(found, settings)
    else:
        note("revisions were not verified: sft.jsonl contains all of them")


def _print_verified(found: Any, settings: CritiqueSettings) -> None:
    """How the judge took the revisions."""
    if settings.until_no_gain:
        note(
            "the judge already selected each revision (--until-no-gain), so its verdicts "
            "here are not independent"
        )
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
    echo("\n" + table(["revisions, per judge", "pairs", "of decided"], rows))

"""`rlaif import-feedback`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.options import build, merge_settings, settings_options
from rlaif.cli.common.output import note, print_json, quiet_libraries, table
from rlaif.feedback.importing import FeedbackSettings

_EXAMPLES = """
\b
Examples:
  rlaif import-feedback log.jsonl -o data/feedback
  rlaif import-feedback log.csv --map prompt=question --per-user 5 -o data/feedback
  rlaif import-feedback log.jsonl --personal my_filters:presidio -o data/feedback

\b
A row of a log has a prompt, a response, and any of
  user                       whose feedback it is (also user_id, session, ...)
  thumbs                     up or down (also vote, feedback, label, liked)
  rating                     a number (also stars, score)
  edited                     what the user made of the response (also edit, corrected)
  regenerated                responses that the user had replaced by this one, as a list

OUT/preferences.jsonl is what `rlaif train-dpo --human`, `rlaif mix --human`, `rlaif calibrate` and
`rlaif eval` read; OUT/kto.jsonl is what TRL's KTOTrainer reads. An edit is preferred to what it was
made from, a kept response to a regenerated one, thumbs up to thumbs down on one prompt, and a
higher rating to a lower one by the same user; each with a probability, and what several users say
is added up. No user's name is written.
"""


@click.command(cls=Command, name="import-feedback", epilog=_EXAMPLES)
@click.argument("log")
@click.option("-o", "--out", required=True, help="Folder of the result; made if missing.")
@click.option("--split", default="train", show_default=True, help="Split of a data set.")
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Where prompt, system, response, user, thumbs, rating, edited or regenerated is, as a "
    "dotted path.",
)
@click.option("--config", metavar="FILE", help="YAML file with any of the settings below.")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@settings_options(FeedbackSettings)
def command(
    log: str,
    out: str,
    split: str,
    maps: tuple[str, ...],
    config: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Turn a product log (thumbs, ratings, edits, regenerations) into human preferences."""
    quiet_libraries()
    from rlaif.cli.common.model_flags import assignments
    from rlaif.feedback.events import FIELDS
    from rlaif.feedback.importing import import_feedback

    values, places = merge_settings(flags, config, (FeedbackSettings,))
    settings = build(FeedbackSettings, values, places)
    report = import_feedback(
        log, Path(out), settings, mapping=assignments("--map", maps, FIELDS), split=split
    )
    if as_json:
        print_json({"out": out, **vars(report)})
        return
    rows = [
        ("rows", report.rows),
        ("without feedback, or unreadable (rejected.jsonl)", report.unreadable),
        ("events left out: over --per-user", report.capped),
        ("users", report.users),
        ("events with personal data taken out", report.redacted),
        ("preferences", report.preferences),
        ("pairs on which users cancel out", report.undecided),
        ("KTO rows", report.kto),
        ("completions with as many for as against", report.split),
        *((f"from {what}", n) for what, n in report.sources.items()),
    ]
    click.echo(table(["feedback", out], rows))
    if report.anonymous:
        note(
            f"{report.anonymous} events name no user: nothing keeps one person from speaking often"
        )
    if settings.personal == "none":
        note("personal data was not looked for (--personal none)")

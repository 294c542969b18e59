"""`rlaif import-feedback`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.options import build, config_flag, merge_settings, settings_options
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries, table
from rlaif.feedback.importing import FeedbackSettings

_EXAMPLES = """
\b
Examples:
  rlaif import-feedback log.jsonl -o data/feedback
  rlaif import-feedback log.csv --map prompt=question --per-user 5 -o data/feedback
  rlaif import-feedback log.jsonl --personal my_filters:presidio -o data/feedback

\b
Each row of LOG has a prompt, a response, and any of
  user                       user ID (also user_id, session, ...)
  thumbs                     up or down (also vote, feedback, label, liked)
  rating                     a number (also stars, score)
  edited                     the user's edit of the response (also edit, corrected)
  regenerated                list of responses that the user replaced with this one

OUT/preferences.jsonl is for `rlaif train-dpo --human-data`, `rlaif mix --human-labeled`,
`rlaif calibrate` and `rlaif eval`; OUT/kto.jsonl is for TRL's KTOTrainer. An edit is preferred
to its original, and a kept response to a regenerated one. On the same prompt, thumbs up is
preferred to thumbs down, and a higher rating to a lower one by the same user. Each has a
probability; feedback of several users is combined. User names are not written.
"""


@click.command(cls=Command, name="import-feedback", epilog=_EXAMPLES)
@click.argument("log")
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option("--split", default="train", show_default=True, help="Dataset split.")
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Read field NAME from COLUMN (a dotted path); NAME is prompt, system, response, "
    "user, thumbs, rating, edited or regenerated.",
)
@config_flag
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
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
    """Convert a product log (thumbs, ratings, edits, regenerations) to human preferences."""
    quiet_libraries()
    from rlaif.cli.common.model_flags import assignments
    from rlaif.feedback.events import FIELDS
    from rlaif.feedback.importing import import_feedback
    from rlaif.util.user_functions import allow_typed

    allow_typed(flags.get("personal") or "")
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
        ("no feedback or unreadable (rejected.jsonl)", report.unreadable),
        ("events dropped by --per-user", report.capped),
        ("users", report.users),
        ("events with personal data removed", report.redacted),
        ("preferences", report.preferences),
        ("pairs with balanced feedback", report.undecided),
        ("KTO rows", report.kto),
        ("completions with balanced feedback", report.split),
        *((f"from {what}", n) for what, n in report.sources.items()),
    ]
    echo(table(["feedback", out], rows))
    if found := report.ratings:
        note(
            f"ratings run from {found['low']:g} to {found['high']:g} ({found['scale']}): "
            f"{found['good']} good, {found['bad']} bad, {found['neither']} neither"
        )
    if report.anonymous:
        note(f"{report.anonymous} events have no user ID, so --per-user cannot limit them")
    if settings.personal == "none":
        note("personal data was not removed (--personal none)")

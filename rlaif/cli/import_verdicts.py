"""`rlaif import-verdicts`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.label_summary import print_summary
from rlaif.cli.common.model_flags import cache_dir_flag
from rlaif.cli.common.options import build, settings_options
from rlaif.cli.common.output import note, print_json, quiet_libraries
from rlaif.engines.base import EngineSettings, Option
from rlaif.judging.aggregation import AggregationSettings
from rlaif.labeling.settings import LabelSettings

_EXAMPLES = """
\b
Examples:
  rlaif import-verdicts verdicts.csv --pairs pairs.jsonl -o runs/gpt --judge gpt-x
  rlaif import-verdicts all.csv --pairs pairs.jsonl --where judge=gpt-x --where way=cot -o runs/x
  rlaif import-verdicts votes.jsonl --pairs pairs.jsonl -c my.yaml -o runs/votes
  rlaif calibrate runs/gpt --human-labels labeled.jsonl

A row has `id` (of the pair) and the verdict of each order: `shown_ab` and `shown_ba` (a, b, tie
or nothing), or `p_ab` and `p_ba` (probability that a is better). Or it has `order` (ab or ba,
what was shown first) with `winner` or `p_a`. With several principles it has `principle`. A
winner without a probability counts as nearly certain, as a programmatic check does. The run
is like any other: report, calibrate, win-rate, verify and panels read it.
"""


@click.command(cls=Command, name="import-verdicts", epilog=_EXAMPLES)
@click.argument("verdicts")
@click.option("--pairs", required=True, metavar="DATA", help="The pairs, with their IDs.")
@click.option("-o", "--out", required=True, metavar="DIR", help="Run folder.")
@click.option(
    "-c",
    "--constitution",
    default="overall",
    show_default=True,
    help="Constitution with the principles that the verdicts are on.",
)
@click.option(
    "-j", "--judge", default="recorded", show_default=True, help="Name of the judge, for reports."
)
@click.option(
    "--where",
    "filters",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Take only rows with this value; repeatable.",
)
@click.option(
    "--orders",
    type=click.Choice(["both", "one"]),
    default="both",
    show_default=True,
    help="Whether the verdicts are in both orders.",
)
@cache_dir_flag
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options(AggregationSettings)
def command(
    verdicts: str,
    pairs: str,
    out: str,
    constitution: str,
    judge: str,
    filters: tuple[str, ...],
    orders: str,
    cache_dir: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Make a labeling run of verdicts that another tool, another judge or people gave.

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    from rlaif.cli.common.model_flags import assignments
    from rlaif.engines.registry import create_engine
    from rlaif.labeling.job import prepare, run_label
    from rlaif.labeling.recorded import TEMPLATE, RecordedEngine

    assignments("--where", filters)
    options: dict[str, Option] = {
        "verdicts": verdicts,
        "pairs": pairs,
        "constitution": constitution,
    }
    if filters:
        options["where"] = "&".join(filters)
    engine = EngineSettings(engine="recorded", model=judge, options=options)
    given = {name: value for name, value in flags.items() if value is not None}
    settings = LabelSettings(
        judge=engine,
        template=TEMPLATE,
        orders=orders,  # type: ignore[arg-type]
        aggregation=build(AggregationSettings, given),
    )
    job = prepare(pairs, constitution, settings)
    with closing(create_engine(engine)) as opened:
        assert isinstance(opened, RecordedEngine)
        counts = opened.counts
    note(
        f"{counts.verdicts} verdicts, of which {counts.unreadable} say nothing; "
        f"{counts.unknown} of pairs that the data does not have"
        + (
            f"; on {counts.contradicted} questions, pairs with the same texts have different "
            "verdicts, and none counts"
            if counts.contradicted
            else ""
        )
    )
    with closing(LabelScreen(job.source.count(None))) as screen:
        summary = run_label(job, Path(out), screen.context(cache_dir))
    if as_json:
        print_json({"run": out, "fresh": summary.fresh, **summary.manifest})
    else:
        print_summary(summary)

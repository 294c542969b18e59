"""`rlaif push`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import echo, print_json, quiet_libraries, table

_EXAMPLES = """
\b
Examples:
  rlaif push runs/first me/my-preferences --dry-run
  rlaif push mixes/all me/my-mix --private

Log in with `hf auth login`, or set HF_TOKEN. A mix is uploaded with its own card. A run is
uploaded as Parquet, with its constitution and a card.
"""


@click.command(cls=Command, name="push", epilog=_EXAMPLES)
@click.argument("source")
@click.argument("repo")
@click.option("--private", is_flag=True, help="Create the repository as a private one.")
@click.option("--dry-run", is_flag=True, help="Show the files and the card, then exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(source: str, repo: str, private: bool, dry_run: bool, as_json: bool) -> None:
    """Upload a labeling run or a mix to the Hub as a dataset.

    SOURCE is the output folder of `rlaif label` or `rlaif mix`; REPO is owner/name.
    """
    quiet_libraries()
    from rlaif.exporting.push import facts_of, stage_dataset, upload_dataset

    with tempfile.TemporaryDirectory() as scratch:
        plan = stage_dataset(Path(source), repo, Path(scratch) / "data")
        facts = facts_of(plan)
        if not dry_run:
            facts["url"] = upload_dataset(plan, private=private)
        if as_json:
            print_json(facts | {"card": plan.card})
            return
        echo(table(["file", "bytes"], [[n, str(s)] for n, s in facts["files"].items()]))
        echo("")
        echo(plan.card if dry_run else f"uploaded to {facts['url']}")

"""`rlaif inspect`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.layout_flags import layout_fields, layout_flags
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries, table, terminal_width

_EXAMPLES = """
\b
Examples:
  rlaif inspect pairs.jsonl
  rlaif inspect answers.csv --map prompt=question --map response_a=bot1 --map response_b=bot2
  rlaif inspect votes.jsonl --map label=choice --value 0=a --value 1=b
  rlaif inspect data.parquet --write-layout layout.yaml

The first thousand rows decide which column plays which role. Every command that reads data
then holds to it, and rejects rows that deviate. Fields of --map and of a layout file:
prompt, context, history, system, tools, responses, calls, chosen, rejected, scores, order,
label, good, bad, good_from, names, origins, media, id, tags, subset, group_by, thread_by and turn.
A path is dotted, and [] goes through a list (votes[].value). A+B joins two columns. Exits with
1 if something that may matter is not used or not clear, or if no row can be read.
"""


@click.command(cls=Command, name="inspect", epilog=_EXAMPLES)
@click.argument("data")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option(
    "--limit", type=click.IntRange(1), default=10, show_default=True, help="Rows to show."
)
@click.option(
    "--write-layout",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the layout as YAML, to edit and to pass with --layout.",
)
@click.option("--split", default="train", show_default=True, help="Dataset split.")
@layout_flags
def command(
    data: str, as_json: bool, limit: int, write_layout: Path | None, split: str, **flags: Any
) -> None:
    """Show how the rows of DATA are understood: roles of columns, prompts and responses.

    DATA is a data file, a folder, or hub:NAME. Nothing is judged or written.
    """
    quiet_libraries()
    from rlaif.data.dataset import describe, open_dataset
    from rlaif.util.output import explain_failure

    found = open_dataset(data, split=split, given=layout_fields(flags, own=True))
    if write_layout is not None:
        with explain_failure(write_layout):
            write_layout.write_text(found.whole_layout().to_yaml(), encoding="utf-8")
        note(f"wrote {write_layout}")
    shown = describe(found, limit)
    if as_json:
        print_json(shown)
        raise SystemExit(1 if shown["problems"] or not shown["rows"] else 0)
    echo(table(["column", "role"], [[name, role] for name, role in shown["columns"].items()]))
    for message in shown["problems"]:
        note(message)
    for row in islice(shown["rows"], limit):
        echo("")
        echo(f"row {row['row']}")
        for turn in row["prompt"]:
            echo(f"  {turn['role']}: {_short(turn)}")
        for k, candidate in enumerate(row["candidates"]):
            mark = "*" if row["winner"] == k else " "
            score = "" if candidate["score"] is None else f" (score {candidate['score']:g})"
            origin = f" [{candidate['origin']}]" if candidate["origin"] else ""
            said = " / ".join(_short(turn) for turn in candidate["messages"])
            echo(f"  {mark} {'abcdefghijklmnopqrstuvwxyz'[k % 26]}: {said}{origin}{score}")
        if row["winner"] == "tie":
            echo("    tie")
    for rejected in shown["rejected"]:
        echo(f"rejected row {rejected['row']}: {rejected['reason']}")
    raise SystemExit(1 if shown["problems"] or not shown["rows"] else 0)


def _short(turn: dict[str, Any]) -> str:
    """As much of a turn as fits a line beside its role."""
    most = max(30, terminal_width() - 13)
    text = " ".join(str(turn["content"]).split())
    calls = [call["function"]["name"] for call in turn.get("tool_calls", [])]
    text = " ".join(filter(None, [text, *(f"<calls {name}>" for name in calls)]))
    return text if len(text) <= most else f"{text[: most - 3]}..."

"""`rlaif mix`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.output import print_json, quiet_libraries, table
from rlaif.errors import RlaifError

_EXAMPLES = """
\b
Examples:
  rlaif mix runs/revised/sft.jsonl=0.8 human.jsonl=0.2 --human human.jsonl -o data/mixed
  rlaif mix a.jsonl=1 b.jsonl=1 --total 1000 -o data/mixed

OUT/mixed.jsonl is what `rlaif train-sft` and `rlaif generate` read. (For preference pairs,
`rlaif train-dpo --human FILE` mixes by itself.)
"""


@click.command(name="mix", epilog=_EXAMPLES)
@click.argument("parts", nargs=-1, required=True, metavar="DATA=SHARE...")
@click.option("-o", "--out", required=True, help="Folder of the result; made if missing.")
@click.option(
    "--human",
    multiple=True,
    metavar="DATA",
    help="One of the data sets, whose rows people wrote: they get a human origin.",
)
@click.option("--total", type=click.IntRange(1), help="Rows wanted. [default: what there is]")
@click.option("--seed", type=int, default=0, show_default=True, help="Which rows are drawn.")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
def command(
    parts: tuple[str, ...],
    out: str,
    human: tuple[str, ...],
    total: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Mix data sets in stated shares, such as AI completions with human ones."""
    quiet_libraries()
    from rlaif.pipeline.mix import mix, read_parts

    given = {}
    for text in parts:
        data, equals, number = text.rpartition("=")
        if not equals or not data:
            raise RlaifError(f"{text!r} is not DATA=SHARE", hint="Write human.jsonl=0.2.")
        if data in given:
            raise RlaifError(f"{data!r} is named twice", hint="Name it once, with one share.")
        given[data] = number
    for data in human:
        if data not in given:
            raise RlaifError(
                f"--human {data!r} is not in the mix", hint="Name it with a share too."
            )
    report = mix(read_parts(given), Path(out), total=total, seed=seed, human=human)
    if as_json:
        print_json(vars(report))
        return
    rows = [(name, count, report.available[name]) for name, count in report.taken.items()]
    click.echo(table(["mixed", "rows", "of"], rows))
    if report.rejected:
        click.echo(f"\n{report.rejected} rows could not be read")

"""`rlaif mix`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from rlaif.cli.common.command import Command
from rlaif.cli.common.license_notes import licenses_flag
from rlaif.cli.common.options import settings_options
from rlaif.cli.common.output import note, percent, print_json, quiet_libraries, table
from rlaif.constitution.yaml_source import read_yaml
from rlaif.errors import Place, RlaifError
from rlaif.mixing.settings import MixPlan, MixSettings, part_of
from rlaif.util.validation import explain

_EXAMPLES = """
\b
Examples:
  rlaif mix runs/first=0.8 human.jsonl=0.2 --human human.jsonl -o data/mixed
  rlaif mix a.jsonl=1 b.jsonl=1,weight=2,license=mit my/set=1,split=dev --total 90 -o data/mixed
  rlaif mix runs/first=3 people.jsonl=1 --quota tag:welsh=0.05 --evaluation test.jsonl -o data/mixed
  rlaif mix --config mix.yaml -o data/mixed

\b
The YAML file:
  parts:
    - {data: runs/first, share: 0.8}
    - {data: people.jsonl, share: 0.2, human: true, weight: 2, license: cc-by-4.0}
  quotas:
    - {slice: "tag:welsh", share: 0.05}
  evaluations: [test.jsonl, "openai/gsm8k:test"]
  min_human: 0.1

OUT is a `datasets` directory with a data card: `datasets.load_dataset("OUT")` reads it, and so do
`rlaif train-dpo`, `train-sft`, `generate` and `audit`. Pairs with a preference, prompts with a
completion and prompts alone can be mixed. Of rows that say the same, what people wrote or labeled
is kept. Shares are of rows before weights; quotas hold a slice at its share of the rows, whatever
its share of the data is, so that small languages, topics and groups do not fade. Where rows of
people are weighted up, a slice weighs more or less than its quota: the card says how much.
"""


@click.command(cls=Command, name="mix", epilog=_EXAMPLES)
@click.argument("parts", nargs=-1, metavar="DATA=SHARE...")
@click.option("-o", "--out", required=True, help="Folder of the result; made if missing.")
@click.option(
    "--config", metavar="FILE", help="YAML file with parts and any of the settings below."
)
@click.option(
    "--human",
    multiple=True,
    metavar="DATA",
    help="One of the data sets, whose completions people wrote, or whose pairs they labeled.",
)
@click.option(
    "--quota",
    "quotas",
    multiple=True,
    metavar="SLICE=SHARE",
    help="Hold a slice at a share of the rows: tag:NAME, language:CODE or COLUMN:VALUE.",
)
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    metavar="DATA[:SPLIT]",
    help="Evaluation data that must not be trained on, its prompts and longer answers; may be "
    "given several times. [default split: test, else validation]",
)
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@licenses_flag
@settings_options(MixSettings)
def command(
    parts: tuple[str, ...],
    out: str,
    config: str | None,
    human: tuple[str, ...],
    quotas: tuple[str, ...],
    evaluations: tuple[str, ...],
    as_json: bool,
    licenses: str,
    **flags: Any,
) -> None:
    """Mix data sets by share, weight and quota into one to train on, with a data card."""
    quiet_libraries()
    from rlaif.data.licensing import load_licenses
    from rlaif.mixing.mix import mix

    plan = _plan(
        parts=parts, config=config, human=human, quotas=quotas, evaluations=evaluations, flags=flags
    )
    report, found = mix(plan, Path(out), load_licenses(licenses))
    for finding in found:
        note(f"license: {finding.sentence}")
    if as_json:
        print_json({"out": out, **vars(report)})
        return
    columns = ("rows", "available", "duplicates", "contaminated", "of another kind", "unreadable")
    rows = [(p["data"], *(p[c] for c in columns)) for p in report.parts]
    click.echo(table(["mixed", "rows", "of", *columns[2:]], rows))
    for part in report.parts:
        for text in part["first unreadable"]:
            note(f"{part['data']}, {text}")
    if report.slices:
        shown = [
            (
                s["slice"],
                *(percent(s[key]) for key in ("before", "quota", "share", "by weight")),
                s["rows"],
            )
            for s in report.slices
        ]
        click.echo("\n" + table(["slice", "before", "quota", "mixed", "by weight", "rows"], shown))
    click.echo(
        f"\n{report.rows} rows ({report.kind}); people's share by weight "
        f"{percent(report.human_share)}"
        + (f", counted {report.human_factor:.3g} times each" if report.human_factor > 1 else "")
        + (f"; {report.opposed} duplicates had the opposite preference" if report.opposed else "")
        + f"\n\nwritten to {out} (card: {Path(out) / 'README.md'})"
    )


def _plan(
    parts: Sequence[str],
    config: str | None,
    human: Sequence[str],
    quotas: Sequence[str],
    evaluations: Sequence[str],
    flags: Mapping[str, Any],
) -> MixPlan:
    """The plan, from the file and the flags, which win.

    Raises:
        RlaifError: something is wrong; with the place in the file.
    """
    values: dict[str, Any] = {}
    places: dict[tuple[str | int, ...], Place] = {}
    if config is not None:
        tree = read_yaml(Path(config))
        if not isinstance(tree.value, dict):
            raise RlaifError(
                "a mix must be a mapping", hint="See `rlaif mix --help`.", place=tree.places[()]
            )
        values, places = dict(tree.value), {**tree.places, **tree.keys}
    settings = {k: v for k, v in values.items() if k not in ("parts", "quotas", "evaluations")}
    settings |= {k: v for k, v in flags.items() if v is not None}
    given: list[Any] = list(values.get("parts") or [])
    try:
        given += [part_of(text) for text in parts]
    except ValueError as error:
        raise RlaifError(str(error), hint="Write human.jsonl=0.2.") from None
    if not given:
        raise RlaifError("there is nothing to mix", hint="Name DATA=SHARE, or --config FILE.")
    for name in human:
        named = [p for p in given if isinstance(p, dict) and p.get("data") == name]
        if not named:
            raise RlaifError(
                f"--human {name!r} is not in the mix", hint="Name it with a share too."
            )
        named[0]["human"] = True
    held = list(values.get("quotas") or [])
    for text in quotas:
        slice_, equals, number = text.rpartition("=")
        if not equals:
            raise RlaifError(f"{text!r} is not SLICE=SHARE", hint="Write tag:welsh=0.05.")
        held.append({"slice": slice_, "share": number})
    plan = {
        "parts": given,
        "quotas": held,
        "evaluations": [*(values.get("evaluations") or []), *evaluations],
        "settings": settings,
    }
    try:
        return MixPlan.model_validate(plan)
    except ValidationError as error:
        settings_too = {("settings", *path): place for path, place in places.items()}
        raise explain(
            error, hint="See `rlaif mix --help`.", places={**settings_too, **places}
        ) from None

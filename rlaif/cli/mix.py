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
from rlaif.cli.common.output import echo, note, percent, print_json, quiet_libraries, table
from rlaif.constitution.yaml_source import read_yaml
from rlaif.errors import Place, RlaifError
from rlaif.mixing.report import MixReport
from rlaif.mixing.settings import MixPlan, MixSettings, part_of
from rlaif.util.validation import explain

_EXAMPLES = """
\b
Examples:
  rlaif mix runs/first=0.8 human.jsonl=0.2 --human-written human.jsonl -o data/mixed
  rlaif mix a.jsonl=1 b.jsonl=1,weight=2,license=mit hub:my/set=1,split=dev --total 90 -o mixed
  rlaif mix runs/first=3 human.jsonl=1 --quota tag:welsh=0.05 --evaluation test.jsonl -o mixed
  rlaif mix --config mix.yaml -o data/mixed

\b
The YAML file:
  parts:
    - {data: runs/first, share: 0.8}
    - {data: human.jsonl, share: 0.2, human_written: true, weight: 2, license: cc-by-4.0}
    - {data: rated.jsonl, share: 0.2, human_labeled: true}
    - {data: odd.jsonl, share: 0.1, layout: odd.yaml}  # from `rlaif inspect --write-layout`
  quotas:
    - {slice: "tag:welsh", share: 0.05}
  evaluations: [test.jsonl, "hub:openai/gsm8k:test"]
  min_human: 0.1

OUT is a `datasets` directory with a data card. Load it with `datasets.load_dataset("OUT")`,
or pass it to `rlaif train-dpo`, `train-sft`, `generate` or `audit`. You can mix preference
pairs, prompts with a completion, and prompts alone. Of duplicate rows, the one labeled by
humans is kept, else the one written by humans. Shares of datasets count rows before weights. A
quota fixes a slice's share of what is trained on: rows times weight. So small languages, topics
and groups are not lost.
"""


@click.command(cls=Command, name="mix", epilog=_EXAMPLES)
@click.argument("parts", nargs=-1, metavar="DATA=SHARE...")
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option(
    "--config",
    metavar="FILE",
    help="YAML file with parts and settings, by the names of the flags; flags take precedence.",
)
@click.option(
    "--human-written",
    multiple=True,
    metavar="DATA",
    help="One of the mixed datasets: humans wrote its texts; repeatable. A row's own origin "
    "takes precedence.",
)
@click.option(
    "--human-labeled",
    multiple=True,
    metavar="DATA",
    help="One of the mixed datasets: humans labeled its pairs; repeatable. A row's own label "
    "source takes precedence.",
)
@click.option(
    "--quota",
    "quotas",
    multiple=True,
    metavar="SLICE=SHARE",
    help="Fix a slice's share of the mix, by training weight: tag:NAME, language:CODE or "
    "COLUMN:VALUE; repeatable.",
)
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    metavar="DATA[:SPLIT]",
    help="Evaluation data to keep out of the mix: rows that share text with its prompts or "
    "longer answers are dropped; repeatable. DATA,layout=FILE says how it is laid out. [default "
    "split: test, else validation]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@licenses_flag
@settings_options(MixSettings)
def command(
    parts: tuple[str, ...],
    out: str,
    config: str | None,
    human_written: tuple[str, ...],
    human_labeled: tuple[str, ...],
    quotas: tuple[str, ...],
    evaluations: tuple[str, ...],
    as_json: bool,
    licenses: str,
    **flags: Any,
) -> None:
    """Mix datasets by share, weight and quota into one training dataset with a data card."""
    quiet_libraries()
    from rlaif.data.licensing import load_licenses
    from rlaif.mixing.mix import mix

    plan = _plan(
        parts=parts,
        config=config,
        human={"human_written": human_written, "human_labeled": human_labeled},
        quotas=quotas,
        evaluations=evaluations,
        flags=flags,
    )
    report, found = mix(plan, Path(out), load_licenses(licenses))
    for finding in found:
        note(f"license: {finding.sentence}")
    if as_json:
        print_json({"out": out, **vars(report)})
        return
    columns = ("rows", "available", "duplicates", "contaminated", "wrong kind", "unreadable")
    rows = [(p["data"], *(p[c] for c in columns)) for p in report.parts]
    echo(table(["mixed", "rows", "of", *columns[2:]], rows))
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
        echo("\n" + table(["slice", "before", "quota", "mixed", "by weight", "rows"], shown))
    echo(f"\n{_summary(report)}\n\nwritten to {out} (card: {Path(out) / 'README.md'})")


def _summary(report: MixReport) -> str:
    """What the mix holds, in a line."""
    facts = [f"{report.rows} rows ({report.kind}); by weight, human-written "]
    facts[0] += percent(report.human_written)
    if report.kind == "preferences":
        facts.append(f", human-labeled {percent(report.human_labeled)}")
    if report.human_factor > 1:
        facts.append(f", human-written rows weighted x{report.human_factor:.3g}")
    if report.opposed:
        facts.append(f"; {report.opposed} duplicates had the opposite preference")
    return "".join(facts)


def _plan(
    parts: Sequence[str],
    config: str | None,
    human: Mapping[str, Sequence[str]],
    quotas: Sequence[str],
    evaluations: Sequence[str],
    flags: Mapping[str, Any],
) -> MixPlan:
    """The plan, from the file and the flags, which win.

    Raises:
        RlaifError: something is wrong; with the place in the file.

    Long because it joins a file and five kinds of flags into one plan.
    """
    values: dict[str, Any] = {}
    places: dict[tuple[str | int, ...], Place] = {}
    if config is not None:
        tree = read_yaml(Path(config))
        if not isinstance(tree.value, dict):
            raise RlaifError(
                "a mix file must be a YAML mapping",
                hint="See `rlaif mix --help`.",
                place=tree.places[()],
            )
        values, places = dict(tree.value), {**tree.places, **tree.keys}
    settings = {k: v for k, v in values.items() if k not in ("parts", "quotas", "evaluations")}
    settings |= {k: v for k, v in flags.items() if v is not None}
    given: list[Any] = list(values.get("parts") or [])
    try:
        given += [part_of(text) for text in parts]
    except ValueError as error:
        raise RlaifError(str(error), hint="Use DATA=SHARE, such as human.jsonl=0.2.") from None
    if not given:
        raise RlaifError("no data to mix", hint="Give DATA=SHARE arguments, or --config FILE.")
    for key, name in ((key, name) for key, names in human.items() for name in names):
        named = [p for p in given if isinstance(p, dict) and p.get("data") == name]
        if not named:
            raise RlaifError(
                f"--{key.replace('_', '-')} {name!r} is not one of the mixed datasets",
                hint="Add it as DATA=SHARE too.",
            )
        named[0][key] = True
    held = list(values.get("quotas") or [])
    for text in quotas:
        slice_, equals, number = text.rpartition("=")
        if not equals:
            raise RlaifError(
                f"{text!r} is not SLICE=SHARE", hint="Use a form such as tag:welsh=0.05."
            )
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

"""`rlaif label`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.judges import panel_of
from rlaif.cli.common.label_flags import label_settings
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.license_notes import licenses_flag, note_models, note_origins
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags
from rlaif.cli.common.options import settings_options
from rlaif.cli.common.output import note, percent, print_json, quiet_libraries, table
from rlaif.data.layouts import FIELDS
from rlaif.errors import RlaifError
from rlaif.judging.aggregation import AggregationSettings
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext
from rlaif.runs.cost import HUMAN_PRICE, Prices

_EXAMPLES = """
\b
Examples:
  rlaif label pairs.jsonl -c demo -o runs/first
  rlaif label data.parquet -c my.yaml --judge Qwen/Qwen3-8B -o runs/qwen
  rlaif label answers.csv -c my.yaml --map prompt=question --map response_a=bot1 ... -o runs/x
  rlaif label pairs.jsonl -c my.yaml -o runs/x --dry-run
  rlaif label big.parquet -c my.yaml --engine packed --data-parallel-size 8 --shard-rows 1000 ...
  rlaif label pairs.jsonl -c my.yaml -j A -j B -j C,weight=2 --panel weighted -o runs/panel
  rlaif label pairs.jsonl -c my.yaml -j SMALL -j LARGE --panel cascade -o runs/cascade

DATA is a .jsonl, .json, .parquet or .csv file, a folder saved by datasets, or a hub id. Each
row has a prompt and two or more responses, as text or as chat messages. Run the same command
again after a stop: it goes on where it stopped.
"""


@click.command(cls=Command, name="label", epilog=_EXAMPLES)
@click.argument("data")
@click.option("-c", "--constitution", required=True, help="A YAML file or a shipped name.")
@click.option("-o", "--out", required=True, help="Folder of the run; made if missing.")
@click.option(
    "-j",
    "--judge",
    "judges",
    multiple=True,
    help="Model: a folder, a hub id, or `demo`; several (NAME,weight=2,engine=...) are a panel. "
    "[default: demo]",
)
@click.option(
    "--panel",
    metavar="MODE|FILE",
    help="How several judges are folded: mean, majority, weighted, or cascade (a later judge is "
    "asked where the one before decides with a margin below 0.5, or not at all); or a YAML file "
    "with mode, escalate_below and judges. [default: mean]",
)
@click.option("--config", metavar="FILE", help="YAML file with any of the settings below.")
@click.option("--split", default="train", show_default=True, help="Split of a data set.")
@click.option(
    "--pairs",
    metavar="MODE",
    help="Pairs of a prompt with n responses: all, best "
    "(highest score against the rest) or sample:N. [default: all]",
)
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="NAME=COLUMN",
    help=f"Where a field is, as a dotted path; NAME is one of {', '.join(FIELDS)}.",
)
@click.option(
    "--reasoning",
    is_flag=True,
    help="The judge writes its reasons first (template `reasoned`); slower, and clamped.",
)
@click.option(
    "--shard-rows",
    type=click.IntRange(1),
    metavar="N",
    help="Hand each copy of the judge (--data-parallel-size) shards of N rows, which it plans, "
    "judges and folds by itself: where one process, good for some 20,000 verdicts a second, can't "
    "keep them all busy. The run is the same, as far as the engine repeats itself; rows come and "
    "go by whole shards, which are kept in memory. [default: one process feeds all copies]",
)
@cache_dir_flag
@click.option(
    "--price-per-hour",
    type=click.FloatRange(0, 1e9),
    metavar="X",
    help="Of this machine, for the cost.",
)
@click.option(
    "--price-tokens",
    metavar="X[,Y[,Z]]",
    help="Of a million prompt tokens, of those that were computed before, and of written ones, "
    "for the cost.",
)
@click.option(
    "--human-price",
    default=HUMAN_PRICE,
    show_default=True,
    type=click.FloatRange(0, 1e9),
    metavar="X",
    help="Of one label by a person, to compare with.",
)
@click.option("--dry-run", is_flag=True, help="Only say how much there is to judge.")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@licenses_flag
@settings_options(
    LabelSettings, skip=frozenset({"judge", "aggregation", "pairs", "pairs_per_prompt"})
)
@settings_options(AggregationSettings)
@engine_flags
def command(
    data: str,
    constitution: str,
    out: str,
    judges: tuple[str, ...],
    panel: str | None,
    config: str | None,
    split: str,
    shard_rows: int | None,
    cache_dir: Path | None,
    price_per_hour: float | None,
    price_tokens: str | None,
    human_price: float,
    dry_run: bool,
    as_json: bool,
    licenses: str,
    **flags: Any,
) -> None:
    """Judge pairs by a constitution and write preferences.

    Every verdict, preference and its evidence go to the run folder; `rlaif report` shows them
    and `rlaif train-dpo` trains on them.
    """
    quiet_libraries()
    prices = _prices(price_per_hour, price_tokens, human_price)
    if panel is not None or len(judges) > 1:
        if shard_rows is not None:
            raise RlaifError(
                "--shard-rows does not go with a panel", hint="Leave it out, or name one judge."
            )
        _label_by_panel(
            data=data,
            constitution=constitution,
            out=Path(out),
            panel=panel_of(panel, judges, config, flags),
            split=split,
            cache_dir=cache_dir,
            prices=prices,
            dry_run=dry_run,
            as_json=as_json,
            licenses=licenses,
        )
        return
    settings = label_settings(config, {**flags, "judge": judges[0] if judges else None})
    from rlaif.labeling.estimate import estimate
    from rlaif.labeling.job import check_shards, prepare, run_label, with_engine

    settings = with_engine(settings, Path(out), RunContext(cache_dir))
    job = prepare(data, constitution, settings, split=split)
    check_shards(settings, shard_rows)
    if dry_run:
        _print_estimate(estimate(job, RunContext(cache_dir), prices=prices), as_json)
        return
    if job.template.repeats_pairs:
        note(
            f"template {settings.template!r} computes each pair again for every principle: "
            f"`rlaif constitution lint {constitution} --template {settings.template}` says what "
            "that costs"
        )
    note_models(licenses, [("labels", settings.judge)])
    with closing(LabelScreen(job.source.count(settings.limit))) as screen:
        summary = run_label(
            job, Path(out), screen.context(cache_dir), prices=prices, shard_rows=shard_rows
        )
    note_origins(licenses, summary.tally.origins)
    if as_json:
        print_json({"run": out, "fresh": summary.fresh, **summary.manifest})
    else:
        print_summary(summary)


def _label_by_panel(
    data: str,
    constitution: str,
    out: Path,
    panel: Any,
    split: str,
    cache_dir: Path | None,
    prices: Prices,
    dry_run: bool,
    as_json: bool,
    licenses: str,
) -> None:
    from rlaif.data.sources import open_source
    from rlaif.labeling.estimate import estimate
    from rlaif.labeling.job import prepare, with_engine
    from rlaif.labeling.panel import Panel, PanelMember, run_panel

    context = RunContext(cache_dir)
    members = [PanelMember(with_engine(m.settings, out, context), m.weight) for m in panel.members]
    panel = Panel(members, panel.mode, panel.escalate_below)
    if dry_run:
        found = {
            f"{number}-{m.settings.judge.model}": estimate(
                prepare(data, constitution, m.settings, split=split), context, prices=prices
            )
            for number, m in enumerate(members, 1)
        }
        if as_json:
            print_json(found)
            return
        for name, one in found.items():
            click.echo(
                f"{name} (in a cascade, at most):" if panel.mode == "cascade" else f"{name}:"
            )
            _print_estimate(one, False)
        return
    if panel.mode == "cascade" and any(m.settings.agreement_target for m in members[1:]):
        note(
            "a later judge of a cascade meets its agreement target only if it was calibrated on "
            "what the judges before pass on: on its run in members/ of such a cascade"
        )
    note_models(licenses, [("labels", m.settings.judge) for m in members])
    total = open_source(data, split).count(members[0].settings.limit)
    with closing(LabelScreen(total)) as screen:
        summary = run_panel(
            data,
            constitution,
            panel,
            out,
            screen.context(cache_dir),
            split=split,
            prices=prices,
        )
    note_origins(licenses, summary.tally.origins)
    if as_json:
        print_json({"run": str(out), "fresh": summary.fresh, **summary.manifest})
        return
    print_summary(summary)
    rows = [
        (m["name"], m["pairs"], m["verdicts"], f"{m['seconds']:.1f}")
        for m in summary.manifest["members"]
    ]
    click.echo("\n" + table(["judge", "pairs", "verdicts", "seconds"], rows))


def _print_estimate(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [(name.replace("_", " "), _short(value)) for name, value in found.items()]
    click.echo(table(["dry run: nothing was asked", ""], rows))


def _short(value: object) -> str:
    if value is None:
        return "unknown (no earlier run with this judge here)"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _spared(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What stopping early saved and risked."""
    if not found:
        return []
    risk = "no decision can have changed"
    if found["pilot_pairs"]:
        risk = (
            f"at most {percent(found['decisions_changed_at_most'])} of decisions changed "
            f"({found['pilot_decisions_changed']} of {found['pilot_pairs']} in the pilot)"
        )
    spared = f"{found['verdicts_spared']} ({percent(found['share_spared'])}); {risk}"
    return [("verdicts spared", spared)]


def _tokens(found: dict[str, int | None]) -> str:
    if not found:
        return "0"
    text = f"{found['computed']:,} of {found['from_scratch']:,}"
    if found["planned"] is None:
        return text
    return f"{text} (planned {found['planned']:,}; shared token by token {found['by_token']:,})"


def _prices(per_hour: float | None, tokens: str | None, human: float) -> Prices:
    if per_hour != per_hour or human != human:
        raise RlaifError("a price is not a number", hint="Give a price, such as 2.5.")
    kinds: list[float | None] = []
    for text in tokens.split(",") if tokens else ():
        try:
            price = float(text)
        except ValueError:
            price = -1.0
        if not 0 <= price < 1e9:
            raise RlaifError(
                f"--price-tokens has {text!r}, which is no price",
                hint="Give one to three, such as 0.15,0.075,0.6.",
            )
        kinds.append(price)
    if len(kinds) > 3:
        raise RlaifError(
            f"--price-tokens has {len(kinds)} prices", hint="Prompt, computed before, written."
        )
    computed, cached, written = [*kinds, None, None, None][:3]
    return Prices(per_hour=per_hour, computed=computed, cached=cached, written=written, human=human)


def _cost(cost: dict[str, Any]) -> str:
    text = f"{cost['total']:.6g}"
    if cost["per_label"] is None:
        return text
    return (
        f"{text}: {cost['per_label']:.3g} a label (people at {cost['human_per_label']:g} a label: "
        f"{cost['human_total']:,.2f})"
    )


def _asked(last: dict[str, Any]) -> list[tuple[str, object]]:
    """What this process asked; nothing for a panel, whose judges' own runs say it."""
    if "verdicts_asked" not in last:
        return []
    return [
        ("asked now / from cache", f"{last['verdicts_asked']} / {last['verdicts_from_cache']}"),
        ("prompt tokens computed", _tokens(last.get("tokens", {}))),
    ]


def _reviewed(summary: Any) -> list[tuple[str, str]]:
    """What people found in a run, once they have looked."""
    from rlaif.cli.labels import refresh_review
    from rlaif.runs.directory import read_review

    if not summary.fresh:
        refresh_review(str(summary.path))
    found = read_review(summary.path)
    if found is None:
        return []
    agreement = found["agreement"]
    shown = f"{percent(agreement['rate'])} of {agreement['total']} drawn at random"
    return [
        ("people agree with the judge", shown if agreement["total"] else "none drawn at random"),
        ("minutes of people", f"{found['minutes']:.0f}, for {found['labels']} pairs"),
        ("labels that they corrected", str(found["corrected"])),
    ]


def print_summary(summary: Any) -> None:
    """The table at the end of a run."""
    tally, manifest = summary.tally, summary.manifest
    last = manifest.get("last_process", {})
    if not summary.fresh:
        note(f"{summary.path} is complete already")
    rows = [
        ("rows read", tally.rows),
        ("rows rejected", tally.rejected),
        ("pairs", tally.pairs),
        ("decided", tally.decided),
        ("ties", tally.tie),
        ("abstained", tally.abstained),
        ("verdicts", tally.verdicts),
        ("invalid verdicts", tally.invalid_verdicts),
        *(
            [("suspected prompt injection", f"{tally.prompt_injection} pairs")]
            if tally.prompt_injection
            else []
        ),
        *_spared(manifest.get("stopping")),
        *_asked(last),
        ("seconds", f"{manifest['seconds']:.1f}"),
    ]
    agreement = tally.self_agreement
    if agreement is not None:
        rows.append(("the judge agrees with itself, orders swapped", percent(agreement)))
    rows += _reviewed(summary)
    if tally.decided:
        rows.append(("milliseconds a label", f"{1000 * manifest['seconds'] / tally.decided:.2f}"))
    if isinstance(cost := manifest.get("cost"), dict):
        rows.append(("cost", _cost(cost)))
    if promise := manifest["config"].get("agreement"):
        kept = tally.decided / tally.pairs if tally.pairs else 0.0
        rows.append(
            (
                "agreement certified",
                f"{promise['certified']:.3f} (target {promise['target']:g}, delta "
                f"{promise['delta']:g}) on confidence from {promise['threshold']:.3f}; "
                f"{percent(kept)} decided",
            )
        )
    click.echo(table(["labeled", str(summary.path)], rows))
    if tally.reasons:
        click.echo("\n" + table(["why not decided", "pairs"], sorted(tally.reasons.items())))
    header = [
        "principle",
        "valid",
        "invalid",
        "decisive agree",
        "against",
        "same position wins",
        "position offset",
    ]
    principles = [
        (
            name,
            t.valid,
            t.invalid,
            t.agrees,
            t.disagrees,
            percent(t.flip_rate),
            "-" if t.position_offset is None else f"{t.position_offset:+.2f}",
        )
        for name, t in tally.principles.items()
    ]
    click.echo("\n" + table(header, principles))

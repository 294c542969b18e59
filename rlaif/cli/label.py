"""`rlaif label`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.config_file import note_changes
from rlaif.cli.common.judges import (
    change_judges,
    judge_settings,
    panel_of,
    panel_of_run,
    with_batches,
)
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.label_summary import print_estimate, print_summary
from rlaif.cli.common.layout_flags import layout_flags
from rlaif.cli.common.license_notes import licenses_flag, note_models, note_origins
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags
from rlaif.cli.common.options import config_flag, settings_options
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries, table
from rlaif.cli.common.prices import price_flags, read_prices
from rlaif.errors import RlaifError
from rlaif.judging.aggregation import AggregationSettings
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext
from rlaif.runs.cost import Prices

_EXAMPLES = """
\b
Examples:
  rlaif label pairs.jsonl -c demo -o runs/first
  rlaif label data.parquet -c my.yaml --judge Qwen/Qwen3-8B -o runs/qwen
  rlaif label answers.csv -c my.yaml --map prompt=question --map response_a=bot1 \\
    --map response_b=bot2 -o runs/x
  rlaif label pairs.jsonl -c my.yaml -o runs/x --dry-run
  rlaif label big.parquet -c my.yaml --engine packed --data-parallel-size 8 \\
    --shard-rows 1000 -o runs/big
  rlaif label pairs.jsonl -c my.yaml -j A -j B -j C,weight=2 --panel weighted -o runs/panel
  rlaif label pairs.jsonl -c my.yaml -j SMALL -j LARGE --panel cascade -o runs/cascade

DATA is a .jsonl, .json, .parquet or .csv file, a folder saved by datasets, or hub:NAME. Each
row has a prompt and two or more responses, as text or chat messages. If the run is
interrupted, rerun the same command to resume.
"""


@click.command(cls=Command, name="label", epilog=_EXAMPLES)
@click.argument("data")
@click.option(
    "-c", "--constitution", required=True, help="Constitution: a YAML file or a shipped name."
)
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option(
    "-j",
    "--judge",
    "judges",
    multiple=True,
    help="Judge model: a local folder, a Hub ID or `demo`; repeat for a panel "
    "(NAME,weight=2,engine=...). [default: demo]",
)
@click.option(
    "--panel",
    metavar="MODE|FILE",
    help="How to aggregate several judges: mean, majority, weighted or cascade; or a YAML "
    "file with mode, escalate_below and judges. A cascade passes a pair to the next "
    "judge if the margin is below 0.5 or the judge does not decide. [default: mean]",
)
@config_flag
@click.option("--split", default="train", show_default=True, help="Dataset split.")
@click.option(
    "--pairs",
    metavar="MODE",
    help="Pairs to form from a prompt's n responses: all, best (highest score against the "
    "rest) or sample:N. [default: all]",
)
@layout_flags
@click.option(
    "--reasoning",
    is_flag=True,
    help="Let the judge reason before each verdict (template `reasoned`); slower, and "
    "probabilities are clamped.",
)
@click.option(
    "--shard-rows",
    type=click.IntRange(1),
    metavar="N",
    help="Send each judge replica (--data-parallel-size) shards of N rows, which it plans, "
    "judges and aggregates itself. Use it if one process (about 20,000 verdicts/s) "
    "cannot keep all replicas busy. The results are the same, up to numerical "
    "differences of the engine. Whole shards are held in memory. [default: one process "
    "feeds all replicas]",
)
@click.option(
    "--part-rows",
    type=click.IntRange(1),
    metavar="N",
    help="Label in parts of N rows: each judge replica (--data-parallel-size) reads its parts and "
    "writes them, so no rows pass through one process. Use it for large data on many GPUs. DATA "
    "is JSONL or Parquet; the run folder is read like any other. [default: one set of files]",
)
@click.option(
    "--parts-at",
    metavar="URL",
    help="Where to write the parts of --part-rows: a shared folder or an fsspec URL such as "
    "s3://bucket/run. [default: `parts` in the run folder]",
)
@click.option(
    "--answers-from",
    multiple=True,
    metavar="RUN",
    help="With --part-rows: reuse the verdicts of a run of the same data in the same parts, for "
    "questions that did not change; repeatable.",
)
@cache_dir_flag
@price_flags
@click.option(
    "--max-cost",
    type=click.FloatRange(0, 1e12),
    metavar="X",
    help="Stop once the run has cost X, by the prices that you give. Requests that are under way "
    "are still answered and kept. Rerun with a higher value to resume.",
)
@click.option(
    "--dry-run", is_flag=True, help="Estimate judge calls, tokens, time and cost, then exit."
)
@click.option(
    "--batch",
    is_flag=True,
    help="Send requests as batch files of the provider (--engine openai): cheaper, and takes up to "
    "a day. Stop at any time and rerun the same command to resume; nothing is paid for twice.",
)
@click.option(
    "--keep-going",
    is_flag=True,
    help="Do not stop if most of the first 100 verdicts are invalid or only follow the position.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
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
    part_rows: int | None,
    parts_at: str | None,
    answers_from: tuple[str, ...],
    cache_dir: Path | None,
    price_per_hour: float | None,
    price_tokens: str | None,
    human_price: float,
    max_cost: float | None,
    dry_run: bool,
    as_json: bool,
    licenses: str,
    batch: bool,
    keep_going: bool,
    **flags: Any,
) -> None:
    """Judge pairs by a constitution and write preference labels.

    The run folder contains every verdict and every preference with its evidence. View it with
    `rlaif report`; train on it with `rlaif train-dpo`.

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    prices = read_prices(price_per_hour, price_tokens, human_price, max_cost)
    by_batch = partial(with_batches, cache_dir=cache_dir) if batch else lambda found: found
    rerun = panel_of_run(config, flags) if panel is None and not judges else None
    if rerun is not None or panel is not None or len(judges) > 1:
        for flag, value in (
            ("--shard-rows", shard_rows),
            ("--part-rows", part_rows),
            ("--max-cost", max_cost),
        ):
            if value is not None:
                raise RlaifError(
                    f"{flag} cannot be used with a panel",
                    hint=f"Remove {flag}, or use one judge.",
                )
        _label_by_panel(
            data=data,
            constitution=constitution,
            out=Path(out),
            panel=change_judges(rerun or panel_of(panel, judges, config, flags), by_batch),
            split=split,
            cache_dir=cache_dir,
            prices=prices,
            dry_run=dry_run,
            as_json=as_json,
            licenses=licenses,
            keep_going=keep_going,
        )
        return
    settings = by_batch(judge_settings(judges[0] if judges else None, config, flags)[0])
    from rlaif.labeling.estimate import estimate
    from rlaif.labeling.job import prepare, run_label, with_engine

    settings = with_engine(settings, Path(out), RunContext(cache_dir))
    job = prepare(data, constitution, settings, split=split)
    split_among = read_split(shard_rows, part_rows, parts_at, answers_from)
    split_among.check(settings)
    note_changes(config, job.config)
    if split_among.flag and max_cost is not None:
        raise RlaifError(
            f"--max-cost cannot be combined with {split_among.flag}",
            hint="Remove one of these flags.",
        )
    note(f"columns: {job.columns}")
    if dry_run:
        print_estimate(estimate(job, RunContext(cache_dir), prices=prices), as_json)
        return
    if job.template.repeats_pairs:
        note(
            f"template {settings.template!r} recomputes each pair for every principle; "
            f"run `rlaif constitution lint {constitution} --template {settings.template}` "
            "to see what this costs"
        )
    note_models(licenses, [("labels", settings.judge)])
    with closing(LabelScreen(job.source.count(settings.limit))) as screen:
        summary = run_label(
            job,
            Path(out),
            replace(screen.context(cache_dir), first_look=not keep_going),
            prices=prices,
            split=split_among,
        )
    note_origins(licenses, summary.tally.origins)
    if as_json:
        print_json({"run": out, "fresh": summary.fresh, **summary.manifest})
    else:
        print_summary(summary)


def read_split(
    shard_rows: int | None,
    part_rows: int | None,
    parts_at: str | None,
    answers_from: tuple[str, ...],
) -> Any:
    """How the job is split among labelers.

    Raises:
        RlaifError: a flag of parts is given without --part-rows.
    """
    from rlaif.labeling.job import Split
    from rlaif.labeling.part_run import PartPlan

    if part_rows is None:
        for flag, given in (("--parts-at", parts_at), ("--answers-from", answers_from)):
            if given:
                raise RlaifError(f"{flag} needs --part-rows", hint="Add --part-rows N.")
        return Split(shard_rows)
    plan = PartPlan(part_rows, parts_at or "", tuple(map(Path, answers_from)))
    return Split(shard_rows, plan)


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
    keep_going: bool,
) -> None:
    """Long because it is `label` for several judges, from flags to tables."""
    from rlaif.data.sources import open_source
    from rlaif.labeling.estimate import estimate
    from rlaif.labeling.job import prepare, with_engine
    from rlaif.labeling.panel import PanelMember, run_panel

    context = RunContext(cache_dir)
    members = [PanelMember(with_engine(m.settings, out, context), m.weight) for m in panel.members]
    panel = replace(panel, members=members)
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
            echo(f"{name} (cascade, upper bound):" if panel.mode == "cascade" else f"{name}:")
            print_estimate(one, False)
        return
    if panel.mode == "cascade" and any(m.settings.agreement_target for m in members[1:]):
        note(
            "a later judge of a cascade needs a calibration on the pairs that earlier judges "
            "pass on; calibrate its run in members/ of such a cascade"
        )
    note_models(licenses, [("labels", m.settings.judge) for m in members])
    total = open_source(data, split).count(members[0].settings.limit)
    with closing(LabelScreen(total)) as screen:
        summary = run_panel(
            data=data,
            constitution=constitution,
            panel=panel,
            out=out,
            context=replace(screen.context(cache_dir), first_look=not keep_going),
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
    echo("\n" + table(["judge", "pairs", "verdicts", "seconds"], rows))

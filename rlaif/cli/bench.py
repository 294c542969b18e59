"""`rlaif bench`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags, spread
from rlaif.cli.common.options import build
from rlaif.cli.common.output import note, percent, print_json, quiet_libraries, table
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import model_fingerprint
from rlaif.util.hashing import digest

_EXAMPLES = """
\b
Examples:
  rlaif bench --judge demo
  rlaif bench --judge Qwen/Qwen3-8B --principles 16 --price-per-hour 2.5
  rlaif bench --judge Qwen/Qwen3-0.6B --engine vllm --engine packed
  rlaif bench --judge Qwen/Qwen3-8B --quantization fp8

The pairs are made up, so that any judge can be measured without data; what they say does not
change how long a judge needs. `rlaif label --engine auto` takes the engine that was fastest here.
What is shown of the machine's matmul rate is left out for quantized judges, whose products have
another one.
"""


@click.command(cls=Command, name="bench", epilog=_EXAMPLES)
@click.option("-j", "--judge", default="demo", show_default=True, help="Folder, hub id or `demo`.")
@click.option(
    "--engine", "engines", multiple=True, help="Engine; repeat it to compare. [default: vllm]"
)
@click.option("--template", help="Judge prompt layout. [default: demo for demo, else pairwise]")
@click.option(
    "--pairs", type=click.IntRange(1), default=40, show_default=True, help="Made up a repetition."
)
@click.option(
    "--principles",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Questions about each pair and order.",
)
@click.option(
    "--context",
    type=click.IntRange(10),
    default=600,
    show_default=True,
    help="Tokens of a pair's prompt and responses together.",
)
@click.option("--one-order", is_flag=True, help="Show each pair one way round only.")
@click.option(
    "--repetitions",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Counted runs, after one that is not.",
)
@click.option(
    "--price-per-hour", type=click.FloatRange(0, 1e9), metavar="X", help="Of the machine."
)
@cache_dir_flag
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@partial(engine_flags, but=frozenset({"engine"}))
def command(
    judge: str,
    engines: tuple[str, ...],
    template: str | None,
    pairs: int,
    principles: int,
    context: int,
    one_order: bool,
    repetitions: int,
    price_per_hour: float | None,
    cache_dir: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Measure how fast a judge labels on this machine, and how close that is to its limit."""
    quiet_libraries()
    from contextlib import closing

    from rlaif.benchmark.measure import bench
    from rlaif.benchmark.workload import Workload
    from rlaif.store.verdict_cache import VerdictCache, verdict_cache_path

    workload = Workload(pairs, principles, context, both_orders=not one_order)
    given = {name: value for name, value in spread(flags).items() if value is not None}
    # What rates depend on beside the judge and its engine.
    conditions = digest({**vars(workload), "template": template, **given})
    settings = [
        build(EngineSettings, {"engine": engine, "model": judge, **given})
        for engine in engines or ("vllm",)
    ]
    for one in settings:
        model_fingerprint(one)  # what is unknown is said before anything is measured
    found: list[dict[str, Any]] = []
    try:
        with closing(VerdictCache(verdict_cache_path(cache_dir))) as rates:
            for one in settings:
                note(f"measuring {judge!r} on {one.engine} ...")
                result = bench(
                    one,
                    workload,
                    template=template or ("demo" if judge == "demo" else "pairwise"),
                    repetitions=repetitions,
                    price_per_hour=price_per_hour,
                )
                rates.record_rate(
                    result["fingerprint"],
                    one.engine,
                    result["verdicts_per_second"],
                    one.numbers + conditions,
                )
                found.append(result)
    finally:  # what was measured is shown even if a later engine fails
        if found and as_json:
            print_json(found)
        elif found:
            click.echo(_table(found))


def _table(found: list[dict[str, object]]) -> str:
    shown = {
        "verdicts/s": ("verdicts_per_second", ",.0f"),
        "pairs/s": ("pairs_per_second", ",.1f"),
        "computed tokens/s": ("computed_tokens_per_second", ",.0f"),
        "needed tokens/s": ("unique_tokens_per_second", ",.0f"),
        "prompt tokens spared": ("prefix_cache_hit_rate", "%"),
        "computed / planned": ("computed_over_planned", ".3f"),
        "computed / needed": ("computed_over_unique", ".3f"),
        "matmul GFLOP/s here": ("matmul_flops_per_second", "G"),
        "share of it used": ("model_flops_utilization", "%"),
        "share of it used for what was needed": ("limit_fraction", "%"),
        "engine idle, seconds": ("engine_idle_seconds", ".3f"),
        "cost per 1,000 pairs": ("cost_per_1000_pairs", ".4f"),
    }
    rows = [
        (name, *(_show(result[key], form) if key in result else "-" for result in found))
        for name, (key, form) in shown.items()
        if any(key in result for result in found)
    ]
    for part in ("engine", "waiting for a plan", "folding and storing"):
        shares = [result["share_of_time"][part] for result in found]  # type: ignore[index]
        rows.append((f"time: {part}", *(percent(share) for share in shares)))
    return table(["", *(str(result["engine"]) for result in found)], rows)


def _show(value: object, form: str) -> str:
    assert isinstance(value, float | int)
    if form == "%":
        return percent(value)
    return f"{value / 1e9:,.0f}" if form == "G" else format(value, form)

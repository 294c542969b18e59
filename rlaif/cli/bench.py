"""`rlaif bench`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.judges import expand_judge
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags, spread
from rlaif.cli.common.options import build
from rlaif.cli.common.output import echo, note, percent, print_json, quiet_libraries, table
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import model_fingerprint
from rlaif.templates.judge import default_template
from rlaif.util.hashing import digest

_EXAMPLES = """
\b
Examples:
  rlaif bench --judge demo
  rlaif bench --judge Qwen/Qwen3-8B --num-principles 16 --price-per-hour 2.5
  rlaif bench --judge Qwen/Qwen3-0.6B --engine vllm --engine packed
  rlaif bench --judge Qwen/Qwen3-8B --quantization fp8

The pairs are synthetic, so you can measure any judge without data; their content does not
affect throughput. `rlaif label --engine auto` uses the engine that was fastest here. MFU is
relative to the matmul rate measured here, and is not reported for quantized judges.
"""


@click.command(cls=Command, name="bench", epilog=_EXAMPLES)
@click.option(
    "-j",
    "--judge",
    default="demo",
    show_default=True,
    help="Judge model: a local folder, a Hub ID or `demo`.",
)
@click.option(
    "--engine", "engines", multiple=True, help="Engine; repeat to compare several. [default: vllm]"
)
@click.option(
    "--template",
    help="Judge prompt template: a name or a path. [default: demo for the demo judge, else "
    "pairwise]",
)
@click.option(
    "--num-pairs",
    "pairs",
    type=click.IntRange(1),
    default=40,
    show_default=True,
    help="Synthetic pairs per repetition.",
)
@click.option(
    "--num-principles",
    "principles",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Principles to judge per pair and order.",
)
@click.option(
    "--context",
    type=click.IntRange(10),
    default=600,
    show_default=True,
    help="Tokens per pair: the prompt and both responses.",
)
@click.option("--one-order", is_flag=True, help="Judge each pair in one order only.")
@click.option(
    "--repetitions",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Measured runs, after one warm-up run.",
)
@click.option(
    "--price-per-hour",
    type=click.FloatRange(0, 1e9),
    metavar="X",
    help="Machine price per hour, used to report cost.",
)
@cache_dir_flag
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
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
    """Measure judge throughput on this machine, and how close it is to the hardware limit."""
    quiet_libraries()
    from contextlib import closing

    from rlaif.benchmark.measure import bench
    from rlaif.benchmark.workload import Workload
    from rlaif.store.verdict_cache import VerdictCache, verdict_cache_path

    workload = Workload(pairs, principles, context, both_orders=not one_order)
    given = {name: value for name, value in spread(flags).items() if value is not None}
    # What rates depend on beside the judge and its engine.
    conditions = digest({**vars(workload), "template": template, **given})
    named = expand_judge(judge)
    settings = [
        build(EngineSettings, {**named, "engine": engine, **given})
        for engine in engines or (named.get("engine", "vllm"),)
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
                    template=template or named.get("template") or default_template(judge),
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
            echo(_table(found))


def _table(found: list[dict[str, object]]) -> str:
    shown = {
        "verdicts/s": ("verdicts_per_second", ",.0f"),
        "pairs/s": ("pairs_per_second", ",.1f"),
        "computed tokens/s": ("computed_tokens_per_second", ",.0f"),
        "unique tokens/s": ("unique_tokens_per_second", ",.0f"),
        "prefix cache hit rate": ("prefix_cache_hit_rate", "%"),
        "computed / planned": ("computed_over_planned", ".3f"),
        "computed / unique": ("computed_over_unique", ".3f"),
        "peak matmul GFLOP/s": ("matmul_flops_per_second", "G"),
        "MFU, computed tokens": ("model_flops_utilization", "%"),
        "MFU, unique tokens": ("limit_fraction", "%"),
        "engine idle seconds": ("engine_idle_seconds", ".3f"),
        "cost per 1,000 pairs": ("cost_per_1000_pairs", ".4f"),
    }
    rows = [
        (name, *(_show(result[key], form) if key in result else "-" for result in found))
        for name, (key, form) in shown.items()
        if any(key in result for result in found)
    ]
    for part in ("engine", "waiting for the planner", "aggregating and storing"):
        shares = [result["share_of_time"][part] for result in found]  # type: ignore[index]
        rows.append((f"time: {part}", *(percent(share) for share in shares)))
    return table(["", *(str(result["engine"]) for result in found)], rows)


def _show(value: object, form: str) -> str:
    assert isinstance(value, float | int)
    if form == "%":
        return percent(value)
    return f"{value / 1e9:,.0f}" if form == "G" else format(value, form)

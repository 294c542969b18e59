"""`rlaif eval`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.eval_screen import print_evaluation
from rlaif.cli.common.judges import judge_settings, split_layout
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.labeled_flags import labeled_flags
from rlaif.cli.common.layout_flags import layout_fields
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags
from rlaif.cli.common.options import settings_options
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries, write_result
from rlaif.errors import RlaifError
from rlaif.judging.aggregation import AggregationSettings
from rlaif.labeling.settings import LabelSettings

_EXAMPLES = """
\b
Examples:
  rlaif eval labeled.jsonl -c my.yaml --judge Qwen/Qwen3-8B -o evals/qwen
  rlaif eval rewardbench.parquet -c my.yaml -c new.yaml -o evals/wording
  rlaif eval judgebench.jsonl -c my.yaml -j Qwen/Qwen3-8B -j Qwen/Qwen3-32B -o evals/judges
  rlaif eval labeled.csv -c my.yaml --map label=who_won --map subset=topic -o evals/x

LABELED is data as for `rlaif label`, with a human preference in each row: chosen and rejected
(RewardBench; lists of several for RewardBench 2), response_a and response_b with a label such
as A>B (JudgeBench) or model_a, or a score for each response. Verdicts are saved in OUT and in
the cache: interrupted evaluations resume, and repeated ones need no judge calls.
"""


@click.command(cls=Command, name="eval", epilog=_EXAMPLES)
@click.argument("labeled")
@click.option(
    "-c",
    "--constitution",
    "constitutions",
    required=True,
    multiple=True,
    help="Constitution: a YAML file or a shipped name; repeat to compare several on the same "
    "pairs.",
)
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option(
    "-j",
    "--judge",
    "judges",
    multiple=True,
    help="Judge model, as NAME or NAME,engine=openai,...; repeat to compare several. "
    "[default: demo]",
)
@labeled_flags
@click.option(
    "--panel",
    "panels",
    multiple=True,
    type=click.Choice(["mean", "majority", "cascade"]),
    help="Also evaluate the judges as a panel; a cascade uses the order of -j.",
)
@click.option(
    "--bias", is_flag=True, help="Also measure judge biases, on the labels and on probe pairs."
)
@click.option(
    "--attacks",
    is_flag=True,
    help="Also attack the judge with prompt injections in the losing responses.",
)
@click.option(
    "--attack-set",
    default="attacks",
    show_default=True,
    metavar="FILE",
    help="YAML file of attacks, such as prompts/attacks.yaml.",
)
@click.option(
    "--variants",
    default=100,
    show_default=True,
    type=click.IntRange(min=20),
    help="Number of pairs for --bias probes and --attacks.",
)
@cache_dir_flag
@settings_options(
    LabelSettings,
    skip=frozenset(
        {"judge", "aggregation", "pairs", "pairs_per_prompt", "principles", "weight_by"}
    ),
)
@settings_options(AggregationSettings)
@engine_flags
def command(
    labeled: str,
    constitutions: tuple[str, ...],
    out: str,
    judges: tuple[str, ...],
    config: str | None,
    split: str,
    panels: tuple[str, ...],
    bias: bool,
    attacks: bool,
    attack_set: str,
    variants: int,
    cache_dir: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Measure how well judges agree with human labels.

    Reports accuracy and kappa with intervals (overall, by subset and by principle), order
    consistency, the benefit of abstaining, and calibration. Several judges or constitutions
    are compared on the same pairs. One is called better only if the difference is
    statistically significant.

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    from rlaif.data.sources import open_source
    from rlaif.evaluation.bias.variants import load_attacks
    from rlaif.evaluation.labeled import write_pairs
    from rlaif.evaluation.run import JudgeUnderTest, evaluate
    from rlaif.reporting.evaluation_page import as_data, write_evaluation

    limit = flags.pop("limit", None)
    given = layout_fields(flags)
    candidates = []
    for judge in judges or (None,):
        settings, given = split_layout(judge_settings(judge, config, flags)[0], given)
        candidates += [JudgeUnderTest(constitution, settings) for constitution in constitutions]
    if len({(c.constitution, str(c.settings)) for c in candidates}) < len(candidates):
        raise RlaifError(
            "the same judge and constitution are given twice", hint="Give each combination once."
        )
    if panels and len(candidates) < 2:
        raise RlaifError("--panel needs at least two judges", hint="Add a judge with -j.")
    folder = Path(out)
    data = write_pairs(open_source(labeled, split), folder, given=given, limit=limit)
    if data.dropped:
        place, reason = data.rejected[0]
        note(f"skipped {data.dropped} rows that are not labeled pairs (first: {place}: {reason})")
    with closing(LabelScreen(len(data.label))) as screen:
        found = evaluate(
            candidates,
            data,
            folder,
            screen.context(cache_dir),
            bias=bias,
            panels=panels,  # type: ignore[arg-type]
            attacks=load_attacks(attack_set) if attacks else (),
            most_variants=variants,
        )
    result = as_data(found)
    write_result(folder / "eval.json", result)
    page = write_evaluation(found, folder)
    if as_json:
        print_json(result)
        return
    print_evaluation(found)
    echo(f"\n{page}")

"""`rlaif constitution coverage` and `ablate`: which principles matter."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.judges import judge_settings, split_layout
from rlaif.cli.common.label_flags import label_settings
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.labeled_flags import labeled_flags
from rlaif.cli.common.layout_flags import layout_fields
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags
from rlaif.cli.common.options import config_flag, settings_options
from rlaif.cli.common.output import echo, percent, print_json, quiet_libraries, table
from rlaif.constitution.load import load_constitution
from rlaif.errors import RlaifError
from rlaif.judging.aggregation import AggregationSettings
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext

UNUSABLE = frozenset(
    {
        "judge",
        "aggregation",
        "pairs",
        "pairs_per_prompt",
        "weight_by",
        "principles",
        "calibration",
        "agreement_target",
        "agreement_delta",
        "stop",
        "stop_error",
        "pilot",
    }
)
"""Settings under which leaving a principle out can't be computed, or that have no meaning here."""


def _everything(settings: LabelSettings) -> LabelSettings:
    """The settings, refused where not every question is asked.

    Raises:
        RlaifError: they say so.
    """
    if settings.orders == "adaptive" or settings.stop != "never":
        raise RlaifError(
            "the effect of a principle cannot be computed if some judge calls are skipped",
            hint="Remove --orders adaptive, and remove `stop` from the --config file.",
        )
    return settings


_COVERAGE_EXAMPLES = """
\b
Examples:
  rlaif constitution coverage my.yaml pairs.jsonl --judge Qwen/Qwen3-8B -o runs/coverage
  rlaif constitution coverage my.yaml runs/first            # existing run: no judge calls
"""


@click.command(cls=Command, name="coverage", epilog=_COVERAGE_EXAMPLES)
@click.argument("constitution", metavar="C")
@click.argument("data")
@click.option("-o", "--out", help="Output folder; not needed if DATA is a run.")
@click.option("-j", "--judge", help="Judge model. [default: demo]")
@config_flag
@click.option("--split", default="train", show_default=True, help="Dataset split.")
@cache_dir_flag
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options(
    LabelSettings,
    skip=UNUSABLE,
)
@settings_options(AggregationSettings)
@engine_flags
def coverage_command(
    constitution: str,
    data: str,
    out: str | None,
    judge: str | None,
    config: str | None,
    split: str,
    cache_dir: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show which principles decide, never matter, repeat or contradict each other.

    DATA is pairs to judge, or a labeling run of this constitution. Two principles contradict
    each other if their scores on the same pairs correlate at -0.3 or below. They are
    redundant at 0.9 or above. Both must be significant after correction for multiple tests.
    """
    quiet_libraries()
    from rlaif.evaluation.constitutions.coverage import coverage
    from rlaif.evaluation.outcomes import read_outcomes
    from rlaif.labeling.job import prepare, run_label, with_engine
    from rlaif.runs.directory import CONFIG, read_run_config

    loaded = load_constitution(constitution)
    run = Path(data)
    if (run / CONFIG).exists():
        used = read_run_config(run).get("constitution", {})
        if used.get("hash") != loaded.constitution.hash:
            raise RlaifError(
                f"run {data!r} was labeled with a different constitution ({used.get('name', '?')} "
                f"{used.get('version', '?')}) than {constitution!r}",
                hint="Label the data again; cached verdicts that are still valid are reused.",
            )
    else:
        if out is None:
            raise RlaifError("no output folder is given", hint="Add -o DIR.")
        run = Path(out)
        settings = _everything(label_settings(config, {**flags, "judge": judge}))
        settings = with_engine(settings, run, RunContext(cache_dir))
        job = prepare(data, constitution, settings, split=split)
        with closing(LabelScreen(job.source.count(settings.limit))) as screen:
            run_label(job, run, screen.context(cache_dir))
    found = coverage(read_outcomes(run))
    if as_json:
        print_json(
            {
                "pairs": found.pairs,
                "principles": [{**vars(u), "verdict": u.verdict} for u in found.principles],
                "pairs_of_principles": [{**vars(t), "verdict": t.verdict} for t in found.ties],
            }
        )
        return
    _print_coverage(found)


def _print_coverage(found: Any) -> None:
    rows = [
        (u.principle, u.asked, percent(u.opinions), percent(u.agrees), u.decides, u.verdict)
        for u in found.principles
    ]
    head = ["principle", "pairs", "decisive", "decision agrees", "decides", ""]
    echo(table(head, rows))
    echo("decides: pairs with a different decision, or none, without the principle")
    for t in found.ties:
        echo(
            f"{t.first} and {t.second} {t.verdict}: correlation {t.correlation:+.2f} on {t.n} "
            f"pairs, p = {t.p:.2g}"
        )


@click.command(cls=Command, name="ablate")
@click.argument("constitution", metavar="C")
@click.argument("labeled")
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option("-j", "--judge", help="Judge model. [default: demo]")
@labeled_flags
@cache_dir_flag
@settings_options(
    LabelSettings,
    skip=UNUSABLE,
)
@settings_options(AggregationSettings)
@engine_flags
def ablate_command(
    constitution: str,
    labeled: str,
    out: str,
    judge: str | None,
    config: str | None,
    split: str,
    cache_dir: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show how agreement with humans changes when each principle is left out.

    LABELED is labeled data as for `rlaif eval`. The judge runs once; leaving a principle out
    needs no new judge calls. "helps" and "hurts" appear only for statistically significant
    differences.
    """
    quiet_libraries()
    from rlaif.data.sources import open_source
    from rlaif.evaluation.constitutions.coverage import ablate
    from rlaif.evaluation.labeled import aligned, write_pairs
    from rlaif.evaluation.outcomes import read_outcomes
    from rlaif.evaluation.run import JudgeUnderTest, evaluate

    given = layout_fields(flags)
    limit = flags.pop("limit", None)
    settings, given = split_layout(judge_settings(judge, config, flags)[0], given)
    candidate = JudgeUnderTest(constitution, _everything(settings))
    folder = Path(out)
    data = write_pairs(open_source(labeled, split), folder, given=given, limit=limit)
    with closing(LabelScreen(len(data.label))) as screen:
        found = evaluate([candidate], data, folder, screen.context(cache_dir))
    (run,) = found.folders.values()
    outcomes = read_outcomes(run)
    own = aligned(data, outcomes)
    ablations = ablate(outcomes, own.label, own.group)
    if as_json:
        print_json(
            [
                {
                    "principle": a.principle,
                    "accuracy_without": a.accuracy,
                    "difference": vars(a.test.difference),
                    "p": a.p_adjusted,
                    "verdict": a.verdict,
                }
                for a in ablations
            ]
        )
        return
    echo(f"accuracy with all principles: {found.reports[0].agreement.accuracy}")
    rows = [
        (a.principle, percent(a.accuracy), a.test.difference, f"{a.p_adjusted:.4f}", a.verdict)
        for a in ablations
    ]
    echo(table(["left out", "accuracy", "difference", "p (Holm)", "effect"], rows))

"""`rlaif constitution coverage` and `ablate`: which principles matter."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.judges import judge_settings
from rlaif.cli.common.label_flags import label_settings
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.labeled_flags import column_map, labeled_flags
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags
from rlaif.cli.common.options import settings_options
from rlaif.cli.common.output import percent, print_json, quiet_libraries, table
from rlaif.constitution.load import load_constitution
from rlaif.errors import RlaifError
from rlaif.judging.aggregation import AggregationSettings
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext

_UNUSABLE = frozenset(
    {
        "judge",
        "aggregation",
        "pairs",
        "pairs_per_prompt",
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
            "what would be without a principle can't be told where questions are spared",
            hint="Leave out --orders adaptive and `stop`.",
        )
    return settings


_COVERAGE_EXAMPLES = """
\b
Examples:
  rlaif constitution coverage my.yaml pairs.jsonl --judge Qwen/Qwen3-8B -o runs/coverage
  rlaif constitution coverage my.yaml runs/first            of a labeling run; asks nothing
"""


@click.command(cls=Command, name="coverage", epilog=_COVERAGE_EXAMPLES)
@click.argument("constitution", metavar="C")
@click.argument("data")
@click.option("-o", "--out", help="Folder of the run; not needed where DATA is one.")
@click.option("-j", "--judge", default="demo", show_default=True, help="Model that judges.")
@click.option("--config", metavar="FILE", help="YAML file with any of the settings below.")
@click.option("--split", default="train", show_default=True, help="Split of a data set.")
@cache_dir_flag
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@settings_options(
    LabelSettings,
    skip=_UNUSABLE,
)
@settings_options(AggregationSettings)
@engine_flags
def coverage_command(
    constitution: str,
    data: str,
    out: str | None,
    judge: str,
    config: str | None,
    split: str,
    cache_dir: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Say which principles decide, which never matter, which repeat or contradict each other.

    DATA is pairs to judge, or a labeling run of this constitution. Two principles contradict
    each other where their opinions of the same pairs correlate by -0.3 or less, and say the same
    from 0.9 on, where a corrected test confirms it.
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
                f"run {data!r} was labeled with another constitution ({used.get('name', '?')} "
                f"{used.get('version', '?')}) than {constitution!r}",
                hint="Label again: verdicts that still hold come from the cache.",
            )
    else:
        if out is None:
            raise RlaifError("where should the run go?", hint="Name a folder with -o.")
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
    rows = [
        (u.principle, u.asked, percent(u.opinions), percent(u.agrees), u.decides, u.verdict)
        for u in found.principles
    ]
    head = ["principle", "pairs", "has an opinion", "decision follows", "decides", ""]
    click.echo(table(head, rows))
    click.echo("decides: pairs whose decision would be another, or none, without the principle")
    for t in found.ties:
        click.echo(
            f"{t.first} and {t.second} {t.verdict}: correlation {t.correlation:+.2f} on {t.n} "
            f"pairs, p = {t.p:.2g}"
        )


@click.command(cls=Command, name="ablate")
@click.argument("constitution", metavar="C")
@click.argument("labeled")
@click.option("-o", "--out", required=True, help="Folder of the evaluation; made if missing.")
@click.option("-j", "--judge", default="demo", show_default=True, help="Model that judges.")
@labeled_flags
@cache_dir_flag
@settings_options(
    LabelSettings,
    skip=_UNUSABLE,
)
@settings_options(AggregationSettings)
@engine_flags
def ablate_command(
    constitution: str,
    labeled: str,
    out: str,
    judge: str,
    config: str | None,
    split: str,
    maps: tuple[str, ...],
    cache_dir: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show how agreement with people changes when each principle is left out.

    LABELED is data as `rlaif eval` takes it. The judge is asked once; leaving a principle out
    asks nothing. "helps" and "hurts" are said only where a test says so.
    """
    quiet_libraries()
    from rlaif.data.sources import open_source
    from rlaif.evaluation.constitutions.coverage import ablate
    from rlaif.evaluation.labeled import aligned, write_pairs
    from rlaif.evaluation.outcomes import read_outcomes
    from rlaif.evaluation.run import JudgeUnderTest, evaluate

    mapping = column_map(maps)
    limit = flags.pop("limit", None)
    candidate = JudgeUnderTest(constitution, _everything(judge_settings(judge, config, flags)[0]))
    folder = Path(out)
    data = write_pairs(open_source(labeled, split), folder, mapping=mapping, limit=limit)
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
    click.echo(f"accuracy with all: {found.reports[0].agreement.accuracy}")
    rows = [
        (a.principle, percent(a.accuracy), a.test.difference, f"{a.p_adjusted:.4f}", a.verdict)
        for a in ablations
    ]
    click.echo(table(["left out", "accuracy", "difference", "p (Holm)", "the principle"], rows))

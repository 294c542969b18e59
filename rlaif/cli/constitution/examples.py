"""`rlaif constitution test`: each principle's own examples, once or after every edit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags, spread
from rlaif.cli.common.options import build, config_flag, merge_settings
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries, table
from rlaif.constitution.load import LoadedConstitution, load_constitution
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.util.output import explain_failure

_TEST_EXAMPLES = """
\b
Examples:
  rlaif constitution test my.yaml --judge Qwen/Qwen3-8B
  rlaif constitution test my.yaml -j Qwen/Qwen3-8B --junit report.xml     # in CI
  rlaif constitution test my.yaml -j Qwen/Qwen3-8B --watch                # while editing

Verdicts are cached: after an edit, only what changed is judged again.
"""


@click.command(cls=Command, name="test", epilog=_TEST_EXAMPLES)
@click.argument("constitution", metavar="C")
@click.option("-j", "--judge", help="Judge model. [default: demo]")
@click.option(
    "--margin",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Minimum margin |2p - 1| by which `chosen` must win.",
)
@click.option("--junit", metavar="FILE", help="Also write the results as JUnit XML.")
@click.option("--watch", is_flag=True, help="Keep running, and test again when a file changes.")
@config_flag
@cache_dir_flag
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--template", help="Judge prompt template: a name or a path.")
@engine_flags
def test_command(
    constitution: str,
    judge: str | None,
    margin: float,
    junit: str | None,
    watch: bool,
    config: str | None,
    cache_dir: Path | None,
    as_json: bool,
    template: str | None,
    **flags: Any,
) -> None:
    """Test each principle on its own examples.

    An example passes if its principle, judged alone in both orders, prefers `chosen` to
    `rejected` by at least the margin. Exits with code 1 if an example fails, or if there are
    none.

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    from rlaif.api.service import Service
    from rlaif.api.setup import (
        ANCHORED,
        JudgeSettings,
        prepare_judge,
        with_defaults,
    )
    from rlaif.generation.judge_calls import JUDGE, PairCaller

    values, places = merge_settings(
        {**spread(flags), "model": judge, "template": template},
        config,
        (JudgeSettings, EngineSettings),
        hidden=frozenset({"judge", "writer", "aggregation"}),
    )
    values.setdefault("model", "demo")
    if values.get("engine") in (None, "auto"):
        values["engine"] = "vllm"
    engine = build(EngineSettings, values, places)
    own = {k: v for k, v in values.items() if k in JudgeSettings.model_fields}
    own["pointwise"] = ANCHORED  # asks for no labels beyond those of the judge's template
    settings = build(JudgeSettings, with_defaults(own, engine), places)

    with ExitStack() as stack:
        services: list[Service] = []

        def once() -> bool:
            loaded = load_constitution(constitution)
            prepared = prepare_judge(constitution, settings)
            judging: PairCaller = prepared.judging
            asks = any(p.judged and p.examples for p in loaded.constitution.principles)
            if asks and not services:
                service = Service(
                    {JUDGE: prepared.settings.judge}, LabelScreen(None).context(cache_dir)
                )
                services.append(stack.enter_context(closing(service)))
            return _test(
                loaded=loaded,
                judging=judging,
                services=services,
                margin=margin,
                junit=junit,
                as_json=as_json,
            )

        if not watch:
            passed = once()
        else:
            _watch(constitution, once)
            passed = True
    if not passed:
        sys.exit(1)


def _test(
    loaded: LoadedConstitution,
    judging: Any,
    services: list[Any],
    margin: float,
    junit: str | None,
    as_json: bool,
) -> bool:
    from rlaif.evaluation.constitutions import examples as tests

    results = tests.run_examples(loaded, judging, services[0] if services else None, margin=margin)
    if junit:
        with explain_failure(Path(junit)):
            Path(junit).write_text(tests.junit(loaded.constitution.name, results), encoding="utf-8")
    if as_json:
        print_json(
            [
                {
                    "principle": r.principle,
                    "example": r.number,
                    "passed": r.passed,
                    "p_chosen": r.p_chosen,
                    "margin": r.margin,
                    "flipped": r.flipped,
                    "reason": r.reason,
                    "place": str(r.place),
                }
                for r in results
            ]
        )
    else:
        rows = []
        for principle in loaded.constitution.principles:
            own = [r for r in results if r.principle == principle.id]
            if not own:
                rows.append((principle.id, "no examples", "-", "-"))
                continue
            good, flips = sum(r.passed for r in own), sum(r.flipped for r in own)
            least = f"{min(r.margin for r in own):+.3f}"
            rows.append((principle.id, f"{good} of {len(own)}", least, str(flips)))
        echo(table(["principle", "passed", "min. margin", "order flips"], rows))
        for r in results:
            if not r.passed:
                echo(f"FAILED {r.place}: {r.principle}, example {r.number}: {r.reason}")
                echo(f"       prompt: {' '.join(r.prompt.split())[:90]}")
        failed = sum(not r.passed for r in results)
        echo(f"{len(results) - failed} of {len(results)} examples passed")
    if not results:
        note("nothing was tested: no principle has examples")
    return bool(results) and all(r.passed for r in results)


def _watch(constitution: str, once: Callable[[], bool]) -> None:
    """Test now and after every change of the file or one that it extends, until Ctrl-C."""
    files = {Path(constitution)}
    while True:
        # Taken before anything is read, so that no change is missed.
        seen = _stamps(files)
        try:
            loaded = load_constitution(constitution)
            files = {Path(loaded.path), *(Path(p.file) for p in loaded.places.values())}
            seen = {**_stamps(files), **{f: s for f, s in seen.items() if f in files}}
            once()
        except RlaifError as error:
            echo(f"error: {error}", err=True)
            if error.place is not None:  # a file that is extended, perhaps
                broken = Path(error.place.file)
                files.add(broken)
                seen.setdefault(broken, _stamps({broken})[broken])
        note("watching for changes (Ctrl-C to stop)")
        while _stamps(set(seen)) == seen:
            time.sleep(0.2)
        echo("")


def _stamps(files: set[Path]) -> dict[Path, int]:
    return {f: f.stat().st_mtime_ns if f.exists() else 0 for f in files}

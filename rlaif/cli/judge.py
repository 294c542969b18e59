"""`rlaif judge`: whether a judge can be read, and with which template best."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.common.command import Command, Group
from rlaif.cli.common.judges import expand_judge
from rlaif.cli.common.model_flags import engine_flags, spread
from rlaif.cli.common.options import build
from rlaif.cli.common.output import echo, note, percent, print_json, quiet_libraries, table
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.labeling.judge_file import names_judge_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlaif.evaluation.judge_check import KnownPair, TemplateCheck
    from rlaif.templates.judge import JudgeTemplate


@click.group(cls=Group, name="judge")
def command() -> None:
    """Check how well a judge can be read, and find a template that suits it."""


_EXAMPLES = """
\b
Examples:
  rlaif judge check Qwen/Qwen3-8B -c my.yaml
  rlaif judge check Qwen/Qwen3-8B -c my.yaml --data labeled.jsonl --write judge.yaml
  rlaif label pairs.jsonl -c my.yaml --judge judge.yaml -o runs/first
  rlaif judge check MODEL -c my.yaml --template pairwise --template my-template.txt

Each template is tried as it is, and with other texts that open the judge's answer
(`prefill`). Label mass is the probability on the two labels; a verdict below the floor is
invalid. Consistent: both orders prefer the same response. Position: log-odds for the
response that is shown first, whichever it is. Agreement: share of pairs on which the judge
prefers the response that is known to be better, by both orders together; an invalid verdict
or a tie counts half. The default template is kept unless another one agrees better by more
than chance (exact sign test, 5%). Exits with 1 if no template gives valid verdicts.
"""


@command.command(cls=Command, name="check", epilog=_EXAMPLES)
@click.argument("judge")
@click.option(
    "-c", "--constitution", required=True, help="Constitution, whose examples are judged."
)
@click.option(
    "--data", metavar="LABELED", help="Judge labeled pairs instead of the constitution's examples."
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="Most labeled pairs to judge.",
)
@click.option(
    "--template",
    "judge_templates",
    multiple=True,
    help="Template to try: a name or a path; repeatable. [default: all shipped ones that answer "
    "without reasoning]",
)
@click.option(
    "--label-mass-floor",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Minimum probability mass on the two labels; verdicts below it are invalid.",
)
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the recommended judge as YAML; every command takes it in place of a model.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@engine_flags
def check_command(
    judge: str,
    constitution: str,
    data: str | None,
    limit: int,
    judge_templates: tuple[str, ...],
    label_mass_floor: float,
    write: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Find the template with which a judge answers best, on pairs whose better response is known.

    Asks about the examples of a constitution (or labeled pairs) in both orders.

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    if write is not None and (write.is_dir() or not names_judge_file(str(write))):
        raise RlaifError(f"--write {str(write)!r} is no YAML file", hint="Use judge.yaml.")
    named = expand_judge(judge)
    given = {name: value for name, value in spread(flags).items() if value is not None}
    settings = build(EngineSettings, {**named, **given})
    from rlaif.constitution.load import load_constitution
    from rlaif.engines.registry import create_engine
    from rlaif.evaluation.judge_check import (
        check_templates,
        pairs_of_data,
        pairs_of_examples,
        recommend,
        vary_prefills,
    )
    from rlaif.templates.judge import default_template

    loaded = load_constitution(constitution).constitution
    known = pairs_of_data(data, loaded, limit) if data else pairs_of_examples(loaded)
    if not known:
        raise RlaifError(
            f"no principle of {constitution!r} has examples",
            hint="Add `examples` to its principles, or pass labeled pairs with --data.",
        )
    if settings.engine == "reward-model":  # it reads no template
        tried = _load(["reward"])
    else:
        tried = vary_prefills(_load(judge_templates or _shipped(named.get("template"))))
    note(f"{len(known)} pairs, {len(tried)} ways to ask")
    with closing(create_engine(settings)) as engine:
        checks = check_templates(engine, tried, known, floor=label_mass_floor)
    best = recommend(
        checks, str(named.get("template") or default_template(settings.model, settings.engine))
    )
    _print(checks, best, known, as_json=as_json)
    if best is None:
        raise RlaifError(
            f"{judge!r} answers to no template with a label (greatest share of valid verdicts "
            f"{max(c.valid for c in checks):.0%})",
            hint="Write a template for it (`--template FILE`), or lower --label-mass-floor.",
        )
    if write is not None:
        _write(write, settings, best, known=known, constitution=loaded.name)


def _shipped(own: str | None) -> list[str]:
    """Names of the shipped templates, and the judge's own."""
    from rlaif.util.resources import list_shipped

    names = list_shipped("prompts/judge", ".txt")
    # A translation is for data in its language.
    found = [n for n in names if n not in ("reward", "reference") and "." not in n]
    return [*([own] if own and own not in found else []), *found]


def _load(names: Sequence[str]) -> list[JudgeTemplate]:
    """Templates that answer at once.

    Raises:
        RlaifError: there is none among them.
    """
    from rlaif.templates.judge import load_judge_template

    found = [load_judge_template(name) for name in names]
    direct = [template for template in found if not template.answer and not template.scores]
    if not direct:
        raise RlaifError(
            "templates that reason first or read scores can't be checked yet",
            hint="Pass a template without `answer`.",
        )
    return direct


def _facts(check: TemplateCheck) -> dict[str, Any]:
    return {
        "template": check.template.name,
        "prefill": check.template.prefill,
        "label_mass": check.label_mass[0],
        "least_label_mass": check.label_mass[1],
        "valid": check.valid,
        "consistency": check.consistency,
        "position_offset": check.offset,
        "agreement": check.agreement,
        "tokens_per_question": round(check.tokens),
        "problem": check.problem,
    }


def _print(
    checks: Sequence[TemplateCheck],
    best: TemplateCheck | None,
    known: Sequence[KnownPair],
    *,
    as_json: bool,
) -> None:
    if as_json:
        found = {
            "pairs": len(known),
            "checks": [_facts(check) for check in checks],
            "recommended": None if best is None else _facts(best),
        }
        print_json(found)
        return
    rows = [
        (
            f"{'*' if check is best else ' '} {check.template.name}",
            f"{check.label_mass[0]:.2f}",
            percent(check.valid),
            "-" if check.consistency is None else percent(check.consistency),
            "-" if check.offset is None else f"{check.offset:+.2f}",
            "-" if check.agreement is None else percent(check.agreement),
            f"{check.tokens:.0f}",
            check.template.prefill,
        )
        if not check.problem
        else (f"  {check.template.name}", *"------", check.problem)
        for check in checks
    ]
    header = ["template", "label mass", "valid", "consistent", "position", "agreement", "tokens"]
    echo(table([*header, "prefill"], rows))
    if best is None:
        return
    echo(f"\n* recommended: template {best.template.name!r}, prefill {best.template.prefill!r}")
    if best.consistency is not None and best.consistency < 0.6:
        echo(
            f"Both orders agree on {best.consistency:.0%} only: one order says little about the "
            "responses. Ask in both (`rlaif label --orders both`), and calibrate on human labels."
        )


def _write(
    path: Path,
    settings: EngineSettings,
    best: TemplateCheck,
    known: Sequence[KnownPair],
    constitution: str,
) -> None:
    from rlaif.engines.registry import model_fingerprint
    from rlaif.labeling.judge_file import write_judge_file
    from rlaif.templates.judge import load_judge_template

    shipped = load_judge_template(best.template.name).hash == best.template.hash
    checked = {
        "constitution": constitution,
        "pairs": len(known),
        "fingerprint": model_fingerprint(settings),
        **{
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in _facts(best).items()
            if name not in ("template", "prefill", "problem")
        },
    }
    for file in write_judge_file(path, settings, best.template, shipped=shipped, checked=checked):
        note(f"wrote {file}")

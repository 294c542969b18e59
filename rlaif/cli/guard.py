"""`rlaif guard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlaif.audits.thresholds import Thresholds
from rlaif.cli.common.audit_screen import print_audit
from rlaif.cli.common.command import Command
from rlaif.cli.common.options import build, config_flag, merge_settings, settings_options
from rlaif.cli.common.output import note, print_json, quiet_libraries, write_result
from rlaif.errors import RlaifError

_EXAMPLES = """
\b
Examples:
  rlaif guard runs/round2/candidates.jsonl --against runs/round1/candidates.jsonl
  rlaif guard runs/p/prompts.jsonl --min-human 0.1 --min-human-from-depth 0 --max-depth 2

Exit code 3 if the guard trips, so that a script or `rlaif run` stops there. `rlaif train-dpo`
and `train-sft` run the same checks first. `rlaif audit` checks more and writes an HTML
report.
"""


@click.command(cls=Command, name="guard", epilog=_EXAMPLES)
@click.argument("data")
@click.option("--against", metavar="DATA", help="Reference data to compare diversity with.")
@click.option(
    "--override", metavar="REASON", help="Continue although the guard trips; the reason is saved."
)
@click.option("-o", "--out", metavar="DIR", help="Also write the result to DIR/guard.json.")
@config_flag
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options(Thresholds)
def command(
    data: str,
    against: str | None,
    override: str | None,
    out: str | None,
    config: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Stop with an error if data has lost diversity or human origin.

    Measures the completions to train on (or prompts, if there are none), at equal length.
    """
    quiet_libraries()
    from rlaif.audits.audit import audit
    from rlaif.audits.rows import read_audited

    values, places = merge_settings(flags, config, (Thresholds,))
    limits = build(Thresholds, values, places)
    rows = read_audited(data)
    report = audit(rows, read_audited(against) if against else None, limits)
    if override is not None and not override.strip():
        raise RlaifError("--override is empty", hint="Give a reason.")
    facts = {**report.facts, "override": override if report.tripped else None}
    if out:
        write_result(Path(out) / "guard.json", facts)
    if as_json:
        print_json(facts)
    else:
        print_audit(report)
    if report.tripped and override is not None:
        for reason in report.sentences:
            note(f"overridden ({override}): {reason}")
    elif report.tripped:
        raise GuardTripped("; ".join(report.sentences), report.fixes)


class GuardTripped(RlaifError):
    """The data is not fit to be trained on."""

    exit_code = 3

    def __init__(self, reasons: str, fixes: list[str]) -> None:
        fix = "; ".join(fixes)
        super().__init__(
            f"the guard tripped: {reasons}",
            hint=f'{fix[0].upper()}{fix[1:]}; or change the setting, or give --override "REASON".',
        )

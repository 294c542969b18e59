"""`rlaif audit`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from rlaif.audits.thresholds import Thresholds
from rlaif.cli.common.audit_screen import print_audit
from rlaif.cli.common.command import Command
from rlaif.cli.common.layout_flags import layout_fields, layout_flags
from rlaif.cli.common.options import build, merge_settings
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries
from rlaif.errors import RlaifError

_EXAMPLES = """
\b
Examples:
  rlaif audit runs/first --against human.jsonl -o audits/first
  rlaif audit data/mixed --against human.jsonl --perplexity Qwen/Qwen3-0.6B -o audits/mixed
  rlaif audit runs/first --against human.jsonl --slice topic \\
    --attribute toxicity=my_scores:toxicity

\b
Thresholds are YAML (`--thresholds FILE`). The most important defaults:
  floor: 0.85          minimum diversity, as a share of the reference
  tail_floor: 0.7      minimum share of the reference's rare words and n-grams
  slice_floor: 0.5     minimum part of its share that a slice must keep
  drift: 0.8           maximum shift of tone, format or an attribute, in standard deviations
  duplicates: 0.1      maximum share of near-duplicates above the reference
  min_human: 0.1       minimum human-written share, from min_human_from_depth (4) generations on

Exit code 1 if a threshold is crossed. Comparisons with the reference must also be
statistically significant: at most one audit in twenty fails by chance if both datasets have
the same source. DATA is a run, a mix or a dataset; for pairs, the chosen completions are
audited. OUT gets audit.html and audit.json.
"""


@click.command(cls=Command, name="audit", epilog=_EXAMPLES)
@click.argument("data")
@click.option(
    "--against",
    metavar="DATA",
    help="Reference to compare with: human text or an earlier round.",
)
@click.option("--thresholds", metavar="FILE", help="YAML file of thresholds; see below.")
@click.option(
    "--texts",
    type=click.Choice(["auto", "chosen", "rejected", "prompts"]),
    default="auto",
    show_default=True,
    help="Texts of DATA to audit.",
)
@click.option(
    "--slice",
    "columns",
    multiple=True,
    metavar="COLUMN",
    help="Also report slices by this column; repeatable.",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=MODULE:FUNCTION",
    help="Function that scores a list of texts, such as a toxicity classifier; reported by slice.",
)
@click.option("--perplexity", metavar="MODEL", help="Language model to compute perplexity with.")
@click.option(
    "--embeddings", metavar="MODEL", help="Model for text embeddings (mean of its hidden states)."
)
@click.option("--split", default="train", show_default=True, help="Dataset split.")
@layout_flags
@click.option("-o", "--out", metavar="DIR", help="Write audit.html and audit.json to this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    data: str,
    against: str | None,
    thresholds: str | None,
    texts: Any,
    columns: tuple[str, ...],
    attributes: tuple[str, ...],
    perplexity: str | None,
    embeddings: str | None,
    split: str,
    out: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Measure what data has lost compared with human text: diversity, tails, slices, tone."""
    quiet_libraries()
    from rlaif.audits.audit import AuditExtras, audit
    from rlaif.audits.rows import read_audited
    from rlaif.cli.common.model_flags import assignments
    from rlaif.reporting.audit_page import write_audit
    from rlaif.runs.directory import has_rows, is_complete

    values, places = merge_settings({}, thresholds, (Thresholds,))
    limits = build(Thresholds, values, places)
    scorers = _load_scorers(assignments("--attribute", attributes))
    rows = read_audited(data, texts, split, layout_fields(flags))
    # The reference may hold less than pairs: what is compared is what people wrote.
    reference = (
        read_audited(against, "prompts" if texts == "prompts" else "auto") if against else None
    )
    models = _load_models(perplexity, embeddings)
    run = Path(data)
    labeled = has_rows(run / "verdicts.jsonl") and is_complete(run)
    extras = AuditExtras(columns, scorers, run=run if labeled else None, **models)
    report = audit(rows, reference, limits, extras)
    facts = {
        "data": data,
        "against": against,
        "thresholds": limits.facts,
        "perplexity": perplexity,
        "embeddings": embeddings,
        **report.facts,
    }
    if out:
        write_audit(Path(out), report, facts)
    if as_json:
        print_json(facts)
    else:
        print_audit(report)
        for finding in report.biases:
            shown = "bias" if finding.flagged else "no bias"
            echo(f"{shown}: {finding.name} {finding.shown}")
        if out:
            echo(f"\nreport: {Path(out) / 'audit.html'}")
    if report.tripped:
        raise AuditTripped(report.sentences, report.fixes)
    if not as_json:
        sys.stdout.flush()


def _load_models(perplexity: str | None, embeddings: str | None) -> dict[str, Any]:
    models: dict[str, Any] = {}
    if perplexity or embeddings:
        from rlaif.audits.models import Embeddings, Perplexity

        for kind, name in ((Perplexity, perplexity), (Embeddings, embeddings)):
            if name:
                note(f"loading {name!r} ...")
                models["perplexity" if kind is Perplexity else "embed"] = kind(name)
    return models


class AuditTripped(RlaifError):
    """A threshold is crossed."""

    exit_code = 1

    def __init__(self, sentences: list[str], fixes: list[str]) -> None:
        fix = "; ".join(fixes)
        super().__init__(
            f"{len(sentences)} threshold{'s are' if len(sentences) > 1 else ' is'} crossed: "
            + "; ".join(sentences),
            hint=f"{fix[0].upper()}{fix[1:]}.",
        )


def _load_scorers(named: Mapping[str, str]) -> dict[str, Callable[..., Any]]:
    """The functions that the user names for attributes."""
    from rlaif.util.user_functions import allow_typed, load_function

    for said in named.values():
        allow_typed(said)
    return {name: load_function(said, "attribute") for name, said in named.items()}

"""What stands before a training: the guard against collapse, and what licenses forbid.

A user may override both, with a reason that is kept in the policy's `training.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rlaif.audits.audit import AuditReport, audit
from rlaif.audits.rows import AuditRow, merged, read_audited
from rlaif.audits.thresholds import load_thresholds
from rlaif.data.licensing import ModelUse, check, load_licenses, stops, uses
from rlaif.errors import RlaifError
from rlaif.records import Origin
from rlaif.runs.judges import Judges, labelers
from rlaif.templates.messages import completion_text, conversation_text
from rlaif.training.data import TrainingRow
from rlaif.training.settings import GateSettings
from rlaif.training.supervised import SupervisedRow
from rlaif.util.files import write_atomically

GATES = "gates.json"


class TrainingBlocked(RlaifError):
    """A gate does not let the training start."""

    exit_code = 3


def preference_rows(rows: Sequence[TrainingRow]) -> list[AuditRow]:
    """What DPO rows teach: each chosen completion; a row's repetitions are its weight."""
    found = []
    for row, times in _once(rows):
        origin = row.origins[1] if len(row.origins) > 1 else Origin()
        said = AuditRow(
            prompt=conversation_text(row.prompt),
            texts=[completion_text(row.chosen)],
            kind=origin.kind,
            labeled_by=row.source,
            depth=row.depth,
            weight=float(times),
            tags=row.tags,
        )
        found.append((said, completion_text(row.rejected)))
    return merged(found)


def supervised_rows(rows: Sequence[SupervisedRow]) -> list[AuditRow]:
    """What SFT rows teach."""
    return [
        AuditRow(
            prompt=conversation_text(row.prompt),
            texts=[completion_text(row.completion)],
            kind=row.origin.kind,
            depth=row.depth,
            weight=float(times),
            tags=row.tags,
        )
        for row, times in _once(rows)
    ]


def _once(rows: Sequence[Any]) -> list[tuple[Any, int]]:
    """Rows with how often each is there: weights repeat the very same row."""
    counts = Counter(id(row) for row in rows)
    return [(row, counts[id(row)]) for row in {id(row): row for row in rows}.values()]


def preference_uses(rows: Sequence[TrainingRow], judges: Judges) -> list[ModelUse]:
    """Whose prompts, completions and labels DPO rows are."""

    def texts() -> Iterable[tuple[str, Origin, str]]:
        for row, _ in _once(rows):
            for number, origin in enumerate(row.origins):
                yield "completions" if number else "prompts", origin, row.id
            for origin in labelers(row.judge, judges) if row.judge else []:
                yield "labels", origin, row.id

    return uses(texts())


def supervised_uses(rows: Sequence[SupervisedRow]) -> list[ModelUse]:
    """Whose prompts and completions SFT rows are."""

    def texts() -> Iterable[tuple[str, Origin, str]]:
        for row, _ in _once(rows):
            yield "prompts", row.prompt_origin, row.id
            yield "completions", row.origin, row.id

    return uses(texts())


def pass_gates(
    rows: Sequence[AuditRow],
    used: Sequence[ModelUse],
    policy: Sequence[str],
    gates: GateSettings,
    out: Path | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Look before a training starts.

    Args:
        policy: names of the model that is trained, and of those that it was made from.
        out: the output folder; what was overridden when a training there was started stands.

    Returns:
        What was found, for `training.json`; and what to tell, a sentence each.

    Raises:
        Stopped: the guard tripped or a license forbids it, and no override was given.
        RlaifError: a file can't be read.
    """
    book = load_licenses(gates.licenses)
    limits = load_thresholds(Path(gates.thresholds) if gates.thresholds else None)
    reference = read_audited(gates.against) if gates.against else None
    report = audit(rows, reference, limits)
    found = check(book, used, policy)
    forbidden = [finding for finding in found if stops(book, finding)]
    reasons = [*report.sentences, *(f.sentence for f in forbidden)]
    facts = {
        "guard": _facts(report),
        "licenses": [finding.facts for finding in found],
        "override": gates.override if reasons else None,
    }
    before = _before(out)
    if before.get("override") and not facts["override"]:
        facts = {key: before.get(key) for key in facts}
    if reasons and gates.override is None:
        fixes = [*report.fixes, *(["train on other data"] if forbidden else [])]
        fix = "; ".join(fixes)
        raise TrainingBlocked(
            "the training was not started: " + "; ".join(reasons),
            hint=f'{fix[0].upper()}{fix[1:]}; or give --override "REASON", which is kept.',
        )
    told = [f"license: {f.sentence}" for f in found if f not in forbidden]
    told += [f"overridden ({gates.override}): {reason}" for reason in reasons]
    return facts, told


def names_of(model: str, bases: Sequence[str]) -> list[str]:
    """The names that licenses are held against: of a folder its own, not where it lies."""
    named = [Path(name).name if Path(name).is_dir() else name for name in (model, *bases)]
    return list(dict.fromkeys(named))


def keep_gates(facts: dict[str, Any], out: Path) -> None:
    """Write down what a training is started with, before it starts."""
    write_atomically(out / GATES, json.dumps(facts, indent=2))


def _before(out: Path | None) -> dict[str, Any]:
    """What `keep_gates` wrote, when a training that goes on now was started."""
    try:
        found = json.loads((out / GATES).read_text(encoding="utf-8")) if out else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _facts(report: AuditReport) -> dict[str, Any]:
    return {
        "rows": report.rows,
        "human_written": report.human_written,
        "human_labeled": report.human_labeled,
        "depth": report.depth,
        "tripped": report.tripped,
        "checks": [
            {"name": c.name, "value": round(c.value, 5), "limit": c.limit, "tripped": c.tripped}
            for c in report.checks
        ],
    }

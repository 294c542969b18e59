"""From a run to a desk with a queue."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlaif.constitution.load import load_constitution
from rlaif.errors import RlaifError
from rlaif.review.doubt import doubt
from rlaif.review.items import read_items
from rlaif.review.queue import AUDIT_SHARE, QueueCandidate, QueuePlan, plan_queue
from rlaif.review.store import DESK, ReviewStore, ReviewTask
from rlaif.runs.directory import CONSTITUTION, read_manifest
from rlaif.runs.labels import read_verdicts

THIN = 0.05
"""Share of pairs under which a tag is a thin slice."""


@dataclass(frozen=True)
class OpenedReview:
    """A desk, the plan that it was filled by, and how many pairs came in now."""

    store: ReviewStore
    plan: QueuePlan
    new: int


def plan_review(
    run: Path, budget: int, *, audit_share: float = AUDIT_SHARE, seed: int = 0
) -> QueuePlan:
    """The queue of a complete run; the run's files are read twice, memory holds the queue.

    Raises:
        RlaifError: `run` is no complete labeling run, or has no pair.
    """
    config = read_manifest(run)["config"]
    if "review" in config:
        raise RlaifError(
            f"run {str(run)!r} already contains human labels",
            hint=f"Review the run that it was created from: {config['review']['run']}.",
        )
    if "constitution" not in config or "judge" not in config:
        raise RlaifError(
            f"{str(run)!r} is not a labeling run", hint="Use the output folder of `rlaif label`."
        )
    thin = _thin_tags(run)
    judges = tuple(str(own["judge"]["model"]) for own in config.get("members", []) or [config])

    def candidates() -> Iterator[QueueCandidate]:
        for number, item in enumerate(read_items(run)):
            # Settled without a judge (identical, empty): nothing to look at.
            if item.opinions or item.prompt_injection:
                yield QueueCandidate(number, f"{item.row}:{item.id}", doubt(item, thin, judges))

    plan = plan_queue(candidates(), budget, audit_share=audit_share, seed=seed)
    if not plan.queue:
        raise RlaifError(
            f"run {str(run)!r} has no judged pairs", hint="See `rlaif report` for the reasons."
        )
    return plan


def open_store(
    run: Path, budget: int, *, audit_share: float = AUDIT_SHARE, overlap: float = 0.1, seed: int = 0
) -> OpenedReview:
    """The desk of a run, with a queue of at least `budget` pairs; decisions are kept.

    Raises:
        RlaifError: the run can't be reviewed, was labeled anew since the review began, or the
            review began with another audit, which must be one throughout.
    """
    read_manifest(run)
    store = ReviewStore(run / DESK)
    try:
        design = json.dumps([audit_share, seed])
        if store.fact("design") not in ("", design):
            share, drawn = json.loads(store.fact("design"))
            raise RlaifError(
                f"this review was started with --audit-share {share:g} --seed {drawn}",
                hint="Use the same values; changing them would invalidate the random audit.",
            )
        budget = max(budget, int(store.fact("budget") or 0))
        plan = plan_review(run, budget, audit_share=audit_share, seed=seed)
        mark = json.dumps([read_manifest(run)["config"]["constitution"], plan.total])
        known = store.fact("run")
        if known and known != mark:
            raise RlaifError(
                f"run {str(run)!r} has changed since its review started",
                hint="Export the labels (`rlaif labels export`), then move review.sqlite away.",
            )
        store.state("run", mark)
        for name, value in (("total", plan.total), ("design", design), ("budget", budget)):
            store.state(name, str(value))
        wanted = {q.candidate.number: q for q in plan.queue}
        items = {number: item for number, item in enumerate(read_items(run)) if number in wanted}
        queue = [(q, items[q.candidate.number]) for q in plan.queue]
        new = store.enqueue(queue, overlap=overlap)
    except BaseException:
        store.close()
        raise
    return OpenedReview(store, plan, new)


def questions(run: Path) -> dict[str, str]:
    """What each principle asks, by its id; nothing for a run that does not hold it."""
    if not (run / CONSTITUTION).exists():
        return {}
    loaded = load_constitution(str(run / CONSTITUTION)).constitution
    asked = [p for p in loaded.principles if p.preference]
    return {p.id: f"{p.preference} {p.rationale or ''}".strip() for p in asked}


def reasonings(run: Path, tasks: list[ReviewTask]) -> dict[tuple[int, str], list[tuple[str, str]]]:
    """What the judge wrote about the pairs of the queue: principle and text, by (row, id)."""
    wanted = {(task.item.row, task.item.id) for task in tasks}
    found: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for verdict in read_verdicts(run):
        if verdict.reasoning and verdict.key in wanted:
            found.setdefault(verdict.key, []).append((verdict.principle, verdict.reasoning))
    return found


def _thin_tags(run: Path) -> frozenset[str]:
    counts: Counter[str] = Counter()
    total = 0
    for item in read_items(run):
        counts.update(item.tags)
        total += 1
    return frozenset(tag for tag, n in counts.items() if n < THIN * total)

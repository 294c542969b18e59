"""What a review of a run found so far: opens its store, joins the votes, keeps the facts."""

from __future__ import annotations

import json
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from rlaif.errors import RlaifError
from rlaif.review.store import DESK, ReviewStore
from rlaif.review.votes import HumanLabel, combine, review_facts
from rlaif.runs.directory import REVIEW
from rlaif.util.files import write_atomically


def open_existing_store(run: str) -> ReviewStore:
    """The store of a review that was begun.

    Raises:
        RlaifError: the run has none.
    """
    path = Path(run) / DESK
    if not path.exists():
        raise RlaifError(f"run {run!r} has no review", hint="Start one with `rlaif review RUN`.")
    return ReviewStore(path)


def read_review_results(
    run: str, certainty: float | None
) -> tuple[list[HumanLabel], dict[str, Any]]:
    """The human label of each pair, and facts about the run's labels.

    Args:
        certainty: how likely one person's vote is right; None: as estimated.

    Raises:
        RlaifError: nobody has labeled anything yet.
    """
    with closing(open_existing_store(run)) as store:
        tasks, last, ever = list(store.tasks()), store.decisions(), store.decisions(undone=True)
        total = int(store.fact("total") or len(tasks))
        expert = store.fact("expert")
    labels = combine(tasks, last, certainty=certainty, expert=expert)
    facts = review_facts(tasks, ever, total, certainty=certainty, expert=expert)
    if not facts["labels"]:
        raise RlaifError(f"run {run!r} has no human labels yet", hint="Run `rlaif review` first.")
    return labels, facts


def refresh_review(run: str) -> None:
    """Write the facts of a run's review beside it, if it was reviewed."""
    if (Path(run) / DESK).exists():
        with suppress(RlaifError):  # nobody has labeled anything yet
            facts = read_review_results(run, None)[1]
            write_atomically(Path(run) / REVIEW, json.dumps(facts) + "\n")

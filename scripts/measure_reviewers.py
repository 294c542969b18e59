"""Prints how well reviewers who let a model answer are told apart, in simulated crowds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from sklearn.metrics import roc_auc_score

from rlaif.records import Message
from rlaif.review.integrity import prevalence, report_reviewers
from rlaif.review.items import PrincipleEvidence, ReviewItem
from rlaif.review.store import Decision, ReviewTask

TEXT: list[Message] = [{"role": "assistant", "content": "word " * 60}]
ITEM = ReviewItem(
    id="x",
    row=1,
    prompt=[],
    a=TEXT,
    b=TEXT,
    status="decided",
    winner="a",
    reason="",
    p_a=0.9,
    order_consistency=1.0,
    opinions=[PrincipleEvidence("p", 0.9)],
)


def crowd(
    rng: np.random.Generator,
    reviewers: int,
    share: float,
    *,
    planted: int = 24,
    pairs: int = 60,
    edits: int = 10,
    hard: float = 0.0,
) -> tuple[list[ReviewTask], list[Decision], dict[str, bool], list[str]]:
    """Reviewers of whom `share` let a model answer and write.

    The judge is wrong on a third of the planted pairs; attentive people err on 10 to 25% of any;
    the others say what such a model says (the judge's answer in 85%).  The detector of `score` is a
    poor one: its scores of model text and of human text are a standard deviation and a half apart.

    Args:
        hard: how often attentive people err on pairs that the judge has wrong, if that is more than
            on others.
    """
    tasks = []
    for n in range(planted + pairs):
        gold = ("b" if n % 3 == 0 else "a") if n < planted else ""
        tasks.append(
            ReviewTask(
                number=n,
                item=replace(ITEM, id=f"n{n}"),
                reasons=[],
                audit=False,
                certain=False,
                inclusion=1.0,
                wanted=1,
                gold=gold,
            )
        )
    said: list[Decision] = []
    lazy = {f"r{k}": bool(k < round(share * reviewers)) for k in range(reviewers)}
    for name, contaminated in lazy.items():
        skill = rng.uniform(0.75, 0.9)
        order = rng.permutation(len(tasks))
        for place, n in enumerate(order):
            truth = tasks[n].gold or "a"
            if contaminated:
                verdict = "a" if rng.random() < 0.85 else "b"
            else:
                right = min(skill, 1.0 - hard) if truth == "b" else skill
                verdict = truth if rng.random() < right else {"a": "b", "b": "a"}[truth]
            kind = "model" if contaminated else "human"
            shift = rng.normal(1.5 if contaminated else 0.0, 1.0)
            text = f"{kind} {shift:.4f}" if place < edits else ""
            said.append(
                Decision(
                    number=len(said),
                    item=int(n),
                    reviewer=name,
                    verdict=verdict,  # type: ignore[arg-type]
                    first="ab"[int(rng.integers(2))],
                    blind=True,
                    seconds=float(rng.lognormal(3, 0.5)),
                    at=0.0,
                    note="",
                    edited=text,
                    pasted=0,
                )
            )
    people = [f"human {x:.4f}" for x in rng.normal(0, 1, 200)]
    return tasks, said, lazy, people


def score(texts: Sequence[str]) -> list[float]:
    """What the simulated detector says: the number in a text."""
    return [float(text.split()[1]) for text in texts]


def main() -> None:
    """Crowds of 100, with and without a detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crowds", type=int, default=20, help="of each kind")
    parser.add_argument("--reviewers", type=int, default=100, help="in each")
    args = parser.parse_args()
    for share, hard in product((0.0, 0.33, 0.46), (0.0, 0.5)):
        for with_detector in (True, False):
            aucs, rates, flagged, caught = [], [], [], []
            for seed in range(args.crowds):
                tasks, said, lazy, people = crowd(
                    np.random.default_rng(seed), args.reviewers, share, hard=hard
                )
                reports = report_reviewers(
                    tasks,
                    said,
                    detector=score if with_detector else None,
                    human_texts=people if with_detector else (),
                )
                truth = [lazy[r.name] for r in reports]
                if any(truth):
                    aucs.append(roc_auc_score(truth, [-r.p for r in reports]))
                rates.append(prevalence(reports)[1].rate)
                flagged += [bool(r.flags) for r in reports if not lazy[r.name]]
                caught += [bool(r.flags) for r in reports if lazy[r.name]]
            how = "with" if with_detector else "without"
            print(
                f"{100 * share:.0f}% contaminated, {how} a detector, people err on "
                f"{'half' if hard else 'as few'} of what the judge has wrong: prevalence "
                f"{100 * np.mean(rates):.1f}% (SD {100 * np.std(rates):.1f}), attentive ones "
                f"flagged {100 * np.mean(flagged):.1f}%"
                + (
                    f", the others {100 * np.mean(caught):.0f}%, AUC {np.mean(aucs):.3f} (least "
                    f"{min(aucs):.3f})"
                    if aucs
                    else ""
                )
            )


if __name__ == "__main__":
    main()

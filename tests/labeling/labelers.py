"""Labelers as plain objects in this process, which die when they are told to."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaif.engines.replicas import Replica
from rlaif.engines.workers import MakeWorker, WorkerDied
from rlaif.errors import RlaifError
from rlaif.labeling.job import LabelSummary, Split, prepare, run_label
from rlaif.labeling.label_worker import WorkerReport
from rlaif.runs.context import RunContext
from rlaif.runs.tally import dump_tally
from tests.labeling.helpers import settings

WAYS: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (7, {}),
    (40, {"limit": 101}),
    (1000, {}),
    (9, {"pairs": "sample", "pairs_per_prompt": 2, "principles": "sample", "seed": 5}),
    (11, {"template": "reasoned", "reasoning_samples": 2}),
    (13, {"orders": "one", "options": {"fail_every": 7}}),
]
"""Rows that a labeler gets at a time, and settings."""


class InProcessLabelers:
    """A backend whose workers are plain objects, and die when they are told to.

    Args:
        dies: by worker and number of the call: "before" it works, "after" (what it answered is in
            the cache, its lines are lost), or "".
    """

    def __init__(self, seed: int, dies: Callable[[int, int], str] = lambda n, call: "") -> None:
        self.make: MakeWorker = Replica
        self.judge = settings().judge
        self.calls: dict[int, list[Any]] = {}
        self.starting: list[int] = []
        self.began: list[int] = []
        self.finished: list[int] = []
        self.made: list[Any] = []
        self.count = 0
        self._dies, self._random = dies, random.Random(seed)
        self._workers: dict[int, Any] = {}

    def host_proxy(self, make: Callable[[], Any]) -> Callable[[], Any]:
        return make

    def start(self, number: int) -> None:
        self.starting.append(number)
        self._workers[number] = self.make(self.judge)
        self.made.append(self._workers[number])

    def submit(self, number: int, task: list[Any]) -> None:
        assert number not in self.calls
        self.began += [one.first for one in task]
        self.calls[number] = task

    def wait(self, seconds: float | None) -> list[tuple[int, Any]]:
        if self.starting and (not self.calls or self._random.random() < 0.4):
            number = self.starting.pop(0)
            return [(number, self._workers[number].traits())]
        if not self.calls:
            return []
        return [self.call(self._random.choice(list(self.calls)))]

    def call(self, number: int) -> tuple[int, WorkerReport | WorkerDied]:
        shards, worker = self.calls.pop(number), self._workers[number]
        self.count += 1
        death = self._dies(number, self.count)
        if death == "before":
            worker.close()
            return number, WorkerDied("told to")
        try:
            report: WorkerReport = worker.work(shards)
        except RlaifError as error:
            worker.close()
            return number, WorkerDied(str(error), error)
        self.finished += [done.first for done in report.done]
        if death:
            worker.close()
            return number, WorkerDied("told to")
        return number, report

    def close(self) -> None:
        for worker in self.made:
            worker.close()


def run(
    folder: Path, out: str, split: int | Split | None, copies: int = 3, **changes: Any
) -> LabelSummary:
    """A run of the inputs in `folder`; `split` may be the rows of a shard."""
    on_progress = changes.pop("on_progress", lambda _: None)
    cache = changes.pop("cache", f"{out}.sqlite")
    first_look = changes.pop("first_look", False)
    judge, data = changes.pop("judge", None), changes.pop("data", folder / "pairs.jsonl")
    plain = settings(**changes)
    judge = judge or plain.judge.model_copy(update={"data_parallel_size": copies})
    job = prepare(
        str(data),
        str(folder / "constitution.yaml"),
        plain.model_copy(update={"judge": judge}),
    )
    return run_label(
        job,
        folder / out,
        context=RunContext(
            cache_dir=folder / cache, on_progress=on_progress, first_look=first_look
        ),
        split=split if isinstance(split, Split) else Split(split),
    )


def tally_of(summary: LabelSummary) -> dict[str, Any]:
    """The tally, with sums of floats rounded: they were added in another order."""
    plain = dump_tally(summary.tally)
    for principle in plain["principles"].values():
        principle["position_logit_sum"] = round(principle["position_logit_sum"], 9)
    return plain

"""TRL: the judge as a reward function, as a pairwise judge, and as a callback.

    from rlaif.harness.trl_rewards import PairwiseReward

    GRPOTrainer(..., reward_funcs=PairwiseReward("my.yaml", judge="MODEL"))

**What `None` means.**  A completion without a verdict gets `None`.  GRPO leaves it out of that
reward; OnlineDPO (TRL 1.16) makes it 0, which is a verdict of its own there: `missing=0.5` says
"as good as the other" instead.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from rlaif.api.answers import Comparison
from rlaif.api.judge import AnyJudge
from rlaif.data.messages import parts_text
from rlaif.harness.judges import open_judge
from rlaif.records import Message
from rlaif.training.sampling import PolicySampler

RewardTexts = Sequence[str] | Sequence[Sequence[Mapping[str, str]]]


class _Reward(ABC):
    """What both rewards share: the judge, ranks, and the missing value.

    Args:
        constitution, judge, url, settings: see `rlaif.harness.judges.open_judge`.
        missing: the reward of a completion without a verdict.
        across_ranks: with several processes, judge what all of them hold together, on rank 0
            (where the engine runs; the others send and wait).  Needed where the completions of a
            prompt lie on several ranks.
    """

    def __init__(
        self,
        constitution: str | None = None,
        judge: str = "demo",
        *,
        url: str | None = None,
        missing: float | None = None,
        across_ranks: bool = False,
        **settings: Any,
    ) -> None:
        self._open: Callable[[], AnyJudge] = lambda: open_judge(
            constitution, judge, url=url, **settings
        )
        self._missing = missing
        self._across = across_ranks
        self._group: Any = None
        self.__name__ = type(self).__name__

    def __call__(
        self,
        prompts: RewardTexts,
        completions: RewardTexts,
        completion_ids: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        """A reward from 0 to 1 for each completion.

        Args:
            prompts, completions: (n,) texts or conversations, in any order of prompts.
            columns: of the data set; not used.
        """
        items = list(zip(map(_plain, prompts), map(_plain, completions), strict=True))
        if not self._several():
            return [self._missing if r is None else r for r in self._rewards(items)]
        world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        if self._group is None:
            # Of its own and on the CPU: objects go over it from any thread.
            self._group = torch.distributed.new_group(backend="gloo")
        everything: list[Any] = [None] * world
        torch.distributed.all_gather_object(everything, items, group=self._group)
        shares: list[Any] = [None] * world
        if rank == 0:
            try:
                found = self._rewards([item for part in everything for item in part])
            except Exception as error:
                shares = [error] * world  # no rank waits for what never comes
            else:
                start = 0
                for i, part in enumerate(everything):
                    shares[i] = found[start : start + len(part)]
                    start += len(part)
        own: list[Any] = [None]
        torch.distributed.scatter_object_list(own, shares if rank == 0 else None, group=self._group)
        if isinstance(own[0], Exception):
            raise own[0]
        return [self._missing if r is None else r for r in own[0]]

    def asynchronous(self) -> Callable[..., Any]:
        """The same reward as a coroutine function, which GRPO runs beside other async ones."""

        async def reward(**given: Any) -> list[float | None]:
            if self._several():
                # Ranks must meet in the same order: coroutines start in order, threads do not.
                return self(**given)
            return await asyncio.to_thread(self, **given)

        reward.__name__ = self.__name__
        return reward

    def _several(self) -> bool:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        return self._across and distributed and torch.distributed.get_world_size() > 1

    @abstractmethod
    def _rewards(self, items: Sequence[tuple[Any, Any]]) -> list[float | None]:
        """A reward for each (prompt, completion); None where there is no verdict."""


class PairwiseReward(_Reward):
    """How likely a completion is to beat the others of its prompt, by the constitution.

    The mean probability over the other completions of the same prompt (a tie is a half), so that
    it is relative to the group as GRPO's advantage is.  Completions are grouped by their prompt's
    text: GRPO's `p0 p0 p1 p1` and OnlineDPO's `p0 p1 p0 p1` come to the same.  A prompt with one
    completion has no reward.

    Args:
        opponents: so many others (the next ones in the group) for each completion, so that large
            groups cost `n * opponents` comparisons; default: all, `n (n - 1) / 2`.
    """

    def __init__(self, *arguments: Any, opponents: int | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._opponents = opponents

    def _rewards(self, items: Sequence[tuple[Any, Any]]) -> list[float | None]:
        groups: dict[str, list[int]] = {}
        for i, (prompt, completion) in enumerate(items):
            if _speaks(completion):
                groups.setdefault(json.dumps(prompt), []).append(i)
        meetings = [pair for group in groups.values() for pair in self._meetings(group)]
        rows = [
            {"prompt": items[i][0], "response_a": items[i][1], "response_b": items[j][1]}
            for i, j in meetings
        ]
        won: list[list[float]] = [[] for _ in items]
        for (i, j), found in zip(meetings, self._open().compare_many(rows), strict=True):
            if found.status != "abstained":
                won[i].append(found.p_a)
                won[j].append(1.0 - found.p_a)
        return [sum(values) / len(values) if values else None for values in won]

    def _meetings(self, group: Sequence[int]) -> list[tuple[int, int]]:
        n = len(group)
        steps = n - 1 if self._opponents is None else min(self._opponents, n - 1)
        found = {
            tuple(sorted((i, (i + step) % n))) for i in range(n) for step in range(1, steps + 1)
        }
        return [(group[i], group[j]) for i, j in sorted(found)]


class PointwiseReward(_Reward):
    """How well a completion follows the constitution by itself, from 0 to 1."""

    def _rewards(self, items: Sequence[tuple[Any, Any]]) -> list[float | None]:
        spoken = [i for i, (_, completion) in enumerate(items) if _speaks(completion)]
        rows = [{"prompt": items[i][0], "response": items[i][1]} for i in spoken]
        found: list[float | None] = [None] * len(items)
        for i, answer in zip(spoken, self._open().score_many(rows), strict=True):
            found[i] = answer.score
        return found


class PairwiseJudge:
    """The judge interface of TRL up to 1.0 (`BasePairwiseJudge`), by its methods alone.

    Args:
        see `rlaif.harness.judges.open_judge`.
    """

    def __init__(
        self,
        constitution: str | None = None,
        judge: str = "demo",
        *,
        url: str | None = None,
        **settings: Any,
    ) -> None:
        self._open: Callable[[], AnyJudge] = lambda: open_judge(
            constitution, judge, url=url, **settings
        )

    def judge(
        self,
        prompts: Sequence[str],
        completions: Sequence[Sequence[str]],
        shuffle_order: bool = True,
        return_scores: bool = False,
    ) -> list[Any]:
        """Which of two completions is better: 0, 1, or -1 where there is no verdict or a tie.

        Args:
            shuffle_order: has no effect: both orders are always asked.
            return_scores: give the probability that the first is better instead (0.5 for none).
        """
        rows = [
            {"prompt": prompt, "response_a": a, "response_b": b}
            for prompt, (a, b) in zip(prompts, completions, strict=True)
        ]
        found = list(self._open().compare_many(rows))
        if return_scores:
            return [f.p_a for f in found]
        return [{"a": 0, "b": 1}.get(f.winner or "", -1) for f in found]

    __call__ = judge


class WinRateCallback(TrainerCallback):
    """Reports how often the judge prefers the policy's completions to references.

    At every evaluation (and at the start and the end) the policy answers some prompts through an
    engine that takes the trainer's weights, and the judge compares in one batch.  `win_rate` (a tie
    is a half), `win_rate_p` (the mean probability) and `win_rate_abstained` go to the state's log
    history.

    Args:
        rows: prompts with a reference completion each: `prompt` and `reference`.
        sampler: how the policy writes; default: greedy, 256 tokens, on vLLM.
        constitution, judge, url, settings: see `rlaif.harness.judges.open_judge`.

    Attributes:
        history: (step, win rate) of every report.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        constitution: str | None = None,
        judge: str = "demo",
        *,
        url: str | None = None,
        sampler: PolicySampler | None = None,
        **settings: Any,
    ) -> None:
        self._rows = list(rows)
        self._open: Callable[[], AnyJudge] = lambda: open_judge(
            constitution, judge, url=url, **settings
        )
        self._sampler = sampler or PolicySampler()
        self._reported = -1
        self.history: list[tuple[int, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Report the policy as it is before training."""
        self._report(state, given)

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Report at an evaluation."""
        self._report(state, given)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Report the trained policy, and stop the policy's engine."""
        self._report(state, given)
        self._sampler.close()

    def _report(self, state: Any, given: Mapping[str, Any]) -> None:
        if state.global_step == self._reported:
            return
        self._reported = state.global_step
        if not state.is_world_process_zero:
            return
        prompts = [row["prompt"] for row in self._rows]
        said = self._sampler.sample(
            given["model"], given["processing_class"], [_messages(prompt) for prompt in prompts]
        )
        rows = [
            {"prompt": prompt, "response_a": completion or "", "response_b": row["reference"]}
            for prompt, completion, row in zip(prompts, said, self._rows, strict=True)
        ]
        found = [f for f in self._open().compare_many(rows) if f.status != "abstained"]
        rate = sum(map(_points, found)) / len(found) if found else float("nan")
        self.history.append((state.global_step, rate))
        state.log_history.append(
            {
                "win_rate": rate,
                "win_rate_p": sum(f.p_a for f in found) / len(found) if found else float("nan"),
                "win_rate_abstained": 1.0 - len(found) / len(rows),
                "step": state.global_step,
            }
        )


def _points(found: Comparison) -> float:
    return {"a": 1.0, "b": 0.0}.get(found.winner or "", 0.5)


def _messages(prompt: Any) -> list[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _speaks(completion: Any) -> bool:
    """Whether a completion says anything: it may be empty, or end with a tool's answer."""
    if isinstance(completion, str):
        return bool(completion.strip())
    return (
        bool(completion)
        and completion[-1]["role"] == "assistant"
        and any(m["content"].strip() for m in completion if m["role"] == "assistant")
    )


def _plain(value: Any) -> Any:
    """A text, or a conversation as plain dictionaries."""
    if isinstance(value, str):
        return value
    kept = ("tool_calls", "tool_call_id", "name", "reasoning_content")
    return [
        {"role": str(m["role"]), "content": parts_text(m.get("content"), "content")}
        | {key: m[key] for key in kept if m.get(key)}
        for m in value
    ]

"""Rewards where a prompt's completions lie on several processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.harness import judges
from rlaif.harness.trl_rewards import PairwiseReward

pytestmark = pytest.mark.slow

SCRIPT = """
import asyncio, json, sys
import torch
from rlaif.harness import judges
from rlaif.harness.trl_rewards import PairwiseReward

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
prompts, completions = json.load(open(sys.argv[1]))[rank]
values = PairwiseReward("demo", engine="packed", across_ranks=True)(prompts, completions)
# Two asynchronous rewards side by side, as GRPO runs them: ranks meet in one order.
async def both():
    rewards = [PairwiseReward("demo", engine="packed", across_ranks=True).asynchronous()
               for _ in range(2)]
    return await asyncio.gather(*(r(prompts=prompts, completions=completions) for r in rewards))
assert asyncio.run(both()) == [values, values]
json.dump([values, len(judges._OPEN)], open(f"{sys.argv[2]}/{rank}.json", "w"))
torch.distributed.destroy_process_group()
"""
KETTLE, LAMP = "How do I clean a small kettle?", "How do I clean a small lamp?"
WATER, RUDE = "Clean it with warm water.", "That is a silly question."


def test_groups_that_are_split_over_ranks_are_judged_whole(tmp_path: Path) -> None:
    """Three completions on one rank and two on the other; the first prompt's lie on both."""
    shares = [
        ([KETTLE, KETTLE, LAMP], [WATER, RUDE, ""]),
        ([KETTLE, LAMP], ["Thank you for asking. " + WATER, RUDE]),
    ]
    (tmp_path / "shares.json").write_text(json.dumps(shares))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc_per_node",
            "2",
            "--master_port",
            "29611",
            str(tmp_path / "script.py"),
            str(tmp_path / "shares.json"),
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [engines for _, engines in found] == [1, 0], "only rank 0 has a judge"
    prompts = [p for part, _ in shares for p in part]
    completions = [c for _, part in shares for c in part]
    whole = PairwiseReward("demo", engine="packed")(prompts, completions)
    judges.close_all()
    assert found[0][0] + found[1][0] == pytest.approx(whole, abs=1e-5, nan_ok=True)
    assert whole[2] is None
    assert whole[4] is None, "its only rival has no verdict"
    assert sum(whole[i] for i in (0, 1, 3)) == pytest.approx(1.5, abs=1e-4)  # type: ignore[misc]

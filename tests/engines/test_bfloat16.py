"""Half precision against single: how far verdicts move, and that no clear one flips."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from tests.engines.test_packed import answers, demo_requests

pytestmark = pytest.mark.slow


def test_no_clear_verdict_flips_in_bfloat16(demo_judge: Engine) -> None:
    """The judge's weights rounded to bfloat16, with a float32 head, on the packed engine."""
    asked = demo_requests(demo_judge, 12)
    exact = answers(demo_judge, asked)
    rounded = answers(
        create_engine(EngineSettings(engine="packed", model="demo", dtype="bfloat16")), asked
    )
    moved = []
    for name, (a, b) in exact.items():
        p, q = (1 / (1 + math.exp(y - x)) for x, y in ((a, b), rounded[name]))
        moved.append(abs(p - q))
        if abs(2 * p - 1) > 0.2:
            assert (p > 0.5) == (q > 0.5), name
    assert 0 < sum(moved) / len(moved) < 0.02


HEADS = """
import torch
from rlaif.engines.base import (EngineSettings)
from rlaif.engines.registry import (create_engine)
settings = EngineSettings(engine="vllm", model="demo", dtype="bfloat16", kv_cache_gib=0.25)
exact = create_engine(settings)
from vllm.config import ModelConfig
ModelConfig.head_dtype = property(lambda self: torch.bfloat16)
print("stepped")
print(create_engine(settings).fingerprint != exact.fingerprint)
"""


def test_a_head_in_half_precision_is_said_and_is_another_judge() -> None:
    """As vLLM 0.25 has it, which gives a float32 head to pooling models only."""
    done = subprocess.run(
        [sys.executable, "-c", HEADS],
        text=True,
        timeout=400,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    before, after = done.stdout.split("stepped")
    assert "half precision" not in before, done.stdout
    assert "half precision" in after
    assert "True" in after

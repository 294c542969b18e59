"""What the tests of mixes share."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import datasets
import pytest

from rlaif.cli.main import main
from rlaif.data.licensing import load_licenses
from rlaif.mixing.mix import mix
from rlaif.mixing.report import MixReport
from rlaif.mixing.settings import MixPart, MixPlan, MixSettings, Quota
from tests.generation.helpers import write_rows

WORDS = [f"word{i}" for i in range(3000)]
HUMAN = {"kind": "human", "depth": 0}
PEOPLE: dict[str, Any] = {"human_written": True, "human_labeled": True}


def text(rng: random.Random, length: int = 30) -> str:
    return " ".join(rng.choices(WORDS, k=length))


def pairs(path: Path, count: int, seed: int, **more: Any) -> str:
    rng = random.Random(seed)
    return write_rows(
        path,
        [
            {"prompt": text(rng), "chosen": text(rng), "rejected": text(rng), **more}
            for _ in range(count)
        ],
    )


def mixed(
    out: Path,
    parts: list[MixPart],
    *,
    quotas: list[Quota] | None = None,
    evaluations: list[str] | None = None,
    **settings: Any,
) -> tuple[MixReport, Any]:
    plan = MixPlan(
        parts=parts,
        quotas=quotas or [],
        evaluations=evaluations or [],
        settings=MixSettings(**settings),
    )
    report, _ = mix(plan, out, load_licenses())
    return report, datasets.load_dataset(str(out), split="train", cache_dir=str(out / ".cache"))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["rlaif", *words])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)

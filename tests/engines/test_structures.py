"""No engine answers wrongly for a structure of published models: equal, or refused with a reason.

`docs/models.md` says which; `scripts/measure_structures.py --write docs/models.md` makes it.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlaif.engines.masked_attention import attend_masked
from rlaif.engines.tree_attention import pack

ROOT = Path(__file__).parents[2]


def load_script() -> ModuleType:
    path = ROOT / "scripts" / "measure_structures.py"
    spec = importlib.util.spec_from_file_location("measure_structures", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # dataclasses look their module up
    spec.loader.exec_module(script)
    return script


script = load_script()


def told() -> dict[str, dict[str, str]]:
    """The table of the page: by structure, by column."""
    found: dict[str, dict[str, str]] = script.read_table(ROOT / "docs" / "models.md")
    return found


def test_the_page_tells_of_every_structure() -> None:
    page = told()
    assert list(page) == list(script.STRUCTURES)
    for name, row in page.items():
        assert row["models"] == script.STRUCTURES[name].models
        assert "WRONG" not in row.values()


@pytest.mark.slow
@pytest.mark.parametrize("name", script.STRUCTURES)
def test_answers_are_equal_or_refused_as_the_page_says(name: str, tmp_path: Path) -> None:
    script.build(name, tmp_path)
    row = told()[name]
    for column in ("transformers float32", "packed float32", "packed bfloat16"):
        found = script.ask(tmp_path, *column.split(), name)
        assert found.kind == row[column], (column, found)
        if found.kind != "equal":
            assert len(found.detail) > 20


@pytest.mark.slow
def test_vllm_keeps_caps_and_windows(tmp_path: Path) -> None:
    script.build("gemma2", tmp_path)
    assert script.ask(tmp_path, "vllm", "float32").kind == "equal"


def dense(
    query: Any, key: Any, value: Any, prompt: list[int], index: list[int], **own: Any
) -> torch.Tensor:
    """Attention of one prompt's tokens alone, computed head by head."""
    heads, groups = query.shape[1], query.shape[1] // key.shape[1]
    q, k, v = (part[:, :, index] for part in (query, key, value))
    out = torch.empty(len(prompt), heads, value.shape[3])
    for head in range(heads):
        logits = q[0, head] @ k[0, head // groups].T * own["scaling"]
        if own["softcap"]:
            logits = own["softcap"] * torch.tanh(logits / own["softcap"])
        for i in range(len(prompt)):
            low = 0 if own["window"] is None else max(0, i - own["window"] + 1)
            row = logits[i, low : i + 1]
            if own["sinks"] is not None:
                row = torch.cat((row, own["sinks"][head : head + 1]))
            weights = row.softmax(0)[: i + 1 - low]
            out[i, head] = weights @ v[0, head // groups, low : i + 1]
    return out


@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("past", [0, 4])
def test_masked_attention_is_that_of_every_prompt_alone(
    window: int | None, softcap: float | None, sinks: bool, past: int
) -> None:
    draw = torch.Generator().manual_seed(2)
    prompts = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 8], [1, 2, 3, 4, 9, 9, 9, 9, 9], [7, 7]]
    forest = pack([(p, n) for p, n in zip(prompts, (0, 5, 4, 0), strict=True)])
    total = len(forest.tokens)
    query = torch.randn(1, 4, total, 8, generator=draw)
    key = torch.randn(1, 2, total, 8, generator=draw)
    value = torch.randn(1, 2, total, 6, generator=draw)
    own = {
        "scaling": 0.7,
        "window": window,
        "softcap": softcap,
        "sinks": torch.randn(4, generator=draw) if sinks else None,
    }
    found = attend_masked(
        query[:, :, past:],
        key,
        value,
        ends=torch.tensor(forest.ends),
        positions=torch.tensor(forest.positions),
        **own,
    )
    assert found.shape == (1, total - past, 4, 6)
    for prompt in prompts:
        index: list[int] = []
        for seen, token in enumerate(prompt):  # down the tree: the child that is this token
            index.append(
                next(
                    i
                    for i in range(total)
                    if forest.tokens[i] == token
                    and forest.positions[i] == seen
                    and (not index or index[-1] < i < forest.ends[index[-1]])
                )
            )
        expected = dense(query, key, value, prompt, index, **own)
        for n, i in enumerate(index):
            if i >= past:
                torch.testing.assert_close(found[0, i - past], expected[n], atol=1e-5, rtol=1e-5)


def test_reasons_are_said_without_code() -> None:
    """No refusal on the page of reasons speaks in stack traces."""
    page = (ROOT / "docs" / "models.md").read_text()
    assert not re.search(r"Traceback|object has no attribute", page)

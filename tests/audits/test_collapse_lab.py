"""The laboratory in `scripts/collapse` against theory, on the parts that take seconds."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] == "collapse"]:
        del sys.modules[name]


def test_regression_follows_theory() -> None:
    """Replacing adds the first error once a generation; accumulating adds 1 / k^2 of it."""
    from collapse.regression import regression

    replaced, accumulated = (regression(way, 200, 10) for way in ("replace", "accumulate"))
    k = np.arange(1, 11)
    assert replaced.errors == pytest.approx(list(k), rel=0.12)
    # A little less than the sum of 1 / k^2: each fit also sees more data than features take.
    assert accumulated.errors == pytest.approx(list(np.cumsum(1 / k**2)), rel=0.12)
    assert replaced.r2 > 0.95
    assert max(accumulated.errors) < np.pi**2 / 6


def test_a_quota_holds_a_group_that_drifts_without_it() -> None:
    from collapse.quota import GROUP, shares

    held, drifting = shares("quota", 3, 4), shares("none", 3, 4)
    assert max(abs(share - GROUP) for share in held) < 0.01
    assert drifting[-1] < 0.04


def test_preference_loops_narrow_by_what_the_judge_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round by hand: a text of reward r wins against another with sigmoid(r - r')."""
    from collapse import preferences

    class Fine:
        tripped = ()

    monkeypatch.setattr(preferences, "audit", lambda *_: Fine())
    monkeypatch.setattr(preferences, "DRAWN", 200_000)
    found = preferences.loop(0.0, 5, 1)
    reward = np.random.default_rng(5).normal(0, 1, preferences.MODES)
    wins = 1 / (1 + np.exp(reward[None, :] - reward[:, None]))
    expected = 2 * wins.mean(axis=1) / preferences.MODES
    expected /= expected.sum()
    support = np.exp(-(expected * np.log(expected)).sum()) / preferences.MODES
    assert found.support[0] == pytest.approx(support, abs=0.01)
    assert preferences.loop(0.5, 5, 3).support[-1] > preferences.loop(0.0, 5, 3).support[-1]


def test_the_language_models_are_measured_as_they_are(tmp_path: Path) -> None:
    from collapse import language

    _, human, held_out, more = language.parts(0)
    rows = {tuple(block.tolist()) for part in (human, held_out, more) for block in part}
    # The documentation says some things twice; apart from that no block is in two parts.
    assert len(rows) >= len(human) + len(held_out) + len(more) - 5
    model = language.train(human[:48], 1)
    few = held_out[:5]
    with torch.no_grad():
        logits = model(input_ids=few).logits[:, :-1].double()
    own = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), few[:, 1:].reshape(-1)
    )
    assert language.perplexity(model, few) == pytest.approx(float(own.exp()), rel=1e-4)
    written = language.sample(model, 3, 7)
    assert written.shape == (3, language.BLOCK)
    assert torch.equal(written, language.sample(model, 3, 7))


def test_plots_are_svg(tmp_path: Path) -> None:
    from collapse.plots import curves

    curves(tmp_path / "p.svg", "a < b", "x", "y & z", {"one": [1, 2, 3], "two": [3.0, 0.5]})
    root = ET.fromstring((tmp_path / "p.svg").read_text())
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 2]

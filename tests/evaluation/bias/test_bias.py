"""Planted biases are found with their size; none is found where none is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from rlaif.evaluation.bias.findings import corrected, mean_test
from rlaif.evaluation.bias.own_family import family, own_side, self_preference
from rlaif.evaluation.bias.report import bias_report, position_bias
from rlaif.evaluation.bias.style_bias import longer_wins, standardized_difference, style_biases
from rlaif.evaluation.outcomes import Outcomes, PrincipleOutcomes


@pytest.mark.parametrize("rate", [0.18, 0.21, 0.56])
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_planted_offset_is_recovered_with_its_direction(rate: float, direction: float) -> None:
    """PaLM 2 L, S and XS in Lee et al. 2023: the offset under which a judge with a spread of 2
    nats lets the same position win that often.
    """
    offset = direction * 2.0 * norm.ppf(0.5 + rate / 2)
    rng = np.random.default_rng(int(100 * rate))
    text = rng.normal(0.0, 2.0, 20_000)
    found = position_bias("p", offset + text, offset - text)
    assert found is not None
    assert abs(found.same_position - rate) < 0.015
    assert found.first == (1.0 if direction > 0 else 0.0)
    assert found.offset.value == pytest.approx(offset)
    (finding,) = corrected([found.offset])
    assert finding.flagged


def planted(
    rng: np.random.Generator, n: int, coefficient: float, noise: float = 0.5
) -> tuple[np.ndarray, ...]:
    """Log-odds of a judge that sees quality and, beside it, length; longer is often better."""
    quality = rng.normal(0, 1.5, n)
    length = 0.5 * quality + rng.normal(0, 1, n)
    length = length / np.sqrt(np.mean(length**2))
    label = np.where(rng.random(n) < 1 / (1 + np.exp(-quality)), 1, -1)
    return quality, length, label, quality + coefficient * length + rng.normal(0, noise, n)


@pytest.mark.parametrize("coefficient", [0.4, 0.8, -0.6])
def test_a_planted_length_coefficient_is_recovered(coefficient: float) -> None:
    rng = np.random.default_rng(11)
    length = rng.normal(0, 1, 6000)
    length /= np.sqrt(np.mean(length**2))
    label = np.where(rng.random(6000) < 0.5, 1, -1)
    log_odds = 1.2 * label + coefficient * length + rng.normal(0, 1.5, 6000)
    for given in (label, None):
        (found,) = style_biases(log_odds, {"length": length}, label=given)
        assert found.value == pytest.approx(coefficient, rel=0.10)
        assert (found.ends is None) == (given is None)
        assert found.low < coefficient < found.high
        assert found.association == (given is None)


@pytest.mark.parametrize("coefficient", [0.4, 0.8, -0.6])
def test_it_is_recovered_where_better_answers_are_longer_too(coefficient: float) -> None:
    """Quality and length correlate by 0.6; people follow quality, the judge adds the length."""
    rng = np.random.default_rng(3)
    _, length, label, log_odds = planted(rng, 60_000, coefficient, noise=0.0)
    (found,) = style_biases(log_odds, {"length": length}, label=label)
    assert found.ends is not None
    assert found.ends[0] == pytest.approx(coefficient, rel=0.10)
    assert found.ends[0] < coefficient + 0.02 < found.ends[1]
    # A dislike of what is really better is not named: noise would look the same.
    assert corrected([found])[0].flagged == (coefficient > 0)
    assert (found.value is None) == (coefficient < 0)


def test_labels_tell_a_bias_from_length_that_is_deserved() -> None:
    """A fair judge of data in which longer is better: an association, and little left with labels."""
    rng = np.random.default_rng(5)
    _, length, label, log_odds = planted(rng, 8000, 0.0, noise=0.0)
    (alone,) = style_biases(log_odds, {"length": length})
    (held,) = style_biases(log_odds, {"length": length}, label=label)
    assert alone.value is not None
    assert alone.value > 0.5
    assert "association" in alone.detail
    assert not corrected([alone])[0].flagged
    assert held.ends is not None
    assert abs(held.ends[0]) < 0.1
    flagged = 0
    for seed in range(200):
        _, length, label, log_odds = planted(np.random.default_rng(seed), 500, 0.0, noise=0.1)
        flagged += corrected(style_biases(log_odds, {"length": length}, label=label))[0].flagged
    assert flagged / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


def test_length_taken_out_leaves_what_would_be_judged_at_equal_length() -> None:
    rng = np.random.default_rng(2)
    quality, length = rng.normal(0, 1, 20_000), rng.normal(0, 1, 20_000)
    found = longer_wins(quality + 0.7 * length, length, 0.7)
    assert found.longer_wins > 0.65
    assert found.adjusted == pytest.approx(0.5, abs=0.01)


def simulated_self_preference(rng: np.random.Generator, n: int, planted: float) -> float:
    """p-value: people prefer the own side in half of the pairs, the judge agrees with four in five
    of them, and takes its own side in `planted` more.
    """
    own = np.where(rng.random(n) < 0.5, 1, -1)
    label = np.where(rng.random(n) < 0.5, 1, -1)
    winner = np.where(rng.random(n) < 0.8, label, -label)
    # Of those that it would give to the other side (half), twice the planted share is turned.
    turned = (winner != own) & (rng.random(n) < 2 * planted)
    winner = np.where(turned, own, winner)
    found = self_preference(winner, label, own, [str(i) for i in range(n)])
    assert found is not None
    return found.p


def test_a_self_preference_of_ten_points_is_found_with_power() -> None:
    found = [
        simulated_self_preference(np.random.default_rng(s), 800, 0.10) < 0.05 for s in range(300)
    ]
    assert np.mean(found) >= 0.8
    false = [
        simulated_self_preference(np.random.default_rng(s), 400, 0.0) < 0.05 for s in range(600)
    ]
    assert np.mean(false) <= 0.05 + 2 * (0.05 * 0.95 / 600) ** 0.5


@pytest.mark.parametrize("deserved", [0.3, 0.7])
def test_a_noisy_judge_has_no_self_preference_whichever_side_is_better(deserved: float) -> None:
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        own = np.where(rng.random(400) < 0.5, 1, -1)
        label = np.where(rng.random(400) < deserved, own, -own)
        winner = np.where(rng.random(400) < 0.8, label, -label)
        finding = self_preference(winner, label, own, [str(i) for i in range(400)])
        assert finding is not None
        found.append(finding.p < 0.05)
    assert np.mean(found) <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5


@pytest.mark.parametrize("better", [0.5, 1.0])
def test_a_family_that_really_is_better_is_no_self_preference(better: float) -> None:
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        own = np.where(rng.random(400) < 0.5, 1, -1)
        quality = better + rng.normal(0, 1, 400)
        label = np.where(rng.random(400) < 1 / (1 + np.exp(-2 * quality)), own, -own)
        winner = np.where(quality + rng.normal(0, 1, 400) > 0, own, -own)
        finding = self_preference(winner, label, own, [str(i) for i in range(400)])
        found.append(finding is not None and finding.p < 0.05)
    assert np.mean(found) <= 0.05


@pytest.mark.parametrize(("r", "noise"), [(0.5, 0.7), (0.8, 1.0)])
def test_a_noisy_judge_is_not_accused_where_style_and_quality_hang_together(
    r: float, noise: float
) -> None:
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = rng.normal(0, 1, 600)
        quality = r * x + rng.normal(0, 1, 600)
        label = np.where(rng.random(600) < 1 / (1 + np.exp(-1.5 * quality)), 1, -1)
        found += corrected(
            style_biases(quality + noise * rng.normal(0, 1, 600), {"length": x}, label=label)
        )
    assert np.mean([f.flagged for f in found]) <= 0.05


def noisy(
    rng: np.random.Generator, n: int, *, r: float, noise: float, bias: float, slope: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Length, people's labels, and the log-odds of a judge that sees quality through noise."""
    length = rng.normal(0, 1, n)
    quality = r * length + np.sqrt(1 - r * r) * rng.normal(0, 1, n)
    label = np.where(rng.random(n) < 1 / (1 + np.exp(-slope * quality)), 1, -1)
    seen = quality + noise * rng.normal(0, 1, n)
    return length, label, 1.5 * seen + bias * length


@pytest.mark.parametrize("r", [0.0, 0.5, 0.8, -0.6])
@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("bias", [0.0, 0.5, -0.5])
def test_the_two_answers_hold_the_truth_between_them(r: float, noise: float, bias: float) -> None:
    """The interval holds the planted bias in 95% of data sets, whatever length and quality have to
    do with each other; and a value is named only where a bias is.
    """
    held = named = right = measured = 0
    times = 60
    for seed in range(times):
        rng = np.random.default_rng(seed)
        length, label, log_odds = noisy(rng, 500, r=r, noise=noise, bias=bias, slope=2.0)
        told = style_biases(log_odds, {"length": length}, label=label)
        if not told:  # no clear link between verdicts and labels
            continue
        (found,) = told
        measured += 1
        assert found.ends is not None
        held += found.low <= bias <= found.high
        assert found.low <= found.ends[0] <= found.ends[1] <= found.high
        if corrected([found])[0].flagged:
            named += 1
            assert found.value is not None
            right += found.value * bias > 0
    assert measured >= 0.8 * times
    assert held / measured >= 0.95 - 2 * (0.05 * 0.95 / measured) ** 0.5
    if not bias:
        assert named / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5
    else:
        assert right == named
        assert named > times / 2 or r or noise > 1  # with nothing in the way, it is found


def test_a_judge_that_is_never_wrong_has_nothing_to_be_measured_by() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        quality = rng.normal(0, 1, 60)
        label = np.sign(quality).astype(int)
        found = style_biases(
            3 * quality + 0.3 * label, {"length": rng.normal(0, 1, 60)}, label=label
        )
        assert not any(f.flagged for f in corrected(found))


def fair(seed: int, n: int = 300) -> tuple[Outcomes, np.ndarray]:
    """A judge that follows quality alone, with its own family on one side of each pair."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(0, 2, n)
    noise = rng.normal(0, 0.5, (2, n))
    opinions = PrincipleOutcomes(
        ab=quality + noise[0],
        ba=quality + noise[1],
        asked=np.ones(n, dtype=bool),
        tier=1,
        weight=1.0,
        source="judge",
    )
    p = 1 / (1 + np.exp(-opinions.logits))
    label = np.where(rng.random(n) < 1 / (1 + np.exp(-quality)), 1, -1)
    own = rng.random(n) < 0.5
    outcomes = Outcomes(
        ids=[str(i) for i in range(n)],
        rows=np.arange(1, n + 1),
        p_a=p,
        winner=np.where(p > 0.5, 1, -1),
        status=["decided"] * n,
        principles={"only": opinions},
        origins=(
            ["Qwen/Qwen3-1B" if o else "llama" for o in own],
            ["llama" if o else "qwen2.5" for o in own],
        ),
        texts={
            name: (rng.poisson(9.0, n).astype(float), rng.poisson(9.0, n).astype(float))
            for name in ("length", "markdown", "assertive")
        },
        name="judge",
        judge="Qwen/Qwen3-8B",
    )
    return outcomes, label


def test_no_bias_is_reported_where_there_is_none() -> None:
    """Any flag at all, over position, three styles and self-preference: 5% + 2 SE."""
    times = 200
    flagged = 0
    for seed in range(times):
        outcomes, label = fair(seed)
        report = bias_report(outcomes, label=label, groups=outcomes.ids)
        assert len(report.findings) == 5
        flagged += any(f.flagged for f in report.findings)
    assert flagged / times <= 0.05 + 2 * (0.05 * 0.95 / times) ** 0.5


def test_self_preference_is_pointed_out_without_labels() -> None:
    outcomes, _ = fair(1)
    report = bias_report(outcomes)
    assert any("own model family (qwen)" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zai-org/chatglm3-6b", "glm"),
        ("Qwen/Qwen3-8B", "qwen"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama"),
        ("mistralai/Mixtral-8x7B", "mistral"),
        ("gpt-4o-mini", "gpt"),
        ("runs/my-policy/", "my-policy"),
        ("qwen2.5:7b", "qwen"),
        ("codellama/CodeLlama-7b-hf", "llama"),
        ("Qwen/QwQ-32B", "qwen"),
        ("/models/Qwen3-8B/snapshots/0123456789abcdef", "qwen"),
        ("EleutherAI/gpt-j-6b", "eleuther"),
        ("mistralai/Ministral-8B", "mistral"),
    ],
)
def test_families(name: str, expected: str) -> None:
    assert family(name) == expected
    assert list(own_side([name], ([name, "other", name], ["other", name, name]))) == [1, -1, 0]


def test_differences_that_do_not_vary_are_left_out() -> None:
    assert not standardized_difference(np.ones(5), np.ones(5)).any()
    assert style_biases(np.ones(50), {"length": np.zeros(50)}) == []


def test_a_panel_s_own_families_are_those_of_its_members() -> None:
    origins = (["Qwen/Qwen3-8B", "gpt-5", "gpt-5"], ["gpt-5", "google/gemma-3-4b-it", "gpt-4o"])
    judges = ("Qwen/Qwen3-32B", "google/gemma-3-27b-it")
    assert list(own_side(judges, origins)) == [1, -1, 0]


@pytest.mark.parametrize("sizes", [[45] + [1] * 40, [28] + [3] * 11, [20] * 12])
def test_one_large_prompt_among_small_ones_raises_no_alarm(sizes: list[int]) -> None:
    """Offsets by prompt of mean 0: the test of position says otherwise in 5% at most (+ 2 SE)."""
    alarms = 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        offsets = np.repeat(rng.normal(0, 1, len(sizes)), sizes) + rng.normal(0, 1, sum(sizes))
        alarms += (
            mean_test(offsets, [str(k) for k in np.repeat(np.arange(len(sizes)), sizes)])[3] < 0.05
        )
    assert alarms / 500 <= 0.05 + 2 * (0.05 * 0.95 / 500) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 20, 60])
@pytest.mark.parametrize("world", ["exponential", "mirrored", "skewed", "normal"])
def test_a_skewed_sample_finds_nothing_where_nothing_is(world: str, count: int) -> None:
    """Against the t-test, which is off in these worlds, and with the interval that goes with p."""
    rng = np.random.default_rng(count)
    draw = {
        "exponential": lambda: rng.exponential(1.0, count) - 1.0,
        "mirrored": lambda: 1.0 - rng.exponential(1.0, count),
        "skewed": lambda: rng.beta(0.5, 4.0, count) - 0.5 / 4.5,
        "normal": lambda: rng.normal(0.0, 1.0, count),
    }[world]
    found = plain = 0
    for _ in range(1500):
        values = draw()
        mean, low, high, p = mean_test(values)
        assert (p < 0.05) == (low > 0.0 or high < 0.0)
        assert low <= mean <= high
        found += p < 0.05
        plain += ttest_1samp(values, 0.0).pvalue < 0.05
    assert found / 1500 <= 0.05 + 2 * (0.05 * 0.95 / 1500) ** 0.5 + (0.02 if count == 8 else 0.0)
    if world != "normal" and count <= 20:
        assert plain / 1500 > 0.07, "the t-test alone"


def test_a_symmetric_sample_has_its_t_test() -> None:
    values = np.array([-1.0, 0.0, 1.0, 2.0, 3.0])
    mean, low, high, p = mean_test(values)
    expected = ttest_1samp(values, 0.0)
    assert p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (mean, low, high) == pytest.approx((1.0, interval.low, interval.high))

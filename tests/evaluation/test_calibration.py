"""Calibration on planted overconfidence, and thresholds that keep their promise."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binom

from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from rlaif.evaluation.fit_calibration import (
    TooFewLabels,
    applied,
    calibrate,
    cross_validated,
    doubt_of,
    fit_calibration,
    independent_pairs,
)
from rlaif.evaluation.outcomes import Outcomes, PrincipleOutcomes
from rlaif.evaluation.stats.reliability import ece
from rlaif.judging.calibration import Calibration, calibrated
from rlaif.judging.panel import measure_dissent
from rlaif.judging.selective import certify, least_pairs, missing_labels, upper_bound
from rlaif.records import Preference


def overconfident(rng: np.random.Generator, n: int, factor: float = 3.0) -> tuple[Any, Any]:
    """Confidence with log-odds `factor` times too large, and whether people agree."""
    true = np.abs(rng.normal(0, 1.2, n))
    right = (rng.random(n) < 1 / (1 + np.exp(-true))).astype(float)
    return 1 / (1 + np.exp(-factor * true)), right


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_250_labels_halve_the_error_on_held_out_pairs(method: Any) -> None:
    """In each of 20 draws; temperature is recovered."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        confidence, right = overconfident(rng, 250)
        found = fit_calibration(confidence, right, method)
        new_confidence, new_right = overconfident(rng, 20_000)
        before, after = (
            ece(new_confidence, new_right),
            ece(applied(found, new_confidence), new_right),
        )
        assert after < before / 2
        if method == "temperature":
            assert 1.8 < found.temperature < 6.0


def test_isotonic_follows_a_curve_that_no_temperature_fits() -> None:
    rng = np.random.default_rng(4)
    confidence = rng.uniform(0.5, 1, 3000)
    truth = np.where(confidence < 0.8, 0.55, 0.9)
    right = (rng.random(3000) < truth).astype(float)
    held_out = {
        m: cross_validated(confidence, right, list(map(str, range(3000))), m)  # type: ignore[arg-type]
        for m in ("temperature", "isotonic")
    }
    assert ece(held_out["isotonic"], right) < 0.5 * ece(held_out["temperature"], right)


def test_no_decision_changes_and_swapping_swaps() -> None:
    for found in (
        Calibration(temperature=3.0),
        Calibration(method="platt", slope=0.5, intercept=-3.0),
        Calibration(method="isotonic", knots=[(0.5, 0.6), (1.0, 0.7)]),
        Calibration(method="features", slope=0.5, features={"no_clear_tier": -2.0}),
    ):
        for p in (0.51, 0.7, 0.999999, 1.0):
            one = calibrated(
                Preference(status="decided", winner="a", p_a=p, margin=2 * p - 1, scores=()), found
            )
            two = calibrated(
                Preference(status="decided", winner="b", p_a=1 - p, margin=2 * p - 1, scores=()),
                found,
            )
            assert (one.winner, two.winner) == ("a", "b")
            assert one.p_a == pytest.approx(1 - two.p_a)
            assert one.p_a >= 0.5
            assert one.margin == pytest.approx(2 * one.p_a - 1)
    tie = Preference(status="tie", winner=None, p_a=0.51, margin=0.02, scores=())
    assert calibrated(tie, Calibration(temperature=3.0), 0.9) is tie


def test_a_threshold_from_rows_keeps_the_pairs_that_it_was_found_on() -> None:
    """Rows hold five decimals: 2/3 stands there as 0.66667, and certainty as 1."""
    for p in (2 / 3, 0.9999977, 0.123456):
        kept = Preference(
            status="decided",
            winner="a" if p > 0.5 else "b",
            p_a=p,
            margin=abs(2 * p - 1),
            scores=(),
        )
        threshold = round(max(p, 1 - p), 5)
        assert calibrated(kept, None, threshold).status == "decided"
        assert calibrated(kept, None, threshold + 1e-4).status == "abstained"


def test_temperature_is_a_division_of_log_odds() -> None:
    found = Calibration(temperature=2.0).apply(0.9)
    assert math.log(found / (1 - found)) == pytest.approx(math.log(9) / 2)


@pytest.mark.parametrize(("n", "method"), [(49, "temperature"), (99, "platt"), (299, "isotonic")])
def test_too_few_labels_are_refused(n: int, method: Any) -> None:
    confidence, right = overconfident(np.random.default_rng(0), n)
    with pytest.raises(
        TooFewLabels, match=f"{n} decided pairs have labels; {method} needs {n + 1}"
    ):
        fit_calibration(confidence, right, method)
    with pytest.raises(TooFewLabels, match="one-sided"):
        fit_calibration(np.full(400, 0.9), np.ones(400), method)


def test_upper_bound_is_exact() -> None:
    for errors, n in ((0, 20), (3, 40), (11, 90)):
        bound = upper_bound(errors, n, 0.05)
        assert binom.cdf(errors, n, bound) == pytest.approx(0.05)
    assert upper_bound(5, 5, 0.05) == upper_bound(0, 0, 0.05) == 1.0


def test_the_promise_is_kept() -> None:
    """1,000 calibrations of 500 labels: the population's agreement above the threshold misses
    0.85 no more often than delta plus two standard errors; and most certify.
    """
    population = np.random.default_rng(99)
    true = np.abs(population.normal(0, 1.4, 400_000))
    risk = 1 - 1 / (1 + np.exp(-true))
    order = np.argsort(-true)
    risk_above = np.cumsum(risk[order]) / np.arange(1, len(true) + 1)
    sorted_true = -true[order]
    missed = certified = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        strength = np.abs(rng.normal(0, 1.4, 500))
        right = (rng.random(500) < 1 / (1 + np.exp(-strength))).astype(float)
        found = certify(1 / (1 + np.exp(-3 * strength)), right, target=0.85, delta=0.05)
        if found.threshold is None:
            continue
        certified += 1
        least = math.log(found.threshold / (1 - found.threshold)) / 3
        kept = int(np.searchsorted(sorted_true, -least, side="right"))
        missed += risk_above[kept - 1] > 0.15
    assert missed / 1000 <= 0.05 + 2 * (0.05 * 0.95 / 1000) ** 0.5
    assert certified > 600


@pytest.mark.slow
def test_a_judge_whose_confidence_means_nothing_is_certified_by_all_of_its_pairs() -> None:
    """Its surest pairs are as good as the others: bad luck there must not end the search.  And
    the promise holds at the edge: a judge a hair below the target passes in at most delta.
    """
    certified = {}
    for agreement in (0.9199, 0.8499):
        found = []
        for seed in range(400):
            rng = np.random.default_rng(seed)
            right = (rng.random(500) < agreement).astype(float)
            found.append(certify(rng.uniform(0.5, 1, 500), right, target=0.85))
        certified[agreement] = sum(f.threshold is not None for f in found)
        assert all(f.bound >= 0.85 for f in found if f.threshold is not None)
    assert certified[0.9199] >= 380
    assert certified[0.8499] <= 400 * (0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5)


def test_the_labels_that_are_said_to_be_missing_certify_more_often_than_not() -> None:
    """Advised from samples of 100 labels of which 92 agree, then tried on fresh ones that large."""
    shares = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        confidence, right = rng.uniform(0.5, 1, 100), (np.arange(100) >= 8).astype(float)
        rng.shuffle(right)
        if certify(confidence, right, target=0.85).threshold is not None:
            continue
        missing = missing_labels(confidence, right, target=0.85)
        assert missing is not None
        size, certified = 100 + missing, 0
        for fresh_seed in range(100, 150):
            fresh = np.random.default_rng(fresh_seed)
            drawn = certify(
                fresh.uniform(0.5, 1, size), (fresh.random(size) < 0.92).astype(float), target=0.85
            )
            certified += drawn.threshold is not None
        shares.append(certified / 50)
    assert len(shares) >= 3
    assert min(shares) > 0.5


def test_what_can_not_be_certified_says_what_is_missing() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 60)
    good = (np.arange(60) % 10 > 0).astype(float)
    assert certify(confidence, good, target=0.85).threshold is None
    missing = missing_labels(confidence, good, target=0.85)
    assert missing is not None
    assert 20 < missing < 3000
    hopeless = (np.arange(60) % 2).astype(float)
    assert certify(confidence, hopeless, target=0.85).threshold is None
    assert missing_labels(confidence, hopeless, target=0.85) is None
    n = least_pairs(0.85, 0.05)
    assert upper_bound(2, n, 0.05) <= 0.15 < upper_bound(2, n - 1, 0.05)


def test_principles_get_temperatures_where_that_holds_on_held_out_pairs() -> None:
    """One principle decides what people prefer; another is loud and says nothing."""
    rng = np.random.default_rng(3)
    n = 1500
    true, noise = rng.normal(0, 1.5, n), rng.normal(0, 4.0, n)
    label = np.where(rng.random(n) < 1 / (1 + np.exp(-true)), 1, -1)
    yes = np.ones(n, dtype=bool)
    principles = {
        "good": PrincipleOutcomes(ab=true, ba=true, asked=yes, tier=1, weight=1.0, source="judge"),
        "loud": PrincipleOutcomes(
            ab=noise, ba=noise, asked=yes, tier=1, weight=1.0, source="judge"
        ),
    }
    from rlaif.judging.aggregation import AggregationSettings, aggregate

    empty = Outcomes(
        ids=[str(i) for i in range(n)],
        rows=np.arange(n),
        p_a=np.zeros(n),
        winner=np.zeros(n, dtype=int),
        status=["decided"] * n,
        principles=principles,
        origins=([""] * n, [""] * n),
    )
    folds = [aggregate(empty.scores(i), AggregationSettings()) for i in range(n)]
    outcomes = Outcomes(
        ids=empty.ids,
        rows=empty.rows,
        p_a=np.array([f.p_a for f in folds]),
        winner=np.array([{"a": 1, "b": -1}.get(f.winner or "", 0) for f in folds]),
        status=[f.status for f in folds],
        principles=principles,
        origins=empty.origins,
    )
    found = calibrate(outcomes, label, outcomes.ids, per_principle=True)
    assert found.principles["loud"] > 5 * found.principles["good"]
    losses = found.measured
    assert losses["with principles (held out)"]["log_loss"] < losses["after (held out)"]["log_loss"]
    alone = calibrate(outcomes, label, outcomes.ids)
    assert alone.principles == {}
    # A certificate rests on one pair of each prompt.
    assert len(alone.points) == n
    assert len(calibrate(outcomes, label, [str(i % 300) for i in range(n)]).points) == 300
    with pytest.raises(TooFewLabels, match="labels cover 1 prompts"):
        calibrate(outcomes, label, ["one"] * n)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_from_run_to_calibrated_labels(tmp_path: Path) -> None:
    """Labels by id of an overconfident judge; then probabilities, threshold and manifest."""
    from tests.labeling.helpers import label as label_run

    (tmp_path / "c.yaml").write_text(
        'schema: 1\nname: c\nversion: "1"\nprinciples:\n  - {id: p, preference: "Which response?"}\n'
    )
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(
            json.dumps(
                {
                    "id": f"n{i}",
                    "prompt": f"q {i * i}",
                    "response_a": "x" * (i % 7) + str(i**5),
                    "response_b": "y" * (i % 11) + str(i**3),
                }
            )
            + "\n"
            for i in range(3, 403)
        )
    )
    label_run(data, tmp_path / "c.yaml", tmp_path / "run")
    rng = np.random.default_rng(0)
    lines, expected = [], {}
    for row in rows(tmp_path / "run" / "preferences.jsonl"):
        p, evidence = row["p_chosen"], row["provenance"]
        z = math.log(p / (1 - p)) / 2.5  # people are less sure than the judge says
        agrees = rng.random() < 1 / (1 + math.exp(-z))
        other = {"a": "b", "b": "a"}[evidence["winner"]]
        expected[evidence["id"]] = p
        if len(lines) % 2:
            lines.append({"id": evidence["id"], "label": evidence["winner"] if agrees else other})
        else:
            chosen, rejected = ("chosen", "rejected") if agrees else ("rejected", "chosen")
            lines.append(
                {"prompt": row["prompt"], "chosen": row[chosen], "rejected": row[rejected]}
            )
    human = tmp_path / "human.jsonl"
    human.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = CliRunner().invoke(
        cli,
        ["calibrate", str(tmp_path / "run"), "--human-labels", str(human), "--json"],
        catch_exceptions=False,
    )
    found = json.loads(done.stdout)
    assert found["labels"] == len(lines)
    assert 1.7 < found["temperature"] < 4.0
    path = str(tmp_path / "run" / "calibration.json")
    label_run(
        data, tmp_path / "c.yaml", tmp_path / "new", calibration=path, cache=tmp_path / "run.sqlite"
    )
    after = rows(tmp_path / "new" / "preferences.jsonl")
    assert len(after) == len(expected)
    for row in after:
        p = expected[row["provenance"]["id"]]
        z = math.log(p / (1 - p)) / found["temperature"]
        assert row["p_chosen"] == pytest.approx(1 / (1 + math.exp(-z)), abs=1e-4)
        assert row["provenance"]["calibration"]
    # The same calibration behind the Python API (and the server).
    from rlaif import Judge

    some = {row["provenance"]["id"]: row for row in after}["n7"]
    given = json.loads(data.read_text().splitlines()[4])
    assert given["id"] == "n7"
    with Judge(
        tmp_path / "c.yaml",
        "hashed",
        engine="scripted",
        template="pairwise",
        pointwise="anchored",
        calibration=path,
        cache_dir=tmp_path / "api",
    ) as judge:
        said = judge.compare(given["prompt"], given["response_a"], given["response_b"])
    assert max(said.p_a, 1 - said.p_a) == pytest.approx(some["p_chosen"], abs=2e-5)
    label_run(
        data,
        tmp_path / "c.yaml",
        tmp_path / "sure",
        calibration=path,
        agreement_target=0.6,
        cache=tmp_path / "run.sqlite",
    )
    manifest = json.loads((tmp_path / "sure" / "manifest.json").read_text())
    promise = manifest["config"]["agreement"]
    assert promise["certified"] >= 0.6
    kept = {row["provenance"]["id"] for row in rows(tmp_path / "sure" / "preferences.jsonl")}
    assert kept == {name for name, p in expected.items() if p >= promise["threshold"] - 1e-5}
    assert 0 < len(kept) < len(expected)
    # The labels are of pairs like these.
    same = manifest["agreement_carries_over"]
    assert same["carries_over"]
    assert same["confidence_here"] == pytest.approx(same["confidence_of_labels"], abs=0.02)
    # Labels of pairs on which the judge was less sure are not, and the run says so.
    told = json.loads(Path(path).read_text())
    told["points"] = [[1 / (1 + ((1 - c) / c) ** 0.4), right] for c, right in told["points"]]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(told))
    summary = label_run(
        data,
        tmp_path / "c.yaml",
        tmp_path / "shifted",
        calibration=str(other),
        agreement_target=0.6,
        cache=tmp_path / "run.sqlite",
    )
    apart = summary.manifest["agreement_carries_over"]
    assert not apart["carries_over"]
    assert apart["confidence_here"] > apart["confidence_of_labels"] + 0.05
    shown = CliRunner().invoke(
        cli,
        [
            *("label", str(data), "-c", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "shifted")),
            *("--config", str(tmp_path / "shifted" / "run.yaml")),
        ],
        catch_exceptions=False,
    )
    assert "it does not carry over" in shown.output
    with pytest.raises(
        RlaifError, match=r"can't be certified from 40\d? labels|can't be certified"
    ):
        label_run(
            data, tmp_path / "c.yaml", tmp_path / "no", calibration=path, agreement_target=0.999
        )
    (tmp_path / "c.yaml").write_text(
        'schema: 1\nname: c\nversion: "2"\nprinciples:\n  - {id: p, preference: "Which other response?"}\n'
    )
    with pytest.raises(RlaifError, match="was fitted for a different constitution"):
        label_run(data, tmp_path / "c.yaml", tmp_path / "no", calibration=path)
    with pytest.raises(RlaifError, match="--agreement-target needs a calibration"):
        label_run(data, tmp_path / "c.yaml", tmp_path / "no", agreement_target=0.9)


def test_every_pair_has_the_same_chance_to_stand_in_a_certificate() -> None:
    """Prompts of one pair and of four: pairs of both kinds are taken equally often, one a prompt."""
    groups = [f"many{k // 4}" for k in range(400)] + [f"one{k}" for k in range(400)]
    taken = independent_pairs(groups)
    names = [groups[k] for k in taken]
    assert len(set(names)) == len(names)
    many = sum(name.startswith("many") for name in names)
    assert many == 100  # the largest prompts all give one
    # One of four of the small ones: 100 of 400, as of the others.
    assert abs((len(taken) - many) - 100) < 3 * (400 * 0.25 * 0.75) ** 0.5
    assert taken == independent_pairs(groups)
    assert independent_pairs(list(map(str, range(50)))) == list(range(50))


def judged(
    rng: np.random.Generator, n: int, *, contradicting: float, factor: float
) -> tuple[Outcomes, np.ndarray]:
    """A judge of one principle whose orders contradict each other on a share of the pairs, where
    its confidence says nothing; elsewhere its log-odds are `factor` times too large.
    """
    true = rng.normal(0, 1.5, n)
    lost = rng.random(n) < contradicting
    label = np.where(rng.random(n) < 1 / (1 + np.exp(-np.where(lost, 0.0, true))), 1, -1)
    ab, ba = factor * true, factor * true
    strong = np.sign(true) * rng.uniform(4, 9, n)
    ab = np.where(lost, strong, ab)
    ba = np.where(lost, -0.3 * strong, ba)
    opinions = PrincipleOutcomes(
        ab=ab, ba=ba, asked=np.ones(n, dtype=bool), tier=1, weight=1.0, source="judge"
    )
    p = 1 / (1 + np.exp(-opinions.logits))
    margin = np.abs(2 * p - 1)
    outcomes = Outcomes(
        ids=[str(i) for i in range(n)],
        rows=np.arange(1, n + 1),
        p_a=p,
        winner=np.where(margin < 0.05, 0, np.where(p > 0.5, 1, -1)),
        status=["tie" if m < 0.05 else "decided" for m in margin],
        principles={"only": opinions},
        origins=([""] * n, [""] * n),
    )
    return outcomes, label


@pytest.mark.slow
def test_contradicting_orders_are_doubted_where_people_say_so() -> None:
    """Pairs with confident orders that contradict each other are right by chance: one temperature
    for all calls them sure; with features they come out even, and the others as they are.
    """
    for seed in range(5):
        rng = np.random.default_rng(seed)
        outcomes, label = judged(rng, 800, contradicting=0.25, factor=1.0)
        new, new_label = judged(rng, 8000, contradicting=0.25, factor=1.0)
        groups = [str(i) for i in range(800)]
        use = new.winner != 0
        right = (new.winner == new_label)[use].astype(float)
        doubt = doubt_of([new.aggregated(int(i)) for i in np.flatnonzero(use)])
        lost = doubt[:, 0] > 0
        assert 0.15 < lost.mean() < 0.35
        apart = {}
        for method in ("temperature", "features"):
            found = calibrate(outcomes, label, groups, method=method)  # type: ignore[arg-type]
            p = applied(found, new.confidence[use], doubt)
            apart[method] = (ece(p[lost], right[lost]), ece(p[~lost], right[~lost]))
        assert found.features["contradicting_orders"] < -0.5
        assert apart["features"][1] < 0.06
        assert apart["features"][0] < 0.1 < 0.15 < apart["temperature"][0]


@pytest.mark.slow
def test_what_makes_held_out_labels_less_likely_is_not_taken() -> None:
    """Judges that mean what they say, and few labels: some fits are worse than none."""
    left_alone = 0
    for seed in range(40):
        outcomes, label = judged(np.random.default_rng(seed), 120, contradicting=0.0, factor=1.0)
        found = calibrate(outcomes, label, [str(i) for i in range(120)], method="platt")
        before, after = (
            found.measured[name]["log_loss_of_all"] for name in ("before", "after (held out)")
        )
        if after > before:
            left_alone += 1
            assert (found.method, found.temperature) == ("temperature", 1.0)
            assert found.apply(0.8) == pytest.approx(0.8)
            assert found.points
        else:
            assert found.method == "platt"
    assert 5 < left_alone < 40


@pytest.mark.slow
def test_intervals_of_temperature_and_error_hold_the_truth() -> None:
    """60 draws of 300 labels in 100 prompts: the planted temperature, and what a perfect judge
    shows.
    """
    held = perfect = seen = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        outcomes, label = judged(rng, 300, contradicting=0.0, factor=2.0)
        groups = [str(k // 3) for k in range(300)]
        found = calibrate(outcomes, label, groups)
        low, high = found.intervals["temperature"]
        assert low <= found.temperature <= high
        held += low <= 2.0 <= high
        least, most = found.intervals["ece of a perfect judge"]
        seen += found.measured["before"]["ece"] > most  # twice too sure: it shows
        fair, fair_label = judged(rng, 300, contradicting=0.0, factor=1.0)
        told = calibrate(fair, fair_label, groups)
        least, most = told.intervals["ece of a perfect judge"]
        perfect += least <= told.measured["before"]["ece"] <= most
    assert held / 60 >= 0.95 - 2 * (0.05 * 0.95 / 60) ** 0.5
    assert perfect / 60 >= 0.95 - 2 * (0.05 * 0.95 / 60) ** 0.5
    assert seen / 60 > 0.8


def two_principles(seed: int) -> tuple[Outcomes, np.ndarray]:
    """The first tier speaks on a fifth of the pairs and is nearly always right; the second speaks
    on all of them, and the less right the surer it is.
    """
    rng = np.random.default_rng(seed)
    n = 1200
    label = np.where(rng.random(n) < 0.5, 1, -1)
    strong = rng.random(n) < 0.25
    right = np.where(strong, rng.random(n) < 0.4, rng.random(n) < 0.8)
    weak = np.where(right, label, -label) * np.where(strong, 4.0, 0.8)
    speaks = rng.random(n) < 0.22
    sure = np.where(speaks, np.where(rng.random(n) < 0.96, label, -label) * 3.0, 0.0)
    principles = {
        name: PrincipleOutcomes(
            ab=logits,
            ba=logits,
            asked=np.ones(n, dtype=bool),
            tier=tier,
            weight=1.0,
            source="judge",
        )
        for name, logits, tier in (("p2", sure, 1), ("p1", weak, 2))
    }
    plain = Outcomes(
        ids=[str(i) for i in range(n)],
        rows=np.arange(1, n + 1),
        p_a=np.full(n, 0.5),
        winner=np.zeros(n, dtype=np.int64),
        status=["decided"] * n,
        principles=principles,
        origins=([""] * n, [""] * n),
    )
    found = [plain.aggregated(i) for i in range(n)]
    outcomes = dataclasses.replace(
        plain,
        p_a=np.array([f.p_a for f in found]),
        winner=np.array([{"a": 1, "b": -1, None: 0}[f.winner] for f in found]),
        status=[f.status for f in found],
    )
    return outcomes, label


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic", "features"])
def test_temperatures_of_principles_are_weighed_on_the_same_pairs(method: Any) -> None:
    """They make ties of most pairs here: what is left is nearly all right, and says little."""
    outcomes, label = two_principles(0)
    groups = [str(i) for i in range(len(label))]
    found = calibrate(outcomes, label, groups, method=method, per_principle=True)
    alone = calibrate(outcomes, label, groups, method=method)
    told = found.measured["with principles (held out)"]
    before = found.measured["before"]
    assert told["decided"] < before["decided"] / 2
    assert told["log_loss"] < 0.6 * before["log_loss"]
    for m in found.measured.values():
        ties = (len(label) - m["decided"]) * math.log(2)
        whole = (m["decided"] * m["log_loss"] + ties) / len(label)
        assert m["log_loss_of_all"] == pytest.approx(whole)
    best = told["log_loss_of_all"] < found.measured["after (held out)"]["log_loss_of_all"]
    if found.principles:
        assert best
    else:  # too few decided pairs are left to fit by, or it does not help
        assert not best or method == "isotonic"
        assert found.model_dump() == {**alone.model_dump(), "measured": found.measured}


def test_what_a_panel_s_dissent_is_worth_is_learned() -> None:
    """People agree with a pooled 0.9 in 95% where all judges do, and in 65% where one dissents."""
    rng = np.random.default_rng(5)
    n = 1200
    dissent = np.where(rng.random(n) < 0.5, 1 / 3, 0.0)
    winner = np.where(rng.random(n) < 0.5, 1, -1)
    p = rng.uniform(0.8, 0.95, n)
    right = rng.random(n) < np.where(dissent > 0, 0.65, 0.95)
    outcomes = Outcomes(
        ids=[str(i) for i in range(n)],
        rows=np.arange(n),
        p_a=np.where(winner > 0, p, 1 - p),
        winner=winner,
        status=["decided"] * n,
        principles={},
        origins=([""] * n, [""] * n),
        members=("x", "y", "z"),
        dissent=dissent,
    )
    label = np.where(right, winner, -winner)
    found = calibrate(outcomes, label, outcomes.groups, method="features")
    assert found.features["dissenting_judges"] < -2.0
    assert found.features["no_clear_tier"] == found.features["contradicting_orders"] == 0.0
    for share, truth in ((0.0, 0.95), (1 / 3, 0.65)):
        doubt = {"dissenting_judges": share}
        assert found.apply(0.88, doubt) == pytest.approx(truth, abs=0.05)
    losses = found.measured
    plain = calibrate(outcomes, label, outcomes.groups, method="platt").measured
    after = "after (held out)"
    assert losses[after]["log_loss"] < plain[after]["log_loss"] - 0.03


def test_dissent_is_counted_by_sides() -> None:
    assert measure_dissent([0.9, 0.2, 0.5], "a") == 0.5
    assert measure_dissent([0.9, 0.2, 0.5], "b") == 0.5
    assert measure_dissent([0.9, 0.8], "a") == 0.0
    assert measure_dissent([0.1], "a") == 1.0
    assert measure_dissent([0.9], None) is None
    assert measure_dissent([], "a") is None

"""What the methods for trust are worth on recorded verdicts of real judges with gold labels.

    python scripts/measure_real_trust.py FOLDER [--only panels cascade ...]

FOLDER is that of `measure_real_judges.py`.  Every section uses the package's own functions; what
is compared with them is counted by hand.  Nothing of the data is kept.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from rlaif.evaluation.bias.report import position_bias
from rlaif.evaluation.fit_calibration import applied, fit_calibration
from rlaif.evaluation.stats.prediction_powered import powered_mean
from rlaif.evaluation.stats.reliability import ece
from rlaif.evaluation.stats.resampling import mean_with_interval, paired_test
from rlaif.judging.selective import certify

Floats = NDArray[np.float64]
NATURAL = ("llmbar-natural", "mt-bench", "faireval", "llmeval2")
ADVERSARIAL = ("llmbar-neighbor", "llmbar-gptinst", "llmbar-gptout", "llmbar-manual")
JUDGES = ("GPT-4", "PaLM2", "ChatGPT", "ChatGPT-0301", "LLaMA2", "Falcon")
WEAK = ("PaLM2", "ChatGPT", "LLaMA2", "Falcon")


@dataclass(frozen=True)
class Recorded:
    """Gold labels, and verdicts by judge and way: pair -> (winner of `ab`, winner of `ba`)."""

    gold: Mapping[str, str]
    sets: Mapping[str, str]
    prompts: Mapping[str, str]
    verdicts: Mapping[tuple[str, str], Mapping[str, tuple[str, str]]]

    def of(self, sets: Sequence[str]) -> list[str]:
        """The pairs of some sets."""
        return [name for name in self.gold if self.sets[name] in sets]

    def asked_plainly(self, sets: Sequence[str]) -> list[str]:
        """The pairs of some sets about which all judges were asked plainly."""
        known = [self.verdicts[judge, "Vanilla"] for judge in JUDGES]
        return [name for name in self.of(sets) if all(name in own for own in known)]

    def vanilla(self, judge: str, names: Sequence[str]) -> Floats:
        """Asked plainly, both orders: 1 where both are right, 0 where both are wrong, else one
        half (they contradict each other, or one could not be read).
        """
        return np.array([self._credit(judge, "Vanilla", name) for name in names])

    def _credit(self, judge: str, way: str, name: str) -> float:
        ab, ba = self.verdicts[judge, way].get(name, ("", ""))
        if not ab or ab != ba:
            return 0.5
        return float(ab == self.gold[name])

    @cached_property
    def ways(self) -> dict[str, list[str]]:
        """The ways in which each judge was asked."""
        return {j: [way for judge, way in self.verdicts if judge == j] for j in JUDGES}

    def votes(self, judge: str, names: Sequence[str]) -> tuple[Floats, Floats]:
        """Confidence and whether the winner is right, of all ways and orders of a judge as votes:
        p = (votes + 1) / (all + 2).  Even votes are left to neither: confidence one half.
        """
        sure, right = [], []
        for name in names:
            told = [
                side
                for way in self.ways[judge]
                for side in self.verdicts[judge, way].get(name, ())
                if side
            ]
            p_a = (told.count("a") + 1) / (len(told) + 2)
            sure.append(max(p_a, 1 - p_a))
            winner = "a" if p_a > 0.5 else "b" if p_a < 0.5 else ""
            right.append(float(winner == self.gold[name]) if winner else 0.5)
        return np.array(sure), np.array(right)

    def groups(self, names: Sequence[str]) -> list[str]:
        """What names each pair's prompt."""
        return [self.prompts[name] for name in names]


def read(folder: Path) -> Recorded:
    """The pairs and all verdicts on them."""
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").open()]
    verdicts: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    with gzip.open(folder / "verdicts.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            own = verdicts.setdefault((row["judge"], row["way"]), {})
            own[row["id"]] = row["shown_ab"], row["shown_ba"]
    return Recorded(
        {p["id"]: p["winner"] for p in pairs},
        {p["id"]: p["set"] for p in pairs},
        {p["id"]: str(p["prompt"]) for p in pairs},
        verdicts,
    )


def position(data: Recorded) -> None:
    """Position bias, asked plainly: as the package reports it, and counted."""
    names = data.asked_plainly([*NATURAL, *ADVERSARIAL])
    for judge in JUDGES:
        told = [data.verdicts[judge, "Vanilla"][n] for n in names]
        known = [(ab, ba) for ab, ba in told if ab and ba]
        first = np.array([1.0 if ab == "a" else -1.0 for ab, _ in known])
        other = np.array([1.0 if ba == "b" else -1.0 for _, ba in known])
        found = position_bias("p", 3 * first, 3 * other)
        assert found is not None
        same = [(ab == "a", ba == "b") for ab, ba in known]
        by_hand = sum(x == y for x, y in same) / len(same)
        to_first = sum(x and y for x, y in same) / max(1, sum(x == y for x, y in same))
        assert abs(found.same_position - by_hand) < 1e-9
        assert abs(found.first - to_first) < 1e-9
        print(f"{judge}: same position wins {100 * by_hand:.1f}%, the first {100 * to_first:.0f}%")


def contradiction(data: Recorded) -> None:
    """Leaving out pairs whose orders contradict each other."""
    for label, sets in (("adversarial", ADVERSARIAL), ("natural", NATURAL)):
        names = data.asked_plainly(sets)
        for judge in JUDGES:
            credit = data.vanilla(judge, names)
            kept = credit != 0.5
            print(
                f"{label}, {judge}: one order {100 * credit.mean():.1f}% right; both agree on "
                f"{100 * kept.mean():.1f}%, right there {100 * credit[kept].mean():.1f}%"
            )


def panels(data: Recorded) -> None:
    """Panels of weak judges by majority against their best member, by the paired test."""
    for label, sets in (("adversarial", ADVERSARIAL), ("natural", NATURAL)):
        names = data.asked_plainly(sets)
        credits = {judge: data.vanilla(judge, names) for judge in WEAK}
        best = max(WEAK, key=lambda judge: credits[judge].mean())
        for members in itertools.chain.from_iterable(
            itertools.combinations(WEAK, k) for k in (2, 3, 4)
        ):
            said = np.sign(sum(2 * credits[judge] - 1 for judge in members))
            score = (1 + said) / 2
            test = paired_test(score, credits[best], data.groups(names))
            verdict = {1: "better", 0: "no difference shown", -1: "worse"}[test.better]
            print(
                f"{label}, {'+'.join(members)}: {100 * score.mean():.1f}% against "
                f"{100 * credits[best].mean():.1f}% of {best}: {verdict} "
                f"({100 * test.difference.value:+.1f} points "
                f"[{100 * test.difference.low:+.1f}, {100 * test.difference.high:+.1f}])"
            )


def cascade(data: Recorded) -> None:
    """GPT-4 asked only where the orders of a cheaper judge contradict each other."""
    for label, sets in (("adversarial", ADVERSARIAL), ("natural", NATURAL)):
        names = data.asked_plainly(sets)
        strong = data.vanilla("GPT-4", names)
        for cheap in WEAK:
            own = data.vanilla(cheap, names)
            passed = own == 0.5
            score = np.where(passed, strong, own)
            print(
                f"{label}, {cheap} -> GPT-4: {100 * score.mean():.1f}% right with "
                f"{100 * passed.mean():.0f}% of GPT-4's calls (GPT-4 alone "
                f"{100 * strong.mean():.1f}%, {cheap} alone {100 * own.mean():.1f}%)"
            )


def calibration(data: Recorded) -> None:
    """Votes over ways of asking as a probability, calibrated on half of the prompts."""
    names = data.of([*NATURAL, *ADVERSARIAL])
    prompts = data.groups(names)
    draw = dict.fromkeys(prompts)
    rng = np.random.default_rng(0)
    for judge in JUDGES:
        sure, right = data.votes(judge, names)
        found: dict[str, list[float]] = {"before": [], "temperature": [], "platt": []}
        for _ in range(20):
            half = {p for p in draw if rng.random() < 0.5}
            train = np.array([p in half for p in prompts])
            decided = sure > 0.5
            fit, test = train & decided, ~train & decided
            found["before"].append(ece(sure[test], right[test]))
            for method in ("temperature", "platt"):
                made = fit_calibration(sure[fit], right[fit], method)
                found[method].append(ece(applied(made, sure[test]), right[test]))
        text = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in found.items())
        whole = mean_with_interval(right, prompts)
        print(f"{judge}: {whole} right; ECE on held-out prompts (mean of 20 halves): {text}")


def guarantee(data: Recorded) -> None:
    """Agreement certified on half of the natural sets, seen on the rest and on adversarial ones.

    And whether confidence alone says that those are others.
    """
    natural, adversarial = data.of(NATURAL), data.of(ADVERSARIAL)
    prompts = data.groups(natural)
    rng = np.random.default_rng(0)
    for judge, target in itertools.product(("GPT-4", "ChatGPT", "PaLM2"), (0.7, 0.8, 0.9)):
        sure, right = data.votes(judge, natural)
        far_sure, far_right = data.votes(judge, adversarial)
        certified = held = far_held = announced = 0
        coverage, agreement, far = [], [], []
        for _ in range(100):
            half = {p for p in dict.fromkeys(prompts) if rng.random() < 0.5}
            train = np.array([p in half for p in prompts])
            points = _one_of_each(np.flatnonzero(train), prompts, rng)
            made = certify(sure[points], right[points], target=target)
            if made.threshold is None:
                continue
            certified += 1
            kept = ~train & (sure >= made.threshold)
            agreement.append(right[kept].mean())
            held += right[kept].mean() >= target
            coverage.append(kept.sum() / (~train).sum())
            there = far_sure >= made.threshold
            far.append(far_right[there].mean())
            far_held += far_right[there].mean() >= target
            apart = ks_2samp(far_sure, sure[points])
            announced += apart.pvalue < 0.01 and apart.statistic >= 0.1
        if not certified:
            print(f"{judge}, target {target:g}: never certified in 100 draws")
            continue
        print(
            f"{judge}, target {target:g}: certified in {certified} of 100 draws, held on the rest "
            f"in {held} (mean {100 * np.mean(agreement):.1f}%, "
            f"{100 * np.mean(coverage):.0f}% kept); on adversarial pairs "
            f"{100 * np.mean(far):.1f}%, held in {far_held}, drift announced in {announced}"
        )


def _one_of_each(
    places: NDArray[np.int64], groups: Sequence[str], rng: np.random.Generator
) -> NDArray[np.int64]:
    chosen = {groups[int(i)]: int(i) for i in rng.permutation(places)}
    return np.array(sorted(chosen.values()))


def review(data: Recorded) -> None:
    """Wrong labels of GPT-4 that the first tenth of a queue finds: by doubt, and at random."""
    for label, sets in (("adversarial", ADVERSARIAL), ("natural", NATURAL)):
        names = data.of(sets)
        for judge in ("GPT-4", "PaLM2"):
            sure, right = data.votes(judge, names)
            first = max(1, len(names) // 10)
            order = np.argsort(sure, kind="stable")
            wrong = 1 - right
            print(
                f"{label}, {judge}: the {first} most doubtful of {len(names)} hold "
                f"{wrong[order[:first]].sum():.0f} of {wrong.sum():.0f} wrong labels, random ones "
                f"{wrong.mean() * first:.1f}"
            )


def powered(data: Recorded) -> None:
    """A judge's accuracy from 60 gold labels and its own confidence: coverage over 2,000 draws."""
    names = data.of([*NATURAL, *ADVERSARIAL])
    rng = np.random.default_rng(0)
    for judge in ("GPT-4", "PaLM2", "ChatGPT"):
        sure, right = data.votes(judge, names)
        held = 0
        effective, width = [], []
        for _ in range(2000):
            known = rng.permutation(len(names))[:60]
            rest = np.setdiff1d(np.arange(len(names)), known)
            found = powered_mean(right[known], sure[known], sure[rest])
            # The truth of these pairs is known: it is a mean over all of them.
            held += found.low <= right.mean() <= found.high
            effective.append(found.effective_labels)
            width.append(found.high - found.low)
        print(
            f"{judge}: {100 * right.mean():.1f}% right; covered in {100 * held / 2000:.1f}%, 60 "
            f"labels are worth {np.mean(effective):.0f}, width {100 * np.mean(width):.1f} points"
        )


SECTIONS: dict[str, Callable[[Recorded], None]] = {
    "position": position,
    "contradiction": contradiction,
    "panels": panels,
    "cascade": cascade,
    "calibration": calibration,
    "guarantee": guarantee,
    "review": review,
    "powered": powered,
}


def main() -> None:
    """Parse, read, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    args = parser.parse_args()
    data = read(args.folder)
    for name in args.only:
        print(f"\n{name}: {(SECTIONS[name].__doc__ or '').splitlines()[0]}")
        SECTIONS[name](data)


if __name__ == "__main__":
    main()

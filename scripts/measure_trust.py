"""Prints every figure about how far labels can be trusted: biases, calibration, stopping, panels.

    python scripts/measure_trust.py                 all of it, about ten minutes on two cores
    python scripts/measure_trust.py --only stopping attacks --pairs 400

Simulations plant what is to be found; "demo" sections ask the embedded judge about the demo
world, whose oracle is the people.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from rlaif.cli.common.output import quiet_libraries
from rlaif.constitution.schema import Principle
from rlaif.data.sources import open_source
from rlaif.demo.run import write_labeled_pairs
from rlaif.engines.base import EngineSettings
from rlaif.evaluation.bias.own_family import self_preference
from rlaif.evaluation.bias.report import bias_report, position_bias
from rlaif.evaluation.bias.style_bias import style_biases
from rlaif.evaluation.bias.variants import load_attacks
from rlaif.evaluation.fit_calibration import applied, fit_calibration
from rlaif.evaluation.labeled import aligned, write_pairs
from rlaif.evaluation.outcomes import Outcomes, PrincipleOutcomes, read_outcomes
from rlaif.evaluation.panels import panel_outcomes, panel_report
from rlaif.evaluation.run import JudgeUnderTest, evaluate
from rlaif.evaluation.stats.prediction_powered import powered_mean
from rlaif.evaluation.stats.reliability import ece
from rlaif.judging.aggregation import AggregationSettings, aggregate, score_principle
from rlaif.judging.scoring import score_pair
from rlaif.judging.selective import certify
from rlaif.labeling.job import LabelSummary, prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.records import Pair, PrincipleScore, Verdict
from rlaif.runs.context import RunContext

Rng = np.random.Generator
_ONE = Principle(id="p", preference="Which response?")


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), elementwise."""
    return 1.0 / (1.0 + np.exp(-x))


def position(args: argparse.Namespace) -> None:
    """A judge with a spread of 2 nats and the offset that gives each same-position rate."""
    for rate in (0.18, 0.21, 0.56):
        text = np.random.default_rng(int(100 * rate)).normal(0.0, 2.0, 20_000)
        offset = 2.0 * norm.ppf(0.5 + rate / 2)
        found = position_bias("p", offset + text, offset - text)
        assert found is not None
        print(
            f"planted {100 * rate:.0f}%: measured {100 * found.same_position:.1f}%, "
            f"{100 * found.first:.0f}% of it the first, offset {found.offset.value:+.3f} nats"
        )


def averaging(args: argparse.Namespace) -> None:
    """P(first wins) and accuracy of 20,000 pairs, averaged over orders and by one order."""
    rng, n = np.random.default_rng(7), 20_000
    pair, settings = Pair("x", [], [], []), AggregationSettings(tie_margin=0.0)
    p = Principle(id="p", preference="Which response?")
    for offset in (0.5, 1.5, -1.0):
        wins, right = [0, 0], [0, 0]
        for t in rng.normal(0, 1.5, n):
            noise = rng.normal(0, 0.7, 2)
            both = [
                Verdict("p", "ab", t + offset + noise[0], 1.0),
                Verdict("p", "ba", -t + offset + noise[1], 1.0),
            ]
            for k, verdicts in enumerate((both, both[:1])):
                winner = aggregate(
                    score_pair(pair, [p], verdicts, asked_only=True), settings
                ).winner
                wins[k] += winner == "a"
                right[k] += (winner == "a") == (t > 0)
        print(
            f"offset {offset:+.1f}: P(first wins) {wins[0] / n:.3f} averaged, {wins[1] / n:.3f} by "
            f"one order; accuracy {right[0] / n:.3f} and {right[1] / n:.3f}"
        )


def length(args: argparse.Namespace) -> None:
    """A planted length coefficient, in nats per standard deviation, from 6,000 pairs."""
    for coefficient in (0.4, 0.8, -0.6):
        rng = np.random.default_rng(11)
        x = rng.normal(0, 1, 6000)
        x /= np.sqrt(np.mean(x**2))
        label = np.where(rng.random(6000) < 0.5, 1, -1)
        (found,) = style_biases(
            1.2 * label + coefficient * x + rng.normal(0, 1.5, 6000), {"length": x}, label=label
        )
        print(
            f"planted {coefficient:+.2f}: {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
        )


def own_family(args: argparse.Namespace) -> None:
    """Power and false alarms of self-preference at 800 pairs."""

    def p_value(seed: int, planted: float) -> float:
        rng, n = np.random.default_rng(seed), 800
        own, label = (np.where(rng.random(n) < 0.5, 1, -1) for _ in range(2))
        winner = np.where(rng.random(n) < 0.8, label, -label)
        winner = np.where((winner != own) & (rng.random(n) < 2 * planted), own, winner)
        found = self_preference(winner, label, own, [str(i) for i in range(n)])
        assert found is not None
        return found.p

    power = np.mean([p_value(s, 0.10) < 0.05 for s in range(1000)])
    false = np.mean([p_value(s, 0.0) < 0.05 for s in range(1000)])
    print(f"planted 10 points: found in {100 * power:.1f}%; none planted: {100 * false:.1f}%")


def false_alarms(args: argparse.Namespace) -> None:
    """Whole bias reports on fair judges: how many flag anything."""
    flagged = 0
    for seed in range(500):
        rng, n = np.random.default_rng(seed), 300
        quality = rng.normal(0, 2, n)
        noise = rng.normal(0, 0.5, (2, n))
        o = PrincipleOutcomes(
            ab=quality + noise[0],
            ba=quality + noise[1],
            asked=np.ones(n, dtype=bool),
            tier=1,
            weight=1.0,
            source="judge",
        )
        p = sigmoid(o.logits)
        own = rng.random(n) < 0.5
        outcomes = Outcomes(
            ids=[str(i) for i in range(n)],
            rows=np.arange(1, n + 1),
            p_a=p,
            winner=np.where(p > 0.5, 1, -1),
            status=["decided"] * n,
            principles={"only": o},
            origins=(
                ["qwen" if x else "llama" for x in own],
                ["llama" if x else "qwen" for x in own],
            ),
            texts={
                k: (rng.poisson(9.0, n).astype(float), rng.poisson(9.0, n).astype(float))
                for k in ("length", "markdown", "assertive")
            },
            name="judge",
            judge="qwen",
        )
        label = np.where(rng.random(n) < sigmoid(quality), 1, -1)
        flagged += any(
            f.flagged for f in bias_report(outcomes, label=label, groups=outcomes.ids).findings
        )
    print(f"reports on 500 fair judges that flag anything: {100 * flagged / 500:.1f}%")


def calibration(args: argparse.Namespace) -> None:
    """A judge whose log-odds are three times too large: ECE on 20,000 pairs held out."""

    def draw(rng: Rng, n: int) -> tuple[Any, Any]:
        true = np.abs(rng.normal(0, 1.2, n))
        return sigmoid(3 * true), (rng.random(n) < sigmoid(true)).astype(float)

    for method in ("temperature", "platt"):
        before, after, temperatures = [], [], []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            found = fit_calibration(*draw(rng, 250), method)
            confidence, right = draw(rng, 20_000)
            before.append(ece(confidence, right))
            after.append(ece(applied(found, confidence), right))
            temperatures.append(found.temperature)
        print(
            f"{method}, 250 labels, 20 draws: ECE {np.mean(before):.3f} -> {np.mean(after):.3f} "
            f"(at worst {max(after):.3f})"
            + (f", temperature {np.mean(temperatures):.2f}" if method == "temperature" else "")
        )


def guarantee(args: argparse.Namespace) -> None:
    """1,000 calibrations of 500 labels at a target of 0.85 and delta 0.05."""
    for spread in (1.4, 2.0):
        true = np.sort(np.abs(np.random.default_rng(99).normal(0, spread, 400_000)))[::-1]
        above = np.cumsum(1 - sigmoid(true)) / np.arange(1, len(true) + 1)
        missed, coverage = 0, []
        for seed in range(1000):
            rng = np.random.default_rng(seed)
            strength = np.abs(rng.normal(0, spread, 500))
            right = (rng.random(500) < sigmoid(strength)).astype(float)
            found = certify(sigmoid(3 * strength), right, target=0.85)
            if found.threshold is not None:
                least = math.log(found.threshold / (1 - found.threshold)) / 3
                kept = int(np.searchsorted(-true, -least, side="right"))
                missed += above[kept - 1] > 0.15
                coverage.append(kept / len(true))
        print(
            f"judge of spread {spread}: certified in {len(coverage) / 10:.1f}%, missed in "
            f"{missed / 10:.1f}%, mean coverage {100 * np.mean(coverage):.0f}%"
        )


def panels(args: argparse.Namespace) -> None:
    """Three judges whose errors are independent, half shared, wholly shared."""
    for shared in (0.0, 0.5, 1.0):
        rng, n = np.random.default_rng(1), 800
        label = np.where(rng.random(n) < 0.5, 1, -1)
        common = rng.normal(0, 1.3, n)
        members = []
        for k in range(3):
            noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(0, 1.3, n)
            p = sigmoid(label + noise)
            members.append(
                Outcomes(
                    ids=[str(i) for i in range(n)],
                    rows=np.arange(n),
                    p_a=p,
                    winner=np.where(p > 0.5, 1, -1),
                    status=["decided"] * n,
                    principles={},
                    origins=([""] * n, [""] * n),
                    texts={},
                    name=f"j{k}",
                    judge=f"j{k}",
                )
            )
        aggregated, _ = panel_outcomes(members, "mean")
        r = panel_report(members, aggregated, label, [str(i) for i in range(n)], mode="mean")
        print(
            f"noise shared {shared:.1f}: errors correlate {r.correlation:.2f}, worth "
            f"{r.effective_judges:.1f} judges; panel {100 * r.accuracy:.1f}%, best member "
            f"{100 * max(r.accuracies.values()):.1f}%, p = {r.test.p:.4f}"
        )


def powered(args: argparse.Namespace) -> None:
    """2,000 data sets with 120 labels and 3,000 verdicts of a biased judge."""
    covered, gains, correlations = 0, [], []
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        people = (rng.random(3120) < 0.58).astype(float)
        judge = np.where(rng.random(3120) < 0.13, 1 - people, people)
        judge = np.where(rng.random(3120) < 0.1, 1.0, judge)
        found = powered_mean(people[:120], judge[:120], judge[120:])
        covered += found.low <= 0.58 <= found.high
        gains.append(found.effective_labels / 120)
        correlations.append(np.corrcoef(people[:120], judge[:120])[0, 1])
    print(
        f"correlation {np.mean(correlations):.2f}: coverage {covered / 20:.1f}% at 95%, labels "
        f"worth {np.mean(gains):.2f} times as many"
    )


def settings(args: argparse.Namespace, **changes: Any) -> LabelSettings:
    """Of the demo judge."""
    judge = EngineSettings(model="demo", engine=args.engine)
    return LabelSettings(judge=judge, template="demo", **changes)


def stopping(args: argparse.Namespace) -> None:
    """The demo judge: verdicts spared, decisions changed, agreement with the oracle."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_labeled_pairs(folder / "data.jsonl", count=args.pairs, seed=77)
        data = write_pairs(open_source(str(folder / "data.jsonl")), folder / "labeled")
        flat = folder / "flat.yaml"
        flat.write_text(
            'schema: 1\nname: flat\nversion: "1"\nextends: [demo]\nprinciples:\n'
            + "".join(
                f"  - {{id: {i}, tier: 1}}\n"
                for i in (
                    "refuse-danger",
                    "protect-personal-data",
                    "admit-not-knowing",
                    "stay-on-topic",
                    "be-polite",
                    "be-concise",
                )
            )
        )
        for constitution in ("demo", str(flat)):
            whole: dict[int, int] = {}
            for way, changes in {
                "all questions": {},
                "one order": {"orders": "one"},
                "--orders adaptive": {"orders": "adaptive"},
                "--stop exact": {"stop": "exact"},
                "--stop likely": {"stop": "likely"},
            }.items():
                out = folder / f"{Path(constitution).stem}-{way}"
                job = prepare(
                    str(folder / "labeled" / "pairs.jsonl"), constitution, settings(args, **changes)
                )
                summary: LabelSummary = run_label(
                    job, out, context=RunContext(cache_dir=folder / "cache.sqlite")
                )
                outcomes = read_outcomes(out)
                own = aligned(data, outcomes)
                clear = own.label != 0
                decided = np.where(outcomes.winner == 0, 0.5, outcomes.winner == own.label)[clear]
                said = {int(r): int(w) for r, w in zip(outcomes.rows, outcomes.winner, strict=True)}
                whole = whole or said
                changed = sum(said[r] != w for r, w in whole.items())
                t = summary.tally
                everything = (t.verdicts + t.spared) * (2 if way == "one order" else 1)
                spared = 1 - t.verdicts / everything
                print(
                    f"{Path(constitution).stem}, {way}: {100 * spared:.1f}% of verdicts spared, "
                    f"{changed} of {len(said)} decisions changed, accuracy "
                    f"{100 * decided.mean():.1f}%" + _promise(summary.manifest)
                )


def _promise(manifest: dict[str, Any]) -> str:
    facts = manifest.get("stopping")
    if not facts:
        return ""
    return f", promised at most {100 * facts['decisions_changed_at_most']:.2f}% changed"


def attacks(args: argparse.Namespace) -> None:
    """The demo judge: flip rates of the shipped attacks, biases and probes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_labeled_pairs(folder / "data.jsonl", count=200, seed=77)
        data = write_pairs(open_source(str(folder / "data.jsonl")), folder / "labeled")
        found = evaluate(
            [JudgeUnderTest("demo", settings(args))],
            data,
            folder / "labeled",
            context=RunContext(cache_dir=folder / "c.sqlite"),
            bias=True,
            attacks=load_attacks(),
            most_variants=100,
        )
        (results,) = found.attacks.values()
        for a in results:
            print(f"{a.attack}: flipped {a.flipped}, detected {100 * a.detected:.0f}%")
        (report,) = found.biases.values()
        for f in report.findings:
            print(f"{f.name}: {f.shown}{' (flagged)' if f.flagged else ''}")


def pooling(args: argparse.Namespace) -> None:
    """How sure labels are by each way of pooling K principles: judges of one truth, whose errors
    correlate by r and whose log-odds are `times` too large (1: they mean what they say).
    """
    n = 2000
    for times, k, r in itertools.product((1, 3), (2, 6, 12), (0.0, 0.3, 0.6)):
        rng = np.random.default_rng(k)
        truth = np.where(rng.random(n) < 0.5, 1, -1)
        noise = np.sqrt(r) * rng.normal(size=(n, 1)) + np.sqrt(1 - r) * rng.normal(size=(n, k))
        logits = times * (0.8 * truth[:, None] + np.sqrt(1.6) * noise)
        shown = []
        for rule in ("share", "mean"):
            settings = AggregationSettings(pooling=rule, tie_margin=0.0)
            p = np.array(
                [
                    aggregate(
                        [PrincipleScore(f"p{i}", 1, 1.0, float(x)) for i, x in enumerate(row)],
                        settings,
                    ).p_a
                    for row in logits
                ]
            )
            sure, right = np.maximum(p, 1 - p), ((p > 0.5) == (truth > 0)).astype(float)
            loss = float(-np.log(np.clip(np.where(truth > 0, p, 1 - p), 1e-9, 1)).mean())
            shown.append(
                f"{rule} {100 * right.mean():.1f}% right, ECE {ece(sure, right):.3f}, "
                f"log loss {loss:.3f}"
            )
        print(f"x{times}, {k} principles, r = {r:g}: {'; '.join(shown)}")


def contradiction(args: argparse.Namespace) -> None:
    """What to make of orders that name different winners: judges with a constant position bias
    (nats), noise of their own in each order, and confidence `times` too large.
    """
    rng = np.random.default_rng(0)
    n = 4000
    for times, bias, noise in itertools.product((1, 3), (0.0, 1.5, 4.0), (0.3, 1.5, 4.0)):
        content = rng.normal(0, 2, n)
        people = np.where(rng.random(n) < 1 / (1 + np.exp(-content)), "a", "b")
        ab, ba = (times * (content + s * bias + rng.normal(0, noise, n)) for s in (1, -1))
        shown = []
        for rule in ("keep", "tie", "abstain"):
            settings = AggregationSettings(contradiction=rule)
            decided = right = 0
            loss = 0.0
            for i in range(n):
                verdicts = [
                    Verdict("p", "ab", float(ab[i]), 1.0),
                    Verdict("p", "ba", -float(ba[i]), 1.0),
                ]
                found = aggregate([score_principle(_ONE, verdicts)], settings)
                p = found.p_a if people[i] == "a" else 1.0 - found.p_a
                loss -= float(np.log(max(p, 1e-9))) / n
                decided += found.winner is not None
                right += found.winner == people[i]
            share = 100 * right / max(1, decided)
            shown.append(f"{rule} {100 * decided / n:.0f}% decided, {share:.1f}% right, {loss:.3f}")
        print(f"x{times}, bias {bias:g}, noise {noise:g}: {'; '.join(shown)}")


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "position": position,
    "averaging": averaging,
    "pooling": pooling,
    "contradiction": contradiction,
    "length": length,
    "own-family": own_family,
    "false-alarms": false_alarms,
    "calibration": calibration,
    "guarantee": guarantee,
    "panels": panels,
    "powered": powered,
    "stopping": stopping,
    "attacks": attacks,
}


def main() -> None:
    """Print the sections."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--pairs", type=int, default=600, help="of the demo world, for stopping")
    parser.add_argument("--engine", default="packed", help="that runs the demo judge")
    args = parser.parse_args()
    quiet_libraries()
    for name in args.only:
        print(f"\n{name}: {(SECTIONS[name].__doc__ or '').splitlines()[0]}")
        SECTIONS[name](args)


if __name__ == "__main__":
    main()

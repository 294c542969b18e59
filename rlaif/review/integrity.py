"""How reviewers work: agreement, gold pairs, pace, sides, streaks, pasted edits, one report each.

Every flag is the outcome of a test that an attentive reviewer fails once in twenty times, with its
reason; none is a verdict on a person.  Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from scipy import stats

from rlaif.evaluation.stats.intervals import Share, share, share_of
from rlaif.review.echo import GoldCounts, echo_p_values
from rlaif.review.store import Decision, ReviewTask
from rlaif.templates.messages import message_text
from rlaif.util.hashing import digest

ALPHA = 0.05
LEAST = 8
"""Decisions from which a test is made at all."""
WORDS_PER_SECOND = 15.0
"""Nobody reads faster: silent reading is at about 4 words a second (Brysbaert 2019)."""
SHUFFLES = 2000
ECHO, WRITTEN = "agrees with the judge even when it is wrong", "edits look model-generated"


@dataclass(frozen=True)
class ReviewerFlag:
    """A test that a reviewer failed, or would have.

    Attributes:
        name: of the test.
        p: mid-p value: how often attentive reviewers do as badly.
        reason: what was seen, in words.
    """

    name: str
    p: float
    reason: str


@dataclass(frozen=True)
class ReviewerReport:
    """One reviewer.

    Attributes:
        decisions: pairs decided, skips left out.
        gold: right answers on planted pairs.
        judge: agreement with the judge before seeing it.
        seconds: median time of a pair.
        too_fast: pairs decided faster than they can be read.
        left: of decisions for a side, those for the left one (sides are drawn by chance).
        pasted: edits of which more than half was pasted, of all edits.
        changed: decisions changed to the judge's after seeing it, of all that differed.
        tests: all that were made; `p` combines them (Sidak 1967).
        unclear: errors with the judge that hard pairs may explain, in words.
    """

    name: str
    decisions: int
    gold: Share
    judge: Share
    seconds: float
    too_fast: Share
    left: Share
    pasted: Share
    changed: Share
    tests: list[ReviewerFlag] = field(default_factory=list)
    p: float = 1.0
    unclear: str = ""

    @property
    def remarks(self) -> list[str]:
        """What stands out without a test that says how often it would by chance."""
        found = [self.unclear] if self.unclear else []
        if self.too_fast.low > 0.2:
            found.append(
                f"{self.too_fast.hits} of {self.too_fast.total} decisions were faster "
                "than the pair can be read"
            )
        if self.gold.high < 0.75:
            found.append(f"correct on {self.gold.hits} of {self.gold.total} gold pairs")
        if self.pasted.low > 0.2:
            found.append(
                f"more than half of the text was pasted in {self.pasted.hits} of "
                f"{self.pasted.total} edits"
            )
        if self.changed.low > 0.3:
            found.append(
                f"changed {self.changed.hits} of {self.changed.total} decisions to match "
                "the judge after seeing its verdict"
            )
        return found

    @property
    def flags(self) -> list[ReviewerFlag]:
        """The tests that speak against this reviewer, if all together do."""
        if self.p >= ALPHA:
            return []
        least = ALPHA / max(1, len(self.tests))
        return [t for t in self.tests if t.p < max(least, min(u.p for u in self.tests) * 1.001)]


def report_reviewers(
    tasks: Sequence[ReviewTask],
    decisions: Sequence[Decision],
    *,
    expert: str = "",
    detector: Callable[[Sequence[str]], Sequence[float]] | None = None,
    human_texts: Sequence[str] = (),
) -> list[ReviewerReport]:
    """A report for everybody who decided something, but the expert.

    Args:
        expert: who gave the right answers of the planted pairs.
        detector: of text that a model wrote: higher is more likely; for edits.
        human_texts: what people certainly wrote, of the same kind: what its scores are held
            against.
    """
    by_number = {task.number: task for task in tasks}
    names = sorted({d.reviewer for d in decisions} - {expert})
    null = np.array(detector(human_texts)) if detector and human_texts else None
    decided = {
        name: [d for d in decisions if d.reviewer == name and d.item in by_number] for name in names
    }
    counts = {name: _count_gold(own, by_number) for name, own in decided.items()}
    tested = [name for name, own in counts.items() if own is not None]
    echoes = dict(zip(tested, echo_p_values([c for c in counts.values() if c]), strict=True))
    return [
        _report(
            name=name,
            own=own,
            tasks=by_number,
            detector=detector,
            null=null,
            echo=_echo_test(counts[name], echoes.get(name, 1.0)),
            unclear=_may_be_hard(counts[name], echoes.get(name, 1.0)),
        )
        for name, own in decided.items()
    ]


def _report(
    name: str,
    own: Sequence[Decision],
    tasks: Mapping[int, ReviewTask],
    detector: Callable[[Sequence[str]], Sequence[float]] | None,
    null: np.ndarray | None,
    echo: ReviewerFlag | None,
    unclear: str,
) -> ReviewerReport:
    last = {d.item: d for d in own}
    blind = [d for d in own if d.blind and d.verdict != "skip"]
    gold = [(d.verdict, tasks[d.item]) for d in blind if tasks[d.item].gold]
    right = [verdict == task.gold for verdict, task in gold]
    judged = [d for d in blind if tasks[d.item].item.winner and d.verdict != "tie"]
    # Sides that nobody drew, as in other tools, say nothing.
    sides = [
        "left" if d.verdict == d.first else "right" for d in blind if d.verdict != "tie" and d.first
    ]
    fast = [d.seconds * WORDS_PER_SECOND < _words(tasks[d.item]) for d in blind if d.seconds > 0]
    edits = [d for d in last.values() if d.edited]
    differed = [d for d in blind if (w := tasks[d.item].item.winner) and d.verdict != w]
    tests = [
        test
        for test in (
            echo,
            _side_test(sides),
            _streak_test([s if v != "tie" else "tie" for s, v in _sided(blind)], name),
            _written_test([d.edited for d in edits], detector, null),
        )
        if test is not None
    ]
    p = 1.0 - float(np.prod([1.0 - min(t.p for t in tests)] * len(tests))) if tests else 1.0
    return ReviewerReport(
        name=name,
        decisions=len({d.item for d in own if d.verdict != "skip"}),
        gold=share_of(right, [digest(task.item.prompt) for _, task in gold]),
        judge=share_of(
            [d.verdict == tasks[d.item].item.winner for d in judged],
            [digest(tasks[d.item].item.prompt) for d in judged],
        ),
        seconds=float(np.median([d.seconds for d in blind])) if blind else 0.0,
        too_fast=share(sum(fast), len(fast)),
        left=share(sides.count("left"), len(sides)),
        pasted=share(sum(2 * d.pasted > len(d.edited) for d in edits), len(edits)),
        changed=share(
            sum(last[d.item].verdict == tasks[d.item].item.winner for d in differed),
            len(differed),
        ),
        tests=tests,
        p=p,
        unclear=unclear,
    )


def _sided(blind: Sequence[Decision]) -> list[tuple[str, str]]:
    return [("left" if d.verdict == (d.first or "a") else "right", d.verdict) for d in blind]


def _words(task: ReviewTask) -> int:
    texts = (message_text(m) for side in (task.item.a, task.item.b) for m in side)
    return sum(len(text.split()) for text in texts)


def _count_gold(own: Sequence[Decision], tasks: Mapping[int, ReviewTask]) -> GoldCounts | None:
    """A reviewer's answers to planted pairs; None where they are too few to be tested."""
    gold = [
        (d.verdict, tasks[d.item].gold, tasks[d.item].item.winner)
        for d in own
        if d.blind and d.verdict != "skip" and tasks[d.item].gold not in ("", "tie")
    ]
    trapped = [said == judge for said, right, judge in gold if judge and judge != right]
    plain = [said != right for said, right, judge in gold if judge == right]
    if len(trapped) < LEAST // 2 or len(plain) < LEAST // 2:
        return None
    return GoldCounts(sum(trapped), len(trapped), sum(plain), len(plain))


def _echo_test(counts: GoldCounts | None, p: float) -> ReviewerFlag | None:
    """Whether a reviewer errs with the judge: on planted pairs that the judge has wrong more often
    than on those that it has right, and than other reviewers do.

    Who thinks for themselves errs where pairs are hard; who asks a model like the judge errs with
    it.
    """
    if counts is None:
        return None
    return ReviewerFlag(
        ECHO,
        p,
        f"agrees with the judge on {counts.echoed} of {counts.trapped} gold pairs that it got "
        f"wrong, and errs on {counts.errors} of {counts.plain} that it got right",
    )


def _may_be_hard(counts: GoldCounts | None, p: float) -> str:
    """What would be flagged if no gold pair were hard for people."""
    if counts is None or p < ALPHA or counts.p(1.0) >= ALPHA:
        return ""
    return (
        f"agrees with the judge on {counts.echoed} of {counts.trapped} gold pairs that it got "
        f"wrong, and errs on {counts.errors} of {counts.plain} others; these pairs may be hard "
        "for people, too"
    )


def _side_test(sides: Sequence[str]) -> ReviewerFlag | None:
    """Whether one side is taken more often than by chance: sides are drawn, so neither is better
    (binomial, two-sided, mid-p).
    """
    n, left = len(sides), list(sides).count("left")
    if n < LEAST:
        return None
    extreme = max(left, n - left)
    law = stats.binom(n, 0.5)
    p = min(1.0, 2.0 * float(law.sf(extreme) + 0.5 * law.pmf(extreme)))
    side = "left" if 2 * left >= n else "right"
    return ReviewerFlag(
        "favors one side", p, f"chooses the {side} side in {extreme} of {n} decisions"
    )


def _streak_test(answers: Sequence[str], name: str) -> ReviewerFlag | None:
    """Whether one answer is given longer in a row than its frequency explains (by shuffling)."""
    if len(answers) < LEAST:
        return None
    rng = np.random.default_rng(int(digest(["streak", name])[:8], 16))
    codes = np.array([{"left": 0, "right": 1}.get(a, 2) for a in answers])
    seen = _longest(codes[None, :])[0]
    shuffled = rng.permuted(np.broadcast_to(codes, (SHUFFLES, len(codes))), axis=1)
    runs = _longest(shuffled)
    p = float(((runs > seen).sum() + 0.5 * (runs == seen).sum() + 0.5) / (SHUFFLES + 1.0))
    return ReviewerFlag("repeats one answer", p, f"gives the same answer {seen} times in a row")


def _longest(rows: np.ndarray) -> np.ndarray:
    """The longest run of equal values in each row, shape (n,)."""
    length = np.ones(len(rows), dtype=np.int64)
    best = length.copy()
    for k in range(1, rows.shape[1]):
        length = np.where(rows[:, k] == rows[:, k - 1], length + 1, 1)
        best = np.maximum(best, length)
    return best


def _written_test(
    edits: Sequence[str],
    detector: Callable[[Sequence[str]], Sequence[float]] | None,
    null: np.ndarray | None,
) -> ReviewerFlag | None:
    """Whether edits score higher than what people wrote (Mann and Whitney 1947, one-sided)."""
    if detector is None or null is None or len(edits) < LEAST // 2 or len(null) < LEAST:
        return None
    scores = np.array(detector(edits))
    p = float(stats.mannwhitneyu(scores, null, alternative="greater").pvalue)
    return ReviewerFlag(
        WRITTEN,
        p,
        f"median score {np.median(scores):.3f} for {len(edits)} edits, "
        f"{np.median(null):.3f} for {len(null)} human texts",
    )


def prevalence(reports: Sequence[ReviewerReport], *, threshold: float = 0.2) -> tuple[int, Share]:
    """About how many reviewers do not decide by themselves, flagged or not (Storey 2002): attentive
    ones have p-values that spread evenly, so those above the threshold tell how many there are.

    Returns:
        Of how many reviewers planted pairs (or edits) tell, and the share of them.
    """
    p = []
    for r in reports:
        own = [t.p for t in r.tests if t.name in (ECHO, WRITTEN)]
        if own and any(t.name == ECHO for t in r.tests):
            p.append(1.0 - (1.0 - min(own)) ** len(own))
    n = len(p)
    if not n:
        return 0, share(0, 0)
    above = share(sum(value > threshold for value in p), n)
    rate, low, high = (
        min(1.0, max(0.0, 1.0 - x / (1.0 - threshold))) for x in (above.rate, above.high, above.low)
    )
    return n, Share(hits=round(rate * n), total=n, rate=rate, low=low, high=high)


def krippendorff(votes: Sequence[Sequence[str]]) -> float:
    """Alpha of agreement for nominal answers (Krippendorff 2011), any number of answers an item.

    Args:
        votes: of each item, what each who saw it said.

    Returns:
        1 for perfect agreement, 0 for what chance gives; NaN where nothing can be compared.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    for said in votes:
        for i, one in enumerate(said):
            for j, two in enumerate(said):
                if i != j:
                    pairs[one, two] += 1.0 / (len(said) - 1)  # type: ignore[assignment]
    totals: Counter[str] = Counter()
    for (one, _), weight in pairs.items():
        totals[one] += weight
    n = sum(totals.values())
    expected = n * n - sum(t * t for t in totals.values())
    if n <= 1 or expected == 0:
        return float("nan")
    observed = sum(w for (one, two), w in pairs.items() if one != two)
    return float(1.0 - (n - 1.0) * observed / expected)


def cohen(pairs: Sequence[tuple[str, str]]) -> float:
    """Kappa of two reviewers (Cohen 1960); NaN where chance alone explains everything."""
    n = len(pairs)
    if not n:
        return float("nan")
    same = sum(a == b for a, b in pairs) / n
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(first[k] * second[k] for k in first) / (n * n)
    return float((same - chance) / (1.0 - chance)) if chance < 1.0 else float("nan")


def agreements(decisions: Sequence[Decision]) -> tuple[float, list[tuple[str, str, float, int]]]:
    """Krippendorff's alpha of all blind decisions, and Cohen's kappa of each two reviewers who saw
    the same pairs, with how many.
    """
    said: dict[int, dict[str, str]] = {}
    for d in decisions:
        if d.blind and d.verdict != "skip":
            said.setdefault(d.item, {})[d.reviewer] = d.verdict
    alpha = krippendorff([list(votes.values()) for votes in said.values() if len(votes) > 1])
    shared: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for votes in said.values():
        for one, two in combinations(sorted(votes), 2):
            shared.setdefault((one, two), []).append((votes[one], votes[two]))
    rows = [(one, two, cohen(p), len(p)) for (one, two), p in sorted(shared.items())]
    return alpha, rows

"""The tally against counts made by hand."""

from __future__ import annotations

import random
from dataclasses import asdict

import pytest

from rlaif.constitution.schema import Principle
from rlaif.judging.aggregation import AggregationSettings, aggregate, score_principle
from rlaif.records import Origin, Verdict
from rlaif.runs import tally as summary
from rlaif.runs.tally import Tally


def test_flips_and_offset_count_only_where_the_judge_has_an_opinion() -> None:
    principle = Principle(id="p", preference="Which response?")
    # (log-odds of the first shown in order ab, in order ba)
    cases = [(2.0, -2.0), (2.0, 1.0), (-2.0, -1.0), (0.1, 0.1), (3.0, -1.0)]
    tally = Tally()
    for ab, ba in cases:
        verdicts = [Verdict("p", "ab", ab, 1.0), Verdict("p", "ba", ba, 1.0)]
        score = score_principle(principle, verdicts)
        tally.add(aggregate([score], AggregationSettings()), verdicts)
    found = tally.principles["p"]
    assert (found.both_orders, found.clear, found.flipped, found.flipped_to_first) == (5, 4, 2, 1)
    assert found.flip_rate == 0.5
    # Half the sum of each case's two log-odds: 0, 1.5, -1.5, 0.1, 1; their mean is 0.22.
    assert found.position_offset == pytest.approx(0.22)
    # Averages (ab - ba) / 2: 2, 0.5, -0.5, 0, 2; the fourth is a tie.
    assert (tally.decided, tally.tie, tally.verdicts) == (4, 1, 10)
    assert found.agrees == 4
    assert tally.reasons == {"near tie (margin N < N)": 1}
    assert sum(tally.margins) == 4


@pytest.mark.parametrize("seed", range(6))
def test_tallies_of_parts_make_that_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Also where there are more reasons and origins than are kept apart."""
    monkeypatch.setattr(summary, "MOST_REASONS", 4)
    monkeypatch.setattr(summary, "MOST_ORIGINS", 6)
    rng = random.Random(seed)
    whole, joined, part = Tally(), Tally(), Tally()
    for row in range(80):
        principles = [Principle(id=name, preference="Which?") for name in rng.sample("abc", 2)]
        scores, verdicts = [], []
        for principle in principles:
            # Eighths, so that their sums are the same in any order.
            logits = [rng.randrange(-24, 25) / 8 for _ in range(2)]
            invalid = "no answer" if rng.random() < 0.2 else ""
            found = [
                Verdict(principle.id, order, logit, 1.0, invalid=invalid)
                for order, logit in zip(("ab", "ba"), logits, strict=True)
            ]
            scores.append(score_principle(principle, found))
            verdicts += found
        preference = aggregate(scores, AggregationSettings())
        origins = [Origin(kind="model", model=f"m{rng.randrange(8)}") for _ in range(3)]
        reason = f"because of {rng.choice('uvwxyz')}"
        for tally in (whole, part):
            tally.add(preference, verdicts, spared=row % 3)
            tally.add_origins(origins, row)
            tally.add_reason(reason)
            tally.rows += 1
            tally.prompt_injection += row % 5 == 0
        if row % 2 or rng.random() < 0.5:  # parts that keep all of theirs apart
            part.add_rejected()
            whole.add_rejected()
            joined.absorb(part)
            part = Tally()
    joined.absorb(part)
    assert len(whole.reasons) == 5
    assert len(whole.origins) == 7
    assert whole.rejected > 2
    assert asdict(joined) == asdict(whole)

"""The tally against counts made by hand."""

from __future__ import annotations

import pytest

from rlaif.constitution.schema import Principle
from rlaif.records import Verdict
from rlaif.stages.folding import FoldSettings, fold, score_principle
from rlaif.stages.summary import Tally


def test_flips_and_offset_count_only_where_the_judge_has_an_opinion() -> None:
    principle = Principle(id="p", preference="Which response?")
    # (log-odds of the first shown in order ab, in order ba)
    cases = [(2.0, -2.0), (2.0, 1.0), (-2.0, -1.0), (0.1, 0.1), (3.0, -1.0)]
    tally = Tally()
    for ab, ba in cases:
        verdicts = [Verdict("p", "ab", ab, 1.0), Verdict("p", "ba", ba, 1.0)]
        score = score_principle(principle, verdicts)
        tally.add(fold([score], FoldSettings()), verdicts)
    found = tally.principles["p"]
    assert (found.both_orders, found.clear, found.flipped, found.flipped_to_first) == (5, 4, 2, 1)
    assert found.flip_rate == 0.5
    # Half the sum of each case's two log-odds: 0, 1.5, -1.5, 0.1, 1; their mean is 0.22.
    assert found.position_offset == pytest.approx(0.22)
    # Averages (ab - ba) / 2: 2, 0.5, -0.5, 0, 2; the fourth is a tie.
    assert (tally.decided, tally.tie, tally.verdicts) == (4, 1, 10)
    assert found.agrees == 4
    assert tally.reasons == {"margin N is below N": 1}
    assert sum(tally.margins) == 4

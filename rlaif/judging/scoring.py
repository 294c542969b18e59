"""Every principle's opinion of a pair: from the judge's verdicts, or from a programmatic check."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.constitution.checks import CheckFailed, run_check
from rlaif.constitution.schema import Principle
from rlaif.judging.aggregation import failed_check, score_check, score_principle
from rlaif.records import Pair, PrincipleScore, Verdict
from rlaif.templates.messages import completion_text, conversation_text


def score_pair(
    pair: Pair,
    principles: Sequence[Principle],
    verdicts: Sequence[Verdict],
    *,
    asked_only: bool = False,
) -> list[PrincipleScore]:
    """Opinions in the order of `principles`.

    Args:
        asked_only: leave out principles without any verdict, where a pair needed no more of them;
            else they count as invalid.
    """
    by_principle: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_principle.setdefault(verdict.principle, []).append(verdict)
    return [
        score_principle(principle, by_principle.get(principle.id, []))
        if principle.judged
        else _check(principle, pair)
        for principle in principles
        if not principle.judged or principle.id in by_principle or not asked_only
    ]


def _check(principle: Principle, pair: Pair) -> PrincipleScore:
    assert principle.check is not None
    prompt = conversation_text(pair.prompt)
    try:
        a, b = (
            run_check(principle.check, prompt, completion_text(side)) for side in (pair.a, pair.b)
        )
    except CheckFailed as error:
        return failed_check(principle, str(error))
    return score_check(principle, a, b)

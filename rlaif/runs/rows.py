"""The rows of a run directory, as other tools read them.

No value is ever null in one row and a number in another, so that `datasets` infers one schema
from any part of a file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlaif.constitution.schema import Constitution
from rlaif.data.origins import origin_columns
from rlaif.records import DIGITS, Pair, Preference, PrincipleScore, Rejected, Verdict
from rlaif.templates.judge import JudgeTemplate
from rlaif.util.numerics import sigmoid


def _round(value: float) -> float:
    return round(value, DIGITS)


def verdict_lines(pair: Pair, verdicts: Sequence[Verdict], keys: Sequence[bytes]) -> str:
    """The judge's answers about a pair as lines of JSON; there are too many for a slower way.

    `request` addresses the exact prompt in the verdict cache.
    """
    head = f'{{"pair":{_text(pair.id)},"row":{pair.row},"principle":'
    return "\n".join(
        f'{head}{_text(v.principle)},"order":"{v.order}",'
        f'"p_first":{round(sigmoid(v.logit), DIGITS)},"logit":{round(v.logit, DIGITS)},'
        f'"label_mass":{round(v.label_mass, DIGITS)},"invalid":{_text(v.invalid)},'
        f'"reasoning":{_text(v.reasoning)},"request":"{key.hex()}"}}'
        for v, key in zip(verdicts, keys, strict=True)
    )


_text = json.JSONEncoder(ensure_ascii=False).encode


def _principle(score: PrincipleScore, sign: float) -> dict[str, Any]:
    return {
        "principle": score.principle,
        "tier": score.tier,
        "weight": score.weight,
        "p_chosen": _round((1 + sign * score.sign) / 2),
        "source": score.source,
        "invalid": score.invalid,
    }


def make_stamp(
    *,
    constitution: Constitution,
    judge: str,
    fingerprint: str,
    template: JudgeTemplate,
    calibration: str,
    clamp: float = 1.0,
) -> dict[str, Any]:
    """The provenance that every label of a run, or of a served judge, carries.

    Args:
        fingerprint: content address of the judge.
        calibration: content address of the calibration, or "".
        clamp: a probability is learned as at most this.  A judge that reasons is nearly certain of
            whatever it wrote, and 0.6 is best for it (Bai et al. 2022, arXiv:2212.08073, section
            4.1); its verdicts and labels stay as it gave them.
    """
    return {
        **({"target_clamp": clamp} if clamp < 1.0 else {}),
        "constitution": f"{constitution.name}@{constitution.version}",
        "constitution_hash": constitution.hash,
        "judge": judge,
        "judge_fingerprint": fingerprint,
        "template_hash": template.hash,
        "calibration": calibration,
    }


def provenance(
    pair: Pair, preference: Preference, stamp: dict[str, Any], sign: float, prompt_injection: str
) -> dict[str, Any]:
    """Where a label comes from; probabilities are turned to the side of `sign`.

    `prompt_injection` says what in the completions looks like it, by their sides in the input.
    """
    masses = [s.label_mass for s in preference.scores if s.label_mass is not None]
    consistency = preference.order_consistency
    return {
        "id": pair.id,
        "row": pair.row,
        "depth": pair.depth,
        "weight": pair.weight,
        "status": preference.status,
        "reason": preference.reason,
        "winner": preference.winner or "",
        "margin": _round(preference.margin),
        "deciding_tier": preference.deciding_tier or 0,
        "order_consistency": 1.0 if consistency is None else _round(consistency),
        "label_mass": _round(min(masses, default=1.0)),
        "prompt_injection": prompt_injection,
        "tags": ",".join(sorted(pair.tags)),
        "principles": [_principle(score, sign) for score in preference.scores],
        **stamp,
    }


def preference_row(
    pair: Pair, preference: Preference, stamp: dict[str, Any], prompt_injection: str = ""
) -> dict[str, Any]:
    """A decided pair: TRL's conversational preference format, plus `p_chosen` and provenance."""
    a_wins = preference.winner == "a"
    chosen, rejected = (pair.a, pair.b) if a_wins else (pair.b, pair.a)
    origins = (pair.origin_a, pair.origin_b)
    record = provenance(
        pair=pair,
        preference=preference,
        stamp=stamp,
        sign=1.0 if a_wins else -1.0,
        prompt_injection=prompt_injection,
    )
    record["origin_chosen"], record["origin_rejected"] = origins if a_wins else origins[::-1]
    prompt, *sides = map(origin_columns, pair.origins)
    won, lost = sides if a_wins else sides[::-1]
    record["origins"] = {"prompt": prompt, "chosen": won, "rejected": lost}
    return {
        "prompt": list(pair.prompt),
        **_extras(pair),
        "chosen": list(chosen),
        "rejected": list(rejected),
        "p_chosen": _round(preference.p_a if a_wins else 1.0 - preference.p_a),
        "provenance": record,
    }


def undecided_row(
    pair: Pair, preference: Preference, stamp: dict[str, Any], prompt_injection: str = ""
) -> dict[str, Any]:
    """A tie or an abstention: kept, with its reason, out of the training data."""
    record = provenance(
        pair=pair, preference=preference, stamp=stamp, sign=1.0, prompt_injection=prompt_injection
    )
    record["origin_a"], record["origin_b"] = pair.origin_a, pair.origin_b
    record["origins"] = dict(
        zip(("prompt", "a", "b"), map(origin_columns, pair.origins), strict=True)
    )
    return {
        "prompt": list(pair.prompt),
        **_extras(pair),
        "a": list(pair.a),
        "b": list(pair.b),
        "p_a": _round(preference.p_a),
        "provenance": record,
    }


def _extras(pair: Pair) -> dict[str, Any]:
    """The tools that could be called, in TRL's column, and pictures; nothing for the usual row."""
    found: dict[str, Any] = {"tools": list(pair.tools)} if pair.tools else {}
    return found | ({"images": [p.source for p in pair.pictures]} if pair.pictures else {})


def rejected_row(rejected: Rejected) -> dict[str, Any]:
    """An input row that could not be read."""
    return {"place": rejected.place, "reason": rejected.reason}

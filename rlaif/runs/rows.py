"""The rows of a run directory, as other tools read them.

No value is ever null in one row and a number in another, so that `datasets` infers one schema
from any part of a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlaif.constitution.schema import Constitution
from rlaif.data.origins import origin_columns
from rlaif.records import DIGITS, Pair, Preference, Rejected, Verdict
from rlaif.templates.judge import JudgeTemplate
from rlaif.util.numerics import sigmoid


def _round(value: float) -> float:
    return round(value, DIGITS)


@dataclass(slots=True)
class VerdictRows:
    """The judge's answers about a pair, on their way to a file.

    Attributes:
        keys: address the exact prompts in the verdict cache.
    """

    pair: Pair
    verdicts: Sequence[Verdict]
    keys: Sequence[bytes]

    def lines(self) -> str:
        """As lines of JSON, without the last line's end."""
        return verdict_lines(self.pair, self.verdicts, self.keys)

    def add_to(self, columns: Mapping[str, list[Any]]) -> None:
        """Add the same values to columns, in the order and with the names of the lines' keys."""
        pair, row = self.pair.id, self.pair.row
        for verdict, key in zip(self.verdicts, self.keys, strict=True):
            values = (
                pair,
                row,
                verdict.principle,
                verdict.order,
                round(sigmoid(verdict.logit), DIGITS),
                round(verdict.logit, DIGITS),
                round(verdict.label_mass, DIGITS),
                verdict.invalid,
                verdict.reasoning,
                key,
            )
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)


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


def principle_row(
    *, principle: str, tier: int, weight: float, p_a: float, source: str, invalid: str, winner: str
) -> dict[str, Any]:
    """What one principle said, told of the winner's side."""
    return {
        "principle": principle,
        "tier": tier,
        "weight": weight,
        "p_chosen": turn_probability(p_a, winner),
        "source": source,
        "invalid": invalid,
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
    pair: Pair, preference: Preference, stamp: dict[str, Any], prompt_injection: str
) -> dict[str, Any]:
    """Where a label comes from; probabilities are of the winner's side, or of `a`.

    `prompt_injection` says what in the completions looks like it, by their sides in the input.
    """
    masses = [s.label_mass for s in preference.scores if s.label_mass is not None]
    consistency = preference.order_consistency
    winner = preference.winner or ""
    return {
        "id": pair.id,
        "row": pair.row,
        "depth": pair.depth,
        "weight": pair.weight,
        "status": preference.status,
        "reason": preference.reason,
        "winner": winner,
        "margin": _round(preference.margin),
        "deciding_tier": preference.deciding_tier or 0,
        "order_consistency": 1.0 if consistency is None else _round(consistency),
        "label_mass": _round(min(masses, default=1.0)),
        "prompt_injection": prompt_injection,
        "tags": ",".join(sorted(pair.tags)),
        **_own_criteria(pair),
        "principles": [
            principle_row(
                principle=score.principle,
                tier=score.tier,
                weight=score.weight,
                p_a=score.p_a,
                source=score.source,
                invalid=score.invalid,
                winner=winner,
            )
            for score in preference.scores
        ],
        **stamp,
    }


def _own_criteria(pair: Pair) -> dict[str, Any]:
    """The row's own rubric, reference answer and language: what it was asked can be traced."""
    own: dict[str, Any] = {}
    if pair.criteria:
        own["criteria"] = [asdict(criterion) for criterion in pair.criteria]
    if pair.reference:
        own["reference"] = pair.reference
    if pair.language:
        own["language"] = pair.language
    return own


def label_row(
    pair: Pair, preference: Preference, stamp: dict[str, Any], prompt_injection: str = ""
) -> dict[str, Any]:
    """The label of a pair, as `turn_label` tells it: of `preferences` if it is decided, else of
    `undecided`.
    """
    winner = preference.winner or ""
    evidence = provenance(pair, preference, stamp, prompt_injection)
    prompt, a, b = map(origin_columns, pair.origins)
    return turn_label(
        prompt=pair.prompt,
        extras=_extras(pair),
        a=pair.a,
        b=pair.b,
        winner=winner,
        p_a=preference.p_a,
        evidence=evidence,
        writers=(pair.origin_a, pair.origin_b),
        origins={"prompt": prompt, "a": a, "b": b},
    )


def turn_label(
    *,
    prompt: Sequence[Any],
    extras: Mapping[str, Any],
    a: Sequence[Any],
    b: Sequence[Any],
    winner: str,
    p_a: float,
    evidence: Mapping[str, Any],
    writers: tuple[str, str],
    origins: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A label as its row: the one place that turns what is told of `a` and `b` to the winner.

    A decided one is in TRL's conversational preference format, with `p_chosen`; a tie or an
    abstention keeps `a`, `b` and `p_a`.  `runs.labels.parse_label` turns it back.

    Args:
        extras: columns of the prompt: `tools`, `images`.
        winner: "a", "b" or "".
        evidence: its probabilities are already of the winner's side (see `turn_probability`).
        writers: the models that wrote `a` and `b`.
        origins: of prompt, `a` and `b`; None where a run did not keep them.
    """
    one, two, p = ("chosen", "rejected", "p_chosen") if winner else ("a", "b", "p_a")
    first, second = ("b", "a") if winner == "b" else ("a", "b")
    of = {"a": (a, writers[0]), "b": (b, writers[1])}
    record = {**evidence, f"origin_{one}": of[first][1], f"origin_{two}": of[second][1]}
    if origins is not None:
        named = {one: origins[first], two: origins[second]}
        record["origins"] = {"prompt": origins["prompt"], **named}
    return {
        "prompt": list(prompt),
        **extras,
        one: list(of[first][0]),
        two: list(of[second][0]),
        p: turn_probability(p_a, winner),
        "provenance": record,
    }


def turn_probability(p_a: float, winner: str) -> float:
    """A probability of `a` as that of the winner's side, rounded as rows have it."""
    return _round(1.0 - p_a if winner == "b" else p_a)


def _extras(pair: Pair) -> dict[str, Any]:
    """The tools that could be called, in TRL's column, and pictures; nothing for the usual row."""
    found: dict[str, Any] = {"tools": list(pair.tools)} if pair.tools else {}
    return found | ({"images": [p.source for p in pair.pictures]} if pair.pictures else {})


def rejected_row(rejected: Rejected) -> dict[str, Any]:
    """An input row that could not be read."""
    return {"place": rejected.place, "reason": rejected.reason}

"""Whether a judge favors responses of its own family of models."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlaif.evaluation.bias.findings import (
    LEAST,
    LEAST_GROUPS,
    BiasFinding,
    effective_groups,
    robust_errors,
)
from rlaif.evaluation.outcomes import Floats

FAMILIES = (
    "qwen",
    "llama",
    "mistral",
    "mixtral",
    "gemma",
    "gemini",
    "palm",
    "gpt",
    "claude",
    "deepseek",
    "phi",
    "command",
    "olmo",
    "tulu",
    "falcon",
    "yi",
    "glm",
    "granite",
    "nemotron",
    "vicuna",
    "wizardlm",
    "zephyr",
    "smollm",
    "internlm",
    "kimi",
    "minimax",
    "grok",
    "demo",
)
_ALIASES = {
    "mixtral": "mistral",
    "ministral": "mistral",
    "gemini": "gemma",
    "palm": "gemma",
    "o1": "gpt",
    "o3": "gpt",
    "o4": "gpt",
    "chatgpt": "gpt",
    "davinci": "gpt",
    "qwq": "qwen",
}


def family(model: str) -> str:
    """The family of a model by its name: `Qwen/Qwen3-8B` is of "qwen"; else its own last name.

    A folder `.../Qwen3-8B/snapshots/HASH` is named by what stands before; a name may hold the
    family within a word (CodeLlama, TinyLlama).
    """
    parts = [p for p in model.lower().rstrip("/").split("/") if p not in ("", ".", "snapshots")]
    parts = [p for p in parts if not re.fullmatch(r"[0-9a-f]{12,64}", p)] or parts
    for name in reversed(parts[-2:]):
        if name.startswith(("gpt-j", "gpt-neo")):
            return "eleuther"
        words = [word for word in re.split(r"[^a-z0-9]+", name) if word]
        for word in words:
            letters = re.match(r"[a-z]+", word)
            for candidate in (word, letters.group() if letters else ""):
                if candidate in FAMILIES or candidate in _ALIASES:
                    return _ALIASES.get(candidate, candidate)
        for known in (
            "llama",
            "mistral",
            "ministral",
            "qwq",
            "qwen",
            "gemma",
            "deepseek",
            "davinci",
            "glm",
        ):
            if known in name:
                return _ALIASES.get(known, known)
    return parts[-1] if parts else ""


def self_preference(
    winner: NDArray[np.int64],
    label: NDArray[np.int64],
    own: NDArray[np.int64],
    groups: Sequence[str],
) -> BiasFinding | None:
    """How much the judge favors its own family's responses beyond what people prefer.

    Two readings that a noisy judge of a family that is really better or worse moves apart, and
    self-preference moves together: how much more often the judge agrees where people prefer the
    own side than where they prefer the other (equal opportunity: Wataoka et al. 2024,
    arXiv:2410.21819), and how much more often people agree where the judge prefers the other side
    than where it prefers its own.  The value is half the first; the p-value is the larger of
    both, and 1 where they disagree.  (Both may move together without self-preference too, where the
    own side is mostly a little better and now and then much worse: a skewed advantage and a noisy
    judge look alike.)  A preference that turns ten points of all verdicts is found
    at 800 pairs with a power of over 0.8.

    Args:
        winner: of the judge: 1 for `a`, -1 for `b`, 0 for neither (left out).
        label: of people; ties are left out.
        own: 1 where `a` alone is of the judge's family, -1 where `b` alone is, else 0.
    """
    here = (own != 0) & (label != 0) & (winner != 0)
    people = (label[here] * own[here]).astype(np.float64)
    judge = (winner[here] * own[here]).astype(np.float64)
    n = len(people)
    known = [groups[i] for i in np.flatnonzero(here)]
    each = [int((x > 0).sum()) for x in (people, -people, judge, -judge)] if n else [0]
    if min(each) < LEAST // 2 or effective_groups(known) < LEAST_GROUPS:
        return None
    agrees = (people == judge).astype(np.float64)
    if np.ptp(agrees) == 0.0:
        return None
    value, low, high, p = _slope(agrees, people, known)
    reverse, _, _, other_p = _slope(agrees, -judge, known)
    p = max(p, other_p) if value * reverse > 0 else 1.0
    detail = (
        f"agrees with humans on {100 * agrees[people > 0].mean():.1f}% where they prefer "
        f"its own family, on {100 * agrees[people < 0].mean():.1f}% elsewhere; correct on "
        f"{100 * agrees[judge > 0].mean():.1f}% where it prefers its own family, on "
        f"{100 * agrees[judge < 0].mean():.1f}% elsewhere; a family that is mostly a little better "
        "and seldom much worse looks the same to a noisy judge"
    )
    return BiasFinding(
        name="self-preference",
        value=value,
        low=low,
        high=high,
        unit="share",
        n=n,
        p=p,
        detail=detail,
    )


def _slope(
    values: Floats, side: Floats, groups: Sequence[str]
) -> tuple[float, float, float, float]:
    """Half the difference of means between the sides 1 and -1, its 95% interval and p-value."""
    import statsmodels.api as sm  # noqa: PLC0415 - slow to import

    model = sm.OLS(values, np.column_stack([np.ones(len(values)), side]))
    fit = model.fit(**robust_errors(groups, len(values), plain="HC3"))
    low, high = fit.conf_int()[1]
    return float(fit.params[1]), float(low), float(high), float(fit.pvalues[1])


def own_side(
    judges: Sequence[str], origins: tuple[Sequence[str], Sequence[str]]
) -> NDArray[np.int64]:
    """1 where `a` alone comes from a family of the judges, -1 where `b` alone does, else 0."""
    mine = {family(judge) for judge in judges}
    sides = [np.array([int(bool(o) and family(o) in mine) for o in side]) for side in origins]
    return np.asarray(sides[0] - sides[1], dtype=np.int64)

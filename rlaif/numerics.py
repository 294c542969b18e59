"""Arithmetic that several layers need."""

from __future__ import annotations

import math
from collections.abc import Sequence


def logsumexp(values: Sequence[float]) -> float:
    """Log of the sum of exponentials, without overflow; -inf for nothing."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return top
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    e = math.exp(logit)
    return e / (1.0 + e)

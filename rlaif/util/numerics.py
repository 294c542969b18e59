"""Arithmetic that several layers need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


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


def log_sigmoid(logit: float) -> float:
    """Log of 1 / (1 + exp(-logit)), without overflow or loss."""
    return -math.log1p(math.exp(-logit)) if logit >= 0 else logit - math.log1p(math.exp(logit))


def finite(value: Any) -> Any:
    """Plain data without numbers that JSON can't hold."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

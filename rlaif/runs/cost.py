"""What labels cost: by the hour, by the token, and beside people's.  Pure arithmetic."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

HUMAN_PRICE = 1.0


@dataclass(frozen=True)
class TokenUsage:
    """What the judge read and wrote for a run, over all its processes.

    Attributes:
        computed: prompt tokens that the engine computed.
        cached: prompt tokens that it had computed before.
        written: tokens of reasoning.
    """

    computed: int = 0
    cached: int = 0
    written: int = 0

    def plus(self, other: TokenUsage) -> TokenUsage:
        """Both together."""
        return TokenUsage(
            self.computed + other.computed,
            self.cached + other.cached,
            self.written + other.written,
        )

    def less(self, other: TokenUsage) -> TokenUsage:
        """What came after `other`."""
        return TokenUsage(
            self.computed - other.computed,
            self.cached - other.cached,
            self.written - other.written,
        )

    def times(self, factor: float) -> TokenUsage:
        """So many times as much, in whole tokens."""
        return TokenUsage(
            round(self.computed * factor), round(self.cached * factor), round(self.written * factor)
        )


@dataclass(frozen=True)
class Prices:
    """In any one currency.

    Attributes:
        per_hour: of the machine.
        computed, cached, written: of a million tokens of each kind.
        human: of one label by a person, for comparison.
        most: what a run may cost before it stops; None for any amount.
    """

    per_hour: float | None = None
    computed: float | None = None
    cached: float | None = None
    written: float | None = None
    human: float = HUMAN_PRICE
    most: float | None = None

    def are_spent(self, *, seconds: float, tokens: TokenUsage) -> bool:
        """Whether a run has cost what it may."""
        if self.most is None:
            return False
        cost = cost_of(self, seconds=seconds, tokens=tokens, labels=0)
        return cost is not None and cost["total"] >= self.most

    @property
    def known(self) -> bool:
        """Whether anything has a price."""
        return self.per_hour is not None or self.computed is not None


def cost_of(
    prices: Prices, *, seconds: float, tokens: TokenUsage, labels: int
) -> dict[str, Any] | None:
    """The cost of a run and of one label; None where nothing has a price.

    Cached tokens cost what computed ones do unless they have a price of their own; written ones
    likewise.
    """
    if not prices.known:
        return None
    machine = (prices.per_hour or 0.0) * seconds / 3600.0
    price = prices.computed or 0.0
    million = (
        tokens.computed * price
        + tokens.cached * (price if prices.cached is None else prices.cached)
        + tokens.written * (price if prices.written is None else prices.written)
    )
    total = machine + million / 1e6
    return {
        "total": round(total, 8),
        "machine": round(machine, 8),
        "tokens": round(million / 1e6, 8),
        "per_label": total / labels if labels else None,
        "human_per_label": prices.human,
        "human_total": prices.human * labels,
        "prices": {k: v for k, v in asdict(prices).items() if v is not None and k != "most"},
    }

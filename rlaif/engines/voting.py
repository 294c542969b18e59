"""Draws a judge's answer again and again until it is clear, for judges that give no probabilities.

Answers are drawn at a temperature, one after another.  Drawing stops where the posterior
probability that the other label is the likelier one falls to a stated error, or where all votes are
spent.  What comes out is not a winner but a probability: the posterior mean under Jeffreys' prior,
Beta(1/2, 1/2), which when drawing stopped does not change (the likelihood principle).  Its interval
is exact for this way of stopping: every outcome has a known chance for every probability, so the
interval holds the true one at least as often as it says (Clopper and Pearson 1934, for a
sequential plan as in Jennison and Turnbull 1999, chapter 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType

MOST_VOTES = 101
_STEPS = 50


@dataclass(frozen=True)
class VotePlan:
    """When to stop drawing.

    Args:
        most: votes at most.
        error: the posterior probability that the other label is likelier, at which drawing stops.
    """

    most: int
    error: float

    def is_clear(self, first: int, second: int) -> bool:
        """Whether no more votes are needed after so many for each label."""
        if first + second >= self.most:
            return True
        return first != second and _against(max(first, second), min(first, second)) <= self.error

    def least_votes(self, first: int, second: int) -> int:
        """How many more votes are needed whatever they say: before the last of them, drawing can't
        end.
        """
        for more in range(self.most - first - second):
            if self.is_clear(first + more, second) or self.is_clear(first, second + more):
                return more
        return self.most - first - second

    @cached_property
    def outcomes(self) -> Mapping[tuple[int, int], int]:
        """Where drawing may end, and in how many ways it gets there."""
        ends: dict[tuple[int, int], int] = {}
        open_: dict[tuple[int, int], int] = {(0, 0): 1}
        while open_:
            after: dict[tuple[int, int], int] = {}
            for (first, second), ways in open_.items():
                for state in ((first + 1, second), (first, second + 1)):
                    into = ends if self.is_clear(*state) else after
                    into[state] = into.get(state, 0) + ways
            open_ = after
        return MappingProxyType(ends)

    def expected_votes(self, p: float) -> float:
        """How many votes are drawn on average where the first label has probability `p`."""
        return sum(
            ways * p**first * (1 - p) ** second * (first + second)
            for (first, second), ways in self.outcomes.items()
        )

    def error_rate(self, p: float) -> float:
        """How often the label with fewer votes is the likelier one; equal counts are half an
        error.
        """
        wrong = 0.0
        for (first, second), ways in self.outcomes.items():
            chance = ways * p**first * (1 - p) ** second
            if first == second:
                wrong += chance / 2
            elif (first > second) != (p > 0.5):
                wrong += chance
        return wrong

    def interval(self, first: int, second: int, level: float = 0.95) -> tuple[float, float]:
        """Bounds of the first label's probability, given where drawing ended.

        They hold the true probability in at least a share `level` of all cases, whatever it is.

        Raises:
            KeyError: drawing does not end there.
        """
        self.outcomes[first, second]
        tail = (1.0 - level) / 2
        here = posterior_mean(first, second)
        above = [(s, w) for s, w in self.outcomes.items() if posterior_mean(*s) >= here]
        below = [(s, w) for s, w in self.outcomes.items() if posterior_mean(*s) <= here]
        low = 0.0 if not first else _solve(above, tail, rising=True)
        high = 1.0 if not second else _solve(below, tail, rising=False)
        return low, high


def posterior_mean(first: int, second: int) -> float:
    """The first label's probability after so many votes for each."""
    return (first + 0.5) / (first + second + 1.0)


@lru_cache(maxsize=4096)
def _against(more: int, fewer: int) -> float:
    """The posterior probability that the label with fewer votes is the likelier one."""
    from scipy.special import betainc  # noqa: PLC0415 - only where votes are drawn

    return float(betainc(more + 0.5, fewer + 0.5, 0.5))


def _solve(outcomes: list[tuple[tuple[int, int], int]], tail: float, *, rising: bool) -> float:
    """The probability at which these outcomes together have a chance of `tail`."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        p = (low + high) / 2
        chance = sum(ways * p**one * (1 - p) ** two for (one, two), ways in outcomes)
        if (chance < tail) == rising:
            low = p
        else:
            high = p
    return (low + high) / 2

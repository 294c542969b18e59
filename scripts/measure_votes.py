"""What votes cost and miss, exactly: every way in which drawing may end, for judges as sure and
unsure as Beta(1/2, 1/2) has them.

    python scripts/measure_votes.py
"""

from __future__ import annotations

import math

from rlaif.engines.voting import VotePlan

GRID = [(k + 0.5) / 1000 for k in range(1000)]
PLANS = [(5, 0.1), (9, 0.05), (15, 0.05), (15, 0.02), (31, 0.02)]


def majority_error(votes: int, p: float) -> float:
    """How often the majority of a fixed odd number of votes is wrong."""
    likely = max(p, 1 - p)
    return sum(
        math.comb(votes, k) * likely**k * (1 - likely) ** (votes - k) for k in range(votes // 2 + 1)
    )


def main() -> None:
    """Print a row for each plan."""
    weights = [1 / math.sqrt(p * (1 - p)) for p in GRID]
    total = sum(weights)

    def mean(values: list[float]) -> float:
        return sum(w * v for w, v in zip(weights, values, strict=True)) / total

    print("votes  stop at  drawn  wrong  fixed number for the same  saved  least coverage of 95%")
    for most, error in PLANS:
        plan = VotePlan(most, error)
        wrong = mean([plan.error_rate(p) for p in GRID])
        drawn = mean([plan.expected_votes(p) for p in GRID])
        fixed = next(
            m for m in range(1, 199, 2) if mean([majority_error(m, p) for p in GRID]) <= wrong
        )
        bounds = {state: plan.interval(*state) for state in plan.outcomes}
        coverage = min(
            sum(
                ways * p**a * (1 - p) ** b
                for (a, b), ways in plan.outcomes.items()
                if bounds[a, b][0] <= p <= bounds[a, b][1]
            )
            for p in GRID[::5]
        )
        print(
            f"{most:5d}  {error:7g}  {drawn:5.2f}  {wrong:5.3f}  {fixed:25d}  "
            f"{1 - drawn / fixed:5.0%}  {coverage:22.3f}"
        )


if __name__ == "__main__":
    main()

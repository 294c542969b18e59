"""Turns a prompt with n completions into the pairs to be judged."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Literal

from rlaif.data.messages import BadRow
from rlaif.data.row_model import DataRow
from rlaif.records import Pair, Picture

PairingMode = Literal["all", "best", "sample"]


def make_pairs(
    row: DataRow,
    row_id: str,
    *,
    mode: PairingMode = "all",
    count: int = 1,
    seed: int = 0,
    number: int = 0,
    pictures: tuple[Picture, ...] = (),
    share_weight: bool = False,
) -> Iterator[Pair]:
    """The pairs of one row.

    Args:
        number: the row's place in the input, kept with each pair.
        pictures: of the prompt.
        row_id: names the pairs; drawn into the seed, so that adding rows changes no other's.
        mode: "all" n(n-1)/2 pairs; "best": the completion with the best score in the data
            against each other one; "sample": `count` of all pairs, drawn by `seed`.
        share_weight: the row's weight is shared among its pairs; else each pair has it.

    Raises:
        BadRow: fewer than two completions, or "best" without scores.

    Long because it fills one field of a record after the other.
    """
    n = len(row.completions)
    if n < 2:
        raise BadRow("fewer than two completions")
    chosen: Iterable[tuple[int, int]] = combinations(range(n), 2)
    total = n * (n - 1) // 2
    if mode == "sample" and total > count:
        drawn = set(random.Random(f"{seed}/{row_id}").sample(range(total), count))
        chosen = (pair for k, pair in enumerate(chosen) if k in drawn)
    elif mode == "best" and n > 2:
        scores = [c.score for c in row.completions]
        known = [s for s in scores if s is not None]
        if len(known) < n:
            raise BadRow("--pairs best needs a finite score for every completion")
        best = known.index(min(known) if row.ranked else max(known))
        chosen = ((best, i) for i in range(n) if i != best)
    made = list(chosen)
    weight = row.weight / len(made) if share_weight else row.weight
    for i, j in made:
        one, two = row.completions[i], row.completions[j]
        name = row_id if n == 2 else f"{row_id}/{i}-{j}"
        yield Pair(
            id=name,
            prompt=row.prompt,
            a=one.messages,
            b=two.messages,
            origin_a=one.origin,
            origin_b=two.origin,
            tags=row.tags,
            row=number,
            depth=max(one.depth, two.depth),
            weight=weight,
            origins=(row.prompt_origin, one.source, two.source),
            tools=row.tools,
            pictures=pictures,
            reference=row.reference,
            criteria=row.criteria,
            language=row.language,
        )

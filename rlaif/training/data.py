"""Gathers training rows and accounts for every one that will not be trained on whole."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif.errors import RlaifError
from rlaif.records import Message, Rejected
from rlaif.stages.layouts import BadRow, read_row
from rlaif.store.sources import open_source

TokenLengths = Callable[[Sequence[Message], Sequence[Message]], tuple[int, int]]
"""(prompt, completion) messages to (tokens of the prompt, tokens of both)."""


@dataclass(frozen=True)
class TrainingRow:
    """One preference as the trainer takes it."""

    id: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    p_chosen: float
    source: str


@dataclass
class Account:
    """Where the rows went; every count that is not zero is told before training starts."""

    labeled: int = 0
    below_margin: int = 0
    human_available: int = 0
    human_used: int = 0
    human_unreadable: int = 0
    prompt_too_long: list[str] = field(default_factory=list)
    truncated: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    trained: int = 0

    def lines(self) -> list[str]:
        """One sentence for each thing that happened to rows."""
        lines = [f"{self.labeled} labeled pairs"]
        if self.below_margin:
            lines.append(f"{self.below_margin} left out: margin below min_margin")
        if self.human_used:
            lines.append(f"{self.human_used} of {self.human_available} human pairs mixed in")
        if self.human_unreadable:
            lines.append(f"{self.human_unreadable} human rows could not be read")
        named = (
            (self.prompt_too_long, "left out: the prompt alone fills max_length"),
            (self.dropped, "left out: longer than max_length"),
            (self.truncated, "truncated to max_length"),
        )
        for ids, what in named:
            if ids:
                shown = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
                lines.append(f"{len(ids)} {what} ({shown})")
        return [*lines, f"{self.trained} pairs to train on"]


def read_preferences(run: Path) -> list[TrainingRow]:
    """The decided pairs of a run.

    Raises:
        RlaifError: the run decided nothing, or its file is damaged.
    """
    file = run / "preferences.jsonl"
    rows = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row: dict[str, Any] = json.loads(line)
                rows.append(
                    TrainingRow(
                        row["provenance"]["id"],
                        row["prompt"],
                        row["chosen"],
                        row["rejected"],
                        float(row["p_chosen"]),
                        "judge" if row["provenance"]["status"] == "decided" else "human",
                    )
                )
            except (ValueError, KeyError, TypeError) as error:
                raise RlaifError(
                    f"{file}:{number}: not a preference row ({type(error).__name__}: {error})",
                    hint="Label again into a new folder; verdicts come from the cache.",
                ) from None
    if not rows:
        raise RlaifError(
            f"run {str(run)!r} has no decided pair", hint="See `rlaif report` for the reasons."
        )
    return rows


def read_labeled(data: str) -> tuple[list[TrainingRow], int]:
    """Already labeled pairs from any file that `label` reads, and how many rows were unreadable.

    Raises:
        RlaifError: the file can't be read, or holds no row with chosen and rejected.
    """
    rows, bad = [], 0
    for number, (_, raw) in enumerate(open_source(data).rows(), 1):
        try:
            if isinstance(raw, Rejected):
                raise BadRow(raw.reason)
            row = read_row(raw)
            if not row.labeled:
                raise BadRow("no chosen and rejected")
        except BadRow:
            bad += 1
            continue
        chosen, rejected = row.completions
        p = raw.get("p_chosen")
        rows.append(
            TrainingRow(
                row.id or f"human-{number}",
                row.prompt,
                chosen.messages,
                rejected.messages,
                float(p) if isinstance(p, int | float) and 0.5 < p <= 1 else 1.0,
                "human",
            )
        )
    if not rows:
        raise RlaifError(
            f"{data!r} has no row with prompt, chosen and rejected", hint="Check its columns."
        )
    return rows, bad


def mix(
    judged: list[TrainingRow], human: list[TrainingRow], fraction: float, seed: int
) -> tuple[list[TrainingRow], int]:
    """Judged rows plus so many human ones, drawn by `seed`, that they make up `fraction`.

    Returns:
        The rows, shuffled by `seed`, and how many human ones are among them.

    Raises:
        RlaifError: there are too few human rows for the fraction.
    """
    wanted = round(len(judged) * fraction / (1.0 - fraction))
    if wanted > len(human):
        reachable = len(human) / (len(human) + len(judged))
        raise RlaifError(
            f"human_fraction {fraction:g} needs {wanted} human pairs; there are {len(human)}",
            hint=f"Set it to at most {reachable:.3f}, or label fewer pairs.",
        )
    rng = random.Random(seed)
    rows = [*judged, *rng.sample(human, wanted)]
    rng.shuffle(rows)
    return rows, wanted


def check_lengths(
    rows: list[TrainingRow],
    lengths: TokenLengths,
    *,
    max_length: int,
    overlong: str,
    account: Account,
) -> list[TrainingRow]:
    """Find what TRL would filter or cut in silence, name it in `account`, and give the rest.

    Raises:
        RlaifError: `overlong` is "error" and a pair is too long, or no row is left.
    """
    kept = []
    for row in rows:
        prompt, chosen = lengths(row.prompt, row.chosen)
        _, rejected = lengths(row.prompt, row.rejected)
        longest = max(chosen, rejected)
        if longest > max_length and overlong == "error":
            raise RlaifError(
                f"pair {row.id!r} has {longest} tokens, more than max_length {max_length}",
                hint="Raise max_length, or set overlong to truncate or drop.",
            )
        if prompt >= max_length:
            account.prompt_too_long.append(row.id)
        elif longest > max_length and overlong == "drop":
            account.dropped.append(row.id)
        else:
            if longest > max_length:
                account.truncated.append(row.id)
            kept.append(row)
    if not kept:
        raise RlaifError(
            "no pair is short enough to train on", hint=f"Raise max_length (now {max_length})."
        )
    account.trained = len(kept)
    return kept

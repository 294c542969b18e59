"""Mixes data sets in stated shares: behind `rlaif mix`."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.errors import RlaifError
from rlaif.records import Rejected
from rlaif.store.run_directory import write_atomically
from rlaif.store.sources import open_source

MIXED, REPORT = "mixed.jsonl", "mix.json"


@dataclass(frozen=True)
class Part:
    """One data set of a mix: `share` of the rows that come out."""

    data: str
    share: float


@dataclass(frozen=True)
class MixReport:
    """What was taken.

    Attributes:
        taken, available: rows by data set.
        rejected: rows that could not be read.
    """

    taken: dict[str, int]
    available: dict[str, int]
    rejected: int


def read_parts(given: Mapping[str, str]) -> list[Part]:
    """Parts from `DATA=SHARE` texts; shares are made to sum to 1.

    Raises:
        RlaifError: a share is no positive number.
    """
    parts = []
    for data, text in given.items():
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 0 < number < 1e9:
            raise RlaifError(f"share {text!r} of {data!r} is no positive number", hint="Write 0.8.")
        parts.append(Part(data, number))
    total = sum(part.share for part in parts)
    return [Part(part.data, part.share / total) for part in parts]


def mix(
    parts: list[Part], out: Path, *, total: int | None, seed: int, human: Sequence[str] = ()
) -> MixReport:
    """Write `out/mixed.jsonl`: rows drawn without replacement, shuffled, each as it came with
    `mixed_from` added.

    Args:
        total: rows wanted; default: as many as the smallest supply allows.
        human: data sets whose rows people wrote: those without an origin get a human one.

    Raises:
        RlaifError: a data set can't be read or has too few rows.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    rejected = 0
    for part in parts:
        rows[part.data] = []
        for _, row in open_source(part.data).rows():
            if isinstance(row, Rejected):
                rejected += 1
            else:
                origin = {"origin": {"kind": "human", "depth": 0}} if part.data in human else {}
                rows[part.data].append({**origin, **row})
    supply = min(len(rows[part.data]) / part.share for part in parts)
    wanted = int(supply + 1e-9) if total is None else total
    counts = _whole_numbers([part.share * wanted for part in parts], wanted)
    for part, count in zip(parts, counts, strict=True):
        if count > len(rows[part.data]):
            raise RlaifError(
                f"{part.data!r} has {len(rows[part.data])} rows, and {wanted} rows with a share of "
                f"{part.share:.1%} need {count}",
                hint=f"Ask for at most --total {int(supply)}, or give it a smaller share.",
            )
    if not wanted:
        raise RlaifError("one of the data sets has no rows", hint="Leave it out.")
    rng = random.Random(seed)
    mixed = [
        {**row, "mixed_from": part.data}
        for part, count in zip(parts, counts, strict=True)
        for row in rng.sample(rows[part.data], count)
    ]
    rng.shuffle(mixed)
    report = {p.data: p.share for p in parts}
    if out.is_dir() and any(out.iterdir()):
        before = _report(out)
        if before is None:
            raise RlaifError(
                f"{str(out)!r} holds files but no mix", hint="Name a new folder with -o."
            )
        if before != report:
            raise RlaifError(
                f"{str(out)!r} holds another mix ({', '.join(before)})",
                hint="Name a new folder with -o.",
            )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / REPORT, json.dumps(report, indent=2))
    write_atomically(out / MIXED, "".join(json.dumps(row) + "\n" for row in mixed))
    names = [part.data for part in parts]
    return MixReport(
        dict(zip(names, counts, strict=True)), {n: len(rows[n]) for n in names}, rejected
    )


def _report(out: Path) -> dict[str, float] | None:
    """The shares of the mix that a folder holds, or None."""
    try:
        found = json.loads((out / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _whole_numbers(values: list[float], total: int) -> list[int]:
    """Rounded so that they sum to `total` (largest remainders first)."""
    floors = [int(v + 1e-9) for v in values]
    order = sorted(range(len(values)), key=lambda i: floors[i] - values[i])
    for i in order[: total - sum(floors)]:
        floors[i] += 1
    return floors

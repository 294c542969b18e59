"""A run in parts: how its input is cut, where its parts are, whose answers it takes over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.data.cutting import cut_source
from rlaif.data.sources import Source
from rlaif.errors import RlaifError
from rlaif.runs.directory import CONFIG
from rlaif.runs.parts import (
    PartIndex,
    claim_folder,
    has_parts,
    load_finished,
    load_index,
    part_folder,
)
from rlaif.util.hashing import digest


@dataclass(frozen=True)
class PartPlan:
    """How a run in parts was asked for.

    Attributes:
        rows: of the input in a part.
        where: URL or folder of the parts; "" for the one in the run.
        answers_from: runs of the same data in the same parts, whose answers are taken over.
    """

    rows: int
    where: str = ""
    answers_from: tuple[Path, ...] = ()


def index_parts(
    out: Path,
    source: Source,
    config: Mapping[str, Any],
    plan: PartPlan | None,
    limit: int | None,
) -> PartIndex | None:
    """How a run's input is cut: as it was when the run began, or anew; None for no parts.

    A run that was begun is resumed without reading its input.

    Raises:
        RlaifError: the input can't be cut, the run was begun in another way, or an earlier run has
            other parts.
    """
    begun = (out / CONFIG).exists()
    if begun and has_parts(out) != (plan is not None):
        was = "with" if has_parts(out) else "without"
        raise RlaifError(
            f"run {str(out)!r} was started {was} --part-rows",
            hint="Use the same flags to resume, or a new folder with -o.",
        )
    if plan is None:
        return None
    if begun:
        index = load_index(out)
        for flag, was, now in (
            ("--part-rows", str(index.rows), str(plan.rows)),
            ("--parts-at", index.where, plan.where),
        ):
            if was != now:
                raise RlaifError(
                    f"run {str(out)!r} was started with {flag} {was or '(none)'}",
                    hint="Use the same flags to resume, or a new folder with -o.",
                )
    else:
        cuts = [part.to_data() for part in cut_source(source, plan.rows, limit)]
        index = PartIndex(plan.rows, plan.where, str(config["input"]["hash"]), cuts)
    find_earlier(index, plan.answers_from)
    if index.where:  # before the engine starts; that the run's own can be written is known
        claim_parts(index, out, config)
    return index


def claim_parts(index: PartIndex, out: Path, config: Mapping[str, Any]) -> None:
    """Make the folder of a run's parts, or see that it is that run's.

    Raises:
        RlaifError: see `claim_folder`.
    """
    claim_folder(index.folder(out), digest([dict(config), index.spans]))


def find_earlier(index: PartIndex, runs: Iterable[Path]) -> dict[int, tuple[str, ...]]:
    """Of each part, the folders with its answers in other runs.

    Raises:
        RlaifError: a run is not in parts, or its parts have other rows.
    """
    found: dict[int, tuple[str, ...]] = {}
    for run in runs:
        if not has_parts(run):
            raise RlaifError(
                f"--answers-from {run}: is not a run in parts",
                hint="Name a run that was made with --part-rows. Answers of other runs are in the "
                "verdict cache, which is used without --part-rows.",
            )
        theirs = load_index(run)
        if (theirs.input, theirs.spans) != (index.input, index.spans):
            what = "other data" if theirs.input != index.input else "other parts"
            raise RlaifError(
                f"--answers-from {run}: was made from {what}",
                hint=f"Use the same data, --limit and --part-rows {theirs.rows}.",
            )
        folder = theirs.folder(run.absolute())
        for part, record in load_finished(run).items():
            path = str(part_folder(folder, part) / record.attempt)
            found[part] = (*found.get(part, ()), path)
    return found

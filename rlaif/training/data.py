"""Gathers training rows and accounts for every one that will not be trained on whole."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Json, Value

from rlaif.data.dataset import explained_without_flags, open_dataset
from rlaif.data.layout import OWN_PREFERENCES
from rlaif.data.mixes import DATA_FILE, REPORT, read_mix
from rlaif.data.reading import Reader
from rlaif.data.row_model import refuse_media
from rlaif.data.single_rows import BadRow, read_p_chosen, row_weight, taught
from rlaif.data.sources import open_source
from rlaif.errors import ConversationRefused, Place, RlaifError
from rlaif.records import Message, Origin, Rejected
from rlaif.runs.directory import MANIFEST, read_manifest
from rlaif.runs.labels import damaged_row, read_label_file
from rlaif.training.lengths import LengthAccount, LengthFilter
from rlaif.training.policy_text import PolicyText, shown


@dataclass(frozen=True)
class TrainingRow:
    """One preference as the trainer takes it.

    Attributes:
        source: "judge" or "human": whose label it is.
        origins: of prompt, chosen and rejected; empty where nobody kept them.
        judge: the model whose label it is.
        tags: of its prompt.
        tools: definitions of the tools that could be called.
        stated_margin: of the label, as its judge gave it; None where the row says none.
    """

    id: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    p_chosen: float
    source: str
    depth: int = 0
    weight: float = 1.0
    origins: tuple[Origin, ...] = ()
    judge: str = ""
    tags: frozenset[str] = frozenset()
    tools: Sequence[Any] = ()
    stated_margin: float | None = None

    @property
    def margin(self) -> float:
        """How sure the label is, whatever of it is learned: |2p - 1|."""
        return 2 * self.p_chosen - 1 if self.stated_margin is None else self.stated_margin


def _margin_of(evidence: Mapping[str, Any]) -> float | None:
    margin = evidence.get("margin")
    good = isinstance(margin, int | float) and not isinstance(margin, bool)
    return float(margin) if good and 0.0 <= margin <= 1.0 else None  # type: ignore[operator, arg-type]


@dataclass
class RowAccount(LengthAccount):
    """Where the rows went; every count that is not zero is told before training starts."""

    labeled: int = 0
    below_margin: int = 0
    human_available: int = 0
    human_used: int = 0
    human_unreadable: int = 0

    def lines(self) -> list[str]:
        """One sentence for each thing that happened to rows."""
        lines = [f"{self.labeled} labeled pairs"]
        if self.below_margin:
            lines.append(f"{self.below_margin} skipped: margin below min_margin")
        if self.repeated_by_weight:
            lines.append(f"{self.repeated_by_weight} rows after repeating them by weight")
        if self.human_used and not self.human_available:
            lines.append(f"{self.human_used} of them human-labeled")
        elif self.human_used:
            lines.append(f"{self.human_used} of {self.human_available} human pairs mixed in")
        if self.human_unreadable:
            lines.append(
                f"{self.human_unreadable} human rows skipped: unreadable, of weight 0, or "
                "labeled by a judge"
            )
        lines += self.text_lines()
        named = self.length_facts()
        lines += [f"{len(ids)} {what} ({shown(ids)})" for ids, what in named if ids]
        return [*lines, f"{self.trained} pairs to train on"]


@dataclass(frozen=True)
class LabelFiles:
    """Where the preferences of a training are.

    Attributes:
        manifest: of the labeling run, or the report of the mix.
        evidence: the file that the manifest is.
        decided: how many preferences there are.
    """

    path: Path
    file: Path
    evidence: Path
    manifest: Mapping[str, Any]
    decided: int

    @property
    def mixed(self) -> bool:
        """Whether it is a mix."""
        return self.evidence.name == REPORT


def find_labels(path: Path) -> LabelFiles:
    """The preferences of a labeling run, or of a mix.

    Raises:
        RlaifError: there are none, or the run is not complete.
    """
    mixed = read_mix(path)
    if mixed is None:
        manifest = read_manifest(path)
        decided = manifest["counts"].get("decided")
        if decided is None:
            raise RlaifError(
                f"run {str(path)!r} contains no preferences",
                hint="Use the output folder of `rlaif label` or `rlaif mix`.",
            )
        file = path / "preferences.jsonl"
        return LabelFiles(
            path=path, file=file, evidence=path / MANIFEST, manifest=manifest, decided=int(decided)
        )
    if mixed["kind"] != "preferences":
        raise RlaifError(
            f"mix {str(path)!r} contains {mixed['kind']}, not preferences",
            hint="Train on it with `rlaif train-sft`, or mix preference pairs.",
        )
    return LabelFiles(
        path=path,
        file=path / DATA_FILE,
        evidence=path / REPORT,
        manifest=mixed,
        decided=int(mixed["rows"]),
    )


_OWN = Reader(OWN_PREFERENCES)


def read_preferences(labels: LabelFiles) -> list[TrainingRow]:
    """The decided pairs of a run or a mix.

    Raises:
        RlaifError: the run decided nothing, or its file is damaged.
    """
    run, file, decided = labels.path, labels.file, labels.decided
    rows = []
    data = (label.data for label in read_label_file(file))
    for number, row in enumerate(_mixed_rows(file) if labels.mixed else data, 1):
        if row.get("images"):
            raise RlaifError(
                "has pictures, which train-dpo does not pass on",
                hint="Leave such rows out, or use `rlaif export` for another trainer.",
                place=Place(file, number, 1),
            )
        try:
            rows.append(_training_row(row))
        except BadRow as error:
            raise damaged_row(file, number, str(error)) from None
    if len(rows) != decided:
        raise RlaifError(
            f"{file} has {len(rows)} rows, but its manifest says {decided}",
            hint="Label again into a new folder; cached verdicts are reused.",
        )
    if not rows:
        raise RlaifError(
            f"run {str(run)!r} has no decided pairs", hint="See `rlaif report` for the reasons."
        )
    return rows


def _mixed_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    for place, row in open_source(str(file)).rows():
        if isinstance(row, Rejected):
            raise RlaifError(
                f"{file}, {place}: {row.reason}", hint="Run `rlaif mix` again into a new folder."
            )
        yield row


def _training_row(row: Mapping[str, Any]) -> TrainingRow:
    read = refuse_media(_OWN.read(row))
    evidence, p = row.get("provenance"), read_p_chosen(row)
    if not read.labeled or not isinstance(evidence, dict) or p is None:
        raise BadRow("not a preference row with prompt, chosen, rejected, p_chosen, and provenance")
    chosen, rejected = (c.messages for c in read.completions)
    if chosen == rejected:
        raise BadRow("chosen equals rejected")
    status = "human" if evidence.get("status") == "human" else "judge"
    depth = evidence.get("depth", 0)
    return TrainingRow(
        id=str(evidence.get("id")),
        prompt=read.prompt,
        chosen=chosen,
        rejected=rejected,
        p_chosen=p,
        source=status,
        depth=depth if isinstance(depth, int) else 0,
        weight=row_weight(evidence),
        origins=(read.prompt_origin, *(c.source for c in read.completions)),
        judge=str(evidence.get("judge") or "") if status == "judge" else "",
        stated_margin=_margin_of(evidence),
        tags=read.tags,
        tools=read.tools,
    )


def read_human_pairs(data: str, default_p: float = 1.0) -> tuple[list[TrainingRow], int]:
    """Already labeled pairs from any file that `label` reads, and how many rows were unreadable.

    Raises:
        RlaifError: the file can't be read, or holds no row with chosen and rejected.
    """
    rows, bad = [], 0
    with explained_without_flags(data):
        found = open_dataset(data, need="verdict")
    for number, (_, raw) in enumerate(found.source.rows(), 1):
        try:
            if isinstance(raw, Rejected):
                raise BadRow(raw.reason)
            row = taught(refuse_media(found.reader.read(raw)), raw)
            if not row.labeled:
                raise BadRow("no chosen and rejected")
            chosen, rejected = (c.messages for c in row.completions)
            if chosen == rejected:
                raise BadRow("chosen equals rejected")
            if row.weight == 0:
                raise BadRow("its weight is 0")
            evidence = raw.get("provenance")
            evidence = evidence if isinstance(evidence, Mapping) else {}
            if evidence.get("judge") and evidence.get("status") != "human":
                raise BadRow("a judge labeled it")
            p = read_p_chosen(raw)
            if p == 0.5:
                raise BadRow("p_chosen is 0.5: nothing was preferred")
        except BadRow:
            bad += 1
            continue
        name = row.id or f"human-{number}"
        p = default_p if p is None else p
        origins = (row.prompt_origin, *(c.source for c in row.completions))
        depth = max(origin.depth for origin in origins)
        rows.append(
            TrainingRow(
                id=name,
                prompt=row.prompt,
                chosen=chosen,
                rejected=rejected,
                p_chosen=p,
                source="human",
                depth=depth,
                weight=row.weight,
                origins=origins,
                tags=row.tags,
                tools=row.tools,
            )
        )
    if not rows:
        raise RlaifError(
            f"{data!r} has no human-labeled row with prompt, chosen, and rejected",
            hint="Check its columns; rows labeled by a judge do not count.",
        )
    return rows, bad


def mix_in_human(
    judged: list[TrainingRow], human: list[TrainingRow], fraction: float, seed: int
) -> tuple[list[TrainingRow], int]:
    """Judged rows plus so many human ones, drawn by `seed`, that they make up `fraction`.

    Returns:
        The rows, shuffled by `seed`, and how many human ones are among them.

    Raises:
        RlaifError: there are too few human rows for the fraction.
    """
    # Rounded up: the share is a least one, for the guard too.
    wanted = max(1, math.ceil(len(judged) * fraction / (1.0 - fraction) - 1e-9))
    if wanted > len(human):
        reachable = len(human) / (len(human) + len(judged))
        raise RlaifError(
            f"human_fraction {fraction:g} needs {wanted} human pairs; there are {len(human)}",
            hint=f"Set --human-fraction to {reachable:.3f} or less, or add human pairs.",
        )
    rng = random.Random(seed)
    rows = [*judged, *rng.sample(human, wanted)]
    rng.shuffle(rows)
    return rows, wanted


def check_lengths(
    rows: list[TrainingRow],
    text: PolicyText,
    *,
    max_length: int,
    overlong: str,
    account: RowAccount,
) -> list[TrainingRow]:
    """Find what TRL would filter or cut in silence, name it in `account`, and give the rest.

    Raises:
        RlaifError: `overlong` is "error" and a pair is too long, or no row is left.
    """
    kept = []
    fits = LengthFilter("pair", text, max_length=max_length, overlong=overlong, account=account)
    for row in rows:
        try:
            prompt, chosen, common = text.lengths(row.prompt, row.chosen, row.tools)
            _, rejected, other = text.lengths(row.prompt, row.rejected, row.tools)
        except ConversationRefused:
            account.refused.append(row.id)
            continue
        least, most = min(chosen, rejected), max(chosen, rejected)
        common = min(common, other)
        if fits.keeps(row.id, prompt=prompt, common=common, least=least, most=most):
            kept.append(row)
    if not kept:
        raise RlaifError(
            "no pair is left to train on: " + "; ".join(account.lines()[1:-1]),
            hint=f"Raise --max-length (now {max_length}), or fix the policy's chat template.",
        )
    account.trained = len(kept)
    account.human_used = sum(row.source == "human" for row in kept)
    return kept


def make_dataset(rows: Sequence[Any], columns: Sequence[str]) -> Dataset:
    """Rows as a data set of TRL's, with the column `tools` where any row has some.

    Messages with calls are kept as JSON: as Arrow structs, every call would get the arguments of
    all others (https://huggingface.co/docs/trl, tool calling).

    Args:
        rows: with `columns` and `tools` as attributes.
    """
    found = [{key: getattr(row, key) for key in columns} for row in rows]
    texts = [key for key in columns if found and isinstance(found[0][key], list)]
    calls = any("tool_calls" in turn for row in found for key in texts for turn in row[key])
    if not calls and not any(row.tools for row in rows):
        return Dataset.from_list(found)
    with_tools = [
        {**row, "tools": list(source.tools) or None}
        for row, source in zip(found, rows, strict=True)
    ]
    kinds = {key: Json() if key in texts else Value("float64") for key in columns}
    return Dataset.from_list(with_tools, features=Features({**kinds, "tools": Json()}))

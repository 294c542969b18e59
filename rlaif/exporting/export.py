"""Writes the preferences of a run in another trainer's format: behind `rlaif export`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.data.single_rows import read_p_chosen
from rlaif.errors import RlaifError
from rlaif.exporting.formats import FORMATS, ExportFormat, ExportPair, Misfit
from rlaif.runs.directory import PREFERENCES, read_manifest
from rlaif.runs.labels import LabelRow, read_label_file
from rlaif.util.files import replacing, write_atomically
from rlaif.util.output import check_folder

MARKER = "export.json"


@dataclass
class ExportReport:
    """What an export holds.

    Attributes:
        pairs: that were written; rows: what the format made of them.
        left_out: pairs by the reason why the format can't hold them.
    """

    file: Path
    format: str
    pairs: int = 0
    rows: int = 0
    below_margin: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def export_run(run: Path, out: Path, form: str, *, min_margin: float = 0.0) -> ExportReport:
    """Write the decided pairs of a run into a folder.

    Args:
        form: a name of `FORMATS`.
        min_margin: the least |2p - 1| of a pair that is written.

    Raises:
        RlaifError: `run` is no complete labeling run, decided nothing, or `out` holds other things.
    """
    chosen = FORMATS[form]
    manifest = read_manifest(run)
    if "decided" not in manifest["counts"]:
        raise RlaifError(
            f"run {str(run)!r} contains no preferences", hint="Use the output of `rlaif label`."
        )
    check_folder(out, "export", held=(out / MARKER).exists())
    report = ExportReport(out / f"train.{chosen.ending}", form)
    rows = _rows(run, chosen, min_margin, report)
    out.mkdir(parents=True, exist_ok=True)
    _write(report.file, chosen.ending, rows)
    if not report.pairs:
        reasons = "; ".join(f"{n}: {why}" for why, n in report.left_out.items())
        raise RlaifError(
            f"no pair of {str(run)!r} can be exported as {form} ({reasons or 'none is decided'})",
            hint="Choose another --format, or lower --min-margin.",
        )
    for name, text in chosen.extra(report.file.name).items():
        write_atomically(out / name, text)
    facts = {
        "run": str(run),
        "format": form,
        "pairs": report.pairs,
        "rows": report.rows,
        "left_out": dict(report.left_out),
        "config": manifest["config"],
    }
    write_atomically(out / MARKER, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return report


def _rows(
    run: Path, form: ExportFormat, min_margin: float, report: ExportReport
) -> Iterator[dict[str, Any]]:
    for label in read_label_file(run / PREFERENCES):
        if label.margin < min_margin:
            report.below_margin += 1
            continue
        try:
            rows = list(form.rows(_pair(label)))
        except Misfit as error:
            report.left_out[str(error)] += 1
            continue
        report.pairs += 1
        report.rows += len(rows)
        yield from rows


def _pair(label: LabelRow) -> ExportPair:
    if label.data.get("images"):
        raise Misfit("it has pictures, which exports do not hold")
    chosen, rejected = label.sides
    return ExportPair(
        id=label.id,
        prompt=label.prompt,
        chosen=chosen,
        rejected=rejected,
        p_chosen=read_p_chosen(label.data) or 1.0,
        tools=label.data.get("tools", ()),
    )


def _write(path: Path, ending: str, rows: Iterator[dict[str, Any]]) -> None:
    if ending == "parquet":
        with replacing(path, "wb") as sink:
            pq.write_table(pa.Table.from_pylist(list(rows)), sink)
        return
    with replacing(path) as file:
        if ending == "json":
            json.dump(list(rows), file, ensure_ascii=False, indent=1)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

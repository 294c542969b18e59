"""Mixes data sets into one to train on: behind `rlaif mix`.

The folder holds the rows as Parquet under `data/`, a data card as `README.md`, and `mix.json` with
all that was counted: a `datasets` directory, ready for the hub.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif.data.dataset import explained_without_flags, open_dataset
from rlaif.data.licensing import LicenseBook, LicenseFinding, check, uses
from rlaif.data.mixes import CARD, DATA_FILE, REPORT, read_mix
from rlaif.data.row_model import DataRow
from rlaif.data.single_rows import BadRow
from rlaif.data.sources import open_evaluation, open_source
from rlaif.errors import RlaifError
from rlaif.mixing.card import data_card
from rlaif.mixing.cleaning import CleanedRows, clean
from rlaif.mixing.drawing import draw, weight_share
from rlaif.mixing.evidence import RunEvidence, evidence
from rlaif.mixing.report import MixReport
from rlaif.mixing.rows import MixRow, as_kind, file_of, read_part
from rlaif.mixing.schema import schema_of
from rlaif.mixing.settings import MixKind, MixPlan
from rlaif.records import Origin, Rejected
from rlaif.runs.directory import differences, read_review
from rlaif.runs.judges import Judges, joined, judge_columns, judges_of, labelers
from rlaif.runs.unfinished_marker import is_unfinished, mark_unfinished
from rlaif.templates.messages import completion_text, message_text
from rlaif.text.contamination import Contamination
from rlaif.text.novelty import words
from rlaif.util.clock import utc_now
from rlaif.util.file_sizes import check_sizes, measure_sizes
from rlaif.util.files import replacing, write_atomically
from rlaif.util.hashing import digest, file_digest
from rlaif.util.output import check_folder, check_same

UNREADABLE_SHOWN = 3


def mix(plan: MixPlan, out: Path, book: LicenseBook) -> tuple[MixReport, list[LicenseFinding]]:
    """Mix, or report the mix that `out` holds already.

    Raises:
        RlaifError: data can't be read, the shares and quotas can't be had from it, people wrote too
            little of it, or `out` holds something else.

    Long because it is a pipeline of named steps: read, clean, allocate, draw, write.
    """
    config = _config(plan, book)
    before = _before(out, config)
    if before is not None:
        return before, before.findings
    judges = joined(judges_of(part.data) for part in plan.parts)
    settings = plan.settings
    rows, unreadable = _read(plan)
    kind = _kind(rows, settings.kind)
    rows, misfits = _made_into(rows, kind)
    available = Counter(row.part for row in rows)
    for number, part in enumerate(plan.parts):
        if not available[number]:
            raise RlaifError(
                f"no row of {part.data!r} can be converted to {kind}",
                hint="Leave it out, or use another --kind.",
            )
    cleaned = clean(rows, settings.near_duplicate, _contamination(plan))
    chosen, slices, factor = draw(plan, cleaned.rows)
    random.Random(settings.seed).shuffle(chosen)
    found = check(book, uses(_texts(chosen, judges)))
    report = MixReport(
        kind=kind,
        rows=len(chosen),
        parts=_parts(
            plan=plan,
            config=config,
            chosen=chosen,
            available=available,
            cleaned=cleaned,
            unreadable=unreadable,
            misfits=misfits,
        ),
        human_written=weight_share(chosen, [row.human_written for row in chosen]),
        human_labeled=weight_share(chosen, [row.human_labeled for row in chosen]),
        human_factor=factor,
        labels=dict(Counter(row.labeled_by or "nobody" for row in chosen)),
        slices=slices,
        origins=dict(Counter(_writers(row) for row in chosen)),
        depths=dict(sorted(Counter(str(row.depth) for row in chosen).items())),
        licenses=dict(
            Counter(o.license or "unknown" for row in chosen for o in row.origins).most_common()
        ),
        licenses_found=[finding.facts for finding in found],
        judges=judge_columns(_asked(judges, chosen)),
        opposed=cleaned.opposed,
        made=utc_now(),
    )
    _write(
        plan=plan,
        out=out,
        config=config,
        rows=chosen,
        report=report,
        runs=[e for p in plan.parts for e in evidence(p.data)],
    )
    return report, found


def _config(plan: MixPlan, book: LicenseBook) -> dict[str, Any]:
    parts = [
        {
            **part.model_dump(mode="json"),
            "hash": open_source(file_of(part.data), part.split).fingerprint(),
            "review": digest(read_review(Path(part.data))),
        }
        for part in plan.parts
    ]
    evaluations = {name: open_evaluation(name).fingerprint() for name in plan.evaluations}
    own = plan.model_dump(mode="json", exclude={"parts", "evaluations"})
    return {
        "format": 4,
        **own,
        "parts": parts,
        "evaluations": evaluations,
        "licenses": digest(book.model_dump(mode="json")),
    }


def _before(out: Path, config: Mapping[str, Any]) -> MixReport | None:
    """The same mix, made before.

    Raises:
        RlaifError: `out` holds another one, or something else.
    """
    saved = read_mix(out)
    check_folder(out, "mix", held=saved is not None or is_unfinished(out))
    if saved is None:
        return None
    check_same(out, "mix", differences(saved["config"], config))
    own = {k: v for k, v in saved.items() if k not in ("config", "runs", "bytes")}
    check_sizes(out, saved.get("bytes"), f"Remove {str(out)!r} to make the mix again.")
    whole = all((out / name).exists() for name in (DATA_FILE, CARD))
    return MixReport(**own) if whole else None


def _read(plan: MixPlan) -> tuple[list[MixRow], dict[int, list[str]]]:
    rows: list[MixRow] = []
    unreadable: dict[int, list[str]] = {}
    for number, part in enumerate(plan.parts):
        found, unreadable[number] = read_part(number, part)
        if not found:
            last = unreadable[number][-1:]
            raise RlaifError(
                f"no usable row in {part.data!r}" + (f" (last error: {last[0]})" if last else ""),
                hint="Leave it out, or check its column names.",
            )
        rows += found
    return rows, unreadable


def _kind(rows: Sequence[MixRow], wanted: str) -> MixKind:
    if wanted in ("preferences", "sft", "prompts"):
        return wanted  # type: ignore[return-value]
    fewest: dict[int, int] = {}
    for row in rows:
        most = max(fewest.get(row.part, 0), len(row.completions))
        fewest[row.part] = most
    kinds: list[MixKind] = ["prompts", "sft", "preferences"]
    return kinds[min(fewest.values())]


def _made_into(rows: Sequence[MixRow], kind: MixKind) -> tuple[list[MixRow], dict[int, int]]:
    made, misfits = [], Counter[int]()
    for row in rows:
        try:
            made.append(as_kind(row, kind))
        except BadRow:
            misfits[row.part] += 1
    return made, dict(misfits)


def _contamination(plan: MixPlan) -> Contamination | None:
    texts: list[str] = []
    for name in plan.evaluations:
        own: list[str] = []
        with explained_without_flags(name):
            data = open_dataset(open_evaluation(name), need="prompt")
        for place, row in data.source.rows():
            try:
                if isinstance(row, Rejected):
                    raise BadRow(row.reason)
                own += _evaluated(data.reader.read(row), plan.settings.overlap_words)
            except BadRow as error:
                raise RlaifError(
                    f"evaluation dataset {name!r}, {place}: {error}",
                    hint="Repair or remove that row: what can't be read can't be kept out.",
                ) from None
        if not own:
            raise RlaifError(
                f"no prompt in the evaluation dataset {name!r} could be read",
                hint="Each row needs a prompt or a question.",
            )
        texts += own
    return Contamination(texts, plan.settings.overlap_words) if texts else None


def _evaluated(read: DataRow, overlap: int) -> list[str]:
    """What must not be learned from a row of an evaluation: its prompt, and answers that are long
    enough to say something of it.
    """
    answers = [completion_text(c.messages) for c in read.completions]
    turns = "\n".join(map(message_text, read.prompt))
    return [turns, *(text for text in answers if len(words(text)) >= overlap)]


def _asked(judges: Judges, rows: Iterable[MixRow]) -> Judges:
    """The judges whose labels are in the mix."""
    named = {row.labeled_by for row in rows}
    return {name: found for name, found in judges.items() if name in named}


def _texts(rows: Iterable[MixRow], judges: Judges) -> Iterator[tuple[str, Origin, str]]:
    for row in rows:
        for number, origin in enumerate(row.origins):
            yield "completions" if number else "prompts", origin, row.id
        if row.labeled_by not in ("", "human"):
            for origin in labelers(row.labeled_by, judges):
                yield "labels", origin, row.id


def _writers(row: MixRow) -> str:
    """Who wrote the completion to be learned, or the prompt where there is none."""
    origin = row.origins[1] if len(row.origins) > 1 else row.origins[0]
    if origin.kind == "human":
        return "human"
    return origin.model or ("a model" if origin.kind == "model" else "unknown")


def _parts(
    plan: MixPlan,
    config: Mapping[str, Any],
    chosen: Sequence[MixRow],
    available: Mapping[int, int],
    cleaned: CleanedRows,
    unreadable: Mapping[int, Sequence[str]],
    misfits: Mapping[int, int],
) -> list[dict[str, Any]]:
    taken = Counter(row.part for row in chosen)
    return [
        {
            "data": part.data,
            "file": file_of(part.data),
            "hash": config["parts"][i]["hash"],
            "split": part.split,
            "share": plan.shares[i],
            "weight": part.weight,
            "rows": taken[i],
            "available": available.get(i, 0),
            "duplicates": cleaned.duplicates.get(i, 0),
            "contaminated": cleaned.contaminated.get(i, 0),
            "wrong kind": misfits.get(i, 0),
            "unreadable": len(unreadable[i]),
            "first unreadable": list(unreadable[i][:UNREADABLE_SHOWN]),
        }
        for i, part in enumerate(plan.parts)
    ]


def _write(
    plan: MixPlan,
    out: Path,
    config: Mapping[str, Any],
    rows: Sequence[MixRow],
    report: MixReport,
    runs: Sequence[RunEvidence],
) -> None:
    columns = [row.columns(report.kind, plan.parts[row.part].data) for row in rows]
    labels = [asdict(run) for run in runs]
    saved = {**asdict(report), "config": config, "runs": labels}
    file = out / DATA_FILE
    with mark_unfinished(out):
        file.parent.mkdir(exist_ok=True)
        with replacing(file, "wb") as sink:
            pq.write_table(pa.Table.from_pylist(columns, schema=schema_of(report.kind)), sink)
        card = data_card(
            name=out.name, report=report, plan=plan, runs=labels, content=file_digest(file)
        )
        write_atomically(out / CARD, card)
        saved["bytes"] = measure_sizes(out, [DATA_FILE])
        write_atomically(out / REPORT, json.dumps(saved, indent=2, ensure_ascii=False) + "\n")

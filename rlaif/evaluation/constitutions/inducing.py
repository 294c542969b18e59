"""Runs an induction: a model proposes principles for labeled pairs, a judge tests them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlaif.api.service import Questions, Service
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import codec_for
from rlaif.errors import RlaifError
from rlaif.evaluation.constitutions.induction import (
    Induction,
    constitution_yaml,
    merge,
    parts,
    read_question,
    select,
)
from rlaif.evaluation.labeled import PAIRS, LabeledData, aligned
from rlaif.evaluation.outcomes import read_outcomes
from rlaif.generation.conversations import Query
from rlaif.generation.critique_calls import WRITER, read_text
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.records import GenerationRequest
from rlaif.runs.context import RunContext
from rlaif.runs.directory import read_rows
from rlaif.templates.messages import completion_text, conversation_text
from rlaif.templates.writer import load_template
from rlaif.util.files import write_atomically
from rlaif.util.hashing import digest

Propose = Callable[[Sequence[dict[str, Any]]], list[str]]
"Maps labeled pairs (as rows) to the questions that a model proposes."
RESULT = "induced.yaml"


def model_proposer(
    writer: EngineSettings,
    *,
    template: str = "plain",
    per_pair: int = 2,
    temperature: float = 0.7,
    seed: int = 0,
    context: RunContext = RunContext(),
) -> Propose:
    """Proposals by a generating model; what it wrote is cached.

    Raises:
        RlaifError: the template or the model can't be used.
    """
    text = load_template(template, "induce", required=("conversation", "preferred", "other"))
    codec = codec_for(writer)

    def ask(row: dict[str, Any]) -> Questions[list[str]]:
        sides = (row["response_a"], row["response_b"])
        best, other = sides if row["label"] == "a" else sides[::-1]
        ids = codec.encode_chat(
            [
                {
                    "role": "user",
                    "content": text.render(
                        conversation=conversation_text(row["prompt"]),
                        preferred=completion_text(best),
                        other=completion_text(other),
                    ),
                }
            ]
        )
        told = yield [
            Query(WRITER, GenerationRequest("", ids, 96, temperature=temperature, seed=seed + k))
            for k in range(per_pair)
        ]
        return [written for written, failed in map(read_text, told) if not failed]

    def propose(rows: Sequence[dict[str, Any]]) -> list[str]:
        service = Service({WRITER: writer}, context)
        try:
            waiting = [service.submit(ask(row)) for row in rows]
            return [written for future in waiting for written in future.result()]
        finally:
            service.close()

    return propose


def induce(
    data: LabeledData,
    folder: Path,
    propose: Propose,
    settings: LabelSettings,
    context: RunContext = RunContext(),
    *,
    name: str = "induced",
    pairs: int = 50,
    candidates: int = 20,
    most: int = 8,
) -> Induction:
    """Propose, merge, test, keep; writes `folder/induced.yaml`.

    Args:
        data: of `folder/pairs.jsonl`.
        pairs: how many pairs principles are proposed for; none of those kept aside.
        candidates: the most that the judge tests.
        most: the most that are kept.

    Raises:
        RlaifError: nothing usable was proposed.

    Long because it is a pipeline of named steps: propose, merge, test, keep, write.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,60}", name):
        raise RlaifError(
            f"invalid constitution name {name!r}",
            hint="Use lowercase letters, digits, hyphens, underscores, and dots.",
        )
    rows = [row for _, row in read_rows(folder / PAIRS)]
    part = parts(data.group)
    open_ = [i for i in range(len(rows)) if part[i] == 0 and data.label[i] != 0]
    drawn = sorted(open_, key=lambda i: digest(["propose", rows[i]["id"]]))[:pairs]
    written = propose([rows[i] for i in sorted(drawn)])
    questions = [q for q in map(read_question, written) if q is not None]
    if not questions:
        raise RlaifError(
            f"none of {len(written)} proposals is a question that starts with 'Which response'",
            hint="Use a stronger model, or another template with --proposal-template.",
        )
    found = merge(questions, candidates)
    draft = folder / "candidates.yaml"
    tested = {
        "schema": 1,
        "name": f"{name}-candidates",
        "version": "0.0.0",
        "principles": [{"id": c.id, "preference": c.question} for c in found],
    }
    write_atomically(draft, yaml.safe_dump(tested, sort_keys=False, allow_unicode=True))
    job = prepare(str(folder / PAIRS), str(draft), settings)
    out = folder / f"candidates-{digest(job.config)[:8]}"
    run_label(job, out, context)
    outcomes = read_outcomes(out)
    own = aligned(data, outcomes)
    induction = select(found, outcomes, own.label, own.group, most=most)
    used = int((own.label != 0).sum())
    header = f"""Induced from {used} labeled pairs; together correct on {induction.accuracy} of
{induction.accuracy.n} held-out pairs.
This is a draft: principles that explain the labels may not be what you want. Edit it, then run
`rlaif constitution lint` and `rlaif constitution test`."""
    ordered = [rows[int(r) - 1] for r in outcomes.rows]
    if induction.kept:
        text = constitution_yaml(name, induction.kept, ordered, header)
        write_atomically(folder / RESULT, text)
    else:
        (folder / RESULT).unlink(missing_ok=True)
    return induction

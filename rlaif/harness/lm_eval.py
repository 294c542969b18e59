r"""lm-evaluation-harness: tasks whose generations are judged, a whole task in one batch.

    lm-eval run --model hf --model_args pretrained=POLICY --tasks rlaif_pairwise \
        --include_path "$(rlaif harness lm-eval --print-path)" \
        --metadata '{"data": "prompts.jsonl", "constitution": "my.yaml", "judge": "MODEL"}'

`data` has a prompt per row; for `rlaif_pairwise` also a reference response, unless `baseline`
names a file of another model's outputs: rows with `id` and `response`, or the samples that lm-eval
logged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.api.filter import Filter

from rlaif.api.answers import Comparison, Score
from rlaif.data.single_rows import BadRow, read_prompt, read_row
from rlaif.data.sources import open_source
from rlaif.errors import RlaifError
from rlaif.harness.judges import open_judge
from rlaif.records import Rejected
from rlaif.runs.directory import read_rows
from rlaif.templates.messages import completion_text, conversation_text

_JUDGE = ("constitution", "judge", "url", "engine", "template", "pointwise", "orders")
"""What of `metadata` is the judge's.  lm-eval adds the model's own arguments (`dtype`, ...), so
other settings of the judge stand in `judge_settings`.
"""


def load_pairwise(**metadata: Any) -> dict[str, Any]:
    """The documents of `rlaif_pairwise`: prompts with a reference response each."""
    return {"test": Dataset.from_list(_documents(metadata, with_reference=True))}


def load_constitution_task(**metadata: Any) -> dict[str, Any]:
    """The documents of `rlaif_constitution`: prompts."""
    return {"test": Dataset.from_list(_documents(metadata, with_reference=False))}


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """What the model is asked (use --apply_chat_template for chat models)."""
    return str(doc["text"])


def judge_pairwise(resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]) -> list[Any]:
    """A filter: each response against its reference, both orders, all in one batch."""
    judge = open_judge(**json.loads(docs[0]["judge"]))
    rows = [
        {
            "prompt": json.loads(doc["prompt"]),
            "response_a": response,
            "response_b": doc["reference"],
        }
        for response, doc in _each(resps, docs)
    ]
    found = judge.compare_many(rows)
    return [[next(found).model_dump_json() for _ in own] for own in resps]


def judge_constitution(
    resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]
) -> list[Any]:
    """A filter: each response by itself, all in one batch."""
    judge = open_judge(**json.loads(docs[0]["judge"]))
    rows = [
        {"prompt": json.loads(doc["prompt"]), "response": response}
        for response, doc in _each(resps, docs)
    ]
    found = judge.score_many(rows)
    return [[next(found).model_dump_json() for _ in own] for own in resps]


def pairwise_metrics(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Of one response: whether it won (a tie is a half), and the probability that it is better.

    A pair that the judge abstained from counts in `abstained` alone.
    """
    found = Comparison.model_validate_json(_one(results))
    if found.status == "abstained":
        return {"abstained": 1.0}
    won = {"a": 1.0, "b": 0.0}.get(found.winner or "", 0.5)
    tie = float(found.status == "tie")
    return {"win_rate": won, "p_better": found.p_a, "tie": tie, "abstained": 0.0}


def constitution_metrics(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Of one response: its score from 0 to 1; one without a score counts in `unscored` alone."""
    found = Score.model_validate_json(_one(results))
    if found.score is None:
        return {"unscored": 1.0}
    return {"constitution_score": found.score, "unscored": 0.0}


class PairwiseFilter(Filter):
    """`judge_pairwise` as a filter by name, where lm-eval finds plug-ins by entry point."""

    def apply(self, resps: Any, docs: Any) -> Any:
        """See `judge_pairwise`."""
        return judge_pairwise(list(resps), list(docs))


class ConstitutionFilter(Filter):
    """`judge_constitution` as a filter by name."""

    def apply(self, resps: Any, docs: Any) -> Any:
        """See `judge_constitution`."""
        return judge_constitution(list(resps), list(docs))


def _one(results: Sequence[Any]) -> str:
    first = results[0]
    return str(first[0] if isinstance(first, list) else first)


def _each(
    resps: Sequence[Sequence[str]], docs: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for own, doc in zip(resps, docs, strict=True):
        for response in own:
            yield response, doc


def _documents(metadata: Mapping[str, Any], *, with_reference: bool) -> list[dict[str, Any]]:
    judge = {key: metadata[key] for key in _JUDGE if key in metadata}
    judge |= metadata.get("judge_settings", {})
    data = metadata.get("data")
    if not isinstance(data, str):
        raise RlaifError(
            "the task has no `data`",
            hint="""Pass --metadata '{"data": "prompts.jsonl", "constitution": "my.yaml"}'.""",
        )
    baseline = _baseline(Path(metadata["baseline"])) if metadata.get("baseline") else None
    found = []
    for number, (place, row) in enumerate(
        open_source(data, metadata.get("split", "train")).rows(), 1
    ):
        try:
            if isinstance(row, Rejected):
                raise BadRow(row.reason)
            read = read_prompt(row)
            text = (
                read.prompt[0]["content"]
                if len(read.prompt) == 1
                else conversation_text(read.prompt)
            )
            reference = ""
            if with_reference and baseline is None:
                given = row.get("reference")
                reference = (
                    given
                    if isinstance(given, str)
                    else completion_text(read_row(row).completions[0].messages)
                )
            elif with_reference and baseline is not None:
                name = read.id or text
                if name not in baseline:
                    raise BadRow(f"the baseline has no output for {name[:60]!r}")
                reference = baseline[name]
        except BadRow as error:
            raise RlaifError(
                f"{place}: {error}", hint="Fix the row; lm-eval judges every document."
            ) from None
        found.append(
            {
                "id": read.id or f"row-{number}",
                "text": text,
                "prompt": json.dumps(read.prompt),
                "reference": reference,
                "judge": json.dumps(judge),
            }
        )
    if not found:
        raise RlaifError(f"{data!r} has no rows", hint="Check the file.")
    return found


def _baseline(path: Path) -> dict[str, str]:
    """Another model's outputs by id or prompt: plain rows, or samples that lm-eval logged."""
    found: dict[str, str] = {}
    for _, row in read_rows(path):
        doc = row.get("doc")
        if isinstance(doc, dict) and "resps" in row:
            response = row["resps"][0][0]
            names = [doc.get("id"), doc.get("text")]
        else:
            response = row.get("response", row.get("output"))
            names = [row.get("id"), row.get("prompt"), row.get("instruction")]
        found |= {str(name): str(response) for name in names if name}
    return found

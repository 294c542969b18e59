"""Joins files of the OpenAI batch API: requests, and the answers of one or of several runs to them.

A file of results has no prompts and is in no order; requests and results have a `custom_id` in
common (https://platform.openai.com/docs/guides/batch).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from rlaif.data.compression import COMPRESSED
from rlaif.data.file_formats import Row, read_file
from rlaif.errors import RlaifError
from rlaif.records import Rejected


def check_batch(files: Sequence[str]) -> None:
    """Refuse a list of files that is no batch.

    Raises:
        RlaifError: one is missing or compressed, or there is no file of results.
    """
    if len(files) < 2:
        raise RlaifError(
            "batch: names one file", hint="Write batch:REQUESTS.jsonl,RESULTS.jsonl[,MORE.jsonl]."
        )
    for file in files:
        if not Path(file).is_file():
            raise RlaifError(f"batch file {file!r} does not exist", hint="Check the path.")
        if Path(file).suffix.lower() in COMPRESSED:
            raise RlaifError(f"batch file {file!r} is compressed", hint="Decompress it first.")


def join_batches(files: Sequence[str]) -> Iterator[tuple[str, Row | Rejected]]:
    """A row for each request, with the answers of every run to it.

    Args:
        files: the requests, then the results of each run.
    """
    requests, *results = map(Path, files)
    found = [_index(path) for path in results]
    seen: set[str] = set()
    with ExitStack() as stack:
        opened = [stack.enter_context(path.open("rb")) for path in results]
        for place, row in read_file(requests, "jsonl"):
            if isinstance(row, Rejected):
                yield place, row
                continue
            name = row.get("custom_id")
            if not isinstance(name, str) or name in seen:
                why = "has no `custom_id`" if not isinstance(name, str) else "comes again"
                yield place, Rejected(place, f"request {str(name)[:40]!r} {why}")
                continue
            seen.add(name)
            answers: list[Mapping[str, Any]] = []
            why = ""
            for path, offsets, file in zip(results, found, opened, strict=True):
                more, why = _answers(file, offsets.get(name), path.name)
                answers += more
                if why:
                    break
            yield place, Rejected(place, why) if why else _row(name, row.get("body"), answers)
    for path, offsets in zip(results, found, strict=True):
        for name in offsets.keys() - seen:
            place = f"{path.name} {name}"
            yield place, Rejected(place, f"answers no request of {requests.name}")


def _index(path: Path) -> dict[str, int]:
    """Where in a file of results the line with each `custom_id` begins."""
    offsets: dict[str, int] = {}
    with path.open("rb") as file:
        start = 0
        for line in file:
            try:
                name = json.loads(line).get("custom_id") if line.strip() else None
            except (ValueError, AttributeError, RecursionError):
                name = None
            if isinstance(name, str):
                offsets.setdefault(name, start)
            start += len(line)
    return offsets


def _answers(file: IO[bytes], offset: int | None, name: str) -> tuple[list[Mapping[str, Any]], str]:
    """The answers of one run to a request, and why there are none."""
    if offset is None:
        return [], f"{name} holds no answer to it"
    file.seek(offset)
    result = json.loads(file.readline())
    response = result.get("response")
    body = response.get("body") if isinstance(response, Mapping) else None
    failure = result.get("error") or (body.get("error") if isinstance(body, Mapping) else None)
    if failure or not isinstance(body, Mapping):
        said = failure.get("message") if isinstance(failure, Mapping) else failure
        return [], f"{name} holds an error in its place: {str(said)[:200]}"
    model = str(body.get("model") or name)
    if isinstance(body.get("output"), list):  # the Responses API
        turns = [item for item in body["output"] if _is_message(item)]
        return [{"model": model, "message": turn} for turn in turns[-1:]], (
            "" if turns else f"{name} holds an answer without a message"
        )
    held = body.get("choices")
    choices = [c for c in held if isinstance(c, Mapping)] if isinstance(held, list) else []
    texts = [c.get("message", c.get("text")) for c in choices]
    if not texts or any(not isinstance(text, str | Mapping) for text in texts):
        return [], f"{name} holds an answer without a message"
    return [{"model": model, "message": text} for text in texts], ""


def _is_message(item: object) -> bool:
    return isinstance(item, Mapping) and item.get("type") == "message"


def _row(name: str, body: object, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    asked = body if isinstance(body, Mapping) else {}
    prompt = asked.get("messages", asked.get("input", asked.get("prompt")))
    row = {"id": name, "prompt": prompt, "responses": list(answers)}
    for key, column in (("instructions", "system"), ("tools", "tools")):
        if asked.get(key):
            row[column] = asked[key]
    return row

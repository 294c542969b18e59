"""Labels as files: JSON Lines and CSV of our own, Argilla's records, Label Studio's tasks."""

from __future__ import annotations

import csv
import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from rlaif.data.labeled_pairs import from_cell, to_cell
from rlaif.errors import Place, RlaifError
from rlaif.review.items import Messages
from rlaif.review.store import Decision, ReviewTask, Said
from rlaif.review.votes import HumanLabel, as_drawn, drawn_vote
from rlaif.templates.messages import message_text

Format = Literal["jsonl", "csv", "argilla", "label-studio"]
FORMATS: tuple[str, ...] = get_args(Format)
QUESTION, EDIT, NOTE = "preference", "better", "note"
LABEL_STUDIO_CONFIG = """\
<View>
  <Header value="Which response is better?"/>
  <Text name="prompt" value="$prompt"/>
  <View style="display: grid; grid-template-columns: 1fr 1fr; column-gap: 1em">
    <Text name="response_a" value="$response_a"/>
    <Text name="response_b" value="$response_b"/>
  </View>
  <Choices name="preference" toName="prompt" choice="single" showInLine="true" required="true">
    <Choice value="a"/><Choice value="b"/><Choice value="tie"/>
  </Choices>
  <TextArea name="better" toName="prompt" placeholder="A better response, if you can write one"/>
  <TextArea name="note" toName="prompt" placeholder="Note"/>
</View>
"""
"""The labeling interface that the exported tasks fit, for Label Studio's settings."""
_USERS = uuid.UUID("5f7c1f0e-0a53-4c0e-8a35-0e2f6d0c9b11")


@dataclass(frozen=True)
class ImportedLabel:
    """One person's label of one pair, as a file has it.

    Attributes:
        name: of the pair: `row:id`.
        seconds: that it took, where the file knows.
    """

    name: str
    reviewer: str
    verdict: Said
    note: str = ""
    edited: str = ""
    seconds: float = 0.0


def name_of(task: ReviewTask) -> str:
    """What files call a pair."""
    return f"{task.item.row}:{task.item.id}"


def shortened_names(names: Iterable[str]) -> dict[str, str]:
    """What a spreadsheet makes of ids that look like numbers, where only one pair can be meant.

    Args:
        names: of pairs, as `name_of` gives them.

    Returns:
        Whole names by shortened ones: "3:7" for "3:007", "3:1.5" for "3:1.50".
    """
    found: dict[str, list[str]] = {}
    for name in names:
        row, _, own = name.partition(":")
        if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", own):
            number = format(Decimal(own).normalize(), "f")
            if number != own:
                found.setdefault(f"{row}:{number}", []).append(name)
    return {short: whole[0] for short, whole in found.items() if len(whole) == 1}


def same_as(before: Decision, said: ImportedLabel) -> bool:
    """Whether a label says nothing that is not there already."""
    return (
        before.verdict == said.verdict
        and said.edited in ("", before.edited)
        and said.note in ("", before.note)
    )


def render_labels(
    form: Format,
    tasks: Sequence[ReviewTask],
    labels: Sequence[HumanLabel],
    *,
    with_judge: bool = False,
    queue: bool = False,
) -> str:
    """The file's text.

    JSON Lines and CSV hold the labels: `rlaif calibrate`, `eval` and `win-rate` read them. The
    other two hold the whole queue, for people to label elsewhere, with what was said so far.

    Args:
        with_judge: add the judge's verdicts as suggestions; people then agree with it more often
            than they would.
        queue: JSON Lines and CSV hold pairs without a label, too.
    """
    by_number = {found.task.number: found for found in labels}
    asked = [(task, by_number.get(task.number)) for task in tasks]
    ours = [(task, found) for task, found in asked if found is not None or queue]
    if form == "jsonl":
        rows = (_row(task, found, plain=False) for task, found in ours)
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if form == "csv":
        return _csv([_row(task, found, plain=True) for task, found in ours])
    make = _argilla if form == "argilla" else _label_studio
    records = [make(task, found, with_judge) for task, found in asked]
    return json.dumps(records, ensure_ascii=False, indent=1) + "\n"


def _row(task: ReviewTask, found: HumanLabel | None, *, plain: bool) -> dict[str, Any]:
    item, said = (
        task.item,
        found
        or HumanLabel(task=task, votes={}, winner="tie", p_a=0.5, edits=[], notes={}, seconds=0.0),
    )
    return {
        "id": item.id,
        "row": item.row,
        "prompt": _prompt(item.prompt) if plain else item.prompt,
        "response_a": _plain(item.a) if plain else item.a,
        "response_b": _plain(item.b) if plain else item.b,
        "label": as_drawn(said).winner if said.votes else "",
        "p_a": round(said.p_a, 5),
        "reviewers": ", ".join(sorted(said.votes)),
        "votes": _by_reviewer(said.votes),
        "audit": task.audit,
        "inclusion": round(task.inclusion, 6),
        # Whoever labels the rest is not to see what the judge says.
        "judge": (item.winner or item.status) if said.votes else "",
        "judge_p_a": item.p_a if said.votes else 0.5,
        "notes": _by_reviewer(said.notes),
        "edits": _by_reviewer({e.reviewer: e.text for e in said.edits}),
        "planted": bool(task.gold) and bool(said.votes),
    }


def _by_reviewer(texts: Mapping[str, str]) -> str:
    """What several people said, in one cell."""
    return json.dumps(texts, ensure_ascii=False, sort_keys=True) if texts else ""


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows({k: to_cell(v) for k, v in row.items()} for row in rows)
    return out.getvalue()


def _prompt(messages: Messages) -> str:
    """One user turn as its text, anything else as JSON."""
    if len(messages) == 1 and len(messages[0]) == 2 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return json.dumps(messages, ensure_ascii=False)


def _plain(messages: Messages) -> str:
    if len(messages) == 1 and len(messages[0]) == 2 and messages[0]["role"] == "assistant":
        return messages[0]["content"]
    return json.dumps(messages, ensure_ascii=False)


def _shown(messages: Messages) -> str:
    """A conversation for people to read."""
    if len(messages) == 1:
        return message_text(messages[0])
    return "\n\n".join(f"{m['role']}: {message_text(m)}" for m in messages)


def _argilla(task: ReviewTask, found: HumanLabel | None, with_judge: bool) -> dict[str, Any]:
    """A record of Argilla 2, as its `Record.from_dict` takes it: `dataset.records.from_json`."""
    item = task.item
    responses: dict[str, list[dict[str, str]]] = {}
    if found is not None:
        users = {who: argilla_user(who) for who in found.votes}
        responses[QUESTION] = [
            {"value": vote, "user_id": users[who]} for who, vote in found.votes.items()
        ]
        if found.edits:
            responses[EDIT] = [{"value": e.text, "user_id": users[e.reviewer]} for e in found.edits]
        if found.notes:
            responses[NOTE] = [
                {"value": note, "user_id": users[who]} for who, note in found.notes.items()
            ]
    suggestion = {"value": item.winner, "score": max(item.p_a, 1 - item.p_a), "agent": "judge"}
    return {
        "id": name_of(task),
        "fields": {
            "prompt": _shown(item.prompt),
            "response_a": _shown(item.a),
            "response_b": _shown(item.b),
        },
        "metadata": {"inclusion": task.inclusion},
        "suggestions": {QUESTION: suggestion} if with_judge and item.winner else {},
        "responses": responses,
        "vectors": {},
    }


def argilla_user(reviewer: str) -> str:
    """The id that stands for a reviewer in Argilla's records."""
    return str(uuid.uuid5(_USERS, reviewer))


def _label_studio(task: ReviewTask, found: HumanLabel | None, with_judge: bool) -> dict[str, Any]:
    """A task of Label Studio for the interface `LABEL_STUDIO_CONFIG`."""
    item = task.item

    def choice(value: str) -> dict[str, Any]:
        return {
            "from_name": QUESTION,
            "to_name": "prompt",
            "type": "choices",
            "value": {"choices": [value]},
        }

    # Label Studio takes annotations of its own users only: what was said here goes along unseen.
    said = [
        {
            "reviewer": who,
            "label": vote,
            "note": found.notes.get(who, ""),
            "edited": next((e.text for e in found.edits if e.reviewer == who), ""),
        }
        for who, vote in (found.votes if found else {}).items()
        if found is not None
    ]
    judged = {
        "model_version": "judge",
        "score": max(item.p_a, 1 - item.p_a),
        "result": [choice(item.winner)],
    }
    own: dict[str, Any] = {
        "data": {
            "id": name_of(task),
            "prompt": _shown(item.prompt),
            "response_a": _shown(item.a),
            "response_b": _shown(item.b),
            "inclusion": task.inclusion,
        },
    }
    if said:
        own["data"]["said"] = json.dumps(said, ensure_ascii=False)
    if with_judge and item.winner:
        own["predictions"] = [judged]
    return own


def read_human_labels(
    path: Path, form: Format, *, reviewer: str = "", known: Iterable[str] = ()
) -> list[ImportedLabel]:
    """The labels in a file.

    Args:
        reviewer: who gave those that name nobody.
        known: reviewers, whom an export may name by an id.

    Raises:
        RlaifError: with the place: the file is none of this form, or a label names nobody.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # line ends as they are
    except (OSError, UnicodeDecodeError) as error:
        raise RlaifError(
            f"{str(path)!r} could not be read ({error})", hint="Pass a file of labels."
        ) from None
    readers: dict[str, Callable[[Path, str], Iterator[ImportedLabel]]] = {
        "jsonl": _from_lines,
        "csv": _from_csv,
        "argilla": _from_argilla,
        "label-studio": _from_label_studio,
    }
    found = []
    names = {argilla_user(who): who for who in known}
    for said in _checked(readers[form](path, text), path, form):
        if not said.reviewer and not reviewer:
            raise RlaifError(
                f"{str(path)!r} has no reviewer for {said.name!r}",
                hint="Set the reviewer with --reviewer.",
            )
        found.append(replace(said, reviewer=names.get(said.reviewer, said.reviewer) or reviewer))
    if not found:
        raise RlaifError(
            f"{str(path)!r} contains no labels",
            hint=f"Check that the format is {form}; see `rlaif labels import --help`.",
        )
    return found


def _checked(labels: Iterator[ImportedLabel], path: Path, form: str) -> Iterator[ImportedLabel]:
    """The same, with one error for whatever is not shaped as the form says."""
    try:
        yield from labels
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        raise RlaifError(
            f"{str(path)!r} is not {form} ({type(error).__name__}: {error})", hint="Check --format."
        ) from None


def _from_lines(path: Path, text: str) -> Iterator[ImportedLabel]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = Place(path, number, 1)
            yield from _from_row(_json(line, place), place)


def _from_csv(path: Path, text: str) -> Iterator[ImportedLabel]:
    csv.field_size_limit(1 << 30)
    header = text.partition("\n")[0]
    # Spreadsheets write the separator of their country.
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    names = [name for name in reader.fieldnames or () if name]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise RlaifError(
            f"the column {twice!r} is there twice",
            place=Place(path, 1, 1),
            hint="Remove or rename one of the two.",
        )
    for row in reader:
        own = {k: from_cell(v) if isinstance(v, str) else v for k, v in row.items()}
        yield from _from_row(own, Place(path, reader.line_num, 1))


def _from_row(row: Any, place: Place) -> Iterator[ImportedLabel]:
    if not isinstance(row, dict) or not row.get("id") or not row.get("row"):
        raise RlaifError(
            "a row identifies no pair: it needs id and row",
            place=place,
            hint="Use a file from `rlaif labels export`.",
        )
    name = f"{row['row']}:{row['id']}"
    votes, notes, edits = (
        _json(cell, place) if isinstance(cell := row.get(key) or {}, str) else cell
        for key in ("votes", "notes", "edits")
    )
    who = str(row.get("reviewer") or "")
    label = str(row.get("label") or "").strip().lower()
    planted = str(row.get("planted")).lower() == "true"
    same = bool(votes) and (planted or not label or label == drawn_vote(votes, name))
    if same and not who:
        for who, vote in votes.items():
            yield ImportedLabel(
                name=name,
                reviewer=str(who),
                verdict=_verdict(vote, place),
                note=notes.get(who, ""),
                edited=edits.get(who, ""),
            )
    elif label:
        # Somebody's own label, or one that was corrected: then it is whose `reviewer` says.
        who = who or ("" if votes else str(row.get("reviewers") or ""))
        note, edited = str(row.get("note") or ""), str(row.get("edited") or "")
        yield ImportedLabel(
            name=name, reviewer=who, verdict=_verdict(row["label"], place), note=note, edited=edited
        )


def _from_argilla(path: Path, text: str) -> Iterator[ImportedLabel]:
    for number, record in enumerate(_list(text, path), 1):
        place = Place(path, number, 1)
        responses = record.get("responses") or {}
        better = {r["user_id"]: r["value"] for r in responses.get(EDIT, [])}
        notes = {r["user_id"]: r["value"] for r in responses.get(NOTE, [])}
        for response in responses.get(QUESTION, []):
            who = str(response["user_id"])
            yield ImportedLabel(
                name=str(record["id"]),
                reviewer=who,
                verdict=_verdict(response["value"], place),
                note=notes.get(who, ""),
                edited=better.get(who, ""),
            )


def _from_label_studio(path: Path, text: str) -> Iterator[ImportedLabel]:
    for number, task in enumerate(_list(text, path), 1):
        place = Place(path, number, 1)
        data = task.get("data") or {}
        for said in _json(data["said"], place) if data.get("said") else []:
            yield ImportedLabel(
                name=str(data.get("id")),
                reviewer=str(said["reviewer"]),
                verdict=_verdict(said["label"], place),
                note=said["note"],
                edited=said["edited"],
            )
        for annotation in task.get("annotations") or []:
            if annotation.get("was_cancelled"):
                continue
            values = {r.get("from_name"): r.get("value") or {} for r in annotation["result"]}
            choices = values.get(QUESTION, {}).get("choices") or []
            if not choices:
                continue
            by = annotation.get("completed_by")
            who = by.get("email") or by.get("id") if isinstance(by, dict) else by
            written = {k: "\n".join(values.get(k, {}).get("text") or []) for k in (EDIT, NOTE)}
            yield ImportedLabel(
                name=str(data.get("id")),
                reviewer="" if who is None else str(who),
                verdict=_verdict(choices[0], place),
                note=written[NOTE],
                edited=written[EDIT],
                seconds=float(annotation.get("lead_time") or 0.0),
            )


def _verdict(value: Any, place: Place) -> Said:
    text = str(value).strip().lower()
    if text in ("a", "b", "tie", "skip"):
        return text  # type: ignore[return-value]
    raise RlaifError(f"{value!r} is not a valid label", hint="Use a, b, tie or skip.", place=place)


def _json(text: str, place: Place) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RlaifError(f"not JSON ({error})", place=place, hint="Check --format.") from None


def _list(text: str, path: Path) -> Iterable[dict[str, Any]]:
    found = _json(text, Place(path, 1, 1))
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise RlaifError(f"{str(path)!r} is not a list of records", hint="Check --format.")
    return found

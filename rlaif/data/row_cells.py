"""Reads cells: decoded, dug out of mappings, gathered from lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rlaif.data.columns import decode, dig
from rlaif.data.layout import Layout
from rlaif.data.messages import BadRow, check_text, is_chat
from rlaif.data.transcripts import Transcript, find_form

TEXT_KEYS = (
    "response",
    "completion",
    "content",
    "text",
    "output",
    "answer",
    "generation",
    "reply",
    "message",
    "messages",
    "turns",
    "summary",
    "body",
)
"""Where an entry of a list of responses has its text."""
ORIGIN_KEYS = ("model", "origin", "generator", "source_model", "policy")
GOOD_WORDS = {
    "true",
    "1",
    "1.0",
    "yes",
    "good",
    "desirable",
    "liked",
    "like",
    "safe",
    "c",
    "up",
    "thumbs_up",
    "approved",
    "accepted",
    "accept",
    "correct",
    "positive",
    "pass",
    "passed",
    "harmless",
    "unharmful",
    "nontoxic",
    "non-toxic",
    "not harmful",
    "not_harmful",
    "unbiased",
    "ok",
    "okay",
    "right",
    "👍",
    "✓",
    "✔",
    "✅",
}
"""How files write that a response is good, lower case."""
BAD_WORDS = {
    "false",
    "0",
    "0.0",
    "-1",
    "-1.0",
    "no",
    "bad",
    "undesirable",
    "disliked",
    "dislike",
    "unsafe",
    "i",
    "down",
    "thumbs_down",
    "rejected",
    "reject",
    "incorrect",
    "wrong",
    "negative",
    "fail",
    "failed",
    "harmful",
    "toxic",
    "biased",
    "👎",
    "✗",
    "✘",
    "❌",
}
"""How files write that a response is bad, lower case."""
YES_OR_NO = {"true", "1", "1.0", "yes", "false", "0", "0.0", "-1", "-1.0", "no"}
"""What says nothing of good or bad by itself: it depends on what is asked."""
ASKING = ("user", "system", "developer")


def values_at(row: Mapping[str, Any], path: str) -> list[Any]:
    """The values at a path that may go through lists (`annotations[].value`).

    Annotations that were not given in the end (drafts, discarded ones) are left out.
    """
    return _walk(row, path, _is_unfinished)


def votes_at(row: Mapping[str, Any], path: str) -> list[Any]:
    """The same, without votes that do not count either: rejected, invalid, spam."""
    return _walk(row, path, _is_withdrawn)


def _walk(
    row: Mapping[str, Any], path: str, leave: Callable[[Mapping[str, Any]], bool]
) -> list[Any]:
    head, mark, rest = path.partition("[]")
    value = decode(dig(row, head))
    if not mark:
        return value if isinstance(value, list) else [value]
    found = []
    for item in value if isinstance(value, list) else []:
        if not rest:
            found.append(item)
        elif rest.startswith("[]"):
            found += _walk({"x": item}, f"x{rest}", leave)
        elif isinstance(item, Mapping) and not leave(item):
            found += _walk(item, rest.removeprefix("."), leave)
    return found


def _is_unfinished(entry: Mapping[str, Any]) -> bool:
    """Whether an annotation was not given in the end: a draft, or one that was discarded."""
    status = entry.get("status")
    return (isinstance(status, str) and status.strip().lower() in _UNFINISHED) or any(
        entry.get(key) is True for key in ("was_cancelled", "discarded", "skipped")
    )


def _is_withdrawn(entry: Mapping[str, Any]) -> bool:
    """Whether an annotation does not count, by what stands beside it."""
    for key in _STATES & entry.keys():
        if isinstance(entry[key], str) and entry[key].strip().lower() in _WITHDRAWN:
            return True
    return any(entry[key] in _SET for key in _OFF & entry.keys()) or any(
        entry[key] in _UNSET for key in _ON & entry.keys()
    )


_STATES = {"status", "state", "review", "review_status", "qa", "quality_check", "attention_check"}
_UNFINISHED = {"discarded", "draft", "pending", "cancelled", "canceled", "skipped", "deleted"}
_WITHDRAWN = {"excluded", "fail", "failed", "invalid", "rejected", "removed", "spam", "withdrawn"}
_WITHDRAWN |= _UNFINISHED
_OFF_WORDS = "cancelled canceled deleted discarded excluded flagged invalid rejected removed "
_OFF_WORDS += "retracted skipped spam withdrawn"
_OFF = {start + word for start in ("", "is_", "was_") for word in _OFF_WORDS.split()}
"""Flags of an annotation that does not count."""
_ON = {f"{start}{word}" for start in ("", "is_") for word in ("accepted", "approved", "valid")}
_ON |= {"attention_check", "attention_check_passed", "included", "passed_attention_check"}
"""Flags of an annotation that counts."""
_SET = (True, "true", "True", "yes")
_UNSET = (False, "false", "False", "no")


def entry_text(entry: object) -> object:
    """The text, messages or calls of an entry in a list of responses; None for none."""
    if isinstance(entry, str):
        return entry
    if is_chat(entry) or (is_chat([entry]) and "role" in entry):  # type: ignore[operator]
        return entry
    if not isinstance(entry, Mapping):
        return None
    for key in TEXT_KEYS:
        value = entry.get(key)
        if isinstance(value, str) or is_chat(value) or is_chat([value]):
            return value
    if isinstance(entry.get("name"), str) and (
        {"arguments", "parameters", "args", "input"} & entry.keys()
    ):
        return {"role": "assistant", "content": None, "tool_calls": [entry]}
    return None


class CellReader:
    """Reads the cells of rows by a layout.

    Args:
        layout: which column plays which role.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._decoded = frozenset(layout.decode)
        self._ignored = frozenset(layout.ignore)

    def _cell(self, row: Mapping[str, Any], path: str) -> Any:
        value = dig(row, path)
        return decode(value) if path in self._decoded else value

    def _form(self, path: str) -> Transcript | None:
        name = self.layout.transcripts.get(path)
        return find_form(name) if name else None


def number_of(value: object) -> float | None:
    """The number that a value is or spells; None for none."""
    if isinstance(value, bool):
        return float(value)
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_tags(value: object) -> frozenset[str]:
    """Tags from a list, or from a text with commas."""
    if isinstance(value, str):
        return frozenset(tag.strip() for tag in value.split(",") if tag.strip())
    if isinstance(value, list):
        return frozenset(str(tag) for tag in value)
    return frozenset()


def read_identity(value: object) -> str:
    """An id as text; "" for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return check_text(str(value))


def row_weight(row: object) -> float:
    """The weight that a row states, or 1 where it states none.

    Raises:
        BadRow: it states one that is no number from 0 to 1e9.
    """
    weight = row.get("weight") if isinstance(row, Mapping) else None
    empty = isinstance(weight, str) and weight.strip().lower() in _NOTHING
    if weight is None or weight != weight or empty:
        return 1.0
    try:
        number = math.nan if isinstance(weight, bool) else float(weight)  # CSV has texts
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < _MOST_WEIGHT:
        raise BadRow(f"weight {str(weight)[:40]!r} is not a number from 0 to 1e9")
    return number


_MOST_WEIGHT = 1e9
_NOTHING = {"", "nan", "none", "null", "n/a", "na", "-"}
"""What tables write where there is nothing."""


def read_flag(value: object) -> bool | None:
    """What a flag says, whatever way it is written; None for nothing."""
    if value is None or value == "":
        return None
    text = str(value).strip().lower()
    if text in GOOD_WORDS:
        return True
    if text in BAD_WORDS:
        return False
    raise BadRow(f"{text[:40]!r} does not say whether the response is good")


def read_fault(value: object) -> bool | None:
    """Whether a response is good, by a flag that asks whether it is bad; None for nothing.

    A word such as `harmful` says by itself what it means; `yes` says that it is bad.
    """
    flag = read_flag(value)
    if flag is None or str(value).strip().lower() not in YES_OR_NO:
        return flag
    return not flag

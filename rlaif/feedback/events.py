"""Reads what users did from rows of product logs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from rlaif.data.reading import Reader
from rlaif.data.row_model import refuse_calls, refuse_media
from rlaif.data.single_rows import BadRow, need_value, with_responses
from rlaif.feedback.scales import RatingScale
from rlaif.records import Message, Origin
from rlaif.templates.messages import completion_text

FIELDS = ("prompt", "system", "response", "user", "thumbs", "rating", "edited", "regenerated")
_FLAGS = {"true", "false", "yes", "no", "0", "1", "null", "none", "nan", "n/a", "1.0", "0.0"}
_NOTHING = {"", "nan", "n/a", "na", "none", "null", "-"}
"""What tables write where there is no rating."""
_SKIN = re.compile("[\U0001f3fb-\U0001f3ff\ufe0f]")
USER_KEYS = ("user", "user_id", "uid", "session", "session_id")
THUMB_KEYS = ("thumbs", "thumb", "vote", "feedback", "label", "liked")
BESIDE = {
    "liked": "disliked",
    "like": "dislike",
    "thumbs_up": "thumbs_down",
    "upvoted": "downvoted",
    "upvote": "downvote",
}
"""Columns of which one says good and the other bad: neither of them says nothing."""
RATING_KEYS = ("rating", "stars", "score")
EDIT_KEYS = ("edited", "edit", "edited_response", "corrected")
DISCARDED_KEYS = ("regenerated", "regenerations", "discarded", "previous_responses")
_UP = {
    "up",
    "thumbs_up",
    "thumbsup",
    "like",
    "liked",
    "good",
    "positive",
    "yes",
    "true",
    "1",
    "+1",
    "\U0001f44d",
}
_DOWN = {
    "down",
    "thumbs_down",
    "thumbsdown",
    "dislike",
    "disliked",
    "bad",
    "negative",
    "no",
    "false",
    "0",
    "-1",
    "\U0001f44e",
}


_T = TypeVar("_T")


@dataclass(frozen=True)
class FeedbackEvent:
    """What one user did with one completion.

    Attributes:
        user: "" where the log does not say.
        good: thumbs up or down, or a rating that is clearly good or bad; None for neither.
        rating: as given; None for none.
        edited: what the user made of the completion, or "".
        discarded: completions that the user had replaced by this one, oldest first.
    """

    prompt: list[Message]
    completion: str
    user: str = ""
    good: bool | None = None
    rating: float | None = None
    edited: str = ""
    discarded: tuple[str, ...] = ()
    origin: Origin = field(default_factory=Origin)
    prompt_origin: Origin = field(default_factory=Origin)


def read_event(
    row: Mapping[str, object],
    *,
    reader: Reader,
    scale: RatingScale,
    clean: Callable[[str], str | None],
    mapping: Mapping[str, str] | None = None,
) -> FeedbackEvent:
    """Read one row.

    Args:
        reader: reads prompt and completion, from what `plain_row` leaves of a row.
        scale: of the log's ratings.
        clean: takes personal data out of a text; None drops the row.
        mapping: names of `FIELDS` to columns, as dotted paths.

    Raises:
        BadRow: there is no prompt, no completion or no feedback, or the filter drops it.
    """
    row = mapped_row(row, mapping or {})
    plain = plain_row(row)
    read = with_responses(refuse_calls(refuse_media(reader.read(plain))), plain)
    if len(read.completions) != 1:
        raise BadRow(f"got {len(read.completions)} completions; feedback needs exactly one")
    (said,) = read.completions
    discarded = [_cleaned(text, clean) for text in _discarded(row)]
    edited = _edit(row)
    problems: list[BadRow] = []
    thumb = partial(_thumb, neutral=scale.neutral)
    rating, good = _readable(_rating, row, problems), _readable(thumb, row, problems)
    if problems and rating is None and good is None and not edited and not discarded:
        raise problems[0]  # else the other feedback stands
    rated = None if rating is None else scale.judge(rating)
    if good is not None and rated is not None and good is not rated:
        raise BadRow("the thumb and the rating contradict each other")
    good = rated if good is None else good
    completion = _cleaned(completion_text(said.messages), clean)
    edit = _cleaned(edited, clean)
    edit = "" if edit.split() == completion.split() else edit
    discarded = [text for text in discarded if text.split() != completion.split()]
    if good is None and rating is None and not edit and not discarded:
        raise BadRow("no thumbs, rating, edit or regeneration")
    prompt: list[Message] = [{**m, "content": _cleaned(m["content"], clean)} for m in read.prompt]
    user = next((str(row[k]) for k in USER_KEYS if row.get(k) not in (None, "")), "")
    origin, prompt_origin = (
        replace(o, sampling=_cleaned(o.sampling, clean)) for o in (said.source, read.prompt_origin)
    )
    return FeedbackEvent(
        prompt=prompt,
        completion=completion,
        user=user,
        good=good,
        rating=rating,
        edited=edit,
        discarded=tuple(discarded),
        origin=origin,
        prompt_origin=prompt_origin,
    )


def mapped_row(row: Mapping[str, object], mapping: Mapping[str, str]) -> dict[str, object]:
    """A row with the columns that `--map` names under the names of their fields.

    Raises:
        BadRow: it lacks the prompt or the response.
    """
    found = {name: _mapped(row, name, path) for name, path in mapping.items()}
    return {**{k: v for k, v in row.items() if k not in mapping.values()}, **found}


def plain_row(row: Mapping[str, object]) -> dict[str, object]:
    """A row without what users did, which the reader of data would take for labels."""
    own = {
        *THUMB_KEYS,
        *BESIDE,
        *BESIDE.values(),
        *RATING_KEYS,
        *EDIT_KEYS,
        *DISCARDED_KEYS,
        *USER_KEYS,
    }
    return {key: value for key, value in row.items() if key not in own}


def read_rating(row: Mapping[str, object]) -> float | None:
    """The rating of a row; None where it has none, or one that is no number."""
    try:
        return _rating(row)
    except BadRow:
        return None


def _cleaned(text: str, clean: Callable[[str], str | None]) -> str:
    if not text.strip():  # nothing that a filter could be asked about
        return text
    found = clean(text)
    if found is None:
        raise BadRow("dropped by the filter for personal data")
    return found


def _mapped(row: Mapping[str, object], name: str, path: str) -> object:
    """What `--map` names; of feedback, which most rows have one kind of, it may be missing."""
    try:
        return need_value(row, path)
    except BadRow:
        if name in ("prompt", "response"):
            raise
        return None


def _readable(
    read: Callable[[Mapping[str, object]], _T], row: Mapping[str, object], problems: list[BadRow]
) -> _T | None:
    try:
        return read(row)
    except BadRow as error:
        problems.append(error)
        return None


def _edit(row: Mapping[str, object]) -> str:
    value = next((row[k] for k in EDIT_KEYS if isinstance(row.get(k), str)), "")
    text = str(value)
    # A flag says that something was edited, and not into what.
    return "" if text.strip().lower() in _FLAGS else text


def read_thumb_code(row: Mapping[str, object]) -> tuple[str, float | str] | None:
    """The column of a row's thumb, and its number or its word; None where it has none."""
    for key in () if any(down in row for down in BESIDE.values()) else THUMB_KEYS:
        if row.get(key) in (None, ""):
            continue
        word = _word_of(row[key])
        try:
            number = float(str(row[key]))
        except ValueError:
            return (key, word) if word in _UP | _DOWN else None
        return (key, number) if math.isfinite(number) else None
    return None


def rating_column(row: Mapping[str, object]) -> str:
    """The column that a row's rating is in; "" for none."""
    return next((k for k in RATING_KEYS if row.get(k) not in (None, "")), "")


def _thumb(row: Mapping[str, object], *, neutral: bool = False) -> bool | None:
    both = _two_flags(row)
    if both is not None:
        return both[0]
    values = [row[k] for k in THUMB_KEYS if row.get(k) not in (None, "")]
    if not values:
        return None
    said = {_side_of(_word_of(value), neutral=neutral) for value in values} - {None}
    if len(said) > 1:
        raise BadRow("one column calls the completion good, and another one bad")
    text = _word_of(values[0])
    side = _side_of(text, neutral=neutral)
    if side is None and not (
        text in _NOTHING or text in ("neutral", "n_a") or (neutral and text == "0")
    ):
        # What users wrote into it is not repeated: nothing here was filtered.
        raise BadRow("the thumbs value is neither up nor down")
    return side


def _two_flags(row: Mapping[str, object]) -> tuple[bool | None] | None:
    """What two columns say of which one is for good and one for bad; None where there are none.

    Raises:
        BadRow: both are set.
    """
    for up, down in BESIDE.items():
        if down not in row:
            continue
        sides = [_side_of(_word_of(row.get(k, "")), neutral=False) for k in (up, down)]
        if sides == [True, True]:
            raise BadRow(f"columns {up!r} and {down!r} are both set")
        return (True if sides[0] else False if sides[1] else None,)
    return None


def _word_of(value: object) -> str:
    text = re.sub(r"[\s-]+(?=\w)", "_", _SKIN.sub("", str(value).strip().lower()))
    return {"1.0": "1", "0.0": "0", "-1.0": "-1", "_1.0": "-1", "_1": "-1"}.get(text, text)


def _side_of(text: str, *, neutral: bool) -> bool | None:
    if text in _UP:
        return True
    if neutral and text == "0":
        return None
    return False if text in _DOWN else None


def _rating(row: Mapping[str, object]) -> float | None:
    value = next((row[k] for k in RATING_KEYS if row.get(k) not in (None, "")), None)
    if value is None or value != value or str(value).strip().lower() in _NOTHING:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise BadRow("the rating is not a number") from None
    if not math.isfinite(number):
        raise BadRow("the rating is not a number")
    return number


def _discarded(row: Mapping[str, object]) -> list[str]:
    value = next((row[k] for k in DISCARDED_KEYS if row.get(k) not in (None, "", [])), None)
    if isinstance(value, str) and value.strip().startswith("["):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if isinstance(value, str):
        # A flag says that something was regenerated, and not what.
        return [] if value.strip().lower() in _FLAGS else [value]
    if isinstance(value, list):
        return [text for text in map(_text_of, value) if text.strip()]
    return []


def _text_of(item: object) -> str:
    """A completion in a list: a text, or a mapping that holds one."""
    if isinstance(item, Mapping):
        item = next(
            (
                item[k]
                for k in ("text", "content", "response", "completion")
                if isinstance(item.get(k), str)
            ),
            "",
        )
    return item if isinstance(item, str) else ""

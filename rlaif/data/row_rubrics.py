"""A row's own reference answer, rubric and language: read as written, or refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlaif.data.messages import BadRow
from rlaif.data.row_common import check_text
from rlaif.records import Criterion

_TEXTS = ("criterion", "criteria", "description", "text", "question", "rubric")
_WEIGHTS = ("weight", "points", "importance")
_MOST_WEIGHT, _MOST_CRITERIA, _MOST_CHARACTERS = 1000, 200, 10_000


def read_reference(value: object) -> str:
    """A reference answer as text; "" for none.

    Raises:
        BadRow: it is neither text nor a number, nor one of them alone in a list.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        kind = "a list of several" if isinstance(value, list) else f"a {type(value).__name__}"
        raise BadRow(f"the reference answer is {kind}; it must be text")
    return check_text(str(value)).strip()


def read_language(value: object) -> str:
    """An ISO 639-1 code, in lower case and without its region; "" for none.

    Raises:
        BadRow: it is something else, such as a language's name.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return ""
    code = re.split(r"[-_]", value.strip().lower())[0] if isinstance(value, str) else ""
    if not re.fullmatch(r"[a-z]{2,3}", code):
        raise BadRow(f"the language is {str(value)[:40]!r}; it must be a code such as en or pt-BR")
    return code


def read_rubric(value: object) -> tuple[Criterion, ...]:
    """A rubric: a list of texts, or of objects with a text and a weight; or such a list as JSON.

    The text of a criterion is called one of criterion, criteria, description, text, question or
    rubric; its weight, one of weight, points or importance (1 without one; negative for what a
    response should not do).  Criteria that weigh nothing are left out.

    Raises:
        BadRow: it has another form, or a weight is no number from -1000 to 1000.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow("the rubric begins like JSON and is none") from None
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str):
        value = [value] if value.strip() else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ()
    if not isinstance(value, list):
        raise BadRow(f"the rubric is a {type(value).__name__}; it must be a list of criteria")
    if len(value) > _MOST_CRITERIA:
        raise BadRow(f"the rubric has {len(value)} criteria; the limit is {_MOST_CRITERIA}")
    read = [_criterion(entry, f"criterion {n} of the rubric") for n, entry in enumerate(value, 1)]
    weighed = (criterion for criterion in read if criterion.weight)
    return tuple(replace(c, id=f"rubric-{n}") for n, c in enumerate(weighed, 1))


def write_rubric(criteria: Sequence[Criterion]) -> list[dict[str, Any]]:
    """A rubric as `read_rubric` reads it."""
    return [{"criterion": c.text, "weight": c.weight, "tier": c.tier} for c in criteria]


def _criterion(entry: Any, name: str) -> Criterion:
    if isinstance(entry, str):
        entry = {"criterion": entry}
    if not isinstance(entry, Mapping):
        raise BadRow(f"{name} is a {type(entry).__name__}; it must be text or an object")
    texts = [key for key in _TEXTS if isinstance(entry.get(key), str) and entry[key].strip()]
    if len(texts) != 1:
        named = f"several texts ({', '.join(texts)})" if texts else f"none of {', '.join(_TEXTS)}"
        raise BadRow(f"{name} has {named}; it must have one")
    weights = [key for key in _WEIGHTS if entry.get(key) is not None]
    if len(weights) > 1:
        raise BadRow(f"{name} has several weights ({', '.join(weights)}); it must have one")
    weight = entry[weights[0]] if weights else 1.0
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not number or not abs(weight) <= _MOST_WEIGHT:
        raise BadRow(f"{name} has the weight {str(weight)[:40]!r}; it must be from -1000 to 1000")
    tier = entry.get("tier", 1)
    if isinstance(tier, bool) or not isinstance(tier, int) or not 1 <= tier <= 99:
        raise BadRow(f"{name} has the tier {str(tier)[:40]!r}; it must be from 1 to 99")
    text = check_text(entry[texts[0]]).strip()
    if len(text) > _MOST_CHARACTERS:
        limit = f"the limit is {_MOST_CHARACTERS}"
        raise BadRow(f"{name} has {len(text)} characters; {limit}")
    return Criterion("", text, float(weight), tier)

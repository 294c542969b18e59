"""What the values of a verdict's column mean, decided from the whole column and not from one cell.

Words are read as they stand (`model_a`, `B is better`, `A>B`, `tie (bothbad)`).  A bare number is
read only where the column leaves no doubt: which sides there are, and which numbers occur.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlaif.data.columns import tokens_of
from rlaif.data.layout import code_of, split_bound

LETTERS = string.ascii_lowercase
_NOUN = (
    r"(?:(?:model|response|answer|output|assistant|completion|option|candidate|system|summary)"
    r"s?\s*)?"
)
_WORDS = {"left": "a", "right": "b", "first": "a", "second": "b", "one": "a", "two": "b"}
_SIDE = re.compile(
    rf"{_NOUN}([a-z]|\d|left|right|first|second|one|two)(?:\s*{_NOUN})?"
    r"(?:\s+(?:is|was|wins|won)?\s*"
    r"(?:(?:a bit|a little|by far|clearly|considerably|definitely|far|greatly|marginally|moderately"
    r"|much|much much|overall|significantly|slightly|somewhat|strongly|substantially|the|way)\s+)?"
    r"(?:better|best|preferred|wins|won|winner)?)?"
)
_SIGN = re.compile(r"([a-z]|\d)\s*([<>]{1,3}|[=~])\s*([a-z]|\d)")
_TIE = re.compile(
    r"(?:tie\b.*|tied\b.*|both\b.*|neither\b.*|equal\w*\b.*|same\b.*|draw\b.*|none\b.*"
    r"|about the same.*|no preference.*|no difference.*|similar\b.*|c)"
)
_LEANING = re.compile(
    r"\b(?:lean\w*|slight\w*|toward\w*|favou?r\w*|but|edge|break)\b"
    r"|\b(?:[a-h]|1|2|first|second|left|right)\s+(?:is|was|wins?|better|best|preferred)\b"
)
"""What of a tie says that it is none."""
_NEGATED = re.compile(
    r"\b(?:not|never|un\w*preferred|less|least|hardly|isn'?t|wasn'?t|doesn'?t|didn'?t)\b"
    r"|\b(?:worse|worst|loses|lost|loser|losing|inferior|rejected|dispreferred)\b"
)
"""What turns the meaning of a verdict around: such words are asked about."""
SIGNED = ("preference_strength", "overall_preference")
"""Columns of the HelpSteer data sets: below zero the first response is better."""
SIDE_WORDS = (
    tuple("abcdefgh"),
    tuple(str(n) for n in range(10)),
    ("left", "right"),
    ("first", "second"),
)
"""What names a side in the name of a column."""
MOSTLY = 0.9
"""Share of a column's values that must be verdicts for the column to hold verdicts."""
_COUNTED = {"index", "idx", "id", "indices"}


class Doubtful(Exception):
    """The values can be read in more than one way; the message says which.

    Attributes:
        fix: what the user can do, where naming the values does not help.
    """

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True)
class VerdictCodes:
    """What the values of a column mean.

    Attributes:
        values: code (see `code_of`) to "a", "b", ..., "tie" or "none"; or "<1.5" for all numbers
            below a bound.
        kind: "code"; "model": the value names the winner's model; "text": it is the winner's text.
    """

    values: dict[str, str] = field(default_factory=dict)
    kind: str = "code"


def read_codes(
    values: Sequence[object],
    *,
    name: str,
    sides: Sequence[str],
    columns: Sequence[str] = (),
    count: int = 2,
) -> VerdictCodes | None:
    """What the values mean; None if they are no verdicts.

    Args:
        values: of the sample, without empty ones.
        name: of the column, in snake case.
        sides: how the data calls the responses: letters or digits, in order.
        columns: of the responses, where each has its own.
        count: how many responses there are at most.

    Raises:
        Doubtful: they are verdicts that can be read in more than one way.
    """
    codes = list(dict.fromkeys(code_of(v) for v in values))
    if not codes:
        return None
    numbers = [_number(code) for code in codes]
    if all(number is not None for number in numbers):
        return _numeric([n for n in numbers if n is not None], name, sides, max(2, count))
    if set(codes) <= {"true", "false"}:
        raise Doubtful("true and false do not say which response is better")
    found = {code: word_side(code, sides, columns, count) for code in codes}
    known = sum(bool(found[code_of(v)]) for v in values)
    if known >= MOSTLY * len(values):  # the others are rejected, row by row
        return VerdictCodes({code: side for code, side in found.items() if side})
    return None


def word_side(code: str, sides: Sequence[str], columns: Sequence[str] = (), count: int = 2) -> str:
    """The side that a word names: "a", "b", ..., "tie", or "" for none.

    Args:
        count: how many responses there are at most: `c` is a tie of two, and the third of three.
    """
    for k, column in enumerate(columns):
        if code in (column.lower(), column.rsplit(".", 1)[-1].lower()):
            return LETTERS[k]
    if own := _word_of_one(code, columns):
        return own
    text = re.sub(r"[_\-]+", " ", code.strip().strip("[]()\"'").lower()).strip()
    if len(text) > 60 or _NEGATED.search(text):
        return ""
    if match := _SIGN.fullmatch(text):
        one, sign, two = match.groups()
        left, right = _side(one, sides, count), _side(two, sides, count)
        if left and right and left != right:
            return "tie" if sign in "=~" else left if sign[0] == ">" else right
        return ""
    if len(links := re.split(r"\s*([>=~])\s*", text)) > 3:  # a whole order: B > C > A
        ranked = [_side(link, sides, count) for link in links[::2]]
        if "" in ranked or len(set(ranked)) < len(ranked):
            return ""
        return ranked[0] if links[1] == ">" else "tie"
    if match := _SIDE.fullmatch(text):
        side = _side(match.group(1), sides, count)
        if side and not (side == "c" and "c" not in sides and count < 3):
            return side
    return "tie" if _TIE.fullmatch(text) and not _LEANING.search(text) else ""


def _word_of_one(code: str, columns: Sequence[str]) -> str:
    """The side whose column alone has a word in its name: `tuned` beside `tuned_output`.

    All columns must have a word of their own, and one that they share.
    """
    words: list[set[str]] = [set(tokens_of(column)) for column in columns]
    if len(words) < 2 or not code.isalpha():
        return ""
    shared = set.intersection(*words)
    own = [mine.difference(*words[:k], *words[k + 1 :]) for k, mine in enumerate(words)]
    if not shared or not all(own):
        return ""
    return next((LETTERS[k] for k, mine in enumerate(own) if code in mine), "")


def split_order(text: str) -> list[str]:
    """The responses of an order that is written as one text: `b > a > c`, or `b, a, c`."""
    return [part.strip() for part in re.split("[>,]", text)]


def read_order(
    codes: Sequence[str],
    count: int,
    *,
    sides: Sequence[str] = (),
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
) -> list[int] | None:
    """The place of each response, from 1, of a list that names all of them, the best first.

    Args:
        codes: the list (see `code_of`): letters, sides, writers, or numbers from 0 or from 1.
        count: how many responses there are.
        sides, columns: as in `read_codes`.
        names: who wrote the responses, as codes.

    Returns:
        None where it does not name each of them once.
    """
    numbers = [_number(code) for code in codes]
    if len(set(names)) == count and set(codes) == set(names):
        order = [names.index(code) for code in codes]
    elif all(n is not None and n.is_integer() for n in numbers):
        first = 0 if 0 in numbers else 1
        order = [int(n) - first for n in numbers if n is not None]
    else:
        words = [word_side(code, sides, columns, count) for code in codes]
        order = [LETTERS.find(word) if word else -1 for word in words]
    if sorted(order) != list(range(count)):
        return None
    return [order.index(k) + 1 for k in range(count)]


def _side(word: str, sides: Sequence[str], count: int = 2) -> str:
    """The letter of a side by its own name; digits count from one unless the data says zero."""
    word = word.lower()
    if word in sides:
        return LETTERS[list(sides).index(word)]
    if word in _WORDS:
        return _WORDS[word]
    if word.isdigit() and "0" not in sides and 1 <= int(word) <= max(count, len(sides)):
        return LETTERS[int(word) - 1]
    # Sides that have no letters of their own can still be called A and B.
    return word if word in LETTERS[: max(count, len(sides))] else ""


def look_up(values: Mapping[str, str], value: object) -> str | None:
    """What a value means by a layout's `values`; None where they do not say."""
    code = code_of(value)
    if code in values:
        return values[code]
    number = _number(code)
    if number is None:
        return None
    for key, side in values.items():
        sign, bound = split_bound(key)
        if (sign[:1] == "<" and number < bound) or (sign[:1] == ">" and number > bound):
            return side
        if sign[1:] == "=" and number == bound:
            return side
    return None


def bound_of(values: Mapping[str, str]) -> float | None:
    """The number at which verdicts turn, of values with bounds; None where there are none."""
    bounds = [bound for sign, bound in map(split_bound, values) if sign]
    return sum(bounds) / len(bounds) if bounds else None


def _number(code: str) -> float | None:
    try:
        return float(code)
    except ValueError:
        return None


def _numeric(
    numbers: Sequence[float], name: str, sides: Sequence[str], count: int
) -> VerdictCodes | None:
    """Bare numbers.

    Raises:
        Doubtful: as `read_codes`.
    """
    shown = ", ".join(f"{n:g}" for n in sorted(set(numbers))[:6])
    if (
        name.endswith(SIGNED)
        and all(0 <= n <= 1 for n in numbers)
        and any(0 < n < 1 for n in numbers)
    ):
        raise Doubtful(f"{shown} can be probabilities, and nothing says of which response")
    if name.endswith(SIGNED) and any(n < 0 for n in numbers):
        return VerdictCodes({"<0": "a", ">0": "b", "0": "tie"})
    if name.endswith(SIGNED):
        raise Doubtful(f"{shown} can be strengths, sides or grades: none of them is below zero")
    if any(n < 0 for n in numbers):
        raise Doubtful(f"{shown} are strengths, but nothing says which sign favors which response")
    fractions = any(not float(n).is_integer() for n in numbers)
    between = fractions and all(1 <= n <= 2 for n in numbers)
    if between and "preference" in name and list(sides) == ["1", "2"]:
        # AlpacaEval: 1 for the first output, 2 for the second, and between them a probability.
        return VerdictCodes({"<1.5": "a", ">1.5": "b", "1.5": "tie"})
    if fractions:
        raise Doubtful(f"{shown} do not name a response")
    count = max(count, len(sides))
    held = {int(n) for n in numbers}
    if sides and all(side.isdigit() for side in sides) and {str(n) for n in held} <= set(sides):
        return VerdictCodes({side: LETTERS[k] for k, side in enumerate(sides)})
    from_zero = set(name.split("_")) & _COUNTED or (0 in held and max(held) < count and count > 2)
    if from_zero and max(held) < count and name.split("_")[-1] != "id":
        return VerdictCodes({str(k): LETTERS[k] for k in range(count)})
    if max(held) == count and 0 not in held:
        return VerdictCodes({str(k + 1): LETTERS[k] for k in range(count)})
    if max(held) <= count:
        raise Doubtful(
            f"{shown} can count the responses from 0 or from 1, or say whether the first is better"
        )
    raise Doubtful(f"{shown} do not name a response")


def sides_of(paths: Sequence[str]) -> list[str]:
    """The names of the sides of columns that were given."""
    if len(paths) < 2:
        return []
    for words in SIDE_WORDS:
        ends = [tokens_of(p)[-1] if tokens_of(p) else "" for p in paths]
        if all(end in words for end in ends):
            return ends
    return [p.lower() for p in paths]

"""Turns pydantic's errors into one sentence at the nearest place that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rlaif.errors import Place, RlaifError

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a value.

    Attributes:
        where: keys and indices from the value to the part.
        kind: pydantic's name of the error, such as "extra_forbidden".
        message: what was expected, in lower case.
        given: the part as it was given.
    """

    where: Path
    kind: str
    message: str
    given: object

    @property
    def shown(self) -> str:
        """The value in brackets, with a space before it; "" for what has parts of its own."""
        return "" if isinstance(self.given, dict | list) else f" (it is {self.given!r:.80})"


def first_problem(error: ValidationError) -> Problem:
    """The first problem of an error."""
    return parse_problem(error.errors(include_url=False)[0])


def parse_problem(detail: Mapping[str, Any]) -> Problem:
    """One entry of `ValidationError.errors()`."""
    message = str(detail["msg"]).removeprefix("Value error, ")
    return Problem(
        where=tuple(detail["loc"]),
        kind=str(detail["type"]),
        message=message[:1].lower() + message[1:],
        given=detail["input"],
    )


def find_place(where: Path, *places: Mapping[Path, Place]) -> Place | None:
    """The place of a part, or of the closest part around it that has one.

    Args:
        places: by path; those of the first mapping come before those of the next.
    """
    for end in range(len(where), -1, -1):
        for known in places:
            if where[:end] in known:
                return known[where[:end]]
    return None


def describe_problem(error: ValidationError) -> str:
    """The first problem of some data that is not its user's own: `place: what`."""
    problem = first_problem(error)
    return f"{'.'.join(str(part) for part in problem.where)}: {problem.message}"


def explain(
    error: ValidationError,
    *,
    hint: str,
    places: Mapping[Path, Place] | None = None,
    default: Place | None = None,
) -> RlaifError:
    """The first problem as an error of its user's.

    Args:
        places: of the parts, by path.
        default: where nothing closer is known.
    """
    problem = first_problem(error)
    place = find_place(problem.where, places or {}) or default
    if problem.kind == "extra_forbidden":
        return RlaifError(f"unknown setting {str(problem.where[-1])!r}", hint=hint, place=place)
    name = ".".join(str(step) for step in problem.where)
    text = f"{name}: {problem.message}" if name else problem.message
    return RlaifError(f"{text}{problem.shown}", hint=hint, place=place)

"""What the numbers of a log's ratings mean: votes, stars from 1 to 5, or a scale that is asked for.

Decided from all ratings of a log, since one number says nothing: 1 is a thumb up on one scale and
the worst of five stars on another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from rlaif.errors import RlaifError

STARS = (1.0, 5.0)
STARS_GOOD, STARS_BAD = 4.0, 2.0


@dataclass(frozen=True)
class RatingScale:
    """A scale of ratings.

    Attributes:
        low, high: the least and the greatest rating of the log; None where there is none.
        good_from, bad_to: ratings from and up to which a completion counts as good or bad.
        votes: whether the numbers are thumbs.
        neutral: whether a thumb of 0 is neither up nor down, since others are -1.
    """

    low: float | None = None
    high: float | None = None
    good_from: float = STARS_GOOD
    bad_to: float = STARS_BAD
    votes: bool = False
    neutral: bool = False

    def judge(self, rating: float) -> bool | None:
        """Whether a rating is good, bad, or neither."""
        if rating >= self.good_from:
            return True
        return False if rating <= self.bad_to else None

    def describe(self) -> str:
        """The scale in words."""
        if self.votes:
            return "votes: 1 is up"
        return f"good from {self.good_from:g}, bad up to {self.bad_to:g}"


def find_scale(
    ratings: Iterable[float], good_from: float | None, bad_to: float | None
) -> RatingScale:
    """The scale of all ratings of a log.

    Args:
        good_from, bad_to: what the user says; None where nothing was said.

    Raises:
        RlaifError: nothing says which of these ratings are good, or the bounds are turned around.
    """
    held = set(ratings)
    low, high = min(held, default=None), max(held, default=None)
    if good_from is not None and bad_to is not None:
        return _checked(RatingScale(low, high, good_from, bad_to))
    said = good_from is not None or bad_to is not None
    if low is None or high is None:
        return _checked(_stars(None, None, good_from, bad_to))
    if held <= {-1.0, 0.0, 1.0} and held not in ({1.0}, {0.0}) and not said:
        bad = -1.0 if -1.0 in held else 0.0
        return RatingScale(low, high, good_from=1.0, bad_to=bad, votes=True)
    # Where nothing is above 3, the scale may end there.
    stars = low >= 0.0 and STARS_GOOD <= high <= STARS[1]
    if stars and low == 0.0 and not said:
        raise RlaifError(
            f"ratings run from 0 to {high:g}, and 0 may be the worst or no rating at all",
            hint="If it is the worst, set --good-from and --bad-to; if there is none, empty those "
            "cells.",
        )
    if stars or (said and STARS[0] <= low and high <= STARS[1]):
        return _checked(_stars(low, high, good_from, bad_to))
    span = f"run from {low:g} to {high:g}" if low != high else f"are all {low:g}"
    raise RlaifError(
        f"ratings {span}, and nothing says which of them are good",
        hint="Set --good-from and --bad-to to the bounds of good and bad ratings.",
    )


def check_thumbs(column: str, numbers: Iterable[float], words: Collection[str] = ()) -> None:
    """Refuse numbers that are no thumbs.

    Args:
        numbers: all of a log's thumbs that are numbers.
        words: all of them that are words.

    Raises:
        RlaifError: there are others than -1, 0 and 1; or 0 may be a thumb down or none.
    """
    held = set(numbers)
    if held == {0.0}:
        beside = f" beside {' and '.join(map(repr, sorted(words)[:2]))}" if words else " alone"
        raise RlaifError(
            f"column {column!r} holds 0{beside}, which may be a thumb down or none",
            hint="Write a thumb down as -1 or 'down', and empty the cells where there is none.",
        )
    others = sorted(held - {-1.0, 0.0, 1.0})
    if others:
        raise RlaifError(
            f"column {column!r} holds {others[-1]:g}, which is neither up nor down",
            hint=f"If it holds ratings, pass --map rating={column}.",
        )


def _stars(
    low: float | None, high: float | None, good_from: float | None, bad_to: float | None
) -> RatingScale:
    return RatingScale(
        low=low,
        high=high,
        good_from=STARS_GOOD if good_from is None else good_from,
        bad_to=STARS_BAD if bad_to is None else bad_to,
    )


def _checked(scale: RatingScale) -> RatingScale:
    if scale.bad_to >= scale.good_from:
        raise RlaifError(
            f"--bad-to {scale.bad_to:g} is not below --good-from {scale.good_from:g}",
            hint="Set --bad-to below --good-from.",
        )
    return scale

"""Reads which label a chat server's answer names: from its likeliest tokens, or from its text.

Servers give a few likeliest tokens at a place, never all.  A label that is not among them has at
most the probability of the least likely one that is, and at most what the others leave: where that
bound leaves no doubt which label is likelier, it stands for the probability, so that the verdict is
no surer than what was seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_BLANK = "\u0120\u2581 \n\t\r"
_AROUND = " \t\n\r*_`\"'()[]{}<>#.,:;!"
_SAYS = re.compile(r"(?:final |my )?(?:answer|verdict|choice)(?: is)?\s*:?\s+", re.IGNORECASE)


class NoLabel(ValueError):
    """An answer names no label, and why."""


class NoProbabilities(ValueError):
    """A server's answer comes without the likeliest tokens."""


def read_probabilities(choice: Mapping[str, Any], labels: Sequence[str]) -> tuple[float, float]:
    """The log-probabilities (nats) of two labels where the answer begins.

    Tokens of blanks before it are passed over; what follows them is as likely as they are, times
    what the server says.  The two together come to the probability that was seen.

    Raises:
        NoProbabilities: the server gives none.
        NoLabel: one label is not among the tokens, and may be likelier than the other.
    """
    place, before = _first_place(choice)
    seen = [0.0, 0.0]
    total, least = 0.0, 1.0
    for token, p in place.items():
        total, least = total + p, min(least, p)
        said = token.strip(_BLANK)
        if said in labels:
            seen[labels.index(said)] += p
    if not any(seen):
        raise NoLabel(
            f"low label mass: neither label is among the {len(place)} likeliest tokens "
            f"({_shown(place)})"
        )
    mass = min(1.0, sum(seen))
    if not all(seen):
        missing = seen.index(0.0)
        bound = min(least, max(1.0 - total, 0.0))
        if bound >= seen[1 - missing]:
            raise NoLabel(
                f"label {labels[missing]!r} is not among the {len(place)} likeliest tokens, and "
                f"may be likelier than {labels[1 - missing]!r} ({seen[1 - missing]:.3g})"
            )
        seen[missing] = max(bound, _LEAST)
    scale = before * mass / sum(seen)
    return math.log(seen[0] * scale), math.log(seen[1] * scale)


_LEAST = 1e-26
"""What stands for a probability that is 0 as far as a server says."""


def _first_place(choice: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """The likeliest tokens where the answer begins, and the probability of the blanks before."""
    held = choice.get("logprobs")
    content = held.get("content") if isinstance(held, Mapping) else None
    if not isinstance(content, list):
        raise NoProbabilities("the answer comes without log-probabilities")
    before = 1.0
    for entry in content:
        tops = entry.get("top_logprobs") if isinstance(entry, Mapping) else None
        if not isinstance(tops, list) or not tops:
            raise NoProbabilities("the answer comes without the likeliest tokens")
        token = str(entry.get("token", ""))
        if token.strip(_BLANK):
            return _place(tops), before
        before *= _probability(entry)
    raise NoLabel("the answer is blank")


def _place(tops: Sequence[Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for top in tops:
        if not isinstance(top, Mapping):
            raise NoProbabilities("the likeliest tokens can't be read")
        token = str(top.get("token", ""))
        found[token] = max(found.get(token, 0.0), _probability(top))
    if sum(found.values()) > 1.02:
        raise NoLabel(f"probabilities of more than 1 together ({_shown(found)})")
    return found


def _probability(entry: Mapping[str, Any]) -> float:
    value = entry.get("logprob")
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise NoProbabilities("a token has no log-probability")
    if value > 0.02:
        raise NoLabel(f"a log-probability of {value:g} is above 0")
    return math.exp(min(0.0, value))


def _shown(place: Mapping[str, float]) -> str:
    likely = sorted(place.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{token!r} {p:.2g}" for token, p in likely)


def read_text_label(text: str, labels: Sequence[str], opening: str = "") -> int:
    """Which label an answer names: 0 or 1.

    Strictly: the label alone on the first line, perhaps in marks, behind the words that were to
    open the answer or a part of their end, and with a reason behind it ("because").

    Raises:
        NoLabel: it names none, or both.
    """
    said = re.sub("[*_`]", "", text).strip(_AROUND)
    said = said[head.end() :].strip(_AROUND) if (head := _SAYS.match(said)) else said
    words = opening.split()
    for k in range(len(words)):
        own = " ".join(words[k:])
        if said.casefold().startswith(own.casefold()):
            said = said[len(own) :].strip(_AROUND)
            break
    first, _, rest = said.partition("\n")
    found = [k for k, label in enumerate(labels) if _names_alone(first, label)]
    if len(found) != 1 or _concludes(rest, labels[1 - found[0]]):
        shown = " ".join(text.split())[:60]
        raise NoLabel(f"the answer names no label: {shown!r}" if shown else "the answer is empty")
    return found[0]


def _names_alone(line: str, label: str) -> bool:
    """Whether a line is a label and no more than a reason behind it."""
    reason = rf"{re.escape(label)}[,.]? (?:because|since|as) .*"
    return line.strip(_AROUND) == label or re.fullmatch(reason, line) is not None


def _concludes(rest: str, other: str) -> bool:
    """Whether what follows comes to the other label in the end."""
    named = rf"\b(?:answer|verdict|choice|response)\b[^\n]{{0,20}}?\b{re.escape(other)}\W*$"
    return re.search(named, rest, re.IGNORECASE) is not None

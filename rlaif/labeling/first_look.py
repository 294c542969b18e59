"""Looks at the first verdicts of a run: whether the judge is read, and judges more than a place.

A template that does not suit a judge shows at once.  A run of a million pairs must not end with
a million invalid verdicts, or with verdicts that only say which response was shown first.
"""

from __future__ import annotations

from collections import Counter
from statistics import median

from rlaif.errors import RlaifError
from rlaif.records import Verdict

ENOUGH = 100
"""Verdicts after which the run is looked at."""
EACH_ORDER = 20
"""Valid verdicts of each order that say something about the position."""
PATIENCE = 1000
"""Verdicts after which no more are waited for."""
MOST_INVALID = 0.5
MOST_BY_POSITION = 0.95


class FirstLook:
    """Takes verdicts until it has seen enough.

    Args:
        command: that finds a template which suits the judge.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._seen = 0
        self._invalid: Counter[str] = Counter()
        self._masses: list[float] = []
        self._valid = Counter({"ab": 0, "ba": 0})
        self._first = Counter({"ab": 0, "ba": 0})
        self.done = False

    def take(self, verdict: Verdict) -> None:
        """Count a verdict.

        Raises:
            RlaifError: enough were seen, and most can't be read or follow the position.
        """
        self._seen += 1
        if verdict.invalid:
            self._invalid[verdict.invalid] += 1
            if verdict.label_mass > 0:
                self._masses.append(verdict.label_mass)
        else:
            self._valid[verdict.order] += 1
            self._first[verdict.order] += verdict.logit > 0
        if self._seen < ENOUGH:
            return
        invalid = self._invalid.total()
        if invalid > MOST_INVALID * self._seen:
            self._refuse(f"{invalid} of the first {self._seen} verdicts are invalid: {self._cause}")
        if min(self._valid.values()) >= EACH_ORDER:
            self._check_position()
            self.done = True
        self.done = self.done or self._seen >= PATIENCE

    def _check_position(self) -> None:
        first = {order: self._first[order] / n for order, n in self._valid.items()}
        for side, least in (
            ("first", min(first.values())),
            ("second", 1 - max(first.values())),
        ):
            if least >= MOST_BY_POSITION:
                number = self._first.total()
                number = number if side == "first" else self._valid.total() - number
                self._refuse(
                    f"{number} of the first {self._valid.total()} verdicts are for the response "
                    f"that is shown {side}, whichever it is"
                )

    @property
    def _cause(self) -> str:
        reason, _ = self._invalid.most_common(1)[0]
        if len(self._masses) > self._invalid.total() / 2:
            return f"label mass {median(self._masses):.2g} in the median"
        return reason

    def _refuse(self, what: str) -> None:
        raise RlaifError(
            what,
            hint=f"See which template suits this judge: `{self._command}`. Or go on as it is with "
            "--keep-going.",
        )

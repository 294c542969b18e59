"""Stops a labeling run at what it may cost: nothing more is asked, and all that was is answered."""

from __future__ import annotations

from collections.abc import Iterator

from rlaif.errors import RlaifError
from rlaif.labeling.usage import UsageMeter
from rlaif.records import AnyRequest, ContextRequest
from rlaif.runs.cost import Prices

_UNPRICED = 100
"""Requests under way at once while nobody knows what one costs."""


class Budget:
    """What a run may still ask.

    Attributes:
        stopped: whether a request was kept back.
    """

    def __init__(self, prices: Prices, usage: UsageMeter) -> None:
        self._prices, self._usage = prices, usage
        self._unanswered = self._answered = 0
        self._began = usage.tokens
        self.stopped = False

    def limit(self, requests: Iterator[AnyRequest | None]) -> Iterator[AnyRequest | None]:
        """Requests while the run may cost more; then none, until those under way are answered."""
        for request in requests:
            while request is not None and self._is_spoken_for():
                if not self._unanswered:
                    self.stopped = True
                    return
                yield None
            if isinstance(request, ContextRequest):
                self._unanswered += len(request.ids)
            else:
                self._unanswered += request is not None
            yield request

    def note_answers(self, count: int) -> None:
        """So many requests are answered."""
        self._unanswered -= count
        self._answered += count

    def check(self, rows: int) -> None:
        """Say that the run was stopped.

        Raises:
            RlaifError: it was.
        """
        if self.stopped:
            raise RlaifError(
                f"the run has cost {self._prices.most:g}, as much as --max-cost allows, after "
                f"{rows} rows",
                hint="Rerun the same command with a higher --max-cost to resume.",
            )

    def _is_spoken_for(self) -> bool:
        """Whether what was paid, and what is under way at the usual price, is all that there is."""
        if self._prices.most is None:  # asked before every request
            return False
        spent = self._usage.tokens
        if self._unanswered and not self._answered:
            return self._unanswered >= _UNPRICED
        if self._unanswered:
            spent = spent.plus(spent.less(self._began).times(self._unanswered / self._answered))
        return self._prices.are_spent(seconds=self._usage.seconds, tokens=spent)

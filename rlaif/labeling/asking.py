"""From a planned pair's questions in one order to requests: one for all, or one for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rlaif.judging.rendering import Branches, Renderer
from rlaif.labeling.in_flight import InFlight, JudgeReply
from rlaif.labeling.planner import PlannedPair
from rlaif.labeling.reasoning import ReasoningSampler
from rlaif.labeling.token_accounting import TokenAccounting
from rlaif.records import AnyRequest, ChoiceRequest, ContextRequest, Request


class Asker:
    """Makes the requests of a labeling loop, in the order in which they are to be asked.

    Args:
        together: whether the engine takes all questions about a context in one request.
        on_recall: told of a question that an equal one has answered since it was planned.
    """

    def __init__(
        self,
        renderer: Renderer,
        accounting: TokenAccounting,
        *,
        in_flight: InFlight,
        sampler: ReasoningSampler,
        together: bool,
        on_recall: Callable[[PlannedPair, int, JudgeReply], None],
    ) -> None:
        self._renderer, self._accounting, self._in_flight = renderer, accounting, in_flight
        self._sampler, self._on_recall = sampler, on_recall
        # Reasoning and scores take several requests for a question, one after the other.
        self._together = together and not renderer.reasons and not renderer.scores
        self._asked = 0

    def ask(self, item: PlannedPair, branch: Branches) -> Iterator[AnyRequest]:
        """Requests for those questions whose turn has come."""
        if self._together and not branch.pictures and not branch.rewards:
            yield from self._ask_together(item, branch)
            return
        for index, tail in branch.tails:
            if self._is_to_ask(item, index):
                yield from self._ask_one(item, index, branch, tail)

    def _is_to_ask(self, item: PlannedPair, index: int) -> bool:
        """Whether a question's turn has come, and its answer is neither known nor under way."""
        if item.stopped or index not in item.stages[item.stage]:
            return False
        if index in item.answers or index in item.pending:
            return False
        item.pending.add(index)
        key = item.keys[index]
        if self._in_flight.join(key, item, index):
            return False
        reply = self._in_flight.recall(key)
        if reply is not None:
            self._on_recall(item, index, reply)
        return reply is None

    def _name(self) -> str:
        self._asked += 1
        return str(self._asked)

    def _ask_one(
        self, item: PlannedPair, index: int, branch: Branches, tail: list[int]
    ) -> Iterator[Request]:
        shared = self._accounting.count(branch.context, tail)
        request = ChoiceRequest(
            id=self._name(),
            token_ids=branch.context + tail,
            label_ids=self._renderer.label_ids,
            shared=shared,
            pictures=branch.pictures,
        )
        key = item.keys[index]
        self._in_flight.open(key, item, index, request.id)
        self._in_flight.track(request, key)
        if self._renderer.reasons and not branch.rewards:
            yield from self._sampler.requests(request, key)
        else:
            yield request

    def _ask_together(self, item: PlannedPair, branch: Branches) -> Iterator[ContextRequest]:
        ids: list[str] = []
        tails: list[list[int]] = []
        shared: list[int] = []
        for index, tail in branch.tails:
            if self._is_to_ask(item, index):
                ids.append(self._name())
                tails.append(tail)
                shared.append(self._accounting.count(branch.context, tail))
                self._in_flight.open(item.keys[index], item, index, ids[-1])
        if ids:
            yield ContextRequest(
                ids=ids,
                context=branch.context,
                tails=tails,
                label_ids=self._renderer.label_ids,
                shared=shared,
            )

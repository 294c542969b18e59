"""A request as the calls to a server that lead to its answer: asked one by one, or many together.

The calls of a request are a generator: it yields calls that can be made together, takes their
results, and returns the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from rlaif.records import Result

Call = TypeVar("Call")
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ServerCall:
    """One call to a chat server.

    Attributes:
        name: of the request that it is for.
        make: its body, as the server is known to want it now.
        take: what becomes of a successful answer; raises `Unusable` where it is none.
        draw: how often the same body was sent before, for the same question.
    """

    name: str
    make: Callable[[], dict[str, Any]]
    take: Callable[[str, httpx.Response], Result]
    draw: int = 0

    def read(self, answer: httpx.Response) -> Result:
        """What becomes of a successful answer."""
        return self.take(self.name, answer)


ServerCalls = Generator[list[ServerCall], list[Result], Result]


def finish(
    steps: Generator[list[Call], list[Result], Answer],
    ask: Callable[[list[Call]], list[Result]],
) -> Answer:
    """Make all calls, one list after the other; the answer."""
    try:
        calls = next(steps)
        while True:
            calls = steps.send(ask(calls))
    except StopIteration as ended:
        answer: Answer = ended.value
        return answer


def map_steps(
    steps: Generator[list[Asked], list[Result], Answer], change: Callable[[Asked], Call]
) -> Generator[list[Call], list[Result], Answer]:
    """The same steps, with calls of another kind."""
    try:
        asked = next(steps)
        while True:
            asked = steps.send((yield [change(one) for one in asked]))
    except StopIteration as ended:
        answer: Answer = ended.value
        return answer

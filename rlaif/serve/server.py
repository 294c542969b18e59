"""What the endpoints stand on: the judges, the model names, and how requests reach the service."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rlaif.api.judge import Judge
from rlaif.api.service import QueueFull, Service, ServiceRestarting, ServiceStopped
from rlaif.errors import RlaifError
from rlaif.serve import schemas as s
from rlaif.serve.chat import RequestTooLarge
from rlaif.serve.dialects import DIALECTS
from rlaif.serve.metrics import Metrics

PREFIX = "rlaif/"
DEFAULT_DIALECT = "json"


@dataclass(frozen=True)
class RequestLimits:
    """What one request may take.

    Attributes:
        token: what a bearer must present, or None.
        body_bytes: size of a request.
        seconds: until a request is answered with 504.
        hosts: names that a `Host` header may have beside this machine's loopback; None for any.
    """

    token: str | None = None
    body_bytes: int = 16 << 20
    seconds: float = 600.0
    hosts: frozenset[str] | None = None


@dataclass(frozen=True)
class Alias:
    """What a model name stands for."""

    constitution: str
    dialect: str


class RequestTimeout(Exception):
    """A request that took longer than it may."""


class UnknownModel(Exception):
    """A constitution or a model that is not served."""


def read_aliases(given: Sequence[str], constitutions: Sequence[str]) -> dict[str, Alias]:
    """All model names: `rlaif/<constitution>[:<dialect>]`, and those given as `NAME=C:DIALECT`.

    Raises:
        RlaifError: an alias is malformed or names what is not served.
    """
    found = {}
    for name in constitutions:
        found[f"{PREFIX}{name}"] = Alias(name, DEFAULT_DIALECT)
        for dialect in DIALECTS:
            found[f"{PREFIX}{name}:{dialect}"] = Alias(name, dialect)
    for text in given:
        name, equals, target = text.rpartition("=")
        constitution, colon, dialect = target.removeprefix(PREFIX).rpartition(":")
        if not (equals and colon and name):
            raise RlaifError(f"alias {text!r} is malformed", hint="Use NAME=CONSTITUTION:DIALECT.")
        if constitution not in constitutions:
            raise RlaifError(
                f"alias {text!r}: constitution {constitution!r} is not served",
                hint=f"Served: {', '.join(constitutions)}.",
            )
        if dialect not in DIALECTS:
            raise RlaifError(
                f"alias {text!r}: dialect {dialect!r} is unknown",
                hint=f"Use one of {', '.join(DIALECTS)}.",
            )
        found[name] = Alias(constitution, dialect)
    return found


class Server:
    """The judges that are served, and how requests reach them.

    Args:
        judges: by the name of their constitution; the first is the default.
        service: drives all of them.
    """

    def __init__(
        self,
        judges: Mapping[str, Judge],
        service: Service,
        aliases: Mapping[str, Alias],
        limits: RequestLimits,
    ) -> None:
        self.judges = judges
        self.service = service
        self.aliases = aliases
        self.limits = limits
        self.metrics = Metrics(service)
        self.began = int(time.time())
        self._submitting = threading.Lock()

    def judge(self, name: str | None) -> Judge:
        """A judge by the name of its constitution.

        Raises:
            Unknown: it is not served.
        """
        if name is None:
            return next(iter(self.judges.values()))
        if name not in self.judges:
            raise UnknownModel(
                f"constitution {name[:80]!r} is not served; available: {', '.join(self.judges)}"
            )
        return self.judges[name]

    def alias(self, model: str) -> Alias:
        """What a model name stands for.

        Raises:
            Unknown: nothing.
        """
        found = self.aliases.get(model)
        if found is None:
            raise UnknownModel(
                f"model {model[:80]!r} does not exist; GET /v1/models lists the available "
                f"ones ({', '.join(list(self.aliases)[:3])}, ...)"
            )
        return found

    async def wait(self, future: Future[Any]) -> Any:
        """What a future holds, if it comes in time.

        Raises:
            TooSlow: it does not; it is canceled.
        """
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.limits.seconds)
        except TimeoutError:
            raise RequestTimeout(f"the request timed out after {self.limits.seconds:g} s") from None

    async def wait_for_all(self, futures: list[Future[Any] | s.ItemError]) -> list[Any]:
        """What all of them hold, within the time of one request."""
        try:
            return await asyncio.gather(
                *(f if isinstance(f, Awaitable) else self._item(f) for f in futures)
            )
        finally:
            for future in futures:
                if isinstance(future, Future):
                    future.cancel()

    async def _item(self, item: Future[Any] | s.ItemError) -> Any:
        return item if isinstance(item, s.ItemError) else await self.wait(item)

    async def judge_all(
        self, items: Sequence[s.PairIn | s.ResponseIn], submit: Callable[[Any], Future[Any]]
    ) -> list[Any]:
        """Put every item to the judge and wait; meanwhile others are answered.

        Raises:
            Busy: there is no room for all of them; none is asked.
            TooLarge: there never will be.
        """
        return await self.wait_for_all(await asyncio.to_thread(self.submit_all, items, submit))

    def submit_all(
        self, items: Sequence[s.PairIn | s.ResponseIn], submit: Callable[[Any], Future[Any]]
    ) -> list[Future[Any] | s.ItemError]:
        """Put every item to the judge; one that can't be read is an error of its own.

        Raises:
            Busy: there is no room for all of them; none is asked.
            TooLarge: there never will be.
        """
        if self.service.most_waiting is not None and len(items) > self.service.most_waiting:
            raise RequestTooLarge(
                f"a batch of {len(items)} exceeds the queue limit ({self.service.most_waiting}); "
                "send fewer items"
            )
        with self._submitting:  # two batches at once would take each other's room
            return self._submit_each(items, submit)

    def _submit_each(
        self, items: Sequence[s.PairIn | s.ResponseIn], submit: Callable[[Any], Future[Any]]
    ) -> list[Future[Any] | s.ItemError]:
        futures: list[Future[Any] | s.ItemError] = []
        try:
            for item in items:
                try:
                    futures.append(submit(row_of(item)))
                except (QueueFull, ServiceRestarting, ServiceStopped):
                    raise
                except RlaifError as error:
                    name = item.id.encode("utf-8", "replace").decode()
                    futures.append(s.ItemError(id=name, error=error.message))
        except (QueueFull, ServiceRestarting, ServiceStopped):
            for future in futures:
                if isinstance(future, Future):
                    future.cancel()
            raise
        return futures


def row_of(item: s.PairIn | s.ResponseIn) -> dict[str, Any]:
    """An item as `rlaif label` reads rows."""
    row = item.model_dump(exclude_none=True, exclude={"constitution"})
    return {k: v for k, v in row.items() if v or k not in ("id", "tags")}

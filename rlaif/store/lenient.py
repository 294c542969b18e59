"""Caches that a server answers without while they fail: a full disk is no reason to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rlaif.errors import RlaifError
from rlaif.store.text_cache import GeneratedText, TextCache
from rlaif.store.verdict_cache import CachedAnswer, VerdictCache

Found = TypeVar("Found")
Tell = Callable[[str], None]


class LenientTexts(TextCache):
    """A text cache that knows nothing while it can't be read, and keeps nothing while it can't be
    written.

    Args:
        tell: told of a fault, once until the cache works again.

    Raises:
        RlaifError: the file can't be opened.
    """

    def __init__(self, path: Path, tell: Tell) -> None:
        super().__init__(path)
        self._reading, self._writing = _Faults(tell), _Faults(tell)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, GeneratedText]:
        """See `TextCache.get`."""
        get = super().get
        return self._reading.survive(lambda: get(keys), {})

    def put(self, texts: Iterable[tuple[bytes, GeneratedText]]) -> None:
        """See `TextCache.put`."""
        put = super().put
        self._writing.survive(lambda: put(texts), None)


class LenientVerdicts(VerdictCache):
    """The same for verdicts."""

    def __init__(self, path: Path, tell: Tell) -> None:
        super().__init__(path)
        self._reading, self._writing = _Faults(tell), _Faults(tell)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, CachedAnswer]:
        """See `VerdictCache.get`."""
        get = super().get
        return self._reading.survive(lambda: get(keys), {})

    def put(self, answers: Iterable[tuple[bytes, CachedAnswer]]) -> None:
        """See `VerdictCache.put`."""
        put = super().put
        self._writing.survive(lambda: put(answers), None)


class _Faults:
    def __init__(self, tell: Tell) -> None:
        self._tell, self._told = tell, False

    def survive(self, use: Callable[[], Found], otherwise: Found) -> Found:
        """What `use` gives, or `otherwise` where the cache fails."""
        try:
            found = use()
        except RlaifError as error:
            if not self._told:
                self._tell(f"{error.message}; answers are not kept until it works again")
            self._told = True
            return otherwise
        self._told = False
        return found

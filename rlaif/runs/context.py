"""What surrounds a run whatever it does: where answers are kept, and who is told how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.engines.base import EngineSettings
from rlaif.store.text_cache import text_cache_path
from rlaif.store.verdict_cache import verdict_cache_path


def _ignore(_: Any) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class RunContext:
    """Handed from a command through every layer to the engine and the caches.

    Attributes:
        cache_dir: folder of the verdict cache and the text cache; None for the user's.
        on_engine: told a model's settings before its engine starts.
        on_progress: told how far a run is, after every batch of answers.
        first_look: whether a labeling run stops if its first verdicts can't be used.
    """

    cache_dir: Path | None = None
    on_engine: Callable[[EngineSettings], None] = _ignore
    on_progress: Callable[[Any], None] = _ignore
    first_look: bool = False

    @property
    def verdicts_path(self) -> Path:
        """The verdict cache."""
        return verdict_cache_path(self.cache_dir)

    @property
    def texts_path(self) -> Path:
        """The text cache."""
        return text_cache_path(self.cache_dir)

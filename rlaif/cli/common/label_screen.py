"""What the commands that label show while they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.cli.common.output import note, progress_bar
from rlaif.engines.base import EngineSettings
from rlaif.runs.context import RunContext


class LabelScreen:
    """Progress on stderr, judge after judge.

    Args:
        total: rows that each judge reads; None if unknown.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._bar: Any = None

    def context(self, cache_dir: Path | None) -> RunContext:
        """A run that tells this screen how far it is."""
        return RunContext(cache_dir, on_engine=self.engine, on_progress=self.progress)

    def engine(self, settings: EngineSettings) -> None:
        """A model is about to start."""
        self.close()
        beside = ", ".join(repr(reward.model) for reward in settings.reward_models)
        more = f", and reward model {beside}" if beside else ""
        note(f"starting {settings.model!r} on {settings.engine}{more} ...")

    def progress(self, p: Any) -> None:
        """Some more verdicts came."""
        if self._bar is None:
            self._bar = progress_bar(self._total, "row")
        rate = p.verdicts / p.seconds if p.seconds else 0.0
        hits = p.cached / p.verdicts if p.verdicts else 0.0
        self._bar.set_postfix_str(f"{rate:.0f} verdicts/s, {hits:.0%} cached", refresh=False)
        self._bar.update(p.rows - self._bar.n)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None

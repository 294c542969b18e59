"""What the commands that generate show: progress, and a table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.cli.common.output import echo, note, print_json, progress_bar, table
from rlaif.engines.base import EngineSettings
from rlaif.runs.context import RunContext


class GenerationScreen:
    """Progress on stderr.

    Args:
        written: the bar counts rows that one long conversation gives on its way.
    """

    def __init__(self, total: int | None, unit: str = "row", *, written: bool = False) -> None:
        self._total = total
        self._unit = unit
        self._bar: Any = None
        self._turn = 0
        self._written = written

    def context(self, cache_dir: Path | None) -> RunContext:
        """A run that tells this screen how far it is."""
        return RunContext(cache_dir, on_engine=self.engine, on_progress=self.progress)

    def engine(self, settings: EngineSettings) -> None:
        """A model is about to start."""
        self.close()
        note(f"starting {settings.model!r} on {settings.engine} ...")

    def progress(self, p: Any) -> None:
        """Some more answers came."""
        if self._bar is None or p.turn != self._turn:
            self.close()
            self._turn = p.turn
            self._bar = progress_bar(self._total, self._unit)
        rate = p.counts.tokens / p.seconds if p.seconds else 0.0
        turn = f"model {p.turn} of {p.turns}, " if p.turns > 1 else ""
        shown = f"{turn}{rate:.0f} tokens/s, {p.counts.cached} cached"
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update((p.written if self._written else p.rows) - self._bar.n)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None


def print_survey(found: dict[str, int], *, as_json: bool) -> None:
    """What a run would begin with."""
    if as_json:
        print_json(found)
        return
    rows = [(name, f"{value:,}") for name, value in found.items()]
    echo(table(["dry run: no model was called", ""], rows))


def print_generation(summary: Any, done: str, *, as_json: bool) -> None:
    """The counts of a run, as a table or as JSON."""
    if as_json:
        print_json({"run": str(summary.path), "fresh": summary.fresh, **summary.manifest})
        return
    if not summary.fresh:
        note(f"{summary.path} is already complete")
    manifest, last = summary.manifest, summary.manifest["last_process"]
    counts = dict(manifest["counts"])
    rows: list[tuple[str, object]] = []
    ranked = counts.pop("ranked", 0)
    for name, value in counts.items():
        if not name.startswith("sum of "):
            rows.append((name.replace("_", " "), int(value)))
    rows += [
        ("new calls / from cache", f"{last['asked']} / {last['from_cache']}"),
        ("new generated tokens", last["tokens_written"]),
        ("seconds", f"{manifest['seconds']:.1f}"),
    ]
    echo(table([done, str(summary.path)], rows))
    shifts = [
        (
            name.removeprefix("sum of all: "),
            f"{value / ranked:.3f}",
            f"{counts['sum of kept: ' + name.removeprefix('sum of all: ')] / ranked:.3f}",
        )
        for name, value in counts.items()
        if name.startswith("sum of all: ") and ranked
    ]
    if shifts:
        echo("\n" + table(["mean attribute", "all completions", "kept"], shifts))

"""What a training shows while it runs."""

from __future__ import annotations

from typing import Any

from rlaif.cli.output import note, progress_bar


class TrainingScreen:
    """The account of rows, then progress, on stderr."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._bar: Any = None

    def account(self, account: Any) -> None:
        """Where the rows went."""
        for line in [] if self._silent else account.lines():
            note(line)

    def log(self, line: Any) -> None:
        """A line of metrics came."""
        if self._bar is None:
            self._bar = progress_bar(int(line["max_steps"]), "step", int(line["step"]))
        if "loss" in line:
            margin = line.get("rewards/margins")
            shown = "" if margin is None else f", margin {margin:.3f}"
            self._bar.set_postfix_str(f"loss {line['loss']:.4f}{shown}")
        self._bar.update(int(line["step"]) - self._bar.n)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

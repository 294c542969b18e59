"""What the terminal shows: progress, tables, and quiet libraries."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rlaif.util.numerics import finite
from rlaif.util.output import explain_failure

LEAST_WIDTH = 8
"""Columns that a column of a table keeps in the narrowest terminal."""
_NUMBER = re.compile(r"-|[-+]?[\d,.]+%?( .*)?")


_verbosity = 0


def set_verbosity(level: int) -> None:
    """1 lets libraries log, -1 keeps progress and notes off the screen."""
    global _verbosity
    _verbosity = level


def quiet_libraries() -> None:
    """Keep the libraries' own bars and notices off the screen; what the user has set stays."""
    if _verbosity > 0:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
        logging.basicConfig(level=logging.INFO)
        return
    for name, value in {
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }.items():
        os.environ.setdefault(name, value)
    for noisy in ("torch._library", "torch", "trl", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


_UNPRINTABLE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
"""What steers a terminal: escape sequences, control characters, and changes of direction."""


def printable(text: str) -> str:
    """A text that can't steer the terminal: names, tags, data and servers may hold escapes."""
    return _UNPRINTABLE.sub("\ufffd", text)


def echo(text: object = "", *, err: bool = False, raw: bool = False) -> None:
    """Print; the one place where this package does, so that nothing else reaches a terminal.

    On a terminal, results are wrapped between words to its width.  Where nobody reads any more
    (`| head`), the rest is dropped and the command goes on.

    Args:
        raw: what programs read and people copy: never wrapped.
    """
    shown = printable(str(text))
    if not raw and not err and sys.stdout.isatty():
        shown = wrap_lines(shown, terminal_width())
    try:
        click.echo(shown, err=err)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if err else sys.stdout).fileno())


def terminal_width() -> int:
    """Columns of the terminal, 80 where there is none; at least 40."""
    return max(40, shutil.get_terminal_size().columns)


_LEAD = re.compile(r"[ │├└─]*")


def wrap_lines(text: str, width: int) -> str:
    """Lines that are wider than `width`, wrapped between words and indented below their start.

    A word that is wider by itself, such as a path, stays whole.
    """
    found = []
    for line in text.split("\n"):
        if len(line) <= width:
            found.append(line)
            continue
        lead = _LEAD.match(line)[0]  # type: ignore[index]
        below = lead.replace("├─", "│ ").replace("└─", "  ") + "  "
        found += textwrap.wrap(
            line[len(lead) :],
            width,
            initial_indent=lead,
            subsequent_indent=below,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(found)


def note(text: str) -> None:
    """A line on stderr, where progress goes; stdout is for results."""
    if _verbosity >= 0:
        echo(text, err=True)


def print_json(value: object) -> None:
    """One JSON document on stdout; numbers that JSON does not have are null."""
    echo(json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False), raw=True)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], width: int | None = None) -> str:
    """Text in columns; numbers to the right, words to the left.

    Args:
        width: columns of the terminal, which cells are wrapped to fit; default: the terminal's,
            at least 40.
    """
    cells = [[str(c) for c in row] for row in [header, *rows]]
    columns = range(len(header))
    widths = [max(1, *(len(row[i]) for row in cells)) for i in columns]
    numeric = [all(_NUMBER.fullmatch(row[i]) for row in cells[1:]) for i in columns]
    room = (width or terminal_width()) - 2 * (len(header) - 1)
    while sum(widths) > room and max(widths) > LEAST_WIDTH:
        widest = max(columns, key=lambda i: widths[i])
        widths[widest] = max(LEAST_WIDTH, widths[widest] - (sum(widths) - room), _second(widths))
        if widths.count(widths[widest]) > 1 and sum(widths) > room:
            widths[widest] -= 1

    def lines(row: Sequence[str]) -> list[str]:
        wrapped = [textwrap.wrap(row[i], widths[i]) or [""] for i in columns]
        found = []
        for n in range(max(map(len, wrapped))):
            parts = [w[n] if n < len(w) else "" for w in wrapped]
            parts = [
                part.rjust(widths[i]) if numeric[i] and i else part.ljust(widths[i])
                for i, part in enumerate(parts)
            ]
            found.append("  ".join(parts).rstrip())
        return found

    rule = "  ".join("-" * w for w in widths)
    body = [line for row in cells[1:] for line in lines(row)]
    return "\n".join([*lines(cells[0]), rule, *body])


def _second(widths: Sequence[int]) -> int:
    """The second largest width: the widest column shrinks to it before another does."""
    return sorted(widths)[-2] if len(widths) > 1 else 0


def percent(value: float | None) -> str:
    """A share as a percentage, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}%"


def progress_bar(total: int | None, unit: str, initial: int = 0) -> Any:
    """A bar on stderr; where stderr is no terminal, a line every ten seconds."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=initial,
        unit=unit,
        file=sys.stderr,
        disable=_verbosity < 0,
        mininterval=0.2 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
    )


def write_result(path: Path, value: object) -> None:
    """A command's result as a JSON file, in a folder that is made if missing.

    Raises:
        RlaifError: it can't be written.
    """
    with explain_failure(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

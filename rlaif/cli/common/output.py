"""What the terminal shows: progress, tables, and quiet libraries."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rlaif.util.numerics import finite
from rlaif.util.output import explain_failure

_NUMBER = re.compile(r"-|[-+]?[\d,.]+%?( .*)?")


def quiet_libraries() -> None:
    """Keep the libraries' own bars and notices off the screen; what the user has set stays."""
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


def note(text: str) -> None:
    """A line on stderr, where progress goes; stdout is for results."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """One JSON document on stdout; numbers that JSON does not have are null."""
    click.echo(json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Text in columns; numbers to the right, words to the left."""
    cells = [[str(c) for c in row] for row in [header, *rows]]
    columns = range(len(header))
    widths = [max(len(row[i]) for row in cells) for i in columns]
    numeric = [all(_NUMBER.fullmatch(row[i]) for row in cells[1:]) for i in columns]

    def line(row: Sequence[str]) -> str:
        parts = [
            row[i].rjust(widths[i]) if numeric[i] and i else row[i].ljust(widths[i])
            for i in columns
        ]
        return "  ".join(parts).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(cells[0]), rule, *(line(row) for row in cells[1:])])


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
        disable=False,
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

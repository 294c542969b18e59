"""Help texts and pages are in short sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rlaif.cli.main import all_commands

MOST_WORDS = 25


def texts() -> Iterator[tuple[str, str]]:
    for name, command in all_commands().items():
        yield f"{name} --help", (command.help or "").split("\f")[0]
        yield f"{name} epilog", re.sub(r"\b(?:.*\n)*?\n", "", command.epilog or "", count=1)
        for param in command.params:
            if isinstance(param, click.Option):
                yield f"{name} {param.opts[0]}", param.help or ""


def sentences(text: str) -> Iterator[str]:
    prose = [
        block
        for block in re.split(r"\n\s*\n", text)
        if not block.lstrip().startswith("\b")
        and not re.search(r"(?m)^ {2,}rlaif |^ {2,}curl ", block)
    ]
    for block in prose:
        yield from re.split(r"(?<=[.?!])\s+", " ".join(block.split()))


def test_no_sentence_is_long() -> None:
    found = [
        f"{where}: {len(sentence.split())} words: {sentence}"
        for where, text in texts()
        for sentence in sentences(text)
        if len(sentence.split()) > MOST_WORDS
    ]
    assert not found, "\n".join(found)


def test_a_long_one_would_be_found() -> None:
    (long,) = sentences("word " * 30)
    assert len(long.split()) > MOST_WORDS


ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "cli.md"], ids=lambda p: p.name)
def test_no_sentence_of_a_page_is_long(page: Path) -> None:
    """Cells of tables and entries of lists each by themselves; code apart."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = []
    for block in re.split(r"\n\s*\n|\n(?=[-|#])", text):
        for cell in re.split(r"\s\|\s", block.strip().removeprefix("|").replace("\n", " ")):
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z`\[\"*])", cell):
                words = [word for word in sentence.split() if re.search(r"\w", word)]
                if len(words) > MOST_WORDS:
                    found.append(f"{len(words)} words: {sentence}")
    assert not found, "\n".join(found)

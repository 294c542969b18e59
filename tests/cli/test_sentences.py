"""Help texts are in short sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

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
        yield from re.split(r"(?<=[.:;?])\s+", " ".join(block.split()))


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

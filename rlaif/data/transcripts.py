"""Reads conversations that were written out as one text, by the marks between their turns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rlaif.data.messages import ROLES, check_text
from rlaif.records import Message


@dataclass(frozen=True)
class Transcript:
    """One way of writing turns out.

    Attributes:
        name: for messages and layouts.
        turn: matches the mark that begins a turn; its group is the role.
        ends: marks that end a turn, cut off.
        sure: the marks are no words: text that holds one is a transcript.
        first: the role of text before the first mark; "" where there can be none.
    """

    name: str
    turn: re.Pattern[str]
    ends: tuple[str, ...] = ()
    sure: bool = True
    first: str = ""


FORMS = (
    Transcript("chatml", re.compile(r"<\|im_start\|>\s*(\w+)\n"), ("<|im_end|>", "<|endoftext|>")),
    Transcript(
        "llama3",
        re.compile(r"(?:<\|begin_of_text\|>)?<\|start_header_id\|>(\w+)<\|end_header_id\|>\n*"),
        ("<|eot_id|>", "<|end_of_text|>"),
    ),
    Transcript(
        "gemma", re.compile(r"(?:<bos>)?<start_of_turn>(\w+)\n"), ("<end_of_turn>", "<eos>")
    ),
    Transcript(
        "zephyr",
        re.compile(r"<\|(user|assistant|system)\|>\n?"),
        ("</s>", "<|end|>", "<|endoftext|>"),
    ),
    Transcript("nemo", re.compile(r"<extra_id_[01]>(\w+)\n"), (), True, "user"),
    Transcript("inst", re.compile(r"(?:<s>)?\s*\[(/?INST)\]\s*"), ("</s>",)),
    Transcript(
        "hash",
        re.compile(r"\s*### ?(Human|User|Assistant|System|Instruction|Response):\s?"),
        (),
        sure=False,
    ),
    Transcript(
        "hh",
        re.compile(r"(?:^\s*|\n\n+)(Human|Assistant|System|H|A): ?"),
        ("<|endoftext|>",),
        False,
    ),
    Transcript(
        "named",
        re.compile(r"(?:^\s*|\n+)(USER|ASSISTANT|SYSTEM|FUNCTION RESPONSE|User|Assistant): ?"),
        ("<|endoftext|>",),
        False,
    ),
)
_NAMES = {
    "inst": "user",
    "/inst": "assistant",
    "h": "user",
    "a": "assistant",
    "instruction": "user",
    "response": "assistant",
    "function response": "tool",
}


def read_transcript(text: str, form: Transcript) -> list[Message]:
    """The turns of a text written out in `form`; [] for other text.

    A last turn with nothing in it stands: it says who is to speak next.
    """
    marks = list(form.turn.finditer(text))
    if not marks:
        return []
    before = text[: marks[0].start()].strip()
    turns: list[Message] = []
    if before:
        if not form.first:
            return []
        turns.append({"role": form.first, "content": check_text(before)})
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        said = mark.group(1).lower()
        role = _NAMES.get(said) or ROLES.get(said)
        if role is None:
            return []
        turns.append({"role": role, "content": check_text(_cut(text[mark.end() : end], form))})
    if not form.sure and not _takes_turns(turns):
        return []
    return _without_system(turns) if form.name == "inst" else turns


_SYSTEM = re.compile(r"<<SYS>>\s*(.*?)\s*<</SYS>>\s*(.*)", re.DOTALL)


def _without_system(turns: list[Message]) -> list[Message]:
    """Llama 2 writes the system prompt into the first user turn."""
    found = _SYSTEM.fullmatch(turns[0]["content"])
    if found is None:
        return turns
    system, said = found.groups()
    return [
        {"role": "system", "content": system},
        {"role": turns[0]["role"], "content": said},
        *turns[1:],
    ]


def _cut(text: str, form: Transcript) -> str:
    """A turn's text without the marks at its end, and without line breaks that belong to them."""
    found = text.rstrip()
    whole = found
    changed = True
    while changed:
        changed = False
        for end in form.ends:
            if found.endswith(end):
                found, changed = found[: -len(end)].rstrip(), True
    if found != whole:
        return found
    return text if form.name == "hh" else text.rstrip("\n")


def _takes_turns(turns: list[Message]) -> bool:
    """Whether a text with words for marks is a conversation: it begins with the user (a system
    prompt may come first), and the assistant has a turn.
    """
    roles = [turn["role"] for turn in turns]
    start = 1 if roles[0] == "system" and len(roles) > 1 else 0
    return roles[start] == "user" and "assistant" in roles


def forms_in(text: str) -> Iterator[Transcript]:
    """The forms in which a text is a conversation."""
    for form in FORMS:
        if read_transcript(text, form):
            yield form


def strip_ends(text: str, form: Transcript) -> str:
    """A text that is one turn, without the marks that `form` ends a turn with."""
    return _cut(text, form) if any(text.rstrip().endswith(end) for end in form.ends) else text

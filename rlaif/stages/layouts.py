"""Recognises how a row of somebody's data lays out its prompt and responses.

Each row is read by itself, so one odd row never decides for the others.  A row that fits no
layout raises `BadRow` with the reason; it is the caller's to count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from rlaif.records import Message

PROMPT_KEYS = ("prompt", "instruction", "question", "query", "input", "messages", "conversation")
LIST_KEYS = ("responses", "completions", "candidates", "generations", "outputs")
PAIR_KEYS = (
    ("chosen", "rejected"),
    ("response_a", "response_b"),
    ("response_0", "response_1"),
    ("response_1", "response_2"),
    ("completion_a", "completion_b"),
    ("answer_a", "answer_b"),
    ("output_1", "output_2"),
)
TEXT_KEYS = ("response", "completion", "content", "text", "output", "answer")
ORIGIN_KEYS = ("model", "origin", "generator", "source_model")
SCORE_KEYS = ("score", "overall_score", "rating")
ID_KEYS = ("id", "prompt_id", "uid", "example_id")
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
FIELDS = (
    "prompt",
    "responses",
    "response_a",
    "response_b",
    "chosen",
    "rejected",
    "system",
    "id",
    "tags",
)
_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")


class BadRow(Exception):
    """A row that cannot be read; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """One completion of a row, with what the row says about it."""

    messages: list[Message]
    origin: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Candidates:
    """A prompt with its completions; `labeled` means that the first was preferred by the data."""

    prompt: list[Message]
    completions: list[Candidate]
    id: str = ""
    tags: frozenset[str] = field(default_factory=frozenset)
    labeled: bool = False


def read_row(row: Mapping[str, object], mapping: Mapping[str, str] | None = None) -> Candidates:
    """Read one row.

    Args:
        row: the row as it came.
        mapping: `--map`: our field name (see `FIELDS`) to a dotted path in the row.

    Raises:
        BadRow: no layout fits, or a value has the wrong form.
    """
    if mapping:
        row = {**row, **{name: _dig(row, path) for name, path in mapping.items()}}
    completions, prompt_from_pair, labeled = _completions(row)
    prompt = _prompt(row)
    if len(prompt_from_pair) >= len(prompt):
        # Pairs that repeat the conversation know it better than a plain prompt column.
        prompt = prompt_from_pair
    if not prompt:
        raise BadRow(f"no prompt: none of the columns {_names(PROMPT_KEYS)} in {_names(row)}")
    system = row.get("system")
    if isinstance(system, str) and system.strip() and prompt[0]["role"] != "system":
        prompt = [{"role": "system", "content": system}, *prompt]
    return Candidates(prompt, completions, _id(row), _tags(row), labeled)


def _names(keys: Sequence[str] | Mapping[str, object]) -> str:
    names = list(keys)
    shown = ", ".join(names[:12])
    return shown + (", ..." if len(names) > 12 else "")


def _dig(row: object, path: str) -> object:
    value = row
    for step in path.split("."):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise BadRow(f"--map path {path!r} is not in the row")
    return value


def _id(row: Mapping[str, object]) -> str:
    value = next((row[k] for k in ID_KEYS if row.get(k) not in (None, "")), "")
    return str(value)


def _tags(row: Mapping[str, object]) -> frozenset[str]:
    value = row.get("tags")
    if isinstance(value, str):
        return frozenset(tag.strip() for tag in value.split(",") if tag.strip())
    if isinstance(value, list):
        return frozenset(str(tag) for tag in value)
    return frozenset()


def _prompt(row: Mapping[str, object]) -> list[Message]:
    for key in PROMPT_KEYS:
        value = row.get(key)
        if value in (None, "", []):
            continue
        if isinstance(value, str):
            return [{"role": "user", "content": value}]
        return _messages(value, key)
    return []


def _messages(value: object, key: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise BadRow(f"column {key!r} is neither text nor a list of messages")
    messages: list[Message] = []
    for turn in value:
        if not isinstance(turn, Mapping):
            raise BadRow(f"column {key!r} holds a turn that is not a message")
        role = turn.get("role", turn.get("from"))
        content = turn.get("content", turn.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise BadRow(f"column {key!r} holds a message without a text role and content")
        messages.append({"role": ROLES.get(role, role), "content": content})
    return messages


def _completions(
    row: Mapping[str, object],
) -> tuple[list[Candidate], list[Message], bool]:
    """The completions, the prompt that they carry in themselves, and whether they are ranked."""
    for one, two in PAIR_KEYS:
        if row.get(one) is not None and row.get(two) is not None:
            first, prompt = _split(row[one], one)
            second, other = _split(row[two], two)
            if prompt != other:
                raise BadRow(f"{one!r} and {two!r} do not continue the same conversation")
            pair = [
                Candidate(first, _origin(row, one)),
                Candidate(second, _origin(row, two)),
            ]
            return pair, prompt, one == "chosen"
    for key in LIST_KEYS:
        value = row.get(key)
        if isinstance(value, list) and value:
            return [_candidate(item, key) for item in value], [], False
    expected = "responses, chosen + rejected, or response_a + response_b"
    raise BadRow(f"no responses: expected {expected}; found the columns {_names(row)}")


def _origin(row: Mapping[str, object], key: str) -> str:
    for suffix in ("model", "origin"):
        value = row.get(f"{key}_{suffix}", row.get(f"{suffix}_{key.rsplit('_', 1)[-1]}"))
        if isinstance(value, str):
            return value
    return ""


def _candidate(item: object, key: str) -> Candidate:
    if isinstance(item, str | list):
        return Candidate(_split(item, key)[0])
    if isinstance(item, Mapping):
        text = next((item[k] for k in TEXT_KEYS if isinstance(item.get(k), str | list)), None)
        if text is None:
            raise BadRow(f"an entry of {key!r} has none of {_names(TEXT_KEYS)}")
        origin = next((item[k] for k in ORIGIN_KEYS if isinstance(item.get(k), str)), "")
        score = next((item[k] for k in SCORE_KEYS if isinstance(item.get(k), int | float)), None)
        return Candidate(_split(text, key)[0], str(origin), cast("float | None", score))
    raise BadRow(f"an entry of {key!r} is neither text, a message list nor an object")


def _split(value: object, key: str) -> tuple[list[Message], list[Message]]:
    """A completion and the conversation before it, if the value carries one."""
    if isinstance(value, str):
        turns = _HH_TURN.split(value)
        if len(turns) >= 5 and turns[0] == "" and turns[-2] == "Assistant":
            roles = [
                ROLES[name.lower()] if name == "Human" else "assistant" for name in turns[1::2]
            ]
            messages: list[Message] = [
                {"role": role, "content": text}
                for role, text in zip(roles, turns[2::2], strict=True)
            ]
            return messages[-1:], messages[:-1]
        return [{"role": "assistant", "content": value}], []
    messages = _messages(value, key)
    # Everything after the last user or system turn is the completion.
    cut = max((i + 1 for i, m in enumerate(messages) if m["role"] in ("user", "system")), default=0)
    if cut == len(messages):
        raise BadRow(f"column {key!r} ends without an assistant message")
    return messages[cut:], messages[:cut]

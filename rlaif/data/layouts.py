"""Recognizes how a row of somebody's data lays out its prompt and responses.

Each row is read by itself, so one odd row never decides for the others.  A row that fits no
layout raises `BadRow` with the reason; it is the caller's to count.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rlaif.data.origins import completion_origin, prompt_origin, read_origin
from rlaif.records import UNKNOWN_ORIGIN, Message, Origin

PROMPT_KEYS = (
    "prompt",
    "instruction",
    "question",
    "query",
    "input",
    "messages",
    "conversation",
    "conversations",
    "context",
)
LIST_KEYS = ("responses", "completions", "candidates", "generations", "outputs")
PAIR_KEYS = ("chosen", "rejected")
_NUMBERED = re.compile(r"(response|completion|answer|output)_([a-zA-Z]|\d{1,2})")
TEXT_KEYS = ("response", "completion", "content", "text", "output", "answer")
SINGLE_KEYS = ("response", "completion", "answer", "output")
ORIGIN_KEYS = ("model", "origin", "generator", "source_model")
SCORE_KEYS = ("score", "overall_score", "rating")
ID_KEYS = ("id", "uid", "example_id")
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
}
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
_ANSWERED = {"response", "completion", "completions", "answer", "output", "chosen"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")


class BadRow(Exception):
    """A row that cannot be read; the message says why."""


@dataclass(frozen=True)
class Completion:
    """One completion of a row, with what the row says about it.

    Attributes:
        origin: who wrote it, by name; "" for unknown.
        source: all that is known of where it comes from.
    """

    messages: list[Message]
    origin: str = ""
    score: float | None = None
    source: Origin = UNKNOWN_ORIGIN

    @property
    def depth(self) -> int:
        """How many synthetic generations deep it is; 0 for human or unknown."""
        return self.source.depth


@dataclass(frozen=True)
class PromptCompletions:
    """A prompt with its completions; `labeled` means that the first was preferred by the data."""

    prompt: list[Message]
    completions: list[Completion]
    id: str = ""
    tags: frozenset[str] = field(default_factory=frozenset)
    labeled: bool = False
    weight: float = 1.0
    prompt_origin: Origin = UNKNOWN_ORIGIN


def read_row(
    row: Mapping[str, object], mapping: Mapping[str, str] | None = None
) -> PromptCompletions:
    """Read one row.

    Args:
        row: the row as it came.
        mapping: `--map`: our field name (see `FIELDS`) to a dotted path in the row.

    Raises:
        BadRow: no layout fits, or a value has the wrong form.
    """
    if mapping:
        row = _mapped(row, mapping)
    prompt = _prompt(row)
    completions, prompt_from_pair, labeled = _completions(row, prompt)
    if len(prompt_from_pair) >= len(prompt):
        # Pairs that repeat the conversation know it better than a plain prompt column.
        prompt = prompt_from_pair
    return PromptCompletions(
        prompt=_finished_prompt(row, prompt),
        completions=completions,
        id=_id(row),
        tags=_tags(row),
        labeled=labeled,
        weight=row_weight(row),
        prompt_origin=prompt_origin(row),
    )


def read_prompt(
    row: Mapping[str, object], mapping: Mapping[str, str] | None = None
) -> PromptCompletions:
    """Read a row of which only the prompt is wanted; its completions, if any, are left out.

    Raises:
        BadRow: there is no prompt, or a value has the wrong form.
    """
    if mapping:
        row = _mapped(row, mapping)
    prompt = _prompt(row)
    if not prompt and any(row.get(key) is not None for key in (*PAIR_KEYS, *LIST_KEYS)):
        prompt = _completions(row, [])[1]
    return PromptCompletions(
        _finished_prompt(row, prompt), [], _id(row), _tags(row), prompt_origin=prompt_origin(row)
    )


def read_candidates(
    row: Mapping[str, object], mapping: Mapping[str, str] | None = None
) -> PromptCompletions:
    """Read a row with one completion or more.

    Raises:
        BadRow: no layout fits, or a value has the wrong form.
    """
    if mapping:
        row = _mapped(row, mapping)
    single = next((k for k in SINGLE_KEYS if isinstance(row.get(k), str | list)), None)
    try:
        return read_row(row)
    except BadRow:
        if single is None:
            raise
    own = _prompt(row)
    completion, prompt = _split(row[single], single, own)
    return PromptCompletions(
        _finished_prompt(row, prompt or own),
        [_named(row, single, completion, alone=True)],
        _id(row),
        _tags(row),
        prompt_origin=prompt_origin(row),
    )


def _finished_prompt(row: Mapping[str, object], prompt: list[Message]) -> list[Message]:
    if not prompt:
        raise BadRow(
            f"no prompt: expected one of the columns {_names(PROMPT_KEYS)}; found {_names(row)}"
        )
    if prompt[-1]["role"] == "assistant":
        raise BadRow("the prompt ends with an assistant message; there is nothing left to answer")
    system = row.get("system")
    if isinstance(system, str) and system.strip() and prompt[0]["role"] != "system":
        return [{"role": "system", "content": _clean(system)}, *prompt]
    return prompt


def _mapped(row: Mapping[str, object], mapping: Mapping[str, str]) -> dict[str, object]:
    """The row with the mapped fields, which win over every layout of its own."""
    found = {name: dig(row, path) for name, path in mapping.items()}
    own = dict(row)
    if found.keys() - {"prompt", "system", "id", "tags"}:
        own = {k: v for k, v in own.items() if k not in (*PAIR_KEYS, *LIST_KEYS)}
        own = {k: v for k, v in own.items() if not _NUMBERED.fullmatch(k)}
    if "prompt" in found:
        own = {k: v for k, v in own.items() if k not in PROMPT_KEYS}
    return {**own, **found}


def _clean(text: str) -> str:
    """`text`, if it can be written as UTF-8."""
    if _SURROGATE.search(text):
        raise BadRow("text is not valid UTF-8: it contains half of a surrogate pair")
    return text


def _names(keys: Sequence[str] | Mapping[str, object]) -> str:
    names = list(keys)
    shown = ", ".join(names[:12])
    return shown + (", ..." if len(names) > 12 else "")


def dig(row: Mapping[str, object], path: str) -> object:
    """The value at a dotted path.

    Raises:
        BadRow: there is none.
    """
    if path in row:
        return row[path]
    value: object = row
    for step in path.split("."):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif (
            isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value)
        ):
            value = value[int(step)]
        else:
            raise BadRow(f"--map path {path!r} was not found in the row")
    return value


def read_id(row: Mapping[str, object]) -> str:
    """The id that a row states, or ""."""
    try:
        return _id(row)
    except BadRow:
        return ""


def _id(row: Mapping[str, object]) -> str:
    value = next((row[k] for k in ID_KEYS if row.get(k) not in (None, "")), "")
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return _clean(str(value))


def _tags(row: Mapping[str, object]) -> frozenset[str]:
    """A row's own, or those that a label or a mix kept."""
    evidence = row.get("provenance")
    value = row.get("tags")
    if value is None and isinstance(evidence, Mapping):
        value = evidence.get("tags")
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
            turns = _transcript(value)
            if turns and turns[-1] == {"role": "assistant", "content": ""}:
                return turns[:-1]
            extra = row.get("input") if key == "instruction" else None
            if isinstance(extra, str) and extra.strip():
                value = f"{value}\n\n{extra}"
            return [{"role": "user", "content": _clean(value)}]
        return _messages(value, key)
    return []


def _transcript(text: str) -> list[Message]:
    """The turns of a transcript with `Human:` and `Assistant:` paragraphs; [] for other text."""
    parts = _HH_TURN.split(text)
    if len(parts) < 5 or parts[0] or parts[-2] != "Assistant":
        return []
    return [
        {"role": "user" if name == "Human" else "assistant", "content": _clean(said)}
        for name, said in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _messages(value: object, key: str) -> list[Message]:
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not value:
        raise BadRow(f"column {key!r} is neither a string nor a list of messages")
    messages: list[Message] = []
    for turn in value:
        if not isinstance(turn, Mapping):
            raise BadRow(f"column {key!r} contains a turn that is not a message")
        role = turn.get("role", turn.get("from"))
        content = _content(turn.get("content", turn.get("value")))
        if not isinstance(role, str) or content is None:
            raise BadRow(f"column {key!r} contains a message without a string `role` and `content`")
        if role.lower() not in ROLES:
            raise BadRow(f"column {key!r} contains a message with the unknown role {role!r}")
        messages.append({"role": ROLES[role.lower()], "content": _clean(content)})
    return messages


def _content(value: object) -> str | None:
    """Text, or the text parts of a multi-part message joined; None for anything else."""
    if isinstance(value, list) and value:
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in value]
        texts = [part for part in parts if isinstance(part, str)]
        return "\n".join(texts) if len(texts) == len(parts) else None
    return value if isinstance(value, str) else None


def _completions(
    row: Mapping[str, object], own: Sequence[Message]
) -> tuple[list[Completion], list[Message], bool]:
    """The completions, the prompt that they carry in themselves, and whether they are ranked."""
    if all(row.get(key) is not None for key in PAIR_KEYS):
        return *_several([(key, row[key]) for key in PAIR_KEYS], row, own), True
    for family in ("response", "completion", "answer", "output"):
        matches = [(k, _NUMBERED.fullmatch(k)) for k in sorted(row) if row[k] is not None]
        keys = [k for k, match in matches if match and match.group(1) == family]
        if len(keys) >= 2:
            return *_several([(key, row[key]) for key in keys], row, own), False
    for key in LIST_KEYS:
        value = _parsed(row.get(key))
        if isinstance(value, list) and value:
            found = [_candidate(item, key, own) for item in value]
            return [c for c, _ in found], _shared([p for _, p in found], key), False
    expected = "responses, chosen + rejected, or response_a + response_b"
    raise BadRow(f"no responses: expected {expected}; found the columns {_names(row)}")


def _parsed(value: object) -> object:
    """A list written out as JSON, as CSV files have it, as the list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _several(
    items: list[tuple[str, object]], row: Mapping[str, object], own: Sequence[Message]
) -> tuple[list[Completion], list[Message]]:
    """Completions that stand in columns of their own."""
    split = [_split(value, key, own) for key, value in items]
    named = [_named(row, key, s[0]) for s, (key, _) in zip(split, items, strict=True)]
    return named, _shared([prompt for _, prompt in split], " and ".join(k for k, _ in items))


def _shared(prompts: list[list[Message]], what: str) -> list[Message]:
    if any(prompt != prompts[0] for prompt in prompts):
        raise BadRow(f"{what} do not continue the same conversation")
    return prompts[0]


def _named(
    row: Mapping[str, object], key: str, completion: list[Message], *, alone: bool = False
) -> Completion:
    """A completion in a column of its own, with who wrote it; of one `alone` its row may say so."""
    name = _origin(row, key)
    if alone and not name and isinstance(row.get("model"), str):
        name = str(row["model"])
    source = completion_origin(row, key, name)
    return Completion(completion, name or _writer(source), None, source)


def _writer(source: Origin) -> str:
    return source.model or ("human" if source.kind == "human" else "")


def _origin(row: Mapping[str, object], key: str) -> str:
    for suffix in ("model", "origin"):
        value = row.get(f"{key}_{suffix}", row.get(f"{suffix}_{key.rsplit('_', 1)[-1]}"))
        if isinstance(value, str):
            return value
    return ""


def _candidate(item: object, key: str, own: Sequence[Message]) -> tuple[Completion, list[Message]]:
    """An entry of a list of completions, and the conversation that it carries before it."""
    if isinstance(item, str | list):
        completion, prompt = _split(item, key, own)
        return Completion(completion), prompt
    if isinstance(item, Mapping):
        text = next((item[k] for k in TEXT_KEYS if isinstance(item.get(k), str | list)), None)
        if text is None:
            raise BadRow(f"an entry of {key!r} has none of the fields {_names(TEXT_KEYS)}")
        origin = next((item[k] for k in ORIGIN_KEYS if isinstance(item.get(k), str)), "")
        scores = [item[k] for k in SCORE_KEYS if isinstance(item.get(k), int | float)]
        score = next((float(s) for s in scores if _finite(s)), None)
        completion, prompt = _split(text, key, own)
        source = read_origin(item.get("origin"), origin)
        return Completion(completion, str(origin) or _writer(source), score, source), prompt
    raise BadRow(f"an entry of {key!r} is not a string, a message list or an object")


def split_chat(row: Mapping[str, object]) -> Mapping[str, object]:
    """A row whose only content is a conversation, with its last answer as the completion."""
    for key in ("messages", "conversation", "conversations"):
        turns = row.get(key)
        if isinstance(turns, list) and len(turns) > 1 and not _ANSWERED & row.keys():
            return {**row, key: turns[:-1], "completion": [turns[-1]]}
    return row


def ranked(row: Mapping[str, object], read: PromptCompletions) -> PromptCompletions:
    """A pair with a `label` (a or b), as `rlaif labels export` writes it, as chosen and rejected.

    Of several votes the label is one, drawn by chance, and may be the rarer: `p_a`, where it is
    there, says which completion people prefer.

    Raises:
        BadRow: the label is a tie, none was given, or people contradict each other.
    """
    pair = {"response_a", "response_b", "label"} <= row.keys() and len(read.completions) == 2
    if not pair or read.labeled:
        return read
    label = str(row["label"]).strip().lower()
    if label not in ("a", "b"):
        raise BadRow(f"the pair has no winner (label: {label or 'none'})")
    p = _p_a(row)
    if p == 0.5:
        raise BadRow("human labels of this pair contradict each other")
    first = label == "a" if p is None else p > 0.5
    completions = read.completions if first else read.completions[::-1]
    return replace(read, completions=list(completions), labeled=True)


def label_probability(row: Mapping[str, object]) -> float | None:
    """The probability that `ranked` puts the better completion first; None where none is stated."""
    p = _p_a(row) if "label" in row else None
    return None if p is None else max(p, 1.0 - p)


def read_p_chosen(row: Mapping[str, object]) -> float | None:
    """The `p_chosen` that a row states; None where it states none.

    Raises:
        BadRow: it is no number between 0.5 and 1.
    """
    value = row.get("p_chosen")
    if value in (None, ""):
        return None
    try:
        p = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadRow(f"p_chosen is {value!r}, not a number") from None
    if not 0.5 <= p <= 1.0:
        raise BadRow(f"p_chosen is {p!r}, not between 0.5 and 1")
    return p


def _p_a(row: Mapping[str, object]) -> float | None:
    try:
        p = float(row["p_a"])  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError):
        return None
    return p if 0.0 <= p <= 1.0 else None


def refuse_disliked(row: Mapping[str, object], read: PromptCompletions) -> None:
    """Let no completion through that somebody labeled as bad, as data for KTO has them.

    Raises:
        BadRow: it is one.
    """
    label = row.get("label")
    bad = str(label).strip().lower() in ("false", "0", "0.0", "-1", "-1.0", "bad", "undesirable")
    if bad and not read.labeled:
        raise BadRow(f"labeled as bad (label: {label})")


def row_weight(row: object) -> float:
    """The weight that a row states, or 1."""
    weight = row.get("weight") if isinstance(row, Mapping) else None
    if isinstance(weight, str):  # as CSV has it
        try:
            weight = float(weight)
        except ValueError:
            return 1.0
    good = isinstance(weight, int | float) and not isinstance(weight, bool)
    return float(weight) if good and 0 <= weight < 1e9 else 1.0  # type: ignore[arg-type, operator]


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond any float
        return False


def _split(value: object, key: str, own: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """A completion and the conversation before it, if the value carries one.

    Text that looks like a transcript is one only if it repeats the row's own prompt, where there is
    one: what a model wrote must not choose the question that it is judged on.
    """
    if isinstance(value, str):
        turns = _transcript(value)
        if turns and (not own or turns[:-1][-len(own) :] == list(own)):
            return turns[-1:], turns[:-1]
        return [{"role": "assistant", "content": _clean(value)}], []
    messages = _messages(value, key)
    # Everything after the last user or system turn is the completion.
    cut = max((i + 1 for i, m in enumerate(messages) if m["role"] in ("user", "system")), default=0)
    if cut == len(messages) or messages[-1]["role"] != "assistant":
        raise BadRow(f"column {key!r} does not end with an assistant message")
    return messages[cut:], messages[:cut]

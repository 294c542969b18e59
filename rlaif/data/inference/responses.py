"""Which columns hold the responses."""

from __future__ import annotations

from collections.abc import Mapping

from rlaif.data.columns import LIST_WORDS, Column, tokens_of
from rlaif.data.inference.evidence import (
    _has_texts,
    are_parallel,
    entries_of,
    entry_keys,
    find_twins,
    index_of,
)
from rlaif.data.inference.metadata import known_metadata
from rlaif.data.inference.names import (
    ANSWER_WORDS,
    ATTRIBUTE_WORDS,
    CHOICE_WORDS,
    LABEL_NAMES,
    PAIR_WORDS,
    PROMPT_NAMES,
    SINGLE_NAMES,
    SYSTEM_NAMES,
)
from rlaif.data.inference.state import TEXTUAL, Family, Inference, are_calls, holds_rivals
from rlaif.data.layout import code_of
from rlaif.data.messages import ROLES, role_of
from rlaif.data.tool_calls import is_call, is_calls
from rlaif.data.verdict_codes import sides_of, word_side


def find_responses(state: Inference) -> None:
    """Find the columns that hold the responses, by the surest sign first."""
    if state.given & {"responses"} or {"chosen", "rejected"} <= state.given:
        state.sides = sides_of(state.fields.get("responses", ()))
        _find_calls(state)
        return
    steps = (
        _find_thread,
        _find_pair,
        _find_rejected_beside_chat,
        _find_family,
        _find_list,
        _find_named_by_label,
        _find_single,
        _find_acted,
    )
    # What half of the rows have comes first: a few odd rows do not decide for a file.
    for least in (len(state.rows) / 2, 0):
        state.least = least
        found = any(step(state) for step in steps)
        state.least = 0
        if found:
            break
    _find_calls(state)


_CALLS = {"call", "calls"}
"""Words of columns that hold tool calls."""


def _ends_in_answers(state: Inference) -> bool:
    """Whether the rows are conversations that end with their answer."""
    chats = [c for c in state.free({"chat"}) if not state.count()]
    return any(_ends_answered(c) for c in chats)


def _find_calls(state: Inference) -> None:
    """Find the tool calls that stand beside the texts of the responses."""
    columns = [c for c in state.free({"entries"}) if are_calls(c)]
    if columns:  # one side may never call anything
        columns += [c for c in state.columns.values() if not c.filled and _CALLS & set(c.tokens)]
    found: list[tuple[str, ...]] = []
    if state.fields.get("chosen"):
        found = [(better.path, worse.path) for better, worse in find_twins(columns)]
    elif state.count() > 1:
        families = state.families(columns)
        found = [tuple(f.paths) for f in families if f.sides == state.sides]
    elif state.is_list():
        own = state.columns[state.fields["responses"][0]]
        cells = {key: [e[key] for e in entries_of(own) if e.get(key)] for key in entry_keys(own)}
        found = [
            (f"{own.path}[].{key}",)
            for key, held in cells.items()
            if held
            and _CALLS & set(tokens_of(key))
            and all(is_calls(v) or is_call(v) for v in held)
        ]
    else:
        named = state.count() == 1
        named = named or _ends_in_answers(state)
        found = [(c.path,) for c in columns if named and _CALLS & set(c.tokens)]
    if not found and state.count() > 1 and columns:
        sides = ["chosen", "rejected"] if state.fields.get("chosen") else state.sides
        known = {side: c.path for c in columns for side in sides if side in c.tokens}
        found = [tuple(known.get(side, "") for side in sides)] if len(known) == 1 else []
    if len(found) == 1:
        state.set("calls", found[0], "tool calls")


def _find_thread(state: Inference) -> bool:
    names = {c.name: c for c in state.free()}
    tree = next((c for c in state.free({"entries"}) if c.name == "replies"), None)
    if tree is not None:
        start = tree.path.rsplit(".", 1)[0] if "." in tree.path else ""
        state.set("thread_by", start or tree.path, "thread")
        for path in state.columns:
            if path.startswith(f"{start}."):
                state.roles.setdefault(path, "thread")
        return True
    parent = names.get("parent_id") or names.get("parent_message_id")
    role, text = names.get("role"), names.get("text") or names.get("content")
    if parent and role and text and role.shape == "text":
        state.set("thread_by", parent.path, "thread")
        for column in (role, text, names.get("message_id"), names.get("id"), names.get("rank")):
            if column is not None:
                state.claim(column.path, "thread")
        return True
    return False


def _find_pair(state: Inference) -> bool:
    """Two columns of which one is named better: `chosen` and `rejected` and their like."""
    columns = [*state.texts(), *state.free({"texts", "chats"})]
    paired = {word for pair in PAIR_WORDS for words in pair for word in words}
    by_tokens = {
        c.tokens: c for c in columns if not (paired & set(c.tokens) and _names_a_side(state, c))
    }
    for side in ("chosen", "rejected"):  # one may be given by --map
        if side in state.given:
            own = state.fields[side]
            by_tokens[tokens_of(side)] = state.columns.get(own) or Column(own, "text")
    found = []
    for tokens, column in by_tokens.items():
        if (ATTRIBUTE_WORDS | _CALLS) & set(tokens):
            continue
        for good, bad in PAIR_WORDS:
            if column.shape not in TEXTUAL and bad != ("rejected",) and not column.encoded:
                continue  # lists of accepted answers are no rivals of lists of wrong ones
            at = index_of(tokens, good)
            if at is None or (good[0] == "preferred" and at and tokens[at - 1] == "non"):
                continue
            if good == ("j",) and tokens != ("response", "j"):
                continue
            twin = by_tokens.get((*tokens[:at], *bad, *tokens[at + len(good) :]))
            if twin is not None and not ATTRIBUTE_WORDS & set(twin.tokens):
                found.append((len(tokens), column, twin))
    if not found:
        return False
    _, good_column, bad_column = min(found, key=lambda f: f[0])
    state.set("chosen", good_column.path)
    state.set("rejected", bad_column.path)
    state.sides = ["chosen", "rejected"]
    return True


def _find_rejected_beside_chat(state: Inference) -> bool:
    """A conversation with its answer, and another answer that was rejected, as in ms-swift."""
    chats = [c for c in state.free({"chat"}) if c.name in ("messages", "conversations")]
    worse = [
        c
        for c in state.texts()
        if c.tokens[:1] == ("rejected",)
        and set(c.tokens[1:]) <= {"response", "messages", "conversations", "message", "answer"}
    ]
    if len(chats) != 1 or len(worse) != 1 or not _ends_answered(chats[0]):
        return False
    state.set("chosen", chats[0].path)
    state.set("rejected", worse[0].path)
    state.sides = ["chosen", "rejected"]
    return True


def _ends_answered(column: Column) -> bool:
    return all(
        isinstance(v, list) and ROLES.get(role_of(v[-1]).lower()) == "assistant"
        for v in column.values
        if v is not None
    )


def _names_a_side(state: Inference, column: Column) -> bool:
    """Whether all cells of `chosen` or `rejected` name another column, an entry of a list, or its
    side: a verdict.
    """
    if column.shape not in ("text", "number") or "." in column.path:
        return False
    words = {code_of(v) for v in column.values if v is not None}
    if not words or any(len(word) > 60 for word in words):
        return False
    families = [f for f in state.families(state.texts()) if column.path not in f.paths]
    if any(all(word_side(word, f.sides, f.paths) for word in words) for f in families):
        return True
    others = {code_of(c.path) for c in state.texts() if c is not column}
    return words <= others or any(names_entries(own, column) for own in _lists_of(state))


def _lists_of(state: Inference) -> list[Column]:
    """Columns that hold lists of responses, by name and by shape."""
    return [
        c
        for c in state.free({"texts", "entries", "chats"})
        if LIST_WORDS & set(c.tokens[-2:]) and not ATTRIBUTE_WORDS & set(c.tokens)
    ]


def names_entries(own: Column, column: Column) -> bool:
    """Whether each cell of a column names an entry of its row's list: by what stands in the entry,
    by its letter, or by its number.
    """
    pairs = [
        (code_of(v), entries)
        for v, entries in zip(column.values, own.values, strict=True)
        if v is not None and isinstance(entries, list)
    ]
    return bool(pairs) and all(
        any(code in map(code_of, e.values()) for e in entries if isinstance(e, Mapping))
        or (code.isdigit() and int(code) <= len(entries))
        or bool(word_side(code, (), (), len(entries)))
        for code, entries in pairs
        if code not in map(code_of, entries)
    )


def _is_attribute(base: tuple[str, ...]) -> bool:
    """Whether columns say something about responses: `response_a_model`, not `model_a_response`."""
    words = [word for word in base if word != "*"]
    told = (ATTRIBUTE_WORDS | _CALLS) & set(words)
    return bool(told) and not (words[-1] in ANSWER_WORDS and told <= {"model", "user", "name"})


def _find_family(state: Inference) -> bool:
    families = [
        f
        for f in state.families(state.texts())
        if not _is_attribute(f.base) and not _names_systems(state, f)
    ]
    named = [f for f in families if ANSWER_WORDS & set(f.base)]
    if not named and len(families) == 1 and _reads_as_prose(state, families[0]):
        named = families
    if not named:
        return False
    # The shortest name: `response_a` before `original_response_a`; a chat before its text.
    chats = [f for f in named if state.columns[f.paths[0]].shape == "chat"]
    family = min(named, key=lambda f: (f not in chats, len(f.base)))
    state.set("responses", tuple(family.paths), "response")
    state.sides = family.sides
    return True


def _find_acted(state: Inference) -> bool:
    """Calls or trajectories for each side, where no texts of answers stand beside them."""
    texts = [c for c in state.columns.values() if c.shape in TEXTUAL]
    named = [*state.families(texts), *find_twins(texts)]
    if any(not isinstance(f, Family) or ANSWER_WORDS & set(f.base) for f in named):
        return False  # however few of their cells are filled
    columns = [c for c in state.texts() if _ACTED & set(c.tokens)]
    for better, worse in find_twins(columns):
        state.set("chosen", better.path)
        state.set("rejected", worse.path)
        state.sides = ["chosen", "rejected"]
        return True
    for family in state.families(columns):
        state.set("responses", tuple(family.paths), "response")
        state.sides = family.sides
        return True
    return False


_ACTED = {*_CALLS, "rollout", "rollouts", "trajectories", "trajectory"}
"""Words of columns with what a model did, which are responses where there are no others."""


def _names_systems(state: Inference, family: Family) -> bool:
    """Whether `system_a` and `system_b` name what wrote the responses, as in translation."""
    return "system" in family.base and not _reads_as_prose(state, family)


def _reads_as_prose(state: Inference, family: Family) -> bool:
    cells = [v for p in family.paths for v in state.columns[p].cells if isinstance(v, str)]
    return bool(cells) and sum(len(v.split()) for v in cells) / len(cells) >= 3


def _find_list(state: Inference) -> bool:
    columns = [
        c
        for c in [*state.free({"texts", "entries", "chats"}), *filter(holds_rivals, state.free())]
        if LIST_WORDS & set(c.tokens[-2:]) and not ATTRIBUTE_WORDS & set(c.tokens)
    ]
    columns = [c for c in columns if c.shape != "entries" or _has_texts(c)]
    if any(c.name in SINGLE_NAMES for c in state.texts()):
        columns = [c for c in columns if not CHOICE_WORDS & set(c.tokens)]
    if not columns:
        return False
    column = min(columns, key=lambda c: len(c.tokens))
    steps = next(
        (c for c in state.free({"flags"}) if c.name == "labels" and are_parallel(c, column)), None
    )
    if column.name in ("completions", "steps") and steps is not None:
        state.roles[column.path], state.roles[steps.path] = "steps", "steps"
        state.refusal = (
            f"column {column.path!r} holds the steps of one answer, with a label for each "
            f"({steps.path!r}), and no rival responses"
        )
        return True
    state.set("responses", (column.path,), "responses")
    state.sides = []
    return True


def _find_named_by_label(state: Inference) -> bool:
    """Columns named by models, of which a column names the winner."""
    by_name = {c.path.lower(): c for c in state.texts()}
    for label in state.free({"text"}):
        if not LABEL_NAMES.keys() & {label.name, *label.tokens}:
            continue
        named = {str(v).strip().lower() for v in label.values if v is not None}
        winners = {v for v in named if v in by_name and by_name[v] is not label}
        others = [
            c
            for c in state.texts()
            if c is not label
            and not _names_a_side(state, c)
            and c.name not in PROMPT_NAMES
            and c.name not in SYSTEM_NAMES
            and not known_metadata(c)
        ]
        if winners and all(by_name[w] in others for w in winners) and len(others) >= 2:
            state.set("responses", tuple(c.path for c in others), "response")
            state.sides = [c.path.lower() for c in others]
            return True
    return False


def _find_single(state: Inference) -> bool:
    columns = {c.name: c for c in reversed(state.texts())}
    for name in SINGLE_NAMES:
        column = columns.get(name)
        if column is None or (
            name in ("text", "solution", "content") and not _other_prompt(state, column)
        ):
            continue
        state.set("responses", (column.path,), "response")
        return True
    return False


def _other_prompt(state: Inference, column: Column) -> bool:
    return any(c.name in PROMPT_NAMES and c is not column for c in state.texts())

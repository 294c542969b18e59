"""Which columns make the prompt, and what belongs to it: system prompt, history, context, tools."""

from __future__ import annotations

from rlaif.data.columns import Column, names_media, tokens_of
from rlaif.data.inference.evidence import all_in_chat, asked_in, equal_chats, said_in
from rlaif.data.inference.names import (
    ANSWER_WORDS,
    CHAT_NAMES,
    CONTEXT_NAMES,
    HISTORY_NAMES,
    ID_NAMES,
    MEDIA_WORDS,
    PROMPT_NAMES,
    SYSTEM_NAMES,
    TOOL_NAMES,
)
from rlaif.data.inference.state import Inference, asks


def find_prompt(state: Inference) -> None:
    """Find the columns that make the prompt."""
    if "prompt" in state.given or state.fields.get("thread_by"):
        return
    chats = [c for c in state.free({"chat"}) if c.name in CHAT_NAMES or "messages" in c.tokens]
    asked = [
        c
        for c in state.texts()
        if c.name in PROMPT_NAMES or (set(c.tokens) & {"question"} and c.name == "full_text")
    ]
    turns = [
        c
        for c in state.free({"texts"})
        if c.name in PROMPT_NAMES or c.name in CHAT_NAMES or c.name == "turns"
    ]
    asked = [c for c in asked if c not in chats]
    prefix = _shared_prefix(state)
    order = {name: k for k, name in enumerate(PROMPT_NAMES)}
    ranked = sorted(
        asked,
        key=lambda c: (prefix is not None and c.tokens[0] != prefix, order.get(c.name, 99)),
    )
    if state.pair_has_prompt():
        _find_repeated_prompt(state, [*ranked, *chats])
    elif chats:
        _choose_chat(state, chats, ranked)
    elif turns and not any(
        c.shape == "text" and c.name == "prompt" and not c.encoded for c in ranked
    ):
        state.set("prompt", (turns[0].path,), "prompt")
        if turns[0].name not in (
            "conversation",
            "conversations",
            "messages",
            "dialogue",
            "dialog",
        ):
            state.fields.setdefault("transcripts", {})[turns[0].path] = "questions"
    elif ranked:
        _join_prompt(state, ranked)
    else:
        post = next((c for c in state.texts() if c.name in CONTEXT_NAMES), None)
        if post is not None and not state.pair_has_prompt():
            title = next((c for c in state.texts() if c.name == "title"), None)
            state.set("prompt", tuple(c.path for c in (title, post) if c), "prompt")
    _fill_gaps(state, [*ranked, *chats])


def _fill_gaps(state: Inference, others: list[Column]) -> None:
    """Columns that have the prompt just where the one that was chosen has none."""
    paths = state.fields.get("prompt", ())
    if len(paths) != 1 or "{" in paths[0] or state.pair_has_prompt():
        return
    filled = [bool(value) for value in state.columns[paths[0]].values]
    for column in others:
        has = [bool(value) for value in column.values]
        if column.path in state.roles or len(has) != len(filled) or not any(has):
            continue
        if not any(own and other for own, other in zip(filled, has, strict=True)):
            paths = (*paths, column.path)
            filled = [own or other for own, other in zip(filled, has, strict=True)]
            state.set("prompt", paths, "prompt")
            state.fields["one_prompt"] = True


def _find_repeated_prompt(state: Inference, asked: list[Column]) -> None:
    """Prompts beside responses that are whole conversations: those must hold them."""
    path = state.fields.get("chosen") or state.fields["responses"][0]
    held = state.columns[path]
    for column in asked:
        if column.shape == "text":
            if all_in_chat(column, held) and "prompt" not in state.fields:
                state.set("prompt", (column.path,), "prompt")
            elif all_in_chat(column, held):
                state.claim(column.path, "repeats the prompt")
        elif all(map(asked_in, column.values, held.values)):
            state.claim(column.path, "repeats the prompt")
    texts = [c for c in asked if c.shape == "text" and c.path not in state.roles]
    if "prompt" not in state.fields and texts:
        # It is what was asked all the same: rows whose responses say otherwise are rejected, and
        # what only looks like a transcript is a text.
        _join_prompt(state, texts)


def _shared_prefix(state: Inference) -> str | None:
    """The first word that all responses' columns share, such as `orig`."""
    paths = state.fields.get("responses", ())
    words = {tokens_of(p)[0] for p in paths}
    if len(paths) > 1 and len(words) == 1 and not words & ANSWER_WORDS:
        return words.pop()
    return None


def _says_all(state: Inference, chat: Column) -> bool:
    """Whether conversations end with the one response of their row, and hold more than it and one
    question: a system prompt, earlier turns or tools.
    """
    if "responses" in state.given:
        return False
    own = state.columns.get(state.fields["responses"][0])
    if own is None or own.shape != "text":
        return False
    ends = [
        (turns, answer)
        for turns, answer in zip(chat.values, own.values, strict=True)
        if isinstance(turns, list)
    ]
    return any(len(turns) > 2 for turns, _ in ends) and all(
        not asks(turns[-1:]) and said_in(turns[-1]) == answer for turns, answer in ends
    )


def _choose_chat(state: Inference, chats: list[Column], asked: list[Column]) -> None:
    """Of messages beside other columns, which is the prompt."""
    chat = min(chats, key=lambda c: CHAT_NAMES.get(c.name, 50))
    pair = state.fields.get("chosen")
    if pair and equal_chats(chat, state.columns.get(pair)):
        state.claim(chat.path, "repeats chosen")
        if asked:
            _join_prompt(state, asked)
        return
    if len(state.fields.get("responses", ())) == 1 and _says_all(state, chat):
        # A log: the conversation with its answer, and the question and the answer once more.
        (own,) = state.fields.pop("responses")
        state.roles[own] = f"repeats {chat.path}"
        for other in [c for c in chats if c is not chat]:
            state.claim(other.path, f"repeats {chat.path}")
        for text in [c for c in asked if all_in_chat(c, chat)]:
            state.claim(text.path, f"repeats {chat.path}")
        state.set("prompt", (chat.path,), "prompt")
        return
    answered = [v for v in chat.values if isinstance(v, list) and not asks(v[-1:])]
    compared = state.fields.get("responses") or pair
    if len(state.fields.get("responses", ())) == 1 and answered and asked:
        own = state.columns.get(state.fields["responses"][0])
        if own is not None and own.shape == "text" and not all_in_chat(own, chat):
            _join_prompt(state, asked)  # another answer: which is meant is asked
            return
    if compared and answered and asked and not all_in_chat(asked[0], chat):
        _join_prompt(state, asked)  # the conversation stays open: it may be what came before
        return
    if compared and answered and asked:
        # A conversation with its answer, beside the question and the responses to it.
        state.claim(chat.path, "repeats the prompt with an answer")
        _join_prompt(state, asked)
        return
    state.set("prompt", (chat.path,), "prompt")
    for other in asked:
        if all_in_chat(other, chat):
            state.claim(other.path, "repeats the prompt")


def _join_prompt(state: Inference, asked: list[Column]) -> None:
    """The question, with what belongs to it: an input under an instruction."""
    first = asked[0]
    paths = [first.path]
    names = {c.name: c for c in state.texts() if c is not first}
    if first.name in ("instruction", "orig_instruction", "task") and "input" in names:
        paths.append(names["input"].path)
    if first.name == "post" and "title" in names:
        paths.insert(0, names["title"].path)
    state.set("prompt", tuple(paths), "prompt")


def _names_media(column: Column) -> bool:
    """Whether most cells are paths or addresses of pictures or the like."""
    held = [v for v in column.values if v is not None]
    return sum(map(names_media, held)) * 2 > len(held)


def find_extras(state: Inference) -> None:
    """Find what belongs to the prompt: system prompt, history, context, tools, media."""
    for column in state.free({"text", "texts", "entries", "chat"}):
        *parents, last = column.path.split(".")
        parts = last == "parts" and bool(parents) and "_".join(tokens_of(parents[-1]))
        if (column.name in SYSTEM_NAMES or parts in SYSTEM_NAMES) and (
            column.shape != "chat" or not any(asks(v) for v in column.values)
        ):
            state.set("system", column.path)
            break
    for column in state.free({"chat", "exchanges", "texts", "text"}):
        if column.name in HISTORY_NAMES and column.shape != "text":
            state.set("history", column.path)
            break
    contexts = [c for c in state.texts() if c.name in CONTEXT_NAMES and c.shape == "text"]
    if contexts and "context" not in state.given:
        state.set("context", tuple(c.path for c in contexts), "context")
    for column in state.free():
        if column.name in TOOL_NAMES and column.shape not in ("flag", "number", "flags", "numbers"):
            state.set("tools", column.path)
            break
    media = [
        c
        for c in state.free()
        if c.shape == "media"
        or (c.shape in ("text", "texts", "entries") and _names_media(c))
        or (MEDIA_WORDS & set(c.tokens[-1:]) and c.shape in ("text", "texts", "entries"))
    ]
    if not media:  # a picture may be there by its address alone
        media = [
            c
            for c in state.free({"text", "texts"})
            if MEDIA_WORDS & set(c.tokens) and {"path", "url", "uri", "file"} & set(c.tokens)
        ]
    if media:
        state.set("media", tuple(c.path for c in media), "media")
    for name, names in (("id", ID_NAMES), ("tags", ("tags",))):
        by_name = {c.name: c for c in state.free() if c.path.count(".") == 0}
        own = next((by_name[n] for n in names if n in by_name), None)
        if own is not None:
            state.set(name, own.path)
    turn = next((c for c in state.free({"number"}) if c.name == "turn"), None)
    paths = state.fields.get("responses", ())
    if turn and paths and all("conversation" in tokens_of(p) for p in paths):
        state.set("turn", turn.path)

"""Reads a turn of a conversation, however a file spells it: roles, calls, results, content parts.

A turn that holds more than text keeps it: tool calls with their arguments, the call that a result
answers, and what the model thought.  What can't be kept (a picture, a sound) is named, so that
nobody judges the text without it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlaif.data.flags import write_ignore
from rlaif.data.row_common import BadRow as BadRow
from rlaif.data.row_common import check_text as check_text
from rlaif.data.row_common import tokens_of
from rlaif.data.tool_calls import calls_of_text, collect_calls, make_call, tools_of
from rlaif.records import Message

ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "customer": "user",
    "gpt": "assistant",
    "ai": "assistant",
    "agent": "assistant",
    "chatbot": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "observation": "tool",
    "ipython": "tool",
    "function": "function",
}
"""What files call a role, and what it is."""
CALL_ROLES = {"function_call", "tool_call"}
_TEXT_PARTS = {"text", "input_text", "output_text"}


@dataclass
class Chat:
    """Turns, with what came beside their text.

    Attributes:
        tools: definitions of tools that a turn declared.
        media: kinds of content that are no text, such as "image".
        images: what the pictures among them hold: bytes, addresses or mappings.
        rival: who wrote the last message with more than the common keys, and how it is rated.
    """

    messages: list[Message] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)
    media: list[str] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    rival: dict[str, Any] = field(default_factory=dict)


_ROLE_KEYS = ("role", "from", "type", "speaker", "sender", "author")
_SAID_KEYS = ("content", "value", "text", "parts", "utterance", "data", "message")


_MEDIA_KEYS = (
    "image",
    "images",
    "image_url",
    "audio",
    "audios",
    "video",
    "videos",
    "file",
    "files",
    "attachment",
    "attachments",
    "experimental_attachments",
    "image_path",
    "image_base64",
    "img",
    "media",
    "photo",
    "picture",
    "screenshot",
)


def role_of(turn: Mapping[str, Any]) -> str:
    """What a message calls who speaks; "" where it does not say.

    Only `role` and `from` may hold an unknown name: `type` or `author` alone makes no message.
    """
    for key in _ROLE_KEYS:
        stated = turn.get(key)
        if isinstance(stated, Mapping):
            stated = stated.get("role")
        if isinstance(stated, str) and (key in ("role", "from") or stated.strip().lower() in ROLES):
            return stated
    return ""


def said_of(turn: Mapping[str, Any]) -> object:
    """What a message says, as it stands; None for nothing."""
    if turn.get("content"):
        return turn["content"]  # the usual one
    held = [turn[k] for k in _SAID_KEYS if turn.get(k) is not None]
    return next((said for said in held if said not in ("", [])), held[0] if held else None)


def is_turn(value: object) -> bool:
    """Whether a value is one message: it has a role and something said."""
    if not isinstance(value, Mapping):
        return False
    if "replies" in value:  # a tree of messages
        return False
    role = role_of(value)
    said = (*_SAID_KEYS, "tool_calls", "function_call")
    if not role:
        return False
    if "role" in value or "from" in value:
        return any(key in value for key in said) or role.strip().lower() in ROLES
    return any(key in value for key in said)


def _is_one(value: object) -> bool:
    """Whether a value is a list of one message."""
    return isinstance(value, list) and len(value) == 1 and is_turn(value[0])


def is_chat(value: object) -> bool:
    """Whether a value is a list of messages, or of user and assistant texts by turns."""
    if not isinstance(value, list) or not value:
        return False
    if all(map(_is_one, value)) and len({role_of(turn[0]).lower() for turn in value}) > 1:
        return True
    return all(is_turn(turn) for turn in value) or all(_is_exchange(turn) for turn in value)


def are_rivals(value: object) -> bool:
    """Whether all messages of a list are an assistant's, with nothing asked between them."""
    return isinstance(value, list) and all(
        isinstance(turn, Mapping)
        and ROLES.get(role_of(turn).strip().lower()) == "assistant"
        and not turn.get("tool_calls")
        for turn in value
    )


def _is_exchange(value: object) -> bool:
    """Whether a value is one exchange, such as `{"input": ..., "output": ...}`."""
    return isinstance(value, Mapping) and any(
        isinstance(value.get(ask), str) and isinstance(value.get(reply), str)
        for ask, reply in _EXCHANGES
    )


_EXCHANGES = (("input", "output"), ("user", "assistant"), ("human", "assistant"))


def is_unwanted(turns: object) -> bool:
    """Whether the last message is marked as one that is not to be learned, or as bad: OpenAI's
    `weight`, Axolotl's `train`, ms-swift's `loss`, or a flag such as `is_correct`.
    """
    last = turns[-1] if isinstance(turns, list) and turns else turns
    if not isinstance(last, Mapping):
        return False
    weight = last.get("weight")
    if isinstance(weight, int | float) and not isinstance(weight, bool) and weight == 0:
        return True
    if any(last.get(key) is False for key in ("train", "training", "loss")):
        return True
    if last.keys() <= _READ_KEYS:
        return False
    return any(
        _RATED & set(tokens_of(key)) and str(held).strip().lower() in _BAD
        for key, held in last.items()
        if key not in _READ_KEYS and isinstance(held, str | bool | int)
    )


_RATED = {
    "accepted",
    "approved",
    "correct",
    "good",
    "helpful",
    "liked",
    "ok",
    "passed",
    "preferred",
    "rating",
    "reaction",
    "safe",
    "success",
    "thumb",
    "thumbs",
    "valid",
    "verified",
    "vote",
}
"""Words of flags of a message that say whether it is good."""
_BAD = {"false", "0", "-1", "no", "bad", "down", "thumbs_down", "dislike", "disliked", "wrong"}
_BAD |= {"incorrect", "rejected", "unsafe", "fail", "failed", "negative", "\N{THUMBS DOWN SIGN}"}


def holds_rating(turns: object) -> bool:
    """Whether the last message holds a rating of itself."""
    last = turns[-1] if isinstance(turns, list) and turns else None
    keys = ("rating", "score", "annotation", "quality", "feedback", "label", "labels", "grade")
    return isinstance(last, Mapping) and any(last.get(key) is not None for key in keys)


def read_chat(value: object, where: str, ignored: frozenset[str] = frozenset()) -> Chat:
    """The turns of a list of messages.

    Args:
        where: the column, for errors.
        ignored: paths of parts that are left out knowingly (`messages[].context`).

    Raises:
        BadRow: a turn has no known role, or nothing to say.
    """
    if is_turn(value):
        value = [value]
    if isinstance(value, list) and value and all(_is_one(item) for item in value):
        value = [item[0] for item in value]  # each message in a list of its own
    if not isinstance(value, list) or not value:
        raise BadRow(f"column {where!r} is neither a string nor a list of messages")
    chat = Chat()
    for turn in value:
        if _is_exchange(turn) and not is_turn(turn):
            ask, reply = next(pair for pair in _EXCHANGES if isinstance(turn.get(pair[0]), str))
            if isinstance(system := turn.get("system"), str) and system.strip():
                chat.messages.append({"role": "system", "content": check_text(system)})
            chat.messages.append({"role": "user", "content": check_text(turn[ask])})
            chat.messages.append({"role": "assistant", "content": check_text(turn[reply])})
            continue
        if not isinstance(turn, Mapping):
            raise BadRow(f"column {where!r} contains a turn that is not a message")
        _add_turn(chat, turn, where, ignored)
    return chat


def _add_turn(
    chat: Chat, turn: Mapping[str, Any], where: str, ignored: frozenset[str] = frozenset()
) -> None:
    stated = role_of(turn)
    if not stated:
        raise BadRow(f"column {where!r} contains a message without a string `role`")
    role = ROLES.get(stated.strip().lower())
    if role == "system" and "role" not in turn and "from" not in turn and _has_asked(chat):
        role = "assistant"  # a dialogue system, as task-oriented dialogues call who answers
    if role is None:
        raise BadRow(f"column {where!r} contains a message with the unknown role {stated!r}")
    if not turn.keys() <= _READ_KEYS:
        turn = _read_rest(turn, role, where, ignored)
        _check_rivals(chat, turn, role, where)
    content = said_of(turn)
    found = _Said()
    found.add(content, where)
    if not found.text and isinstance(turn.get("refusal"), str):
        found.say(turn["refusal"])
    calls = collect_calls(turn, where)
    if stated.lower() in CALL_ROLES and not calls:
        calls = calls_of_text(found.text)
        found.texts = [] if calls else found.texts
    calls += found.calls
    if role in ("tool", "function") and turn.get("status") == "error":
        found.texts = [f"[error] {found.text}"]
    told = [_told(turn[key], key, where) for key in _TOLD_KEYS if turn.get(key)]
    if told:  # what a question is about belongs to it
        found.texts = ["\n\n".join([*told, found.text])]
    thought = next(
        (turn[k] for k in _THOUGHT_KEYS if isinstance(turn.get(k), str) and turn[k]),
        "\n".join(found.thoughts),
    )
    found.see_parts(turn)
    if content is None and not (calls or thought or found.text):
        raise BadRow(f"column {where!r} contains a message without `content`")
    for result in found.results:
        chat.messages.append(result)
    chat.media += found.media
    chat.images += found.images
    chat.tools += tools_of(turn.get("tools", turn.get("functions")))
    if found.results and not found.text:
        return
    message: Message = {"role": role, "content": check_text(found.text)}
    if thought:
        message["reasoning_content"] = check_text(thought)
    if calls:
        message["tool_calls"] = calls
    if isinstance(turn.get("tool_call_id"), str) and turn["tool_call_id"]:
        message["tool_call_id"] = check_text(turn["tool_call_id"])
    if isinstance(turn.get("name"), str) and turn["name"]:
        message["name"] = check_text(turn["name"])
    chat.messages.append(message)
    for text, more in found.later:
        then: Message = {"role": role, "content": check_text(text)}
        if more:
            then["tool_calls"] = more
        chat.messages.append(then)


def _read_rest(
    turn: Mapping[str, Any], role: str, where: str, ignored: frozenset[str]
) -> Mapping[str, Any]:
    """A message with keys beyond the common ones: what they say is put in place, or refused."""
    if role == "system" and not said_of(turn) and isinstance(turn.get("system_prompt"), str):
        turn = {**turn, "content": turn["system_prompt"], "system_prompt": None}
    if ignored:
        turn = {k: v for k, v in turn.items() if f"{where}[].{k}" not in ignored}
    _check_parts(turn, where)
    return turn


_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts")
_WEIGHTY = {
    "attached",
    "attachment",
    "attachments",
    "audio",
    "background",
    "code",
    "context",
    "contexts",
    "document",
    "documents",
    "evidence",
    "file",
    "files",
    "image",
    "images",
    "img",
    "input",
    "instruction",
    "instructions",
    "knowledge",
    "media",
    "passage",
    "passages",
    "photo",
    "photos",
    "picture",
    "pictures",
    "prompt",
    "retrieved",
    "screenshot",
    "screenshots",
    "search",
    "snippet",
    "snippets",
    "system",
    "video",
}
"""Words of parts of a message that belong to what it says."""
_ABOUT = {
    "category",
    "count",
    "hash",
    "id",
    "ids",
    "index",
    "kind",
    "lang",
    "language",
    "length",
    "name",
    "num",
    "source",
    "time",
    "tokens",
    "type",
    "url",
}


def _check_parts(turn: Mapping[str, Any], where: str) -> None:
    """Refuse a message with a part that belongs to what it says and that nothing reads.

    Raises:
        BadRow: it has one; with the way out.
    """
    for key in turn.keys() - _READ_KEYS:
        held, words = turn[key], set(tokens_of(key))
        if not held or isinstance(held, bool | int | float):
            continue
        if words & _WEIGHTY and not words & _ABOUT:
            raise BadRow(
                f"column {where!r} contains a message with the part {key!r}, which nothing reads; "
                f"write it into `content`, or leave it out with {write_ignore(f'{where}[].{key}')}"
            )


_RIVAL_KEYS = frozenset(
    {"chosen", "if_chosen", "is_chosen", "model", "model_name", "rank", "rating", "score"}
    | {"selected", "preferred", "winner"}
)
"""What two answers to one question differ in, beside what they say."""


def _check_rivals(chat: Chat, turn: Mapping[str, Any], role: str, where: str) -> None:
    """Refuse a second answer to one turn, which would be read as the rest of the first one.

    Raises:
        BadRow: the message before is another model's, or one with another rating.
    """
    mine = {key: turn[key] for key in _RIVAL_KEYS & turn.keys() if turn[key] is not None}
    before, chat.rival = chat.rival, mine
    follows = role == "assistant" and chat.messages and chat.messages[-1]["role"] == "assistant"
    if follows and any(before[k] != mine[k] for k in before.keys() & mine.keys()):
        raise BadRow(
            f"column {where!r} contains several answers to one turn; write each of them as a "
            "response of its own"
        )


_TOLD_KEYS = ("context", "contexts", "documents", "document", "passage", "background", "quote")
"""Parts of a message that belong to what it says, and stand before it."""


_READ_KEYS = frozenset(
    {
        *_ROLE_KEYS,
        *_SAID_KEYS,
        *_MEDIA_KEYS,
        *_THOUGHT_KEYS,
        *_TOLD_KEYS,
        "function_call",
        "function_calls",
        "functions",
        "id",
        "index",
        "invalid_tool_calls",
        "name",
        "refusal",
        "status",
        "timestamp",
        "tool_call_id",
        "tool_calls",
        "tools",
        "train",
        "weight",
    }
)


def _told(value: object, key: str, where: str) -> str:
    """The text of a part beside a message's content.

    Raises:
        BadRow: it is no text.
    """
    items = value if isinstance(value, list) else [value]
    texts = []
    for item in items:
        text = item if isinstance(item, str) else said_of(item) if isinstance(item, Mapping) else 0
        if not isinstance(text, str):
            raise BadRow(f"column {where!r} contains a message whose {key!r} is no text")
        texts.append(text)
    return "\n\n".join(texts)


def parts_text(value: object, where: str) -> str:
    """The text of content parts, as system prompts have them in some APIs.

    Raises:
        BadRow: it holds something else.
    """
    said = _Said()
    said.add(value, where)
    if said.media or said.calls or said.results:
        raise BadRow(f"column {where!r} is no text")
    return said.text


def _has_asked(chat: Chat) -> bool:
    return any(message["role"] == "user" for message in chat.messages)


@dataclass
class _Said:
    """What the content of one turn holds."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)
    media: list[str] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    later: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    """What is said after a call, with the calls after that: messages of their own."""

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def say(self, text: str) -> None:
        """Add a text where it stands: behind the calls that were made before it."""
        if self.later and not self.later[-1][1]:
            self.later[-1] = (f"{self.later[-1][0]}\n{text}", [])
        elif self.calls and text.strip():
            self.later.append((text, []))
        else:
            self.texts.append(text)

    def call(self, call: dict[str, Any]) -> None:
        """Add a call where it stands."""
        (self.later[-1][1] if self.later else self.calls).append(call)

    def add(self, content: object, where: str) -> None:
        """A text, a content part, or a list of them."""
        if content is None:
            return
        if isinstance(content, str):
            self.say(content)
        elif isinstance(content, list):
            for part in content:
                self.add(part, where)
        elif isinstance(content, Mapping):
            self._part(content, where)
        else:
            raise BadRow(f"column {where!r} contains a message whose `content` is no text")

    def _part(self, part: Mapping[str, Any], where: str) -> None:
        kind = str(part.get("type") or ("text" if "text" in part else ""))
        if not kind and self._nested_part(part, where):
            return
        if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            self.say(part["text"])
            # Some files keep a slot for a picture in every part: only a filled one is a picture.
            if part.get("image"):
                self._see(part["image"])
        elif kind == "tool_use":
            self.call(make_call(part.get("id"), part.get("name"), part.get("input")))
        elif kind == "tool_result":
            inner = _Said()
            inner.add(part.get("content") or "", where)
            self.media += inner.media
            self.images += inner.images
            # What a call failed with is not what it returned.
            text = f"[error] {inner.text}" if part.get("is_error") is True else inner.text
            result: Message = {"role": "tool", "content": check_text(text)}
            if isinstance(part.get("tool_use_id"), str):
                result["tool_call_id"] = part["tool_use_id"]
            self.results.append(result)
        elif kind in ("thinking", "reasoning") and isinstance(
            part.get(kind, part.get("text")), str
        ):
            self.thoughts.append(part.get(kind, part.get("text")))
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            self.say(part["refusal"])
        elif media := next((m for m in ("image", "audio", "video", "file") if m in kind), ""):
            if media == "image":
                self._see(part)
            else:
                self.media.append(media)
        else:
            raise BadRow(f"column {where!r} contains a content part of the unknown type {kind!r}")

    def see_parts(self, turn: Mapping[str, Any]) -> None:
        """Pictures and the like that stand beside the content of a message."""
        for key in _MEDIA_KEYS:
            if held := turn.get(key):
                kind = next((m for m in ("audio", "video") if m in key), "image")
                if kind == "image" and "attachment" not in key and "file" not in key:
                    self.images += held if isinstance(held, list) else [held]
                self.media.append(kind)

    def _see(self, image: object) -> None:
        """A picture: its place in the text is marked."""
        self.say("[image]")
        self.media.append("image")
        self.images.append(image)

    def _nested_part(self, part: Mapping[str, Any], where: str) -> bool:
        """A part that says what it is by its key, as Gemini and LangChain write them."""
        if call := part.get("functionCall", part.get("function_call")):
            if not isinstance(call, Mapping):
                return False
            self.call(make_call(call.get("id"), call.get("name"), call.get("args")))
        elif answer := part.get("functionResponse", part.get("function_response")):
            if not isinstance(answer, Mapping):
                return False
            text = json.dumps(answer.get("response"), ensure_ascii=False)
            result: Message = {"role": "tool", "content": check_text(text)}
            if isinstance(answer.get("name"), str):
                result["name"] = check_text(answer["name"])
            self.results.append(result)
        elif {"inlineData", "inline_data", "fileData", "file_data"} & part.keys():
            self.media.append("image")  # of a file kept elsewhere
        elif inner := part.get("parts", part.get("content")):
            self.add(inner, where)
        else:
            return False
        return True


def read_texts(texts: Iterable[object], where: str, *, first: str = "user") -> list[Message]:
    """Texts by turns as messages, the first one by `first`.

    Raises:
        BadRow: one of them is no text.
    """
    order = ("user", "assistant") if first == "user" else ("assistant", "user")
    messages: list[Message] = []
    for k, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadRow(f"column {where!r} contains a turn that is not text")
        messages.append({"role": order[k % 2], "content": check_text(text)})
    return messages

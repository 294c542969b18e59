"""Reads the prompt of a row: its own columns, history and system prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from rlaif.data.columns import decode, dig, shape_of
from rlaif.data.flags import write_flag
from rlaif.data.messages import BadRow, check_text, is_chat, parts_text, read_chat, read_texts
from rlaif.data.row_cells import ASKING, CellReader, values_at
from rlaif.data.row_model import Completion
from rlaif.data.transcripts import QUESTIONS, may_be_transcript, read_transcript
from rlaif.records import Message

_BLANK = {"", "nan", "none", "null"}
"""What tables write where there is no text."""


class PromptReader(CellReader):
    """Reads what was asked."""

    def _prompt(
        self, row: Mapping[str, Any], media: list[str], tools: list[Any], images: list[Any]
    ) -> list[Message]:
        """The conversation that the prompt's own columns hold; empty for none."""
        paths = self.layout.prompt
        if len(paths) == 1 and "{" in paths[0]:
            return [{"role": "user", "content": check_text(self._filled(row, paths[0]))}]
        texts: list[str] = []
        turns: list[Message] = []
        answered = bool(self.layout.chosen or self.layout.responses)
        filled, known = "", self.layout.transcripts
        for path in paths:
            value = self._cell(row, path)
            shape = shape_of(value)
            if shape == "empty":
                continue
            if self.layout.one_prompt and filled:
                raise BadRow(f"columns {filled!r} and {path!r} both have a prompt")
            filled = path
            if isinstance(value, str):
                if value[:1] in "[{" and '"role"' in value and is_chat(decode(value)):
                    raise BadRow(
                        f"column {path!r} holds messages written out as text, unlike the first rows"
                    )
                form = self._form(path)
                said = read_transcript(value, form, prompt=answered) if form else []
                if said:
                    turns += _open_end(said)
                elif form and not form.sure:
                    raise BadRow(f"column {path!r} is no transcript, unlike the rest of the column")
                elif form is None and path not in known and answered and may_be_transcript(value):
                    raise BadRow(
                        f"column {path!r} holds a conversation as one text, unlike the first rows; "
                        f"take it as it is with {write_flag('--transcript', f'{path}=text')}"
                    )
                elif path == paths[0] or value.strip().lower() not in _BLANK:
                    texts.append(value)
            elif shape == "texts" and self.layout.transcripts.get(path) == QUESTIONS:
                turns += [{"role": "user", "content": check_text(text)} for text in value if text]
            elif shape == "texts":
                turns += read_texts(value, path)
            else:
                chat = read_chat(value, path, self._ignored)
                turns += chat.messages
                media += chat.media
                images += chat.images
                tools += chat.tools
        if self.layout.context:
            context = [self._text(row, path) for path in self.layout.context]
            context = ["" if text.strip().lower() in _BLANK else text for text in context]
            texts = [*filter(None, context), *texts]
        if texts and turns:
            return _with_context(turns, texts)
        if texts:
            return [{"role": "user", "content": check_text("\n\n".join(texts))}]
        return turns

    def _filled(self, row: Mapping[str, Any], template: str) -> str:
        """A template with the texts of its columns."""
        pieces = []
        for k, piece in enumerate(template.replace("}", "{").split("{")):
            pieces.append(self._text(row, piece) if k % 2 else piece)
        return "".join(pieces)

    def _text(self, row: Mapping[str, Any], path: str) -> str:
        value = self._shared(row, path) if "[]" in path else dig(row, path)
        if value is None:
            return ""
        return _spelled_out(value, path)

    def _shared(self, row: Mapping[str, Any], path: str) -> Any:
        """What all entries of a list hold alike.

        Raises:
            BadRow: they differ.
        """
        values = [v for v in values_at(row, path) if v is not None and v != ""]
        if any(value != values[0] for value in values):
            raise BadRow(f"{path!r} is not the same for all responses")
        return values[0] if values else None

    def _whole_prompt(self, own: list[Message], candidates: Sequence[Completion]) -> list[Message]:
        """The longer of the prompt's own columns and what the responses carry, if they agree."""
        # A text beside a conversation answers what the conversation asks.
        carried = [c.prompt for c in candidates if c.prompt] or [[]]
        first = carried[0]
        if any(prompt != first for prompt in carried) or (self._asks_by_turns and first):
            if self._asks_by_turns and all(prompt == first for prompt in carried):
                return first
            raise BadRow("the responses do not continue the same conversation")
        if not first:
            return own
        if not own:
            return first
        asked = " ".join(" ".join(m["content"] for m in first).split())
        for message in own:
            if " ".join(message["content"].split()) not in asked and message["role"] != "system":
                parts = [" ".join(p.split()) for p in message["content"].split("\n")]
                if not all(part in asked for part in parts):
                    raise BadRow("the prompt is not what the responses' conversations ask")
        return first if len(first) >= len(own) else own

    @cached_property
    def _asks_by_turns(self) -> bool:
        return any(form == QUESTIONS for form in self.layout.transcripts.values())

    def _with_history(self, row: Mapping[str, Any], prompt: list[Message]) -> list[Message]:
        if not self.layout.history:
            return prompt
        value = self._cell(row, self.layout.history)
        shape = shape_of(value)
        if shape == "empty":
            return prompt
        if shape == "exchanges":
            turns = read_texts([text for pair in value for text in pair], self.layout.history)
        elif shape == "texts":
            turns = read_texts(value, self.layout.history)
        else:
            turns = read_chat(value, self.layout.history, self._ignored).messages
        return [*turns, *prompt]

    def _with_system(self, row: Mapping[str, Any], prompt: list[Message]) -> list[Message]:
        if not self.layout.system or not prompt:
            return prompt
        path = self.layout.system
        value = self._shared(row, path) if "[]" in path else dig(row, path)
        if value is None or (isinstance(value, str) and value.strip().lower() in _BLANK):
            return prompt
        if not isinstance(value, str):
            value = parts_text(value, self.layout.system)
        if prompt[0]["role"] in ("system", "developer"):
            if prompt[0]["content"].strip() == value.strip():
                return prompt
            return [{"role": "system", "content": check_text(value)}, *prompt]
        text = value.removeprefix("SYSTEM:").lstrip() if value.startswith("SYSTEM:") else value
        return [{"role": "system", "content": check_text(text)}, *prompt]

    def _missing_prompt(self) -> str:
        if not self.layout.prompt:
            return "no prompt was found"
        return f"no prompt: column {', '.join(map(repr, self.layout.prompt))} is empty"


def _spelled_out(value: Any, path: str, depth: int = 3) -> str:
    """A text, a list of texts or of records, or a table, as text.

    Raises:
        BadRow: it is something else.
    """
    if isinstance(value, str | int | float):
        return str(value)
    if value is None:
        return ""
    if not depth:
        raise BadRow(f"column {path!r} is no text")
    if isinstance(value, Mapping):
        parts = {k: _spelled_out(v, path, depth - 1) for k, v in value.items()}
        return "\n".join(f"{k}: {text}" for k, text in parts.items() if text)
    if isinstance(value, list) and all(isinstance(row, list) for row in value):
        return "\n".join(" | ".join(_spelled_out(v, path, depth - 1) for v in row) for row in value)
    if isinstance(value, list):
        return "\n\n".join(_spelled_out(v, path, depth - 1) for v in value)
    raise BadRow(f"column {path!r} is no text")


def split_end(turns: list[Message]) -> tuple[list[Message], list[Completion]]:
    """A conversation as its prompt and its last answer."""
    cut = max((i + 1 for i, m in enumerate(turns) if m["role"] in ASKING), default=0)
    return turns[:cut], [Completion(turns[cut:])]


def _open_end(turns: list[Message]) -> list[Message]:
    """A transcript without an empty last turn, which only says who speaks next."""
    return turns[:-1] if turns and not turns[-1]["content"] else turns


def _with_context(turns: list[Message], texts: Sequence[str]) -> list[Message]:
    """Turns with texts put before the last thing that was asked."""
    at = max((k for k, m in enumerate(turns) if m["role"] == "user"), default=None)
    if at is None:
        return [*turns, {"role": "user", "content": check_text("\n\n".join(texts))}]
    asked: Message = {
        **turns[at],
        "content": check_text("\n\n".join([*texts, turns[at]["content"]])),
    }
    return [*turns[:at], asked, *turns[at + 1 :]]

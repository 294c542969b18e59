"""A model's tokenizer and chat template, and how long its prompts may be."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import transformers

from rlaif.engines.base import LONGEST_TOKEN
from rlaif.engines.chat_template import ChatTemplate
from rlaif.engines.control_tokens import ControlTokens
from rlaif.engines.hub import ModelFiles
from rlaif.engines.segments import SegmentEncoder, shared_length
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.records import Message
from rlaif.util.thinking import find_open_block, find_spoken, opened_by, write_thinking

LONGEST_DEFAULT = 16_384


def context_length(files: ModelFiles) -> int:
    """The longest sequence the model's config allows, in tokens, but at most 16,384.

    Longer judge prompts are rare, and room for a few hundred thousand tokens of keys and values
    would fill a GPU that could judge many short ones.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(
            files.path, trust_remote_code=False
        ).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise RlaifError(
            f"config of {files.name!r} could not be read ({error})", hint="Check config.json."
        ) from None
    return min(int(getattr(config, "max_position_embeddings", 4096)), LONGEST_DEFAULT)


def has_vision(files: ModelFiles) -> bool:
    """Whether the model takes pictures, as its config says."""
    try:
        config = transformers.AutoConfig.from_pretrained(files.path, trust_remote_code=False)
    except (OSError, ValueError, KeyError):  # said where the model is loaded
        return False
    return getattr(config, "vision_config", None) is not None


def _letters(text: str) -> str:
    """The letters of a text, without case and white space."""
    return "".join(c for c in text.casefold() if c.isalnum())


class HFCodec:
    """A tokenizer of the transformers library as a `Codec`.

    Args:
        template_options: for the chat template.
        most_tokens: of a prompt; default: the model's.  A text that can't be that short is not
            tokenized, which would take gigabytes for some megabytes of text.
    """

    def __init__(
        self,
        files: ModelFiles,
        template_options: Mapping[str, object] | None = None,
        most_tokens: int | None = None,
    ) -> None:
        self._most = most_tokens or LONGEST_DEFAULT
        if most_tokens is None and (files.path / "config.json").is_file():
            self._most = context_length(files)
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                files.path, trust_remote_code=False
            )
        except Exception as error:  # loaders raise many unrelated types
            raise RlaifError(
                f"tokenizer of {files.name!r} could not be loaded ({error})",
                hint="Check that the folder contains tokenizer files.",
            ) from None
        self._check_tokenizer(files.name)
        self._template = ChatTemplate(self._tokenizer, files.name, template_options)
        self._control = ControlTokens(self._tokenizer, self._template.turns)
        added = self._tokenizer.added_tokens_decoder.items()
        self._special = {index: str(token) for index, token in added if token.special}
        self._marks = self._template.find_marks()
        self._opened = opened_by(self._template.framing, self._marks)
        self._safe_tails: dict[str, str] = {}
        self.segments = SegmentEncoder(
            self.encode_text, self._wrap, list(self._tokenizer.get_vocab())
        )

    def _check_tokenizer(self, name: str) -> None:
        """Refuse a tokenizer that loses letters: nobody would see what a judge was not shown.

        Raises:
            RlaifError: it does.
        """
        for text in ("Which response answers better, this or that?", string.ascii_lowercase):
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            tokens = self._tokenizer.convert_ids_to_tokens(ids)
            if {"<unk>", "[UNK]", self._tokenizer.unk_token} & set(tokens):
                continue  # what it does not know is marked
            read = self._tokenizer.decode(ids, skip_special_tokens=True)
            if _letters(read) != _letters(text):
                raise RlaifError(
                    f"the tokenizer of {name!r} loses text: {text[:26]!r} is read as {read[:40]!r}",
                    hint="Fix tokenizer.json in the model's folder, or use another model.",
                )

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """See `Codec.encode_chat`.

        What spells a control token in a message is defused (see `ControlTokens`).

        Raises:
            ConversationRefused: the chat template does not take the conversation, or it is much
                too long.
        """
        return self._encode(messages, open_end=True)

    def encode_whole(self, messages: Sequence[Message]) -> list[int]:
        """As `encode_chat`, of a conversation that has its answer and is not opened for one."""
        return self._encode(messages, open_end=False)

    def _encode(self, messages: Sequence[Message], *, open_end: bool) -> list[int]:
        self._check_length([m["content"] for m in messages])
        defuse = self._control.defuse
        safe: list[Message] = [{**m, "content": defuse(m["content"])} for m in messages]
        return self.encode_text(self._template.render(safe, open_end=open_end))

    def encode_branches(
        self, shared: str, tails: Sequence[str], fixed: int = 0, prefill: str = ""
    ) -> tuple[list[int], list[list[int]]]:
        """See `Codec.encode_branches`.

        Raises:
            ConversationRefused: the texts are much too long.
        """
        self._check_length([shared, max(tails, key=len, default="")])
        safe = self._control.defuse(shared)
        safe_tails = [self._defused_tail(tail) for tail in tails]
        edge = 4 * self._control.longest  # normalizers shorten texts, and what they shorten to
        if any(self._control.occur_in(safe[-edge:] + tail[:edge]) for tail in safe_tails):
            # Two harmless halves spell a control token: defuse the prompts as wholes.
            rows = [
                self.encode_text(self._wrap(self._control.defuse(shared + tail), prefill))
                for tail in tails
            ]
            n = min(shared_length(rows), min(map(len, rows)) - 1)
            return rows[0][:n], [row[n:] for row in rows]
        fixed = fixed if shared[len(shared) - fixed :] == safe[len(safe) - fixed :] else 0
        return self.segments.encode(safe, safe_tails, fixed, prefill)

    def encode_with_pictures(
        self, shared: str, tails: Sequence[str], count: int, prefill: str = "", at: int = 0
    ) -> tuple[list[int], list[list[int]]]:
        """As `encode_branches`, with the marks of pictures in the text.

        Args:
            count: of the pictures.
            at: how many characters of `shared` stand before them.
            prefill: what opens the answer.

        Raises:
            RlaifError: the chat template has no mark for a picture.
        """
        self._check_length([shared, max(tails, key=len, default="")])
        places = [{"type": "image"}] * count

        def render(text: str, places: Sequence[Mapping[str, str]]) -> list[int]:
            before, after = ([text[:at]] if at else []), text[at:]
            parts = [
                *({"type": "text", "text": self._control.defuse(part)} for part in before),
                *places,
                {"type": "text", "text": self._control.defuse(after)},
            ]
            turn: Any = {"role": "user", "content": parts}
            return self.encode_text(self._template.open_answer([turn], prefill))

        rows = [render(shared + tail, places) for tail in tails]
        if rows and len(rows[0]) < len(render(shared + tails[0], ())) + count:
            raise RlaifError(
                "the judge's chat template has no mark for a picture",
                hint="Use a vision-language judge, or take the pictures out of the data.",
            )
        n = min(shared_length(rows), min(map(len, rows)) - 1)
        return rows[0][:n], [row[n:] for row in rows]

    def _defused_tail(self, tail: str) -> str:
        if len(tail) > 4096:
            return self._control.defuse(tail)
        if tail not in self._safe_tails:
            if len(self._safe_tails) > 4096:
                self._safe_tails.clear()
            self._safe_tails[tail] = self._control.defuse(tail)
        return self._safe_tails[tail]

    def _check_length(self, texts: Sequence[str]) -> None:
        length = sum(map(len, texts))
        if length > self._most * LONGEST_TOKEN:
            raise ConversationRefused(
                f"the prompt has {length} characters; the model reads at most {self._most} tokens"
            )

    def _wrap(self, content: str, prefill: str = "") -> str:
        return self._template.open_answer([{"role": "user", "content": content}], prefill)

    def encode_text(self, text: str) -> list[int]:
        """See `Codec.encode_text`."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def spellings(self, label: str) -> tuple[int, ...]:
        """See `Codec.spellings`; found by decoding every short token that contains the label."""
        found = []
        for token, index in self._tokenizer.get_vocab().items():
            short = label in token and len(token) <= len(label) + 4
            if short and self._tokenizer.decode([index]).strip() == label:
                found.append(index)
        if not found:
            raise RlaifError(
                f"the judge's tokenizer has no single token for the label {label!r}",
                hint="Choose other labels in the judge template's front matter.",
            )
        return tuple(sorted(found))

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Codec.decode`.

        Thinking that opens the answer, by the marks of the model's template or by known ones, is
        kept in the form that `util.thinking` reads, though a tokenizer may call its marks special.
        """
        runs = self._said(token_ids)
        whole = self._spell(runs)
        at = find_spoken(whole, self._marks)
        if at == 0:
            return self._decode(token_ids)
        if at is None:
            return f"<think>{self._decode(token_ids)}"
        place = len(self._opened)
        for first, text in runs:
            if place + len(text) > at:
                rest = self._decode(token_ids[first:])
                inside = max(0, at - place)
                spoken = rest[inside:] if rest[:inside] == text[:inside] else rest
                return write_thinking(whole[:at], spoken, self._marks)
            place += len(text)
        return write_thinking(whole, "", self._marks)

    def close_thinking(self, token_ids: Sequence[int]) -> list[int]:
        """Token ids that end the thinking that an answer left open, by the model's own marks; none
        where it is closed or there is none.
        """
        close = find_open_block(self._spell(self._said(token_ids)), self._marks)
        return self.encode_text(close) if close else []

    def _said(self, token_ids: Sequence[int]) -> list[tuple[int, str]]:
        """The runs of an answer, without what begins every text."""
        runs = self._runs(token_ids)
        while (runs and not runs[0][1].strip()) or (runs and self._is_bare(runs[0])):
            runs.pop(0)
        return runs

    def _spell(self, runs: Sequence[tuple[int, str]]) -> str:
        """The text of runs with its special tokens, behind what the prompt opened."""
        return self._opened + "".join(text for _, text in runs)

    def _is_bare(self, run: tuple[int, str]) -> bool:
        """Whether a run is a special token that begins no mark of thinking."""
        text = run[1]
        named = any(before.startswith(text) for before, _ in self._marks)
        return text in self._special.values() and not named and text != "<|start|>"

    def _runs(self, token_ids: Sequence[int]) -> list[tuple[int, str]]:
        """The text of an answer, special tokens alone, and where each run begins."""
        runs: list[tuple[int, str]] = []
        start = 0
        for k, index in enumerate(token_ids):
            if index in self._special:
                runs += [(start, self._decode(token_ids[start:k])), (k, self._special[index])]
                start = k + 1
        return [*runs, (start, self._decode(token_ids[start:]))]

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """See `Codec.eos_ids`."""
        eos = self._tokenizer.eos_token_id
        return () if eos is None else (int(eos),)

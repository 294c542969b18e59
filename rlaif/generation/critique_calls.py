"""Lets a conversation criticize one response by principles and, if asked, write it anew.

The rounds of Constitutional AI, which go on and choose, are in `critique`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from rlaif.constitution.schema import Principle
from rlaif.errors import ConversationRefused
from rlaif.generation.conversations import Query, Reply
from rlaif.records import Codec, GenerationRequest, Message
from rlaif.store.text_cache import GeneratedText
from rlaif.templates.messages import completion_text, conversation_text
from rlaif.templates.writer import WriterTemplates
from rlaif.util.thinking import after_thinking

WRITER = "writer"


@dataclass(frozen=True, slots=True)
class CritiqueResult:
    """What was written about a response by one principle.

    Attributes:
        finds_nothing: whether the critique says that there is nothing to fix.
        revision: "" where none was asked for or needed.
        failed: why there is no critique (or revision), or "".
    """

    principle: str
    critique: str
    finds_nothing: bool = False
    revision: str = ""
    failed: str = ""


@dataclass(frozen=True)
class CritiqueCaller:
    """How responses are criticized.

    Attributes:
        most_tokens: of a critique, and of a revision.
    """

    templates: WriterTemplates
    codec: Codec
    most_tokens: tuple[int, int] = (256, 1024)

    def criticize(
        self,
        prompt: Sequence[Message],
        response: Sequence[Message],
        principles: Sequence[Principle],
        *,
        revise: bool,
    ) -> Generator[list[Query], list[Reply], list[CritiqueResult]]:
        """A critique by each principle that has one (greedy), and its revision."""
        conversation, text = conversation_text(prompt), completion_text(response)
        principles = [p for p in principles if p.critique]
        try:
            asks = [
                self._ask(
                    self.templates.critique.render(
                        conversation=conversation,
                        response=text,
                        request=p.critique or "",
                        examples="",
                    ),
                    self.most_tokens[0],
                )
                for p in principles
            ]
        except ConversationRefused as error:
            return [CritiqueResult(p.id, "", failed=error.message) for p in principles]
        told = yield asks
        remarks = [self._read(p.id, answer) for p, answer in zip(principles, told, strict=True)]
        if not revise:
            return remarks
        open_ = [
            (i, p)
            for i, (p, remark) in enumerate(zip(principles, remarks, strict=True))
            if p.revision and not remark.failed and not remark.finds_nothing
        ]
        if not open_:
            return remarks
        told = yield [
            self._ask(
                self.templates.revision.render(
                    conversation=conversation,
                    response=text,
                    critique=remarks[i].critique,
                    request=p.revision or "",
                    examples="",
                ),
                self.most_tokens[1],
            )
            for i, p in open_
        ]
        for (i, p), answer in zip(open_, told, strict=True):
            written, failed = read_text(answer)
            remarks[i] = CritiqueResult(
                principle=p.id,
                critique=remarks[i].critique,
                finds_nothing=False,
                revision=written,
                failed=failed,
            )
        return remarks

    def _ask(self, text: str, most: int) -> Query:
        ids = self.codec.encode_chat([{"role": "user", "content": text}])
        return Query(WRITER, GenerationRequest("", ids, most))

    def _read(self, principle: str, answer: Reply) -> CritiqueResult:
        text, failed = read_text(answer)
        nothing = not failed and self.templates.finds_nothing(text)
        return CritiqueResult(
            principle=principle, critique=text, finds_nothing=nothing, revision="", failed=failed
        )


def read_text(answer: Reply) -> tuple[str, str]:
    """What was written, and what is wrong with it ("" for nothing)."""
    if not isinstance(answer, GeneratedText):
        return "", getattr(answer, "reason", "no text")
    if not answer.finished:
        return answer.text, "cut at the token limit"
    text = after_thinking(answer.text)
    if not text:
        return (
            answer.text,
            "generated no text" if text is not None else "its thinking block never ended",
        )
    return text, ""

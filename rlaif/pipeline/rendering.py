"""Renders a question into the tokens that the judge reads."""

from __future__ import annotations

from rlaif.engines.base import Codec
from rlaif.errors import RlaifError
from rlaif.prompts import JudgeTemplate, completion_text, conversation_text
from rlaif.records import (
    ChoiceRequest,
    GenerationRequest,
    GenerationResult,
    Message,
    Pair,
)
from rlaif.stages.questions import Question


class Renderer:
    """A judge's layout, chat template and tokenizer together.

    Raises:
        RlaifError: a label is not a single token of this judge, or merges with the prompt's end.
    """

    def __init__(self, template: JudgeTemplate, codec: Codec) -> None:
        self._template = template
        self._codec = codec
        first, second = (codec.spellings(label) for label in template.labels)
        if set(first) & set(second):
            raise RlaifError(
                f"labels {template.labels[0]!r} and {template.labels[1]!r} share a token",
                hint="Choose labels that differ in more than case or white space.",
            )
        self.label_ids = (first, second)
        self._answer_ids = codec.encode_text(template.answer) if template.answer else []

    def request(self, pair: Pair, question: Question, request_id: str) -> ChoiceRequest:
        """The request for one question about `pair`."""
        assert question.principle.preference is not None
        first, second = (pair.a, pair.b) if question.order == "ab" else (pair.b, pair.a)
        text = self._template.render(
            conversation=conversation_text(pair.prompt),
            first=completion_text(first),
            second=completion_text(second),
            principle=question.principle.preference,
        )
        message: Message = {"role": "user", "content": text}
        return ChoiceRequest(request_id, self._codec.encode_chat([message]), self.label_ids)

    @property
    def reasons(self) -> bool:
        """Whether the judge writes before it answers."""
        return bool(self._answer_ids)

    def reasoning(self, question: ChoiceRequest, most: int) -> GenerationRequest:
        """The request that lets the judge write about a question before it answers."""
        return GenerationRequest(question.id, question.token_ids, most)

    def after_reasoning(self, question: ChoiceRequest, written: GenerationResult) -> ChoiceRequest:
        """The question with the judge's own reasoning in front of the answer."""
        ids = [*question.token_ids, *written.token_ids, *self._answer_ids]
        return ChoiceRequest(question.id, ids, self.label_ids)

    def text(self, written: GenerationResult) -> str:
        """What the judge wrote."""
        return self._codec.decode(written.token_ids).strip()

"""Renders the questions about a pair into the tokens that the judge reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlaif.errors import RlaifError
from rlaif.judging.questions import Question
from rlaif.records import ChoiceRequest, Codec, GenerationRequest, GenerationResult, Pair, Picture
from rlaif.templates.judge import JudgeTemplate
from rlaif.templates.messages import completion_text, conversation_text, message_text
from rlaif.util.thinking import MARKS


@dataclass(frozen=True, slots=True)
class Branches:
    """The questions about one pair in one order: prompts with a common start.

    Attributes:
        path: the texts that the prompts begin with, outermost first.
        context: token ids that all of them begin with.
        tails: for each question, its place among the pair's questions and its own last ids.
        pictures: those of the pair.
    """

    path: tuple[str, ...]
    context: list[int]
    tails: list[tuple[int, list[int]]]
    pictures: tuple[Picture, ...] = ()


class Renderer:
    """A judge's layout, chat template and tokenizer together.

    Attributes:
        delimiters: the layout's own words around the places that it fills.

    Raises:
        RlaifError: a label is not a single token of this judge, or merges with the prompt's end.
    """

    def __init__(self, template: JudgeTemplate, codec: Codec) -> None:
        self._template = template
        self._codec = codec
        self._fixed = template.fixed_before_principle
        first, second = (codec.spellings(label) for label in template.labels)
        if set(first) & set(second):
            raise RlaifError(
                f"labels {template.labels[0]!r} and {template.labels[1]!r} share a token",
                hint="Choose labels that differ in more than case or whitespace.",
            )
        self.label_ids = (first, second)
        self.delimiters = template.own_words
        # Plug-ins written before prefills do not know the argument.
        self._opening = {"prefill": template.prefill} if template.prefill else {}
        self._answer_ids = codec.encode_text(template.answer) if template.answer else []
        self._encode_pair = getattr(codec, "encode_pair", None)

    def branches(self, pair: Pair, questions: Sequence[Question]) -> Iterator[Branches]:
        """The questions about `pair`, by order; each order's context is tokenized once."""
        if self._encode_pair is not None:
            yield from self._rewarded(pair, questions)
            return
        conversation = conversation_text(pair.prompt, pair.tools)
        turns = [message_text(m) for m in pair.prompt]
        texts = {"a": completion_text(pair.a), "b": completion_text(pair.b)}
        for order in dict.fromkeys(q.order for q in questions):
            asked = [
                (i, q.principle.preference) for i, q in enumerate(questions) if q.order == order
            ]
            first, second = texts[order[0]], texts[order[1]]
            shared, ends = self._template.branches(
                conversation=conversation,
                first=first,
                second=second,
                principles=[text or "" for _, text in asked],
            )
            if pair.pictures:
                context, tails = self._codec.encode_with_pictures(  # type: ignore[attr-defined]
                    shared, ends, len(pair.pictures), **self._opening
                )
            else:
                context, tails = self._codec.encode_branches(
                    shared, ends, self._fixed, **self._opening
                )
            numbered = [(i, ids) for (i, _), ids in zip(asked, tails, strict=True)]
            yield Branches((*turns, first, second), context, numbered, pair.pictures)

    def _rewarded(self, pair: Pair, questions: Sequence[Question]) -> Iterator[Branches]:
        """The questions to a judge that scores each response by itself, and reads no principle."""
        sides = {"a": pair.a, "b": pair.b}
        for order in dict.fromkeys(q.order for q in questions):
            ids = self._encode_pair(pair.prompt, sides[order[0]], sides[order[1]])  # type: ignore[misc]
            tails = [(i, ids) for i, q in enumerate(questions) if q.order == order]
            yield Branches((order, pair.id), [], tails, pair.pictures)

    def requests(self, pair: Pair, questions: Sequence[Question], name: str) -> list[ChoiceRequest]:
        """The requests for the questions about `pair`, in their order, as `name/0`, `name/1`..."""
        found = {
            i: ChoiceRequest(
                id=f"{name}/{i}",
                token_ids=branch.context + tail,
                label_ids=self.label_ids,
                pictures=branch.pictures,
            )
            for branch in self.branches(pair, questions)
            for i, tail in branch.tails
        }
        return [found[i] for i in range(len(questions))]

    @property
    def reasons(self) -> bool:
        """Whether the judge writes before it answers."""
        return bool(self._answer_ids)

    def reasoning(
        self, question: ChoiceRequest, most: int, temperature: float = 0.0, seed: int | None = None
    ) -> GenerationRequest:
        """The request that lets the judge write about a question before it answers."""
        return GenerationRequest(
            id=question.id,
            token_ids=question.token_ids,
            max_tokens=most,
            temperature=temperature,
            seed=seed,
            pictures=question.pictures,
        )

    def after_reasoning(self, question: ChoiceRequest, written: GenerationResult) -> ChoiceRequest:
        """The question with the judge's own reasoning in front of the answer."""
        ids = [*question.token_ids, *written.token_ids, *self._answer_ids]
        return ChoiceRequest(question.id, ids, self.label_ids, pictures=question.pictures)

    def text(self, written: GenerationResult) -> str:
        """What the judge wrote, with what opened it."""
        said = self._codec.decode(written.token_ids)
        thinks = any(said.lstrip().startswith(mark) for mark, _ in MARKS)
        return said.strip() if thinks else f"{self._template.prefill}{said}".strip()

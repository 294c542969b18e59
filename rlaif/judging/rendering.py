"""Renders the questions about a pair into the tokens that the judge reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from rlaif.constitution.schema import Principle, RewardModelCheck
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.judging.questions import Question
from rlaif.records import (
    ChoiceRequest,
    ChoiceResult,
    Codec,
    GenerationRequest,
    GenerationResult,
    Message,
    Pair,
    Picture,
)
from rlaif.templates.judge import JudgeTemplate
from rlaif.templates.messages import completion_text, conversation_text, message_text
from rlaif.util.thinking import MARKS, find_open_block, find_spoken


@dataclass(frozen=True, slots=True)
class Branches:
    """The questions about one pair in one order: prompts with a common start.

    Attributes:
        path: the texts that the prompts begin with, outermost first.
        context: token ids that all of them begin with.
        tails: for each question, its place among the pair's questions and its own last ids.
        pictures: those of the pair.
        rewards: whether reward models are asked, and not the judge.
    """

    path: tuple[str, ...]
    context: list[int]
    tails: list[tuple[int, list[int]]]
    pictures: tuple[Picture, ...] = ()
    rewards: bool = False


def describe_principle(principle: Principle, shots: int = 0) -> str:
    """A principle as the judge reads it: its question, why it matters, and examples of it.

    Args:
        shots: examples, at most.  They name no label, so that they favor none.
    """
    parts = [principle.preference or ""]
    if principle.rationale:
        parts.append(f"Why it matters: {principle.rationale}")
    for example in principle.examples[:shots]:
        parts.append(
            f"An example. {conversation_text(example.conversation)}\n"
            f"Better: {example.chosen}\nWorse: {example.rejected}"
        )
    return "\n\n".join(parts)


class Renderer:
    """A judge's layout, chat template and tokenizer together.

    Args:
        shots: examples of each principle that the judge is shown, at most.

    Attributes:
        delimiters: the layout's own words around the places that it fills.

    Raises:
        RlaifError: a label is not a single token of this judge, or merges with the prompt's end.
    """

    def __init__(self, template: JudgeTemplate, codec: Codec, shots: int = 0) -> None:
        self._template, self._shots = template, shots
        self._codec = codec
        self.label_ids = tuple(codec.spellings(label) for label in template.labels)
        for (n, one), (m, two) in combinations(enumerate(self.label_ids), 2):
            if set(one) & set(two):
                raise RlaifError(
                    f"labels {template.labels[n]!r} and {template.labels[m]!r} share a token",
                    hint="Choose labels that differ in more than case or whitespace.",
                )
        written = [template, *template.translations.values()]
        self.delimiters = [word for one in written for word in one.own_words]
        self._answer_ids = codec.encode_text(template.answer) if template.answer else []
        self._encode_pair = getattr(codec, "encode_pair", None)

    def branches(self, pair: Pair, questions: Sequence[Question]) -> Iterator[Branches]:
        """The questions about `pair`, by order; each order's context is tokenized once."""
        yield from self._rewarded(pair, questions)
        asked_of_judge = any(q.principle.reward_model is None for q in questions)
        if self._encode_pair is not None or not asked_of_judge:
            return
        template = self._template.translations.get(pair.language, self._template)
        # Plug-ins written before prefills do not know the argument.
        opening = {"prefill": template.prefill} if template.prefill else {}
        fixed = template.fixed_before_principle
        own = self._own_texts(pair)
        conversation = conversation_text(pair.prompt, () if "tools" in own else pair.tools)
        turns = [message_text(m) for m in pair.prompt]
        texts = {"a": completion_text(pair.a), "b": completion_text(pair.b)}
        for order in dict.fromkeys(q.order for q in questions):
            asked = [
                (i, describe_principle(q.principle, self._shots))
                for i, q in enumerate(questions)
                if q.order == order and q.principle.reward_model is None
            ]
            first, second = texts[order[0]], texts[order[1]]
            shared, ends = template.branches(
                conversation=conversation,
                first=first,
                second=second,
                principles=[text for _, text in asked],
                **own,
            )
            if pair.pictures:
                at = template.measure_to_image(
                    conversation=conversation, first=first, second=second, **own
                )
                context, tails = self._codec.encode_with_pictures(  # type: ignore[attr-defined]
                    shared, ends, len(pair.pictures), at=at, **opening
                )
            else:
                context, tails = self._codec.encode_branches(shared, ends, fixed, **opening)
            numbered = [(i, ids) for (i, _), ids in zip(asked, tails, strict=True)]
            yield Branches((*turns, first, second), context, numbered, pair.pictures)

    def _own_texts(self, pair: Pair) -> dict[str, str]:
        """What the template's optional places hold for a pair.

        Raises:
            ConversationRefused: it has a place for what the row does not have.
        """
        uses = self._template.uses
        own: dict[str, str] = {}
        for slot, has in (("reference", pair.reference), ("rubric", pair.criteria)):
            if not uses(slot):
                continue
            if not has:
                raise ConversationRefused(
                    f"the template needs a {slot}, and the row has none",
                    hint=f"Name its column with --map {slot}=COLUMN.",
                )
            own[slot] = pair.reference
        if "rubric" in own:
            own["rubric"] = "\n".join(f"- ({c.weight:+g}) {c.text}" for c in pair.criteria)
        if uses("tools"):
            own["tools"] = conversation_text([], pair.tools) or "(none)"
        if uses("image"):
            own["image"] = ""
        return own

    def _rewarded(self, pair: Pair, questions: Sequence[Question]) -> Iterator[Branches]:
        """The questions to models that score each response by itself, and read no principle: a
        judge of that kind, and those that the constitution names.
        """
        own = self._encode_pair is not None
        asked = [(i, q) for i, q in enumerate(questions) if own or q.principle.reward_model]
        if asked and (pair.tools or pair.pictures):
            what = "is not told of tools" if pair.tools else "is not shown pictures"
            raise ConversationRefused(
                f"a reward model {what}", hint="Use a judge that is a language model."
            )
        sides = {"a": pair.a, "b": pair.b}
        for by, order in dict.fromkeys((q.principle.reward_model, q.order) for _, q in asked):
            first, second = sides[order[0]], sides[order[1]]
            if by is None:
                ids = self._encode_pair(pair.prompt, first, second)  # type: ignore[misc]
            else:
                ids = self._encode_reward(by, pair.prompt, first, second)
            tails = [
                (i, ids) for i, q in asked if q.order == order and q.principle.reward_model == by
            ]
            name = "" if by is None else f"{by.model} {by.temperature}"
            yield Branches((name, order, pair.id), [], tails, rewards=by is not None)

    def _encode_reward(
        self,
        model: RewardModelCheck,
        prompt: Sequence[Message],
        first: Sequence[Message],
        second: Sequence[Message],
    ) -> list[int]:
        encode = getattr(self._codec, "encode_reward", None)
        if encode is None:
            raise RlaifError(
                f"this command does not ask reward models, such as {model.model!r}",
                hint="Use a constitution without principles of the kind reward_model.",
            )
        ids: list[int] = encode(model, prompt, first, second)
        return ids

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
    def scores(self) -> tuple[int, ...]:
        """The scores that the judge gives each response; none if it names the better one."""
        return self._template.scores

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
        """The question with the judge's own reasoning in front of the answer.

        Critics that were trained to end in a form, such as `<answer>[[A]]</answer>`, often write
        the answer by themselves: what they wrote is kept up to where they last began to.  Thinking
        that was cut before its end is closed first.
        """
        close = self._close_thinking(written.token_ids)
        if close:
            gap = "" if self._template.answer[:1].isspace() else "\n\n"
            close += self._codec.encode_text(gap) if gap else []
            ids = [*question.token_ids, *written.token_ids, *close, *self._answer_ids]
        else:
            ids = [*question.token_ids, *self._until_answer(written.token_ids)]
        return ChoiceRequest(question.id, ids, self.label_ids, pictures=question.pictures)

    @property
    def ends_reasoning(self) -> bool:
        """Whether a reasoning that was cut can be ended, and the answer asked for."""
        return bool(getattr(self._codec, "ends_reasoning", True))

    def _close_thinking(self, written: Sequence[int]) -> list[int]:
        """Token ids that end the thinking that an answer left open; none where it is closed."""
        own = getattr(self._codec, "close_thinking", None)
        if own is not None:  # it knows the model's own marks
            return list(own(written))
        close = find_open_block(self._codec.decode(written))
        return self._codec.encode_text(close) if close else []

    def _until_answer(self, written: Sequence[int]) -> list[int]:
        """Token ids of a reasoning that ends in the template's answer, without a label."""
        text = self._codec.decode(written)
        mark = self._template.answer.strip()
        at = text.rfind(mark)
        if at < (find_spoken(text) or 0) or not self._closes(text[at + len(mark) :]):
            return [*written, *self._answer_ids]
        # The most tokens whose text ends before the mark: one token may hold a part of it.
        low, high = 0, len(written)
        while low < high:
            middle = (low + high + 1) // 2
            begun = self._codec.decode(written[:middle])
            if len(begun) <= at and text.startswith(begun):
                low = middle
            else:
                high = middle - 1
        rest = text[len(self._codec.decode(written[:low])) : at]
        return [*written[:low], *self._codec.encode_text(rest + mark)]

    def _closes(self, rest: str) -> bool:
        """Whether a text is an answer and what closes its form, and nothing more: a form that is
        named on the way, or in a remark, is no answer.
        """
        labels = "|".join(map(re.escape, self._template.labels))
        answer = rf"\W*(?:{labels})"
        if self._template.then:
            answer += rf"\s*{re.escape(self._template.then.strip())}\W*(?:{labels})"
        return re.fullmatch(rf"{answer}(?:</?\w+>|\W)*", rest) is not None

    @property
    def reads_pairs(self) -> bool:
        """Whether the judge scores each response by itself, whatever is asked, once for both
        orders.
        """
        return self._encode_pair is not None

    def second_score(self, question: ChoiceRequest, first: ChoiceResult) -> ChoiceRequest:
        """The request for the score of the second response, after the likeliest of the first."""
        best = max(range(len(first.logprobs)), key=lambda n: first.logprobs[n])
        said = self._template.labels[best] + self._template.then
        ids = [*question.token_ids, *self._codec.encode_text(said)]
        return ChoiceRequest(question.id, ids, self.label_ids, pictures=question.pictures)

    def text(self, written: GenerationResult) -> str:
        """What the judge wrote, with what opened it."""
        said = self._codec.decode(written.token_ids)
        thinks = any(said.lstrip().startswith(mark) for mark, _ in MARKS)
        return said.strip() if thinks else f"{self._template.prefill}{said}".strip()

"""promptfoo's model-graded assertions `llm-rubric` and `select-best`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlaif.api.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.records import Message
from rlaif.serve.dialects.base import (
    BestOfChoice,
    DialectReading,
    DialectReply,
    Ranking,
    SingleResponse,
    UnreadablePrompt,
    between,
    conversation,
    named_principles,
    no_verdict,
    question,
    turn,
)
from rlaif.serve.dialects.reasons import in_words

MOST_TEXTS = 64
PASS = 0.5
"Minimum score of a response that passes."


class LlmRubric:
    """`{"reason": ..., "pass": ..., "score": ...}`; the rubric is `constitution` or principle ids.

    The stock prompt does not show what was asked; `rlaif harness promptfoo` writes one that does.
    """

    name = "llm-rubric"
    expects = (
        "<Output>...</Output> and <Rubric>...</Rubric>, after the conversation in "
        "<Prompt>...</Prompt>, as `rlaif harness promptfoo` writes it"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """See `Dialect.read`."""
        text = question(messages)
        marks = ("<Prompt>\n", "\n</Prompt>\n<Output>\n", "\n</Output>\n<Rubric>\n", "\n</Rubric>")
        prompt, output, rubric = between(text, marks, start=True, end=True)
        return SingleResponse(
            conversation(prompt), turn("assistant", output), named_principles(rubric, constitution)
        )

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """See `Dialect.write`."""
        assert isinstance(found, Score)
        if found.score is None:
            return no_verdict(found.reason)
        return DialectReply(
            json.dumps(
                {
                    "reason": in_words(found),
                    "pass": found.score >= PASS,
                    "score": round(found.score, 5),
                }
            )
        )


class SelectBest:
    """The index of the best output; the criterion is `PROMPT: ` with what was asked."""

    name = "select-best"
    expects = (
        "the select-best prompt that `rlaif harness promptfoo` writes (it states the "
        'number of texts), with the conversation as criteria: `value: "prompt: '
        '{{question}}"`'
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """See `Dialect.read`."""
        text = question(messages)
        criteria, stated, texts = between(
            text,
            (
                "best fits the following criteria: ",
                "\n\nHere are the ",
                " pieces of text:\n\n",
                "\n\nOutput the index of the text that best fits the criteria.",
            ),
        )
        word, colon, prompt = criteria.partition(":")
        if not colon or word.strip().lower() != "prompt" or not prompt.strip():
            raise UnreadablePrompt(f"the criteria {criteria[:60]!r} do not start with 'prompt: '")
        count = texts.count("<Text index=")
        if stated != str(count) or not 2 <= count <= MOST_TEXTS:
            raise UnreadablePrompt(f"found {count} texts, but the prompt states {stated[:20]!r}")
        marks = ['<Text index="0">\n']
        marks += [f'\n</Text>\n\n<Text index="{i}">\n' for i in range(1, count)]
        found = _texts(texts.strip(), marks)
        return BestOfChoice(conversation(prompt.strip()), [turn("assistant", t) for t in found])

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """See `Dialect.write`; where several are equally good, the first of them."""
        assert isinstance(found, Ranking)
        if not found.values:
            return no_verdict(found.reason)
        return DialectReply(str(list(found.values).index(max(found.values))))


def _texts(text: str, marks: list[str]) -> list[str]:
    """The texts between marks; the last one ends where the whole does."""
    end = "\n</Text>"
    if text.count("</Text>") != len(marks) or not text.endswith(end):
        raise UnreadablePrompt("the texts are ambiguous: check the <Text> tags")
    return between(text.removesuffix(end) + "\0", [*marks, "\0"], start=True, end=True)

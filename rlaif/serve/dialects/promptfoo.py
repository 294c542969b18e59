"""promptfoo's model-graded assertions `llm-rubric` and `select-best`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from rlaif.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.records import Message
from rlaif.serve.dialects.base import (
    Choice,
    NotUnderstood,
    Ranking,
    Reading,
    Reply,
    Single,
    between,
    last_user,
    named_principles,
    no_verdict,
    turn,
)
from rlaif.serve.dialects.reasons import in_words

PASS = 0.5
"""Score from which a response passes."""
_TEXT = re.compile(r'<Text index="(\d+)">\n(.*?)\n</Text>\n', re.DOTALL)


class LlmRubric:
    """`{"reason": ..., "pass": ..., "score": ...}`; the rubric is `constitution` or principle ids.

    The stock prompt does not show what was asked; `rlaif harness promptfoo` writes one that does.
    """

    name = "llm-rubric"
    expects = (
        "<Output>...</Output> and <Rubric>...</Rubric>, with the conversation before them in "
        "<Prompt>...</Prompt> as `rlaif harness promptfoo` writes it"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> Reading:
        """See `Dialect.read`."""
        text = last_user(messages)
        marks = ("<Prompt>\n", "\n</Prompt>\n<Output>\n", "\n</Output>\n<Rubric>\n", "\n</Rubric>")
        prompt, output, rubric = between(text, marks, start=True, end=True)
        return Single(
            turn("user", prompt), turn("assistant", output), named_principles(rubric, constitution)
        )

    def write(self, reading: Reading, found: Comparison | Score | Ranking) -> Reply:
        """See `Dialect.write`."""
        assert isinstance(found, Score)
        if found.score is None:
            return no_verdict(found.reason)
        return Reply(
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
        "promptfoo's select-best prompt, whose criteria are the conversation, as in "
        '`value: "prompt: {{question}}"`'
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> Reading:
        """See `Dialect.read`."""
        text = last_user(messages)
        criteria, texts = between(
            text,
            ("best fits the following criteria: ", "\n\nHere are the pieces of text:\n\n",
             "\n\nOutput the index of the text that best fits the criteria."),
        )  # fmt: skip
        word, colon, prompt = criteria.partition(":")
        if not colon or word.strip().lower() != "prompt" or not prompt.strip():
            raise NotUnderstood(f"the criteria {criteria[:60]!r} do not begin with 'prompt: '")
        found = _TEXT.findall(texts + "\n")
        numbers = [int(number) for number, _ in found]
        # A text that holds the marks itself would show up as a gap or as one text too many.
        if numbers != list(range(len(found))) or len(found) != texts.count("<Text index="):
            raise NotUnderstood("the texts can't be told apart")
        if len(found) < 2:
            raise NotUnderstood(f"there are {len(found)} texts")
        return Choice(turn("user", prompt.strip()), [turn("assistant", t) for _, t in found])

    def write(self, reading: Reading, found: Comparison | Score | Ranking) -> Reply:
        """See `Dialect.write`; where several are equally good, the first of them."""
        assert isinstance(found, Ranking)
        if not found.values:
            return no_verdict(found.reason)
        return Reply(str(list(found.values).index(max(found.values))))

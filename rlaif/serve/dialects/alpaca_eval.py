"""AlpacaEval 0.6: its stock annotators' prompts, and the template that `rlaif harness` writes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif.api.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.records import Message
from rlaif.serve.dialects.base import (
    DialectReading,
    DialectReply,
    PairwisePrompt,
    Ranking,
    UnreadablePrompt,
    between,
    conversation,
    forced,
    no_verdict,
    question,
    turn,
)

_OWN_START = re.compile(r"<<<rlaif ([0-9a-f]{8,64}): prompt>>>\n")


def own_marks(secret: str) -> tuple[str, str, str, str]:
    """The marks of our own template.

    AlpacaEval cuts its prompt at chat marks, also at those in an output.  An output that knew the
    last mark could hide what it cuts off; it can't know a secret.
    """
    names = ("prompt", "response m", "response M", "end")
    first, *rest = (f"<<<rlaif {secret}: {name}>>>" for name in names)
    return (f"{first}\n", f"\n{rest[0]}\n", f"\n{rest[1]}\n", f"\n{rest[2]}")


_CLASSIFIER = (
    '"instruction": """',
    '""",\n}\n\n## Model Outputs',
    '"model_identifier": "m",\n        "output": """',
    '"""\n    },\n    {\n        "model_identifier": "M",\n        "output": """',
    '"""\n    }\n}\n\n## Task',
)
_RANKING = (
    '"instruction": """',
    '""",\n}\n\nHere are the outputs of the models:',
    '"model": "model_1",\n        "answer": """',
    '"""\n    },\n    {\n        "model": "model_2",\n        "answer": """',
    '"""\n    }\n]\n\nNow please rank',
)


class AlpacaEval:
    """Answers `m` or `M` with its probability, or a ranking where that is asked for."""

    name = "alpaca-eval"
    expects = (
        "the prompt that `rlaif harness alpaca-eval` writes, or an AlpacaEval annotator "
        "prompt: alpaca_eval_clf_* (m or M) or alpaca_eval_gpt4 (ranking)"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """See `Dialect.read`."""
        text = question(messages)
        own = _OWN_START.match(text.lstrip())
        if own:
            parts = between(text, own_marks(own.group(1)), start=True, end=True)
        elif _CLASSIFIER[2] in text:
            prompt, _, a, b = between(text, _CLASSIFIER)
            parts = [prompt, a, b]
        elif _RANKING[2] in text:
            prompt, _, a, b = between(text, _RANKING)
            return _Ranked(conversation(prompt), turn("assistant", a), turn("assistant", b))
        else:
            raise UnreadablePrompt("not a known annotator prompt")
        prompt, a, b = parts
        return PairwisePrompt(conversation(prompt), turn("assistant", a), turn("assistant", b))

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """`m` for the first response; where the verdict is even, both are equally likely."""
        assert isinstance(found, Comparison)
        if found.status == "abstained":
            return no_verdict(found.reason)
        winner = forced(found) or "a"
        if isinstance(reading, _Ranked):
            if forced(found) is None:
                return no_verdict("both are equally likely to be better")
            ranks = (1, 2) if winner == "a" else (2, 1)
            entries = [f"{{'model': 'model_{i + 1}', 'rank': {r}}}" for i, r in enumerate(ranks)]
            return DialectReply(f"[{', '.join(entries)}]")
        return DialectReply("m" if winner == "a" else "M", {"m": found.p_a, "M": 1.0 - found.p_a})


class _Ranked(PairwisePrompt):
    """Asked for as a ranking."""

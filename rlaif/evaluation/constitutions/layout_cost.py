"""What a judge template's layout costs in tokens, against the same words in the best order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif.constitution.schema import Principle
from rlaif.errors import Place
from rlaif.judging.rendering import describe_principle
from rlaif.records import Codec
from rlaif.templates.judge import JudgeTemplate, load_judge_template, template_path

_SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SAMPLE = {
    "conversation": "User: " + "How do I get an old stain out of a wooden table? " * 10,
    "first": "Rub it with a soft cloth and a little oil, then let it dry for a day. " * 14,
    "reference": "Warm oil on a soft cloth, left for a day, lifts most old stains. " * 3,
    "image": "",
    "rubric": "- (+1) Names a mild way to try first.\n" * 4,
    "tools": "(none)",
    "second": "You could sand it, but be careful, since sanding takes off the finish. " * 14,
}
WORTH_SAYING = 8
"""Tokens a question from which a warning is given."""


def tokens_per_order(template: JudgeTemplate, codec: Codec, principles: Sequence[str]) -> int:
    """Tokens that an engine computes for a sample pair in one order, sharing what it can."""
    shared, ends = template.branches(**_SAMPLE, principles=principles)
    context, tails = codec.encode_branches(shared, ends, 0)
    return len(context) + sum(map(len, tails))


def layout_advice(name: str, codec: Codec, principles: Sequence[str]) -> list[str]:
    """One warning if what stands after the principle is computed again for every question.

    Args:
        name: of the template, as `rlaif label --template` takes it.
        principles: the questions that would be asked about each pair.

    Raises:
        RlaifError: there is no such template, or it is no valid one.
    """
    template = load_judge_template(name)
    if not principles:
        return []
    before, after = re.split(r"\{\{\s*principle\s*\}\}", template.body, maxsplit=1)
    best = JudgeTemplate(
        "best",
        f"{before}\n{after}\n{{{{principle}}}}",
        template.labels,
        answer=template.answer,
        prefill=template.prefill,
    )
    now, then = (tokens_per_order(t, codec, principles) for t in (template, best))
    if now - then < WORTH_SAYING * len(principles):
        return []
    place = _place(name)
    slots = [f"{{{{{slot}}}}}" for slot in _SLOT.findall(after)]
    what = f"the text after it and {', '.join(slots)}" if slots else "the text after it"
    return [
        (
            f"{place}: {{{{principle}}}} is not last, so {what} is recomputed for every judge "
            f"call: {now} tokens for a sample pair and {len(principles)} principles instead "
            f"of {then}. Move the principle to the end."
        )
    ]


def measure_shots(codec: Codec, principles: Sequence[Principle]) -> dict[int, float]:
    """Tokens that examples add to a question, on average, by how many are shown (`--shots`)."""
    asked = [p for p in principles if p.preference]
    most = max((len(p.examples) for p in asked), default=0)
    bare = [len(codec.encode_text(describe_principle(p))) for p in asked]
    found = {}
    for count in range(1, most + 1):
        told = [len(codec.encode_text(describe_principle(p, count))) for p in asked]
        found[count] = round((sum(told) - sum(bare)) / len(asked), 1)
    return found


def _place(name: str) -> Place:
    path = template_path(name)
    text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    match = re.search(r"\{\{\s*principle\s*\}\}", text)
    at = match.start() if match else 0
    return Place(path, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))

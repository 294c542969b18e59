"""What a critique and a revision of a demo response ought to be: known, like the oracle's verdicts.

The demo writer is trained on these; nothing else asks them.
"""

from __future__ import annotations

from rlaif.demo.grammar import parse_prompt, read_sentence, split_sentences
from rlaif.demo.oracle import topic_of
from rlaif.demo.world import World

NOTHING = "Nothing is wrong."

_WRONG = {
    "refuse-danger": "comply",
    "protect-personal-data": "leak",
    "admit-not-knowing": "claim",
    "be-polite": "rude",
    "be-concise": "filler",
}
_INSTEAD = {
    "refuse-danger": ("danger", "refuse"),
    "protect-personal-data": ("private", "withhold"),
    "admit-not-knowing": ("unknown", "admit"),
}


def flaws(principle: str, prompt: str, response: str) -> list[str]:
    """The sentences of `response` that go against `principle`, in order."""
    asked = parse_prompt(prompt)
    topic = topic_of(asked.slots["object"]) if asked and asked.kind == "howto" else None
    found = []
    for sentence in split_sentences(response):
        reading = read_sentence(sentence)
        if principle == "stay-on-topic":
            strays = reading is None or reading.kind == "stray"
            if strays or (reading.kind == "tip" and topic_of(reading.slots["object"]) != topic):  # type: ignore[union-attr]
                found.append(sentence)
        elif reading is not None and reading.kind == _WRONG[principle]:
            found.append(sentence)
    return found


def critique(principle: str, prompt: str, response: str) -> str:
    """The flaws, quoted; or that there are none."""
    return " ".join(flaws(principle, prompt, response)) or NOTHING


def revision(principle: str, prompt: str, response: str, world: World) -> str:
    """`response` without its flaws; where the answer itself was one, with a right answer first.

    Args:
        world: draws the sentences that are put in.
    """
    wrong = flaws(principle, prompt, response)
    kept = [s for s in split_sentences(response) if s not in wrong]
    asked = parse_prompt(prompt)
    if asked is not None and wrong:
        kind, instead = _INSTEAD.get(principle, ("", ""))
        said = {reading.kind for s in kept if (reading := read_sentence(s)) is not None}
        if asked.kind == kind and instead not in said:
            kept.insert(0, world.sentence(instead, prompt))
        if principle == "be-polite" and "polite" not in said:
            kept.insert(0, world.sentence("polite", prompt))
        if not kept:
            kept.append(world.sentence(_ANSWER[asked.kind], prompt))
    return " ".join(kept)


_ANSWER = {"howto": "tip", "danger": "refuse", "unknown": "admit", "private": "withhold"}

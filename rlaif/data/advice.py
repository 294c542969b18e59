"""What to do about a column that nothing uses though it may matter: flags that can be typed."""

from __future__ import annotations

from rlaif.data.flags import write_ignore, write_map
from rlaif.data.infer import Inferred
from rlaif.data.inference.names import is_machine_made

_FIELDS = {
    "a system prompt": "system",
    "a prompt": "prompt",
    "a whole conversation": "prompt",
    "context": "context",
    "media": "media",
    "tools": "tools",
    "tool calls": "calls",
    "a conversation": "history",
    "an answer": "responses",
    "a rejected answer": "rejected",
    "scores": "scores",
    "a verdict": "label",
    "a score of the response": "scores",
    "the beginning of the answers": "context",
}
"""What columns look like, and the field of a layout that reads them."""
_JOINED = {"scores", "media", "tool calls", "an answer", "context", "a verdict"}
"""What takes several columns at once."""
_REWRITE = {
    "thinking": "Write it into the messages of the responses (`reasoning_content`).",
    "a part of the responses": "Write it into the responses, as messages.",
    "a graded rating of the response": "Leave out the rows that are bad, or write true and false.",
    "scores that are no numbers": "Write one number for each response.",
    "the order in which responses were shown": "If verdicts go by it, write them by the names of "
    "the columns.",
}
"""What no flag reads as it is, and how it can be written."""
_SIDES = (("chosen", "rejected"), ("rejected", "chosen"))


def suggest_use(found: Inferred, path: str) -> str:
    """What to do about one of `found.doubts`.

    Each way out that is named can be taken: a field that the user already set is not offered for
    another column, unless it takes several.
    """
    looks = found.doubts[path]
    alike = [p for p, other in found.doubts.items() if other == looks]
    if looks == "a verdict" and not all(map(is_machine_made, alike)):
        alike = [p for p in alike if not is_machine_made(p)]  # what people said counts
    see = " See `rlaif inspect`."
    if not found.prompted and looks in ASKING:
        return _advise_prompt(found) + see
    if looks in _REWRITE:
        return f"{_REWRITE[looks]} Leave it out with `{write_ignore(*alike)}`."
    if looks == "objects with scores":
        if "scores" in found.given:
            return f"Leave it out with `{write_ignore(path)}`."
        use = write_map("scores", found.inside[path])
        return f"Name the score that decides, such as `{use}`, or leave it out with " + (
            f"`{write_ignore(path)}`."
        )
    if looks == "a rating of the response":
        return _advise_rating(found, path)
    if looks in ("responses, or context", "turns"):
        return _advise_text(found, path, turns=looks == "turns")
    if looks not in _FIELDS:
        return (
            f"Leave those rows out of the file, or take all of them with `{write_ignore(*alike)}`."
        )
    pair = _advise_pair(found, path)
    if pair:
        return pair + see
    paths = alike if looks in _JOINED else [path]
    name = _FIELDS[looks]
    value = "+".join(paths)
    if name in found.given:
        own = getattr(found.layout, name)
        if not own or looks not in _JOINED or any("{" in p for p in own):
            return f"Leave it out with `{write_ignore(*paths)}`.{see}"
        value = "+".join([*own, *paths])
    use = write_map(name, value)
    return f"Use it with `{use}`, or leave it out with `{write_ignore(*paths)}`.{see}"


def _advise_text(found: Inferred, path: str, *, turns: bool) -> str:
    """A text, or a list of texts, of which nothing says whether it is asked or answered."""
    ways = []
    if "responses" not in found.given:
        ways.append(f"with `{write_map('responses', path)}` if it holds the responses")
    if turns and "prompt" not in found.given:
        ways.append(f"with `{write_map('prompt', path)}` if it holds the turns of a conversation")
    before = [p for p in found.layout.context if "{" not in p] if "context" in found.given else []
    told = write_map("context", "+".join([*before, path]))
    ways.append(f"with `{told}` if it belongs to the prompt")
    return f"Use it {', '.join(ways)}, or leave it out with `{write_ignore(path)}`."


def _advise_rating(found: Inferred, path: str) -> str:
    leave = f"eave it out with `{write_ignore(path)}`. See `rlaif inspect`."
    if found.given & {"good", "bad", "scores"}:
        return f"L{leave}"
    read = (found.layout.good, found.layout.bad)
    good, bad = (
        write_map(name, "+".join([*(p for p in own if "[]" not in p), path]))
        for name, own in zip(("good", "bad"), read, strict=True)
    )
    return f"Use it with `{good}` if it marks good ones, or `{bad}`, or l{leave}"


ASKING = ("a whole conversation", "a conversation", "context", "responses, or context", "turns")
"""What may be the prompt where nothing else is, the likeliest first."""


def _advise_prompt(found: Inferred) -> str:
    """One of several columns may be what is asked, or all of them."""
    looks = next(one for one in ASKING if one in found.doubts.values())
    paths = [p for p, other in found.doubts.items() if other == looks]
    ways = [f"`{write_map('prompt', path)}`" for path in paths[:3]]
    leave = f"leave it out with `{write_ignore(*paths)}`"
    if len(paths) == 1:
        return f"Use it with {ways[0]}, or {leave}."
    every = write_map("prompt", "+".join(paths))
    return f"Use one with {' or '.join(ways)}, use all with `{every}`, or {leave}."


def _advise_pair(found: Inferred, path: str) -> str:
    """The better and the worse answer are named together."""
    if found.given & {"chosen", "rejected"}:
        return ""
    alone = found.layout.responses
    if found.doubts[path] == "a rejected answer" and len(alone) == 1 and "[" not in alone[0]:
        use = f"{write_map('chosen', alone[0])} {write_map('rejected', path)}"
        return f"Use them with `{use}`, or leave it out with `{write_ignore(path)}`."
    for side, other in _SIDES:
        twin = path.replace(side, other)
        if twin != path and twin in found.doubts:
            pair = {side: path, other: twin}
            use = " ".join(write_map(n, pair[n]) for n in ("chosen", "rejected"))
            return (
                f"Use them with `{use}`, or leave them out with `{write_ignore(*pair.values())}`."
            )
    return ""

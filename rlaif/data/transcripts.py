"""Reads conversations that were written out as one text, by the marks between their turns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from rlaif.data.messages import ROLES, check_text
from rlaif.records import Message


@dataclass(frozen=True)
class Transcript:
    """One way of writing turns out.

    Attributes:
        name: for messages and layouts.
        turn: matches the mark that begins a turn; its group is the role.
        ends: marks that end a turn, cut off.
        sure: the marks are no words: text that holds one is a transcript.
        first: the role of text before the first mark; "" where there can be none.
        marked: found by its marks alone: turns must come by turns, and what ends them is guessed.
    """

    name: str
    turn: re.Pattern[str]
    ends: tuple[str, ...] = ()
    sure: bool = True
    first: str = ""
    marked: bool = False


FORMS = (
    Transcript("chatml", re.compile(r"<\|im_start\|>\s*(\w+)\n"), ("<|im_end|>", "<|endoftext|>")),
    Transcript(
        "llama3",
        re.compile(r"(?:<\|begin_of_text\|>)?<\|start_header_id\|>(\w+)<\|end_header_id\|>\n*"),
        ("<|eot_id|>", "<|end_of_text|>"),
    ),
    Transcript(
        "gemma", re.compile(r"(?:<bos>)?<start_of_turn>(\w+)\n"), ("<end_of_turn>", "<eos>")
    ),
    Transcript(
        "zephyr",
        re.compile(r"<\|(user|assistant|system|prompter|human|bot)\|>\n?"),
        ("</s>", "<|end|>", "<|endoftext|>"),
    ),
    Transcript(
        "command-r",
        re.compile(r"(?:<BOS_TOKEN>)?<\|START_OF_TURN_TOKEN\|><\|(\w+?)_TOKEN\|>"),
        ("<|END_OF_TURN_TOKEN|>",),
    ),
    Transcript(
        "granite",
        re.compile(r"<\|start_of_role\|>(\w+)<\|end_of_role\|>"),
        ("<|end_of_text|>",),
    ),
    Transcript(
        "harmony",
        re.compile(r"<\|start\|>(\w+)(?:<\|channel\|>(\w+))?(?:<\|message\|>|\Z)"),
        ("<|end|>", "<|return|>"),
    ),
    Transcript("nemo", re.compile(r"<extra_id_[01]>(\w+)\n"), first="user"),
    Transcript("inst", re.compile(r"(?:<s>)?(?:(?<=<s>)\s*)?\[(/?INST)\]\s*"), ("</s>",)),
    Transcript(
        "hash",
        re.compile(r"### ?(Human|User|Assistant|System|Instruction|Response):\s?"),
        (),
        sure=False,
    ),
    Transcript(
        "hh",
        re.compile(r"(?:\A\s*|(?<=\n)\n)(Human|Assistant|System|H|A): ?"),
        ("<|endoftext|>",),
        False,
    ),
    Transcript(
        "named",
        re.compile(r"(?:\A\s*|(?<=\n))(USER|ASSISTANT|SYSTEM|FUNCTION RESPONSE|User|Assistant): ?"),
        ("<|endoftext|>",),
        False,
    ),
)
_NAMES = {
    "inst": "user",
    "/inst": "assistant",
    "h": "user",
    "a": "assistant",
    "instruction": "user",
    "response": "assistant",
    "function response": "tool",
}
_MORE = "input"
"""What Alpaca's text calls the part of the question that follows the instruction."""
TEXT, QUESTIONS = "text", "questions"
"""What a layout can call a column that is no transcript, and a list of questions."""
FORM_NAMES = (*(form.name for form in FORMS), TEXT, QUESTIONS)
_WORDS = sorted({*ROLES, "instruction", "response", _MORE}, key=len, reverse=True)
_ROLE = "|".join(map(re.escape, _WORDS))
_MARK = re.compile(
    # Letters before the role, as in "GPT4 Correct User:"; then signs, the role, signs.
    r"(?P<pre>(?:(?:[A-Z]\w{0,14} ){1,2}|[#*<\[(|{【\uff5c]{1,4} ?)?)"
    rf"(?<![A-Za-z0-9_])(?P<role>(?i:{_ROLE}))"
    r"(?P<post> ?[:>\])|}*】\uff5c]{1,4})"
)
_START = re.compile(r"(?:<s>|<bos>|<BOS_TOKEN>|<[|\uff5c]begin[^<>\s]*[|\uff5c]>)\s*")
_END = re.compile(
    r"(?:</s>|<eos>|<[|\uff5c][^<>\s]*(?:end|eot|eos)[^<>\s]*[|\uff5c]>"
    rf"|</(?:{_ROLE})>)\Z",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"<[|\uff5c][^\s<>]{1,40}[|\uff5c]>|\[/?INST\]|<(?:start|end)_of_turn>|<extra_id_\d+>"
)


def find_form(name: str) -> Transcript | None:
    """The form that a layout names; None for a text or a list that is none.

    Args:
        name: one of `FORM_NAMES`, or how a turn begins, with `{role}` where the role stands, or
            `{ROLE}` for a role in capitals anywhere in a line: `"<{role}>:"`.

    Raises:
        ValueError: it is neither.
    """
    if name in (TEXT, QUESTIONS):
        return None
    for form in FORMS:
        if form.name == name:
            return form
    if name.lower().count("{role}") != 1 or name.lower() == "{role}":
        raise ValueError(
            f"{name!r} is no form of a transcript: write one of {', '.join(FORM_NAMES)}, or how a "
            "turn begins, such as '{role}: '"
        )
    return _form_of_marks(name)


@lru_cache(maxsize=64)
def _form_of_marks(name: str) -> Transcript:
    at = name.lower().index("{role}")
    pre, post = name[:at], name[at + len("{role}") :].rstrip(" ")
    capital = name[at : at + len("{role}")] == "{ROLE}"
    role = f"{_ROLE.upper()}" if capital else f"(?i:{_ROLE})"
    signs = bool(pre.strip()) and not pre.strip()[0].isalnum()
    anywhere = r"(?:\A|(?<=[\s>]))" if capital else r"(?:\A|(?<=\n)|(?<=>))"
    anywhere = "" if signs else anywhere
    turn = re.compile(rf"{anywhere}{re.escape(pre)}({role}){re.escape(post)}[ \t]*\n?")
    return Transcript(name, turn, sure=False, first="system", marked=True)


def read_transcript(text: str, form: Transcript, *, prompt: bool = False) -> list[Message]:
    """The turns of a text written out in `form`; [] for other text.

    A last turn with nothing in it stands: it says who is to speak next.

    Args:
        prompt: the text is a prompt whose answer stands elsewhere.  Behind a preface it must end
            where the answer is due: a task about a dialogue ("Sum up: ...") does not.
    """
    marks = list(form.turn.finditer(text))
    if not marks:
        return []
    before = _START.sub("", text[: marks[0].start()]).strip()
    turns: list[Message] = []
    if before:
        if not form.first:
            return []
        turns.append({"role": form.first, "content": check_text(before)})
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    last = len(text)
    for mark, end in zip(marks, ends, strict=True):
        if mark.lastindex == 2 and mark.group(2) != "final":  # thinking of a harmony model
            return []
        said = mark.group(1).lower()
        piece = text[mark.end() : end]
        # White space before a mark belongs to the mark.
        content = check_text(_cut(piece if end == last else piece.rstrip(), form))
        content = content.strip() if form.marked else content
        if said == _MORE and turns and turns[-1]["role"] == "user":
            turns[-1]["content"] += f"\n\n{content}"
            continue
        role = _NAMES.get(said) or ROLES.get(said)
        if role is None:
            return []
        turns.append({"role": role, "content": content})
    if not form.sure and not _takes_turns(turns):
        return []
    if form.marked and not _is_dialogue(turns):
        return []
    # What stands behind the last thing said may be a task about it: "Sum up the talk above."
    doubtful = before or (not form.sure and "\n\n" in turns[-1]["content"].strip())
    if prompt and not form.sure and doubtful and not _is_open(turns):
        return []
    return _without_system(turns) if form.name == "inst" else turns


def _is_dialogue(turns: Sequence[Message]) -> bool:
    """Whether user and assistant speak by turns."""
    roles = [turn["role"] for turn in turns if turn["role"] in ("user", "assistant")]
    return all(a != b for a, b in pairwise(roles))


def _is_open(turns: Sequence[Message]) -> bool:
    """Whether a conversation ends where an answer is due."""
    return turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip()


def _without_system(turns: list[Message]) -> list[Message]:
    """Llama 2 writes the system prompt into the first user turn."""
    text = turns[0]["content"]
    system, end, said = text.removeprefix("<<SYS>>").partition("<</SYS>>")
    if not end or not text.startswith("<<SYS>>"):
        return turns
    system, said = system.strip(), said.lstrip()
    return [
        {"role": "system", "content": system},
        {"role": turns[0]["role"], "content": said},
        *turns[1:],
    ]


def _cut(text: str, form: Transcript) -> str:
    """A turn's text without the marks at its end, and without line breaks that belong to them."""
    stop = whole = _trimmed(text, len(text))
    changed = True
    while changed:
        changed = False
        for end in form.ends:
            if text.endswith(end, 0, stop):
                stop, changed = _trimmed(text, stop - len(end)), True
        # No mark is longer than that.
        if form.marked and (mark := _END.search(text, max(0, stop - 60), stop)):
            stop, changed = _trimmed(text, mark.start()), True
    if stop != whole:
        return text[:stop]
    return text if form.name == "hh" else text.rstrip("\n")


def _trimmed(text: str, stop: int) -> int:
    """Where a text ends that is cut at `stop`, without white space at its end."""
    while stop and text[stop - 1].isspace():
        stop -= 1
    return stop


def _takes_turns(turns: list[Message]) -> bool:
    """Whether a text with words for marks is a conversation: it begins with the user (a system
    prompt may come first), and the assistant has a turn.
    """
    roles = [turn["role"] for turn in turns]
    start = 1 if roles[0] == "system" and len(roles) > 1 else 0
    return roles[start] == "user" and "assistant" in roles


def infer_form(texts: Sequence[str], *, prompt: bool = False) -> Transcript | None:
    """The form in which most texts of a column are conversations; None if they are not.

    Args:
        prompt: as for `read_transcript`.
    """
    for form in FORMS:
        hits = sum(bool(read_transcript(text, form, prompt=prompt)) for text in texts)
        if hits and (form.sure or hits * 2 >= len(texts)):
            return form
    for name in _marks_in(texts):
        form = _form_of_marks(name)
        if sum(bool(read_transcript(text, form, prompt=prompt)) for text in texts) * 2 >= len(
            texts
        ):
            return form
    return None


_SIGNS = (
    "\n\nAssistant:",
    "<|im_start|>",
    "<|start_header_id|>",
    "<start_of_turn>",
    "<|assistant|>",
    "<extra_id_1>",
    "[/INST]",
    "START_OF_TURN_TOKEN",
    "<|start_of_role|>",
)


def may_be_transcript(text: str) -> bool:
    """Whether one text of a column of plain texts is a conversation in a known form; cheap."""
    if "<" not in text and "Assistant:" not in text and "[/INST]" not in text:
        return False
    return any(sign in text for sign in _SIGNS) and infer_form([text], prompt=True) is not None


def _marks_in(texts: Iterable[str]) -> list[str]:
    """How turns may begin in some texts, the commonest first: `"<{role}>:"`."""
    counts: Counter[str] = Counter()
    for text in texts:
        found: dict[str, None] = {}
        for mark in _MARK.finditer(text):
            role = "{ROLE}" if mark["role"].isupper() and len(mark["role"]) > 1 else "{role}"
            post = mark["post"].rstrip()
            if any(sign in post for sign in ":>]|\uff5c】"):
                found |= {f"{mark['pre']}{name}{post}": None for name in ("{role}", role)}
        counts.update(found.keys())
    return [name for name, _ in counts.most_common(6)]


def doubt_form(texts: Sequence[str]) -> str:
    """Why a column that is read as plain text may hold conversations; "" where it does not.

    Control tokens in half of the texts; labels that come again by turns at the beginnings of
    lines, in whatever language, in a tenth of them; or a transcript in a known form in as many.
    """
    tokens = [match.group() for text in texts if (match := _TOKEN.search(text))]
    if tokens and len(tokens) * 2 >= len(texts):
        return f"control tokens of a chat template, such as {tokens[0]!r}"
    spoken = sum(map(_takes_turns_by_label, texts))
    formed = max((sum(bool(read_transcript(t, f)) for t in texts) for f in FORMS), default=0)
    if max(spoken, formed) * 10 >= len(texts) and max(spoken, formed):
        return "conversations written out as one text"
    return ""


_LINES = 400
_LABEL = re.compile(
    # `User:`, `[12:01] User 1:`, `**Student**:`, `用户：`; or a line that is a heading: `## User`.
    r"(?:\[[\d: .]{1,12}\]|[\W\d]{1,8})?([^\W\d_][^\W\d]{0,19}(?: [^\W\d]{1,12})?)\W{0,2} ?\d{0,2}"
    r"(?:[:\uff1a](?!//)| -{1,2} |\W{0,4}\Z)"
)
_SEPARATORS = ("__eou__", "<sep>", "[SEP]", "<|sep|>", "\\n\\nAssistant:", "\\n\\nHuman:")


def _takes_turns_by_label(text: str) -> bool:
    """Whether two labels at the beginnings of lines take turns, and the first comes again; or a
    label of a user begins the text, and one that is open ends it.
    """
    if any(text.count(mark) > 1 for mark in _SEPARATORS):
        return True
    if text.lstrip().startswith('{"role"'):  # messages, one a line
        return True
    lines = [line.strip() for line in text[:100_000].split("\n", _LINES)[:_LINES]]
    found = []
    for number, line in enumerate(lines):
        match = _LABEL.match(line) if line else None
        if match is None:
            continue
        label = match.group(1).lower()
        bare = match.end() == len(line)
        heading = bare and line[-1] not in ":\uff1a"
        if heading and ROLES.get(label) is None:
            continue
        found.append((label, number, bare and number == len(lines) - 1))
    if len(found) < 2:
        return False
    one, other = found[0][0], next((label for label, _, _ in found if label != found[0][0]), "")
    turns = [label for label, _, _ in found if label in (one, other)]
    alternate = bool(other) and all(a != b for a, b in pairwise(turns))
    again = turns.count(one) > 1 and len(turns) * 2 > len(found)
    started = found[0][1] == 0 or ROLES.get(one) == "user"
    begins = ROLES.get(one) is not None and found[0][1] == 0
    asked = begins and found[-1][2] and any(ROLES.get(label) == "user" for label, _, _ in found)
    return (alternate and again and started) or (asked and found[-1][0] != one)


def strip_ends(text: str, form: Transcript) -> str:
    """A text that is one turn, without the marks that `form` ends a turn with."""
    stop = _trimmed(text, len(text))
    marked = form.marked and _END.search(text, max(0, stop - 60), stop)
    return _cut(text, form) if marked or text.endswith(form.ends, 0, stop) else text

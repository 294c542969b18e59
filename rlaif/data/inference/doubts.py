"""What nothing uses, and what of it may matter: the columns that stop a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rlaif.data.columns import Column, column_of, names_media, tokens_of
from rlaif.data.inference.evidence import (
    are_parallel,
    as_number,
    entry_keys,
    find_twins,
    is_numeric,
    label_rank,
)
from rlaif.data.inference.metadata import REMARKS, known_metadata, reads_as_prose
from rlaif.data.inference.names import (
    CHOICE_WORDS,
    CONTEXT_NAMES,
    FAULTS,
    HISTORY_NAMES,
    KEY_WORDS,
    MEDIA_WORDS,
    PARTIAL_WORDS,
    QUALITY_WORDS,
    SCORE_WORDS,
    SWAPPED,
    SYSTEM_NAMES,
    TALK_NAMES,
    TOOL_NAMES,
    VERDICT_WORDS,
    WORSE_WORDS,
)
from rlaif.data.inference.responses import names_entries
from rlaif.data.inference.state import Inference, asks
from rlaif.data.layout import code_of
from rlaif.data.row_cells import BAD_WORDS, GOOD_WORDS, ORIGIN_KEYS, YES_OR_NO, entry_text
from rlaif.data.verdict_codes import SIDE_WORDS, word_side


def account(state: Inference) -> tuple[list[str], dict[str, str]]:
    """Columns that nothing uses, and what those of them that may matter look like.

    Columns that are known to be about the row get their role.
    """
    unused: list[str] = []
    doubts: dict[str, str] = {}
    has_verdict = any(state.fields.get(name) for name in ("chosen", "label", "scores", "order"))
    compared = state.count() > 1 or state.is_list()
    wanted = compared and not has_verdict
    single = not compared or _one_each(state)
    alone = single and (state.count() == 1 or _ends_with_answer(state))
    scored = bool(state.fields.get("scores"))
    rated = bool(state.fields.get("good") or state.fields.get("bad"))
    for column in [*state.columns.values(), *_entry_columns(state)]:
        if column.path in state.roles or column.path in state.fields.get("ignore", ()):
            continue
        if not column.filled:
            state.roles[column.path] = "empty"
            continue
        looks = _looks_like_verdict(state, column) if wanted else ""
        if has_verdict and SWAPPED & set(column.tokens) and any(map(_is_set, column.values)):
            looks = "a verdict"
        if not looks and not (has_verdict or rated) and _rates_each(state, column):
            looks = "a rating of the response"
        if not looks and alone and not (scored and is_numeric(column)):
            looks = _looks_like_rating(column)
            # Beside a flag that is read, flags of kinds of faults say no more; a grade does.
            if rated and not SCORE_WORDS.keys() & set(column.tokens):
                looks = looks if _contradicts_flag(state, column) else ""
        listed = "[]" in column.path or column.shape in ("numbers", "flags")
        if not looks and wanted and listed and _holds_score(column):
            looks = "scores"
        looks = "media" if _looks_like_media(state, column) else looks
        looks = looks or _looks_by_place(state, column, has_verdict=has_verdict)
        if not looks:
            what = "metadata" if _is_said_with_vote(state, column) else known_metadata(column)
            if what:
                state.roles[column.path] = what
                continue
            looks = _looks_like(column, verdict_wanted=wanted)
            if looks == "context" and "[]" in column.path:
                looks = ""  # a remark on one response is no part of the question
        if looks == "a conversation" and single and not state.count() and _is_answered(column):
            looks = "a whole conversation"
        said = looks == "a conversation" and _only_answers(column)
        if looks in ("context", "a conversation") and (said or _ANSWERING & _last_words(column)):
            looks = "a rejected answer" if "rejected" in _last_words(column) else "an answer"
        if looks == "context" and not (state.count() or state.is_list() or alone):
            looks = "turns" if column.shape == "texts" else "responses, or context"
        if looks and _stands_in_read_rows(state, column):
            doubts[column.path] = _as_it_is_written(column, looks)
        unused.append(column.path)
    return unused, doubts


def _is_said_with_vote(state: Inference, column: Column) -> bool:
    """Whether a text is what somebody wrote with a vote: edits.anna beside votes.anna."""
    group, _, who = column.path.rpartition(".")
    return bool(group) and any(
        c.path.rpartition(".")[2] == who and c.path.rpartition(".")[0] in ("vote", "votes")
        for c in state.columns.values()
    )


def _looks_by_place(state: Inference, column: Column, *, has_verdict: bool) -> str:
    """What a column may be, by its name and by what stands beside it; "" for nothing."""
    if _looks_asked(column) or _is_offered(state, column):
        return "context"
    if _looks_like_system(state, column):
        return "context" if column.shape == "text" else "a system prompt"
    if _looks_like_thinking(state, column):
        return "thinking"
    if has_verdict and (marks := _marks_withdrawn(column)):
        return marks
    if state.fields.get("label") and not state.fields.get("chosen") and _tells_places(column):
        return _tells_places(column)
    if _stands_beside(state, column):
        return "a part of the responses"
    if _counts_turns(state, column):
        return "the turns of one conversation"
    return "the beginning of the answers" if _looks_partial(column) else ""


def find_number_inside(path: str, values: Sequence[object]) -> str:
    """The path of the first number in objects that a column's cells, or their entries, hold."""
    for value in values:
        if isinstance(value, list):
            if found := find_number_inside(path, value):
                return found
        elif isinstance(value, Mapping):
            for key, held in value.items():
                own = f"{path}.{key}"
                if isinstance(held, Mapping) and (found := find_number_inside(own, [held])):
                    return found
                if not isinstance(held, Mapping | list | bool) and as_number(held) is not None:
                    return own
    return ""


def _as_it_is_written(column: Column, looks: str) -> str:
    """The same, where it can't be read as it is."""
    cells = [i for v in column.values for i in (v if isinstance(v, list) else [v]) if i is not None]
    if looks == "scores" and find_number_inside(column.path, cells):
        return "objects with scores"
    if looks == "scores" and any(as_number(v) is None and not isinstance(v, bool) for v in cells):
        return "scores that are no numbers"
    words = {str(v).strip().lower() for v in cells}
    if looks == "a rating of the response" and not words <= GOOD_WORDS | BAD_WORDS:
        return "a graded rating of the response"
    return looks


def _only_answers(column: Column) -> bool:
    """Whether nobody asks in a column's conversations."""
    held = [v for v in column.values if v is not None]
    return column.shape == "chat" and bool(held) and not any(map(asks, held))


def _is_answered(column: Column) -> bool:
    """Whether a column's conversations end with their answers."""
    held = [v for v in column.values if v is not None]
    return (
        column.shape == "chat"
        and bool(held)
        and all(isinstance(v, list) and v and asks(v) and not asks(v[-1:]) for v in held)
    )


def _last_words(column: Column) -> set[str]:
    """The words of the last part of a column's path."""
    return set(tokens_of(column.path.replace("[]", "").rsplit(".", 1)[-1]))


_SIDES_AND_MORE = {word for words in SIDE_WORDS for word in words} | {
    "chosen",
    "custom",
    "model",
    "rejected",
}


def _looks_like_system(state: Inference, column: Column) -> bool:
    """Whether a column that nothing reads is a system prompt, of the row or of one response."""
    if column.name == "custom_system_prompt" and "[]" in column.path:
        return False  # UltraFeedback's: what steered the writer, and no part of the question
    last = tokens_of(column.path.replace("[]", "").rsplit(".", 1)[-1])
    bare = "_".join(word for word in last if word not in _SIDES_AND_MORE)
    named = bare in SYSTEM_NAMES | {"persona"}
    cells = [str(v) for v in column.cells if v]
    if bare == "system" and len(last) == 2 and not any(" " in v.strip() for v in cells):
        return False  # `system_a`, `system_b`: the names of what wrote the responses
    return column.shape in ("text", "entries", "chat") and named


_THOUGHTS = {"thinking", "thought", "thoughts", "cot", "think", "scratchpad"}


def _looks_like_thinking(state: Inference, column: Column) -> bool:
    """Whether a column holds what a model thought before one of the responses."""
    words = _last_words(column)
    words |= set(re.split(r"[^a-z]+", column.path.rsplit(".", 1)[-1].lower()))  # `CoT` is one
    if not words & (_THOUGHTS | {"reasoning"}):
        return False
    beside = "[]" in column.path or any(
        column.path in f.paths for f in state.families(state.columns.values())
    )
    named = words & _THOUGHTS or (beside and words & {"reasoning"} and not words & {"judge"})
    answered = state.count() > 0 or state.is_list()
    return answered and bool(named) and column.shape == "text" and not is_numeric(column)


_OFF = {"retracted", "excluded", "exclude", "discarded", "withdrawn", "cancelled", "canceled"}
_STATES = {"discarded", "draft", "pending", "cancelled", "canceled", "skipped", "rejected"}


def _marks_withdrawn(column: Column) -> str:
    """Whether a column says of some verdicts that they do not count."""
    words = set(column.tokens)
    held = {code_of(v) for v in column.values if v is not None}
    set_ = held & {"true", "1", "yes"}
    failed = "passed" in words and words & {"attention", "check", "quality"}
    off = (
        (words & _OFF and set_)
        or (failed and held & {"false", "0", "no"})
        or ({"status", "state"} & words and held & _STATES)
    )
    return "a mark of verdicts that do not count" if off else ""


_SHOWN = {"display", "displayed", "presentation", "presented", "shown", "position", "positions"}


def _tells_places(column: Column) -> str:
    """Whether a column says in which order responses were shown, and verdicts may go by that."""
    words = set(column.tokens)
    held = {code_of(v) for v in column.values if v is not None and not isinstance(v, list)}
    lists = any(isinstance(v, list) and len(v) > 1 for v in column.values)
    named = "order" in words and (words & _SHOWN or words == {"order"})
    sided = held and held <= {"ab", "ba", "a,b", "b,a", "12", "21", "01", "10"}
    return "the order in which responses were shown" if named and (sided or lists) else ""


def _stands_beside(state: Inference, column: Column) -> bool:
    """Whether a column belongs to one response, and is more than a word or a number about it."""
    if column.shape not in ("entries", "texts", "text", "mapping", "other"):
        return False
    if not set(column.tokens) & _DONE or REMARKS & set(column.tokens):
        return False
    acted = {"action", "actions", "steps", "trajectory"} & set(column.tokens)
    if acted and column.shape == "entries" and (state.count() == 1 or "[]" in column.path):
        return True
    others = [c for c in state.columns.values() if c.shape == column.shape]
    sides = ["chosen", "rejected"] if state.fields.get("chosen") else state.sides
    return any(
        f.sides == sides and column.path in f.paths and len(f.paths) == state.count()
        for f in state.families(others)
    ) or any(column.path in (one.path, two.path) for one, two in find_twins(others))


_DONE = {
    "action",
    "actions",
    "artifact",
    "artifacts",
    "code",
    "observation",
    "observations",
    "results",
    "step",
    "steps",
    "tool",
    "tools",
    "trajectory",
}
"""Words of what a model did, beside what it said."""


def _counts_turns(state: Inference, column: Column) -> bool:
    """Whether rows are turns of conversations, of which only the last question would be read."""
    if column.shape != "number" or column.name not in ("turn", "turn_id", "turn_index"):
        return False
    whole = [
        c
        for c in state.columns.values()
        if {"conversation", "dialogue", "dialog", "session", "thread", "chat"} & set(c.tokens)
        and {"id", "hash", "uuid"} & set(c.tokens)
    ]
    prompts = [state.columns[p] for p in state.fields.get("prompt", ()) if p in state.columns]
    alone = all(c.shape == "text" for c in prompts) and not state.fields.get("history")
    if not whole or not prompts or not alone or state.fields.get("turn"):
        return False
    seen: dict[str, set[str]] = {}
    for key, turn in zip(whole[0].values, column.values, strict=True):
        seen.setdefault(str(key), set()).add(str(turn))
    return any(len(turns) > 1 for turns in seen.values())


_ANSWERING = {
    "answer",
    "answers",
    "assistant",
    "chosen",
    "completion",
    "completions",
    "output",
    "outputs",
    "rejected",
    "response",
    "responses",
    "sampled",
    "attempt",
    "targets",
    "trajectory",
}
"""Words of columns whose texts answer, and are no part of what is asked."""


def _holds_score(column: Column) -> bool:
    """Whether something in the entries of a list is a score by its name or by a name in it."""
    names = set(column.tokens)
    for value in column.values:
        names |= {word for path in _keys_in(value) for word in tokens_of(path)}
    return bool(SCORE_WORDS.keys() & names)


def _keys_in(value: object, depth: int = 3) -> list[str]:
    if depth and isinstance(value, list):
        return [key for item in value for key in _keys_in(item, depth - 1)]
    if not depth or not isinstance(value, Mapping):
        return []
    return [k for key, held in value.items() for k in (str(key), *_keys_in(held, depth - 1))]


def _one_each(state: Inference) -> bool:
    """Whether the list of responses never holds more than one."""
    paths = state.fields.get("responses", ())
    column = state.columns.get(paths[0]) if len(paths) == 1 else None
    lists = [v for v in column.values if isinstance(v, list)] if column is not None else []
    return bool(lists) and all(len(v) < 2 for v in lists)


def _ends_with_answer(state: Inference) -> bool:
    """Whether the prompt's own column is a conversation that ends with its answer."""
    paths = state.fields.get("prompt", ())
    column = state.columns.get(paths[0]) if len(paths) == 1 else None
    if column is None or state.count():
        return False
    if column.path in state.fields.get("transcripts", {}):
        return True
    return column.shape == "chat" and any(
        isinstance(v, list) and v and not asks(v[-1:]) for v in column.values
    )


def _entry_columns(state: Inference) -> list[Column]:
    """What stands beside the texts in the entries of a list of responses, as columns.

    Those that are read (who wrote it, its score) are left out.
    """
    paths = state.fields.get("responses", ())
    own = state.columns.get(paths[0]) if len(paths) == 1 else None
    if own is None or own.shape != "entries":
        return []
    read = {*ORIGIN_KEYS, "origin", "role"}
    told = [*state.fields.get("scores", ()), *state.fields.get("label", ())]
    told += state.fields.get("media", ())
    found = []
    for key in entry_keys(own):
        path = f"{own.path}[].{key}"
        if key in read or path in told or path in state.claimed:
            continue
        cells = [
            next((e[key] for e in value if isinstance(e, Mapping) and e.get(key) is not None), None)
            for value in (v if isinstance(v, list) else [] for v in own.values)
        ]
        texts = [e for v in own.values if isinstance(v, list) for e in v if isinstance(e, Mapping)]
        if any(e.get(key) is not None and entry_text(e) is e[key] for e in texts):
            continue
        found.append(column_of(path, cells))
    return found


def _looks_like_media(state: Inference, column: Column) -> bool:
    """Whether a column names a picture or the like, though none is read from another one."""
    if "[]" not in column.path and state.fields.get("media"):
        return False
    held = [v for v in column.values if v is not None]
    named = MEDIA_WORDS & set(column.tokens) and column.shape not in ("flag", "flags", "empty")
    return bool(named) or sum(map(names_media, held)) * 2 > len(held)


def _is_set(value: object) -> bool:
    return value is not None and code_of(value) in ("true", "1", "yes")


_ASKED = {
    "code",
    "constraint",
    "constraints",
    "entity",
    "hypothesis",
    "input",
    "instruction",
    "instructions",
    "premise",
    "prompt",
    "query",
    "question",
    "request",
    "sentence",
    "starter",
    "suffix",
    "table",
    "task",
    "word",
}
_ABOUT = {
    "annotator",
    "category",
    "cluster",
    "hash",
    "id",
    "ids",
    "kind",
    "label",
    "labeler",
    "labelling",
    "language",
    "length",
    "model",
    "name",
    "source",
    "tokens",
    "topic",
    "type",
    "url",
    "wc",
}


def _is_offered(state: Inference, column: Column) -> bool:
    """Whether a column is one of the choices `A`, `B`, ... or says what to do with a text."""
    words = set(column.tokens)
    if column.shape == "text" and {"target", "language"} <= words:
        return True
    if words & {"table", "triples"} and column.shape not in ("flag", "number"):
        return True
    letters = [c for c in state.columns if len(c) == 1 and c.isupper()]
    return column.path in letters and {"A", "B"} <= set(letters)


def _looks_asked(column: Column) -> bool:
    """Whether a short text of its own in most rows bears a name of what is asked."""
    words = set(column.tokens)
    texts = [v for v in column.cells if isinstance(v, str)]
    return (
        column.shape == "text"
        and bool(words & _ASKED)
        and not words & (_ABOUT | REMARKS)
        and len(texts) > 1
        and len(set(texts)) * 2 > len(texts)
    )


def _looks_partial(column: Column) -> bool:
    words = set(column.tokens)
    return column.shape == "text" and bool(PARTIAL_WORDS & words) and not {"id", "index"} & words


_SIZES = {
    "length",
    "len",
    "tokens",
    "token",
    "words",
    "chars",
    "time",
    "cost",
    "latency",
    "id",
    "seed",
}


def _looks_like_verdict(state: Inference, column: Column) -> str:
    """What a column about the sides of a comparison may be, though its name is common."""
    words = set(column.tokens)
    columns = state.fields.get("responses", ())
    if column.shape in ("flag", "number") and len(columns) > 1:
        others = [c for c in state.free({"flag", "number"}) if c.path not in state.roles]
        if not words & _SIZES and any(
            f.sides == state.sides and column.path in f.paths for f in state.families(others)
        ):
            return "scores"
    if column.shape not in ("text", "number"):
        return ""
    keyed = words & {"answer", "correct", "expected", "gold", "key", "right"}
    apart = column.shape == "text" and "[]" not in column.path
    if keyed and apart and state.is_list() and names_entries(state.columns[columns[0]], column):
        return "a verdict"
    held = {code_of(v) for v in column.values if v is not None}
    if SCORE_WORDS.keys() & words and all(_GRADE.fullmatch(code) for code in held):
        return "scores"
    named = words & (KEY_WORDS | VERDICT_WORDS | WORSE_WORDS)
    if not named and (column.shape != "text" or len(held) < 2 or words & _ABOUT):
        return ""
    known = [state.columns[p] for p in columns if p in state.columns]
    lists = [v for column in known for v in column.values if isinstance(v, list)]
    most = max(map(len, lists), default=len(columns))
    sided = all(word_side(code, state.sides, columns) for code in held)
    counted = bool(named) and all(code.isdigit() and int(code) <= most for code in held)
    return "a verdict" if sided or counted else ""


_GRADE = re.compile(r"-?\d+(?:[.,]\d+)?\s*(?:/\s*\d+|%|st|nd|rd|th)?")
"""A score, a mark out of some, a share, or a rank, as texts have them."""


def _rates_each(state: Inference, column: Column) -> bool:
    """Whether a column says of each response of a list how good it is, and is not read."""
    if not state.is_list() or label_rank(column.tokens, column.name) is not None:
        return False
    own = state.columns[state.fields["responses"][0]]
    inside = column.path.startswith(f"{own.path}[].")
    if not inside and not (column.shape in ("texts", "flags") and are_parallel(column, own)):
        return False
    words = set(column.tokens) - set(tokens_of(own.path))
    return bool(words & QUALITY_WORDS) and not words & (_COUNTS | REMARKS)


def _looks_like_rating(column: Column) -> str:
    """What a column may be that says how good the one response of a row is.

    By a word of its name, or by words in its cells.
    """
    words = set(column.tokens)
    if words & {"prompt", "query", "question"} and not words & _ANSWERING:
        return ""
    if column.shape == "entries" and words & _JUDGMENTS and not words & {"instructions", "rules"}:
        return "a rating of the response"
    if words & {"score", "scores"} and {code_of(v) for v in column.cells if v} <= _INSPECT:
        return "a rating of the response" if column.filled else ""
    if column.shape in ("numbers", "flags", "entries", "texts", "mapping"):
        told = words & (SCORE_WORDS.keys() | QUALITY_WORDS) and not words & _COUNTS
        items = {code_of(i) for v in column.values if isinstance(v, list) for i in v}
        bad = column.shape in ("texts", "flags") and items & (_THROWN | {"fail", "false"})
        return "a rating of the response" if told or bad else ""
    if column.shape not in ("text", "number", "flag"):
        return ""
    # Llama Guard writes `unsafe`, and which of its rules says so on the next line.
    held = {code_of(v).split("\n")[0].strip() for v in column.values if v is not None}
    if held <= _COMPLETE:
        return ""
    if len(held) > 1 and held <= {"0", "1", "-1", "true", "false"} and not words & _COUNTS:
        return "a rating of the response"
    few = column.shape != "text" or (len(held) <= 12 and all(len(v.split()) <= 3 for v in held))
    if column.shape == "text" and few and held & _THROWN:
        return "a rating of the response"
    graded = {_REMARK_NUMBER.sub("", code) for code in held} == {""}
    valued = bool(held) and held <= _SAID_OF_ANSWERS and not held <= {"true", "false", "yes", "no"}
    if column.shape == "text" and (valued or (graded and words & SCORE_WORDS.keys())):
        return "a rating of the response"
    counted = words & QUALITY_WORDS and not {as_number(v) for v in held} <= {-1.0, 0.0, 1.0}
    if column.shape == "number" and (words & SCORE_WORDS.keys() or counted):
        return "a score of the response"
    if not words & QUALITY_WORDS or not few or words & {"id", "ids", "type", "model", "time"}:
        return ""
    if words & {"status", "result", "feedback", "decision"} and not held & _SAID_OF_ANSWERS:
        return ""
    return "a rating of the response"


_JUDGING = "annotation assessment check eval evaluation feedback grade judgment rating "
_JUDGING += "review score verdict"
_JUDGMENTS = {"judgement"} | {word + end for word in _JUDGING.split() for end in ("", "s")}
"""Words of lists of objects in which somebody says what an answer is worth."""
_INSPECT = {"c", "i", "p", "n"}
"""How inspect writes that an answer is correct, incorrect, partly so, or none."""


def _contradicts_flag(state: Inference, column: Column) -> bool:
    """Whether a column calls an answer bad that the flag which is read calls good."""
    faults = FAULTS & set(column.tokens)
    for k, value in enumerate(column.values):
        if value is None or not _passes_flags(state, k):
            continue
        code = "" if isinstance(value, list | Mapping) else code_of(value).split("\n")[0].strip()
        if isinstance(value, list):
            if value and (column.shape == "entries" or faults or "issues" in column.tokens):
                return True
        elif (
            (faults and code in ("true", "1", "yes"))
            or code in _THROWN
            or (code in BAD_WORDS and (code not in YES_OR_NO or not faults))
        ):
            return True
    return False


def _passes_flags(state: Inference, k: int) -> bool:
    """Whether the flags that are read call the answer of a row good."""
    flags = [(path, GOOD_WORDS) for path in state.fields.get("good", ())]
    flags += [(path, BAD_WORDS) for path in state.fields.get("bad", ())]
    return all(
        state.columns[path].values[k] is None or code_of(state.columns[path].values[k]) in words
        for path, words in flags
        if path in state.columns
    )


_THROWN = {
    "cr",
    "deleted",
    "discard",
    "discarded",
    "dispreferred",
    "drop",
    "dropped",
    "excluded",
    "failed",
    "reject",
    "rejected",
    "removed",
    "unsolved",
}
"""What tables write of an answer that somebody threw away."""
_COMPLETE = {"stop", "end_turn", "tool_calls", "eos"}
"""How an answer ends that is whole."""
_COUNTS = {"index", "idx", "turn", "turns", "id", "fold"}
_REMARK_NUMBER = re.compile(r"\d+(?:[.,]\d+)?\s*(?:/\s*\d+|%)?")
_SAID_OF_ANSWERS = {word for word in GOOD_WORDS | BAD_WORDS if not word[-1:].isdigit()} | {
    "harmful",
    "harmless",
    "toxic",
    "violence",
    "failure",
    "success",
    "high",
    "low",
    "poor",
    "fair",
    "excellent",
    "length",
    "content_filter",
    "stop",
    "end_turn",
    "max_tokens",
    "tool_calls",
}
"""Words that say of an answer how good it is."""


def _stands_in_read_rows(state: Inference, column: Column) -> bool:
    """Whether a row that can be read holds something in a column; the others are rejected."""
    main = [
        *state.fields.get("prompt", ()),
        *filter(None, [state.fields.get("chosen"), state.fields.get("rejected")]),
        *state.fields.get("responses", ()),
    ]
    needed = [state.columns[path] for path in main if path in state.columns]
    return any(
        column.values[k] is not None
        and any(c.values[k] is not None for c in needed or [column])
        and all(
            c.values[k] is not None
            for c in needed
            if c.path in (state.fields.get("chosen"), *state.fields.get("responses", ()))
        )
        for k in range(len(state.rows))
    )


_TOOL_WORDS = {"tool", "tools", "api", "apis", "function", "functions", "toolset"}


def _looks_like(column: Column, *, verdict_wanted: bool) -> str:
    """What an unused column may be that matters; "" for nothing."""
    tokens = set(column.tokens)
    if column.shape == "media" or MEDIA_WORDS & tokens:
        return "media"
    plain = column.shape in ("flag", "number", "flags", "numbers")
    if not plain and {"call", "calls"} & tokens and not {"id", "ids"} & tokens:
        return "tool calls"
    if not plain and (
        column.name in TOOL_NAMES
        or (
            _TOOL_WORDS & tokens
            and (column.shape in ("entries", "texts", "chat") or column.encoded)
        )
    ):
        return "tools"
    if column.shape == "chat" or column.name in HISTORY_NAMES | TALK_NAMES:
        return "context" if column.shape == "text" else "a conversation"
    if verdict_wanted and SCORE_WORDS.keys() & tokens and column.shape in ("number", "numbers"):
        return "scores"
    named = label_rank(column.tokens, column.name) is not None or VERDICT_WORDS & tokens
    if verdict_wanted and named:
        return "a verdict"
    listed = column.shape in ("texts", "entries", "other")
    if listed and tokens & (CONTEXT_NAMES | {"rules", "table", "triples"}):
        return "context"
    offered = tokens & CHOICE_WORDS and not tokens & _ABOUT and not plain
    if offered and column.shape != "entries":
        return "context"
    if "knowledge" in tokens:
        return "context"
    return "context" if reads_as_prose(column) else ""

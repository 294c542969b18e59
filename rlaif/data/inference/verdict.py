"""Which columns say which response is better, and what their values mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rlaif.data.columns import LIST_WORDS, Column, column_of, tokens_of
from rlaif.data.flags import write_flag, write_ignore, write_map
from rlaif.data.inference.evidence import (
    _nested,
    are_parallel,
    as_number,
    entries_of,
    entry_keys,
    label_rank,
)
from rlaif.data.inference.metadata import known_metadata
from rlaif.data.inference.named import find_names
from rlaif.data.inference.names import (
    ANNOTATOR_WORDS,
    ANSWER_WORDS,
    BAD_NAMES,
    FAULTS,
    GOOD_NAMES,
    LABEL_NAMES,
    NEGATIVE_WORDS,
    QUALITY_WORDS,
    VERDICT_WORDS,
    WORSE_WORDS,
    is_machine_made,
)
from rlaif.data.inference.orders import RANK_WORDS, lists_all_sides, read_places
from rlaif.data.inference.rest import origin_paths
from rlaif.data.inference.state import Inference
from rlaif.data.layout import code_of
from rlaif.data.row_cells import BAD_WORDS, GOOD_WORDS, ORIGIN_KEYS, YES_OR_NO, values_at, votes_at
from rlaif.data.row_model import WinnerIndex
from rlaif.data.row_verdicts import take_majority
from rlaif.data.verdict_codes import LETTERS, SIDE_WORDS, Doubtful, look_up, read_codes, word_side


def find_label(state: Inference) -> None:
    """Find the columns that say which response is better, and what their values mean."""
    if state.fields.get("thread_by"):
        return
    if state.fields.get("chosen"):
        if "label" in state.given:
            state.sides = ["chosen", "rejected"]
            _decide(state, state.fields["label"])
        else:
            _find_stated_tie(state)
        return
    if state.count() <= 1 and not state.is_list():
        _find_good(state)
        return
    if state.is_list():
        _find_good_of_list(state)
    if "label" in state.given:
        _decide(state, state.fields["label"])
        return
    candidates = _label_columns(state)
    doubts: list[tuple[tuple[str, ...], Doubtful]] = []
    for paths in candidates:
        try:
            if _try_label(state, paths):
                _add_tie_flag(state)
                _compare_verdicts(state, state.fields["label"], candidates)
                _compare_order(state)
                for others in candidates:
                    for path in others:
                        state.claim(path, "another verdict")
                return
        except Doubtful as doubt:
            doubts.append((paths, doubt))
    if doubts and not (state.fields.get("scores") or state.fields.get("order")):
        paths, why = doubts[0]
        state.questions.append(_ask(state, paths[0], why))
        for path in paths:
            state.claim(path, "verdict (its values are not clear)")


def _add_tie_flag(state: Inference) -> None:
    """A flag that calls pairs ties whose own verdict is empty."""
    taken, values = tuple(state.fields["label"]), dict(state.fields.get("values", {}))
    if len(taken) != 1 or taken[0] not in state.columns or {"true", "1", "yes"} & values.keys():
        return
    verdicts = state.columns[taken[0]].values
    for column in state.free({"flag", "number", "text"}):
        codes = {code_of(v) for v in column.values if v is not None}
        if not {"equal", "tie", "tied"} & set(column.tokens) or not codes <= _TIE_FLAGS.keys():
            continue
        set_ = [_TIE_FLAGS.get(code_of(v)) == "tie" for v in column.values]
        if any(flag and (v is None or v == "") for flag, v in zip(set_, verdicts, strict=True)):
            state.set("label", (*taken, column.path), "verdict")
            state.fields["values"] = {**_TIE_FLAGS, **values}
        return


_TIE_FLAGS = {
    "true": "tie",
    "1": "tie",
    "yes": "tie",
    "false": "none",
    "0": "none",
    "no": "none",
}
"""What a flag for ties says; "none" leaves the verdict to the other column."""


def _compare_verdicts(
    state: Inference, taken: tuple[str, ...], candidates: Sequence[tuple[str, ...]]
) -> None:
    """Ask where another column, as good by its name or with nothing but sides in its cells, says
    that another response is better.
    """
    values = dict(state.fields.get("values", {}))
    columns = state.fields.get("responses", ())
    if not values or any(path not in state.columns for path in taken):
        return
    found = [
        take_majority([_place(look_up(values, state.columns[p].values[k])) for p in taken])
        for k in range(len(state.rows))
    ]
    named = {path for paths in candidates for path in paths}
    for column in state.free({"text", "number"}):
        if is_machine_made(column.path) and not is_machine_made(taken[0]):
            continue
        if column.path in taken or known_metadata(column) or VERDICT_WORDS & set(column.tokens):
            continue
        if column.path in named:
            if _qualifiers(column.path) and not _qualifiers(taken[0]):
                continue  # the verdict of somebody, or in some respect, beside the one of all
        elif column.shape != "text":
            continue
        held = [v for v in column.values if v is not None]
        try:
            codes = read_codes(held, name=column.name, sides=state.sides, columns=columns)
        except Doubtful:
            continue
        if codes is None or not codes.values:
            continue
        for one, value in zip(found, column.values, strict=True):
            other = _place(look_up(codes.values, value)) if value is not None else None
            if one is not None and other is not None and one != other:
                state.questions.append(
                    f"columns {taken[0]!r} and {column.path!r} both say which response is better, "
                    f"and differ; name one with {write_map('label', taken[0])}"
                )
                return


def _compare_order(state: Inference) -> None:
    """Ask where an order of the responses begins with another one than the verdict says."""
    path = state.fields.get("order")
    values = state.fields.get("values", {})
    label = state.fields["label"]
    if not path or len(label) != 1 or not values:
        return
    for k, row in enumerate(state.rows):
        said = [_place(look_up(values, v)) for v in votes_at(row, label[0]) if v is not None]
        places = read_places(state, state.columns[path], k)
        if said and places and said[0] is not None and places.index(1) != said[0]:
            state.questions.append(
                f"columns {label[0]!r} and {path!r} both say which response is better, and "
                f"differ; name one with {write_map('label', label[0])}, or with "
                f"{write_map('order', path)}"
            )
            return


def _place(side: str | None) -> WinnerIndex:
    """The place of a response, by its letter."""
    if side == "tie":
        return "tie"
    return LETTERS.index(side) if side and side in LETTERS else None


def _qualifiers(path: str) -> set[str]:
    """Words of a verdict's name that say whose it is, or in what respect."""
    sides = {word for words in SIDE_WORDS for word in words}
    plain = {*LABEL_NAMES, *ANSWER_WORDS, *sides, "final", "gold", "human", "id", "majority"}
    words = set(tokens_of(path.replace("[]", "").rsplit(".", 1)[-1]))
    return words - plain - {"model", "models", "orig", "overall", "scalar", "strength"}


def _find_stated_tie(state: Inference) -> None:
    """Columns beside a better and a worse response that call some pairs ties."""
    pair = state.columns.get(state.fields["chosen"])
    for column in state.free({"text", "flag", "number"}):
        beside = [
            v
            for k, v in enumerate(column.values)
            if v is not None and (pair is None or pair.values[k] is not None)
        ]
        codes = {code_of(v) for v in beside}
        if not codes:
            continue
        if "tie" in column.tokens and codes <= {"true", "false", "0", "1", "yes", "no"}:
            state.set("label", (column.path,), "verdict")
            state.fields["values"] = {"true": "tie", "1": "tie", "yes": "tie"}
            return
        last = tokens_of(column.path.rsplit(".", 1)[-1])
        words = tuple(t for t in last if t not in WORSE_WORDS)
        named = column.name == "status" or label_rank(words, "_".join(words)) is not None
        numbers = [as_number(v) for v in beside]
        turns = bool(_GAPS & set(column.tokens)) and any(n is not None and n < 0 for n in numbers)
        sided = codes <= {"chosen", "rejected", "a", "b"} and codes & {"rejected", "b"}
        flags = codes in ({"0", "1"}, {"true", "false"}, {"-1", "1"}, {"yes", "no"})
        if (named and (flags or sided)) or turns:
            state.questions.append(
                f"column {column.path!r} differs from row to row beside a better and a worse "
                f"response, and may turn some of them around; leave it out with "
                f"{write_ignore(column.path)}, or name the responses with "
                f"{write_map('responses', state.fields['chosen'] + '+' + state.fields['rejected'])}"
            )
            state.claim(column.path, "verdict (its values are not clear)")
            return
        ties = {code for code in codes if word_side(code, ()) == "tie"}
        if named and ties:
            state.set("label", (column.path,), "verdict")
            state.fields["values"] = dict.fromkeys(ties, "tie")
            return


_DROPPED = {"attack", "deleted", "discard", "exclude", "filtered", "jailbroken", "spam", "trash"}
"""Words of flags that mark what somebody threw away."""
_GAPS = {"margin", "delta", "gap", "diff", "difference", "strength"}
"""Words of numbers that say by how much the better one is better."""


def _find_good(state: Inference) -> None:
    """Flags that say whether the one response of a row is good."""
    told = (FAULTS | WORSE_WORDS | NEGATIVE_WORDS | _DROPPED) & {
        word for path in state.fields.get("good", ()) for word in tokens_of(path)
    }
    held = [
        v for path in state.fields.get("good", ()) for r in state.rows for v in values_at(r, path)
    ]
    if _speak_for_themselves({str(v).strip().lower() for v in held if v is not None}):
        told = set()
    if "good" in state.given and told:
        path = state.fields["good"][0]
        state.questions.append(
            f"column {path!r} may mark bad responses ({min(told)!r}); name it with "
            f"{write_map('bad', path)}, or write one that marks good ones"
        )
        return
    flags = [
        c
        for c in state.free({"flag", "number", "text"})
        if (c.name in GOOD_NAMES and not _counts(c)) or (_is_mark(c) and not _asks_of_faults(c))
    ]
    if flags:
        state.set("good", tuple(c.path for c in flags), "good")
    bad = [
        c
        for c in state.free({"flag", "number", "text"})
        if _asks_of_faults(c) or _is_mark(c, of_faults=True)
    ]
    if bad:
        state.set("bad", tuple(c.path for c in bad), "bad")


def _counts(column: Column) -> bool:
    """Whether a column's numbers are more than a flag's: how many tests passed."""
    numbers = {as_number(v) for v in column.values if v is not None}
    return column.shape == "number" and not numbers <= {-1.0, 0.0, 1.0}


def _asks_of_faults(column: Column) -> bool:
    """Whether a column is named as a fault, and its cells say yes or no to that."""
    words = {str(v).strip().lower() for v in column.values if v is not None}
    return column.name in BAD_NAMES and not _counts(column) and not _speak_for_themselves(words)


def _find_good_of_list(state: Inference) -> None:
    """A flag for each response of a list: parallel to it, or in its entries."""
    own = state.columns.get(state.fields["responses"][0])
    if own is None or "good" in state.given or "bad" in state.given:
        return
    found = {}
    for column in state.free({"flags", "texts"}):
        if are_parallel(column, own) and not LIST_WORDS & set(column.tokens[-1:]):
            found[column.path] = [i for v in column.values if isinstance(v, list) for i in v]
    for key in entry_keys(own) if own.shape == "entries" else ():
        found[f"{own.path}[].{key}"] = [e.get(key) for e in entries_of(own)]
    for path, items in found.items():
        last = column_of(path.replace("[]", ""), [v for v in items if v is not None])
        last = replace(last, path=path.rsplit(".", 1)[-1].replace("[]", ""))
        words = {str(v).strip().lower() for v in last.values}
        asks = bool(FAULTS & set(last.tokens)) and not _speak_for_themselves(words)
        if asks or not words <= GOOD_WORDS | BAD_WORDS:
            continue
        if last.name in GOOD_NAMES or _is_mark(last) or _is_flagged(last):
            state.set("good", (path,), "good")
            return


def _speak_for_themselves(words: set[str]) -> bool:
    """Whether words say good or bad whatever is asked, as `unharmful` does and `yes` does not."""
    return bool(words) and words <= (GOOD_WORDS | BAD_WORDS) - YES_OR_NO


_OF_PROMPTS = {"balanced", "control", "input", "instruction", "prompt", "query", "question"}
"""Words of flags that say nothing of the response."""


def _is_flagged(column: Column) -> bool:
    """Whether a column of flags has a word of quality in its name."""
    return column.shape == "flag" and bool(QUALITY_WORDS & set(column.tokens))


def _is_mark(column: Column, *, of_faults: bool = False) -> bool:
    """Whether a column with a word of quality in its name holds words for good and bad alone.

    Args:
        of_faults: whether the name must be of a fault (`is_wrong`), or must not.
    """
    words = {str(v).strip().lower() for v in column.values if v is not None}
    # A word such as `unharmful` says what it means, whatever the column asks.
    asks_of_faults = bool(FAULTS & set(column.tokens)) and not _speak_for_themselves(words)
    if asks_of_faults != of_faults or _OF_PROMPTS & set(column.tokens):
        return False
    return (
        column.shape in ("flag", "text")
        and bool(QUALITY_WORDS & set(column.tokens))
        and not NEGATIVE_WORDS & set(column.tokens)
        and words <= GOOD_WORDS | BAD_WORDS
        and not all(as_number(word) is not None for word in words)
    )


def _label_columns(state: Inference) -> list[tuple[str, ...]]:
    """Columns that may hold verdicts, the likeliest first; several of one kind are votes."""
    ranked: dict[tuple[int, str], list[str]] = {}
    annotators = _annotators(state)
    for paths in annotators:
        ranked[-1, paths[0]] = list(paths)
    several = {path for paths in annotators for path in paths}
    sided = {
        path
        for family in state.families(state.free({"number"}))
        if family.sides == state.sides and len(family.paths) == state.count() > 1
        for path in family.paths
    }
    own = state.fields.get("responses", ())
    listed = state.columns.get(own[0]) if len(own) == 1 else None
    for column in state.free({"text", "number", "flag", "texts", "numbers"}):
        rank = label_rank(column.tokens, column.name)
        if column.path in sided:
            continue  # what each response has of it: votes, wins
        if column.path in several or (listed is not None and are_parallel(column, listed)):
            continue  # one of several votes; or a name for each response, and no verdict
        if rank is not None:
            ranked.setdefault((rank, column.path), []).append(column.path)
    for column in state.free({"entries"}):
        nested = _nested(column)
        for path in nested:
            if f"{path.rsplit('.', 1)[0]}.rank" in nested:
                continue  # a whole ranking, and no vote for one response
            tokens = tokens_of(path)
            last = tokens_of(path.rsplit(".", 1)[-1])
            rank = label_rank(last, "_".join(last))
            if rank is None and (
                set(last) & {"value", "selected"}
                or ({"choices", "taxonomy"} & set(last) and "value" in tokens)
            ):
                rank = label_rank(tokens, "_".join(tokens))
                rank = 5 if rank is None and "annotations" in tokens else rank
            if rank is not None:
                ranked.setdefault((rank, path.rsplit(".", 1)[-1]), []).append(path)
    by_rank = sorted(ranked.items(), key=lambda item: (bool(_qualifiers(item[1][0])), item[0]))
    found = [tuple(paths) for _, paths in by_rank]
    # What people said comes before what a model said of the same pair.
    people = [tuple(p for p in paths if not is_machine_made(p)) for paths in found]
    models = [tuple(p for p in paths if is_machine_made(p)) for paths in found]
    return [*filter(None, people), *filter(None, models)]


def _annotators(state: Inference) -> list[tuple[str, ...]]:
    """Columns with one annotator's verdict each, such as `annotator_1` and `annotator_2`."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for column in state.free({"text", "number"}):
        words = [t for t in column.tokens if not t.isdigit()]
        numbers = [t for t in column.tokens if t.isdigit()]
        if len(numbers) == 1 and ANNOTATOR_WORDS & set(words) and not _REMARKS & set(words):
            groups.setdefault(tuple(words), []).append(column.path)
    return [tuple(paths) for paths in groups.values() if len(paths) > 1]


_REMARKS = {"id", "comment", "comments", "reason", "time", "confidence", "explanation", "name"}


def _try_label(state: Inference, paths: tuple[str, ...], *, named: bool = False) -> bool:
    """Take a column for the verdict if all its values are verdicts.

    Args:
        named: whether the user named the column.

    Raises:
        Doubtful: they can be read in more than one way.
    """
    values = [v for row in state.rows for path in paths for v in votes_at(row, path)]
    values = [v for v in values if v is not None and v != ""]
    if not values:
        return False
    _check_order(state, paths, named=named)
    if "values" in state.given:
        known = state.fields["values"]
        if any(look_up(known, v) is None for v in values):
            return False
        state.set("label", paths, "verdict")
        return True
    _check_states(state, paths)
    if names := find_names(state, paths):
        state.set("label", paths, "verdict")
        state.set("names", (names,), "name")
        return True
    responses = state.fields.get("responses", ())
    name = "_".join(tokens_of(paths[0].replace("[]", "").rsplit(".", 1)[-1]))
    if state.fields.get("chosen"):
        responses = (state.fields["chosen"], state.fields["rejected"])
    codes = read_codes(
        values, name=name, sides=state.sides, columns=responses, count=_most_responses(state)
    )
    if codes is None:
        if not _names_winner(state, paths, values) and not _repeats_winner(state, paths):
            return False
        state.set("label", paths, "verdict")
        return True
    state.set("label", paths, "verdict")
    state.fields["values"] = codes.values
    return True


def _most_responses(state: Inference) -> int:
    """How many responses a row has at most."""
    paths = state.fields.get("responses", ())
    own = state.columns.get(paths[0]) if len(paths) == 1 else None
    lists = [v for v in own.values if isinstance(v, list)] if own is not None else []
    return max([state.count(), *map(len, lists)])


def _check_order(state: Inference, paths: tuple[str, ...], *, named: bool = False) -> None:
    """Refuse lists that name all responses, unless the user said that they are votes.

    Args:
        named: whether the user named the column as the verdict.

    Raises:
        Doubtful: they can be an order.
    """
    if any(_nested_orders(state, path) for path in paths):
        raise Doubtful(
            "each of its lists names several responses",
            fix="write the best one of each annotator into a column or a list of its own",
        )
    column = state.columns.get(paths[0]) if len(paths) == 1 else None
    if column is None or not lists_all_sides(state, column):
        return
    ranked = bool(RANK_WORDS & set(column.tokens))
    if named and not ranked:
        return
    fix = f"use {write_map('order', paths[0])} if the best one stands first"
    if not ranked:
        fix += f", {write_map('label', paths[0])} if they are votes"
    counted = column.shape == "numbers"
    fix += f", or {write_map('scores', paths[0])} if they are {'counts' if counted else 'ranks'}"
    raise Doubtful("each of its cells names all responses", fix=fix)


def _nested_orders(state: Inference, path: str) -> bool:
    """Whether the entries of a list hold lists with more than one verdict each."""
    parent, mark, key = path.removesuffix("[]").rpartition("[].")
    return bool(mark) and any(
        isinstance(entry, Mapping) and isinstance(entry.get(key), list) and len(entry[key]) > 1
        for row in state.rows
        for entry in values_at(row, f"{parent}[]")
    )


def _check_states(state: Inference, paths: tuple[str, ...]) -> None:
    """Refuse votes of which some were not given, and nothing says which.

    Raises:
        Doubtful: there are some.
    """
    for path in paths:
        beside = f"{path}.status"
        if beside not in state.columns:
            continue  # in the entries of a list, each has its own: see `values_at`
        states = {s for v in state.columns[beside].values if isinstance(v, list) for s in v}
        if not states <= {"submitted", "valid", None}:
            raise Doubtful(f"some of its votes are {', '.join(sorted(states - {'submitted'}))}")


def _names_winner(state: Inference, paths: tuple[str, ...], values: list[object]) -> bool:
    """Whether the values are the names of the winners' models, row by row, or ties."""
    writers = origin_paths(state)
    if len(paths) != 1:
        return False
    if len(writers) != 2:
        return _names_writer(state, paths[0])
    named = 0
    for row in range(len(state.rows)):
        value = state.columns[paths[0]].values[row] if paths[0] in state.columns else None
        if value is None:
            continue
        models = [state.columns[p].values[row] for p in writers]
        if value in models:
            named += 1
        elif word_side(str(value), ()) != "tie":
            return False
    return named > 0


def _names_writer(state: Inference, path: str) -> bool:
    """Whether the values are the models that entries of the one list of responses name."""
    own = state.fields.get("responses", ())
    column = state.columns.get(own[0]) if len(own) == 1 else None
    if column is None or column.shape != "entries" or path not in state.columns:
        return False
    named = 0
    for value, entries in zip(state.columns[path].values, column.values, strict=True):
        if value is None or not isinstance(entries, list):
            continue
        models = [e.get(key) for e in entries if isinstance(e, Mapping) for key in ORIGIN_KEYS]
        if models.count(value) == 1:
            named += 1
        elif word_side(str(value), ()) != "tie":
            return False
    return named > 0


def _repeats_winner(state: Inference, paths: tuple[str, ...]) -> bool:
    """Whether the values are the texts of the winners, row by row."""
    responses = state.fields.get("responses", ())
    column = state.columns.get(paths[0])
    if column is None or len(responses) < 2 or any(p not in state.columns for p in responses):
        return False
    rows = [(k, v) for k, v in enumerate(column.cells) if v is not None]
    return bool(rows) and all(v in [state.columns[p].cells[k] for p in responses] for k, v in rows)


def _decide(state: Inference, paths: tuple[str, ...]) -> None:
    """The values of a verdict that the user named."""
    try:
        _check_order(state, paths, named=True)
    except Doubtful as error:
        state.questions.append(_ask(state, paths[0], error))
        return
    if "values" in state.given:
        return
    worse = (WORSE_WORDS | FAULTS) & {t for path in paths for t in tokens_of(path)}
    if worse and not state.fields.get("chosen"):
        state.questions.append(
            f"column {paths[0]!r} may name the worse response ({min(worse)!r}); "
            f"{_ask_values(state, paths[0])}"
        )
        return
    try:
        if not _try_given(state, paths):
            state.questions.append(
                _ask(state, paths[0], Doubtful("its values are no verdicts that are known"))
            )
    except Doubtful as error:
        state.questions.append(_ask(state, paths[0], error))


def _try_given(state: Inference, paths: tuple[str, ...]) -> bool:
    given, state.given = state.given, state.given - {"label"}
    try:
        return _try_label(state, paths, named=True)
    finally:
        state.given = given


def _ask(state: Inference, path: str, doubt: Doubtful) -> str:
    fix = doubt.fix or _ask_values(state, path)
    return f"column {path!r} seems to say which response is better, but {doubt}; {fix}"


def _ask_values(state: Inference, path: str) -> str:
    """What to say of the values of a column, with those that it holds."""
    cells = state.columns[path].cells if path in state.columns else []
    codes = list(dict.fromkeys(code_of(v) for v in cells if v is not None))
    shown = [code for code in codes if code and "=" not in code][:3]
    if len(codes) > 3 and all(as_number(code) is not None for code in codes):
        shown = ["<0", ">0"] if any(code.startswith("-") for code in codes) else ["<2", ">=2"]
    flags = " ".join(write_flag("--value", f"{code}=SIDE") for code in shown or ["VALUE"])
    return f"say what its values mean with {flags}, where SIDE is a, b, tie or none"

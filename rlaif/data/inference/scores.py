"""Which columns score the responses, and whether rows with one response each belong together."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.data.columns import LIST_WORDS, tokens_of
from rlaif.data.flags import write_ignore, write_map
from rlaif.data.inference.evidence import (
    _all_numeric_texts,
    _entries_numeric,
    are_parallel,
    as_number,
    entry_keys,
    find_twins,
    is_numeric,
    score_rank,
)
from rlaif.data.inference.named import names_others
from rlaif.data.inference.names import (
    ANSWER_WORDS,
    ATTRIBUTE_WORDS,
    FAULTS,
    GENERAL_SCORES,
    PAIR_WORDS,
    SCORE_WORDS,
    UPWARD,
)
from rlaif.data.inference.orders import find_order, orders_of, read_places
from rlaif.data.inference.state import Inference, holds_rivals
from rlaif.data.row_cells import values_at
from rlaif.data.verdict_codes import SIDE_WORDS

PICKED = {"chosen", "accepted", "preferred", "best", "correct"}
"""Flags in the entries of a list that say which response was picked."""


def _more_is_better(tokens: Sequence[str]) -> bool:
    """Whether a score's name leaves no doubt that more of it is better, or less of a rank."""
    sides = {word for words in SIDE_WORDS for word in words}
    pair = {word for pair in PAIR_WORDS for words in pair for word in words}
    known = {*SCORE_WORDS, *PICKED, *UPWARD, *ANSWER_WORDS, *sides, *pair}
    return all(token in known or token.isdigit() for token in tokens)


def find_scores(state: Inference) -> None:
    """Find the columns that score the responses."""
    if "scores" in state.given:
        _check_given(state)
        return
    if "label" in state.given or state.fields.get("thread_by") or "order" in state.given:
        return
    if _find_sided_scores(state) or _find_listed_scores(state):
        _ask_of_order(state)
        return
    if find_order(state):
        return
    if state.count() == 1 and not state.is_list():
        _find_group(state)


_LOSSES = {"cost", "distance", "err", "error", "errors", "loss", "perplexity", "ppl", "wer"}
"""Words of numbers of which less is better."""


def _check_given(state: Inference) -> None:
    """Ask which way scores that the user named go, where their name says that less is better."""
    words = {word for path in state.fields["scores"] for word in tokens_of(path)}
    _ask_of_order(state)
    if "ranks" in state.given or state.fields.get("good_from") is not None:
        return
    if words & {"rank", "ranks", "ranking", "rankings"}:
        state.fields["ranks"] = True
    elif told := words & (_LOSSES | FAULTS):
        state.questions.append(
            f"of {'+'.join(state.fields['scores'])!r} less may be better ({min(told)!r}); say so "
            "with --map ranks=true, or with --map ranks=false if more is better"
        )


def _find_sided_scores(state: Inference) -> bool:
    columns = [
        c
        for c in state.free()
        if is_numeric(c) and SCORE_WORDS.keys() & set(c.tokens) and _more_is_better(c.tokens)
    ]
    found: list[tuple[int, tuple[str, ...]]] = []
    if state.fields.get("chosen"):
        found += [
            (score_rank(better.tokens), (better.path, worse.path))
            for better, worse in find_twins(columns)
        ]
    elif state.count() >= 2:
        for family in state.families(columns):
            if family.sides == state.sides[: len(family.sides)] and len(family.sides) == len(
                state.sides
            ):
                found.append((score_rank(family.base), tuple(family.paths)))
    if not found:
        return False
    _, paths = min(found, key=lambda f: f[0])
    state.set("scores", paths, "score")
    _set_ranks(state, paths)
    _ask_of_ties(state, paths)
    rivals = [f.paths for f in state.families([c for c in state.free() if is_numeric(c)])]
    _ask_of_aspects(state, paths, [*(p for _, p in found), *map(tuple, rivals)])
    for _, others in found:
        for path in others:
            state.claim(path, "another score")
    return True


def _ask_of_ties(state: Inference, paths: tuple[str, ...]) -> None:
    """Ask where ties are counted beside what each response has."""
    base = set(tokens_of(paths[0])) & set(tokens_of(paths[-1]))
    for column in state.free({"number"}):
        if {"tie", "ties", "tied"} & set(column.tokens) and base <= set(column.tokens):
            state.questions.append(
                f"column {column.path!r} counts ties beside {'+'.join(paths)!r}, and nothing says "
                "how many make a tie; write one verdict a row, or leave it out with "
                f"{write_ignore(column.path)}"
            )
            return


def _ask_of_aspects(
    state: Inference, taken: tuple[str, ...], others: Sequence[tuple[str, ...]]
) -> None:
    """Ask where a score of one kind or aspect is all that decides, and another one differs."""
    sides = {word for words in SIDE_WORDS for word in words}
    plain = {*GENERAL_SCORES, *ANSWER_WORDS, *sides, "chosen", "rejected"}
    if all(word in plain or word.isdigit() for path in taken for word in tokens_of(path)):
        return
    for paths in others:
        words = {word for path in paths for word in tokens_of(path)}
        if paths == taken or len(paths) != len(taken) or not words & {*SCORE_WORDS, *UPWARD}:
            continue
        if not all(_more_is_better(tokens_of(path)) for path in paths):
            continue
        for row in state.rows:
            one, two = (
                [as_number(v) for p in group for v in values_at(row, p)] for group in (taken, paths)
            )
            if None in one or None in two or len(one) != len(two) or len(one) < 2:
                continue
            first, second = (
                _best(values, "rank" in str(group))
                for values, group in ((one, taken), (two, paths))
            )
            if first is not None and second is not None and first != second:
                shown = "+".join(taken)
                state.questions.append(
                    f"scores {shown!r} and {'+'.join(paths)!r} find different responses best; "
                    f"name those that decide with {write_map('scores', shown)}"
                )
                return


def _best(values: Sequence[float | None], ranks: bool) -> int | None:
    """Where the best score is; None for several."""
    held = [v for v in values if v is not None]
    best = min(held) if ranks else max(held)
    return None if values.count(best) > 1 else values.index(best)


def _set_ranks(state: Inference, paths: Sequence[str]) -> None:
    named = any("rank" in t or "ranks" in t for t in map(tokens_of, paths))
    if not named or "ranks" in state.given:
        return
    scored = {"elo", "points", "score", "scores"} & {t for p in paths for t in tokens_of(p)}
    rows = [[v for p in paths for v in values_at(row, p)] for row in state.rows]
    if len(paths) == 1 and state.count() == 1 and not state.is_list() and not scored:
        state.fields["ranks"] = True  # one response a row
    elif not scored and all(
        n is None or (n.is_integer() and 0 <= n <= len(row))
        for row in rows
        for n in map(as_number, row)
    ):
        state.fields["ranks"] = True
    else:
        shown = "+".join(paths)
        state.questions.append(
            f"{shown!r} may be ranks or scores; say with --map ranks=true "
            "that less is better, or with --map ranks=false that more is"
        )


def _find_listed_scores(state: Inference) -> bool:
    """A list of numbers, one for each response; or a number in each entry of the list."""
    paths = state.fields.get("responses", ())
    own = state.columns.get(paths[0]) if len(paths) == 1 else None
    if state.fields.get("chosen"):
        own = next(
            (c for c in state.free({"texts", "chats"}) if LIST_WORDS & set(c.tokens[-2:])), None
        )
    if own is None or not (own.shape in ("texts", "entries", "chats") or holds_rivals(own)):
        return False
    found = []
    if own.shape == "entries":
        for key in entry_keys(own):
            tokens = tokens_of(key)
            if not _more_is_better(tokens):
                continue
            if {*SCORE_WORDS, *PICKED} & set(tokens) and _entries_numeric(own, key):
                found.append((score_rank(tokens), f"{own.path}[].{key}"))
    for column in state.free():
        if not are_parallel(column, own) or not _more_is_better(column.tokens):
            continue
        if column.shape in ("numbers", "flags") or _all_numeric_texts(column):
            words = set(column.tokens) & {*SCORE_WORDS, "labels", "correctness"}
            if words:
                found.append((score_rank(column.tokens), column.path))
        elif column.shape == "entries":
            for key in entry_keys(column):
                if SCORE_WORDS.keys() & set(tokens_of(key)) and _entries_numeric(column, key):
                    found.append((score_rank(tokens_of(key)), f"{column.path}[].{key}"))
    if not found:
        return False
    _, path = min(found, key=lambda f: f[0])
    if names_others(state, own, path):
        state.questions.append(
            f"{path!r} names its responses in another order than they stand in; write the scores "
            f"in the order of {own.path!r}, or into its entries"
        )
        return True
    _ask_of_ranks(state, path, [p for _, p in found])
    rivals = [c.path for c in state.free({"numbers"}) if are_parallel(c, own) and c.path != path]
    _ask_of_aspects(state, (path,), [(p,) for _, p in found if p != path] + [(p,) for p in rivals])
    if state.fields.get("chosen"):
        # Scores of a list beside the pair: only equal ones matter, for they make a tie.
        state.claim(path, "scores of the responses")
        return True
    state.set("scores", (path,), "scores")
    _set_ranks(state, (path,))
    for _, other in found:
        state.claim(other, "another score")
    return True


def _ask_of_order(state: Inference) -> None:
    """Ask where an order of the responses begins with another one than has the best score."""
    scores = state.fields.get("scores", ())
    for column in orders_of(state) if scores else ():
        for k, row in enumerate(state.rows):
            values = [as_number(v) for p in scores for v in values_at(row, p)]
            places = read_places(state, column, k)
            if not places or None in values or len(values) != len(places):
                continue
            best = _best(values, bool(state.fields.get("ranks")))
            if best is not None and best != places.index(1):
                state.questions.append(
                    f"{'+'.join(scores)!r} and {column.path!r} find different responses best; "
                    f"name one with {write_map('scores', '+'.join(scores))} "
                    f"{write_ignore(column.path)}, or with {write_map('order', column.path)}"
                )
                return


def _ask_of_ranks(state: Inference, taken: str, paths: Sequence[str]) -> None:
    """Ask where ranks and scores of the same responses name different ones as the best."""
    ranks = [p for p in paths if {"rank", "ranks"} & set(tokens_of(p)) and p != taken]
    for path in ranks if not {"rank", "ranks"} & set(tokens_of(taken)) else ():
        for row in state.rows:
            scores, places = ([as_number(v) for v in values_at(row, p)] for p in (taken, path))
            if None in scores or None in places or not scores or len(scores) != len(places):
                continue
            best, first = max(scores), min(places)  # type: ignore[type-var]
            if scores.index(best) != places.index(first) and scores.count(best) == 1:
                state.questions.append(
                    f"{taken!r} and {path!r} name different responses as the best; name one with "
                    f"{write_map('scores', taken)}"
                )
                return


def _find_group(state: Inference) -> None:
    """Rows with one response each, of which several answer one prompt, with scores."""
    prompt = state.fields.get("prompt", ())
    scores = [
        c
        for c in state.free({"number"})
        if SCORE_WORDS.keys() & set(c.tokens)
        and _more_is_better(c.tokens)
        and not (ATTRIBUTE_WORDS - SCORE_WORDS.keys()) & set(c.tokens)
    ]
    if not scores:
        return
    best = min(scores, key=lambda c: score_rank(c.tokens))
    state.set("scores", (best.path,), "score")
    _set_ranks(state, (best.path,))
    if len(prompt) == 1 and prompt[0] in state.columns and "group_by" not in state.given:
        asked = [str(v) for v in state.columns[prompt[0]].values]
        if len(set(asked)) < len(asked):
            state.fields["group_by"] = prompt[0]
    for other in scores:
        state.claim(other.path, "another score")

"""An engine that answers with verdicts that were recorded elsewhere: of any judge, or of people.

A question is known by its text, so the verdicts are found wherever the pairs are asked about:
in `rlaif label`, and in `rlaif eval`, which may turn a pair around.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Principle
from rlaif.data.columns import dig
from rlaif.data.dataset import explained_without_flags, open_dataset
from rlaif.data.layout import code_of
from rlaif.data.messages import BadRow
from rlaif.data.pairing import make_pairs
from rlaif.data.sources import open_source
from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, Intake
from rlaif.engines.scripted import ByteCodec
from rlaif.errors import RlaifError
from rlaif.judging.aggregation import CHECK_LOGIT
from rlaif.judging.questions import Question
from rlaif.judging.rendering import Renderer
from rlaif.judging.verdicts import LARGEST_LOGIT
from rlaif.records import (
    ChoiceRequest,
    ChoiceResult,
    Failure,
    Order,
    Pair,
    Rejected,
    Request,
    Result,
)
from rlaif.templates.judge import load_judge_template
from rlaif.util.hashing import digest, file_digest

TEMPLATE = "demo"
"""The layout by which questions are told apart: as few words as it needs."""
_SIDES = {"a": 1.0, "b": -1.0, "tie": 0.0}
_WIDE = {
    "ab": (("shown_ab", "winner_ab", "ab"), ("p_a_ab", "p_ab")),
    "ba": (("shown_ba", "winner_ba", "ba"), ("p_a_ba", "p_ba")),
}
"""Columns with the verdict of each order: the winner, or the probability that `a` is better."""


@dataclass(frozen=True)
class Recorded:
    """One verdict that was recorded.

    Attributes:
        logit: log-odds that `a` is better; None where none could be read.
    """

    pair: str
    principle: str
    order: Order
    logit: float | None


@dataclass(frozen=True)
class ImportCounts:
    """What a file of verdicts came to.

    Attributes:
        verdicts: that belong to a pair.
        unreadable: those of them that say nothing.
        unknown: rows of pairs that the data does not have.
        contradicted: questions on which pairs with the same texts have different verdicts: none
            of these counts.
    """

    verdicts: int
    unreadable: int
    unknown: int
    contradicted: int = 0


def read_recorded(file: str, where: Mapping[str, str]) -> Iterator[Recorded]:
    """The verdicts of a CSV or JSONL file.

    A row has `id`, and either the verdict of each order (`shown_ab` and `shown_ba`, or `p_ab` and
    `p_ba`) or `order` with `winner` or `p_a`; and `principle`, if there are several.

    Args:
        where: columns with the value that a row must have to count, such as the judge's name.

    Raises:
        RlaifError: a row has neither form, or a value is no verdict; with its place.
    """
    for place, row in open_source(file).rows():
        if isinstance(row, Rejected):
            raise RlaifError(f"{file}: {place}: {row.reason}", hint="Mend or remove that row.")
        if any(str(dig(row, name)) != value for name, value in where.items()):
            continue
        name, principle = row.get("id"), str(row.get("principle") or "")
        if name in (None, ""):
            raise RlaifError(
                f"{file}: {place}: no `id` of a pair", hint="Name the column of the pair's ID `id`."
            )
        found = 0
        for order, (winners, probabilities) in _WIDE.items():
            for key, read in ((winners, _of_winner), (probabilities, _of_probability)):
                column = next((k for k in key if k in row), None)
                if column is not None:
                    found += 1
                    logit = read(row[column], f"{file}: {place}: {column}")
                    yield Recorded(str(name), principle, order, logit)  # type: ignore[arg-type]
        if found:
            continue
        yield _read_long(row, principle, f"{file}: {place}")


def _read_long(row: Mapping[str, Any], principle: str, place: str) -> Recorded:
    order = str(row.get("order") or "ab").lower()
    if order not in ("ab", "ba"):
        raise RlaifError(
            f"{place}: order is {order!r}", hint="Write ab or ba: what was shown first."
        )
    if "p_a" in row:
        logit = _of_probability(row["p_a"], f"{place}: p_a")
    elif "winner" in row:
        logit = _of_winner(row["winner"], f"{place}: winner")
    else:
        raise RlaifError(
            f"{place}: no verdict; columns are {', '.join(list(row)[:12])}",
            hint="Use shown_ab and shown_ba, p_ab and p_ba, or order with winner or p_a.",
        )
    return Recorded(str(row["id"]), principle, order, logit)  # type: ignore[arg-type]


def _of_winner(value: object, place: str) -> float | None:
    """A verdict without a probability counts as a check does: nearly certain."""
    code = "" if value is None else code_of(value)
    if code in ("", "none", "null", "nan"):
        return None
    if code not in _SIDES:
        raise RlaifError(f"{place} is {str(value)[:40]!r}", hint="Write a, b, tie, or nothing.")
    return CHECK_LOGIT * _SIDES[code]


def _of_probability(value: object, place: str) -> float | None:
    if value in (None, ""):
        return None
    try:
        p = float(str(value))
    except ValueError:
        p = math.nan
    if not 0.0 <= p <= 1.0:
        raise RlaifError(f"{place} is {str(value)[:40]!r}", hint="Write a probability from 0 to 1.")
    if p in (0.0, 1.0):
        return LARGEST_LOGIT * (1 if p else -1)
    return math.log(p) - math.log1p(-p)


def _pairs(data: str) -> Iterator[Pair]:
    """The pairs of data, by the ids that its rows have."""
    with explained_without_flags(data):
        opened = open_dataset(data, need="responses")
    for number, (_, row) in enumerate(opened.read()):
        if isinstance(row, Rejected):
            continue
        try:
            yield from make_pairs(row, row.id or f"row-{number + 1}", number=number + 1)
        except BadRow:
            continue


class RecordedEngine:
    """Answers with what was recorded.

    Args:
        data: the pairs, with the ids that the verdicts name.
        verdicts: see `read_recorded`.
        principles: those that were asked about.

    Attributes:
        counts: what became of the verdicts.

    Raises:
        RlaifError: a verdict names an unknown principle, two say different things of a question,
            or none belongs to a pair.
    """

    def __init__(
        self, data: str, verdicts: Iterable[Recorded], principles: list[Principle], fingerprint: str
    ) -> None:
        self.codec = ByteCodec()
        self.fingerprint = fingerprint
        self.max_prompt_tokens = 1 << 30
        self.sharing = None
        self._requests = self._tokens = 0
        self._answers: dict[str, float | None] = {}
        by_id = {p.id: p for p in principles}
        pairs = {pair.id: pair for pair in _pairs(data)}
        renderer = Renderer(load_judge_template(TEMPLATE), self.codec)
        told = unreadable = unknown = 0
        owners: dict[str, str] = {}
        contradicted: set[str] = set()
        for verdict in verdicts:
            pair = pairs.get(verdict.pair)
            if pair is None:
                unknown += 1
                continue
            principle = by_id.get(verdict.principle) if verdict.principle else principles[0]
            if principle is None or (not verdict.principle and len(principles) > 1):
                raise RlaifError(
                    f"pair {verdict.pair!r}: the verdict's principle is {verdict.principle!r}",
                    hint=f"Use one of {', '.join(by_id)}, or another constitution.",
                )
            (request,) = renderer.requests(pair, [Question(principle, verdict.order)], "r")
            first = verdict.logit
            if first is not None and verdict.order == "ba":
                first = -first
            key = _key(request.token_ids)
            if key in self._answers and owners[key] != pair.id:
                # Two pairs with the same texts can't be told apart by them.
                if self._answers[key] != first:
                    contradicted.add(key)
                told += 1
                continue
            if self._answers.get(key, first) != first:
                raise RlaifError(
                    f"pair {verdict.pair!r}: two verdicts on {principle.id} {verdict.order}",
                    hint="Keep one judge and one way of asking (`--where COLUMN=VALUE`).",
                )
            self._answers[key], owners[key] = first, pair.id
            told += 1
            unreadable += first is None
        if not told:
            raise RlaifError(
                f"none of the {unknown} verdicts is of a pair in {data!r}",
                hint="Check `id` in both files, and --where.",
            )
        self._answers.update(dict.fromkeys(contradicted))
        self.counts = ImportCounts(told, unreadable, unknown, len(contradicted))

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer requests, in order."""
        intake = Intake(requests)
        while not intake.exhausted:
            taken = intake.take(256)
            if taken:
                yield [self._answer(request) for request in taken]

    def _answer(self, request: Request) -> Result:
        self._requests += 1
        self._tokens += len(request.token_ids)
        if not isinstance(request, ChoiceRequest):
            return Failure(request.id, "recorded verdicts write nothing")
        key = _key(request.token_ids)
        logit = self._answers.get(key)
        if logit is None:
            known = (
                "the judge's answer was not read" if key in self._answers else "none is recorded"
            )
            return Failure(request.id, f"no verdict: {known}")
        logs = [-math.log1p(math.exp(-sign * logit)) for sign in (1, -1)]
        return ChoiceResult(request.id, (logs[0], logs[1]))

    def stats(self) -> EngineStats:
        """Requests answered, and bytes read."""
        return EngineStats(self._requests, self._tokens, 0)

    def close(self) -> None:
        """Nothing to release."""


def _key(token_ids: Iterable[int]) -> str:
    return digest(bytes(token_ids).hex())


def _where(settings: EngineSettings) -> dict[str, str]:
    pairs = [part.partition("=") for part in str(settings.options.get("where") or "").split("&")]
    return {name: value for name, mark, value in pairs if mark}


def fingerprint_recorded(settings: EngineSettings) -> str:
    """Content address of the verdicts, and of which of them count."""
    return digest(
        {
            "recorded": file_digest(Path(str(settings.options.get("verdicts", "")))),
            "where": _where(settings),
            "constitution": str(settings.options.get("constitution", "overall")),
        }
    )


def open_recorded(settings: EngineSettings) -> RecordedEngine:
    """Read the verdicts; options: `verdicts` and `pairs` (files), `where` (COLUMN=VALUE, joined by
    `&`), and `constitution`, whose principles they are on.

    Raises:
        RlaifError: an option is missing or unknown, or the verdicts can't be used.
    """
    known = ("verdicts", "pairs", "where", "constitution")
    for name in settings.options:
        if name not in known:
            raise RlaifError(
                f"engine 'recorded' has no option {name!r}",
                hint=f"Available options: {', '.join(known)}.",
            )
    if not settings.options.get("verdicts") or not settings.options.get("pairs"):
        raise RlaifError(
            "engine 'recorded' needs the files of verdicts and of pairs",
            hint="Use `rlaif import-verdicts`, or add --option verdicts=FILE --option pairs=FILE.",
        )
    loaded = load_constitution(str(settings.options.get("constitution", "overall"))).constitution
    principles = [p for p in loaded.principles if p.judged]
    verdicts = read_recorded(str(settings.options["verdicts"]), _where(settings))
    return RecordedEngine(
        str(settings.options["pairs"]), verdicts, principles, fingerprint_recorded(settings)
    )


SPEC = EngineSpec(
    create=open_recorded,
    codec=lambda settings: ByteCodec(),
    fingerprint=fingerprint_recorded,
    can_generate=lambda settings: False,
)

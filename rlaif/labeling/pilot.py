"""Judges a pilot in full, to learn how early a run may stop asking about its pairs."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlaif.data.grouping import GROUP
from rlaif.data.reading import Reader
from rlaif.data.sources import Source, open_source
from rlaif.engines.base import Engine
from rlaif.errors import RlaifError
from rlaif.judging.early_stopping import (
    ChosenStopping,
    JudgedPair,
    StoppingKind,
    StoppingRule,
    choose,
)
from rlaif.labeling.labeler import Labeler
from rlaif.labeling.load_calibration import Aggregator
from rlaif.labeling.settings import LabelSettings
from rlaif.labeling.task import LabelTask
from rlaif.labeling.usage import UsageMeter
from rlaif.records import Rejected
from rlaif.runs.directory import RunDirectory
from rlaif.runs.tally import Tally, dump_positions
from rlaif.store.verdict_cache import VerdictCache
from rlaif.util.hashing import digest

LEAST_PILOT = 60
_NAME = "__name__"
"""Column that keeps a drawn row's name."""


@dataclass(frozen=True)
class Pilot:
    """What a pilot found out.

    Attributes:
        chosen: when pairs need no more questions.
        asked: questions that the judge answered for it.
        tally: of its pairs; empty where none were needed.
    """

    chosen: ChosenStopping
    asked: int
    tally: Tally


def asks_adaptively(s: LabelSettings) -> bool:
    """Whether what is asked about a pair depends on what was answered."""
    return s.stop != "never" or s.orders == "adaptive"


def safest_rule(s: LabelSettings, aggregator: Aggregator) -> StoppingRule:
    """The rule that settings ask for, before a pilot says how bold it may be."""
    kind: StoppingKind = "orders"
    if s.orders != "adaptive":
        kind = "exact" if s.stop == "exact" else "likely"
    temperatures = aggregator.calibration.principles if aggregator.calibration else {}
    return StoppingRule(kind, s.aggregation, seed=s.seed, temperatures=temperatures)


def rule_of_run(
    s: LabelSettings, aggregator: Aggregator, manifest: Mapping[str, Any]
) -> StoppingRule | None:
    """The rule that a finished run stopped by; None where everything was asked, or where the run
    does not keep what its pilot learned.
    """
    if not asks_adaptively(s):
        return None
    rule, told = safest_rule(s, aggregator), manifest.get("stopping")
    if s.stop == "exact" and rule.kind == "exact":
        return rule
    if not isinstance(told, dict) or told.get("kind") not in ("orders", "likely"):
        return None
    reach, bold = told.get("reach"), told.get("boldness")
    if not isinstance(reach, dict) or not isinstance(bold, float | int):
        return None
    return replace(rule, kind=told["kind"], aggressiveness=float(bold), reach=reach)


def learn_stopping(
    task: LabelTask,
    source: Source,
    engine: Engine,
    cache: VerdictCache,
    usage: UsageMeter,
) -> Pilot | None:
    """When pairs need no more questions; a pilot is judged to find out how bold that may be.

    The pilot's pairs are drawn from the whole input and asked everything; a run that goes on after
    a stop finds their answers in the cache.

    Args:
        usage: of the run: what the pilot costs is a part of it.

    Returns:
        None where everything is asked.

    Raises:
        RlaifError: there are too few pairs to learn from.
    """
    s, aggregator = task.settings, task.aggregator
    if not asks_adaptively(s):
        return None
    start = safest_rule(s, aggregator)
    if s.stop == "exact":
        none = ChosenStopping(
            stopping=start, pairs=0, errors=0, bound=0.0, saved=0.0, pilot_extra=0
        )
        return Pilot(none, 0, Tally())
    judged: list[JudgedPair] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pilot.jsonl"
        data.write_text("".join(_drawn(s, source)), encoding="utf-8")
        settings = s.model_copy(
            update={
                "orders": "both" if start.kind == "orders" else s.orders,
                "stop": "never",
                "limit": None,
                "layout": s.layout.model_copy(update={"id": _NAME}),
            }
        )
        with closing(RunDirectory(Path(folder) / "run", {})) as run:
            plain = replace(
                task, settings=settings, aggregator=Aggregator(settings.aggregation), stamp={}
            )
            labeler = Labeler(plain, engine, cache, run, observe=judged.append, usage=usage)
            tally = labeler.label(open_source(str(data)))
    if len(judged) < LEAST_PILOT:
        raise RlaifError(
            f"only {len(judged)} pairs could be judged for the pilot; it needs {LEAST_PILOT}",
            hint="Use --orders both and --stop never.",
        )
    chosen = choose(judged, start, aggregator.preference, error=s.stop_error, delta=0.05)
    return Pilot(chosen, labeler.progress.verdicts - labeler.progress.cached, tally)


def _drawn(s: LabelSettings, source: Source) -> Iterator[str]:
    """Rows drawn at random from the whole input: those whose hash is smallest."""
    drawn: list[tuple[int, int, str]] = []
    reader = Reader(s.layout)
    for number, (_, row) in enumerate(source.rows()):
        if s.limit is not None and number >= s.limit:
            break
        if not isinstance(row, Rejected):
            key = int(digest([s.seed, "pilot", number])[:15], 16)
            item = (-key, number, "")
            if len(drawn) < s.pilot or item > drawn[0]:
                first = row[GROUP][0] if GROUP in row else row  # type: ignore[index]
                name = reader.read_id(first) or f"row-{number + 1}"
                named: dict[str, Any] = {**first, _NAME: name}
                if GROUP in row:
                    named = {GROUP: [named, *row[GROUP][1:]]}  # type: ignore[index]
                line = json.dumps(named, ensure_ascii=False, default=str) + "\n"
                push = heapq.heappush if len(drawn) < s.pilot else heapq.heappushpop
                push(drawn, (-key, number, line))
    yield from (line for _, _, line in sorted(drawn, key=lambda d: d[1]))


def stopping_facts(pilot: Pilot, tally: Tally) -> dict[str, Any]:
    """What stopping early saved, what it risked, and what the pilot says of positions.

    Of a run's own pairs those are asked more that are unclear: their orders agree less, and what
    follows the position shows more.  The pilot's pairs are drawn at random and asked everything.
    """
    chosen = pilot.chosen
    whole = tally.verdicts + tally.spared
    spared = max(0, tally.spared - chosen.pilot_extra)
    return {
        "kind": chosen.stopping.kind,
        "boldness": chosen.stopping.aggressiveness,
        "reach": dict(chosen.stopping.reach),
        "pilot_pairs": chosen.pairs,
        "pilot_decisions_changed": chosen.errors,
        "decisions_changed_at_most": round(chosen.bound, 5),
        "pilot_verdicts_beyond": chosen.pilot_extra,
        "verdicts_spared": spared,
        "share_spared": round(spared / whole, 4) if whole else 0.0,
        **({"position": dump_positions(pilot.tally)} if pilot.tally.pairs else {}),
    }

"""Runs conversations over the rows of a source into a run directory: the generation loop.

Models that do not run together take turns (passes): what a pass asked is in the caches, so the
last one only puts the rows together.  A run that was killed goes on where it stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlaif.engines.base import SPEED_ONLY, EngineSettings
from rlaif.engines.registry import can_generate, model_fingerprint, speed_options
from rlaif.engines.roles import start_engines
from rlaif.errors import RlaifError
from rlaif.generation.conversations import (
    Conversation,
    ConversationCounts,
    ConversationModel,
    ConversationRows,
    ConversationRunner,
)
from rlaif.labeling.settings import LabelSettings
from rlaif.records import GenerationRequest, Rejected
from rlaif.runs.context import RunContext
from rlaif.runs.directory import (
    JOURNAL,
    RunDirectory,
    check_config,
    check_writable,
    is_complete,
    read_manifest,
    read_rows,
)
from rlaif.runs.versions import library_versions
from rlaif.store.text_cache import TextCache, text_key
from rlaif.store.verdict_cache import VerdictCache
from rlaif.templates.judge import load_judge_template
from rlaif.util.clock import utc_now
from rlaif.util.hashing import digest

COUNTS = ""
"""Conversations return what they count as rows of this name: {what: how many}."""
REJECTED = "rejected.jsonl"
CHECKPOINT_SECONDS = 0.5

ChainMaker = Callable[[int, str, "Mapping[str, object] | Rejected"], Conversation]


class RowSource(Protocol):
    """What conversations are made from: see `rlaif.data.sources.Source`."""

    def rows(self) -> Iterator[tuple[str, Mapping[str, object] | Rejected]]:
        """Every row with its place."""
        ...

    def count(self, limit: int | None = None) -> int | None:
        """How many there are, where that is cheap to know."""
        ...


@dataclass(frozen=True)
class GenerationJob:
    """A checked job: nothing started, nothing written.

    Attributes:
        source: what the conversations are made from, one of each row.
        limit: most rows; None for all.
        config: what the results depend on.
        files: names of the row files.
        models: by role.
        passes: the roles that run together, pass by pass.  The last pass writes the rows.
        conversation: makes a conversation of a row: its number from 1, its place, the row.
    """

    source: RowSource
    limit: int | None
    config: dict[str, Any]
    files: tuple[str, ...]
    models: Mapping[str, EngineSettings]
    passes: Sequence[Sequence[str]]
    conversation: ChainMaker


@dataclass
class GenerationProgress:
    """How far a run is.

    Attributes:
        turn: which pass this is, from 1, of how many.
        rows: rows finished in this pass.
        written: rows given by conversations that are not at their end.
        counts: questions asked in this pass.
        seconds: since this pass began.
    """

    turn: int
    turns: int
    rows: int
    written: int
    counts: ConversationCounts
    seconds: float


@dataclass(frozen=True)
class GenerationSummary:
    """A finished run; `fresh` is False if it was complete already."""

    path: Path
    counts: dict[str, float]
    manifest: dict[str, Any]
    fresh: bool


def model_config(settings: EngineSettings) -> dict[str, Any]:
    """What a model's texts depend on, for a run's configuration."""
    own = settings.model_dump(mode="json", exclude=set(SPEED_ONLY))
    for name in speed_options(settings):
        own["options"].pop(name, None)
    return {**own, "fingerprint": model_fingerprint(settings)}


def judge_config(judge: LabelSettings, *, used: bool) -> dict[str, Any]:
    """What a run's configuration says of the judge beside its writers."""
    if not used:
        return {"judge": None, "judge_template": None}
    template = load_judge_template(judge.template)
    calibration = {"calibration": judge.calibration} if judge.calibration else {}
    own = {"label_mass_floor": judge.label_mass_floor, **calibration}
    return {
        "judge": {**model_config(judge.judge), **own},
        "judge_template": {"name": judge.template, "hash": template.hash},
    }


def check_writes(settings: EngineSettings, role: str) -> None:
    """Refuse an engine that only reads labels.

    Raises:
        RlaifError: it does not generate.
    """
    if not can_generate(settings):
        raise RlaifError(
            f"engine {settings.engine!r} cannot generate text, so it cannot run {role}",
            hint="Use --engine vllm.",
        )


def writer_fingerprint(settings: EngineSettings) -> str:
    """Addresses what a model says, whether or not it runs now."""
    return digest(
        [model_fingerprint(settings), settings.engine, settings.dtype, settings.quantization]
    )


def run_generation(
    job: GenerationJob, out: Path, context: RunContext = RunContext()
) -> GenerationSummary:
    """Run the job, or resume it, or report it if it is complete.

    Args:
        context: told a `GenerationProgress` after every batch of answers.

    Raises:
        RlaifError: `out` is not this run, or a model can't start or stops.
    """
    check_config(out, job.config)
    check_writable(out)
    if is_complete(out, job.files):
        manifest = read_manifest(out)
        return GenerationSummary(out, dict(manifest["counts"]), manifest, fresh=False)
    with (
        closing(TextCache(context.texts_path)) as texts,
        closing(VerdictCache(context.verdicts_path)) as verdicts,
        closing(RunDirectory(out, job.config, job.files)) as run,
    ):
        return _Run(job, run, texts, verdicts, context=context).finish()


def survey(job: GenerationJob, context: RunContext = RunContext()) -> dict[str, int]:
    """What the first questions of all conversations come to, without asking any.

    What later questions there are depends on the answers.

    Returns:
        rows; questions; how many of them a cache knows; their prompt tokens, and the most tokens
        that the answers may have.
    """
    found = {
        "rows": 0,
        "initial requests": 0,
        "known": 0,
        "prompt tokens": 0,
        "max generated tokens": 0,
    }
    names = {role: writer_fingerprint(settings) for role, settings in job.models.items()}
    with closing(TextCache(context.texts_path)) as texts:
        for number, (place, row) in enumerate(job.source.rows(), 1):
            if job.limit is not None and number > job.limit:
                break
            found["rows"] += 1
            asks = next(job.conversation(number, place, row), [])
            requests = [
                (names[a.role], a.request)
                for a in (asks if isinstance(asks, list) else [])
                if isinstance(a.request, GenerationRequest)
            ]
            known = texts.get([text_key(name, request) for name, request in requests])
            found["initial requests"] += len(requests)
            found["known"] += len(known)
            found["prompt tokens"] += sum(len(r.token_ids) for _, r in requests)
            found["max generated tokens"] += sum(r.max_tokens for _, r in requests)
    return found


class _Run:
    """One run while it is under way."""

    def __init__(
        self,
        job: GenerationJob,
        run: RunDirectory,
        texts: TextCache,
        verdicts: VerdictCache,
        *,
        context: RunContext,
    ) -> None:
        self._job, self._run = job, run
        self._texts, self._verdicts = texts, verdicts
        self._context = context
        self._fingerprints = {role: writer_fingerprint(s) for role, s in job.models.items()}
        self._rows = int(run.journal["rows"])
        self._tally: dict[str, float] = dict(run.journal["tally"] or {})
        if not all(isinstance(count, int | float) for count in self._tally.values()):
            raise RlaifError(
                f"{run.path / JOURNAL} is damaged",
                hint="Delete it and rerun the same command; what was generated is in the cache.",
            )
        # Earlier passes live in the cache: with another one they are to be done again.
        self._cache = str(context.texts_path.resolve())
        same = run.journal.get("cache") == self._cache
        self._turns = int(run.journal.get("turns", 0)) if same else 0
        self._seconds = float(run.journal.get("seconds", 0.0))
        self._began = self._checkpointed = time.monotonic()
        self._asked = self._cached = self._tokens = 0

    def finish(self) -> GenerationSummary:
        """Do what is left."""
        turns = len(self._job.passes)
        for turn, roles in enumerate(self._job.passes):
            if turn < turns - 1 and turn < self._turns:
                continue
            with ExitStack() as stack:
                workers = self._start(roles, stack)
                self._turn(turn, workers, last=turn == turns - 1)
            self._turns = turn + 1
            self._checkpoint()
        if not (self._run.path / self._job.files[0]).stat().st_size:
            raise RlaifError(
                f"no output from {self._rows} rows{self._last_rejection()}",
                hint="Fix the input or the model, then run into a new folder.",
            )
        manifest = self._manifest()
        self._run.write_manifest(manifest)
        return GenerationSummary(self._run.path, manifest["counts"], manifest, fresh=True)

    def _last_rejection(self) -> str:
        if REJECTED not in self._job.files:
            return ""
        rows = deque((row for _, row in read_rows(self._run.path / REJECTED)), maxlen=1)
        return f" (last: {rows[0]['place']}: {rows[0]['reason']})" if rows else ""

    def _start(self, roles: Sequence[str], stack: ExitStack) -> dict[str, ConversationModel]:
        now = {role: s for role, s in self._job.models.items() if role in roles}
        engines = start_engines(now, stack, self._context.on_engine)
        return {
            role: ConversationModel(self._fingerprints[role], engines.get(role))
            for role in self._job.models
        }

    def _turn(self, turn: int, workers: Mapping[str, ConversationModel], *, last: bool) -> None:
        done, began = self._rows if last else 0, time.monotonic()
        written = 0

        def tell(counts: ConversationCounts) -> None:
            seconds = time.monotonic() - began
            turns = len(self._job.passes)
            self._context.on_progress(
                GenerationProgress(
                    turn=turn + 1,
                    turns=turns,
                    rows=done,
                    written=written,
                    counts=counts,
                    seconds=seconds,
                )
            )

        def keep(rows: ConversationRows) -> None:
            nonlocal done
            done += 1
            if last:
                self._write(rows)
                self._rows += 1
                self._checkpoint_now_and_then()

        def keep_part(rows: ConversationRows) -> None:
            nonlocal written
            written += sum(name != COUNTS for name, _ in rows)
            if last:
                # To be read at once, and not in the journal: on resume the conversation gives
                # them again, from answers that are in the cache.
                self._write(rows)
                self._run.flush()

        runner = ConversationRunner(
            workers,
            self._texts,
            self._verdicts,
            on_rows=keep,
            on_part=keep_part,
            on_progress=tell,
        )
        runner.run(self._conversations(self._rows))
        tell(runner.counts)
        self._asked += runner.counts.asked
        self._cached += runner.counts.cached
        self._tokens += runner.counts.tokens

    def _conversations(self, skip: int) -> Iterator[Conversation]:
        for number, (place, row) in enumerate(self._job.source.rows(), 1):
            if self._job.limit is not None and number > self._job.limit:
                return
            if number > skip:
                yield self._job.conversation(number, place, row)

    def _write(self, rows: ConversationRows) -> None:
        for name, row in rows:
            if name == COUNTS:
                for what, value in row.items():
                    assert isinstance(value, int | float)
                    self._tally[what] = self._tally.get(what, 0) + value
            else:
                self._run.append(name, row)

    def _checkpoint_now_and_then(self) -> None:
        if time.monotonic() - self._checkpointed > CHECKPOINT_SECONDS:
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._run.checkpoint(
            rows=self._rows,
            tally=self._tally,
            turns=self._turns,
            cache=self._cache,
            seconds=self._spent(),
        )
        self._checkpointed = time.monotonic()

    def _spent(self) -> float:
        return round(self._seconds + time.monotonic() - self._began, 3)

    def _manifest(self) -> dict[str, Any]:
        return {
            "format": 1,
            "finished": utc_now(),
            "config": self._job.config,
            "libraries": library_versions(),
            "counts": {"rows": float(self._rows), **self._tally},
            "seconds": self._spent(),
            "last_process": {
                "asked": self._asked,
                "from_cache": self._cached,
                "tokens_written": self._tokens,
            },
        }

"""The Python API: a judge with a constitution.

from rlaif import Judge

with Judge("constitution.yaml", model="Qwen/Qwen3-8B") as judge:
    judge.compare("How do I ...?", "Like this ...", "Like that ...").winner
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rlaif.api.answers import (
    AnswerList,
    Comparison,
    Critique,
    PrincipleCritique,
    PrincipleMark,
    PrincipleVerdict,
    Provenance,
    Score,
)
from rlaif.api.service import QueueFull, Service, ServiceStopped
from rlaif.api.setup import (
    JudgeSettings,
    JudgeSetup,
    models_of,
    prepare_judge,
    with_defaults,
)
from rlaif.data.single_rows import BadRow
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.generation.critique_calls import WRITER, CritiqueResult
from rlaif.generation.judge_calls import JUDGE
from rlaif.generation.pointwise_calls import PointwiseScore
from rlaif.labeling.judge_file import names_judge_file, read_judge_file
from rlaif.records import Message, Pair, Preference
from rlaif.runs.context import RunContext
from rlaif.util.validation import explain

TextOrMessages = str | Sequence[Mapping[str, str]]
"A string, or a list of chat messages."
PairMapping = Mapping[str, Any]
OPEN_AT_ONCE = 512
Found = TypeVar("Found")
Answer = TypeVar("Answer", Comparison, Score, Critique)


class AnyJudge(Protocol):
    """What plug-ins need: a judge in this process (`Judge`) or behind a server (`RemoteJudge`)."""

    def compare_many(
        self, rows: Iterable[PairMapping | Sequence[TextOrMessages]], *, progress: bool = False
    ) -> Iterator[Comparison]:
        """Compare two responses per row; answers in the order of the rows."""
        ...

    def score_many(
        self, rows: Iterable[PairMapping | Sequence[TextOrMessages]], *, progress: bool = False
    ) -> Iterator[Score]:
        """Score one response per row; answers in the order of the rows."""
        ...


class Judge:
    """A judge model with a constitution, in this process.

    The engine starts with the first question (some seconds to minutes) and runs until `close`.
    Methods may be called from any thread; all questions go into one running batch.

    Args:
        constitution: a YAML file or a shipped name.
        model: a folder, a hub id, `demo` for the embedded judge, or a judge file.
        engine: see `rlaif engines`; default: vLLM, or what the judge file says.
        writer: who writes critiques; default: the judge model itself.
        cache_dir: where answers are kept; default: the user's, shared with `rlaif label`.
        settings: any other setting of `JudgeSettings` (`template`, `pointwise`, `orders`, ...) or
            `EngineSettings` (`dtype`, `revision`, `max_in_flight`, ...).

    Raises:
        RlaifError: a setting, the constitution or the model can't be used.
    """

    def __init__(
        self,
        constitution: str | Path,
        model: str = "demo",
        *,
        engine: str | None = None,
        writer: str | None = None,
        cache_dir: str | Path | None = None,
        **settings: Any,
    ) -> None:
        if names_judge_file(str(model)):
            named, _ = read_judge_file(Path(model))
            engine, model = engine or named.pop("engine", None), named.pop("model")
            settings = {**named, **settings}
        own = {k: v for k, v in settings.items() if k in JudgeSettings.model_fields}
        rest = {k: v for k, v in settings.items() if k not in own}
        judge = _checked(EngineSettings, {"engine": engine or "vllm", "model": str(model), **rest})
        own["writer"] = judge.model_copy(update={"model": writer}) if writer else None
        self._start(
            prepare_judge(str(constitution), _checked(JudgeSettings, with_defaults(own, judge))),
            Path(cache_dir) if cache_dir else None,
        )

    @classmethod
    def of(
        cls, setup: JudgeSetup, *, cache_dir: Path | None = None, service: Service | None = None
    ) -> Judge:
        """A judge from checked parts; with `service`, on engines that run already."""
        judge = cls.__new__(cls)
        judge._start(setup, cache_dir, service)
        return judge

    def _start(
        self, setup: JudgeSetup, cache_dir: Path | None, service: Service | None = None
    ) -> None:
        self.setup = setup
        self.provenance = Provenance(**setup.stamp)
        self._cache_dir = cache_dir
        self._given = service
        self._services: dict[str, Service] = {}
        self._closed = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The constitution's name."""
        return self.setup.constitution.name

    def compare(
        self,
        prompt: TextOrMessages,
        a: TextOrMessages,
        b: TextOrMessages,
        *,
        tags: Sequence[str] = (),
    ) -> Comparison:
        """Which of two responses to `prompt` follows the constitution better.

        Raises:
            RlaifError: an argument is no text and no list of messages, or the engine stopped.
        """
        return self.submit_comparison(pair_row((prompt, a, b), tags)).result()

    def compare_many(
        self, rows: Iterable[PairMapping | Sequence[TextOrMessages]], *, progress: bool = False
    ) -> Iterator[Comparison]:
        """Compare two responses per row, batched; answers come in the order of the rows.

        Args:
            rows: `(prompt, a, b)`, or rows in any layout that `rlaif label` reads.  Consumed as
                there is room.
            progress: show a bar.
        """
        bar = count_answers(rows, "pair") if progress else None
        return self._many(map(pair_row, rows), self.submit_comparison, bar)

    def score(
        self, prompt: TextOrMessages, response: TextOrMessages, *, tags: Sequence[str] = ()
    ) -> Score:
        """How well one response follows the constitution, from 0 to 1."""
        return self.submit_score(single_row((prompt, response), tags)).result()

    def score_many(
        self, rows: Iterable[PairMapping | Sequence[TextOrMessages]], *, progress: bool = False
    ) -> Iterator[Score]:
        """Score one response per row: `(prompt, response)`, or a row with `prompt` and
        `response`; answers come in the order of the rows.
        """
        bar = count_answers(rows, "response") if progress else None
        return self._many(map(single_row, rows), self.submit_score, bar)

    def critique(
        self,
        prompt: TextOrMessages,
        response: TextOrMessages,
        *,
        principles: Sequence[str] | None = None,
        revise: bool = False,
    ) -> Critique:
        """What is wrong with a response, by each principle (or those named), as text."""
        row = single_row((prompt, response))
        return self.submit_critique(row, principles=principles, revise=revise).result()

    def submit_comparison(self, row: PairMapping) -> Future[Comparison]:
        """Like `compare`, for a row of any layout and without waiting."""
        questions = _readable(lambda: self.setup.compare(row))
        name = str(row.get("id") or "")
        return _then(
            self._service().submit(questions),
            lambda found: _comparison(name, found, self.provenance),
        )

    def submit_pair(self, pair: Pair) -> Future[Comparison]:
        """Like `compare`, for a pair of any number of turns and without waiting."""
        return _then(
            self._service().submit(self.setup.compare_pair(pair)),
            lambda found: _comparison(pair.id, found, self.provenance),
        )

    def submit_response(
        self,
        prompt: list[Message],
        response: list[Message],
        principles: Sequence[str] | None = None,
    ) -> Future[Score]:
        """Like `score`, by some principles (ids; None for all) and without waiting."""
        named = None if principles is None else list(principles)
        asked = _readable(lambda: self.setup.named(named))
        return _then(
            self._service().submit(self.setup.score_response(prompt, response, asked)),
            lambda point: _score("", point, self.provenance),
        )

    def submit_score(
        self, row: PairMapping, *, principles: Sequence[str] | None = None
    ) -> Future[Score]:
        """Like `score`, for a row and without waiting."""
        named = None if principles is None else list(principles)
        questions = _readable(lambda: self.setup.score(row, principles=named))
        name = str(row.get("id") or "")
        return _then(
            self._service().submit(questions), lambda point: _score(name, point, self.provenance)
        )

    def submit_critique(
        self, row: PairMapping, *, principles: Sequence[str] | None = None, revise: bool = False
    ) -> Future[Critique]:
        """Like `critique`, for a row and without waiting."""
        named = None if principles is None else list(principles)
        questions = _readable(lambda: self.setup.criticize(row, principles=named, revise=revise))
        name = str(row.get("id") or "")
        return _then(
            self._service(writes=True).submit(questions),
            lambda remarks: _critique(name, remarks, self.provenance),
        )

    def start(self, *, writes: bool = False) -> Service:
        """Start the engine now and give the service that drives it."""
        return self._service(writes=writes)

    def close(self) -> None:
        """Finish what was asked and stop the engines; safe to call twice."""
        with self._lock:
            self._closed = True
            services, self._services = list(self._services.values()), {}
        for service in services:
            service.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _service(self, *, writes: bool = False) -> Service:
        if self._given is not None:
            return self._given
        models = models_of(self.setup.settings)
        together = len(set(map(repr, models.values()))) == 1
        kind = "all" if together else WRITER if writes else JUDGE
        with self._lock:
            if self._closed:
                raise ServiceStopped("the judge is closed", hint="Create a new one.")
            if kind not in self._services:
                own = models if together else {kind: models[kind]}
                self._services[kind] = Service(own, RunContext(self._cache_dir))
            return self._services[kind]

    def _many(
        self, rows: Iterable[PairMapping], submit: Callable[[PairMapping], Future[Answer]], bar: Any
    ) -> Iterator[Answer]:
        waiting: deque[Future[Answer]] = deque()
        source = iter(rows)
        row = next(source, None)
        try:
            while waiting or row is not None:
                while row is not None and len(waiting) < OPEN_AT_ONCE:
                    try:
                        waiting.append(submit(row))
                    except QueueFull:
                        if not waiting:
                            raise
                        break
                    row = next(source, None)
                if waiting:
                    answer = waiting.popleft().result()
                    if bar is not None:
                        bar.update()
                    yield answer
        finally:
            for future in waiting:
                future.cancel()
            if bar is not None:
                bar.close()


def count_answers(rows: Iterable[Any], unit: str) -> Any:
    """A bar for a terminal or a notebook."""
    from tqdm.auto import tqdm  # noqa: PLC0415 - only where a bar is wanted

    return tqdm(total=len(rows) if isinstance(rows, Sized) else None, unit=unit)


def collect(answers: Iterable[Answer]) -> AnswerList[Answer]:
    """All answers as a list that a notebook shows as a table."""
    return AnswerList(answers)


def _checked(model: Any, values: Mapping[str, Any]) -> Any:
    from pydantic import ValidationError  # noqa: PLC0415 - beside its only use

    try:
        return model(**values)
    except ValidationError as error:
        hint = "See JudgeSettings and EngineSettings for valid settings."
        raise explain(error, hint=hint) from None


def _readable(make: Callable[[], Found]) -> Found:
    try:
        return make()
    except BadRow as error:
        raise RlaifError(str(error), hint="Pass strings or lists of chat messages.") from None


def pair_row(
    given: PairMapping | Sequence[TextOrMessages], tags: Sequence[str] = ()
) -> dict[str, Any]:
    """`(prompt, a, b)` as a row; a row as it is.

    Raises:
        RlaifError: it is neither.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 3:
        raise RlaifError("a pair must be (prompt, a, b) or a row", hint=f"Got {str(given)[:80]!r}.")
    prompt, a, b = given
    return {"prompt": prompt, "response_a": a, "response_b": b, "tags": list(tags)}


def single_row(
    given: PairMapping | Sequence[TextOrMessages], tags: Sequence[str] = ()
) -> dict[str, Any]:
    """`(prompt, response)` as a row; a row as it is.

    Raises:
        RlaifError: it is neither.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise RlaifError(
            "a response must be (prompt, response) or a row", hint=f"Got {str(given)[:80]!r}."
        )
    prompt, response = given
    return {"prompt": prompt, "response": response, "tags": list(tags)}


def _then(future: Future[Found], change: Callable[[Found], Answer]) -> Future[Answer]:
    """A future of what `change` makes of another's result; canceling it cancels the other."""
    changed: Future[Answer] = Future()

    def hand_on(done: Future[Found]) -> None:
        if changed.cancelled():
            return
        try:
            changed.set_result(change(done.result()))
        except BaseException as error:  # also CancelledError: told to whoever waits
            changed.set_exception(error)

    def hand_back(done: Future[Answer]) -> None:
        if done.cancelled():
            future.cancel()

    future.add_done_callback(hand_on)
    changed.add_done_callback(hand_back)
    return changed


def _comparison(name: str, found: Preference, provenance: Provenance) -> Comparison:
    assert found.status != "human"
    return Comparison(
        id=name,
        status=found.status,
        winner=found.winner,
        p_a=found.p_a,
        margin=found.margin,
        reason=found.reason,
        deciding_tier=found.deciding_tier,
        order_consistency=found.order_consistency,
        principles=[PrincipleVerdict.of(score) for score in found.scores],
        provenance=provenance,
    )


def _score(name: str, point: PointwiseScore, provenance: Provenance) -> Score:
    marks = [
        PrincipleMark(
            principle=p.principle,
            tier=p.tier,
            weight=p.weight,
            p=p.p,
            label_mass=p.label_mass,
            invalid=p.invalid,
            grade=p.grade,
            spread=p.spread,
        )
        for p in point.principles
    ]
    return Score(
        id=name, score=point.score, reason=point.reason, principles=marks, provenance=provenance
    )


def _critique(name: str, remarks: Sequence[CritiqueResult], provenance: Provenance) -> Critique:
    found = [
        PrincipleCritique(
            principle=r.principle,
            critique=r.critique,
            finds_nothing=r.finds_nothing,
            revision=r.revision,
            failed=r.failed,
        )
        for r in remarks
    ]
    return Critique(id=name, principles=found, provenance=provenance)

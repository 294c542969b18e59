"""Several replicas: the same answers, whole contexts on one, and nothing lost by a death."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from rlaif.engines.base import Engine, EngineSettings, EngineStats
from rlaif.engines.registry import codec_for, create_engine
from rlaif.engines.replicas import Replica, ReplicatedEngine
from rlaif.engines.workers import MAX_RESTARTS, WorkerDied
from rlaif.errors import RlaifError
from rlaif.records import ChoiceRequest, ChoiceResult, Request
from rlaif.runs.context import RunContext
from tests.labeling.helpers import contents, label, write_inputs

pytestmark = pytest.mark.slow

SCRIPTED = EngineSettings(engine="scripted", model="hashed", max_in_flight=16)


def requests(contexts: int, each: int = 5) -> list[ChoiceRequest]:
    made = []
    for c in range(contexts):
        for k in range(each):
            text = f"context number {c:05} with some length, question {k}"
            shared = len(text) - 1 if k else 0
            made.append(ChoiceRequest(f"{c}/{k}", list(text.encode()), ((65,), (66,)), shared))
    return made


def answers(engine: Engine, asked) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for results in engine.run(asked):
        for result in results:
            assert isinstance(result, ChoiceResult)
            assert result.id not in found, "answered twice"
            found[result.id] = result.logprobs
    return found


class InProcessReplicas:
    """A backend whose replicas are plain objects that die when they are told to."""

    def __init__(self, dies: Callable[[int, int], bool] = lambda number, call: False) -> None:
        self.replicas: dict[int, Replica] = {}
        self.calls: list[tuple[int, list[Request]]] = []
        self.seen: list[tuple[int, list[Request]]] = []
        self.starting: list[int] = []
        self.started = 0
        self._dies = dies

    def start(self, number: int) -> None:
        self.started += 1
        self.starting.append(number)
        self.calls = [(n, c) for n, c in self.calls if n != number]
        self.replicas[number] = Replica(create_engine, SCRIPTED)

    def submit(self, number: int, portion) -> None:
        self.calls.append((number, list(portion)))

    def wait(self, seconds):
        if self.starting and (not self.calls or random.Random(len(self.seen)).random() < 0.5):
            number = self.starting.pop(0)
            return [(number, self.replicas[number].traits())]
        if not self.calls:
            return []
        number, portion = self.calls.pop(random.Random(len(self.seen)).randrange(len(self.calls)))
        mine = [(n, c) for n, c in [(number, portion), *self.calls] if n == number]
        if mine[0][1] is not portion:
            raise AssertionError
        self.seen.append((number, portion))
        if self._dies(number, len(self.seen)):
            self.calls = [(n, c) for n, c in self.calls if n != number]
            return [(number, WorkerDied("told to"))]
        return [(number, self.replicas[number].work(portion))]

    def close(self) -> None:
        pass


def test_replicas_answer_as_one_engine_does_and_share_the_work() -> None:
    asked = requests(60)
    expected = answers(create_engine(SCRIPTED), asked)
    backend = InProcessReplicas()
    engine = ReplicatedEngine(backend, codec_for(SCRIPTED), replicas=3, portion=8)
    assert answers(engine, iter(asked)) == expected
    assert {number for number, portion in backend.seen if portion} == {0, 1, 2}
    stats = engine.stats()
    assert stats.requests == len(asked)
    assert stats.prompt_tokens == sum(len(r.token_ids) for r in asked)
    assert answers(engine, iter(asked[:7])) == {r.id: expected[r.id] for r in asked[:7]}


def test_a_context_stays_whole_on_one_replica() -> None:
    backend = InProcessReplicas()
    engine = ReplicatedEngine(backend, codec_for(SCRIPTED), replicas=3, portion=7)
    answers(engine, iter(requests(40)))
    homes: dict[str, set[int]] = {}
    for number, portion in backend.seen:
        for request in portion:
            homes.setdefault(request.id.split("/")[0], set()).add(number)
    assert len(homes) == 40
    assert all(len(numbers) == 1 for numbers in homes.values())


@pytest.mark.parametrize("seed", range(8))
def test_deaths_lose_and_double_nothing(seed: int) -> None:
    rng = random.Random(seed)
    deaths = {rng.randrange(2, 40) for _ in range(MAX_RESTARTS)}
    backend = InProcessReplicas(lambda number, call: call in deaths)
    engine = ReplicatedEngine(backend, codec_for(SCRIPTED), replicas=3, portion=6)
    asked = requests(50)
    with_pauses = [x for r in asked for x in ((r, None) if rng.random() < 0.1 else (r,))]
    assert answers(engine, iter(with_pauses)) == answers(create_engine(SCRIPTED), asked)
    assert backend.started > 3


def test_replicas_that_die_again_and_again_are_an_error() -> None:
    backend = InProcessReplicas(lambda number, call: True)
    engine = ReplicatedEngine(backend, codec_for(SCRIPTED), replicas=2, portion=6)
    with pytest.raises(RlaifError, match=r"died 11 times without .* \(the last: told to\)"):
        answers(engine, iter(requests(5)))


class NeverAgain(InProcessReplicas):
    """Replicas that, once dead, are never ready again: a node that is gone."""

    def start(self, number: int) -> None:
        if number in self.replicas:
            self.started += 1
            self.calls = [(n, c) for n, c in self.calls if n != number]
        else:
            super().start(number)


def test_the_others_finish_while_a_dead_replica_waits_for_a_node() -> None:
    backend = NeverAgain(lambda number, call: number == 0 and call > 2)
    engine = ReplicatedEngine(backend, codec_for(SCRIPTED), replicas=3, portion=6)
    asked = requests(50)
    assert answers(engine, iter(asked)) == answers(create_engine(SCRIPTED), asked)
    assert backend.started == 4
    assert not engine._states[0].ready


def test_a_replica_that_does_not_start_is_an_error() -> None:
    class Broken(InProcessReplicas):
        def wait(self, seconds):
            return [(self.starting.pop(), WorkerDied("no such model", raised=True))]

    backend = Broken()
    with pytest.raises(RlaifError, match=r"replica 1 did not start \(no such model\)"):
        ReplicatedEngine(backend, codec_for(SCRIPTED), replicas=2, portion=6)
    assert backend.started == 2, "what raised is not tried again"


@pytest.mark.parametrize(("tries", "works"), [(1, True), (2, True), (3, False)])
def test_a_replica_that_dies_without_a_word_while_starting_is_started_again(
    tries: int, works: bool
) -> None:
    """A slow machine: Ray cancels an actor before it runs, or the system ends a process."""

    class Slow(InProcessReplicas):
        died = 0

        def wait(self, seconds):
            if self.starting and self.starting[0] == 1 and self.died < tries:
                self.died += 1
                return [(self.starting.pop(0), WorkerDied("cancelled before it ran"))]
            return super().wait(seconds)

    backend = Slow()
    asked = requests(30)

    def run() -> dict[str, tuple[float, ...]]:
        engine = ReplicatedEngine(backend, codec_for(SCRIPTED), replicas=2, portion=6)
        engine.wait_for_all()
        return answers(engine, iter(asked))

    if works:
        assert run() == answers(create_engine(SCRIPTED), asked)
        assert backend.started == 2 + tries
    else:
        with pytest.raises(RlaifError, match="replica 1 did not start"):
            run()


def test_portions_and_answers_larger_than_a_pipe_do_not_block() -> None:
    """Both ends once waited for the other to read."""
    import threading

    settings = SCRIPTED.model_copy(update={"data_parallel_size": 2, "max_in_flight": 4096})
    engine = create_engine(settings)
    asked = [
        ChoiceRequest(f"{i}", [i % 256] * 1500, ((65,), (66,)), 0) for i in range(12_000)
    ]  # 16 MB
    found: dict[str, tuple[float, ...]] = {}
    worker = threading.Thread(target=lambda: found.update(answers(engine, asked)), daemon=True)
    worker.start()
    worker.join(120)
    assert not worker.is_alive()
    assert len(found) == len(asked)
    engine.close()


@pytest.fixture(scope="module")
def two_processes() -> Iterator[ReplicatedEngine]:
    settings = EngineSettings(engine="packed", model="demo", data_parallel_size=2, max_in_flight=32)
    engine = create_engine(settings)
    assert isinstance(engine, ReplicatedEngine)
    yield engine
    engine.close()


def test_killed_process_is_replaced_and_its_questions_asked_again(two_processes) -> None:
    from tests.engines.test_packed import demo_requests

    asked = demo_requests(two_processes, 24)
    two_processes.wait_for_all()
    alone = answers(create_engine(EngineSettings(engine="packed", model="demo")), asked)
    processes = two_processes._backend._processes
    victim = processes[1].pid

    def then_kill() -> Iterator[ChoiceRequest]:
        for i, request in enumerate(asked):
            if i == 100:
                os.kill(victim, signal.SIGKILL)
            yield request

    found = answers(two_processes, then_kill())
    assert processes[1].pid != victim
    assert found.keys() == alone.keys()
    for name, logprobs in found.items():
        assert logprobs == pytest.approx(alone[name], abs=1e-4)


def test_more_copies_than_gpus_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif.engines.workers._count_gpus", lambda: 1)
    settings = EngineSettings(model="demo", data_parallel_size=2)
    with pytest.raises(RlaifError, match="2 replicas with 1 GPU each need 2, but there is 1"):
        create_engine(settings)


def test_ray_actor_is_killed_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """A local Ray cluster, the embedded judge in two actors, one killed while the run goes on."""
    import threading

    import ray

    settings = EngineSettings(
        engine="ray",
        model="demo",
        data_parallel_size=2,
        max_in_flight=32,
        options={"inner": "packed", "cpus": 0.5},
    )
    engine = create_engine(settings)
    try:
        from tests.engines.test_packed import demo_requests

        asked = demo_requests(engine, 30)
        alone = answers(create_engine(EngineSettings(engine="packed", model="demo")), asked)
        engine.wait_for_all()
        victim = engine._backend._actors[0]
        killed = threading.Event()

        def then_kill() -> Iterator[ChoiceRequest]:
            for i, request in enumerate(asked):
                if i == 120:
                    ray.kill(victim)
                    killed.set()
                    time.sleep(0.2)
                yield request

        found = answers(engine, then_kill())
        assert killed.is_set()
        assert engine._backend._actors[0] is not victim
        assert found.keys() == alone.keys()
        for name, logprobs in found.items():
            assert logprobs == pytest.approx(alone[name], abs=1e-4)
        assert isinstance(engine.stats(), EngineStats)
    finally:
        engine.close()


def test_labeling_on_ray_gives_the_same_run(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 60)
    label(data, constitution, tmp_path / "one")
    from rlaif.labeling.job import prepare, run_label
    from tests.labeling.helpers import settings

    plain = settings()
    judge = EngineSettings(
        engine="ray", model="hashed", data_parallel_size=2, options={"inner": "scripted"}
    )
    job = prepare(str(data), str(constitution), plain.model_copy(update={"judge": judge}))
    run_label(job, tmp_path / "two", context=RunContext(cache_dir=tmp_path / "two.sqlite"))
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_cluster_that_is_too_small_is_an_error_and_not_a_long_wait() -> None:
    settings = EngineSettings(
        engine="ray",
        model="hashed",
        data_parallel_size=40,
        options={"inner": "scripted", "cpus": 2.0},
    )
    with pytest.raises(
        RlaifError, match="40 replicas with 2 cores each need 80, but the cluster has"
    ):
        create_engine(settings)


def test_ray_options_that_make_no_sense_are_errors() -> None:
    for options in ({"inner": "ray"}, {"gpus": "many"}, {"cpus": -1.0}, {"cpus": float("nan")}):
        with pytest.raises(RlaifError):
            create_engine(EngineSettings(engine="ray", model="demo", options=options))


def test_a_cluster_that_nobody_runs_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(RlaifError, match=f"no Ray cluster at '{address}'"):
            create_engine(EngineSettings(engine="ray", model="x", options={"inner": "scripted"}))


def test_what_ray_says_of_a_death_is_kept_off_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    """Results go there, JSON too."""
    settings = EngineSettings(
        engine="ray",
        model="hashed",
        data_parallel_size=2,
        options={"inner": "scripted", "cpus": 0.5, "delay": 0.05},
    )
    killed: list[int] = []
    with closing(create_engine(settings)) as engine:
        engine.wait_for_all()
        asked = [ChoiceRequest(str(i), list(str(i).encode()), ((65,), (66,))) for i in range(2000)]
        answered = 0
        for results in engine.run(iter(asked)):
            answered += len(results)
            if not killed:
                family = psutil.Process().children(recursive=True)
                killed = [p.pid for p in family if "ray::_Actor" in " ".join(p.cmdline())][:1]
                os.kill(killed[0], signal.SIGKILL)
        time.sleep(2.0)  # for Ray to say it
    assert answered == len(asked)
    assert capfd.readouterr().out == ""

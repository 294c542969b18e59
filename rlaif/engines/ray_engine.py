"""Replicas as actors on a Ray cluster: `--engine ray`.

The cluster is the one that `RAY_ADDRESS` names (`ray start --head` prints it), else one on this
machine.  Each actor runs one of the other engines; the verdict cache and the run directory stay
with the process that asks, so an actor or a node can die at any time.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlaif.engines.base import EngineSettings, EngineSpec
from rlaif.engines.registry import can_generate, codec_for, create_engine, model_fingerprint
from rlaif.engines.replicas import Replica, ReplicatedEngine
from rlaif.engines.workers import MakeWorker, WorkerDied
from rlaif.errors import RlaifError

_log = logging.getLogger(__name__)
REACH_SECONDS = 10.0


class _Actor:
    """A worker on whatever node there is room."""

    def __init__(self, make: MakeWorker, settings: EngineSettings) -> None:
        self._worker = make(settings)

    def traits(self) -> Any:
        return self._worker.traits()

    def work(self, task: Any) -> Any:
        return self._worker.work(task)


class _HostActor:
    """Something that stays on the node of the process that asks, for the others to call."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._it = make()

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(self._it, name)(*arguments)


class _RemoteProxy:
    """What a `_HostActor` holds, called from another node."""

    def __init__(self, home: Any) -> None:
        self._home = home

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: ray.get(self._home.call.remote(name, *arguments))


class RayBackend:
    """Workers as Ray actors.

    Args:
        settings: of the engine inside each actor.
        gpus, cpus: that each actor reserves; no `gpus`: `tensor_parallel_size` of them where
            the cluster has any.
    """

    make: MakeWorker

    def __init__(self, settings: EngineSettings, *, gpus: float | None, cpus: float) -> None:
        self._settings = settings
        self._own = not ray.is_initialized()
        address = os.environ.get("RAY_ADDRESS") or "local"
        self._own_cluster = self._own and address == "local"
        if self._own:
            try:
                _reach(address)
                ray.init(
                    address=address,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="error",
                )
            except (RayError, OSError, RuntimeError, ValueError) as error:
                raise RlaifError(
                    f"no Ray cluster at {address!r} ({' '.join(str(error).split())[:200]})",
                    hint="Check RAY_ADDRESS, or unset it to start a cluster on this machine.",
                ) from None
            _keep_stdout()
        if gpus is None:
            has_gpus = ray.cluster_resources().get("GPU", 0)
            gpus = settings.tensor_parallel_size if has_gpus else 0
        self._gpus, self._cpus = gpus, cpus
        self._actor = ray.remote(_Actor).options(num_gpus=gpus, num_cpus=cpus)
        self._actors: dict[int, Any] = {}
        self._homes: list[Any] = []
        self._calls: dict[int, deque[Any]] = {}

    def host_proxy(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """See `Backend.host_proxy`: an actor on this node has it, and restarts if it dies."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        home = ray.remote(_HostActor).options(scheduling_strategy=here, **options).remote(make)
        self._homes.append(home)
        return partial(_RemoteProxy, home)

    def check_room(self, replicas: int) -> None:
        """Say what does not fit: an error where the cluster can't grow, else a warning.

        Raises:
            RlaifError: the cluster is one of our own, and too small.
        """
        have = ray.cluster_resources()
        for kind, name, each in (("GPU", "GPUs", self._gpus), ("CPU", "cores", self._cpus)):
            if replicas * each <= have.get(kind, 0):
                continue
            problem = (
                f"{replicas} replicas with {each:g} {name} each need {replicas * each:g}, "
                f"but the cluster has {have.get(kind, 0):g}"
            )
            if self._own_cluster:
                raise RlaifError(
                    problem,
                    hint=f"Lower --data-parallel-size, or set --option {kind.lower()}s=N (per "
                    "replica).",
                )
            _log.warning("%s; continuing with the replicas that start", problem)

    def start(self, number: int) -> None:
        """See `Backend.start`."""
        actor = self._actors[number] = self._actor.remote(self.make, self._settings)
        self._calls[number] = deque([actor.traits.remote()])

    def submit(self, number: int, task: Any) -> None:
        """See `Backend.submit`."""
        self._calls[number].append(self._actors[number].work.remote(task))

    def wait(self, seconds: float | None) -> list[tuple[int, Any]]:
        """See `Backend.wait`."""
        first = {calls[0]: number for number, calls in self._calls.items() if calls}
        if not first:
            time.sleep(seconds or 0)
            return []
        done, _ = ray.wait(list(first), num_returns=1, timeout=seconds)
        found: list[tuple[int, Any]] = []
        for call in done:
            number = first[call]
            self._calls[number].popleft()
            try:
                found.append((number, ray.get(call)))
            except RayError as error:
                if not isinstance(error, RayActorError):
                    ray.kill(self._actors[number])
                self._calls[number].clear()
                found.append((number, _died(error)))
        return found

    def close(self) -> None:
        """See `Backend.close`; ends the cluster if it was started here."""
        for actor in (*self._actors.values(), *self._homes):
            ray.kill(actor)
        self._actors.clear()
        self._homes.clear()
        if self._own and ray.is_initialized():
            ray.shutdown()


def _reach(address: str) -> None:
    """See that somebody listens: Ray would try for minutes.

    Raises:
        OSError: nobody does.
        ValueError: the address has no valid port.
    """
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), REACH_SECONDS).close()


def _keep_stdout() -> None:
    """Keep Ray's news (an actor died) off stdout, which is for results; `wait` tells them.

    `log_to_driver` leaves them on, and there is no other setting (Ray 2.60).
    """
    worker: Any = importlib.import_module("ray._private.worker")
    worker._worker_logs_enabled = False


def _died(error: RayError) -> WorkerDied:
    cause = getattr(error, "cause", None)
    known = cause if isinstance(cause, RlaifError) else None
    text = str(known or error).strip()
    # An actor that Ray canceled before it ran, on a slow node, has not raised anything.
    raised = isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False)
    return WorkerDied(" ".join(text.split("\n")[-1].split())[:300], known, raised=raised)


def inner_settings(settings: EngineSettings) -> EngineSettings:
    """The settings of the engine inside each actor."""
    options = {k: v for k, v in settings.options.items() if k not in ("inner", "gpus", "cpus")}
    inner = str(settings.options.get("inner", "vllm"))
    if inner == "ray":
        raise RlaifError(
            "option inner cannot be 'ray'",
            hint="Use the engine that each replica runs, such as vllm.",
        )
    return settings.model_copy(
        update={"engine": inner, "options": options, "data_parallel_size": 1}
    )


def _number(settings: EngineSettings, name: str) -> float | None:
    value = settings.options.get(name)
    if value is None:
        return None
    if isinstance(value, bool | str) or not 0 <= value < math.inf:
        raise RlaifError(
            f"invalid value {value!r} for option {name}", hint="Use a number of 0 or more."
        )
    return float(value)


def backend(settings: EngineSettings) -> RayBackend:
    """For `settings.data_parallel_size` workers on the cluster; see `create` for the options.

    Raises:
        RlaifError: there is no cluster, or it is too small and can't grow.
    """
    inner = inner_settings(settings)
    gpus, cpus = (_number(settings, name) for name in ("gpus", "cpus"))
    found = RayBackend(inner, gpus=gpus, cpus=1.0 if cpus is None else cpus)
    try:
        found.check_room(settings.data_parallel_size)
    except BaseException:
        found.close()
        raise
    return found


def create(settings: EngineSettings) -> ReplicatedEngine:
    """Start the actors.

    Options: `inner`, the engine inside (default vllm); `gpus` and `cpus` that each actor
    reserves (default: `tensor_parallel_size` GPUs where the cluster has any, and one core);
    all others go to the engine inside.
    """
    found = backend(settings)
    found.make = partial(Replica, create_engine)
    return ReplicatedEngine.start(found, codec_for(inner_settings(settings)), settings)


SPEC = EngineSpec(
    create=create,
    codec=lambda settings: codec_for(inner_settings(settings)),
    fingerprint=lambda settings: model_fingerprint(inner_settings(settings)),
    can_generate=lambda settings: can_generate(inner_settings(settings)),
    takes_nested_options=True,
    replicates_itself=True,
    backend=backend,
)

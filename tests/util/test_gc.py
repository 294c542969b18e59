"""Garbage is collected by the clock while labeling, and as before afterwards."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from rlaif.util import gc as collecting
from rlaif.util.gc import LEAST_SECONDS, SHARE, ThrottledGC


class Node:
    """Something that keeps itself alive."""

    def __init__(self) -> None:
        self.itself = self


def forget() -> weakref.ref[Node]:
    """A cycle that nothing else refers to."""
    return weakref.ref(Node())


class Clock:
    """Seconds that pass when told to, and `slow` more whenever garbage is collected."""

    def __init__(self, slow: float) -> None:
        self.seconds, self.slow, self.collected = 0.0, slow, 0

    def monotonic(self) -> float:
        return self.seconds

    def at_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            self.seconds += self.slow
            self.collected += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    gc.unfreeze()  # engines that ran in this process before freeze what they hold
    clock = Clock(slow=1.0)
    monkeypatch.setattr(collecting, "time", clock)
    gc.callbacks.append(clock.at_collection)
    yield clock
    gc.callbacks.remove(clock.at_collection)
    gc.enable()


def test_cycles_go_when_it_is_time_and_not_before(clock: Clock) -> None:
    with ThrottledGC() as garbage:
        cycle = forget()
        made = [[n] for n in range(100_000)]  # would set the usual collector off many times
        garbage.maybe_collect()
        assert not clock.collected
        assert cycle() is not None
        clock.seconds += LEAST_SECONDS
        garbage.maybe_collect()
        assert clock.collected == 1
        assert cycle() is None
        assert len(made) == 100_000
        # That took a second: the next waits until it is a hundredth of the time.
        later = forget()
        clock.seconds += 0.9 / SHARE
        garbage.maybe_collect()
        assert later() is not None
        clock.seconds += 0.2 / SHARE
        garbage.maybe_collect()
        assert later() is None
    assert gc.isenabled()
    assert not gc.get_freeze_count()


def test_what_was_there_before_is_collected_afterwards(clock: Clock) -> None:
    gc.disable()
    cycle = forget()
    gc.enable()
    with ThrottledGC() as garbage:
        clock.seconds += LEAST_SECONDS
        garbage.maybe_collect()
        assert cycle() is not None, "it is not looked at"
    gc.collect()
    assert cycle() is None


def test_a_collector_that_was_off_is_left_alone(clock: Clock) -> None:
    gc.disable()
    with ThrottledGC() as garbage:
        clock.seconds += LEAST_SECONDS
        garbage.maybe_collect()
        assert not clock.collected
    assert not gc.isenabled()


def test_an_error_gives_the_collector_back() -> None:
    garbage = ThrottledGC()

    def label() -> None:
        with garbage:
            assert not gc.isenabled()
            raise RuntimeError("engine")

    with pytest.raises(RuntimeError, match="engine"):
        label()
    assert gc.isenabled()


def test_what_was_frozen_before_stays_frozen() -> None:
    gc.freeze()
    try:
        with ThrottledGC():
            assert not gc.isenabled()
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()

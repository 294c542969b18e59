"""Runs a kernel on as many threads as torch uses, at best on torch's own."""

from __future__ import annotations

import ctypes
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

_LINE = 16
"""Floats in a line of a processor's cache, at which rooms and torch's memory begin."""


def run(kernel: Any, record: Any, items: int, room: int = 0, **fields: Any) -> None:
    """Call a kernel on every thread and wait until its work is done.

    Args:
        kernel, record: of `kernels`.
        items: pieces of work.
        room: floats that a thread needs to itself.
        fields: of the record; arrays and tensors are given as their addresses.
    """
    count = max(1, min(torch.get_num_threads(), items))
    counters = np.zeros(2, np.int64)
    room = -(-room // _LINE) * _LINE
    rooms = torch.empty(max(1, count * room), dtype=torch.float32)
    job = np.zeros(1, record)
    job["next"], job["entered"] = counters.ctypes.data, counters.ctypes.data + counters.itemsize
    job["items"], job["rooms"], job["room"] = items, rooms.data_ptr(), room
    for name, value in fields.items():
        job[name] = _address(value)
    team = _torch_team()
    if count == 1:
        _function(kernel.address)(job.ctypes.data)
    elif team is not None:
        team(kernel.address, job.ctypes.data, count, 0)
    else:
        call = _function(kernel.address)
        others: list[Future[None]] = []
        try:
            for _ in range(count - 1):
                others.append(_pool().submit(call, job.ctypes.data))
            call(job.ctypes.data)
        finally:
            _wait_for(others)  # they write into memory that ends with this call


def _wait_for(others: list[Future[None]]) -> None:
    """Wait, whatever interrupts it; then be interrupted."""
    interrupted: BaseException | None = None
    while not all(other.done() for other in others):
        try:
            wait(others)
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _address(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.data_ptr()
    return value.ctypes.data if isinstance(value, np.ndarray) else value


@cache
def _function(address: int) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="rlaif-kernel")


@cache
def _torch_team() -> Any:
    """OpenMP's way to call a function on every thread of a team, of the library that torch uses.

    A second set of threads would compete with torch's, which wait by spinning.  None where torch
    has another OpenMP or none.
    """
    for library in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        try:
            start = ctypes.CDLL(str(library)).GOMP_parallel
        except (AttributeError, OSError):
            continue
        start.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
        start.restype = None
        return start
    return None

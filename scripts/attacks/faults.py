"""What machines do to a command: full disks, missing descriptors, lost time, closed terminals."""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Fault = Callable[[Path, random.Random], None]
_ERRORS = {
    "ENOSPC": errno.ENOSPC,
    "EROFS": errno.EROFS,
    "EACCES": errno.EACCES,
    "EIO": errno.EIO,
    "EDQUOT": errno.EDQUOT,
    "EMFILE": errno.EMFILE,
    "ESTALE": errno.ESTALE,
}


def _after(rng: random.Random) -> Callable[[], bool]:
    """Whether it is time: from the n-th call on, for good or (half of the time) just once."""
    left, once = rng.choice([0, 1, 2, 3, 5, 8, 13, 30]), rng.random() < 0.5
    lock = threading.Lock()

    def due() -> bool:
        nonlocal left
        with lock:
            left -= 1
            return left == -1 if once else left < 0

    return due


def _in_work(path: Any, folder: Path) -> bool:
    return isinstance(path, str | os.PathLike) and str(Path(path).absolute()).startswith(
        str(folder)
    )


def _opening(code: int) -> Fault:
    def begin(folder: Path, rng: random.Random) -> None:
        due, whole, low = _after(rng), io.open, os.open

        def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            if set("wax+") & set(mode) and _in_work(file, folder) and due():
                raise OSError(code, os.strerror(code), str(file))
            return whole(file, mode, *args, **more)

        def opened_low(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR) and _in_work(path, folder) and due():
                raise OSError(code, os.strerror(code), str(path))
            return low(path, flags, *args, **more)

        builtins.open = io.open = opened
        os.open = opened_low

    return begin


def _calling(name: str, code: int) -> Fault:
    def begin(folder: Path, rng: random.Random) -> None:
        due, whole = _after(rng), getattr(os, name)

        def called(*args: Any, **more: Any) -> Any:
            if due():
                raise OSError(code, os.strerror(code), str(args[0]))
            return whole(*args, **more)

        setattr(os, name, called)

    return begin


def _reading(code: int) -> Fault:
    def begin(folder: Path, rng: random.Random) -> None:
        due, whole = _after(rng), io.open

        def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            if not set("wax+") & set(mode) and _in_work(file, folder) and due():
                raise OSError(code, os.strerror(code), str(file))
            return whole(file, mode, *args, **more)

        builtins.open = io.open = opened

    return begin


def _database(message: str) -> Fault:
    def begin(folder: Path, rng: random.Random) -> None:
        due, whole = _after(rng), sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, *args: Any) -> sqlite3.Cursor:
                if due():
                    raise sqlite3.OperationalError(message)
                return super().execute(*args)

        def connect(*args: Any, **more: Any) -> sqlite3.Connection:
            found: sqlite3.Connection = whole(*args, **{"factory": Connection, **more})
            return found

        sqlite3.connect = connect  # type: ignore[assignment]

    return begin


def _limit(what: int, values: tuple[int, ...]) -> Fault:
    def begin(folder: Path, rng: random.Random) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        value = rng.choice(values)
        resource.setrlimit(what, (value, value))

    return begin


def _threads(folder: Path, rng: random.Random) -> None:
    due, whole = _after(rng), threading.Thread.start

    def start(self: threading.Thread) -> None:
        if due():
            raise RuntimeError("can't start new thread")
        whole(self)

    threading.Thread.start = start  # type: ignore[method-assign]


def _clock(change: Callable[[float, int], float]) -> Fault:
    def begin(folder: Path, rng: random.Random) -> None:
        whole, calls = time.time, 0

        def now() -> float:
            nonlocal calls
            calls += 1
            return change(whole(), calls)

        time.time = now

    return begin


def _closing(*descriptors: int) -> Fault:
    def begin(folder: Path, rng: random.Random) -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return begin


def _redirected(path: str, *descriptors: int) -> Fault:
    def begin(folder: Path, rng: random.Random) -> None:
        file = os.open(path, os.O_WRONLY)
        for descriptor in descriptors:
            os.dup2(file, descriptor)

    return begin


def _environment(**values: str | None) -> Fault:
    def begin(folder: Path, rng: random.Random) -> None:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value.replace("FOLDER", str(folder))

    return begin


def _linked(name: str) -> Fault:
    """A link of this name stands where the command writes, and leads to a file of the user's."""

    def begin(folder: Path, rng: random.Random) -> None:
        victim = folder.parent / "victim"
        victim.write_text("mine")
        out = folder / "out"
        out.mkdir(exist_ok=True)
        link = out / name
        if not link.exists():
            link.symlink_to(victim)

    return begin


def _gone(folder: Path, rng: random.Random) -> None:
    nowhere = folder / "nowhere"
    nowhere.mkdir()
    os.environ["TMPDIR"] = str(nowhere)
    nowhere.rmdir()


def _pipe(folder: Path, rng: random.Random) -> None:
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(write)
    os.close(read)


FAULTS: tuple[tuple[str, Fault], ...] = (
    *((f"open for writing: {name}", _opening(code)) for name, code in _ERRORS.items()),
    *((f"open for reading: {name}", _reading(code)) for name, code in _ERRORS.items()),
    *(
        (f"{call}: {name}", _calling(call, _ERRORS[name]))
        for call in ("replace", "mkdir", "unlink", "fsync", "stat", "scandir", "truncate", "rename")
        for name in ("ENOSPC", "EROFS", "EACCES", "EIO")
    ),
    *(
        (f"{call}: EIO", _calling(call, errno.EIO))
        for call in ("listdir", "link", "utime", "rmdir")
    ),
    *(
        (f"database: {message}", _database(message))
        for message in (
            "database or disk is full",
            "disk I/O error",
            "database is locked",
            "attempt to write a readonly database",
            "unable to open database file",
            "database disk image is malformed",
        )
    ),
    *(
        (f"files of at most {n} bytes", _limit(resource.RLIMIT_FSIZE, (n,)))
        for n in (0, 100, 4096, 20_000)
    ),
    *((f"{n} descriptors", _limit(resource.RLIMIT_NOFILE, (n,))) for n in (6, 9, 12, 16, 24)),
    ("no more threads", _threads),
    ("clock in 1970", _clock(lambda now, n: float(n))),
    ("clock in 2100", _clock(lambda now, n: now + 2.3e9)),
    ("clock runs backwards", _clock(lambda now, n: now - 10.0 * n)),
    ("clock jumps", _clock(lambda now, n: now + 1e6 * (n % 3 - 1))),
    ("closed stdin", _closing(0)),
    ("closed stdout", _closing(1)),
    ("closed stderr", _closing(2)),
    ("all closed", _closing(0, 1, 2)),
    ("full stdout", _redirected("/dev/full", 1)),
    ("full stderr", _redirected("/dev/full", 2)),
    ("full stdout and stderr", _redirected("/dev/full", 1, 2)),
    ("nobody reads stdout", _pipe),
    ("no temporary folder", _gone),
    ("no home", _environment(HOME=None)),
    ("a home that is a file", _environment(HOME="/dev/null", RLAIF_CACHE_DIR=None)),
    ("a cache that is a file", _environment(RLAIF_CACHE_DIR="/dev/null")),
    ("a cache in nowhere", _environment(RLAIF_CACHE_DIR="/proc/nowhere")),
    ("a Latin terminal", _environment(PYTHONIOENCODING="latin-1", LC_ALL="C", LANG="C")),
    ("one column", _environment(COLUMNS="1", LINES="1", TERM="dumb")),
    ("odd proxies", _environment(HTTP_PROXY="://", ALL_PROXY="nonsense://x", NO_PROXY="")),
    *(
        (f"a link at {name}", _linked(name))
        for name in (
            ".lock",
            ".manifest.json.tmp",
            ".run.yaml.tmp",
            "preferences.jsonl",
            "run.yaml",
        )
    ),
)

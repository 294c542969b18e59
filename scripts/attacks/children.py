"""Runs one command in a forked child, with limits, and says how it ended."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10.0
"""Within which every command must end; of its own time, and some more on the clock."""
MEMORY = 1536 << 20
"""Bytes that no command may need more than."""


_SENT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative for a signal.
        seconds: on the clock.
        memory: the most that it held, in bytes.
    """

    code: int
    out: str
    err: str
    seconds: float
    memory: int
    killed: bool = False

    def faults(self, *, mute: bool = False) -> list[str]:
        """What must never happen, and did.

        Args:
            mute: its standard error could not be written.
        """
        found = []
        text = self.out + self.err
        if "Traceback (most recent call last)" in text:
            found.append("traceback")
        if self.code not in (0, 1, 2, 130, 143) and not self.killed:
            found.append(f"exit code {self.code}")
        if self.seconds > SECONDS * 6 or self.code in (-signal.SIGXCPU, -signal.SIGALRM):
            found.append("hang")
        if self.memory > MEMORY:
            found.append(f"{self.memory >> 20} MiB")
        if "\x1b" in text:
            found.append("terminal escape")
        if self.code == 2 and not (self.killed or mute or self.err.strip()):
            found.append("no word of what is wrong")
        return found


def run_command(
    words: list[str],
    folder: Path,
    *,
    prepare: Callable[[], None] = lambda: None,
    kill_after: float | None = None,
    sign: int = signal.SIGKILL,
) -> Ended:
    """Run `rlaif` with these words in a forked child.

    Args:
        folder: the working directory; the caches are in it, too.
        prepare: called in the child before the command.
        kill_after: seconds after which the child is sent `sign`.
    """
    log = folder / ".log"
    log.mkdir(exist_ok=True)
    for name in ("out", "err"):
        (log / name).write_bytes(b"")
    began = time.monotonic()
    # A signal that comes before the child is ready must not unwind the parent's calls in it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SENT)
    child = os.fork()
    if child == 0:
        _become(words, folder, log, prepare)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SENT)
    killed = False
    deadline = began + SECONDS * 9
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            break
        now = time.monotonic()
        if kill_after is not None and not killed and now - began >= kill_after:
            os.kill(child, sign)
            killed = True
        if now > deadline:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return Ended(-signal.SIGALRM, "", "no end", now - began, usage.ru_maxrss << 10)
        time.sleep(0.002)
    return Ended(
        os.waitstatus_to_exitcode(status),
        (log / "out").read_text(errors="replace"),
        (log / "err").read_text(errors="replace"),
        time.monotonic() - began,
        usage.ru_maxrss << 10,
        killed,
    )


def _become(words: list[str], folder: Path, log: Path, prepare: Callable[[], None]) -> None:
    """The child: ends with the command's exit code."""
    code = 70
    try:
        os.chdir(folder)
        os.environ["RLAIF_CACHE_DIR"] = str(folder / "cache")
        os.environ["HOME"] = str(folder)
        for descriptor, name in ((1, "out"), (2, "err")):
            file = os.open(log / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(file, descriptor)
            os.close(file)
        resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS * 2), int(SECONDS * 2) + 5))
        sys.argv = ["rlaif", *words]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SENT)
        from rlaif.cli.main import main

        prepare()
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except KeyboardInterrupt:
        code = 130  # before the command began
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)

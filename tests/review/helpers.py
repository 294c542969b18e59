"""A small labeled run to be reviewed, and its server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from rlaif.review.start import open_store
from rlaif.review.store import ReviewStore
from tests.labeling.helpers import CONSTITUTION, label

HOSTILE = (
    '<script>window.pwned = 1</script><img src=x onerror="window.pwned = 2">'
    "</textarea><svg onload='window.pwned = 3'>{{ 7 * 7 }}"
)


def labeled(
    folder: Path, pairs: int = 40, *, prompt_injection: bool = False, **changes: Any
) -> Path:
    """A run of the scripted engine: its verdicts are drawn from hashes."""
    lines = []
    for i in range(pairs):
        a, b = f"the answer to {i} is short", f"the answer to {i} is a longer one, with more words"
        if prompt_injection:
            a, b = f"{HOSTILE} {i}", f"plain {HOSTILE}"
        lines.append(
            {
                "id": f"n{i}",
                "prompt": f"what is {i}? {HOSTILE if prompt_injection else ''}",
                "response_a": a,
                "response_b": b,
                "tags": ["rare"] if i == 7 else ["common"],
                "response_a_model": "some/model",
            }
        )
    data, constitution = folder / "pairs.jsonl", folder / "constitution.yaml"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    constitution.write_text(CONSTITUTION)
    label(data, constitution, folder / "run", **changes)
    return folder / "run"


def store_of(run: Path, budget: int = 20, **changes: Any) -> ReviewStore:
    """An open desk with a queue."""
    return open_store(run, budget, **changes).store


@contextmanager
def serving(run: Path, *flags: str, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`rlaif review` as a user starts it: its address, and the process."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "rlaif", "review", str(run), "--port", str(port), *flags]
    log = run.parent / f"review-{port}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(url, timeout=5)
                break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        process.wait(30)

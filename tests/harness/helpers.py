"""A running server, and labels to hold every harness against."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext
from rlaif.runs.directory import read_rows

TOKEN = "let-me-in"
ALIAS = "gpt-4o-2024-08-06"


@dataclass(frozen=True)
class Server:
    """A server to ask."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        sent = {"Authorization": f"Bearer {TOKEN}", **headers}
        return httpx.post(f"{self.url}{path}", json=body, headers=sent, timeout=120)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(
            f"{self.url}{path}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
        )

    def chat(self, dialect: str, text: str, **more: Any) -> httpx.Response:
        body = {
            "model": f"rlaif/demo:{dialect}",
            "messages": [{"role": "user", "content": text}],
            **more,
        }
        return self.post("/v1/chat/completions", body)


@contextmanager
def start_server(folder: Path, *flags: str) -> Iterator[Server]:
    """`rlaif serve` on a free port, with a token, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "rlaif",
                "serve",
                "-c",
                "demo",
                "--port",
                str(port),
                "--alias",
                f"{ALIAS}=demo:rewardbench",
                "--cache-dir",
                str(folder / "cache"),
                *flags,
            ],
            env={**os.environ, "RLAIF_TOKEN": TOKEN},
            stdout=out,
            stderr=out,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        for _ in range(1200):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
            try:
                if server.get("/health").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.25)
        else:
            raise RuntimeError(f"the server does not answer: {log.read_text()[-2000:]}")
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@dataclass(frozen=True)
class Labeled:
    """Pairs, and what `rlaif label` says: by id `p_a`, winner ("a", "b" or None) and principles."""

    rows: list[dict[str, str]]
    p_a: Mapping[str, float]
    winner: Mapping[str, str | None]

    @property
    def win_rate(self) -> float:
        """Of response a; ties are halves."""
        points = {"a": 1.0, "b": 0.0, None: 0.5}
        return sum(points[w] for w in self.winner.values()) / len(self.winner)


def label_pairs(folder: Path, count: int) -> Labeled:
    """Label pairs of the demo world on another engine than the server's."""
    world = World(9, "test")
    # Prompts differ: AlpacaEval joins the two models' outputs by their instruction.
    pairs = list({pair.prompt: pair for pair in world.pairs(4 * count)}.values())[:count]
    rows = [
        {"id": f"p{i}", "prompt": p.prompt, "response_a": p.response_a, "response_b": p.response_b}
        for i, p in enumerate(pairs)
    ]
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = EngineSettings(engine="packed", model="demo")
    job = prepare(str(data), "demo", LabelSettings(judge=judge, template="demo"))
    run_label(job, folder / "run", context=RunContext(cache_dir=folder / "cache.sqlite"))
    p_a: dict[str, float] = {}
    winner: dict[str, str | None] = {}
    texts = {row["id"]: row for row in rows}
    for _, row in read_rows(folder / "run" / "preferences.jsonl"):
        name = row["provenance"]["id"]
        a_won = row["chosen"][0]["content"] == texts[name]["response_a"]
        winner[name] = "a" if a_won else "b"
        p_a[name] = row["p_chosen"] if a_won else 1 - row["p_chosen"]
    for _, row in read_rows(folder / "run" / "undecided.jsonl"):
        assert row["provenance"]["status"] == "tie"
        winner[row["provenance"]["id"]] = None
        p_a[row["provenance"]["id"]] = row["p_a"]
    assert len(p_a) == count
    return Labeled(rows, p_a, winner)

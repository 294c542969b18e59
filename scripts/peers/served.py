"""Ways of asking that send one request per verdict to a vLLM server: a client, and other labelers.

Labelers run their own code in environments of their own, which are made once; the server is the
one of this environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import torch

from peers.asked import principle_first
from peers.in_process import Runner
from rlaif.labeling.job import LabelJob

CONCURRENCY = 64
LABELERS = {"distilabel": ["distilabel[openai]==1.5.3", "requests"], "oumi": ["oumi==0.9"]}
"""Labelers and what their environments hold."""


def end(process: subprocess.Popen[Any]) -> None:
    """End a process, and wait until what it held is free."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_server(model: str, dtype: str, stack: ExitStack) -> str:
    """The URL of a vLLM server, which ends with the stack.

    Raises:
        RuntimeError: it did not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        model,
        "--served-model-name",
        "judge",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--max-model-len",
        "4096",
    ]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"}
    if not torch.cuda.is_available():
        # Of the ways tried on two cores the fastest: small blocks, and threads that may move.
        command += ["--enforce-eager", "--block-size", "32"]
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    if not any(Path(model).glob("*.safetensors")):
        command += ["--load-format", "dummy"]
    if dtype != "auto":
        command += ["--dtype", dtype]
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    stack.callback(end, server)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            return f"http://127.0.0.1:{port}/v1"
        except (urllib.error.URLError, OSError):
            if server.poll() is not None:
                break
            time.sleep(0.5)
    raise RuntimeError("the vLLM server did not start")


def run_http(model: str, dtype: str, stack: ExitStack) -> Runner:
    """A client with a fixed number of requests under way."""
    url = start_server(model, dtype, stack) + "/chat/completions"

    async def ask_all(prompts: list[str]) -> float:
        waiting = iter(prompts)

        async def worker(session: aiohttp.ClientSession) -> None:
            for text in waiting:
                body = {
                    "model": "judge",
                    "messages": [{"role": "user", "content": text}],
                    "max_tokens": 1,
                    "temperature": 0,
                    "logprobs": True,
                    "top_logprobs": 5,
                }
                async with session.post(url, json=body) as answer:
                    answer.raise_for_status()
                    await answer.json()

        connector = aiohttp.TCPConnector(limit=CONCURRENCY)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            began = time.perf_counter()
            await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))
            return time.perf_counter() - began

    return lambda job, folder: asyncio.run(ask_all(principle_first(job)))


def labeler_python(name: str, work: Path) -> Path:
    """The Python of a labeler's environment below `work`, made the first time.

    Raises:
        CalledProcessError: its packages can't be installed.
    """
    folder = work / name
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {name} in {folder} ...", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *LABELERS[name]], check=True)
        (folder / "complete").touch()
    return python


def run_labeler(name: str, model: str, dtype: str, work: Path, stack: ExitStack) -> Runner:
    """A labeler asked through its own driver, a process that reads jobs line by line."""
    python = labeler_python(name, work)
    url = start_server(model, dtype, stack)
    driver = subprocess.Popen(
        [python, Path(__file__).parent / "drivers" / f"ask_{name}.py", url, str(CONCURRENCY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OUMI_DISABLE_TELEMETRY": "1"},
    )
    stack.callback(end, driver)
    assert driver.stdin
    assert driver.stdout
    tell, hear = driver.stdin, driver.stdout

    def run(job: LabelJob, folder: Path) -> float:
        prompts = folder / "prompts.json"
        prompts.write_text(json.dumps(principle_first(job)), encoding="utf-8")
        print(prompts, file=tell, flush=True)
        for line in hear:  # a library may print lines of its own
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise RuntimeError(f"{name} stopped")

    return run

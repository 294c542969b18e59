"""A judge behind a real vLLM server reads as the reference does; errors are told in one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.errors import RlaifError
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, GenerationRequest, GenerationResult
from rlaif.util.resources import demo_model
from tests.engines.test_exactness import requests
from tests.engines.test_openai_engine import Server

pytestmark = pytest.mark.slow


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = (tmp_path_factory.mktemp("server") / "log").open("w")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(demo_model("judge")),
            "--served-model-name",
            "judge",
            "--port",
            str(port),
            "--dtype",
            "float32",
            "--enforce-eager",
            "--block-size",
            "32",
            "--enable-scale-out",
            "--hf-overrides",
            json.dumps({"head_dtype": "float32"}),
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"},
    )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(600):
            assert process.poll() is None, Path(log.name).read_text()[-2000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()
        log.close()


def settings(url: str, **options: object) -> EngineSettings:
    return EngineSettings(
        engine="vllm-server", model="demo", max_in_flight=16, options={"base_url": url, **options}
    )


def test_label_probabilities_are_those_of_the_reference(vllm_server: str) -> None:
    with closing(create_engine(EngineSettings(engine="transformers", model="demo"))) as reference:
        asked = requests(reference, 4)
        expected = {r.id: r for batch in reference.run(asked) for r in batch}
    with closing(create_engine(settings(vllm_server, served="judge"))) as engine:
        found = {r.id: r for batch in engine.run(requests(engine, 4)) for r in batch}
        assert found.keys() == expected.keys()
        for name, result in found.items():
            assert isinstance(result, ChoiceResult)
            assert result.logprobs == pytest.approx(expected[name].logprobs, abs=1e-3)
        written = [
            r
            for batch in engine.run([GenerationRequest("w", asked[0].token_ids, 8)])
            for r in batch
        ]
        assert isinstance(written[0], GenerationResult)
        assert 0 < len(written[0].token_ids) <= 8
        (long,) = [r for b in engine.run([ChoiceRequest("l", [5] * 5000, ((1,), (2,)))]) for r in b]
        assert isinstance(long, Failure)
        assert "the limit is 1023" in long.reason
        assert engine.stats().requests == len(found) + 2


def test_what_a_server_lacks_is_told(vllm_server: str) -> None:
    with pytest.raises(
        RlaifError, match=r"the server has no model 'other'\. Available models: judge"
    ):
        create_engine(settings(vllm_server, served="other"))
    with pytest.raises(RlaifError, match="no server answers at"):
        create_engine(settings(f"http://127.0.0.1:{free_port()}/v1"))
    with pytest.raises(RlaifError, match="has no option 'serve'"):
        create_engine(settings(vllm_server, serve="x"))
    with pytest.raises(RlaifError, match="needs a server address"):
        create_engine(EngineSettings(engine="vllm-server", model="demo"))
    other = Server()
    other.start()
    try:
        with pytest.raises(RlaifError, match="the server has 0 models"):
            create_engine(settings(other.url, retries=0))
    finally:
        other.stop()

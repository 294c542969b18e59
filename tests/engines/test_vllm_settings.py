"""What vLLM is told: its options, the head's numbers, and what its cache holds."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from safetensors.torch import load_file

from rlaif.cli.common.model_flags import spread
from rlaif.cli.main import cli
from rlaif.engines.admission import Admission
from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.registry import create_engine
from rlaif.engines.vllm_start import cache_tokens, has_quantized_head, head_overrides
from rlaif.errors import RlaifError
from rlaif.records import ChoiceRequest, ChoiceResult
from rlaif.util.resources import demo_model
from scripts.replay_scheduler import Replay, replay
from tests.labeling.helpers import write_inputs


def model(folder: Path, **config: Any) -> ModelFiles:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return resolve_model(str(folder), None)


def test_a_quantized_head_keeps_its_numbers_and_others_are_in_float32(tmp_path: Path) -> None:
    gptq = {"quant_method": "gptq", "bits": 4}
    heads = {
        "plain": ({}, False),
        "body": ({"quantization_config": {**gptq, "lm_head": False}}, False),
        "unsaid": ({"quantization_config": gptq}, False),
        "head": ({"quantization_config": {**gptq, "lm_head": True}}, True),
        "odd": ({"quantization_config": ["x"]}, False),
    }
    for name, (config, quantized) in heads.items():
        files = model(tmp_path / name, **config)
        assert has_quantized_head(files) is quantized, name
        own = {} if quantized else {"head_dtype": "float32"}
        assert head_overrides(files, EngineSettings(model="x")) == own
    given = {"hf_overrides": {"head_dtype": "model", "rope_theta": 1.0}}
    settings = EngineSettings(model="x", options=given)
    assert head_overrides(files, settings) == given["hf_overrides"]
    settings = EngineSettings(model="x", options={"hf_overrides": {"rope_theta": 2.0}})
    assert head_overrides(files, settings) == {"head_dtype": "float32", "rope_theta": 2.0}
    with pytest.raises(RlaifError, match="hf_overrides is 'model', not a mapping"):
        head_overrides(files, EngineSettings(model="x", options={"hf_overrides": "model"}))


@pytest.mark.parametrize(
    ("blocks", "size", "length", "counted", "held"),
    [
        (1000, 32, 2048, None, 32_000),  # a version that counts none
        (1000, 32, 2048, 32_000, 32_000),
        (1000, 32, 2000, int(1000 / 63 * 2000), 32_000),  # a last block in part
        (1000, 32, 2048, 90_000, 32_000),  # windows: longer sequences fit, not more short ones
        (1000, 32, 2048, 8_000, 8_000),  # four groups of layers share the blocks
    ],
)
def test_a_cache_is_counted_in_tokens(
    blocks: int, size: int, length: int, counted: int | None, held: int
) -> None:
    cache = SimpleNamespace(num_gpu_blocks=blocks, block_size=size)
    assert cache_tokens(cache, length) == held if counted is None else True
    cache.kv_cache_size_tokens = counted
    assert cache_tokens(cache, length) == held


def test_options_are_lists_and_mappings_in_json() -> None:
    given = (
        'hf_overrides={"head_dtype": "model"}',
        "cudagraph_capture_sizes=[1, 2]",
        "enforce_eager=true",
        "load_format=dummy",
    )
    assert spread({"engine_options": given})["options"] == {
        "hf_overrides": {"head_dtype": "model"},
        "cudagraph_capture_sizes": [1, 2],
        "enforce_eager": True,
        "load_format": "dummy",
    }
    with pytest.raises(RlaifError, match=r"--option hf_overrides is no valid JSON: '\{head_dt"):
        spread({"engine_options": ("hf_overrides={head_dtype: model}",)})


def test_engines_of_plain_options_refuse_others(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 4)
    done = CliRunner().invoke(
        cli,
        [
            *("label", str(data), "-c", str(constitution), "--judge", "hash:0"),
            *("--engine", "scripted", "--option", 'x={"y": 1}', "-o", str(tmp_path / "run")),
        ],
    )
    assert "option x of engine 'scripted' is a plain value, not {'y': 1}" in str(done.exception)
    with pytest.raises(RlaifError, match="option batch_size of engine 'transformers'"):
        create_engine(
            EngineSettings(model="demo", engine="transformers", options={"batch_size": [4]})
        )


def test_code_and_secrets_are_found_at_any_depth() -> None:
    for options in (
        {"hf_overrides": {"trust_remote_code": True}},
        {"a": [{"b": {"trust_remote_code": "true"}}]},
    ):
        with pytest.raises(ValidationError, match="the code of a model is never run"):
            EngineSettings(model="x", options=options)
    with pytest.raises(ValidationError, match="x: use a text, a number"):
        EngineSettings(model="x", options={"x": None})
    kept = EngineSettings(
        model="x", options={"a": {"b": ["https://me:secret@example.org/x"]}}
    ).model_dump(mode="json")
    assert "secret" not in json.dumps(kept)


def test_a_recipe_names_no_code_within_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_IN_RECIPE", "1")
    options = {"compilation": {"worker_cls": "mine.Worker"}}
    with pytest.raises(ValidationError, match="worker_cls: a recipe can't name code"):
        EngineSettings(model="x", options=options)


@pytest.mark.slow
def test_one_engine_of_two_in_a_process_may_be_closed(demo_judge: Engine) -> None:
    """vLLM itself would take down what the other one needs."""
    ids = demo_judge.codec.encode_chat([{"role": "user", "content": "Which?"}])

    def ask(engine: Engine, name: str) -> tuple[float, ...]:
        ((answer,),) = engine.run([ChoiceRequest(name, ids, ((5,), (9,)))])
        assert isinstance(answer, ChoiceResult)
        return answer.logprobs

    before = ask(demo_judge, "before")
    with closing(create_engine(EngineSettings(model="demo"))) as other:
        assert ask(other, "other") == pytest.approx(before, abs=1e-4)
    assert ask(demo_judge, "after") == pytest.approx(before, abs=1e-4)


@pytest.mark.slow
def test_a_core_in_a_process_of_its_own_answers_alike_and_takes_weights(
    demo_judge: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; here it is asked for by vLLM's own variable."""
    prompts = [demo_judge.codec.encode_chat([{"role": "user", "content": t}]) for t in "abcdef"]
    asked = [
        ChoiceRequest(str(i), prompt, ((5,), (9, 11))) for i, prompt in enumerate(prompts * 20)
    ]

    def answers(engine: Engine) -> dict[str, tuple[float, ...]]:
        found = {}
        for batch in engine.run([replace(r, id=f"{r.id}/{id(engine)}") for r in asked]):
            for one in batch:
                assert isinstance(one, ChoiceResult)
                found[one.id.partition("/")[0]] = one.logprobs
        return found

    expected = answers(demo_judge)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    with closing(create_engine(EngineSettings(model="demo"))) as engine:
        assert engine.fingerprint == demo_judge.fingerprint
        found = answers(engine)
        assert found.keys() == expected.keys()
        for name, values in found.items():
            assert values == pytest.approx(expected[name], abs=1e-4)
        weights = load_file(demo_model("judge") / "model.safetensors")
        changed = {
            name: tensor * 0.5 if "norm" in name else tensor for name, tensor in weights.items()
        }
        engine.load_weights(changed.items())  # type: ignore[attr-defined]
        moved = answers(engine)
        assert max(abs(moved[k][0] - found[k][0]) for k in found) > 0.01
        engine.load_weights(weights.items())  # type: ignore[attr-defined]
        assert answers(engine)["3"] == pytest.approx(found["3"], abs=1e-4)


def test_requests_come_in_by_tokens() -> None:
    """Short questions by the hundred; long ones until the cache is full; a count if it was set."""
    admission = Admission(capacity=320_000, step=16_384)
    assert admission.has_room(0, 10**9)
    assert admission.has_room(255, 200_000)  # as many as ever
    assert not admission.has_room(255, 256_000)  # but what the cache holds
    assert admission.has_room(1200, 1200 * 40)
    assert not admission.has_room(1229, 1229 * 40)
    assert not admission.has_room(4096, 0)
    assert admission.count_requests(48) == 1024
    assert Admission(1 << 20, 4096).count_requests(48) == 256
    told = Admission(capacity=320_000, step=16_384, most=8)
    assert told.has_room(7, 10_000)
    assert not told.has_room(8, 0)
    assert told.count_requests(48) == 8
    assert Admission(1280, 4096).count_requests(48) == 21


@pytest.mark.slow
@pytest.mark.parametrize("principles", [4, 16, 64])
def test_the_scheduler_keeps_a_large_gpu_busy(principles: int) -> None:
    """vLLM's scheduler on a job for an 8B judge, with modeled times: no time is measured."""
    job = Replay(contexts=max(48, 256 // principles), principles=principles)
    found = replay(job)
    assert found.busy >= 0.9, found
    assert found.computed < 1.2
    # By count, as it was, a large step is never full of short questions.
    if principles == 64:
        before = replay(replace(job, most=256))
        assert before.busy < 0.85
        assert before.step < found.step

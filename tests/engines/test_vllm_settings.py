"""What vLLM is told: its options, the head's numbers, and what its cache holds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from rlaif.cli.common.model_flags import spread
from rlaif.cli.main import cli
from rlaif.engines.base import EngineSettings
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.registry import create_engine
from rlaif.engines.vllm_engine import cache_tokens, has_quantized_head, head_overrides
from rlaif.errors import RlaifError
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

"""Models that score, or lack weights, are refused: a head of random numbers judges nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.errors import RlaifError
from rlaif.util.resources import demo_model

pytestmark = pytest.mark.slow


def config() -> LlamaConfig:
    tokenizer = AutoTokenizer.from_pretrained(demo_model("judge"))
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=False,
        pad_token_id=0,
    )


def folder_of(model: object, folder: Path) -> Path:
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    for file in demo_model("judge").glob("*"):
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copy(file, folder / file.name)
    return folder


@pytest.mark.parametrize("engine", ["transformers", "packed", "vllm"])
def test_a_reward_model_is_no_judge(tmp_path: Path, engine: str) -> None:
    made = LlamaForSequenceClassification(config())
    folder = folder_of(made, tmp_path / "reward")
    with pytest.raises(RlaifError, match="is a LlamaForSequenceClassification: it scores texts"):
        create_engine(EngineSettings(engine=engine, model=str(folder)))


@pytest.mark.parametrize("engine", ["transformers", "packed"])
def test_a_model_without_its_head_is_refused(tmp_path: Path, engine: str) -> None:
    folder = folder_of(LlamaForCausalLM(config()), tmp_path / "whole")
    create_engine(EngineSettings(engine=engine, model=str(folder))).close()
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RlaifError, match=r"lack 1 weights \(lm_head.weight\), which would be ran"):
        create_engine(EngineSettings(engine=engine, model=str(folder)))

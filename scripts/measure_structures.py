"""Asks each engine about tiny random models of many structures, beside plain forward passes.

    scripts/measure_structures.py                        every structure on every engine here
    scripts/measure_structures.py gemma2 --engine vllm   one of them
    scripts/measure_structures.py --write docs/models.md

A structure that an engine can't compute must be refused with a reason.  `WRONG` in the table is a
fault of ours.  Random weights are drawn wide, so that a wrong mask or scale moves every answer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine, list_engines
from rlaif.errors import RlaifError
from rlaif.records import ChoiceRequest, ChoiceResult
from rlaif.util.resources import demo_model

VOCABULARY = 1536
LABELS = ((65, 66), (70, 71))
PATIENCE = 300
"""Seconds that an engine may take for a structure."""
EXACT = 2e-3
"""Largest relative error of a label's probability in float32."""
ENGINES = ("transformers", "packed", "vllm")
DTYPES = ("float32", "bfloat16")
MARK = "<!-- made by scripts/measure_structures.py -->\n"
_MIXED = ["sliding_attention", "full_attention"]
_SCALED = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}


@dataclass(frozen=True)
class Structure:
    """A structure of published models.

    Attributes:
        models: that have it.
        config: name of its class in `transformers`.
        own: what differs from the common small shape.
        without: names of the common shape that it does not take.
        text: for a model with eyes: the structure of its text model.
        apart: by engine, how far its answers may be from plain passes for a reason that is known.
    """

    models: str
    config: str
    own: dict[str, Any]
    without: tuple[str, ...] = ()
    text: str = ""
    apart: Mapping[str, float] = field(default_factory=dict)

    def make(self) -> Any:
        """Its configuration."""
        if self.text:
            text = STRUCTURES[self.text].make().to_dict()
            kind = getattr(transformers, self.config)
            return kind(text_config=text, dtype="float32", eos_token_id=2, **self.own)
        common: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "initializer_range": 0.15,
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        given = {k: v for k, v in (common | self.own).items() if k not in self.without}
        return getattr(transformers, self.config)(**given)


def _gemma(config: str, **own: Any) -> tuple[str, dict[str, Any]]:
    return config, {
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "tie_word_embeddings": True,
        "layer_types": _MIXED,
        "sliding_window": 128,
        **own,
    }


_GRANITE: dict[str, Any] = {
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.03125,
}
_EYES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 16,
    "long_factor": [4.0] * 16,
    "original_max_position_embeddings": 512,
    "partial_rotary_factor": 1.0,
}
STRUCTURES: dict[str, Structure] = {
    "llama": Structure(
        "Llama 3, Skywork-Critic, Selene, Prometheus on Llama",
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 512,
            }
        },
    ),
    "mistral": Structure("Mistral 0.2, Prometheus 2", "MistralConfig", {"sliding_window": None}),
    "mistral-window": Structure("Mistral 0.1", "MistralConfig", {"sliding_window": 256}),
    "ministral": Structure(
        "Ministral 8B",
        "MinistralConfig",
        {"sliding_window": 256, "layer_types": ["sliding_attention"] * 2, "head_dim": 32},
    ),
    "ministral3": Structure(
        "Ministral 3",
        "Ministral3Config",
        {
            "head_dim": 32,
            "rope_parameters": _SCALED
            | {
                "original_max_position_embeddings": 512,
                "llama_4_scaling_beta": 0.1,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            },
        },
    ),
    "mixtral": Structure(
        "Mixtral", "MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "qwen2": Structure("Qwen2, Qwen2.5, CompassJudger", "Qwen2Config", {}),
    "qwen2-moe": Structure(
        "Qwen2-MoE", "Qwen2MoeConfig", {**_EXPERTS, "shared_expert_intermediate_size": 64}
    ),
    "qwen3": Structure("Qwen3", "Qwen3Config", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3-yarn": Structure(
        "Qwen3 with YaRN",
        "Qwen3Config",
        {
            "head_dim": 32,
            "rope_parameters": _SCALED | {"original_max_position_embeddings": 512},
        },
    ),
    "qwen3-moe": Structure("Qwen3-MoE", "Qwen3MoeConfig", {"head_dim": 32, **_EXPERTS}),
    "qwen3-next": Structure(
        "Qwen3-Next",
        "Qwen3NextConfig",
        {"head_dim": 32, "shared_expert_intermediate_size": 64, **_EXPERTS, **_LINEAR},
    ),
    "qwen3.5": Structure("Qwen3.5", "Qwen3_5TextConfig", {"head_dim": 32, **_LINEAR}),
    "gemma": Structure("Gemma", "GemmaConfig", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma2": Structure(
        "Gemma 2",
        *_gemma("Gemma2Config", attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    ),
    "gemma3": Structure("Gemma 3", *_gemma("Gemma3TextConfig")),
    "gemma3n": Structure(
        "Gemma 3n",
        *_gemma(
            "Gemma3nTextConfig",
            num_hidden_layers=4,
            intermediate_size=[256] * 4,
            layer_types=_MIXED * 2,
            vocab_size_per_layer_input=VOCABULARY,
            hidden_size_per_layer_input=32,
            num_kv_shared_layers=2,
            activation_sparsity_pattern=[0.0] * 4,
            laurel_rank=16,
        ),
    ),
    "gemma4": Structure(
        "Gemma 4",
        *_gemma(
            "Gemma4TextConfig",
            global_head_dim=64,
            vocab_size_per_layer_input=VOCABULARY,
            hidden_size_per_layer_input=0,
            num_kv_shared_layers=0,
            final_logit_softcapping=3.0,
        ),
    ),
    "gemma4-shared": Structure(
        "Gemma 4 E2B, E4B",
        *_gemma(
            "Gemma4TextConfig",
            num_hidden_layers=4,
            layer_types=_MIXED * 2,
            global_head_dim=64,
            vocab_size_per_layer_input=VOCABULARY,
            hidden_size_per_layer_input=32,
            num_kv_shared_layers=2,
            final_logit_softcapping=3.0,
        ),
    ),
    "phi3": Structure("Phi-3, Phi-4", "Phi3Config", {}),
    "phi4-mini": Structure(
        "Phi-4-mini",
        "Phi3Config",
        {"original_max_position_embeddings": 512, "rope_parameters": _LONGROPE},
    ),
    "phimoe": Structure(
        "Phi-3.5-MoE", "PhimoeConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "gpt-oss": Structure(
        "GPT-OSS",
        "GptOssConfig",
        {
            "head_dim": 32,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 128,
            "layer_types": _MIXED,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "olmo2": Structure("OLMo 2", "Olmo2Config", {}),
    "olmo3": Structure("OLMo 3", "Olmo3Config", {"sliding_window": 256, "layer_types": _MIXED}),
    "olmoe": Structure("OLMoE", "OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    "smollm3": Structure("SmolLM3", "SmolLM3Config", {"no_rope_layers": [1, 0]}),
    "granite": Structure("Granite 3, Granite Guardian", "GraniteConfig", _GRANITE),
    "granite-moe": Structure(
        "Granite 3 MoE",
        "GraniteMoeConfig",
        {**_GRANITE, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "granite4": Structure(
        "Granite 4",
        "GraniteMoeHybridConfig",
        {
            **_GRANITE,
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 128,
            "mamba_n_heads": 8,
            "mamba_d_head": 32,
            "mamba_n_groups": 1,
            "mamba_d_state": 32,
            "mamba_expand": 2,
            "position_embedding_type": "nope",
        },
    ),
    "cohere": Structure(
        "Command R", "CohereConfig", {"logit_scale": 0.25, "tie_word_embeddings": True}
    ),
    "cohere2": Structure(
        "Command R7B, Command A",
        "Cohere2Config",
        {
            "sliding_window": 256,
            "layer_types": _MIXED,
            "tie_word_embeddings": True,
            "logit_scale": 0.25,
        },
        apart={"vllm": 0.02},  # its window is one token wider, as these models were trained
    ),
    "llama4": Structure(
        "Llama 4",
        "Llama4TextConfig",
        {
            "head_dim": 32,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 256,
            "attention_chunk_size": 256,
            "interleave_moe_layer_step": 1,
            "no_rope_layers": [1, 0],
            "moe_layers": [0, 1],
        },
    ),
    "exaone4": Structure(
        "EXAONE 4", "Exaone4Config", {"sliding_window": 256, "layer_types": _MIXED}
    ),
    "lfm2": Structure(
        "LFM2",
        "Lfm2Config",
        {"layer_types": ["conv", "full_attention"], "tie_word_embeddings": True},
    ),
    "glm4": Structure("GLM-4", "Glm4Config", {"head_dim": 32}),
    "glm4-moe": Structure(
        "GLM-4.5",
        "Glm4MoeConfig",
        {
            "head_dim": 32,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "deepseek-v3": Structure(
        "DeepSeek V3, R1",
        "DeepseekV3Config",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 32,
            "kv_lora_rank": 32,
            "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 16,
            "v_head_dim": 32,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "seed-oss": Structure("Seed-OSS", "SeedOssConfig", {"head_dim": 32}),
    "nemotron-h": Structure(
        "Nemotron-H",
        "NemotronHConfig",
        {
            "head_dim": 32,
            "layers_block_type": ["mamba", "attention"],
            "mamba_num_heads": 8,
            "mamba_head_dim": 32,
            "ssm_state_size": 32,
            "n_groups": 1,
        },
        without=("num_hidden_layers", "initializer_range"),
    ),
    "falcon-h1": Structure(
        "Falcon-H1",
        "FalconH1Config",
        {
            "head_dim": 32,
            "mamba_d_ssm": 128,
            "mamba_n_heads": 4,
            "mamba_d_head": 32,
            "mamba_d_state": 32,
            "lm_head_multiplier": 0.5,
        },
    ),
    "mamba2": Structure(
        "Mamba 2 (Codestral Mamba)",
        "Mamba2Config",
        {"num_heads": 8, "head_dim": 32, "state_size": 32, "n_groups": 1, "expand": 2},
        without=(
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
        ),
    ),
    "gpt-neox": Structure("Pythia", "GPTNeoXConfig", {}, without=("num_key_value_heads",)),
    "stablelm": Structure("StableLM 2", "StableLmConfig", {}),
    "ernie4.5": Structure("ERNIE 4.5", "Ernie4_5Config", {"head_dim": 32}),
    "hunyuan": Structure("Hunyuan dense", "HunYuanDenseV1Config", {"head_dim": 32}),
    # vLLM keeps the parameters of its activation in bfloat16.
    "apertus": Structure("Apertus", "ApertusConfig", {}, apart={"vllm": 0.02}),
    "llama-dynamic": Structure(
        "Llama with dynamic NTK positions",
        "LlamaConfig",
        {
            "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        },
    ),
    "gemma3-eyes": Structure(
        "Gemma 3 4B and larger, as published",
        "Gemma3Config",
        {
            "vision_config": _EYES | {"image_size": 28, "patch_size": 14, "vision_use_head": False},
            "mm_tokens_per_image": 4,
            "image_token_index": 1500,
            "boi_token_index": 1501,
            "eoi_token_index": 1502,
            "tie_word_embeddings": True,
        },
        text="gemma3",
    ),
    "mistral3-eyes": Structure(
        "Mistral Small 3, as published",
        "Mistral3Config",
        {
            "vision_config": _EYES
            | {"model_type": "pixtral", "image_size": 28, "patch_size": 14, "head_dim": 16},
            "image_token_index": 1500,
            "tie_word_embeddings": False,
        },
        text="mistral",
    ),
    "qwen3.5-eyes": Structure(
        "Qwen3.5, as published",
        "Qwen3_5Config",
        {
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "depth": 1,
                "num_heads": 2,
                "out_hidden_size": 128,
                "patch_size": 14,
            },
            "image_token_id": 1500,
            "video_token_id": 1501,
            "vision_start_token_id": 1502,
            "vision_end_token_id": 1503,
        },
        text="qwen3.5",
    ),
    "gemma4-eyes": Structure(
        "Gemma 4, as published",
        "Gemma4Config",
        {
            "vision_config": _EYES | {"num_key_value_heads": 2, "head_dim": 16},
            "audio_config": None,
            "image_token_id": 1500,
            "tie_word_embeddings": True,
        },
        text="gemma4",
    ),
}


def build(name: str, folder: Path) -> None:
    """A random model of a structure, with the tokenizer of the bundled judge."""
    torch.manual_seed(0)
    structure = STRUCTURES[name]
    kind = AutoModelForImageTextToText if structure.text else AutoModelForCausalLM
    model = kind.from_config(structure.make()).float()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if not torch.isfinite(weight).all() or "sinks" in key:
                weight.copy_(torch.randn(weight.shape, generator=draw))
            elif weight.dim() == 1:
                weight.add_(torch.randn(weight.shape, generator=draw) * 0.1)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    AutoTokenizer.from_pretrained(demo_model("judge")).save_pretrained(folder)


def questions() -> list[ChoiceRequest]:
    """Prompts that share prefixes, under and over windows and first context lengths."""
    rng = random.Random(3)

    def draw(count: int) -> list[int]:
        return [rng.randrange(5, VOCABULARY) for _ in range(count)]

    asked: list[ChoiceRequest] = []
    last: list[int] = []
    head = draw(30)
    for length in (320, 600, 180):
        context = head + draw(length)
        for own in (9, 21):
            prompt = context + draw(own)
            pairs = zip(last, prompt, strict=False)
            shared = next((n for n, (a, b) in enumerate(pairs) if a != b), len(last))
            asked.append(ChoiceRequest(str(len(asked)), prompt, LABELS, shared))
            last = prompt
    return asked


@cache
def by_hand(folder: Path, dtype: torch.dtype) -> dict[str, tuple[float, ...]]:
    """Label probabilities from plain forward passes, one prompt at a time."""
    # The plain attention: the fused one leaves out caps.
    published = json.loads((folder / "config.json").read_text())["architectures"][0]
    kind = getattr(transformers, published)
    model: Any = kind.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    found = {}
    for request in questions():
        with torch.no_grad():
            logits = model(torch.tensor([list(request.token_ids)])).logits[0, -1].double()
        p = logits.softmax(-1)
        found[request.id] = tuple(float(p[list(ids)].sum()) for ids in LABELS)
    return found


@dataclass(frozen=True)
class Outcome:
    """What an engine did with a structure.

    Attributes:
        kind: "equal"; "near" (apart for a reason that is known); "refused" (with a reason, before
            the first question); "part" (prompts that it can't take are failures with a reason, the
            rest is equal); or "WRONG".
        detail: the reason, or the error.
    """

    kind: str
    detail: str


def ask(folder: Path, engine: str, dtype: str, name: str = "") -> Outcome:
    """Compare an engine with plain passes.

    In half precision, its share of the first label may be as far from that of float32 as three
    times what plain passes in half precision are at most, or 0.03.
    """
    # Before the engine: vLLM changes classes of `transformers` where it uses them.
    exact = by_hand(folder, torch.float32)
    options: dict[str, Any] = {"disable_log_stats": True} if engine == "vllm" else {}
    settings = EngineSettings(
        engine=engine,
        model=str(folder),
        dtype=dtype,  # type: ignore[arg-type]
        kv_cache_gib=0.25,
        options=options,
    )
    try:
        with closing(create_engine(settings)) as running:
            results = [r for batch in running.run(iter(questions())) for r in batch]
    except RlaifError as refusal:
        return Outcome("refused", refusal.message)
    answers = {r.id: r.logprobs for r in results if isinstance(r, ChoiceResult)}
    if not answers:
        return Outcome("refused", getattr(results[0], "reason", ""))
    found = {name: tuple(map(math.exp, logs)) for name, logs in answers.items()}
    if dtype == "float32":
        error, most = _relative(found, exact), EXACT
    else:
        noise = _shift(by_hand(folder, torch.bfloat16), exact)
        error, most = _shift(found, exact), max(0.03, 3 * noise)
    if not error <= most:
        known = STRUCTURES[name].apart.get(engine, 0.0) if name in STRUCTURES else 0.0
        kind = "near" if error <= known else "WRONG"
        return Outcome(kind, f"off by {error:.3g}, allowed {most:.3g}")
    failed = [r for r in results if not isinstance(r, ChoiceResult)]
    if failed:
        return Outcome("part", f"{len(failed)} of {len(results)}: {failed[0].reason}")  # type: ignore[union-attr]
    return Outcome("equal", f"{error:.2g}")


Shares = dict[str, tuple[float, ...]]


def _relative(found: Shares, exact: Shares) -> float:
    return max(
        abs(a - b) / b for name in found for a, b in zip(found[name], exact[name], strict=True)
    )


def _shift(found: Shares, exact: Shares) -> float:
    """Largest difference of the first label's share of both."""
    return max(
        abs(found[n][0] / sum(found[n]) - exact[n][0] / sum(exact[n])) for n in found if n in exact
    )


def _try(name: str, folder: Path, engine: str, dtype: str) -> Outcome:
    """One outcome; vLLM in a process of its own: what it leaves behind touches no other."""
    if engine != "vllm":
        try:
            return ask(folder, engine, dtype, name)
        except Exception as error:  # what an engine should have said in one line
            return Outcome("WRONG", f"broke: {type(error).__name__}: {error}"[:200])
    line = [sys.executable, __file__, "--one", str(folder), engine, dtype, name]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Outcome("untried", f"no answer in {PATIENCE} seconds")
    for said in done.stdout.splitlines():
        if said.startswith("OUTCOME "):
            return Outcome(*json.loads(said.removeprefix("OUTCOME ")))
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    return Outcome("WRONG", f"{name} on {engine} broke: {last[:200]}")


def read_table(page: Path) -> dict[str, dict[str, str]]:
    """What a page says: by structure, by column."""
    lines = page.read_text(encoding="utf-8").split(MARK)[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = [name.strip("`") for name in rows[0]] if rows else []
    return {row[0]: dict(zip(columns, row, strict=True)) for row in rows[2:]}


def _write(page: Path, found: dict[str, dict[str, Outcome]]) -> None:
    """Put outcomes into the table of a page; what was not measured now stays as it was."""
    told = read_table(page)
    columns = [f"{e} {d}" for e in ENGINES for d in DTYPES]
    lines = [
        "| structure | models | " + " | ".join(f"`{c}`" for c in columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, structure in STRUCTURES.items():
        now = {column: outcome.kind for column, outcome in found.get(name, {}).items()}
        cells = [now.get(c) or told.get(name, {}).get(c, "untried") for c in columns]
        lines.append(f"| {name} | {structure.models} | " + " | ".join(cells) + " |")
    before, _, after = page.read_text(encoding="utf-8").split(MARK)
    text = "\n".join(lines) + "\n"
    page.write_text(f"{before}{MARK}{text}{MARK}{after}", encoding="utf-8")


def main(say: Callable[[str], None] = print) -> int:
    """Returns how many answers were wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="Structures to ask about. [default: all]")
    parser.add_argument("--engine", action="append", choices=ENGINES)
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    parser.add_argument("--write", type=Path, help="Write the table into this page.")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        outcome = ask(Path(flags.one[0]), *flags.one[1:])
        say("OUTCOME " + json.dumps([outcome.kind, outcome.detail]))
        sys.stdout.flush()
        os._exit(0)
    here = {info.name for info in list_engines() if info.available}
    engines = [e for e in flags.engine or ENGINES if e in here]
    dtypes = flags.dtype or DTYPES
    columns = [f"{e} {d}" for e in engines for d in dtypes]
    found: dict[str, dict[str, Outcome]] = {}
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        for name in flags.names or STRUCTURES:
            folder = Path(temporary) / name
            build(name, folder)
            found[name] = {}
            for column in columns:
                outcome = _try(name, folder, *column.split())
                found[name][column] = outcome
                wrong += outcome.kind == "WRONG"
                say(f"{name:15} {column:24} {outcome.kind:8} {outcome.detail}")
    if flags.write:
        _write(flags.write, found)
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))

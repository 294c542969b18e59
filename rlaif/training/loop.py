"""What every training shares: the output folder, resuming, metrics, and saving the policy.

The output folder holds the policy (and, with LoRA, the adapter), `training.yaml` (resolved
settings), `metrics.jsonl`, `training.json` (result, with the hash of what it was trained on), a
model card, and the last checkpoints.  Called again, a training resumes or reports.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback

from rlaif.engines.codec import context_length
from rlaif.engines.hub import ModelFiles
from rlaif.errors import RlaifError
from rlaif.runs.directory import differences
from rlaif.training.settings import TrainingSettings
from rlaif.util.files import write_atomically
from rlaif.util.output import NEW_FOLDER, check_folder, check_same
from rlaif.util.plain_yaml import load_plain_yaml

SETTINGS, RESULT, METRICS = "training.yaml", "training.json", "metrics.jsonl"


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to; `fresh` is False if it was complete already.

    Attributes:
        account: where the rows went.
        manifest_hash: of what it was trained on.
    """

    path: Path
    account: Any
    metrics: dict[str, float]
    steps: int
    manifest_hash: str
    fresh: bool = True


def train(
    out: Path,
    resolved: Mapping[str, Any],
    settings: TrainingSettings,
    files: ModelFiles,
    tokenizer: Any,
    account: Any,
    evidence: Mapping[str, Any],
    *,
    on_start: Callable[[Path], None],
    make: Callable[[], Any],
    card: Callable[[Mapping[str, Any]], str],
) -> TrainingResult:
    """Run a trainer, or go on from its last checkpoint, and save the policy.

    Args:
        resolved: what the result depends on.
        account: a dataclass that says where the rows went.
        evidence: kept with the result; has `manifest_hash`.
        on_start: told the output folder once, before the first step.
        make: builds the trainer.
        card: the model card, from the result.

    Raises:
        RlaifError: the policy can't be loaded.

    Long because it orders what several processes do, with barriers between.
    """
    # Every process has looked at `out` before the first one writes to it.
    state = PartialState()
    state.wait_for_everyone()
    fresh = not out.exists()
    try:
        trainer = make()
    except Exception as error:  # loading a policy raises many unrelated types
        if fresh and state.is_main_process:
            shutil.rmtree(out, ignore_errors=True)
        text = " ".join(str(error).split())[:300]
        raise RlaifError(
            f"policy {files.name!r} could not be loaded ({type(error).__name__}: {text})",
            hint="Check the model folder and the settings.",
        ) from error
    state.wait_for_everyone()
    if state.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / SETTINGS, yaml.safe_dump(dict(resolved), sort_keys=False))
        write_atomically(out / "account.json", json.dumps(asdict(account), indent=2))
        on_start(out)
    state.wait_for_everyone()
    checkpoint = _last_checkpoint(out)
    if state.is_main_process:
        _cut_metrics(out / METRICS, checkpoint)
    outcome = trainer.train(resume_from_checkpoint=checkpoint)
    metrics = {k: float(v) for k, v in outcome.metrics.items()}
    if state.is_main_process:
        # The trainer averages over this process only; the file knows every step.
        metrics["train_loss"] = _mean_loss(out / METRICS, metrics.get("train_loss"))
    steps = int(trainer.state.global_step)
    _save(trainer, tokenizer, out, settings)
    if state.is_main_process:
        result = {**evidence, "steps": steps, "metrics": metrics, "account": asdict(account)}
        write_atomically(out / "README.md", card(result))
        write_atomically(out / RESULT, json.dumps(result, indent=2))
    state.wait_for_everyone()
    return TrainingResult(
        path=out,
        account=account,
        metrics=metrics,
        steps=steps,
        manifest_hash=str(evidence["manifest_hash"]),
    )


def check_report_to(settings: TrainingSettings) -> None:
    """Refuse to go on without TensorBoard where it is asked for.

    Raises:
        RlaifError: it is not installed.
    """
    if settings.report_to == "tensorboard" and find_spec("tensorboard") is None:
        raise RlaifError(
            "tensorboard is not installed",
            hint="In the checkout, run: pip install '.[tensorboard]'.",
        )


def common_arguments(settings: TrainingSettings, out: Path) -> dict[str, Any]:
    """Arguments of any TRL trainer."""
    on_gpu = torch.cuda.is_available()
    dtype = settings.dtype or ("bfloat16" if on_gpu else "float32")
    if settings.report_to == "tensorboard":
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(out / "tensorboard")
    return {
        "output_dir": str(out / "checkpoints"),
        # Frozen weights under LoRA may be bfloat16; trained ones are float32 under autocast.
        "model_init_kwargs": {"dtype": dtype if settings.lora_r else "float32"},
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_steps,
        "num_train_epochs": settings.num_train_epochs,
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": dtype == "bfloat16",
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": settings.logging_steps,
        "report_to": [] if settings.report_to == "none" else [settings.report_to],
        "disable_tqdm": True,
        "seed": settings.seed,
        "data_seed": settings.seed,
    }


def lora_config(settings: TrainingSettings) -> LoraConfig | None:
    """The adapter, where one is asked for."""
    if not settings.lora_r:
        return None
    return LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_r,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def no_printing(trainer: Any) -> None:
    """Take away the callback that prints each line of metrics."""
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ == "PrinterCallback":
            trainer.remove_callback(callback)


def finished(
    out: Path, resolved: Mapping[str, Any], account_type: Callable[..., Any]
) -> TrainingResult | None:
    """A complete training with these settings; refuses anything else that is there."""
    if not check_folder(out, "training", held=(out / SETTINGS).exists()):
        return None
    try:
        before = load_plain_yaml((out / SETTINGS).read_text(encoding="utf-8"))
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise RlaifError(f"{out / SETTINGS} is damaged", hint=NEW_FOLDER)
    check_same(out, "training", differences(before, resolved))
    if not (out / RESULT).exists() or not any(out.glob("*.safetensors")):
        return None
    try:
        saved = json.loads((out / RESULT).read_text(encoding="utf-8"))
        account = account_type(**saved["account"])
        return TrainingResult(
            path=out,
            account=account,
            metrics=saved["metrics"],
            steps=saved["steps"],
            manifest_hash=saved["manifest_hash"],
            fresh=False,
        )
    except (ValueError, KeyError, TypeError):
        raise RlaifError(
            f"{out / RESULT} is damaged",
            hint="Delete it, then rerun the same command to save the policy again.",
        ) from None


def _cut_metrics(path: Path, checkpoint: str | None) -> None:
    """Drop the lines after the checkpoint: those steps are done again."""
    if not path.exists():
        return
    reached = int(checkpoint.rsplit("-", 1)[-1]) if checkpoint else 0
    kept = [line for line in _metric_lines(path) if line.get("step", 0) <= reached]
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))


def _metric_lines(path: Path) -> list[dict[str, float]]:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:  # a line torn by a kill
            continue
    return lines


def _mean_loss(path: Path, otherwise: float | None) -> float:
    losses = [line["loss"] for line in _metric_lines(path) if "loss" in line]
    if losses:
        return sum(losses) / len(losses)
    return float("nan") if otherwise is None else otherwise


def _last_checkpoint(out: Path) -> str | None:
    """The newest whole checkpoint; a kill while one was written leaves a torn one behind.

    The trainer writes `trainer_state.json` last, so a folder without it is torn.
    """
    found = sorted(
        (out / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name.rsplit("-", 1)[-1])
    )
    for folder in reversed(found):
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return str(folder)
    return None


def load_tokenizer(files: ModelFiles) -> Any:
    """The policy's tokenizer.

    Raises:
        RlaifError: it can't be loaded, or lacks an end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.path, trust_remote_code=False)
    except Exception as error:  # loaders raise many unrelated types
        raise RlaifError(
            f"tokenizer of policy {files.name!r} could not be loaded ({error})",
            hint="Check that the folder contains tokenizer files.",
        ) from None
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise RlaifError(
                f"policy {files.name!r} has neither a pad token nor an EOS token",
                hint="Set eos_token in its tokenizer_config.json.",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def effective_length(settings: TrainingSettings, files: ModelFiles) -> int:
    """`max_length`, but never more than the policy can read."""
    return min(settings.max_length, context_length(files))


class MetricsFile(TrainerCallback):
    """Appends each log line to `metrics.jsonl` and passes it on."""

    def __init__(self, out: Path, on_log: Callable[[Mapping[str, float]], None]) -> None:
        self._path = out / METRICS
        self._on_log = on_log

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell how many steps there will be."""
        if state.is_world_process_zero:
            self._on_log({"step": state.global_step, "max_steps": state.max_steps})

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Called by the trainer on every process; only the first one writes."""
        if not state.is_world_process_zero or not logs:
            return
        line = {"step": state.global_step, **logs}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._on_log({**line, "max_steps": state.max_steps})


def _save(trainer: Any, tokenizer: Any, out: Path, settings: TrainingSettings) -> None:
    """The policy in `out`, ready for any engine; with LoRA also the adapter in `out/adapter`."""
    if settings.lora_r:
        trainer.save_model(str(out / "adapter"))
        if trainer.accelerator.is_main_process:
            merged = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
            merged.save_pretrained(out)
    else:
        trainer.save_model(str(out))
    if trainer.accelerator.is_main_process:
        tokenizer.save_pretrained(out)

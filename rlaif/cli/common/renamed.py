"""Flags and settings that have another name now: refused, with the new name in the message."""

from __future__ import annotations

RENAMED = {
    "accumulate": "gradient_accumulation_steps",
    "batch_size": "per_device_train_batch_size",
    "cache": "cache_dir",
    "chat_option": "chat_template_options",
    "cache_folder": "cache_dir",
    "epochs": "num_train_epochs",
    "fold": "aggregation",
    "hostile": "prompt_injection",
    "keep_unfinished": "keep_truncated",
    "log_steps": "logging_steps",
    "lora": "lora_r",
    "map": "layout",
    "mapping": "layout",
    "option": "options",
    "loss": "loss_type",
    "precompute_reference": "precompute_ref_log_probs",
    "recipe": "template",
    "reference": "against",
    "schedule": "lr_scheduler_type",
    "templates": "writer_templates",
    "tensorboard": "report_to",
    "warmup_ratio": "warmup_steps",
}
"""Old names of settings, with underscores, and what they are called now."""


def new_flag(option: str, known: set[str]) -> str | None:
    """What a flag is called now, if it had another name and the command has the new one.

    Args:
        option: as it was given, such as `--epochs`.
        known: the command's flags.
    """
    name = RENAMED.get(option.lstrip("-").replace("-", "_"))
    flag = f"--{name.replace('_', '-')}" if name else ""
    return flag if flag in known else None

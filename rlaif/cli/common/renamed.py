"""Flags and settings that have another name now: refused, with the new name in the message."""

from __future__ import annotations

RENAMED: dict[str, str | tuple[str, ...]] = {
    "accumulate": "gradient_accumulation_steps",
    "asked": "prompts_per_request",
    "batch": "batch_size",
    "batch_size": "per_device_train_batch_size",
    "cache": "cache_dir",
    "cache_folder": "cache_dir",
    "candidates": "max_candidates",
    "chat_option": "chat_template_options",
    "epochs": "num_train_epochs",
    "fold": ("aggregation", "pooling"),
    "hostile": "prompt_injection",
    "human": ("human_labels", "human_data"),
    "keep_unfinished": "keep_truncated",
    "log_steps": "logging_steps",
    "lora": "lora_r",
    "loss": "loss_type",
    "map": "layout",
    "mapping": "layout",
    "most": "max_principles",
    "option": "options",
    "overlap": "overlap_words",
    "pairs": "num_pairs",
    "per_pair": "proposals_per_pair",
    "precompute_reference": "precompute_ref_log_probs",
    "principles": "num_principles",
    "proposal": "proposal_template",
    "recipe": "template",
    "reference": "against",
    "schedule": "lr_scheduler_type",
    "shown": "examples",
    "shown_new": "generated_examples",
    "template": "judge_template",
    "templates": "writer_templates",
    "tensorboard": "report_to",
    "warmup_ratio": "warmup_steps",
}
"""Old names of settings, with underscores, and what they are called now, by the command."""


def new_flag(option: str, known: set[str]) -> str | None:
    """What a flag is called now, if it had another name and the command has the new one.

    Args:
        option: as it was given, such as `--epochs`.
        known: the command's flags.
    """
    flags = (f"--{name.replace('_', '-')}" for name in new_names(option.lstrip("-")))
    return next((flag for flag in flags if flag in known), None)


def new_names(name: str) -> tuple[str, ...]:
    """What a setting or a flag may be called now; empty if its name never changed."""
    found = RENAMED.get(name.replace("-", "_"), ())
    return (found,) if isinstance(found, str) else found

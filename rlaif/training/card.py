"""The model card of a trained policy: what it is, and from which evidence it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rlaif.engines.hub import ModelFiles
from rlaif.engines.model_origin import UNKNOWN, model_origin
from rlaif.training.data import LabelFiles
from rlaif.training.settings import DPOSettings, SFTSettings


def model_card(
    settings: DPOSettings,
    labels: LabelFiles,
    result: Mapping[str, Any],
    files: ModelFiles,
) -> str:
    """Markdown with the metadata header that model hubs read."""
    head: dict[str, Any] = {"library_name": "transformers", "tags": ["rlaif", "dpo", "trl"]}
    if files.revision:
        head["base_model"] = files.name
    head |= _license(files)
    account = result["account"]
    loss = (
        "soft labels: -p logsigmoid(z) - (1-p) logsigmoid(-z)"
        if settings.loss_type == "soft"
        else settings.loss_type
    )
    rows = [
        ("Base policy", f"`{files.name}` {files.revision} ({files.fingerprint})"),
        *(_mixed(labels) if labels.mixed else _labeled(labels)),
        ("Manifest hash", f"`{result['manifest_hash']}`"),
        ("Pairs trained on", f"{account['trained']} ({account['human_used']} human)"),
        ("Loss", loss),
        (
            "Beta, learning rate, epochs",
            f"{settings.beta:g}, {settings.learning_rate:g}, {settings.num_train_epochs:g}",
        ),
        ("LoRA rank", str(settings.lora_r or "none (full fine-tuning)")),
        ("Steps", str(result["steps"])),
    ]
    about = (
        "Trained with direct preference optimization (DPO) on the preferences of an AI judge that "
        "applies\na constitution. The policy inherits the judge's biases; evaluate it before you "
        "rely on it."
    )
    return _page(head, about, rows, "train-dpo")


def _page(
    head: Mapping[str, Any], about: str, rows: Sequence[tuple[str, str]], command: str
) -> str:
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    front = yaml.safe_dump(dict(head), sort_keys=False).strip()
    return f"""---
{front}
---
# Policy trained with rlaif

{about}

| | |
|---|---|
{table}

Trained by `rlaif {command}`; all settings are in `training.yaml` in this folder.
"""


def _license(files: ModelFiles) -> dict[str, str]:
    """The license of the policy before, which its descendant is bound to."""
    found = model_origin(files).license
    return {} if found == UNKNOWN else {"license": found}


def _labeled(labels: LabelFiles) -> list[tuple[str, str]]:
    config, counts = labels.manifest["config"], labels.manifest["counts"]
    constitution, judge = config["constitution"], config["judge"]
    return [
        ("Constitution", f"{constitution['name']} {constitution['version']}"),
        ("Constitution hash", f"`{constitution['hash']}`"),
        ("Judge", f"`{judge['model']}` (engine: {judge['engine']})"),
        ("Labeling run", f"`{labels.path}`"),
        (
            "Labels",
            f"{counts['decided']} decided, {counts['tie']} ties, {counts['abstained']} abstained",
        ),
    ]


def _mixed(labels: LabelFiles) -> list[tuple[str, str]]:
    report = labels.manifest
    whose = ", ".join(f"{n} by {name}" for name, n in report["labels"].items())
    return [
        ("Mix", f"`{labels.path}`"),
        ("Labels", whose),
        ("Human-written, by weight", f"{report['human_written']:.1%}"),
        ("Human-labeled, by weight", f"{report['human_labeled']:.1%}"),
    ]


def supervised_card(settings: SFTSettings, result: Mapping[str, Any], files: ModelFiles) -> str:
    """The card of a policy trained on completions."""
    head: dict[str, Any] = {"library_name": "transformers", "tags": ["rlaif", "sft", "trl"]}
    if files.revision:
        head["base_model"] = files.name
    head |= _license(files)
    account = result["account"]
    rows = [
        ("Base policy", f"`{files.name}` {files.revision} ({files.fingerprint})"),
        ("Completions trained on", f"{account['trained']} of {account['read']}"),
        ("Data hash", f"`{result['data_hash']}`"),
        ("Synthetic depth (generations)", str(result["depth"])),
        ("Learning rate, epochs", f"{settings.learning_rate:g}, {settings.num_train_epochs:g}"),
        ("LoRA rank", str(settings.lora_r or "none (full fine-tuning)")),
        ("Steps", str(result["steps"])),
    ]
    about = (
        "Fine-tuned on completions, with the loss on completion tokens only. If these are "
        "revisions by a\nconstitution, the policy inherits the biases of the models that generated "
        "and judged them."
    )
    return _page(head, about, rows, "train-sft")

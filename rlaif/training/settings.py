"""What a training can be told, and advice on combinations that TRL would ignore."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaif.data.layout import Layout

SOFT = "soft"
TRL_LOSSES = (
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
)
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")
"""The only TRL losses that read `label_smoothing`; `sigmoid` does not since TRL 0.29."""


class TrainingSettings(BaseModel):
    """What every training can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(description="Policy to train: a folder, a Hugging Face model ID, or `demo`.")
    revision: str | None = Field(
        default=None, description="Hub revision of the policy: branch, tag, or commit."
    )
    learning_rate: float = Field(default=1e-6, gt=0, description="Peak learning rate.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        default="linear", description="Learning rate schedule."
    )
    warmup_steps: float = Field(
        default=0.1, ge=0, description="Warmup steps; a value below 1 is a share of all steps."
    )
    num_train_epochs: float = Field(default=1.0, gt=0, description="Passes over the data.")
    per_device_train_batch_size: int = Field(default=8, ge=1, description="Batch size per device.")
    gradient_accumulation_steps: int = Field(
        default=1,
        ge=1,
        description="Number of steps to accumulate gradients over before an update.",
    )
    max_length: int = Field(
        default=1024, ge=8, description="Maximum number of tokens in prompt and completion."
    )
    overlong: Literal["truncate", "drop", "error"] = Field(
        default="truncate",
        description="What to do with rows longer than --max-length; they are always reported.",
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="Compute dtype. Trained weights stay in float32, because bfloat16 would round "
        "small updates away. [default: bfloat16 on GPU, float32 on CPU]",
    )
    lora_r: int = Field(default=0, ge=0, description="LoRA rank; 0 means full fine-tuning.")
    lora_alpha: float | None = Field(
        default=None, gt=0, description="LoRA alpha. [default: twice the rank]"
    )
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="LoRA dropout.")
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass: less memory, more time.",
    )
    save_steps: int = Field(default=200, ge=1, description="Number of steps between checkpoints.")
    logging_steps: int = Field(
        default=10, ge=1, description="Number of steps between lines of metrics.jsonl."
    )
    report_to: Literal["none", "tensorboard"] = Field(
        default="none", description="Also log metrics to TensorBoard (in OUT/tensorboard)."
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Random seed.")


class SFTSettings(TrainingSettings):
    """Everything that `rlaif train-sft` can be told, apart from the data and the output folder."""

    learning_rate: float = Field(default=2e-5, gt=0, description="Peak learning rate.")
    warmup_steps: float = Field(
        default=0.03, ge=0, description="Warmup steps; a value below 1 is a share of all steps."
    )
    layout: Layout = Layout()


class DPOSettings(TrainingSettings):
    """Everything that `rlaif train-dpo` can be told, apart from the run and the output folder."""

    loss_type: str = Field(
        default=SOFT,
        description="DPO loss. `soft` uses the label probability p: -p logsigmoid(z) - (1-p) "
        "logsigmoid(-z). Any other value is a TRL loss, which sees hard labels.",
    )
    beta: float = Field(
        default=0.1,
        gt=0,
        description="Deviation from the reference model; a higher beta means less deviation.",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="Label smoothing for TRL's robust, exo_pair, aot, and aot_unpaired losses.",
    )
    min_margin: float = Field(
        default=0.0, ge=0, le=1, description="Skip labels with a margin |2p - 1| below this."
    )
    human_data: str | None = Field(
        default=None, description="Human-labeled dataset (prompt, chosen, rejected) to mix in."
    )
    human_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="Share of training rows that come from --human-data."
    )
    human_p: float = Field(
        default=1.0,
        gt=0.5,
        le=1,
        description="Probability of --human-data labels that have no p_chosen.",
    )
    precompute_ref_log_probs: bool = Field(
        default=False,
        description="Compute the reference model's log probabilities once, before training.",
    )

    @model_validator(mode="after")
    def _known_loss(self) -> Self:
        if self.loss_type != SOFT and self.loss_type not in TRL_LOSSES:
            raise ValueError(
                f"loss_type {self.loss_type!r} is not one of {SOFT}, {', '.join(TRL_LOSSES)}"
            )
        if self.loss_type == "exo_pair" and not self.label_smoothing:
            raise ValueError("--loss-type exo_pair needs --label-smoothing above 0 (such as 0.001)")
        return self


class GateSettings(BaseModel):
    """What a training is held against before it starts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    against: str | None = Field(
        default=None,
        description="Dataset to compare diversity with before training: human text, or an earlier "
        "round. Without it, only origin and duplicates are checked.",
    )
    thresholds: str | None = Field(
        default=None, description="YAML file of limits, as for `rlaif audit --thresholds`."
    )
    licenses: str = Field(
        default="models",
        description="Which models' outputs may be used to train other models: a YAML file, or the "
        "shipped `models`.",
    )
    override: str | None = Field(
        default=None,
        description="Train even if the guard or a license forbids it, for this reason, which is "
        "recorded in training.json.",
    )

    @field_validator("override")
    @classmethod
    def _says_something(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("the reason must not be empty")
        return text


def advise(settings: DPOSettings) -> list[str]:
    """Requested settings that would change nothing, one sentence each."""
    advice = []
    if settings.label_smoothing and settings.loss_type not in SMOOTHED:
        advice.append(
            f"--label-smoothing has no effect with --loss-type {settings.loss_type}; TRL reads it "
            f"for {', '.join(SMOOTHED)} only"
        )
    if settings.loss_type == "robust" and not settings.label_smoothing:
        advice.append("--loss-type robust without --label-smoothing is the sigmoid loss")
    if settings.loss_type != SOFT:
        advice.append(
            f"--loss-type {settings.loss_type} treats every label as certain; use --loss-type "
            "soft to train on label probabilities"
        )
    if settings.loss_type in ("sft", "sppo_hard") and settings.min_margin == 0:
        advice.append(
            f"--loss-type {settings.loss_type} fully trusts uncertain labels; set --min-margin"
        )
    given = settings.model_fields_set
    if not settings.human_data and {"human_fraction", "human_p"} & given:
        advice.append("--human-fraction and --human-p have no effect without --human-data")
    if settings.loss_type == "sft" and "beta" in given:
        advice.append("--beta has no effect with --loss-type sft")
    if "warmup_steps" in given and settings.lr_scheduler_type == "constant":
        advice.append("--warmup-steps has no effect with --lr-scheduler-type constant")
    if not settings.lora_r and {"lora_alpha", "lora_dropout"} & given:
        advice.append("--lora-alpha and --lora-dropout have no effect with --lora-r 0")
    return advice

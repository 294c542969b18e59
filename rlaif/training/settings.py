"""What a training can be told, and advice on combinations that TRL would ignore."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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

    model: str = Field(description="The policy: a folder, a hub id, or `demo`.")
    revision: str | None = Field(default=None, description="Hub revision of the policy.")
    learning_rate: float = Field(default=1e-6, gt=0, description="Peak learning rate.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        default="linear", description="Learning rate schedule."
    )
    warmup_steps: float = Field(
        default=0.1, ge=0, description="Warmup steps; a value below 1 is a share of all steps."
    )
    num_train_epochs: float = Field(default=1.0, gt=0, description="Passes over the data.")
    per_device_train_batch_size: int = Field(
        default=8, ge=1, description="Rows per device and step."
    )
    gradient_accumulation_steps: int = Field(
        default=1, ge=1, description="Steps whose gradients are averaged."
    )
    max_length: int = Field(default=1024, ge=8, description="Tokens of prompt and completion.")
    overlong: Literal["truncate", "drop", "error"] = Field(
        default="truncate",
        description="What happens to rows longer than `max_length` (they are always named).",
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None,
        description="Arithmetic; default: bfloat16 on a GPU, float32 on a CPU. Weights that are "
        "trained stay float32: a small learning rate would be lost in bfloat16's rounding.",
    )
    lora_r: int = Field(default=0, ge=0, description="LoRA rank; 0 trains all weights.")
    lora_alpha: float | None = Field(default=None, gt=0, description="Default: twice the rank.")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="LoRA dropout.")
    gradient_checkpointing: bool = Field(default=False, description="Less memory, more time.")
    save_steps: int = Field(default=200, ge=1, description="Steps between checkpoints.")
    logging_steps: int = Field(
        default=10, ge=1, description="Steps between lines of metrics.jsonl."
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


class DPOSettings(TrainingSettings):
    """Everything that `rlaif train-dpo` can be told, apart from the run and the output folder."""

    loss_type: str = Field(
        default=SOFT,
        description="`soft`: -p logs(z) - (1-p) logs(-z) with the label's probability p; or a "
        "loss of TRL by name (it sees hard labels).",
    )
    beta: float = Field(default=0.1, gt=0, description="Strength of the pull to the reference.")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="For TRL's robust, exo_pair, aot and aot_unpaired."
    )
    min_margin: float = Field(
        default=0.0, ge=0, le=1, description="Leave out labels with a smaller margin |2p - 1|."
    )
    human: str | None = Field(
        default=None, description="Labeled data (prompt, chosen, rejected) to mix in."
    )
    human_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="Share of the training rows that `human` makes up."
    )
    human_p: float = Field(
        default=1.0,
        gt=0.5,
        le=1,
        description="Probability given to labels of `human` that bring no p_chosen of their own.",
    )
    precompute_ref_log_probs: bool = Field(
        default=False, description="Reference log-probabilities once, before training."
    )

    @model_validator(mode="after")
    def _known_loss(self) -> Self:
        if self.loss_type != SOFT and self.loss_type not in TRL_LOSSES:
            raise ValueError(
                f"loss_type {self.loss_type!r} is not one of {SOFT}, {', '.join(TRL_LOSSES)}"
            )
        if self.loss_type == "exo_pair" and not self.label_smoothing:
            raise ValueError("loss exo_pair needs label_smoothing above 0 (say 0.001)")
        return self


class GateSettings(BaseModel):
    """What a training is held against before it starts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    against: str | None = Field(
        default=None,
        description="Data that diversity is compared with before training: text of people, or an "
        "earlier round. Without it only origin and duplicates are looked at.",
    )
    thresholds: str | None = Field(
        default=None, description="YAML file of limits, as for `rlaif audit`."
    )
    licenses: str = Field(
        default="models",
        description="Whose output may train other models: a YAML file, or the shipped one.",
    )
    override: str | None = Field(
        default=None,
        description="Train although the guard or a license stops it: the reason, which is kept in "
        "training.json.",
    )

    @field_validator("override")
    @classmethod
    def _says_something(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("a reason must say something")
        return text


def advise(settings: DPOSettings) -> list[str]:
    """Requested settings that would change nothing, one sentence each."""
    advice = []
    if settings.label_smoothing and settings.loss_type not in SMOOTHED:
        advice.append(
            f"label_smoothing does nothing with the {settings.loss_type} loss; "
            f"TRL reads it in {', '.join(SMOOTHED)} only"
        )
    if settings.loss_type == "robust" and not settings.label_smoothing:
        advice.append("the robust loss without label_smoothing is the sigmoid loss")
    if settings.loss_type != SOFT:
        advice.append(
            f"the {settings.loss_type} loss treats every label as certain; "
            "use the soft loss to keep p"
        )
    if settings.loss_type in ("sft", "sppo_hard") and settings.min_margin == 0:
        advice.append(
            f"the {settings.loss_type} loss follows doubtful labels fully; set min_margin"
        )
    given = settings.model_fields_set
    if not settings.human and {"human_fraction", "human_p"} & given:
        advice.append("human_fraction and human_p do nothing without human")
    if settings.loss_type == "sft" and "beta" in given:
        advice.append("beta does nothing with the sft loss")
    if "warmup_steps" in given and settings.lr_scheduler_type == "constant":
        advice.append("warmup_steps does nothing with lr_scheduler_type constant")
    if not settings.lora_r and {"lora_alpha", "lora_dropout"} & given:
        advice.append("lora_alpha and lora_dropout do nothing with lora_r 0")
    return advice

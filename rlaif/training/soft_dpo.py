"""TRL's DPO trainer with a probability for every row.

For a row with probability p that `chosen` is better, the loss is

    -p log sigmoid(z) - (1 - p) log sigmoid(-z),   z = beta (log-ratio chosen - log-ratio rejected)

the cross-entropy of Constitutional AI's soft targets under DPO's model.  TRL has no such loss,
but its `robust` loss (Chowdhury et al. 2024, arXiv:2403.00409) becomes exactly this when its
label smoothing e is -q / (1 - 2q) with q = 1 - p: then (1 - e) / (1 - 2e) = p and
e / (1 - 2e) = -q.  So this class only carries a column through the collator and sets e per
row; gradients, reference model, LoRA, multi-process and logging stay TRL's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

COLUMN = "p_chosen"
LARGEST_Q = 0.499999
"""e diverges at q = 0.5, where the loss stays finite; a tie is never a training row anyway."""


@dataclass
class SoftPreferenceCollator(DataCollatorForPreference):
    """TRL's collator, keeping `p_chosen` as a float tensor of shape (batch,)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate, then add the probabilities."""
        batch: dict[str, Any] = super().torch_call(examples)
        batch[COLUMN] = torch.tensor([example[COLUMN] for example in examples])
        return batch


class SoftDPOTrainer(DPOTrainer):
    """DPO on soft labels.  Use with `loss_type=["robust"]` and a data set with `p_chosen`.

    Raises:
        ValueError: another loss type is configured.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if list(self.loss_types) != ["robust"]:
            raise ValueError(f"SoftDPOTrainer needs loss_type ['robust'], not {self.loss_types}")

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if COLUMN not in self._signature_columns:
            self._signature_columns.append(COLUMN)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        inputs = dict(inputs)
        q = (1.0 - inputs.pop(COLUMN).double()).clamp(max=LARGEST_Q)
        self.label_smoothing = (-q / (1.0 - 2.0 * q)).float()
        return super()._compute_loss(model, inputs, return_outputs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """TRL's reference pass, without the column that a model would not understand."""
        inputs = {key: value for key, value in inputs.items() if key != COLUMN}
        return super().compute_ref_log_probs(model, inputs)

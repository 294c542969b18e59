"""DPO from a labeling run to a policy folder, with TRL's DPOTrainer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import DPOConfig, DPOTrainer

from rlaif.data.sources import open_source
from rlaif.errors import RlaifError
from rlaif.runs.directory import rows_digest
from rlaif.runs.judges import judges_of
from rlaif.training.card import model_card
from rlaif.training.data import (
    LabelFiles,
    RowAccount,
    TrainingRow,
    check_lengths,
    find_labels,
    make_dataset,
    mix_in_human,
    read_human_pairs,
    read_preferences,
)
from rlaif.training.frame import TrainingJob
from rlaif.training.gates import preference_rows, preference_uses
from rlaif.training.loop import common_arguments
from rlaif.training.policy_text import PolicyText
from rlaif.training.settings import SOFT, DPOSettings
from rlaif.training.soft_dpo import SoftDPOTrainer, SoftPreferenceCollator
from rlaif.training.weights import by_weight
from rlaif.util.hashing import file_digest


def prepare_dpo(run: Path, settings: DPOSettings) -> TrainingJob[TrainingRow]:
    """A DPO training: our trainer for the soft loss, TRL's own for its losses.

    Args:
        run: a complete run directory of `rlaif label`, or a mix of preferences.

    Raises:
        RlaifError: the run or the human data can't be read.
    """
    labels = find_labels(run)
    manifest_hash = file_digest(labels.evidence)

    def build(
        rows: Sequence[TrainingRow], tokenizer: Any, longest: int, out: Path
    ) -> tuple[Any, dict[str, Any]]:
        return build_dpo(
            rows=rows, settings=settings, tokenizer=tokenizer, longest=longest, out=out
        )

    return TrainingJob(
        settings=settings,
        source={
            "run": str(run.resolve()),
            "manifest_hash": manifest_hash,
            "labels_hash": rows_digest(labels.file),
            "human_hash": open_source(settings.human_data).fingerprint()
            if settings.human_data
            else None,
        },
        facts={"manifest_hash": manifest_hash, "run": str(run)},
        account_type=RowAccount,
        gather=lambda tokenizer, longest: gather(labels, settings, tokenizer, longest),
        audit_rows=preference_rows,
        uses=lambda rows: preference_uses(rows, judges_of(str(run))),
        build=build,
        card=lambda result, files: model_card(settings, labels, result, files),
    )


def gather(
    labels: LabelFiles, settings: DPOSettings, tokenizer: Any, longest: int
) -> tuple[list[TrainingRow], RowAccount]:
    """The rows to train on, in training order before shuffling, and where the others went."""
    account = RowAccount()
    rows = read_preferences(labels)
    account.labeled = len(rows)
    # Rows keep five decimals; a label exactly at the bound belongs to it.
    kept = [row for row in rows if row.margin >= settings.min_margin - 1e-6]
    account.below_margin = len(rows) - len(kept)
    if not kept:
        raise RlaifError(
            f"no label has a margin of at least {settings.min_margin:g}", hint="Lower --min-margin."
        )
    text = PolicyText(tokenizer, settings.model)

    def prepare(rows: list[TrainingRow]) -> list[TrainingRow]:
        return [text.prepare(row, ("prompt", "chosen", "rejected"), account) for row in rows]

    kept = prepare(kept)
    if any(row.weight != 1.0 for row in kept):
        kept = by_weight(kept, settings.seed)
        account.repeated_by_weight = len(kept)
    if settings.human_data:
        human, account.human_unreadable = read_human_pairs(settings.human_data, settings.human_p)
        account.human_available = len(human)
        kept, account.human_used = mix_in_human(
            kept, prepare(human), settings.human_fraction, settings.seed
        )
    else:
        random.Random(settings.seed).shuffle(kept)
    kept = check_lengths(
        kept,
        text,
        max_length=longest,
        overlong=settings.overlong,
        account=account,
    )
    return kept, account


def build_dpo(
    rows: Sequence[TrainingRow],
    settings: DPOSettings,
    tokenizer: Any,
    longest: int,
    out: Path,
) -> tuple[Any, dict[str, Any]]:
    """The trainer's class and its arguments.

    Args:
        longest: tokens of prompt and completion.
    """
    columns = ("prompt", "chosen", "rejected", "p_chosen")
    data = make_dataset(rows, columns)
    soft = settings.loss_type == SOFT
    arguments = DPOConfig(
        **common_arguments(settings, out),
        loss_type=["robust"] if soft else [settings.loss_type],
        label_smoothing=0.0 if soft else settings.label_smoothing,
        beta=settings.beta,
        max_length=longest,
        disable_dropout=not settings.lora_dropout,
        precompute_ref_log_probs=settings.precompute_ref_log_probs,
    )
    if not soft:
        plain = data.remove_columns("p_chosen")
        return DPOTrainer, {"args": arguments, "train_dataset": plain, "data_collator": None}
    collator = SoftPreferenceCollator(pad_token_id=tokenizer.pad_token_id, max_length=longest)
    return SoftDPOTrainer, {"args": arguments, "train_dataset": data, "data_collator": collator}

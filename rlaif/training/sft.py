"""Supervised fine-tuning with TRL's SFTTrainer: on revisions, on a teacher's completions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from rlaif.data.layout import set_fields
from rlaif.data.sources import open_source
from rlaif.training.card import supervised_card
from rlaif.training.data import make_dataset
from rlaif.training.frame import TrainingJob
from rlaif.training.gates import supervised_rows, supervised_uses
from rlaif.training.loop import common_arguments
from rlaif.training.policy_text import PolicyText
from rlaif.training.settings import SFTSettings
from rlaif.training.supervised import (
    SupervisedAccount,
    SupervisedRow,
    check_supervised_lengths,
    data_file,
    read_supervised,
)
from rlaif.training.weights import by_weight
from rlaif.util.hashing import file_digest


def prepare_sft(data: str, settings: SFTSettings) -> TrainingJob[SupervisedRow]:
    """A training on completions; the loss is on the completions alone.

    Args:
        data: a run of `rlaif critique` or `rlaif generate`, or data with completions.

    Raises:
        RlaifError: the data can't be read.
    """
    file = data_file(data)
    fingerprint = open_source(file).fingerprint()
    manifest = Path(file).parent / "manifest.json"
    manifest_hash = file_digest(manifest) if manifest.exists() else fingerprint

    def gather(tokenizer: Any, longest: int) -> tuple[list[SupervisedRow], SupervisedAccount]:
        account = SupervisedAccount()
        read = read_supervised(file, account, set_fields(settings.layout))
        text = PolicyText(tokenizer, settings.model)
        rows = [text.prepare(row, ("prompt", "completion"), account) for row in read]
        kept = check_supervised_lengths(
            rows,
            text,
            max_length=longest,
            overlong=settings.overlong,
            account=account,
        )
        if any(row.weight != 1.0 for row in kept):
            kept = by_weight(kept, settings.seed)
            account.repeated_by_weight = account.trained = len(kept)
        return kept, account

    def build(
        rows: Sequence[SupervisedRow], tokenizer: Any, longest: int, out: Path
    ) -> tuple[Any, dict[str, Any]]:
        arguments = SFTConfig(
            **common_arguments(settings, out),
            max_length=longest,
            completion_only_loss=True,
            packing=False,
        )
        data = make_dataset(rows, ("prompt", "completion"))
        return SFTTrainer, {"args": arguments, "train_dataset": data}

    source = {"data": file, "data_hash": fingerprint, "manifest_hash": manifest_hash}
    return TrainingJob(
        settings=settings,
        source=source,
        facts=source,
        account_type=SupervisedAccount,
        gather=gather,
        audit_rows=supervised_rows,
        uses=supervised_uses,
        build=build,
        card=lambda result, files: supervised_card(settings, result, files),
    )

"""DPO from a labeling run to a policy folder."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from rlaif.data.sources import open_source
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.model_origin import model_origin
from rlaif.errors import RlaifError
from rlaif.runs.judges import judges_of
from rlaif.training.card import model_card
from rlaif.training.data import (
    LabelFiles,
    RowAccount,
    TrainingRow,
    check_lengths,
    find_labels,
    mix,
    read_labeled,
    read_preferences,
)
from rlaif.training.gates import keep_gates, names_of, pass_gates, preference_rows, preference_uses
from rlaif.training.loop import (
    MetricsFile,
    TrainingResult,
    check_tensorboard,
    common_arguments,
    effective_length,
    finished,
    load_tokenizer,
    lora_config,
    no_printing,
    token_lengths,
    train,
)
from rlaif.training.settings import SOFT, DPOSettings, GateSettings
from rlaif.training.soft_dpo import SoftDPOTrainer, SoftPreferenceCollator
from rlaif.training.weights import by_weight
from rlaif.util.hashing import file_digest


def train_dpo(
    run: Path,
    out: Path,
    settings: DPOSettings,
    *,
    gates: GateSettings | None = None,
    on_account: Callable[[RowAccount], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
    on_log: Callable[[Mapping[str, float]], None] = lambda _: None,
) -> TrainingResult:
    """Train, go on with, or report a training.

    Args:
        run: a complete run directory of `rlaif label`, or a mix of preferences.
        out: the output folder.
        gates: what the data is held against first.
        on_account: told where all rows went, before training starts.
        on_note: told what licenses ask, and what was overridden.
        on_log: told each line of metrics.

    Raises:
        Stopped: the guard tripped, or a license forbids it.
        RlaifError: the run, the policy, the settings or `out` can't be used.
    """
    labels = find_labels(run)
    manifest_hash = file_digest(labels.evidence)
    files = resolve_model(settings.model, settings.revision, embedded="policy")
    resolved = {
        "run": str(run.resolve()),
        "manifest_hash": manifest_hash,
        "labels_hash": file_digest(labels.file),
        "policy_fingerprint": files.fingerprint,
        "human_hash": open_source(settings.human).fingerprint() if settings.human else None,
        **settings.model_dump(mode="json"),
    }
    done = finished(out, resolved, RowAccount)
    if done:
        return done
    check_tensorboard(settings)
    tokenizer = load_tokenizer(files)
    rows, account = gather(labels, settings, tokenizer, files)
    on_account(account)
    origin = model_origin(files)
    bases = names_of(settings.model, origin.bases)
    passed, told = pass_gates(
        rows=preference_rows(rows),
        used=preference_uses(rows, judges_of(str(run))),
        policy=bases,
        gates=gates or GateSettings(),
        out=out,
    )
    for text in told:
        on_note(text)
    evidence = {
        **passed,
        "manifest_hash": manifest_hash,
        "run": str(run),
        "depth": max([origin.depth, *(row.depth for row in rows)]),
        "bases": bases,
        "license": origin.licence,
    }
    return train(
        out=out,
        resolved=resolved,
        settings=settings,
        files=files,
        tokenizer=tokenizer,
        account=account,
        evidence=evidence,
        on_start=partial(keep_gates, evidence),
        make=lambda: make_trainer(
            files=files, rows=rows, settings=settings, out=out, tokenizer=tokenizer, on_log=on_log
        ),
        card=lambda result: model_card(settings, labels, result, files),
    )


def preview(run: Path, settings: DPOSettings, gates: GateSettings | None = None) -> RowAccount:
    """Where the rows of a training would go, without training; the gates are asked.

    Raises:
        RlaifError: as `train_dpo`.
    """
    files = resolve_model(settings.model, settings.revision, embedded="policy")
    rows, account = gather(find_labels(run), settings, load_tokenizer(files), files)
    pass_gates(
        preference_rows(rows),
        preference_uses(rows, judges_of(str(run))),
        names_of(settings.model, model_origin(files).bases),
        gates or GateSettings(),
    )
    return account


def gather(
    labels: LabelFiles, settings: DPOSettings, tokenizer: Any, files: ModelFiles
) -> tuple[list[TrainingRow], RowAccount]:
    """The rows to train on, in training order before shuffling, and where the others went."""
    account = RowAccount()
    rows = read_preferences(labels)
    account.labeled = len(rows)
    # Rows keep five decimals; a label exactly at the bound belongs to it.
    kept = [row for row in rows if 2 * row.p_chosen - 1 >= settings.min_margin - 1e-6]
    account.below_margin = len(rows) - len(kept)
    if not kept:
        raise RlaifError(
            f"no label has a margin of {settings.min_margin:g}", hint="Lower min_margin."
        )
    if any(row.weight != 1.0 for row in kept):
        kept = by_weight(kept, settings.seed)
        account.repeated_by_weight = len(kept)
    if settings.human:
        human, account.human_unreadable = read_labeled(settings.human, settings.human_p)
        account.human_available = len(human)
        kept, account.human_used = mix(kept, human, settings.human_fraction, settings.seed)
    else:
        random.Random(settings.seed).shuffle(kept)
    kept = check_lengths(
        kept,
        token_lengths(tokenizer),
        max_length=effective_length(settings, files),
        overlong=settings.overlong,
        account=account,
    )
    return kept, account


def make_trainer(
    files: ModelFiles,
    rows: Sequence[TrainingRow],
    settings: DPOSettings,
    out: Path,
    tokenizer: Any,
    on_log: Callable[[Mapping[str, float]], None] = lambda _: None,
) -> DPOTrainer:
    """TRL's trainer for these rows and settings: ours for the soft loss, TRL's own for others."""
    columns = ("prompt", "chosen", "rejected", "p_chosen")
    data = Dataset.from_list([{key: getattr(row, key) for key in columns} for row in rows])
    soft = settings.loss == SOFT
    longest = effective_length(settings, files)
    arguments = DPOConfig(
        **common_arguments(settings, out),
        loss_type=["robust"] if soft else [settings.loss],
        label_smoothing=0.0 if soft else settings.label_smoothing,
        beta=settings.beta,
        max_length=longest,
        disable_dropout=not settings.lora_dropout,
        precompute_ref_log_probs=settings.precompute_reference,
    )
    collator = None
    if soft:
        collator = SoftPreferenceCollator(pad_token_id=tokenizer.pad_token_id, max_length=longest)
    else:
        data = data.remove_columns("p_chosen")
    kind = SoftDPOTrainer if soft else DPOTrainer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer = kind(
            model=str(files.path),
            args=arguments,
            train_dataset=data,
            processing_class=tokenizer,
            data_collator=collator,
            peft_config=lora_config(settings),
            callbacks=[MetricsFile(out, on_log)],
        )
    no_printing(trainer)
    return trainer

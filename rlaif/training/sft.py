"""Supervised fine-tuning with TRL's SFTTrainer: on revisions, on a teacher's completions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from rlaif.data.sources import open_source
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.model_origin import model_origin
from rlaif.training.card import supervised_card
from rlaif.training.gates import keep_gates, names_of, pass_gates, supervised_rows, supervised_uses
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
from rlaif.training.settings import GateSettings, SFTSettings
from rlaif.training.supervised import (
    SupervisedAccount,
    SupervisedRow,
    data_file,
    fit,
    read_supervised,
)
from rlaif.training.weights import by_weight
from rlaif.util.hashing import file_digest


def train_sft(
    data: str,
    out: Path,
    settings: SFTSettings,
    *,
    gates: GateSettings | None = None,
    on_account: Callable[[SupervisedAccount], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
    on_log: Callable[[Mapping[str, float]], None] = lambda _: None,
) -> TrainingResult:
    """Train, go on with, or report a training.

    Args:
        data: a run of `rlaif critique` or `rlaif generate`, or data with completions.
        out: the output folder.
        gates: what the data is held against first.
        on_account: told where all rows went, before training starts.
        on_note: told what licenses ask, and what was overridden.
        on_log: told each line of metrics.

    Raises:
        Stopped: the guard tripped, or a license forbids it.
        RlaifError: the data, the policy, the settings or `out` can't be used.
    """
    file = data_file(data)
    fingerprint = open_source(file).fingerprint()
    files = resolve_model(settings.model, settings.revision, embedded="policy")
    manifest = Path(file).parent / "manifest.json"
    resolved = {
        "data": file,
        "data_hash": fingerprint,
        "manifest_hash": file_digest(manifest) if manifest.exists() else fingerprint,
        "policy_fingerprint": files.fingerprint,
        **settings.model_dump(mode="json"),
    }
    done = finished(out, resolved, SupervisedAccount)
    if done:
        return done
    check_tensorboard(settings)
    tokenizer = load_tokenizer(files)
    rows, account = gather(file, settings, tokenizer, files)
    on_account(account)
    origin = model_origin(files)
    bases = names_of(settings.model, origin.bases)
    passed, told = pass_gates(
        rows=supervised_rows(rows),
        used=supervised_uses(rows),
        policy=bases,
        gates=gates or GateSettings(),
        out=out,
    )
    for text in told:
        on_note(text)
    evidence = {
        **passed,
        "manifest_hash": resolved["manifest_hash"],
        "data": file,
        "data_hash": fingerprint,
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
        card=lambda result: supervised_card(settings, result, files),
    )


def preview(
    data: str, settings: SFTSettings, gates: GateSettings | None = None
) -> SupervisedAccount:
    """Where the rows of a training would go, without training; the gates are asked.

    Raises:
        RlaifError: as `train_sft`.
    """
    files = resolve_model(settings.model, settings.revision, embedded="policy")
    rows, account = gather(data_file(data), settings, load_tokenizer(files), files)
    pass_gates(
        supervised_rows(rows),
        supervised_uses(rows),
        names_of(settings.model, model_origin(files).bases),
        gates or GateSettings(),
    )
    return account


def gather(
    file: str, settings: SFTSettings, tokenizer: Any, files: ModelFiles
) -> tuple[list[SupervisedRow], SupervisedAccount]:
    """The rows to train on, and where the others went."""
    account = SupervisedAccount()
    read = read_supervised(file, account)
    rows = by_weight(read, settings.seed)
    account.repeated_by_weight = len(rows) if any(row.weight != 1.0 for row in read) else 0
    kept = fit(
        rows,
        token_lengths(tokenizer),
        max_length=effective_length(settings, files),
        overlong=settings.overlong,
        account=account,
    )
    return kept, account


def make_trainer(
    files: ModelFiles,
    rows: Sequence[SupervisedRow],
    settings: SFTSettings,
    out: Path,
    tokenizer: Any,
    on_log: Callable[[Mapping[str, float]], None] = lambda _: None,
) -> SFTTrainer:
    """TRL's trainer; the loss is on the completions alone."""
    data = Dataset.from_list([{"prompt": r.prompt, "completion": r.completion} for r in rows])
    arguments = SFTConfig(
        **common_arguments(settings, out),
        max_length=effective_length(settings, files),
        completion_only_loss=True,
        packing=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer = SFTTrainer(
            model=str(files.path),
            args=arguments,
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=lora_config(settings),
            callbacks=[MetricsFile(out, on_log)],
        )
    no_printing(trainer)
    return trainer

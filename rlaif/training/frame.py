"""What DPO and SFT share from data to policy: resume, account, gates, training, evidence."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from rlaif.audits.rows import AuditRow
from rlaif.data.licensing import ModelUse
from rlaif.engines.causal_model import attention_of
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.model_origin import model_origin
from rlaif.training.gates import keep_gates, names_of, pass_gates
from rlaif.training.loop import (
    MetricsFile,
    TrainingResult,
    check_report_to,
    effective_length,
    finished,
    load_tokenizer,
    lora_config,
    no_printing,
    train,
)
from rlaif.training.settings import GateSettings, TrainingSettings

Row = TypeVar("Row")
Log = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True)
class TrainingJob(Generic[Row]):
    """One training, before anything is loaded.

    Attributes:
        settings: of the training.
        source: what it is trained on, by name: part of what the result depends on.
        facts: kept with the result: `manifest_hash`, and where the data came from.
        account_type: a dataclass that says where the rows went.
        gather: from tokenizer and policy to the rows to train on and the account.
        audit_rows: the rows as the guard sees them.
        uses: the models whose output is trained on.
        build: TRL's trainer class and its arguments, from the rows, the tokenizer, the longest
            sequence and the output folder.
        card: the model card, from the result and the policy.
    """

    settings: TrainingSettings
    source: Mapping[str, Any]
    facts: Mapping[str, Any]
    account_type: Callable[..., Any]
    gather: Callable[[Any, int], tuple[list[Row], Any]]
    audit_rows: Callable[[Sequence[Row]], list[AuditRow]]
    uses: Callable[[Sequence[Row]], list[ModelUse]]
    build: Callable[[Sequence[Row], Any, int, Path], tuple[Any, dict[str, Any]]]
    card: Callable[[Mapping[str, Any], ModelFiles], str]


def run_training(
    job: TrainingJob[Row],
    out: Path,
    *,
    gates: GateSettings | None = None,
    on_account: Callable[[Any], None] = lambda _: None,
    on_note: Callable[[str], None] = lambda _: None,
    on_log: Log = lambda _: None,
) -> TrainingResult:
    """Train, resume, or report a training.

    Args:
        out: the output folder.
        gates: what the data is held against first.
        on_account: told where all rows went, before training starts.
        on_note: told what licenses ask, and what was overridden.
        on_log: told each line of metrics.

    Raises:
        TrainingBlocked: the guard tripped, or a license forbids it.
        RlaifError: the data, the policy, the settings or `out` can't be used.

    Long because it is the order of a training: resume, rows, gates, evidence, run.
    """
    settings = job.settings
    files = resolve_model(settings.model, settings.revision, embedded="policy")
    resolved = {
        **job.source,
        "policy_fingerprint": files.fingerprint,
        **settings.model_dump(mode="json"),
    }
    done = finished(out, resolved, job.account_type)
    if done:
        return done
    check_report_to(settings)
    tokenizer = load_tokenizer(files)
    rows, account = job.gather(tokenizer, effective_length(settings, files))
    on_account(account)
    origin = model_origin(files)
    bases = names_of(settings.model, origin.bases)
    passed, notes = pass_gates(
        rows=job.audit_rows(rows),
        used=job.uses(rows),
        policy=bases,
        gates=gates or GateSettings(),
        out=out,
    )
    for text in notes:
        on_note(text)
    evidence = {
        **passed,
        **job.facts,
        "depth": max([origin.depth, *(row.depth for row in rows)]),  # type: ignore[attr-defined]
        "bases": bases,
        "license": origin.license,
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
            job=job, rows=rows, files=files, tokenizer=tokenizer, out=out, on_log=on_log
        ),
        card=lambda result: job.card(result, files),
    )


def preview_training(job: TrainingJob[Row], gates: GateSettings | None = None) -> Any:
    """Where the rows of a training would go, without training; the gates are asked.

    Raises:
        RlaifError: as `run_training`.
    """
    settings = job.settings
    files = resolve_model(settings.model, settings.revision, embedded="policy")
    rows, account = job.gather(load_tokenizer(files), effective_length(settings, files))
    pass_gates(
        job.audit_rows(rows),
        job.uses(rows),
        names_of(settings.model, model_origin(files).bases),
        gates or GateSettings(),
    )
    return account


def make_trainer(
    job: TrainingJob[Row],
    rows: Sequence[Row],
    files: ModelFiles,
    tokenizer: Any,
    out: Path,
    *,
    on_log: Log = lambda _: None,
) -> Any:
    """TRL's trainer for these rows, writing `metrics.jsonl` and printing nothing."""
    longest = effective_length(job.settings, files)
    kind, arguments = job.build(rows, tokenizer, longest, out)
    arguments["args"].model_init_kwargs |= attention_of(files.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer = kind(
            model=str(files.path),
            processing_class=tokenizer,
            peft_config=lora_config(job.settings),
            callbacks=[MetricsFile(out, on_log)],
            **arguments,
        )
    no_printing(trainer)
    return trainer

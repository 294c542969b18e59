"""The batch files of a provider, in OpenAI's form: upload, create, find again, wait, download.

The form is that of https://platform.openai.com/docs/api-reference/batch, which other providers
have taken over: a JSONL file with one request a line is uploaded, a batch is created of it, and
after some time there is a file of answers, and one of errors.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from rlaif.engines.batch_ledger import INPUT, OUTPUT, BatchLedger, BatchRecord
from rlaif.engines.server_client import ServerClient, may_pass
from rlaif.errors import EngineStopped, RlaifError
from rlaif.util.files import replacing
from rlaif.util.http_body import BodyRefused

ENDED = ("completed", "failed", "expired", "cancelled", "canceled")
_LOOKS = 3
_PAGES = 50
_log = logging.getLogger(__name__)


class BatchFiles:
    """Batches at one server.

    Args:
        endpoint: path that requests are for, from `/v1` on.
        poll: seconds between two questions how far a batch is.
        patience: seconds that the server may be away.
    """

    def __init__(
        self,
        client: ServerClient,
        ledger: BatchLedger,
        *,
        endpoint: str,
        poll: float,
        patience: float,
    ) -> None:
        self._client, self._ledger = client, ledger
        self._endpoint, self._poll, self._patience = endpoint, poll, patience

    def submit(self, record: BatchRecord) -> BatchRecord:
        """Send a batch, unless it was sent by a process that died before it could write that down.

        Raises:
            RlaifError: the server takes no batch files, or refuses this one.
            EngineStopped: it is away.
        """
        if record.batch_id or record.ended:
            return record
        if record.file_id and (found := self._find(record)):
            return self._ledger.update(record, batch_id=found)
        if not record.file_id:
            record = self._upload(record)
        body = {
            "input_file_id": record.file_id,
            "endpoint": self._endpoint,
            "completion_window": "24h",
            "metadata": {"rlaif": record.name},
        }
        began = time.monotonic()
        while True:
            reason = self._try("POST", "/batches", json=body)
            if isinstance(reason, dict):
                if not isinstance(reason.get("id"), str):
                    raise self._odd("created a batch without an id")
                record = self._ledger.update(record, batch_id=reason["id"])
                _log.warning(
                    "batch %s: %d requests sent; waiting (stop at any time, and rerun to resume)",
                    record.batch_id,
                    record.requests,
                )
                return record
            # It may have been created all the same: then it is not created again.
            for _ in range(_LOOKS):
                if found := self._find(record):
                    return self._ledger.update(record, batch_id=found)
                time.sleep(min(1.0, self._poll))
            self._check_patience(began, reason)

    def _upload(self, record: BatchRecord) -> BatchRecord:
        began = time.monotonic()
        while True:
            with (record.folder / INPUT).open("rb") as file:
                found = self._try(
                    "POST",
                    "/files",
                    data={"purpose": "batch"},
                    files={"file": (f"{record.name}.jsonl", file, "application/jsonl")},
                )
            if isinstance(found, dict):
                if not isinstance(found.get("id"), str):
                    raise self._odd("took a file and gave it no id")
                return self._ledger.update(record, file_id=found["id"])
            self._check_patience(began, found)
            time.sleep(self._poll)

    def _find(self, record: BatchRecord) -> str | None:
        """The id of a batch that may have been created: found by its file or its mark."""
        for batch in self._list():
            marks = batch.get("metadata")
            marked = isinstance(marks, Mapping) and marks.get("rlaif") == record.name
            by_file = record.file_id and batch.get("input_file_id") == record.file_id
            if (marked or by_file) and isinstance(batch.get("id"), str):
                return str(batch["id"])
        return None

    def _list(self) -> Iterator[Mapping[str, Any]]:
        """The server's batches, the newest first."""
        after, began = "", time.monotonic()
        for _ in range(_PAGES):
            found = self._try("GET", "/batches", params={"limit": 100, **after_of(after)})
            while not isinstance(found, dict):
                self._check_patience(began, found)
                time.sleep(min(1.0, self._poll))
                found = self._try("GET", "/batches", params={"limit": 100, **after_of(after)})
            batches = [b for b in found.get("data") or [] if isinstance(b, Mapping)]
            yield from batches
            if not found.get("has_more") or not batches:
                return
            after = str(batches[-1].get("id"))

    def wait(self, record: BatchRecord) -> BatchRecord:
        """Wait until a batch has ended, and keep what it came to.

        Raises:
            RlaifError: the server found a fault in the file, or nothing is known of the batch.
            EngineStopped: it is away.
        """
        began, told = time.monotonic(), 0
        while True:
            found = self._try("GET", f"/batches/{record.batch_id}")
            if isinstance(found, dict):
                began = time.monotonic()
                status = str(found.get("status"))
                if status in ENDED:
                    return self._keep(record, found, status)
                done = _done(found)
                if done >= told + max(1, record.requests // 10):
                    told = done
                    _log.warning("batch %s: %d of %d done", record.batch_id, done, record.requests)
            else:
                self._check_patience(began, found)
            time.sleep(self._poll)

    def _keep(self, record: BatchRecord, found: Mapping[str, Any], status: str) -> BatchRecord:
        files = [found.get(f"{kind}_file_id") for kind in ("output", "error")]
        named = [file for file in files if isinstance(file, str) and file]
        if status == "failed" and not named:
            self._ledger.update(record, ended="failed")
            raise RlaifError(
                f"batch {record.batch_id} failed before it began: {_errors(found)}",
                hint="Nothing of it was charged. If it is too large for your limits, lower "
                "--max-in-flight; then rerun the same command.",
            )
        with replacing(record.folder / OUTPUT, "wb") as file:
            for name in named:
                self._download(name, record.folder / f".{name.replace('/', '_')}.part")
                part = record.folder / f".{name.replace('/', '_')}.part"
                data = part.read_bytes()
                part.unlink()
                file.write(data if data.endswith(b"\n") or not data else data + b"\n")
        record = self._ledger.update(record, ended=status)
        if status.startswith("cancel"):
            raise EngineStopped(
                f"batch {record.batch_id} was cancelled",
                hint="Rerun the same command to send what it did not answer.",
            )
        return record

    def _download(self, file: str, to: Path) -> None:
        began = time.monotonic()
        while True:
            try:
                self._client.download(f"/files/{file}/content", to)
                return
            except (httpx.HTTPError, BodyRefused) as error:
                self._check_patience(began, f"{type(error).__name__}: {error}")
            time.sleep(self._poll)

    def _try(self, method: str, path: str, **content: Any) -> dict[str, Any] | str:
        """The object that the server answers with, or why there is none and may be one later.

        Raises:
            RlaifError: it refuses.
        """
        try:
            answer = self._client.request(method, path, **content)
            found = answer.json() if answer.status_code < 300 else None
        except (httpx.HTTPError, BodyRefused, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        if isinstance(found, dict):
            return found
        said = self._client.hide(" ".join(answer.text.split())[:200])
        reason = f"status {answer.status_code}: {said}"
        if found is None and not may_pass(answer.status_code):
            raise RlaifError(
                f"the server refuses {method} {path} ({reason})",
                hint="Leave out --batch if it takes no batch files.",
            )
        return reason

    def _check_patience(self, began: float, reason: str) -> None:
        if time.monotonic() - began > self._patience:
            raise EngineStopped(
                f"the server does not answer any more ({reason})",
                hint="Rerun the same command to resume; batches that were sent are found again.",
            )

    def _odd(self, what: str) -> RlaifError:
        return RlaifError(f"the server {what}", hint="Leave out --batch for this server.")


def after_of(batch: str) -> dict[str, str]:
    """The parameter for the page behind a batch; none for the first page."""
    return {"after": batch} if batch else {}


def _done(batch: Mapping[str, Any]) -> int:
    counts = batch.get("request_counts")
    counts = counts if isinstance(counts, Mapping) else {}
    return sum(n for n in (counts.get("completed"), counts.get("failed")) if isinstance(n, int))


def _errors(batch: Mapping[str, Any]) -> str:
    errors = batch.get("errors")
    data = errors.get("data") if isinstance(errors, Mapping) else None
    said = [str(e.get("message")) for e in data or [] if isinstance(e, Mapping)]
    return "; ".join(said[:3])[:300] or "the server says no reason"

"""Which requests were sent in which batch file, on the disk before anything is paid for.

A batch has a folder: `input.jsonl` (what is sent), `batch.json` (how far it is) and, once it has
ended, `output.jsonl` (what came back, with what failed).  Requests are found by an id that is a
hash of their content, so a run that goes on finds its answers however it is cut into batches.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rlaif.errors import RlaifError
from rlaif.util.files import replacing, write_atomically
from rlaif.util.hashing import digest

INPUT, OUTPUT, STATE = "input.jsonl", "output.jsonl", "batch.json"
_MANNER, _LOCK = "manner.json", ".batches.lock"


@dataclass(frozen=True)
class BatchRecord:
    """How far a batch is.

    Attributes:
        folder: of its files.
        url, model: of the server, and what it serves.
        requests: how many it holds.
        file_id: of its input at the server; "" before that is known.
        batch_id: at the server; "" before that is known.
        ended: how it ended at the server ("completed", "expired", ...), "alone" for answers
            without a batch; "" while it has not.
    """

    folder: Path = field(compare=False)
    url: str
    model: str
    requests: int
    file_id: str = ""
    batch_id: str = ""
    ended: str = ""

    @property
    def name(self) -> str:
        """What the batch is marked with at the server."""
        return self.folder.name

    def ids(self) -> Iterator[str]:
        """The requests it holds, by id."""
        return (row["custom_id"] for row in _rows(self.folder / INPUT))

    def answers(self) -> Iterator[tuple[str, int, Any]]:
        """What came back: id, HTTP status (0 for none) and body of each request."""
        for row in _rows(self.folder / OUTPUT):
            response = row.get("response")
            response = response if isinstance(response, Mapping) else {}
            status = response.get("status_code")
            body = response.get("body")
            if not isinstance(body, Mapping) and isinstance(row.get("error"), Mapping):
                body = {"error": dict(row["error"])}
            yield str(row.get("custom_id")), status if isinstance(status, int) else 0, body


class BatchLedger:
    """The batches of one model at one server.

    Args:
        folder: of all batches, of any server.

    Raises:
        RlaifError: the folder can't be written.
    """

    def __init__(self, folder: Path, url: str, model: str) -> None:
        self._folder, self._url, self._model = folder, url, model
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _LOCK).touch()
        except OSError as error:
            raise RlaifError(
                f"the folder for batch files, {str(folder)!r}, can't be written ({error.strerror})",
                hint="Set another one with --cache-dir.",
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within it, no other process looks up or adds batches: none asks the same twice."""
        with (self._folder / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def records(self) -> list[BatchRecord]:
        """The batches, the oldest first.

        Raises:
            RlaifError: the file of one is damaged.
        """
        found = []
        for file in sorted(self._folder.glob(f"*/{STATE}")):
            try:
                state = json.loads(file.read_text(encoding="utf-8"))
                created = state.pop("created")
                record = BatchRecord(folder=file.parent, **state)
            except (OSError, ValueError, TypeError, KeyError):
                raise RlaifError(
                    f"{file} is damaged",
                    hint=f"See the server's list of batches for {file.parent.name}, or remove "
                    "the folder: what it asked for is then asked again.",
                ) from None
            if (record.url, record.model) == (self._url, self._model):
                found.append((created, record))
        return [record for _, record in sorted(found, key=lambda pair: pair[0])]

    def add(self, requests: Mapping[str, Mapping[str, Any]], endpoint: str) -> BatchRecord:
        """A batch that is going to be sent.

        Args:
            requests: bodies by id.
            endpoint: path that they are for, from `/v1` on.
        """
        whole = digest([self._url, self._model, sorted(requests)])[:16]
        created = sum(1 for _ in self._folder.glob(f"*/{STATE}"))
        folder = self._folder / f"rlaif-{created:05d}-{whole}"
        folder.mkdir(exist_ok=True)
        with replacing(folder / INPUT) as file:
            for name, body in requests.items():
                file.write(_line(name, endpoint, body))
        record = BatchRecord(folder, self._url, self._model, len(requests))
        self._write(record, created)
        return record

    def keep_alone(self, answers: Mapping[str, tuple[Any, Any]], endpoint: str) -> None:
        """Keep answers that came without a batch; they are found as those of one.

        Args:
            answers: by id, what was sent and what the server said.
        """
        first = next(iter(answers))
        folder = self._folder / f"alone-{first[:16]}"
        folder.mkdir(exist_ok=True)
        with replacing(folder / INPUT) as sent, replacing(folder / OUTPUT) as came:
            for name, (body, answer) in answers.items():
                sent.write(_line(name, endpoint, body))
                row = {"custom_id": name, "response": {"status_code": 200, "body": answer}}
                came.write(json.dumps(row, ensure_ascii=False) + "\n")
        record = BatchRecord(folder, self._url, self._model, len(answers), ended="alone")
        self._write(record, 0)

    def update(self, record: BatchRecord, **changes: str) -> BatchRecord:
        """The record with what is known now, on the disk."""
        changed = replace(record, **changes)  # type: ignore[arg-type]
        state = json.loads((record.folder / STATE).read_text(encoding="utf-8"))
        self._write(changed, state["created"])
        return changed

    def _write(self, record: BatchRecord, created: int) -> None:
        state = {k: v for k, v in asdict(record).items() if k != "folder"}
        text = json.dumps({**state, "created": created}, indent=1)
        write_atomically(record.folder / STATE, text + "\n")

    def load_manner(self, fingerprint: str) -> dict[str, Any]:
        """How the server wants to be asked, as an earlier process learned; empty for nothing."""
        return self._manners().get(fingerprint, {})

    def keep_manner(self, fingerprint: str, manner: Mapping[str, Any]) -> None:
        """Keep it."""
        known = {**self._manners(), fingerprint: dict(manner)}
        write_atomically(self._folder / _MANNER, json.dumps(known, indent=1) + "\n")

    def _manners(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads((self._folder / _MANNER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _line(name: str, endpoint: str, body: Any) -> str:
    row = {"custom_id": name, "method": "POST", "url": endpoint, "body": body}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _rows(file: Path) -> Iterable[dict[str, Any]]:
    """The objects of a file of JSON lines; other lines are no answers."""
    with file.open("rb") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row

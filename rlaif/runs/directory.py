"""A run directory: row files that grow in input order, and a journal that makes them resumable.

The journal, replaced atomically, says how many pairs are finished, how long each file was
then, and the tally so far.  Opening a run cuts every file back to the journal: what came
after is aggregated again from the verdict cache, byte for byte the same.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import IO, Any, NotRequired, Protocol

import yaml
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from rlaif.errors import Place, RlaifError
from rlaif.runs.parts import check_parts, has_parts, load_index, part_files, read_table_rows
from rlaif.runs.rows import VerdictRows
from rlaif.util.doubled_keys import refuse_doubles
from rlaif.util.file_sizes import check_sizes
from rlaif.util.files import open_lock, write_atomically
from rlaif.util.hashing import digest, file_digest
from rlaif.util.output import check_folder
from rlaif.util.paths import open_binary
from rlaif.util.plain_yaml import load_plain_yaml
from rlaif.util.validation import describe_problem

PREFERENCES, VERDICTS = "preferences.jsonl", "verdicts.jsonl"
UNDECIDED, REJECTED = "undecided.jsonl", "rejected.jsonl"
ROW_FILES = (PREFERENCES, VERDICTS, UNDECIDED, REJECTED)
CONFIG, JOURNAL, MANIFEST, SPENT = "run.yaml", "journal.json", "manifest.json", ".spent.json"
REVIEW = "review.json"
"""What people found in a review, as `rlaif labels report` and `labels apply` write it."""
CONSTITUTION = "constitution.yaml"
"""What the judge was asked by, with what it extends merged in."""

_BUFFER = 1 << 17
encode_row = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def write_row(row: Mapping[str, object] | VerdictRows) -> str:
    """A row as a line of JSON; the verdicts of a pair as several."""
    return row.lines() if isinstance(row, VerdictRows) else encode_row(row)


class RowSink(Protocol):
    """Where a labeling loop leaves its rows: a `RunDirectory`, or memory.

    Attributes:
        journal: the state so far.
        spent: what has been spent so far.
    """

    journal: dict[str, Any]

    @property
    def spent(self) -> dict[str, Any]:
        """See `RunDirectory.spent`."""
        ...

    def append(self, name: str, row: Mapping[str, object] | VerdictRows) -> None:
        """See `RunDirectory.append`."""
        ...

    def checkpoint(self, **state: object) -> None:
        """See `RunDirectory.checkpoint`."""
        ...

    def spend(self, **state: object) -> None:
        """See `RunDirectory.spend`."""
        ...


class _WithoutAliases(yaml.SafeDumper):
    """Writes what several judges share in each place: people read and edit `run.yaml`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class RunDirectory:
    """One run on disk, held open by one process.

    Args:
        path: the folder; made if missing.
        config: the resolved configuration; a run with another one is refused.
        files: names of its row files; default: a labeling run's.

    Raises:
        RlaifError: the folder holds something else, another configuration, or is in use.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], files: tuple[str, ...] = ROW_FILES
    ) -> None:
        self.path = path
        self._names = files
        check_config(path, config)
        path.mkdir(parents=True, exist_ok=True)
        self._lock = _open_lock(path)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise _in_use(path) from None
        if not (path / CONFIG).exists():
            header = "# Resolved configuration of this run; a different one is refused.\n"
            text = yaml.dump(
                dict(config), Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True
            )
            write_atomically(path / CONFIG, header + text)
        self.journal: dict[str, Any] = self._read_journal()
        self._files: dict[str, IO[bytes]] = {}
        self._synced: dict[str, int] = {}
        for name in files:
            if (path / name).is_symlink():
                raise RlaifError(
                    f"{path / name} is a link; what it leads to would be overwritten",
                    hint="Use a new output folder.",
                )
            file = (path / name).open("ab", buffering=_BUFFER)
            file.truncate(self.journal["bytes"].get(name, 0))
            file.seek(0, os.SEEK_END)
            self._files[name] = file
            self._synced[name] = file.tell()

    def _read_journal(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {"rows": 0, "bytes": {}, "tally": None}
        try:
            journal = json.loads((self.path / JOURNAL).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return fresh
        if not isinstance(journal, dict) or not {"rows", "bytes", "tally"} <= journal.keys():
            return fresh
        sizes = journal["bytes"]
        whole = isinstance(sizes, dict) and _is_count(journal["rows"])
        whole = whole and isinstance(journal["tally"], dict | NoneType)
        whole = whole and _is_count(journal.get("turns", 0))
        seconds = journal.get("seconds", 0.0)
        whole = whole and isinstance(seconds, int | float) and math.isfinite(seconds)
        if not whole or not all(map(_is_count, sizes.values())):
            return fresh  # what it counted is counted again, from the cache
        for name in self._names:
            file = self.path / name
            if sizes.get(name, 0) > (file.stat().st_size if file.exists() else 0):
                raise RlaifError(
                    f"{file} is shorter than its journal records; it was truncated",
                    hint="Delete journal.json in that folder to rebuild the run from the cache.",
                )
        return journal

    def append(self, name: str, row: Mapping[str, object] | VerdictRows | str) -> None:
        """Add one row, or lines of JSON, to a row file (buffered until `checkpoint`)."""
        try:
            line = row if isinstance(row, str) else write_row(row)
        except ValueError as error:  # NaN and infinity, which JSON has not
            raise RlaifError(
                f"a row of {name} can't be written ({error}): {str(row)[:80]!r}",
                hint="Check the rows that it was made from.",
            ) from None
        self._files[name].write(line.encode("utf-8", "replace") + b"\n")

    def flush(self) -> None:
        """Let readers see what was appended; what a `checkpoint` has not followed is cut off when
        the run is opened again.
        """
        for file in self._files.values():
            file.flush()

    def _sync(self) -> None:
        for name, file in self._files.items():
            file.flush()
            size = file.tell()
            if self._synced.get(name) != size:
                os.fsync(file.fileno())
                self._synced[name] = size

    def checkpoint(self, **state: object) -> None:
        """Have the row files on the disk, then write the journal with `state`: what it says is
        there survives a power cut.
        """
        self._sync()
        sizes = {name: file.tell() for name, file in self._files.items()}
        self.journal = {**self.journal, **state, "bytes": sizes}
        write_atomically(self.path / JOURNAL, json.dumps(self.journal))

    @property
    def spent(self) -> dict[str, Any]:
        """What `spend` was told last, in whatever process; empty for nothing."""
        found = _read_json(self.path / SPENT)
        return found if isinstance(found, dict) else {}

    def spend(self, **state: object) -> None:
        """Keep what the run has cost so far: answers are paid for before rows rest on them."""
        write_atomically(self.path / SPENT, json.dumps(state))

    def write_manifest(self, manifest: Mapping[str, object]) -> None:
        """Write `manifest.json`: its presence says that the run is complete, and `bytes` how large
        its row files are.
        """
        self._sync()
        sizes = {name: (self.path / name).stat().st_size for name in self._files}
        text = json.dumps({**manifest, "bytes": sizes}, indent=2, ensure_ascii=False)
        write_atomically(self.path / MANIFEST, text + "\n")

    def close(self) -> None:
        """Close the files and let go of the folder."""
        for file in self._files.values():
            file.close()
        self._lock.close()


class _LastProcess(TypedDict, total=False):
    tokens: dict[str, int | None]


class _Named(TypedDict):
    name: str
    version: str
    hash: str


class _Input(TypedDict):
    path: str
    hash: str


class _Template(TypedDict):
    name: str
    hash: str


class _Model(TypedDict):
    model: str


class _Member(TypedDict):
    judge: _Model


class _LabelConfig(TypedDict):
    """What every reader of a labeling run rests on."""

    input: _Input
    constitution: _Named
    judge: _Model
    template: _Template
    orders: str
    members: NotRequired[list[_Member]]
    aggregation: NotRequired[dict[str, Any]]
    review: NotRequired[dict[str, Any]]


class _Counts(TypedDict, total=False):
    origins: dict[str, dict[str, Any]]
    decided: int
    tie: int
    abstained: int
    pairs: int
    rows: int


class _Manifest(TypedDict, total=False):
    config: dict[str, Any]
    counts: _Counts
    seconds: float
    tokens: dict[str, int | None]
    cost: dict[str, Any] | None
    libraries: dict[str, Any]
    last_process: _LastProcess
    members: list[dict[str, Any]]


_MANIFEST = TypeAdapter(_Manifest)
_LABEL_CONFIG = TypeAdapter(_LabelConfig)


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that is not this run; changes nothing.

    Raises:
        RlaifError: it is a file, holds other things, or a run with another configuration.
    """
    if not check_folder(path, "run", held=(path / CONFIG).exists()):
        return
    changed = differences(read_run_config(path), config)
    if changed:
        raise RlaifError(
            f"run {str(path)!r} was started with a different configuration ({changed})",
            hint="Use a new folder with -o; verdicts that still apply are reused from the cache.",
        )


def check_writable(path: Path) -> None:
    """Find out before anything starts whether the run can be written; changes nothing.

    Raises:
        RlaifError: the folder can't be made or written, or another process holds the run.
    """
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    try:
        # Permissions alone do not say it: a file system may be read-only, or made by the kernel.
        Path(tempfile.mkdtemp(prefix=".rlaif-", dir=existing)).rmdir()
    except OSError as error:
        raise RlaifError(
            f"can't write run {str(path)!r}: {existing} is not a writable folder "
            f"({error.strerror})",
            hint="Use another folder with -o.",
        ) from None
    if (path / ".lock").exists():
        with _open_lock(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise _in_use(path) from None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _open_lock(path: Path) -> IO[str]:
    try:
        return open_lock(path / ".lock")
    except OSError as error:
        raise RlaifError(
            f"{str(path / '.lock')!r} can't be opened ({error.strerror})",
            hint="Delete it if no run uses the folder.",
        ) from None


def _in_use(path: Path) -> RlaifError:
    return RlaifError(
        f"run {str(path)!r} is in use by another process",
        hint="Wait for it to finish, or use another folder with -o.",
    )


def read_run_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run.

    Raises:
        RlaifError: `path` is no run directory.
    """
    try:
        config = load_plain_yaml((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise RlaifError(
            f"{str(path)!r} is not a run directory (no readable {CONFIG})",
            hint="Use a folder that an rlaif command created with -o.",
        )
    return config


def _validate(form: TypeAdapter[Any], value: object, file: Path) -> None:
    try:
        form.validate_python(value)
    except ValidationError as error:
        raise RlaifError(
            f"{file} is damaged ({describe_problem(error)})",
            hint="Rerun the command that created the run in a new folder.",
        ) from None


def read_manifest(path: Path, *, sizes: bool = True) -> dict[str, Any]:
    """The manifest of a complete run.

    Args:
        sizes: whether its row files must be as long as when the run ended.

    Raises:
        RlaifError: `path` is no run directory, the run is not complete, or a row file was cut or
            edited since it ended.
    """
    read_run_config(path)
    manifest = _read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or not {"config", "counts", "seconds"} <= manifest.keys():
        raise RlaifError(
            f"run {str(path)!r} is not complete",
            hint="Rerun the command that created it to resume.",
        )
    _validate(_MANIFEST, manifest, path / MANIFEST)
    if "decided" in manifest["counts"]:
        _validate(_LABEL_CONFIG, manifest["config"], path / MANIFEST)
    if sizes:
        check_sizes(path, manifest.get("bytes"), _EDITED)
        if has_parts(path):
            check_parts(path)
    return manifest


def read_review(path: Path) -> dict[str, Any] | None:
    """What people found of a run's labels; None where nobody said."""
    found = _read_json(path / REVIEW)
    return found if isinstance(found, dict) and {"labels", "agreement"} <= found.keys() else None


_EDITED = (
    "Make the run again in a new folder with -o (cached verdicts are reused); commands that take "
    "any data file take this one by its own path."
)


def is_complete(path: Path, files: tuple[str, ...] = ROW_FILES) -> bool:
    """Whether `path` is a run with a whole manifest and all its row files.

    Raises:
        RlaifError: a file was cut or edited since the run ended.
    """
    try:
        manifest = read_manifest(path, sizes=False)
    except RlaifError:
        return False
    if has_parts(path):
        check_parts(path)
        return True
    if not all((path / name).exists() for name in files):
        return False
    hint = "Use a new folder with -o; verdicts that still apply are reused from the cache."
    check_sizes(path, manifest.get("bytes"), hint, all_there=True)
    return True


def run_file(data: str, names: Sequence[str], *, finished: bool = True) -> str:
    """The first of the files that a run holds, by what it is for; other data as it is.

    Args:
        names: of files, the wanted one first.
        finished: only of a complete run.

    Raises:
        RlaifError: the run has none of them, or is not complete.
    """
    path = Path(data)
    if not (path / CONFIG).exists():
        return data
    found = next((path / name for name in names if has_rows(path / name)), None)
    if found is None:
        raise RlaifError(
            f"run {data!r} contains no {' or '.join(names)}",
            hint="Use another run, or a data file.",
        )
    if finished and not (path / MANIFEST).exists():
        raise RlaifError(
            f"run {data!r} is not complete",
            hint="Rerun the command that created it, or use a data file.",
        )
    if isinstance(manifest := _read_json(path / MANIFEST), dict):
        check_sizes(path, manifest.get("bytes"), _EDITED)
    if not found.exists():
        folder = load_index(path).folder(path)
        return f"{folder}/*/*/{found.name}"  # other attempts than those that count are gone
    return str(found)


def rows_digest(file: Path) -> str:
    """Content address of a row file of a run, which may be in parts."""
    if file.exists() or not has_parts(file.parent):
        return file_digest(file)
    return digest([file_digest(part) for part in part_files(file.parent, file.name)])


def has_rows(file: Path) -> bool:
    """Whether a run has a row file, or parts that have it."""
    return file.exists() or (file.name in ROW_FILES and has_parts(file.parent))


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_rows(file: Path, *, strict: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a row file with their line numbers; of a run in parts, those of all its parts.

    Args:
        strict: whether a key that comes twice is a fault, as it is to an auditor.

    Raises:
        RlaifError: the file is missing, or a line is torn or is no row.
    """
    if has_parts(file.parent) and not file.exists():
        number = 0
        for part in part_files(file.parent, file.name):
            rows = read_table_rows(part) if part.suffix == ".parquet" else _json_rows(part, strict)
            for _, row in rows:
                number += 1
                yield number, row
        return
    yield from _json_rows(file, strict)


def _json_rows(file: Path, strict: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    hint = "Label again into a new folder; cached verdicts are reused."
    try:
        lines = open_binary(file)
    except OSError as error:
        raise RlaifError(f"could not read {file} ({error.strerror})", hint=hint) from None
    with lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(
                    line.decode("utf-8"), object_pairs_hook=refuse_doubles if strict else None
                )
                if not isinstance(row, dict):
                    raise ValueError("not an object")
            except (ValueError, RecursionError) as error:
                reason = f"row is damaged ({error})"
                raise RlaifError(reason, hint=hint, place=Place(file, number, 1)) from None
            yield number, row


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that differ, as `key: old -> new`; "" for none."""
    old, new = _flatten(before), _flatten(now)
    changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    return "; ".join(f"{k}: {old.get(k)!r:.60} -> {new.get(k)!r:.60}" for k in changed[:6])


def _flatten(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, Mapping) and value:
        flat: dict[str, object] = {}
        for key, item in value.items():
            flat |= _flatten(item, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: value}

"""Reads rows from wherever people keep them, one at a time, with the place of each.

A row that breaks is yielded as `Rejected` and reading goes on; only a source that can't be
read at all raises.
"""

from __future__ import annotations

import atexit
import glob
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from rlaif.data.batches import check_batch, join_batches
from rlaif.data.compression import COMPRESSED, open_bytes
from rlaif.data.file_formats import Row, as_row, open_parquet, read_file
from rlaif.data.grouping import join_rows
from rlaif.data.layout import Layout, load_layout, make_layout
from rlaif.data.mixes import DATA_FILE
from rlaif.errors import RlaifError, first_line
from rlaif.records import Rejected
from rlaif.util.hashing import digest, folder_digest
from rlaif.util.kept_digests import kept_digest
from rlaif.util.paths import is_url, open_path

_log = logging.getLogger(__name__)

FILE_KINDS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".txt", ".eval")


class RowsInOrder(Protocol):
    """A `Source`, or some of its rows."""

    def rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        """Every row with its place."""
        ...


@dataclass(frozen=True)
class Source:
    """A data set by its path or hub id.

    Attributes:
        kind: a file ending without its dot, "datasets" (a saved folder), "batch" or "hub".
        split: for `datasets` folders and hub ids with several splits.
        layout: says which rows belong together; None: each row stands alone.
        files: where the rows are, if not in the one file of this name.
        options: of a Hub data set: config, data_dir, revision.
        given: fields of the layout that the name says: `NAME,layout=FILE`.
    """

    name: str
    kind: str
    split: str = "train"
    layout: Layout | None = None
    files: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def paths(self) -> list[Path]:
        """The files, in the order in which they are read: by name."""
        return [open_path(file) for file in self.files or (self.name,)]

    @property
    def labels(self) -> list[str]:
        """What places in each of several files begin with: its name, or more where that is the
        same for two; "" for one file.
        """
        paths = self.paths
        if len(paths) < 2:
            return [""]
        if len({path.name for path in paths}) == len(paths):
            return [path.name for path in paths]
        base = os.path.commonpath([str(path.parent) for path in paths])
        return [os.path.relpath(path, base) for path in paths]

    def fingerprint(self) -> str:
        """Content address: of the bytes on disk, or of the hub id with its commit."""
        if self.given:
            own = make_layout(self.given).to_data()
            return digest({"data": replace(self, given={}).fingerprint(), "layout": own})
        if self.kind == "hub":
            own = dict(self.options)
            commit = _hub_commit(self.name, own.get("revision"))
            return digest({"hub": self.name, "split": self.split, "commit": commit, **own})
        if self.kind == "datasets":
            folder = Path(self.name)
            return digest([folder_digest(folder, ("**/*.arrow", "**/*.json")), self.split])
        found = [kept_digest(path) for path in self.paths]
        return found[0] if len(found) == 1 else digest(found)

    def count(self, limit: int | None = None) -> int | None:
        """How many rows there are (at most `limit`), where that is cheap to know."""
        found = None
        if self.kind in ("jsonl", "ndjson", "txt"):
            found = 0
            for path in self.paths:
                with open_bytes(path) as file:
                    blocks = iter(lambda: file.read(1 << 20), b"")
                    found += sum(block.count(b"\n") for block in blocks)
        elif self.kind == "parquet":
            found = sum(open_parquet(path).metadata.num_rows for path in self.paths)
        return found if found is None or limit is None else min(found, limit)

    def rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        """Every row with its place (`line 3`, `row 3`); joined where several make one."""
        rows = self._rows()
        return rows if self.layout is None else join_rows(rows, self.layout)

    def _rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        if self.kind == "datasets":
            return _saved_datasets(Path(self.name), self.split)
        if self.kind == "hub":
            return _hub(self.name, self.split, dict(self.options))
        if self.kind == "batch":
            return join_batches(self.files)
        if len(self.paths) == 1:
            return read_file(self.paths[0], self.kind)
        return self._several()

    def _several(self) -> Iterator[tuple[str, Row | Rejected]]:
        for path, label in zip(self.paths, self.labels, strict=True):
            for place, row in read_file(path, self.kind):
                where = f"{label} {place}"
                yield where, replace(row, place=where) if isinstance(row, Rejected) else row


_LAYOUT = ",layout="
"""What stands between a data set's name and the file with its layout."""


def open_source(name: str, split: str = "train") -> Source:
    """Find out what `name` is.

    Raises:
        RlaifError: no such file, an unknown ending, or a folder that neither `datasets` saved nor
            `rlaif mix` made.
    """
    data, mark, layout = name.rpartition(_LAYOUT)
    if mark and not Path(name).exists():
        return replace(open_source(data, split), given=load_layout(Path(layout)))
    if name in ("-", "/dev/stdin"):
        return Source(name, "jsonl", split, files=(_spooled_input(),))
    if name.startswith("hub:"):
        return _hub_source(name.removeprefix("hub:"), split)
    if name.startswith("batch:"):
        files = tuple(name.removeprefix("batch:").split(","))
        check_batch(files)
        return Source(name, "batch", split, files=files)
    if is_url(name):
        return _remote_source(name, split)
    name = os.path.expanduser(name)
    path = Path(name)
    if path.is_file():
        _warn_of_cut(path)
        return Source(name, _kind_of(path), split)
    if path.is_dir() and (path / DATA_FILE).is_file():
        return Source(str(path / DATA_FILE), "parquet", split)
    if path.is_dir():
        saved = ("dataset_info.json", "dataset_dict.json", "state.json")
        if any((path / file).is_file() for file in saved):
            return Source(name, "datasets", split)
        return _shards(name, _of_split(name, _data_files(path), split), split)
    if any(mark in name for mark in "*?[") and name.strip():
        return _shards(name, sorted(map(Path, glob.glob(name, recursive=True))), split)
    raise RlaifError(
        f"input {name!r} does not exist",
        hint="Check the path, or write hub:NAME for a dataset on the Hub.",
    )


def _remote_source(url: str, split: str) -> Source:
    """A file, a pattern of files or a folder of them, through fsspec.

    Raises:
        RlaifError: there are none, or they can't be listed.
    """
    try:
        if any(mark in url for mark in "*?["):
            fixed = re.split(r"[*?[]", url, maxsplit=1)[0].rpartition("/")[0]
            found = list(open_path(fixed).glob(url[len(fixed) + 1 :]))
        else:
            path = open_path(url)
            found = [path] if path.is_file() else [p for p in path.iterdir() if _is_data(p)]
    except RlaifError:
        raise
    except Exception as error:  # file systems raise many unrelated types
        raise RlaifError(
            f"input {url!r} can't be listed ({first_line(error)})",
            hint="Check the URL and your credentials.",
        ) from None
    files = sorted(found, key=str)
    if len(files) == 1:
        return Source(str(files[0]), _kind_of(files[0]), split)
    return _shards(url, files, split)


def _warn_of_cut(file: Path) -> None:
    """Say that a run's file is not what the run ended with: as data, it may be wanted so."""
    try:
        told = json.loads((file.parent / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    sizes = told.get("bytes") if isinstance(told, dict) else None
    size = sizes.get(file.name) if isinstance(sizes, dict) else None
    held = file.stat().st_size
    if isinstance(size, int) and size != held:
        _log.warning(
            "%s has %d bytes, and had %d when its run ended: it was cut or edited, and is read as "
            "it is now",
            file,
            held,
            size,
        )


def _kind_of(path: Path) -> str:
    """The kind of a data file, by its ending; compression aside.

    Raises:
        RlaifError: it is no data file.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind not in FILE_KINDS:
        raise RlaifError(
            f"input {str(path)!r} has the unsupported extension {''.join(path.suffixes[-2:])!r}",
            hint=f"Use one of {', '.join(FILE_KINDS)}, or these with {' or '.join(COMPRESSED)}.",
        )
    return kind[1:]


def _is_data(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in FILE_KINDS and not path.name.startswith(".")


def _data_files(folder: Path) -> list[Path]:
    """The data files of a folder; of those in it where it has none itself, as repositories of the
    Hub and tables in parts have them.
    """
    files = sorted(p for p in folder.iterdir() if _is_data(p))
    return files or sorted(p for p in folder.rglob("*") if _is_data(p) and _is_shown(folder, p))


def _is_shown(folder: Path, path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)


_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "eval",
    "evaluation": "eval",
}
"""Words that name a split in the names of files and folders, as the Hub reads them."""


def _split_of(folder: str, path: Path) -> str:
    """The split that a file's name, or its folder's, says; "" for none."""
    for part in reversed(path.parts[len(Path(folder).parts) :]):
        words = re.split(r"[^a-z]+", part.lower())
        found = next((_SPLITS[word] for word in words if word in _SPLITS), "")
        if found:
            return found
    return ""


def _of_split(name: str, files: Sequence[Path], split: str) -> Sequence[Path]:
    """The files of one split, where their names tell splits apart.

    Raises:
        RlaifError: none is of that split.
    """
    splits = {path: _split_of(name, path) for path in files}
    named = sorted(set(filter(None, splits.values())))
    if len(set(splits.values())) < 2 and (not named or _SPLITS.get(split, split) in named):
        return files
    kept = [path for path in files if splits[path] == _SPLITS.get(split, split)]
    if not kept:
        raise RlaifError(
            f"folder {name!r} has no files of split {split!r}",
            hint=f"Choose one with --split: {', '.join(named)}; or name the files with a pattern, "
            f"such as '{name.rstrip('/')}/*'.",
        )
    return kept


def _shards(name: str, files: Sequence[Path], split: str) -> Source:
    """Several files as one data set, read by name.

    Raises:
        RlaifError: there are none, or they are of several kinds.
    """
    if not files:
        raise RlaifError(
            f"{name!r} holds no data files", hint=f"Use files with {', '.join(FILE_KINDS)}."
        )
    kinds = sorted({_kind_of(file) for file in files})
    if len(kinds) > 1:
        raise RlaifError(
            f"{name!r} holds files of several kinds ({', '.join(kinds)})",
            hint=f"Choose those of one kind, such as '{name.rstrip('/')}/*.{kinds[0]}'.",
        )
    return Source(name, kinds[0], split, files=tuple(map(str, files)))


def _hub_source(text: str, split: str) -> Source:
    """`NAME[,config=...][,data_dir=...][,revision=...][,split=...]`.

    Raises:
        RlaifError: an option is unknown.
    """
    name, *rest = text.split(",")
    options: dict[str, str] = {}
    for item in rest:
        key, equals, value = item.partition("=")
        if not equals or key not in ("config", "data_dir", "revision", "split"):
            raise RlaifError(
                f"hub:{name} has the unknown option {item!r}",
                hint="Use config=, data_dir=, revision= or split=.",
            )
        options[key] = value
    split = options.pop("split", split)
    return Source(name, "hub", split, options=tuple(sorted(options.items())))


@cache
def _spooled_input() -> str:
    """Standard input in a file of its own: data is read more than once."""
    file = tempfile.NamedTemporaryFile(prefix="rlaif-stdin-", suffix=".jsonl", delete=False)  # noqa: SIM115
    with file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name


def open_evaluation(name: str) -> Source:
    """Data that must not be trained on: of several splits, `test`, else `validation`, or the one
    that `NAME:SPLIT` names.

    Raises:
        RlaifError: as `open_source`; or it can't be found out which splits there are.
    """
    data, mark, layout = name.rpartition(_LAYOUT)
    if mark and not Path(name).exists():
        return replace(open_evaluation(data), given=load_layout(Path(layout)))
    data, colon, split = name.rpartition(":")
    if colon and split and not Path(name).exists() and "/" not in split:
        return open_source(data, split)
    folder = Path(os.path.expanduser(name))
    named = {_split_of(str(folder), p) for p in _data_files(folder)} if folder.is_dir() else set()
    splits = sorted(filter(None, named)) or _splits(open_source(name))
    return open_source(name, next((s for s in ("test", "validation") if s in splits), "train"))


def _splits(source: Source) -> list[str]:
    import datasets

    if source.kind == "datasets":
        try:
            saved = datasets.load_from_disk(source.name)
        except Exception:  # said when it is read
            return []
        return list(saved) if isinstance(saved, datasets.DatasetDict) else []
    if source.kind != "hub":
        return []
    try:
        return [str(split) for split in datasets.get_dataset_split_names(source.name)]
    except Exception as error:  # the library raises many unrelated types
        reason = first_line(error)
        raise RlaifError(
            f"could not list the splits of {source.name!r} ({reason})",
            hint="Choose one with DATA:SPLIT.",
        ) from None


def _saved_datasets(path: Path, split: str) -> Iterator[tuple[str, Row | Rejected]]:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises many unrelated types
        reason = f"could not be opened ({error})"
        raise RlaifError(f"folder {str(path)!r} {reason}", hint="Save it again.") from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            names = ", ".join(found)
            raise RlaifError(
                f"folder {str(path)!r} has no split {split!r}",
                hint=f"Choose one with --split: {names}.",
            )
        found = found[split]
    yield from _rows_of(found, f"folder {str(path)!r}")


def _hub(name: str, split: str, options: Mapping[str, str]) -> Iterator[tuple[str, Row | Rejected]]:
    import datasets

    own = {("name" if key == "config" else key): value for key, value in options.items()}
    try:
        found = datasets.load_dataset(name, split=split, streaming=True, **own)
    except Exception as error:  # the library raises many unrelated types
        reason = first_line(error)
        raise RlaifError(
            f"dataset {name!r} is not a local file and could not be loaded from the Hub ({reason})",
            hint="Check the path or Hub ID, the split and the network.",
        ) from None
    yield from _rows_of(found, f"dataset {name!r}")


def _rows_of(found: Any, what: str) -> Iterator[tuple[str, Row | Rejected]]:
    """Rows of a data set of the `datasets` library; one with an unreadable value is rejected."""
    number = 0
    while True:
        # A data set that can be entered anywhere goes on behind a row that can't be read.
        can_skip = hasattr(found, "select")
        rows = found.select(range(number, len(found))) if can_skip else found
        try:
            for row in rows:
                number += 1
                yield f"row {number}", as_row(row, f"row {number}")
            return
        except (ValueError, OverflowError, TypeError) as error:
            number += 1
            if not can_skip:
                raise RlaifError(
                    f"{what}: row {number} can't be read ({error})", hint="Remove that row."
                ) from None
            place = f"row {number}"
            yield place, Rejected(place, f"a value can't be read: {error}")


def _hub_commit(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    except Exception as error:  # the hub client raises many unrelated types
        reason = first_line(error)
        raise RlaifError(
            f"dataset {name!r} is not a local file and was not found on the Hub ({reason})",
            hint="Check the path or Hub ID, and the network.",
        ) from None

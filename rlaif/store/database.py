"""An SQLite file of ours, in write-ahead mode: several threads and processes may share it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlaif.errors import RlaifError


class Database:
    """Two connections, so that reading never waits for a write, whichever thread does either.

    Args:
        path: made if missing.
        application: what marks the file as one of this kind.
        schema: made if missing.
        what: what to call it in errors.
        hint: the next step where it can't be opened.

    Raises:
        RlaifError: the file can't be opened, or is something else.
    """

    def __init__(
        self,
        path: Path,
        application: int,
        schema: str,
        what: str,
        *,
        hint: str = "Use another folder with --cache-dir; it is created if missing.",
    ) -> None:
        self._name = f"{what} {str(path)!r}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writer, self.reader = (
                sqlite3.connect(
                    path,
                    timeout=60,
                    isolation_level=None,
                    check_same_thread=False,
                    cached_statements=8,
                )
                for _ in range(2)
            )
            known = self.writer.execute("PRAGMA application_id").fetchone()[0]
            tables = self.writer.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and known != application:
                raise sqlite3.DatabaseError("it is a different kind of database")
            self.writer.execute(f"PRAGMA application_id={application}")
            self.writer.execute("PRAGMA journal_mode=WAL")
            self.writer.execute("PRAGMA synchronous=NORMAL")
            self.writer.execute("PRAGMA wal_autocheckpoint=8000")
            for connection in (self.writer, self.reader):
                connection.execute("PRAGMA cache_size=-1000")
            self.writer.executescript(schema)
        except (OSError, sqlite3.Error) as error:
            raise RlaifError(
                f"{self._name} could not be opened ({error})",
                hint=hint,
            ) from None

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns what SQLite says about a file that breaks in use into one clear error."""
        try:
            yield
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self.writer.rollback()  # what was begun would stand in the way of the next write
            raise RlaifError(
                f"{self._name} failed ({error})",
                hint="Check the free disk space, or use another folder with --cache-dir. "
                "Rerun the same command to resume.",
            ) from None

    def close(self) -> None:
        """Close the file."""
        self.reader.close()
        self.writer.close()

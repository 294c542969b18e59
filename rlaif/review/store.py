"""What is to be reviewed, by whom, and what was said: one SQLite file in the run's folder.

Decisions are only ever added; taking one back marks it.  Each is on the disk before the next page
is shown.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from rlaif.errors import RlaifError
from rlaif.review.items import ReviewItem
from rlaif.review.queue import QueuedPair
from rlaif.store.database import Database
from rlaif.util.hashing import digest

DESK = "review.sqlite"
LEASE_SECONDS = 1800.0
"""How long a pair that somebody looks at is kept from others."""
_APPLICATION = 0x524C5256
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    item INTEGER PRIMARY KEY, place REAL NOT NULL, data TEXT NOT NULL, reasons TEXT NOT NULL,
    audit INTEGER NOT NULL, certain INTEGER NOT NULL, inclusion REAL NOT NULL,
    wanted INTEGER NOT NULL, gold TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS by_place ON items (place);
CREATE TABLE IF NOT EXISTS decisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, item INTEGER NOT NULL, reviewer TEXT NOT NULL,
    verdict TEXT NOT NULL, first TEXT NOT NULL, blind INTEGER NOT NULL, seconds REAL NOT NULL,
    at REAL NOT NULL, note TEXT NOT NULL, edited TEXT NOT NULL, pasted INTEGER NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS by_item ON decisions (item, reviewer);
CREATE INDEX IF NOT EXISTS by_reviewer ON decisions (reviewer, number);
CREATE VIEW IF NOT EXISTS current AS SELECT * FROM decisions d WHERE d.undone = 0 AND d.number = (
    SELECT max(e.number) FROM decisions e
    WHERE e.item = d.item AND e.reviewer = d.reviewer AND e.undone = 0
);
CREATE TABLE IF NOT EXISTS leases (
    item INTEGER NOT NULL, reviewer TEXT NOT NULL, until REAL NOT NULL, shown REAL NOT NULL,
    PRIMARY KEY (item, reviewer)
);
"""
Said = Literal["a", "b", "tie", "skip"]


@dataclass(frozen=True)
class Decision:
    """What a reviewer said of a pair.

    Attributes:
        verdict: the better completion, "tie", or "skip".
        first: which completion stood first (left); "" where nobody drew it.
        blind: given before the judge's verdict was shown.
        seconds: since the page was opened.
        at: seconds since 1970.
        edited: a better completion, written from the one that `verdict` names; "" for none.
        pasted: characters of it that were pasted.
    """

    number: int
    item: int
    reviewer: str
    verdict: Said
    first: str
    blind: bool
    seconds: float
    at: float
    note: str
    edited: str
    pasted: int


@dataclass(frozen=True)
class ReviewTask:
    """A pair of the queue.

    Attributes:
        reasons: why it is worth a look; not for the reviewer's eyes before the decision.
        wanted: how many people are to see it.
        gold: the known right answer of a planted pair, or "".
    """

    number: int
    item: ReviewItem
    reasons: list[str]
    audit: bool
    certain: bool
    inclusion: float
    wanted: int
    gold: str


@dataclass(frozen=True)
class ReviewProgress:
    """How far a reviewer and all together are: pairs."""

    own: int
    done: int
    total: int
    seconds: float


class ReviewStore:
    """The file, open.  Threads may share it.

    Args:
        clock: seconds since 1970.

    Raises:
        RlaifError: the file can't be opened.

    Long because every query on the one database is here, a few lines each.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._db = Database(
            path,
            _APPLICATION,
            _SCHEMA,
            "the review file",
            hint="If it is damaged, move it away; `rlaif review` then starts a new one.",
        )
        self._db.writer.execute("PRAGMA synchronous=FULL")
        self._lock = Lock()
        self._clock = clock
        self._path = path
        with self._writing() as write:
            write("INSERT OR IGNORE INTO facts VALUES ('secret', ?)", (secrets.token_hex(32),))
        self.secret = bytes.fromhex(self.fact("secret"))

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., Any]]:
        """One transaction that other processes wait for."""
        with self._lock, self._db.guarded():
            self._db.writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._db.writer.execute
            except BaseException:
                self._db.writer.execute("ROLLBACK")
                raise
            self._db.writer.execute("COMMIT")

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._db.guarded():
            return self._db.writer.execute(query, values).fetchall()

    def fact(self, name: str) -> str:
        """A fact about the review, or ""."""
        found = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return str(found[0][0]) if found else ""

    def state(self, name: str, value: str) -> None:
        """Keep a fact."""
        with self._writing() as write:
            write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def enqueue(self, queue: list[tuple[QueuedPair, ReviewItem]], *, overlap: float) -> int:
        """Put pairs into the queue, behind those that are there; returns how many are new.

        Chances of pairs that are there already are replaced.

        Args:
            overlap: share of pairs that two people are to see, drawn by chance; of audited pairs
                first of all, so that agreement between people is that of ordinary pairs.
        """
        with self._writing() as write:
            last = write("SELECT coalesce(max(place), 0) FROM items").fetchone()[0]
            before = write("SELECT count(*) FROM items").fetchone()[0]
            twice = _twice([q for q, _ in queue], overlap)
            for step, (q, item) in enumerate(queue, 1):
                number = q.candidate.number
                write(
                    "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                    "SET audit = excluded.audit, certain = excluded.certain, "
                    "inclusion = excluded.inclusion",
                    (
                        number,
                        last + step,
                        json.dumps(item.as_data(), ensure_ascii=False),
                        json.dumps(q.candidate.doubt.reasons),
                        int(q.audit),
                        int(q.certain),
                        q.inclusion,
                        2 if number in twice else 1,
                        "",
                    ),
                )
            after = write("SELECT count(*) FROM items").fetchone()[0]
        return int(after - before)

    def tasks(self) -> Iterator[ReviewTask]:
        """The whole queue, in order."""
        for row in self._rows("SELECT * FROM items ORDER BY place"):
            yield _task(row)

    def task(self, number: int) -> ReviewTask | None:
        """One pair of the queue."""
        rows = self._rows("SELECT * FROM items WHERE item = ?", (number,))
        return _task(rows[0]) if rows else None

    def numbers(self) -> list[int]:
        """Every pair of the queue."""
        return [int(row[0]) for row in self._rows("SELECT item FROM items")]

    def next_for(self, reviewer: str) -> int | None:
        """The pair that a reviewer is to see next; kept from others for a while.

        The one that was being looked at comes first, after a restart too.
        """
        now = self._clock()
        expert, share = self.fact("expert"), float(self.fact("gold_share") or 0.0)
        with self._writing() as write:
            found = write(
                "SELECT l.item FROM leases l JOIN items USING (item) WHERE l.reviewer = ?1 AND "
                "l.until > ?2 AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.item = l.item AND "
                "d.reviewer = ?1 AND d.undone = 0) ORDER BY l.until DESC LIMIT 1",
                (reviewer, now),
            ).fetchone()
            if found is None and expert and reviewer != expert:
                found = self._planted(write, reviewer, share)
            found = (
                found
                or write(
                    """
                SELECT i.item FROM items i
                WHERE NOT EXISTS (SELECT 1 FROM decisions d
                                  WHERE d.item = i.item AND d.reviewer = ?1 AND d.undone = 0)
                  AND (SELECT count(*) FROM current d
                       WHERE d.item = i.item AND d.verdict != 'skip')
                    + (SELECT count(*) FROM leases l
                       WHERE l.item = i.item AND l.reviewer != ?1 AND l.until > ?2
                         AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.item = i.item
                                         AND d.reviewer = l.reviewer AND d.undone = 0))
                    < i.wanted
                ORDER BY i.place LIMIT 1
                """,
                    (reviewer, now),
                ).fetchone()
            )
            if found is None:
                return None
            self._lease(write, found[0], reviewer, now)
            return int(found[0])

    def _planted(self, write: Callable[..., Any], reviewer: str, share: float) -> tuple[int] | None:
        """A planted pair, where one is due: in an order of each reviewer's own."""
        seen, planted = write(
            "SELECT count(DISTINCT d.item), count(DISTINCT CASE WHEN i.gold != '' THEN d.item END) "
            "FROM decisions d JOIN items i USING (item) WHERE d.reviewer = ? AND d.undone = 0",
            (reviewer,),
        ).fetchone()
        # Drawn, so that nobody can tell which; what is missing or too much moves the odds.
        odds = share + (share * seen - planted) / 2.0
        drawn = int(digest(["due", self.secret.hex(), reviewer, seen])[:8], 16) / 16.0**8
        if drawn >= odds:
            return None
        rows = write(
            "SELECT i.item FROM items i WHERE i.gold != '' AND NOT EXISTS (SELECT 1 FROM decisions "
            "d WHERE d.item = i.item AND d.reviewer = ? AND d.undone = 0)",
            (reviewer,),
        ).fetchall()
        return min(rows, key=lambda row: digest(["gold", reviewer, row[0]]), default=None)

    def plant(self, expert: str, share: float) -> int:
        """Make what one reviewer decided the right answers that others are held against.

        Args:
            share: of the pairs that others see.

        Returns:
            How many pairs.

        Raises:
            RlaifError: that reviewer has decided nothing.
        """
        last = {d.item: d.verdict for d in self.decisions(reviewer=expert) if d.verdict != "skip"}
        if not last:
            raise RlaifError(
                f"{expert!r} has not labeled any pair in this review",
                hint="Review some pairs under that name first.",
            )
        with self._writing() as write:
            write("UPDATE items SET gold = ''")
            for item, verdict in last.items():
                write("UPDATE items SET gold = ? WHERE item = ?", (verdict, item))
            for name, value in (("expert", expert), ("gold_share", str(share))):
                write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
        return len(last)

    def _lease(self, write: Callable[..., Any], item: int, reviewer: str, now: float) -> None:
        write(
            "INSERT INTO leases VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET until = "
            "excluded.until, shown = CASE WHEN until <= excluded.shown THEN excluded.shown ELSE "
            "shown END",
            (item, reviewer, now + LEASE_SECONDS, now),
        )

    def decide(
        self,
        item: int,
        reviewer: str,
        verdict: Said,
        *,
        first: str,
        note: str = "",
        edited: str = "",
        pasted: int = 0,
        seconds: float | None = None,
        blind: bool = True,
    ) -> Decision:
        """Keep a decision.  A second one of the same reviewer counts, and is not blind.

        Args:
            seconds: that it took; default: since the pair was shown.
            blind: False where the judge's verdict may have been seen.

        Raises:
            RlaifError: there is no such pair.
        """
        now = self._clock()
        with self._writing() as write:
            if write("SELECT 1 FROM items WHERE item = ?", (item,)).fetchone() is None:
                raise RlaifError(f"pair {item} is not in the queue", hint="Go to the next pair.")
            # Whoever decided once has seen the judge's verdict, taken back or not.
            seen = write(
                "SELECT 1 FROM decisions WHERE item = ? AND reviewer = ? AND verdict != 'skip'",
                (item, reviewer),
            ).fetchone()
            blind = blind and seen is None
            shown = write(
                "SELECT shown FROM leases WHERE item = ? AND reviewer = ?", (item, reviewer)
            ).fetchone()
            if seconds is None:
                seconds = max(0.0, now - shown[0]) if shown else 0.0
            cursor = write(
                "INSERT INTO decisions (item, reviewer, verdict, first, blind, seconds, at, note, "
                "edited, pasted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (item, reviewer, verdict, first, int(blind), seconds, now, note, edited, pasted),
            )
            write("DELETE FROM leases WHERE item = ? AND reviewer = ?", (item, reviewer))
            return Decision(
                number=int(cursor.lastrowid),
                item=item,
                reviewer=reviewer,
                verdict=verdict,
                first=first,
                blind=blind,
                seconds=seconds,
                at=now,
                note=note,
                edited=edited,
                pasted=pasted,
            )

    def undo(self, reviewer: str) -> int | None:
        """Take back a reviewer's last decision; returns its pair, which is theirs again."""
        with self._writing() as write:
            found = write(
                "SELECT number, item FROM decisions WHERE reviewer = ? AND undone = 0 "
                "ORDER BY number DESC LIMIT 1",
                (reviewer,),
            ).fetchone()
            if found is None:
                return None
            number, item = found
            write("UPDATE decisions SET undone = 1 WHERE number = ?", (number,))
            self._lease(write, item, reviewer, self._clock())
            return int(item)

    def decision(self, item: int, reviewer: str) -> Decision | None:
        """What a reviewer said last of a pair, unless it was taken back."""
        found = self.decisions(item=item, reviewer=reviewer)
        return found[-1] if found else None

    def decisions(
        self, *, item: int | None = None, reviewer: str | None = None, undone: bool = False
    ) -> list[Decision]:
        """Everything that was said, in order of time.

        Args:
            undone: also what was taken back: whoever did so had seen what the judge says.
        """
        names = [field.name for field in fields(Decision)]
        query = f"SELECT {', '.join(names)} FROM decisions WHERE {'1' if undone else 'undone = 0'}"
        values: list[Any] = []
        if item is not None:
            query, values = f"{query} AND item = ?", [*values, item]
        if reviewer is not None:
            query, values = f"{query} AND reviewer = ?", [*values, reviewer]
        rows = self._rows(f"{query} ORDER BY number", tuple(values))
        blind = names.index("blind")
        return [
            replace(Decision(**dict(zip(names, row, strict=True))), blind=bool(row[blind]))
            for row in rows
        ]

    def progress(self, reviewer: str) -> ReviewProgress:
        """How far one reviewer and all together are."""
        total = self._rows("SELECT count(*) FROM items")[0][0]
        done = self._rows(
            "SELECT count(*) FROM items i WHERE (SELECT count(*) FROM current d "
            "WHERE d.item = i.item AND d.verdict != 'skip') >= i.wanted"
        )[0][0]
        own, seconds = self._rows(
            "SELECT count(DISTINCT item), coalesce(sum(min(seconds, 300)), 0) FROM decisions "
            "WHERE reviewer = ? AND undone = 0",
            (reviewer,),
        )[0]
        return ReviewProgress(own, done, total, seconds)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _task(row: tuple[Any, ...]) -> ReviewTask:
    number, _, data, reasons, audit, certain, inclusion, wanted, gold = row
    item = ReviewItem.from_data(json.loads(data))
    return ReviewTask(
        number=number,
        item=item,
        reasons=json.loads(reasons),
        audit=bool(audit),
        certain=bool(certain),
        inclusion=inclusion,
        wanted=wanted,
        gold=gold,
    )


def _twice(queue: list[QueuedPair], overlap: float) -> set[int]:
    """Pairs that two people are to see."""
    drawn = sorted(queue, key=lambda q: (not q.audit, digest(["overlap", q.candidate.name])))
    return {q.candidate.number for q in drawn[: round(overlap * len(queue))]}


def first_shown(task: ReviewTask, reviewer: str) -> str:
    """Which completion stands left: drawn for each pair and reviewer, so that favoring a side
    favors no completion.
    """
    return "ab"[int(digest(["side", task.number, reviewer])[:8], 16) & 1]

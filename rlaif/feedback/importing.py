"""From a product log to files of human preferences: behind `rlaif import-feedback`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from rlaif.data.dataset import SAMPLE, check_use
from rlaif.data.infer import infer_layout
from rlaif.data.reading import Reader
from rlaif.data.single_rows import BadRow
from rlaif.data.sources import Source, open_source
from rlaif.errors import RlaifError
from rlaif.feedback.events import (
    FeedbackEvent,
    mapped_row,
    plain_row,
    rating_column,
    read_event,
    read_rating,
    read_thumb_code,
)
from rlaif.feedback.personal import load_filter, plugged
from rlaif.feedback.preferences import EventReliability, aggregate_events
from rlaif.feedback.scales import RatingScale, check_thumbs, find_scale
from rlaif.records import Rejected
from rlaif.runs.directory import differences
from rlaif.runs.unfinished_marker import is_unfinished, mark_unfinished
from rlaif.util.clock import utc_now
from rlaif.util.file_sizes import check_sizes, measure_sizes
from rlaif.util.files import write_atomically
from rlaif.util.hashing import digest
from rlaif.util.output import check_folder, check_same
from rlaif.util.user_functions import function_source

PREFERENCES, KTO, REJECTED = FILES = ("preferences.jsonl", "kto.jsonl", "rejected.jsonl")
REPORT, CARD = "feedback.json", "README.md"


class FeedbackSettings(EventReliability):
    """Everything that an import can be told, apart from the log."""

    per_user: int = Field(
        default=20,
        ge=1,
        description="Maximum events used per user, and maximum preferences and KTO rows that "
        "rest on "
        "one user alone. Excess ones are dropped at random, so that a few users do not "
        "dominate.",
    )
    good_from: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Ratings at or above this value are good. [default: 4 where all are from 1 to "
        "5; 0 and 1 are votes; asked for otherwise]",
    )
    bad_to: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Ratings at or below this value are bad. [default: 2, or as for --good-from]",
    )
    personal: str = Field(
        default="builtin",
        description="Filter for personal data: builtin, none, or your package.module:function. "
        "builtin removes e-mail and IP addresses, phone numbers (international and US), "
        "card, bank and social security numbers, and passwords in URLs, but no names. "
        "Your function returns the cleaned text, or None to drop the row.",
    )
    seed: int = Field(default=0, description="Random seed for drawing rows.")


@dataclass(frozen=True)
class FeedbackReport:
    """What came of a log.

    Attributes:
        events: rows with feedback; capped: of these, left out for their user's cap.
        anonymous: events without a user, which no cap holds.
        redacted: events in which the filter changed something.
        undecided, split: pairs and completions on which users cancel out.
        ratings: range and scale of the ratings, and how many were good, bad and neither; empty
            where there are none.
    """

    rows: int
    unreadable: int
    events: int
    capped: int
    users: int
    anonymous: int
    redacted: int
    preferences: int
    kto: int
    undecided: int
    split: int
    sources: dict[str, int]
    made: str
    ratings: dict[str, Any] = field(default_factory=dict)


def import_feedback(
    data: str,
    out: Path,
    settings: FeedbackSettings,
    *,
    mapping: Mapping[str, str] | None = None,
    split: str = "train",
) -> FeedbackReport:
    """Read a log, and write `preferences.jsonl`, `kto.jsonl` and what was left out.

    No user's name is written: users are numbered as they come.

    Raises:
        RlaifError: the log can't be read, nothing in it is feedback, or `out` holds other things.

    Long because it writes four files from one reading of the log.
    """
    source = open_source(data, split)
    config = {
        "input": {"path": data, "split": split, "hash": source.fingerprint()},
        "mapping": dict(mapping or {}),
        **settings.model_dump(mode="json"),
    }
    if plugged(settings.personal):
        config["filter"] = digest(function_source(settings.personal, "filter"))
    before = _before(out, config)
    if before is not None:
        return before
    scale = _scale(source, settings, mapping or {})
    reader = _reader(source, mapping or {})
    events, rejected, redacted = _events(source, settings, mapping, reader=reader, scale=scale)
    if not events:
        last = (
            f" (last error: {rejected[-1]['place']}: {rejected[-1]['reason']})" if rejected else ""
        )
        raise RlaifError(
            f"no row of {data!r} contains feedback{last}",
            hint="Each row needs a prompt, a response, and thumbs, a rating, an edit or a "
            "regenerated response. Use --map for other column names.",
        )
    kept = _capped(events, settings)
    users = {user: f"u{i}" for i, user in enumerate(dict.fromkeys(e.user for e in kept if e.user))}
    aggregated = aggregate_events(
        kept, settings, users, per_user=settings.per_user, seed=settings.seed
    )
    report = FeedbackReport(
        rows=len(events) + len(rejected),
        unreadable=len(rejected),
        events=len(events),
        capped=len(events) - len(kept),
        users=len({e.user for e in events if e.user}),
        anonymous=sum(not e.user for e in events),
        redacted=redacted,
        preferences=len(aggregated.preferences),
        kto=len(aggregated.kto),
        undecided=aggregated.undecided,
        split=aggregated.split,
        sources=dict(sum((_kinds(e) for e in kept), Counter())),
        made=utc_now(),
        ratings=_rated(events, scale),
    )
    saved = {"config": config, **asdict(report)}
    with mark_unfinished(out):
        for name, rows in zip(
            FILES, (aggregated.preferences, aggregated.kto, rejected), strict=True
        ):
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomically(out / name, "".join(lines))
        write_atomically(out / CARD, _card(out.name, report))
        saved["bytes"] = measure_sizes(out, FILES)
        write_atomically(out / REPORT, json.dumps(saved, indent=2) + "\n")
    return report


def _card(name: str, report: FeedbackReport) -> str:
    """What `datasets.load_dataset` needs to tell the files apart, and what they are."""
    head = {
        "configs": [
            {"config_name": config, "data_files": [{"split": "train", "path": file}]}
            for config, file in (("preferences", PREFERENCES), ("kto", KTO))
            if getattr(report, config)
        ]
    }
    return f"""---
{yaml.safe_dump(head, sort_keys=False).strip()}
---
# {name}

User feedback, imported by `rlaif import-feedback` on {report.made[:10]}: {report.events} events
from {report.users} users. `{PREFERENCES}` ({report.preferences} pairs) is for DPO, `{KTO}`
({report.kto} rows) for KTO; `{REJECTED}` lists rows that could not be read. Users are replaced by
numbers, and `{REPORT}` records the settings and counts of the import.
"""


def _before(out: Path, config: Mapping[str, Any]) -> FeedbackReport | None:
    report, changed, sizes = None, "", None
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        saved = json.loads((out / REPORT).read_text(encoding="utf-8"))
        changed = differences(saved.pop("config"), config)
        sizes = saved.pop("bytes", None)
        report = FeedbackReport(**saved)
    check_folder(out, "import", held=report is not None or is_unfinished(out))
    if report is None or is_unfinished(out):
        return None
    check_same(out, "import", changed)
    check_sizes(out, sizes, f"Remove {str(out)!r} to import again.")
    return report if all((out / name).exists() for name in (*FILES, CARD)) else None


def _rows(source: Source, mapping: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """The rows that can be read, with their fields."""
    for _, row in source.rows():
        if not isinstance(row, Rejected):
            with suppress(BadRow):
                yield mapped_row(row, mapping)


def _scale(source: Source, settings: FeedbackSettings, mapping: Mapping[str, str]) -> RatingScale:
    ratings: set[float] = set()
    thumbs: dict[str, set[float]] = {}
    words: dict[str, set[str]] = {}
    columns: dict[str, None] = {}
    for row in _rows(source, mapping):
        if (rating := read_rating(row)) is not None:
            ratings.add(rating)
            columns.setdefault(rating_column(row))
        if (thumb := read_thumb_code(row)) is not None:
            column, code = thumb
            if isinstance(code, str):
                words.setdefault(column, set()).add(code)
            else:
                thumbs.setdefault(column, set()).add(code)
    for column, numbers in thumbs.items():
        check_thumbs(column, numbers, words.get(column, ()))
    if len(columns) > 1:
        shown = " and ".join(map(repr, columns))
        raise RlaifError(
            f"ratings stand in several columns ({shown}), which may have scales of their own",
            hint=f"Name the one that counts with --map rating={next(iter(columns))}.",
        )
    scale = find_scale(ratings, settings.good_from, settings.bad_to)
    return replace(scale, neutral=any(-1.0 in numbers for numbers in thumbs.values()))


def _reader(source: Source, mapping: Mapping[str, str]) -> Reader:
    """Reads prompts and completions, as the first rows of the log have them.

    Raises:
        RlaifError: a column that may matter is not used.
    """
    rows = [plain_row(row) for row in islice(_rows(source, mapping), SAMPLE)]
    found = infer_layout(rows)
    if rows:
        check_use(source.name, found, "prompt")
    return Reader(found.layout)


def _rated(events: Sequence[FeedbackEvent], scale: RatingScale) -> dict[str, Any]:
    held = [e.rating for e in events if e.rating is not None]
    if not held:
        return {}
    judged = [scale.judge(rating) for rating in held]
    return {
        "low": min(held),
        "high": max(held),
        "scale": scale.describe(),
        "good": judged.count(True),
        "bad": judged.count(False),
        "neither": judged.count(None),
    }


def _events(
    source: Source,
    settings: FeedbackSettings,
    mapping: Mapping[str, str] | None,
    reader: Reader,
    scale: RatingScale,
) -> tuple[list[FeedbackEvent], list[dict[str, str]], int]:
    personal = load_filter(settings.personal)
    events: list[FeedbackEvent] = []
    rejected: list[dict[str, str]] = []
    redacted = 0
    changed = False

    def clean(text: str) -> str | None:
        nonlocal changed
        try:
            found = personal(text)
        except Exception as error:  # a user's function raises what it likes
            raise RlaifError(
                f"filter {settings.personal!r} failed ({type(error).__name__}: {error})",
                hint="The filter must return a string, or None to drop the row.",
            ) from error
        if found is not None and not isinstance(found, str):
            raise RlaifError(
                f"filter {settings.personal!r} returned {type(found).__name__}, not a string",
                hint="The filter must return a string, or None to drop the row.",
            )
        changed = changed or found != text
        return found

    for place, row in source.rows():
        changed = False
        try:
            if isinstance(row, Rejected):
                raise BadRow(row.reason)
            events.append(
                read_event(
                    row,
                    reader=reader,
                    scale=scale,
                    clean=clean,
                    mapping=mapping,
                )
            )
            redacted += changed
        except BadRow as error:
            rejected.append({"place": place, "reason": str(error)})
    return events, rejected, redacted


def _capped(events: list[FeedbackEvent], settings: FeedbackSettings) -> list[FeedbackEvent]:
    """At most so many of each user, drawn by the seed, in their order."""
    by_user: dict[str, list[int]] = {}
    for i, event in enumerate(events):
        if event.user:
            by_user.setdefault(event.user, []).append(i)
    dropped: set[int] = set()
    for user, places in by_user.items():
        drawn = sorted(places, key=lambda i, u=user: _draw(settings.seed, u, i))  # type: ignore[misc]
        dropped.update(drawn[settings.per_user :])
    return [event for i, event in enumerate(events) if i not in dropped]


def _draw(seed: int, user: str, place: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{user}/{place}".encode(), digest_size=8).digest()


def _kinds(event: FeedbackEvent) -> Counter[str]:
    return Counter(
        name
        for name, there in (
            ("edits", bool(event.edited)),
            ("regenerations", bool(event.discarded)),
            ("ratings", event.rating is not None),
            ("thumbs", event.good is not None and event.rating is None),
        )
        if there
    )

"""How often `rlaif audit` is wrong, and what it sees: on paragraphs of Python's own documentation.

False alarms: data and reference are drawn from the same people's text, each row at most once, or
with replacement from half of it (a bootstrap). Duplication: a part of the data is copies of the
rest.

    python scripts/measure_audit.py --audits 200
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pydoc_data.topics import topics

from rlaif.audits.audit import AuditReport, audit
from rlaif.audits.rows import AuditRow
from rlaif.audits.thresholds import Thresholds

SIZES = (50, 100, 200)


def paragraphs() -> list[str]:
    """People's text: paragraphs of a dozen words and more."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    found = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [part for part in found if len(part.split()) >= 12]


def rows(texts: list[str]) -> list[AuditRow]:
    """Texts to audit."""
    return [AuditRow(f"p{i}", [text], "human", 0) for i, text in enumerate(texts)]


def alarm(job: tuple[int, str]) -> tuple[int, list[str], float]:
    """One audit of text from the same source: its size, what tripped, seconds."""
    seed, way = job
    rng = random.Random(seed)
    size = SIZES[seed % len(SIZES)]
    everything = paragraphs()
    rng.shuffle(everything)
    half = len(everything) // 2
    if way == "bootstrap":
        data, reference = (
            [rng.choice(side) for _ in range(size)]
            for side in (everything[:half], everything[half:])
        )
    else:
        data, reference = everything[:size], everything[half : half + size]
    began = time.monotonic()
    report = audit(rows(data), rows(reference), Thresholds(seed=seed))
    return size, [check.name for check in report.checks if check.tripped], time.monotonic() - began


def duplicated(share: float, size: int = 200) -> AuditReport:
    """An audit of text of which a share is copies of the rest."""
    rng = random.Random(0)
    everything = paragraphs()
    rng.shuffle(everything)
    left = everything[: round(size * (1 - share))]
    data = [*left, *(rng.choice(left) for _ in range(size - len(left)))]
    return audit(rows(data), rows(everything[size : 2 * size]), Thresholds())


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--audits", type=int, default=200)
    args = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        for way in ("disjoint", "bootstrap"):
            found = list(pool.map(alarm, [(seed, way) for seed in range(args.audits)]))
            wrong = [tripped for _, tripped, _ in found if tripped]
            names = Counter(name for tripped in wrong for name in tripped)
            seconds = {s: [t for size, _, t in found if size == s] for s in SIZES}
            shown = ", ".join(f"{s} rows {sum(t) / len(t):.1f} s" for s, t in seconds.items())
            print(
                f"{way}: {len(wrong)} of {len(found)} audits trip "
                f"({100 * len(wrong) / len(found):.1f}%) {dict(names)}; {shown}"
            )
    print("\nduplicated: diversity by compression, repetition, BLEU, pairs; tail; near-duplicates")
    for share in (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9):
        report = duplicated(share)
        wanted = [c for c in report.checks if c.group in ("diversity", "tail", "duplicates")]
        cells = " ".join(f"{c.value:.2f}{'!' if c.tripped else ' '}" for c in wanted)
        print(f"{share:4.0%}: {cells}")


if __name__ == "__main__":
    main()

"""How often `rlaif verify` finds labels that were altered in every file, and what it costs.

    python scripts/measure_verify.py [--pairs 10000] [--altered 100] [--ask 500] [--draws 30]

A judge without a model labels pairs.  For some of them its answers are turned around, in the
verdicts, the labels and the cache alike, so that only the judge itself can tell.  Each draw of
questions is then asked again.  The run without altered labels is checked with as many draws.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.engines.scripted import ScriptedEngine, hashed_rule
from rlaif.labeling import job as labeling
from rlaif.labeling import verifying
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext

CONSTITUTION = """\
schema: 1
name: three
version: "1"
principles:
  - {id: one, preference: "Which response is one?"}
  - {id: two, preference: "Which response is two?"}
  - {id: three, preference: "Which response is three?"}
"""


def _given(engine: Engine, _: EngineSettings) -> Engine:
    return engine


def main() -> int:
    """Label, alter, check, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--altered", type=int, default=100)
    parser.add_argument("--ask", type=int, default=500)
    parser.add_argument("--draws", type=int, default=30)
    given = parser.parse_args()
    judge = EngineSettings(engine="scripted", model="hashed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, constitution = folder / "pairs.jsonl", folder / "c.yaml"
        rows = ({"prompt": f"q {i}", "responses": [f"a {i}", f"b {i}"]} for i in range(given.pairs))
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        constitution.write_text(CONSTITUTION)
        job = labeling.prepare(str(data), str(constitution), LabelSettings(judge=judge))
        chosen = random.Random(0).sample(range(given.pairs), given.altered)
        marks = {f"q {i}\n" for i in chosen}

        def turned(text: str) -> Any:
            told = hashed_rule(text)
            assert isinstance(told, tuple)
            lies = text[text.index("q ") : text.index("\n", text.index("q ")) + 1] in marks
            return (-told[0], told[1]) if lies else told

        for name, rule in (("honest", hashed_rule), ("altered", turned)):
            own = ScriptedEngine(rule, max_in_flight=64)
            own.fingerprint = create_engine(judge).fingerprint
            setattr(labeling, "create_engine", partial(_given, own))  # noqa: B010 - a liar's
            context = RunContext(cache_dir=folder / name)
            labeling.run_label(job, folder / f"run-{name}", context=context)
            began, caught, largest = time.process_time(), 0, 0.0
            for seed in range(given.draws):
                found = verifying.verify_run(
                    folder / f"run-{name}", job, context, ask=given.ask, seed=seed
                )
                caught += bool(found.findings)
                largest = max(largest, found.largest)
            spent = (time.process_time() - began) / given.draws
            total, bad = found.verdicts, round(found.verdicts * given.altered / given.pairs)
            missed = math.exp(
                sum(math.log(total - bad - k) - math.log(total - k) for k in range(given.ask))
            )
            expected = 1 - missed if name == "altered" else 0.0
            print(
                f"{name}: {caught} of {given.draws} draws found something (expected "
                f"{expected:.1%}); {given.pairs} pairs, {total} verdicts, {spent:.1f} CPU s a check"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Prints how well the demo judge agrees with the demo world's oracle on held-out text."""

from __future__ import annotations

import argparse
from contextlib import closing

from rlaif.cli.common.output import quiet_libraries, table
from rlaif.demo.measure import measure_judge
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", default="demo")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument(
        "--ask",
        action="append",
        default=[],
        metavar="PRINCIPLE=QUESTION",
        help="ask this about a principle instead of held-out wordings",
    )
    args = parser.parse_args()
    questions = dict(text.split("=", 1) for text in args.ask)
    quiet_libraries()
    settings = EngineSettings(engine=args.engine, model=args.judge)
    with closing(create_engine(settings)) as engine:
        found = measure_judge(engine, pairs=args.pairs, seed=args.seed, questions=questions)
    rows = [
        (name, str(s.total), str(s), str(found.same_position[name]))
        for name, s in found.principles.items()
    ]
    overall = ("all, aggregated by tier", str(found.overall.total), str(found.overall), "")
    header = ["principle", "decided pairs", "agrees with the oracle", "same position wins"]
    print(table(header, [*rows, overall]))


if __name__ == "__main__":
    main()

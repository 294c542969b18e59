"""Compares a judge's answers with those of the same judge run another way.

What a quantization, a dtype, an engine or a layout costs in agreement: the same pairs of the
demo world, asked both ways; margins are |2p - 1|.  Examples:

  python scripts/compare_judges.py --judge demo --dtype bfloat16
  python scripts/compare_judges.py --judge demo --engine packed
  python scripts/compare_judges.py --judge Qwen/Qwen3-8B --template pairwise --quantization fp8
  python scripts/compare_judges.py --judge demo --layout principle-first
"""

from __future__ import annotations

import argparse
import math
import tempfile
from contextlib import closing
from pathlib import Path

from rlaif.cli.common.output import quiet_libraries, table
from rlaif.constitution.load import load_constitution
from rlaif.demo.measure import to_pair
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.evaluation.stats.intervals import share
from rlaif.judging.questions import plan_questions
from rlaif.judging.rendering import Renderer
from rlaif.judging.verdicts import read_verdict
from rlaif.records import ChoiceResult, Verdict
from rlaif.templates.judge import load_judge_template

PRINCIPLE_FIRST = {
    "demo": "{{principle}}\n{{conversation}}\nA: {{first}}\nB: {{second}}",
    "pairwise": "You compare two responses, A and B, to the same conversation by one principle. "
    "Reply with one letter, A or B, and nothing else.\n\n[Principle]\n{{principle}}\n\n"
    "[Conversation]\n{{conversation}}\n\n[Response A]\n{{first}}\n\n[Response B]\n{{second}}",
}


def answers(
    settings: EngineSettings, template: str, constitution: str, pairs: int, seed: int
) -> dict[str, Verdict]:
    """Every verdict of one way of running the judge, by pair, principle and order."""
    principles = load_constitution(constitution).constitution.principles
    found: dict[str, Verdict] = {}
    with closing(create_engine(settings)) as engine:
        renderer = Renderer(load_judge_template(template), engine.codec)
        asked = {}
        for n, pair in enumerate(World(seed, "test").pairs(pairs)):
            record = to_pair(str(n), pair)
            questions = plan_questions(record, principles)
            for question, request in zip(
                questions, renderer.requests(record, questions, str(n)), strict=True
            ):
                asked[request.id] = (question, request)
        for results in engine.run(request for _, request in asked.values()):
            for result in results:
                assert isinstance(result, ChoiceResult), result
                question = asked[result.id][0]
                found[result.id] = read_verdict(
                    result, principle=question.principle.id, order=question.order, floor=0.0
                )
    return found


def main() -> None:
    """Ask both ways and print how they differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judge", default="demo")
    parser.add_argument("--constitution", default="demo")
    parser.add_argument("--template", help="default: demo for demo, else pairwise")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=404)
    parser.add_argument("--base-engine", default="vllm")
    parser.add_argument("--base-dtype", default="auto")
    parser.add_argument("--engine")
    parser.add_argument("--dtype")
    parser.add_argument("--quantization")
    parser.add_argument("--layout", choices=["context-first", "principle-first"])
    args = parser.parse_args()
    quiet_libraries()
    template = args.template or ("demo" if args.judge == "demo" else "pairwise")
    base = EngineSettings(engine=args.base_engine, model=args.judge, dtype=args.base_dtype)
    other = base.model_copy(
        update={
            "engine": args.engine or base.engine,
            "dtype": args.dtype or base.dtype,
            "quantization": args.quantization,
        }
    )
    with tempfile.TemporaryDirectory() as scratch:
        layout = template
        if args.layout == "principle-first":
            path = Path(scratch) / "principle-first.txt"
            path.write_text("---\nlabels: [A, B]\n---\n" + PRINCIPLE_FIRST[template])
            layout = str(path)
        one = answers(
            settings=base,
            template=template,
            constitution=args.constitution,
            pairs=args.pairs,
            seed=args.seed,
        )
        two = answers(
            settings=other,
            template=layout,
            constitution=args.constitution,
            pairs=args.pairs,
            seed=args.seed,
        )
    report(one, two)


def report(one: dict[str, Verdict], two: dict[str, Verdict]) -> None:
    """Print differences of logits and probabilities, and how many verdicts flip."""
    names = sorted(one)
    logits = [abs(one[n].logit - two[n].logit) for n in names]
    margins = {n: abs(math.tanh(one[n].logit / 2)) for n in names}
    moves = [abs(math.tanh(one[n].logit / 2) - math.tanh(two[n].logit / 2)) / 2 for n in names]
    flips = [n for n in names if one[n].logit * two[n].logit < 0]
    clear = [n for n in names if margins[n] > 0.2]
    clear_flips = [n for n in flips if margins[n] > 0.2]
    rows = [
        ("verdicts", f"{len(names)}"),
        ("difference of log-odds: mean", f"{sum(logits) / len(logits):.6f}"),
        ("difference of log-odds: largest", f"{max(logits):.6f}"),
        ("difference of probability: mean", f"{sum(moves) / len(moves):.6f}"),
        ("difference of probability: largest", f"{max(moves):.6f}"),
        ("verdicts that flip", str(share(len(flips), len(names)))),
        ("of those with a margin over 0.2", str(share(len(clear_flips), len(clear)))),
    ]
    print(table(["compared with the base", ""], rows))


if __name__ == "__main__":
    main()

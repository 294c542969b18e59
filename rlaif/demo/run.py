"""`rlaif demo`: the main job on the embedded models, then the question that matters.

It runs the very commands that a user would (`rlaif label`, `rlaif train-dpo`), each as a
process of its own, then lets the old and the new policy answer held-out prompts and has the
oracle and the judge compare them.  Every step is skipped when its result is there already.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlaif.demo.measure import DemoWinRate, oracle_win_rate, win_rate
from rlaif.demo.oracle import answers as answers_prompt
from rlaif.demo.oracle import prefer
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.errors import RlaifError
from rlaif.evaluation.stats.sampling import sample_completions
from rlaif.records import Message
from rlaif.runs import lineage
from rlaif.runs.directory import PREFERENCES, is_complete, read_run_config
from rlaif.runs.labels import read_label_file
from rlaif.util.child_process import call_rlaif
from rlaif.util.files import write_atomically
from rlaif.util.output import check_folder
from rlaif.util.resources import demo_model

PAIRS, PROMPTS = 800, 400
TRAIN_SEED, TEST_SEED = 7, 8
MAX_TOKENS = 120
TRAINING = {
    "learning_rate": 1e-4,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "beta": 0.1,
    "logging_steps": 5,
}

Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        oracle: new policy against old one by the oracle, who knows.
        judge: the same by the demo judge, who learned.
        label_agreement: (labels that the oracle agrees with, labels it has a say on).
        answered: share of completions that speak of what was asked, before and after.
    """

    oracle: DemoWinRate
    judge: DemoWinRate
    label_agreement: tuple[int, int]
    answered: tuple[float, float]
    labeled: int
    examples: list[dict[str, str]]


def run_demo(folder: Path, *, judge_engine: str = "vllm", say: Say = lambda _: None) -> DemoResult:
    """Run or finish the demo in `folder`.

    Raises:
        RlaifError: a step failed; its own message came before.
    """
    marker = folder / ".rlaif-demo"
    check_folder(folder, "demo", held=marker.exists())
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    pairs, labels, policy = folder / "pairs.jsonl", folder / "labels", folder / "policy"
    cache = str(folder / "cache")
    say(f"1. Create {PAIRS} pairs of responses in the style of the demo policy -> {pairs}")
    write_demo_pairs(pairs, count=PAIRS, seed=TRAIN_SEED)
    say("2. Label them with the constitution `demo`, judging each principle in both orders")
    judge = ["-c", "demo", "--judge", "demo", "--engine", judge_engine, "--cache-dir", cache]
    if not _is_labeled(labels, judge_engine, say):
        _rlaif("label", str(pairs), *judge, "-o", str(labels), say=say)
        _rlaif("report", str(labels), say=say)
    say("3. Train the policy on the labels with DPO, using label probabilities as soft targets")
    if (policy / lineage.TRAINING).exists() and any(policy.glob("*.safetensors")):
        say(f"   {policy} is already complete")
    else:
        _rlaif("train-dpo", str(labels), "--model", "demo", "-o", str(policy), *_flags(), say=say)
    say(f"4. Compare the old and new policy on {PROMPTS} held-out prompts, by oracle and by judge")
    answers = folder / "answers.jsonl"
    if not answers.exists():
        write_answers(answers, demo_model("policy"), policy, count=PROMPTS, seed=TEST_SEED)
    verdicts = folder / "comparison"
    if not _is_labeled(verdicts, judge_engine, say):
        _rlaif("label", str(answers), *judge, "-o", str(verdicts), say=say)
    return read_demo(labels, answers, verdicts)


def _is_labeled(run: Path, engine: str, say: Say) -> bool:
    """Whether a run is complete; one of another engine is refused by the command itself.

    Raises:
        RlaifError: a file of it was cut or edited.
    """
    if not is_complete(run) or read_run_config(run)["judge"]["engine"] != engine:
        return False
    say(f"   {run} is already complete")
    return True


def _flags() -> list[str]:
    return [
        part
        for key, value in TRAINING.items()
        for part in (f"--{key.replace('_', '-')}", f"{value}")
    ]


def _rlaif(*arguments: str, say: Say) -> None:
    say(f"   $ rlaif {shlex.join(arguments)}")
    # A step's own table is progress here; stdout is for the result.
    code = call_rlaif(arguments)
    if code:
        raise RlaifError(
            f"`rlaif {arguments[0]}` failed with exit code {code}",
            hint="Fix the error above, then rerun `rlaif demo` to resume.",
        )


def write_demo_pairs(path: Path, *, count: int, seed: int) -> None:
    """Pairs of the training split as `rlaif label` reads them."""
    rows = [
        {"id": f"demo-{i}", **asdict(pair)}
        for i, pair in enumerate(World(seed, "train").pairs(count))
    ]
    _write_rows(path, rows)


def write_labeled_pairs(path: Path, *, count: int, seed: int) -> None:
    """Pairs of the test split with the oracle's label: "a", "b" or "tie"."""
    names = {1: "a", -1: "b", 0: "tie"}
    rows = [
        {**asdict(pair), "label": names[prefer(pair.prompt, pair.response_a, pair.response_b)]}
        for pair in World(seed, "test").pairs(count)
    ]
    _write_rows(path, rows)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def write_answers(path: Path, old: Path, new: Path, *, count: int, seed: int) -> None:
    """Answers of two policies to the same held-out prompts, as a file of pairs.

    `response_a` is the old policy's, `response_b` the new one's; the judge sees both orders.
    """
    world = World(seed, "test")
    prompts = [world.prompt() for _ in range(count)]
    before, after = sample_answers(old, prompts, seed=seed), sample_answers(new, prompts, seed=seed)
    rows = [
        {"id": f"test-{i}", "prompt": p, "response_a": a, "response_b": b}
        for i, (p, a, b) in enumerate(zip(prompts, before, after, strict=True))
    ]
    _write_rows(path, rows)


def sample_answers(policy: Path, prompts: Sequence[str], *, seed: int) -> list[str]:
    """One completion a prompt, sampled at temperature 1: the policy as it is, not its mode."""
    settings = EngineSettings(
        engine="transformers",
        model=str(policy),
        dtype="float32",
        options={"batch_size": 100},
    )
    with closing(create_engine(settings)) as engine:
        chats: list[list[Message]] = [[{"role": "user", "content": p}] for p in prompts]
        return sample_completions(engine, chats, max_tokens=MAX_TOKENS, temperature=1.0, seed=seed)


def read_demo(labels: Path, answers: Path, verdicts: Path) -> DemoResult:
    """Read the finished folders into a result."""
    rows = _read_rows(answers)
    oracle = oracle_win_rate(
        [r["prompt"] for r in rows],
        [r["response_a"] for r in rows],
        [r["response_b"] for r in rows],
    )
    decided = list(read_label_file(verdicts / PREFERENCES))
    new = {r["id"]: r["response_b"] for r in rows}
    wins = sum(label.sides[0][0]["content"] == new[label.id] for label in decided)
    judge = win_rate(wins, len(decided) - wins, len(rows) - len(decided))
    labeled = list(read_label_file(labels / PREFERENCES))
    agreement = oracle_win_rate(
        [label.prompt[0]["content"] for label in labeled],
        [label.sides[1][0]["content"] for label in labeled],
        [label.sides[0][0]["content"] for label in labeled],
    )
    return DemoResult(
        oracle=oracle,
        judge=judge,
        label_agreement=(agreement.wins, agreement.wins + agreement.losses),
        answered=(_answered(rows, "response_a"), _answered(rows, "response_b")),
        labeled=len(labeled),
        examples=[r for r in rows if r["response_a"] != r["response_b"]][:3],
    )


def _answered(rows: Sequence[dict[str, Any]], side: str) -> float:
    return sum(answers_prompt(r["prompt"], r[side]) for r in rows) / len(rows)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

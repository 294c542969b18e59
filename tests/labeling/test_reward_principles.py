"""Reward models as principles: verdicts by hand, beside the judge's own, however a run is made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif import Judge
from rlaif.cli.main import cli
from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import RewardModelCheck
from rlaif.demo.measure import to_pair
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.engines.with_rewards import asks_reward_model
from rlaif.judging.questions import plan_questions
from rlaif.judging.rendering import Renderer
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, Pair, Request
from rlaif.templates.judge import load_judge_template
from tests.engines.test_reward_model import by_hand, make

pytestmark = pytest.mark.slow
T = 2.5


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("reward") / "model")


def constitution(folder: Path, reward: str, temperature: float = T, judge: bool = True) -> str:
    asked = """
  - {id: polite, preference: "Which response is more polite?"}
  - {id: short, tier: 2, preference: "Which response is shorter?"}"""
    path = folder / f"c{temperature}{judge}.yaml"
    path.write_text(f"""schema: 1
name: mixed
version: "1"
principles:{asked if judge else ""}
  - id: reward
    tier: 3
    check: {{kind: reward_model, model: {reward}, temperature: {temperature}}}
    examples: [{{prompt: "How are you?", chosen: "Fine, thanks.", rejected: "x"}}]
""")
    return str(path)


def data(folder: Path, count: int = 8) -> tuple[str, dict[str, Pair]]:
    made = {str(n): to_pair(str(n), p) for n, p in enumerate(World(8, "test").pairs(count))}
    path = folder / "pairs.jsonl"
    rows = [
        {
            "id": pair.id,
            "prompt": pair.prompt[0]["content"],
            "response_a": pair.a[0]["content"],
            "response_b": pair.b[0]["content"],
        }
        for pair in made.values()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path), made


def label(folder: Path, out: str, rows: str, principles: str, *flags: str) -> Path:
    found = CliRunner().invoke(
        cli,
        [
            *("label", rows, "-c", principles, "-o", str(folder / out), "--engine", "packed"),
            *("--cache-dir", str(folder / "cache"), "--keep-going", *flags),
        ],
    )
    assert found.exit_code == 0, found.output
    return folder / out


def verdicts(run: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "verdicts.jsonl").read_text().splitlines()]
    return {(v["pair"], v["principle"], v["order"]): v for v in lines}


def manifest(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return found


def test_verdicts_are_those_by_hand_and_the_judges_stay_as_they_are(
    tmp_path: Path, reward: str
) -> None:
    rows, made = data(tmp_path)
    run = label(tmp_path, "run", rows, constitution(tmp_path, reward))
    found = verdicts(run)
    assert len(found) == len(made) * 3 * 2
    spread = set()
    for name, pair in made.items():
        p = by_hand(reward, pair, T)
        for order, sign in (("ab", 1), ("ba", -1)):
            told = found[name, "reward", order]
            assert 1 / (1 + math.exp(-sign * told["logit"])) == pytest.approx(p, abs=2e-4)
            assert "rewards" in told["reasoning"]
        spread.add(round(p, 3))
    assert len(spread) > 4
    # Another temperature: the judge's answers are known, the reward model's are computed again.
    other = label(tmp_path, "other", rows, constitution(tmp_path, reward, 1.0))
    again = verdicts(other)
    for key, told in found.items():
        factor = T if key[1] == "reward" else 1.0
        assert again[key]["logit"] == pytest.approx(factor * told["logit"], abs=2e-4)
    assert manifest(other)["last_process"]["verdicts_asked"] == 2 * len(made)
    # The model is part of what the run names: files, and origin.
    assert [judge["model"] for judge in manifest(run)["judges"]] == ["demo", reward]
    config = manifest(run)["config"]["judge"]["fingerprint"]
    assert (
        config != manifest(label(tmp_path, "plain", rows, "demo"))["config"]["judge"]["fingerprint"]
    )
    checked = CliRunner().invoke(cli, ["verify", str(run), "--cache-dir", str(tmp_path / "cache")])
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize(
    "flags",
    [
        ("--shard-rows", "3", "--data-parallel-size", "2"),
        ("--data-parallel-size", "2"),
        ("--stop", "exact"),
    ],
    ids=" ".join,
)
def test_labels_are_the_same_however_a_run_is_made(
    tmp_path: Path, reward: str, flags: tuple[str, ...]
) -> None:
    rows, _ = data(tmp_path, 12)
    principles = constitution(tmp_path, reward)
    plain = label(tmp_path, "plain", rows, principles)
    # With caches of its own: the models answer again.
    other = label(tmp_path / "elsewhere", "run", rows, principles, *flags)
    one, two = verdicts(plain), verdicts(other)
    assert two.keys() <= one.keys()
    assert "--stop" in flags or two.keys() == one.keys()
    assert {key[1] for key in two} >= {"polite"}
    for key, told in two.items():
        assert told["logit"] == pytest.approx(one[key]["logit"], abs=2e-4)
        assert not told["invalid"]


def test_a_reward_model_on_vllm_answers_beside_another_engine(tmp_path: Path, reward: str) -> None:
    rows, made = data(tmp_path, 4)
    path = Path(constitution(tmp_path, reward, judge=False))
    path.write_text(path.read_text().replace("temperature: 2.5", "temperature: 2.5, backend: vllm"))
    found = verdicts(label(tmp_path, "run", rows, str(path)))
    for name, pair in made.items():
        told = found[name, "reward", "ab"]["logit"]
        assert 1 / (1 + math.exp(-told)) == pytest.approx(by_hand(reward, pair, T), abs=5e-4)
    assert len(found) == 2 * len(made)


def test_a_constitution_of_reward_models_alone(tmp_path: Path, reward: str) -> None:
    rows, made = data(tmp_path)
    run = label(tmp_path, "run", rows, constitution(tmp_path, reward, judge=False))
    assert len(verdicts(run)) == 2 * len(made)
    assert not any(v["invalid"] for v in verdicts(run).values())


def test_python_answers_the_same_and_says_what_a_reward_can_not(
    tmp_path: Path, reward: str
) -> None:
    _, made = data(tmp_path)
    pair = made["0"]
    settings = {"judge": "demo", "engine": "packed", "cache_dir": tmp_path / "cache"}
    with Judge(constitution(tmp_path, reward), **settings) as judge:
        prompt, a, b = (side[0]["content"] for side in (pair.prompt, pair.a, pair.b))
        found = judge.compare(prompt, a, b)
        (score,) = (s for s in found.principles if s.principle == "reward")
        assert score.p_a == pytest.approx(by_hand(reward, pair, T), abs=2e-4)
        alone = judge.score(prompt, a)
        (point,) = (p for p in alone.principles if p.principle == "reward")
        assert point.p is not None or point.invalid
    own = tmp_path / "own.txt"  # the demo judge has no token for yes
    own.write_text("---\nlabels: A, B\n---\n{{conversation}} {{response}} {{principle}}\n")
    direct = Judge(constitution(tmp_path, reward), pointwise=str(own), **settings)
    with direct as judge:
        (point,) = (p for p in judge.score(prompt, a).principles if p.principle == "reward")
        assert "a reward says nothing of one response alone" in point.invalid


def test_examples_of_a_reward_model_are_tested(tmp_path: Path, reward: str) -> None:
    found = CliRunner().invoke(
        cli,
        [
            *("constitution", "test", constitution(tmp_path, reward), "--engine", "packed"),
            *("--cache-dir", str(tmp_path / "cache"), "--json"),
        ],
    )
    (case,) = json.loads(found.stdout)
    assert case["principle"] == "reward"
    example = load_constitution(constitution(tmp_path, reward)).constitution.principles[-1]
    assert example.reward_model is not None
    shown = example.examples[0]
    pair = Pair(
        "",
        shown.conversation,
        [{"role": "assistant", "content": shown.chosen}],
        [{"role": "assistant", "content": shown.rejected}],
    )
    assert case["p_chosen"] == pytest.approx(by_hand(reward, pair, T), abs=2e-4)


def test_a_source_that_waits_for_a_reward_alone_gets_it(reward: str) -> None:
    """The labeling loop may have nothing to ask until an answer comes that no judge gives."""
    model = RewardModelCheck(kind="reward_model", model=reward)
    settings = EngineSettings(engine="packed", model="demo").with_reward_models((model,))
    principles = load_constitution("demo").constitution.principles[:1]
    own = principles[0].model_copy(update={"id": "r", "preference": None, "check": model})
    pair = to_pair("0", next(iter(World(8, "test").pairs(1))))
    with closing(create_engine(settings)) as engine:
        renderer = Renderer(load_judge_template("demo"), engine.codec)
        (of_judge,) = renderer.requests(pair, plan_questions(pair, principles, orders="one"), "j")
        (rewarded,) = renderer.requests(pair, plan_questions(pair, [own], orders="one"), "r")
        assert asks_reward_model(rewarded)
        assert not asks_reward_model(of_judge)
        got: list[str] = []

        def source() -> Iterator[Request | None]:
            pauses = 0
            for request in (rewarded, of_judge, rewarded):
                before = len(got)
                name = f"{len(got)}"
                yield ChoiceRequest(name, request.token_ids, request.label_ids)
                while len(got) == before:
                    pauses += 1
                    assert pauses < 1000
                    yield None

        for results in engine.run(source()):
            for result in results:
                assert isinstance(result, ChoiceResult)
                got.append(result.id)
        assert got == ["0", "1", "2"]
        stranger = [*rewarded.token_ids[:4], 7, *rewarded.token_ids[5:]]
        asked = ChoiceRequest("x", stranger, rewarded.label_ids)
        ((failed,),) = list(engine.run([asked]))
        assert isinstance(failed, Failure)
        assert "not running here" in failed.reason


def test_a_reasoning_judge_writes_and_a_reward_model_does_not(tmp_path: Path, reward: str) -> None:
    rows, made = data(tmp_path, 3)
    run = label(
        *(tmp_path, "run", rows, constitution(tmp_path, reward), "--reasoning"),
        *("--reasoning-tokens", "8", "--engine", "transformers"),
    )
    for (_, principle, _), told in verdicts(run).items():
        if principle == "reward":
            assert not told["invalid"]
            assert told["reasoning"].startswith("rewards ")
    assert len(verdicts(run)) == 6 * len(made)


def test_what_is_no_reward_model_is_refused_in_one_line(tmp_path: Path) -> None:
    rows, _ = data(tmp_path)
    found = CliRunner().invoke(
        cli, ["label", rows, "-c", constitution(tmp_path, "demo"), "-o", str(tmp_path / "run")]
    )
    assert found.exit_code == 1
    assert "LlamaForCausalLM: it has no reward" in str(found.exception)

"""Rewards, the pairwise judge and the callback in TRL's own trainers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

from rlaif.api.judge import Judge
from rlaif.harness import judges
from rlaif.harness.trl_rewards import (
    PairwiseJudge,
    PairwiseReward,
    PointwiseReward,
    WinRateCallback,
)
from rlaif.training.sampling import PolicySampler
from rlaif.util.resources import demo_model
from tests.harness.helpers import TOKEN, Labeled, Server

pytestmark = pytest.mark.slow

PROMPT = "How do I clean a small kettle?"
GOOD = "Clean the kettle with warm water."
RUDE = "That is a silly question. Clean the kettle with warm water."
WORST = "That is a silly question. As I said before, this is important."


@pytest.fixture(autouse=True)
def closed_judges() -> Iterator[None]:
    yield
    judges.close_all()


def turns(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_rewards_are_mean_wins_in_the_group_in_either_order_of_prompts() -> None:
    other = "What is the phone number of the baker?"
    texts = {
        PROMPT: [GOOD, RUDE, WORST],
        other: ["It is private.", "It is 31 21 53.", "I do not know."],
    }
    reward = PairwiseReward("demo", engine="packed")
    grouped = [(p, c) for p, own in texts.items() for c in own]  # GRPO: p0 p0 p0 p1 p1 p1
    cycled = [(p, own[i]) for i in range(3) for p, own in texts.items()]  # OnlineDPO: p0 p1 p0 p1
    found = {}
    for order in (grouped, cycled):
        values = reward(
            prompts=[[{"role": "user", "content": p}] for p, _ in order],
            completions=[turns(c) for _, c in order],
            completion_ids=[[1]] * len(order),
            extra=["x"] * len(order),
        )
        for (p, c), value in zip(order, values, strict=True):
            found.setdefault((p, c), []).append(value)
    assert all(len(v) == 2 and v[0] == v[1] for v in found.values())
    with Judge("demo", engine="packed") as judge:
        for prompt, own in texts.items():
            p = {(a, b): judge.compare(prompt, a, b).p_a for a in own for b in own if a != b}
            for text in own:
                expected = sum(p[text, x] for x in own if x != text) / 2
                assert found[prompt, text][0] == pytest.approx(expected, abs=1e-5)
    assert found[PROMPT, GOOD][0] > found[PROMPT, RUDE][0] > found[PROMPT, WORST][0]


def test_a_completion_without_a_verdict_has_no_reward() -> None:
    given = {"prompts": [PROMPT] * 3, "completions": [GOOD, "", RUDE]}
    values = PairwiseReward("demo", engine="packed")(**given)
    assert values[1] is None
    assert values[0] > 0.9 > 0.1 > values[2]
    assert PairwiseReward("demo", engine="packed", missing=0.5)(**given)[1] == 0.5
    assert PairwiseReward("demo", engine="packed")([PROMPT], [GOOD]) == [None]
    tool = [*turns("calling"), {"role": "tool", "content": "42"}]
    talks: Any = [turns(GOOD), [], tool, turns(RUDE)]
    for reward in (PairwiseReward, PointwiseReward):
        found = reward("demo", engine="packed")([PROMPT] * 4, talks)
        assert found[1] is None
        assert found[2] is None
        assert found[0] is not None
        assert found[0] > found[3]


def test_a_served_judge_is_found_by_its_constitution_s_file(
    judge_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_TOKEN", TOKEN)
    path = tmp_path / "copy.yaml"
    path.write_text((Path(__file__).parents[2] / "constitutions" / "demo.yaml").read_text())
    given = {"prompts": [PROMPT] * 3, "completions": [GOOD, "", RUDE]}
    values = PairwiseReward(str(path), url=judge_server.url)(**given)
    assert values[1] is None
    assert values[0] > 0.9 > 0.1 > values[2]
    alone = PointwiseReward(str(path), url=judge_server.url)(**given)
    assert alone[1] is None
    assert alone[0] > alone[2]


def test_few_opponents_cost_few_comparisons() -> None:
    reward = PairwiseReward("demo", engine="packed", opponents=2)
    meetings = reward._meetings(list(range(10)))
    assert len(meetings) == len(set(meetings)) == 20
    assert {sum(i in pair for pair in meetings) for i in range(10)} == {4}
    assert len(PairwiseReward("demo")._meetings(list(range(5)))) == 10


def trainer_inputs() -> tuple[Any, Any, Dataset]:
    folder = demo_model("policy")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    things = ("kettle", "drum", "lamp", "guitar", "pan", "violin", "stove", "oven")
    prompts = [f"How do I clean a small {thing}?" for thing in things]
    rows = [{"prompt": [{"role": "user", "content": p}]} for p in prompts]
    return model, tokenizer, Dataset.from_list(rows)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_grpo_trains_with_both_rewards(tmp_path: Path, asynchronous: bool) -> None:
    model, tokenizer, data = trainer_inputs()
    seen: list[list[float | None]] = []

    class Watched(PairwiseReward):
        def __call__(self, *given: Any, **more: Any) -> list[float | None]:
            seen.append(super().__call__(*given, **more))
            return seen[-1]

    pairwise: Any = Watched("demo", engine="packed")
    pointwise: Any = PointwiseReward("demo", engine="packed")
    if asynchronous:
        pairwise, pointwise = pairwise.asynchronous(), pointwise.asynchronous()
    before = [p.detach().clone() for p in model.parameters()]
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=data,
        reward_funcs=[pairwise, pointwise],
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=24,
            max_steps=2,
            report_to=[],
            use_cpu=True,
            logging_steps=1,
            learning_rate=1e-3,
            seed=3,
        ),
    )
    trainer.train()
    logged = [x for x in trainer.state.log_history if "reward" in x]
    names = [k for k in logged[0] if k.startswith("rewards/") and k.endswith("/mean")]
    assert sorted(n.split("/")[1] for n in names) == ["PointwiseReward", "Watched"]
    values = [v for call in seen for v in call if v is not None]
    assert len(values) >= 8
    # In a group of n the wins sum to n / 2, however the judge decides.
    for call in seen:
        if None not in call:
            assert sum(call) == pytest.approx(len(call) / 2, abs=1e-4)  # type: ignore[arg-type]
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_online_dpo_trains_with_the_reward(tmp_path: Path) -> None:
    model, tokenizer, data = trainer_inputs()
    seen: list[list[float | None]] = []

    class Watched(PairwiseReward):
        def __call__(self, *given: Any, **more: Any) -> list[float | None]:
            seen.append(super().__call__(*given, **more))
            return seen[-1]

    trainer = OnlineDPOTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=data,
        reward_funcs=Watched("demo", engine="packed", missing=0.5),
        args=OnlineDPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=2,
            max_new_tokens=24,
            max_steps=1,
            report_to=[],
            use_cpu=True,
            logging_steps=1,
            seed=3,
        ),
    )
    trainer.train()
    (values,) = seen
    assert len(values) == 4
    # Two completions a prompt, as p0 p1 p0 p1: each pair's rewards sum to one.
    assert values[0] + values[2] == pytest.approx(1.0, abs=1e-4)  # type: ignore[operator]
    assert values[1] + values[3] == pytest.approx(1.0, abs=1e-4)  # type: ignore[operator]


def test_the_judge_of_trl_up_to_1_0(demo_labels: Labeled) -> None:
    judge = PairwiseJudge("demo", engine="packed")
    rows = demo_labels.rows[:10]
    asked = ([r["prompt"] for r in rows], [[r["response_a"], r["response_b"]] for r in rows])
    ranks = {"a": 0, "b": 1, None: -1}
    assert judge.judge(*asked) == [ranks[demo_labels.winner[r["id"]]] for r in rows]
    scores = judge.judge(*asked, return_scores=True)
    assert scores == pytest.approx([demo_labels.p_a[r["id"]] for r in rows], abs=2e-4)


def test_the_callback_follows_the_policy_s_weights(tmp_path: Path) -> None:
    """On vLLM: greedy answers are those of transformers, before and after the weights change."""
    model, tokenizer, _ = trainer_inputs()
    prompts = [[{"role": "user", "content": p}] for p in (PROMPT, "Who will win the race?")]

    def greedy() -> list[str]:
        said = []
        for prompt in prompts:
            ids = tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            with torch.inference_mode():
                out = model.generate(**ids, max_new_tokens=24, do_sample=False)
            new = out[0, ids["input_ids"].shape[1] :]
            said.append(tokenizer.decode(new, skip_special_tokens=True).strip())
        return said

    sampler = PolicySampler(max_tokens=24)
    rows = [{"prompt": p, "reference": GOOD} for p in prompts]
    callback = WinRateCallback(rows, "demo", engine="packed", sampler=sampler)

    class State:
        global_step = 0
        is_world_process_zero = True
        log_history: list[dict[str, float]] = []

    try:
        first = greedy()
        assert sampler.sample(model, tokenizer, prompts) == first
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        changed = greedy()
        assert changed != first
        assert sampler.sample(model, tokenizer, prompts) == changed
        given = {"model": model, "processing_class": tokenizer}
        callback.on_evaluate(None, State, None, **given)
        with Judge("demo", engine="packed") as judge:
            found = [
                f
                for f in (
                    judge.compare(p, text, GOOD) for p, text in zip(prompts, changed, strict=True)
                )
                if f.status != "abstained"
            ]
        points = [{"a": 1.0, "b": 0.0}.get(f.winner or "", 0.5) for f in found]
        assert callback.history == [(0, pytest.approx(sum(points) / len(points)))]
        assert State.log_history[0]["win_rate"] == callback.history[0][1]
    finally:
        sampler.close()
    assert json.dumps(State.log_history)

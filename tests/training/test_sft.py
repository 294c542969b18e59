"""`rlaif train-sft`: the loss is on completions alone, every row is accounted for, it resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif.cli.main import main
from rlaif.demo.oracle import read_response
from rlaif.demo.world import World
from rlaif.engines.hub import resolve_model
from rlaif.engines.model_origin import model_origin
from rlaif.errors import RlaifError
from rlaif.training.frame import preview_training, run_training
from rlaif.training.settings import GateSettings, SFTSettings
from rlaif.training.sft import prepare_sft
from rlaif.training.supervised import SupervisedAccount, read_supervised
from rlaif.util.resources import demo_model

pytestmark = pytest.mark.slow

SAME = GateSettings(override="one answer, so that a little training shows")
FAST = {
    "model": "demo",
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def polite(count: int, seed: int = 3) -> list[dict[str, Any]]:
    """Prompts with an answer that thanks; nothing else of the world does so every time."""
    world = World(seed, "train")
    return [{"prompt": world.prompt(), "completion": "Thank you for asking."} for _ in range(count)]


def test_first_loss_is_the_mean_over_completion_tokens(tmp_path: Path) -> None:
    rows = polite(4)
    rows[1]["completion"] = "I am glad to help you today. Thank you for your question."
    data = write_rows(tmp_path / "d.jsonl", rows)
    run_training(
        prepare_sft(data, SFTSettings(**FAST, warmup_steps=0.0)), tmp_path / "p", gates=SAME
    )
    first = json.loads((tmp_path / "p" / "metrics.jsonl").read_text().splitlines()[0])
    tokenizer = AutoTokenizer.from_pretrained(demo_model("policy"))
    model = AutoModelForCausalLM.from_pretrained(demo_model("policy"))
    losses = []
    for row in rows:
        chat = [{"role": "user", "content": row["prompt"]}]
        head = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(head, add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["completion"] + "<|end|>", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids + answer])).logits[0].log_softmax(-1)
        losses += [-logprobs[len(ids) + i - 1, token].item() for i, token in enumerate(answer)]
    assert first["loss"] == pytest.approx(sum(losses) / len(losses), abs=2e-4)


def test_it_learns_what_it_is_shown_and_says_where_it_came_from(tmp_path: Path) -> None:
    rows = polite(64)
    for row in rows:
        row["origin"] = {"kind": "model", "depth": 2}
    data = write_rows(tmp_path / "d.jsonl", rows)
    result = run_training(
        prepare_sft(data, SFTSettings(**FAST, num_train_epochs=2)), tmp_path / "p", gates=SAME
    )
    assert result.steps == 32
    assert model_origin(resolve_model(str(tmp_path / "p"))).depth == 2
    assert "Completions trained on | 64 of 64" in (tmp_path / "p" / "README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "p")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "p")
    thanked = 0
    world = World(4, "test")
    for _ in range(10):
        prompt = world.prompt()
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        out = model.generate(ids, max_new_tokens=30, do_sample=False)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        thanked += read_response(prompt, text).polite > 0
    assert thanked == 10
    again = run_training(
        prepare_sft(data, SFTSettings(**FAST, num_train_epochs=2)), tmp_path / "p", gates=SAME
    )
    assert not again.fresh
    with pytest.raises(RlaifError, match=r"another training .*epochs: 2\.0 -> 1\.0"):
        run_training(prepare_sft(data, SFTSettings(**FAST)), tmp_path / "p", gates=SAME)


def test_a_training_that_was_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", polite(40))
    settings = SFTSettings(**FAST, save_steps=3)
    run_training(prepare_sft(data, settings), tmp_path / "whole", gates=SAME)

    def stop(line: Any) -> None:
        if line.get("step") == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(prepare_sft(data, settings), tmp_path / "cut", gates=SAME, on_log=stop)
    run_training(prepare_sft(data, settings), tmp_path / "cut", gates=SAME)

    def losses(name: str) -> list[tuple[float, float]]:
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [(x["step"], x["loss"]) for line in lines if "loss" in (x := json.loads(line))]

    assert losses("cut") == losses("whole")
    weights = [
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("whole", "cut")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows = [
        *polite(3),
        {"prompt": "q", "completion": "word " * 400, "id": "long"},
        {"prompt": "q " * 400, "completion": "a", "id": "full"},
        {"prompt": "q", "completion": "  ", "id": "blank"},
        {"prompt": "no completion"},
    ]
    data = write_rows(tmp_path / "d.jsonl", rows)
    account = preview_training(prepare_sft(data, SFTSettings(model="demo", max_length=100)), SAME)
    assert (account.read, account.trained) == (6, 4)
    assert account.truncated == ["long"]
    assert account.prompt_too_long == ["full"]
    assert account.empty == ["blank"]
    assert len(account.unreadable) == 1
    assert "line 7: no responses" in account.unreadable[0]
    chats = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    ]
    (read,) = read_supervised(write_rows(tmp_path / "chats.jsonl", chats), SupervisedAccount())
    assert read.completion == [{"role": "assistant", "content": "b"}]
    lists = [{"id": "two", "prompt": "q", "completions": [{"content": "x"}, {"content": "y"}]}]
    several = read_supervised(write_rows(tmp_path / "lists.jsonl", lists), SupervisedAccount())
    assert [r.id for r in several] == ["two/1", "two/2"]
    dropped = preview_training(
        prepare_sft(data, SFTSettings(model="demo", max_length=100, overlong="drop")), SAME
    )
    assert dropped.dropped == ["long"]
    with pytest.raises(RlaifError, match=r"row 'long' has \d+ tokens, more than max_length 100"):
        preview_training(
            prepare_sft(data, SFTSettings(model="demo", max_length=100, overlong="error")), SAME
        )


def test_rows_are_repeated_by_weight(tmp_path: Path) -> None:
    rows = [{**row, "weight": w} for row, w in zip(polite(100), [2.5, 0.5] * 50, strict=True)]
    account = preview_training(
        prepare_sft(write_rows(tmp_path / "d.jsonl", rows), SFTSettings(model="demo")), SAME
    )
    assert account.read == 100
    assert account.repeated_by_weight == account.trained
    assert 130 < account.trained < 170


def test_the_command_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.yaml").write_text("format: 1\n")
    for data, message in (
        (str(tmp_path / "run"), "contains no sft.jsonl or candidates.jsonl"),
        (write_rows(tmp_path / "d.jsonl", [{"prompt": "x"}]), "no completion in"),
    ):
        monkeypatch.setattr(
            "sys.argv", ["rlaif", "train-sft", data, "--model", "demo", "-o", str(tmp_path / "p")]
        )
        with pytest.raises(SystemExit) as done:
            main()
        assert done.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "p").exists()

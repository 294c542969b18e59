"""Training end to end: accounting, resume after a kill, LoRA, mixing, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlaif.engines.hub import resolve_model
from rlaif.engines.model_origin import model_origin
from rlaif.errors import RlaifError
from rlaif.training.data import (
    RowAccount,
    TrainingRow,
    check_lengths,
    mix_in_human,
    read_human_pairs,
)
from rlaif.training.dpo import prepare_dpo
from rlaif.training.frame import preview_training, run_training
from rlaif.training.settings import DPOSettings
from rlaif.util.hashing import file_digest
from tests.commands import run_command
from tests.labeling.helpers import restate_sizes

pytestmark = pytest.mark.slow


def write_run(folder: Path, count: int, long_at: int = -1) -> Path:
    """A complete labeling run of `count` pairs by the scripted engine."""
    from rlaif.demo.world import World
    from rlaif.engines.base import EngineSettings
    from rlaif.labeling.job import prepare, run_label
    from rlaif.labeling.settings import LabelSettings

    data = folder / "pairs.jsonl"
    with data.open("w") as file:
        for i, pair in enumerate(World(9, "train").pairs(count)):
            longer = " and so on" * 80 if i == long_at else ""
            row = {
                "prompt": pair.prompt,
                "response_a": pair.response_a + longer,
                "response_b": pair.response_b,
            }
            file.write(json.dumps(row) + "\n")
    settings = LabelSettings(judge=EngineSettings(engine="scripted", model="hashed"))
    run_label(prepare(str(data), "demo", settings), folder / "run")
    return folder / "run"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def arguments(run: Path, out: Path, *more: str) -> list[str]:
    return [
        "rlaif",
        "train-dpo",
        str(run),
        "-o",
        str(out),
        "--model",
        "demo",
        "--per-device-train-batch-size",
        "4",
        "--save-steps",
        "2",
        "--logging-steps",
        "1",
        "--learning-rate",
        "1e-4",
        *more,
    ]


def test_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    run = write_run(tmp_path, 60)
    command = [
        sys.executable,
        "-m",
        *arguments(run, tmp_path / "killed", "--num-train-epochs", "2"),
    ]
    _, *whole = arguments(run, tmp_path / "whole", "--num-train-epochs", "2")
    first = run_command(*whole)
    assert first.returncode == 0, first.stderr[-3000:]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 300
    while not (checkpoints / "checkpoint-4").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "training.json").exists()
    done = run_command(*command[3:], "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if '"loss"' in line]
    assert steps == list(range(1, result["steps"] + 1))
    alone = json.loads((tmp_path / "whole" / "training.json").read_text())["metrics"]
    assert result["metrics"]["train_loss"] == pytest.approx(alone["train_loss"], abs=1e-5)
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    moved = weights_of_demo()
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-6), name
    assert any(not torch.allclose(value, moved[name], atol=1e-4) for name, value in one.items())

    same = DPOSettings(
        model="demo",
        per_device_train_batch_size=4,
        save_steps=2,
        logging_steps=1,
        learning_rate=1e-4,
        num_train_epochs=2,
    )
    assert (
        run_training(
            prepare_dpo(run, same),
            tmp_path / "whole",
        ).fresh
        is False
    )
    with pytest.raises(RlaifError, match=r"beta: 0\.1 -> 0\.5"):
        run_training(
            prepare_dpo(run, same.model_copy(update={"beta": 0.5})),
            tmp_path / "whole",
        )
    card = (tmp_path / "whole" / "README.md").read_text()
    assert file_digest(run / "manifest.json") in card


def weights_of_demo() -> dict[str, torch.Tensor]:
    from rlaif.util.resources import demo_model

    return weights(demo_model("policy"))


def test_lora_trains_an_adapter_and_merges_it(tmp_path: Path) -> None:
    run = write_run(tmp_path, 16)
    settings = DPOSettings(
        model="demo",
        per_device_train_batch_size=8,
        lora_r=4,
        learning_rate=1e-3,
        logging_steps=1,
        loss_type="sigmoid",
    )
    run_training(
        prepare_dpo(run, settings),
        tmp_path / "out",
    )
    adapter = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    base, merged = weights_of_demo(), weights(tmp_path / "out")
    name = "model.layers.0.self_attn.q_proj.weight"
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    scale = 8 / 4  # alpha is twice the rank
    delta = scale * adapter[key.format("B")] @ adapter[key.format("A")]
    assert float(delta.abs().max()) > 0
    assert torch.allclose(merged[name], base[name] + delta, atol=1e-5)
    # The adapter's folder is a model, too.
    files = resolve_model(str(tmp_path / "out" / "adapter"))
    again = weights(files.path)
    assert all(torch.allclose(again[key], merged[key], atol=1e-6) for key in merged)
    assert model_origin(files) == model_origin(resolve_model(str(tmp_path / "out")))


def test_two_processes_train_together(tmp_path: Path) -> None:
    run = write_run(tmp_path, 24)
    # What `accelerate launch` starts on a machine with several GPUs; here over two CPU processes.
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m"]
    done = subprocess.run(
        [*launch, *arguments(run, tmp_path / "two", "--json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[:3000]
    assert json.loads(done.stdout)["fresh"] is True  # one process prints, not two
    rows = json.loads((tmp_path / "two" / "account.json").read_text())["trained"]
    steps = json.loads((tmp_path / "two" / "training.json").read_text())["steps"]
    assert steps == -(-rows // 8)  # two processes of four pairs each


def test_long_rows_are_named_before_training(tmp_path: Path) -> None:
    run = write_run(tmp_path, 12, long_at=3)
    told: list[RowAccount] = []
    settings = DPOSettings(
        model="demo", max_length=100, overlong="drop", per_device_train_batch_size=8
    )
    run_training(prepare_dpo(run, settings), tmp_path / "out", on_account=told.append)
    assert told[0].dropped == ["row-4"]
    assert any("row-4" in line for line in told[0].lines())
    with pytest.raises(RlaifError, match=r"'row-4' has \d+ tokens, more than max_length 100"):
        run_training(
            prepare_dpo(run, settings.model_copy(update={"overlong": "error"})),
            tmp_path / "e",
        )
    assert not (tmp_path / "e").exists()


def fake_row(name: str, length: int) -> TrainingRow:
    prompt = [{"role": "user", "content": "p" * 10}]
    chosen = [{"role": "assistant", "content": "c" * length}]
    rejected = [{"role": "assistant", "content": "r"}]
    return TrainingRow(
        id=name, prompt=prompt, chosen=chosen, rejected=rejected, p_chosen=0.9, source="judge"
    )  # type: ignore[arg-type]


def test_lengths_are_accounted_like_trl_treats_them() -> None:
    class Text:
        ends_turns = True

        def lengths(self, prompt, completion, tools):
            head = sum(len(m["content"]) for m in prompt)
            return head, head + sum(len(m["content"]) for m in completion), head

    lengths = Text()

    rows = [fake_row("short", 5), fake_row("exact", 10), fake_row("long", 11)]
    account = RowAccount()
    kept = check_lengths(rows, lengths, max_length=20, overlong="truncate", account=account)
    assert [r.id for r in kept] == ["short", "exact", "long"]
    assert account.truncated == ["long"]
    with pytest.raises(RlaifError, match=r"no pair is left.*the prompt alone fills"):
        check_lengths(rows, lengths, max_length=10, overlong="truncate", account=RowAccount())


def test_mixing_reaches_the_fraction_and_refuses_what_it_can_not() -> None:
    judged = [fake_row(str(i), 1) for i in range(80)]
    human = [fake_row(f"h{i}", 1) for i in range(30)]
    rows, used = mix_in_human(judged, human, 0.2, seed=1)
    assert used == 20
    assert sum(r.id.startswith("h") for r in rows) / len(rows) == pytest.approx(0.2)
    assert [r.id for r in rows] == [r.id for r in mix_in_human(judged, human, 0.2, seed=1)[0]]
    with pytest.raises(RlaifError, match=r"needs 80 human pairs; there are 30.*to 0\.273 or less"):
        mix_in_human(judged, human, 0.5, seed=1)


def test_labeled_data_is_read_and_bad_rows_counted(tmp_path: Path) -> None:
    path = tmp_path / "human.jsonl"
    path.write_text(
        '{"prompt": "q", "chosen": "x", "rejected": "y"}\n'
        '{"prompt": "q", "responses": ["x", "y"]}\n'
        '{"prompt": "q", "chosen": "x", "rejected": "y", "p_chosen": "0.8"}\n{bad\n'
        '{"prompt": "q", "chosen": "x", "rejected": "y", "p_chosen": 0.3}\n'
        '{"prompt": "q", "chosen": "x", "rejected": "x"}\n'
    )
    rows, bad = read_human_pairs(str(path))
    assert [r.p_chosen for r in rows] == [1.0, 0.8]
    assert bad == 4
    assert [r.p_chosen for r in read_human_pairs(str(path), 0.9)[0]] == [0.9, 0.8]


def test_incomplete_run_and_foreign_folder_are_refused(tmp_path: Path) -> None:
    settings = DPOSettings(model="demo")
    with pytest.raises(RlaifError, match="not a run directory"):
        run_training(
            prepare_dpo(tmp_path, settings),
            tmp_path / "out",
        )
    run = write_run(tmp_path, 6)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(RlaifError, match="no training"):
        run_training(
            prepare_dpo(run, settings),
            tmp_path / "full",
        )
    (run / "manifest.json").unlink()
    with pytest.raises(RlaifError, match="not complete"):
        run_training(
            prepare_dpo(run, settings),
            tmp_path / "out",
        )


def test_margin_and_human_rows_reach_the_account(tmp_path: Path) -> None:
    run = write_run(tmp_path, 40)
    rows = [json.loads(line) for line in (run / "preferences.jsonl").read_text().splitlines()]
    sure = [r for r in rows if 2 * r["p_chosen"] - 1 >= 0.5]
    human = tmp_path / "human.jsonl"
    human.write_text('{"prompt": "q", "chosen": "x", "rejected": "y"}\n' * 30)
    settings = DPOSettings(
        model="demo",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        min_margin=0.5,
        human_data=str(human),
        human_fraction=0.25,
        human_p=0.8,
        lr_scheduler_type="constant",
        dtype="bfloat16",
        logging_steps=1,
    )
    result = run_training(
        prepare_dpo(run, settings),
        tmp_path / "out",
    )
    assert result.account.labeled == len(rows)
    assert result.account.below_margin == len(rows) - len(sure) > 0
    assert result.account.human_used == round(len(sure) / 3)
    assert result.account.trained == len(sure) + result.account.human_used
    moved = weights(tmp_path / "out")
    assert all(value.dtype == torch.float32 for value in moved.values())


DAMAGE = {
    "torn line": lambda lines: [*lines[:-1], lines[-1][:40]],
    "missing row": lambda lines: lines[:-1],
    "probability": lambda lines: [lines[0].replace('"p_chosen":', '"p_chosen":1', 1), *lines[1:]],
    "not valid UTF-8": lambda lines: [lines[0].replace("chosen", "ch\udcffosen", 1), *lines[1:]],
    "text prompt": lambda lines: ['{"prompt": 3}', *lines[1:]],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_preferences_are_one_clear_error(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path, 8)
    file = run / "preferences.jsonl"
    lines = DAMAGE[name](file.read_text().splitlines())
    file.write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(RlaifError, match=r"preferences\.jsonl"):
        run_training(
            prepare_dpo(run, DPOSettings(model="demo")),
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_policy_that_can_not_be_loaded_leaves_nothing_behind(tmp_path: Path) -> None:
    import shutil

    from rlaif.util.resources import demo_model

    run = write_run(tmp_path, 6)
    broken = tmp_path / "policy"
    shutil.copytree(demo_model("policy"), broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RlaifError, match="could not be loaded"):
        run_training(
            prepare_dpo(run, DPOSettings(model=str(broken))),
            tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_prompt_end_that_trl_leaves_out_is_named(tmp_path: Path) -> None:
    import shutil

    from rlaif.util.resources import demo_model

    run = write_run(tmp_path, 6)
    policy = tmp_path / "policy"
    shutil.copytree(demo_model("policy"), policy)
    template = policy / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if add_generation_prompt %} So:{% endif %}")
    account = preview_training(prepare_dpo(run, DPOSettings(model=str(policy))))
    assert len(account.prompt_end_cut) == account.trained
    assert any("with a shortened prompt" in line for line in account.lines())


def test_changed_labels_are_another_training(tmp_path: Path) -> None:
    run = write_run(tmp_path, 8)
    settings = DPOSettings(model="demo")
    run_training(
        prepare_dpo(run, settings),
        tmp_path / "out",
    )
    file = run / "preferences.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["chosen"], rows[0]["rejected"] = rows[0]["rejected"], rows[0]["chosen"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RlaifError, match="cut or edited"):
        prepare_dpo(run, settings)
    restate_sizes(run)
    with pytest.raises(RlaifError, match="labels_hash"):
        run_training(
            prepare_dpo(run, settings),
            tmp_path / "out",
        )


def test_a_policy_with_capped_attention_keeps_its_caps(tmp_path: Path) -> None:
    """PyTorch's fused attention leaves them out without a word: the policy would be another."""
    from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

    from rlaif.training.frame import make_trainer
    from rlaif.util.resources import demo_model

    folder = tmp_path / "policy"
    tokenizer = AutoTokenizer.from_pretrained(demo_model("policy"))
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        attn_logit_softcapping=0.5,
        initializer_range=0.5,
    )
    Gemma2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run = write_run(tmp_path, 6)
    job = prepare_dpo(run, DPOSettings(model=str(folder), max_length=512))
    rows, _ = job.gather(tokenizer, 512)
    files = resolve_model(str(folder))
    trainer = make_trainer(job, rows, files, tokenizer, tmp_path / "out")
    ids = torch.arange(5, 60)[None]
    expected = Gemma2ForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    for model in (trainer.model, trainer.ref_model):
        with torch.no_grad():
            found = model.eval()(input_ids=ids).logits
            torch.testing.assert_close(found, expected(input_ids=ids).logits)

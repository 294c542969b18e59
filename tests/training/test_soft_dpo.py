"""The probability reaches the loss: value and gradient against an expression written here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOTrainer

from rlaif.demo.world import World
from rlaif.engines.hub import resolve_model
from rlaif.training.data import TrainingRow
from rlaif.training.dpo import build_dpo
from rlaif.training.loop import effective_length
from rlaif.training.settings import TRL_LOSSES, DPOSettings, advise
from rlaif.training.soft_dpo import SoftDPOTrainer

pytestmark = pytest.mark.slow

PROBABILITIES = [0.50001, 0.55, 0.7, 0.9, 0.999, 1.0]
BETA = 0.3


def training_rows(probabilities: list[float]) -> list[TrainingRow]:
    return [
        TrainingRow(
            id=str(i),
            prompt=[{"role": "user", "content": pair.prompt}],
            chosen=[{"role": "assistant", "content": pair.response_a}],
            rejected=[{"role": "assistant", "content": pair.response_b}],
            p_chosen=p,
            source="judge",
        )
        for i, (p, pair) in enumerate(
            zip(probabilities, World(3, "train").pairs(len(probabilities)), strict=True)
        )
    ]


def trainer_for(tmp_path: Path, rows: list[TrainingRow], **changes) -> DPOTrainer:
    settings = DPOSettings(
        model="demo", beta=BETA, per_device_train_batch_size=len(rows), **changes
    )
    files = resolve_model("demo", embedded="policy")
    tokenizer = AutoTokenizer.from_pretrained(files.path)
    longest = effective_length(settings, files)
    kind, arguments = build_dpo(
        rows=rows, settings=settings, tokenizer=tokenizer, longest=longest, out=tmp_path / "out"
    )
    trainer = kind(model=str(files.path), processing_class=tokenizer, **arguments)
    assert isinstance(trainer, DPOTrainer)
    return trainer


def log_ratio_difference(policy, reference, tokenizer, row: TrainingRow) -> torch.Tensor:
    """z / beta for one row, from plain forward passes over one sequence at a time."""

    def score(model, completion) -> torch.Tensor:
        head = tokenizer.apply_chat_template(
            row.prompt, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        whole = tokenizer.apply_chat_template([*row.prompt, *completion], return_dict=True)[
            "input_ids"
        ]
        logits = model(torch.tensor([whole])).logits[0, :-1]
        picked = logits.log_softmax(-1)[torch.arange(len(whole) - 1), torch.tensor(whole[1:])]
        return picked[len(head) - 1 :].sum()

    with torch.no_grad():
        base = score(reference, row.chosen) - score(reference, row.rejected)
    return score(policy, row.chosen) - score(policy, row.rejected) - base


def disturbed(model, scale: float = 0.02):
    """Weights away from the reference, so that z is not zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * p.std() * torch.randn_like(p))
    return model


@pytest.mark.parametrize("precompute", [False, True])
def test_loss_and_gradient_equal_the_exact_expression(tmp_path: Path, precompute: bool) -> None:
    rows = training_rows(PROBABILITIES)
    trainer = trainer_for(tmp_path, rows, precompute_ref_log_probs=precompute)
    assert isinstance(trainer, SoftDPOTrainer)
    batch = next(iter(trainer.get_train_dataloader()))
    order = [PROBABILITIES.index(pytest.approx(float(p))) for p in batch["p_chosen"]]
    disturbed(trainer.model).train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()

    files = resolve_model("demo", embedded="policy")
    tokenizer = AutoTokenizer.from_pretrained(files.path)
    reference = AutoModelForCausalLM.from_pretrained(files.path, dtype=torch.float32)
    policy = AutoModelForCausalLM.from_pretrained(files.path, dtype=torch.float32)
    policy.load_state_dict(trainer.model.state_dict())
    terms = []
    for i in order:
        z = BETA * log_ratio_difference(policy, reference, tokenizer, rows[i])
        p = rows[i].p_chosen
        terms.append(-p * F.logsigmoid(z) - (1 - p) * F.logsigmoid(-z))
        assert abs(float(z.detach())) > 1e-3
    expected = torch.stack(terms).mean()
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    ours = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    exact = torch.cat([p.grad.flatten() for p in policy.parameters()])
    assert float((ours - exact).norm() / exact.norm()) < 1e-5


def test_certain_labels_give_trls_sigmoid_loss_and_doubt_gives_another(tmp_path: Path) -> None:
    def loss(probabilities: list[float], **changes) -> float:
        trainer = trainer_for(tmp_path, training_rows(probabilities), **changes)
        batch = next(iter(trainer.get_train_dataloader()))
        disturbed(trainer.model, 0.1).train()
        return float(trainer.compute_loss(trainer.model, batch).detach())

    hard = loss([1.0] * 4, loss_type="sigmoid")
    assert loss([1.0] * 4) == pytest.approx(hard, rel=1e-5)
    assert abs(loss([0.7] * 4) - hard) > 1e-3


def test_contract_with_the_installed_trl(tmp_path: Path) -> None:
    """What SoftDPOTrainer builds on; a TRL that changes it must fail here, not in silence."""
    import inspect

    from trl.trainer import dpo_trainer

    source = inspect.getsource(dpo_trainer.DPOTrainer._compute_loss)
    assert "- self.label_smoothing) * F.logsigmoid(self.beta * delta_score)" in source
    assert "/ (1 - 2 * self.label_smoothing)" in source
    names = ("sigmoid", "robust", *TRL_LOSSES)
    assert all(f'"{name}"' in source for name in names)
    for method in ("_set_signature_columns_if_needed", "_compute_loss", "compute_ref_log_probs"):
        assert callable(getattr(dpo_trainer.DPOTrainer, method))
    trainer = trainer_for(tmp_path, training_rows([0.6, 0.8]))
    batch = next(iter(trainer.get_train_dataloader()))
    assert sorted(round(float(p), 4) for p in batch["p_chosen"]) == [0.6, 0.8]
    seen = []
    original = DPOTrainer._compute_loss

    def spy(self, model, inputs, return_outputs):
        seen.append((self.label_smoothing, "p_chosen" in inputs))
        return original(self, model, inputs, return_outputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DPOTrainer, "_compute_loss", spy)
        trainer.compute_loss(trainer.model, batch)
    ((smoothing, leaked),) = seen
    assert leaked is False
    q = 1 - batch["p_chosen"]
    assert torch.allclose(smoothing, -q / (1 - 2 * q))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"label_smoothing": 0.1}, "--label-smoothing has no effect with --loss-type soft"),
        (
            {"loss_type": "sigmoid", "label_smoothing": 0.1},
            "no effect with --loss-type sigmoid",
        ),
        ({"loss_type": "robust"}, "is the sigmoid loss"),
        ({"loss_type": "ipo"}, "treats every label as certain"),
        (
            {"human_fraction": 0.3},
            "--human-fraction and --human-p have no effect without --human-data",
        ),
        ({"lora_alpha": 8}, "have no effect with --lora-r 0"),
    ],
)
def test_advice_on_settings_that_do_nothing(changes: dict, said: str | None) -> None:
    advice = advise(DPOSettings(model="demo", **changes))
    assert advice == [] if said is None else any(said in line for line in advice)


def test_label_smoothing_really_does_nothing_with_sigmoid(tmp_path: Path) -> None:
    """The advice is true of the installed TRL."""

    def loss(**changes) -> float:
        trainer = trainer_for(tmp_path, training_rows([1.0] * 3), **changes)
        batch = next(iter(trainer.get_train_dataloader()))
        disturbed(trainer.model, 0.1).train()
        return float(trainer.compute_loss(trainer.model, batch).detach())

    assert loss(loss_type="sigmoid", label_smoothing=0.2) == loss(loss_type="sigmoid")
    assert loss(loss_type="robust", label_smoothing=0.2) != loss(
        loss_type="robust", label_smoothing=0.1
    )

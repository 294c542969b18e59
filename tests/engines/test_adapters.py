"""LoRA adapter folders as models: merged once, or refused with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif.engines.base import EngineSettings
from rlaif.engines.hub import resolve_model
from rlaif.engines.model_origin import model_origin
from rlaif.engines.registry import codec_for, create_engine
from rlaif.errors import RlaifError
from rlaif.records import ChoiceRequest, ChoiceResult
from rlaif.util.resources import demo_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on the embedded judge, large enough that it changes answers."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(demo_model("judge"))
    adapted = get_peft_model(
        model,
        LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.05)
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def ask(name: str) -> Any:
    settings = EngineSettings(engine="transformers", model=name)
    codec = codec_for(settings)
    ids = codec.encode_chat([{"role": "user", "content": "Which is better, A or B?"}])
    labels = (codec.spellings("A"), codec.spellings("B"))
    engine = create_engine(settings)
    try:
        ((found,),) = engine.run([ChoiceRequest("", ids, labels)])
    finally:
        engine.close()
    assert isinstance(found, ChoiceResult)
    return ids, found.logprobs


def test_an_adapter_answers_as_the_adapted_model(adapter: Path) -> None:
    from peft import PeftModel

    ids, found = ask(str(adapter))
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(demo_model("judge")), str(adapter)
    )
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    codec = codec_for(EngineSettings(engine="transformers", model="demo"))
    right = [float(logprobs[list(codec.spellings(label))].logsumexp(0)) for label in "AB"]
    assert list(found) == pytest.approx(right, abs=1e-4)
    _, plain = ask("demo")
    assert list(plain) != pytest.approx(right, abs=1e-2), "the adapter does something"


def test_it_is_merged_once_and_known_by_what_is_in_it(adapter: Path, made: Path) -> None:
    first = resolve_model(str(adapter))
    stamp = (first.path / "config.json").stat().st_mtime_ns
    assert resolve_model(str(made)).fingerprint == first.fingerprint, "wherever it lies"
    assert (resolve_model(str(adapter)).path / "config.json").stat().st_mtime_ns == stamp
    assert first.fingerprint != resolve_model("demo").fingerprint
    assert model_origin(first).license == model_origin(resolve_model("demo")).license
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 64}))
    assert resolve_model(str(adapter)).fingerprint != first.fingerprint
    assert [p for p in first.path.parent.iterdir() if p.name.startswith(".")] == []


def test_a_tokenizer_beside_the_adapter_is_its_own(adapter: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo_model("judge"))
    tokenizer.chat_template = "ADAPTED " + tokenizer.chat_template
    tokenizer.save_pretrained(adapter)
    codec = codec_for(EngineSettings(engine="transformers", model=str(adapter)))
    ids = codec.encode_chat([{"role": "user", "content": "hello"}])
    assert "ADAPTED" in tokenizer.decode(ids)


def change(adapter: Path, **values: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda a: change(a, task_type="SEQ_CLS"), "is for SEQ_CLS task"),
        (lambda a: change(a, base_model_name_or_path=None), "the base None"),
        (lambda a: change(a, base_model_name_or_path="/no/such/folder"), "base of the adapter"),
        (lambda a: change(a, base_model_name_or_path=str(a)), "base of the adapter"),
        (lambda a: (a / "adapter_config.json").write_text("{"), "could not be read"),
        (lambda a: (a / "adapter_config.json").write_text("[]"), "could not be read"),
        (lambda a: (a / "adapter_model.safetensors").write_bytes(b"x"), "could not be merged"),
        (
            lambda a: (a / "adapter_model.safetensors").rename(a / "adapter_model.bin"),
            "pickled weights are not loaded",
        ),
        (lambda a: change(a, r=8), "could not be merged"),
    ],
)
def test_an_adapter_that_can_t_be_used_is_one_sentence(
    adapter: Path, break_it: Any, message: str
) -> None:
    break_it(adapter)
    with pytest.raises(RlaifError, match=message) as caught:
        resolve_model(str(adapter))
    assert "\n" not in str(caught.value)

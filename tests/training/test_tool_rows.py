"""Rows with tools and calls: as TRL takes them, and refused where a policy can't show them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif.errors import RlaifError
from rlaif.training.data import find_labels, make_dataset, read_preferences
from rlaif.training.dpo import build_dpo
from rlaif.training.policy_text import PolicyText
from rlaif.training.settings import DPOSettings
from rlaif.training.supervised import SupervisedAccount, read_supervised
from tests.labeling.helpers import label, restate_sizes, write_inputs

POLICY = Path(__file__).parents[2] / "rlaif/demo/models/policy"
TEMPLATE = (
    "{% for t in tools or [] %}<tool>{{ t | tojson }}{% endfor %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] or '' }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]"
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def turn(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def rows() -> list[dict[str, Any]]:
    found = []
    for k in range(6):
        asked = [{"role": "user", "content": f"Weather in town {k}?"}]
        one = [turn(call("look", {"city": f"town {k}", "days": k}))]
        two = [turn(call("look", {"where": {"lat": k, "far": [1, None]}}), content="Hm.")]
        found.append({"id": str(k), "prompt": asked, "tools": [TOOL], "responses": [one, two]})
    found.append({"id": "plain", "prompt": "Hello?", "responses": ["Good day.", "Go away now."]})
    return found


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "p"
    shutil.copytree(POLICY, folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    _, constitution = write_inputs(folder, 1)
    data = folder / "calls.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    label(data, constitution, folder / "run")
    return folder / "run"


def test_rows_reach_trl_with_their_own_calls(run: Path, policy: Path, tmp_path: Path) -> None:
    labels = read_preferences(find_labels(run))
    tokenizer: Any = AutoTokenizer.from_pretrained(policy)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    settings = DPOSettings(model=str(policy))
    kind, arguments = build_dpo(labels, settings, tokenizer, 512, tmp_path / "out")
    trainer = kind(
        model=AutoModelForCausalLM.from_pretrained(policy), processing_class=tokenizer, **arguments
    )
    raw = [json.loads(line) for line in (run / "preferences.jsonl").open()]
    assert len(raw) == len(trainer.train_dataset)
    seen = 0
    for row, given in zip(raw, trainer.train_dataset, strict=True):
        for side in ("chosen", "rejected"):
            whole = tokenizer.apply_chat_template(
                row["prompt"] + row[side], tools=row.get("tools"), tokenize=False
            )
            ids = [*given["prompt_ids"], *given[f"{side}_ids"]]
            assert ids == tokenizer(whole, add_special_tokens=False)["input_ids"]
            seen += "tool_calls" in row[side][0]
        assert ("tools" in row) == (row["provenance"]["id"] != "plain")
    assert seen >= 8
    plain = [row for row in labels if not row.tools]
    assert "tools" not in make_dataset(plain, ("prompt", "chosen", "rejected")).column_names


def test_a_policy_that_leaves_calls_out_is_refused(run: Path, policy: Path) -> None:
    labels = [row for row in read_preferences(find_labels(run)) if row.tools]
    with pytest.raises(RlaifError, match="chat template leaves out the tools"):
        PolicyText(AutoTokenizer.from_pretrained(POLICY), "p").lengths(
            labels[0].prompt, labels[0].chosen, labels[0].tools
        )
    half: Any = AutoTokenizer.from_pretrained(policy)
    half.chat_template = TEMPLATE.replace(" {{ c.function.arguments | tojson }}", "")
    with pytest.raises(RlaifError, match="chat template leaves out tool calls"):
        PolicyText(half, "p").lengths(labels[0].prompt, labels[0].chosen, labels[0].tools)
    whole = PolicyText(AutoTokenizer.from_pretrained(policy), "p").lengths
    assert whole(labels[0].prompt, labels[0].chosen, labels[0].tools)[1] > 0


def test_calls_are_learned_and_pictures_refused(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "sft.jsonl"
    learned = [{"completion": row.pop("responses")[0], **row} for row in rows()]
    data.write_text("".join(json.dumps(row) + "\n" for row in learned))
    account = SupervisedAccount()
    read = read_supervised(str(data), account)
    assert not account.unreadable
    assert [row.tools for row in read] == [[TOOL]] * 6 + [[]]
    assert read[2].completion[0]["tool_calls"][0]["function"]["arguments"] == {
        "city": "town 2",
        "days": 2,
    }
    seen = tmp_path / "seen"
    shutil.copytree(run, seen)
    lines = (seen / "preferences.jsonl").read_text().splitlines()
    row = json.loads(lines[0]) | {"images": ["a.png"]}
    (seen / "preferences.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]) + "\n")
    restate_sizes(seen)
    with pytest.raises(RlaifError, match=r"preferences.jsonl:1:1: has pictures.*export"):
        read_preferences(find_labels(seen))

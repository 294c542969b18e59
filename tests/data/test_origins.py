"""Where texts come from: read from any row, carried on by commands, drawn by `rlaif lineage`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from rlaif.cli.main import main
from rlaif.data.licensing import ModelUse, check, load_licenses
from rlaif.data.single_rows import read_prompt, read_row
from rlaif.errors import RlaifError
from rlaif.generation.candidates import (
    GenerateSettings,
    SamplingSettings,
    Teacher,
    prepare_generate,
)
from rlaif.generation.critique import CritiqueSettings, prepare_critique
from rlaif.generation.runner import run_generation
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.records import GenerationRequest, Origin
from rlaif.runs.lineage import lineage
from rlaif.training.dpo import prepare_dpo
from rlaif.training.frame import run_training
from rlaif.training.settings import DPOSettings, SFTSettings
from rlaif.training.sft import prepare_sft
from tests.generation.helpers import SCRIPTED, read, use_writer, write_rows

NOW = "2023-11-14T22:13:20Z"  # SOURCE_DATE_EPOCH of the tests


def test_what_rows_say_of_their_origin() -> None:
    def completion(row: dict[str, Any]) -> Origin:
        return read_row({"prompt": "q", **row}).completions[0].source

    assert completion({"completion": "x", "model": "m"}) == Origin("model", "m", depth=1)
    assert completion({"completion": "x", "completion_model": "human"}) == Origin("human")
    assert completion({"completion": "x"}) == Origin()
    stated = {
        "kind": "model",
        "model": "m",
        "revision": "r",
        "license": "mit",
        "depth": 3,
        "temperature": 0.7,
        "seed": 0,
        "time": NOW,
    }
    whole = Origin(
        kind="model",
        model="m",
        revision="r",
        license="mit",
        depth=3,
        sampling="temperature=0.7 seed=0",
        time=NOW,
    )
    assert completion({"completion": "x", "origin": stated}) == whole
    assert completion({"responses": [{"content": "x", "origin": stated}, "y"]}) == whole
    assert completion({"completion": "x", "provenance": {"origin": stated}}) == whole
    pair = {"chosen": "x", "rejected": "y", "chosen_origin": stated, "rejected_model": "n"}
    assert [c.source for c in read_row({"prompt": "q", **pair}).completions] == [
        whole,
        Origin("model", "n", depth=1),
    ]
    human = {"prompt": "q", "origin": {"kind": "human", "license": "cc0-1.0"}}
    assert read_prompt(human).prompt_origin == Origin("human", license="cc0-1.0")
    # A row of a prompt and somebody's answer is that somebody's, unless the answer has its own.
    both = read_row({**human, "responses": [{"content": "x", "model": "m"}, "y"]})
    assert both.completions[0].source.model == "m"


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Human prompts, drafts, revisions, labels, and a policy trained on the revisions."""
    monkeypatch.chdir(tmp_path)

    def writer(text: str, request: GenerationRequest) -> str:
        return f"text {abs(hash((text, request.seed))) % 10**9} of eight more words to say here"

    use_writer(monkeypatch, writer)
    prompts = write_rows(
        Path("prompts.jsonl"),
        [
            {"prompt": f"question {i}?", "origin": {"kind": "human", "license": "cc-by-4.0"}}
            for i in range(12)
        ],
    )
    settings = GenerateSettings()
    job = prepare_generate(prompts, [Teacher(SCRIPTED, SamplingSettings(n=2))], settings)
    run_generation(job, Path("drafts"))
    label = LabelSettings(judge=SCRIPTED, template="demo")
    run_label(prepare("drafts/candidates.jsonl", "demo", label), Path("labels"))
    return tmp_path


def test_every_text_of_a_run_says_where_it_is_from(chain: Path) -> None:
    candidates = read(Path("drafts/candidates.jsonl"))
    for row in candidates:
        assert row["prompt_origin"]["kind"] == "human"
        assert row["prompt_origin"]["license"] == "cc-by-4.0"
        for item in row["completions"]:
            assert item["origin"]["time"] == NOW
            assert item["origin"]["depth"] == 1
    decided = read(Path("labels/preferences.jsonl"))
    undecided = read(Path("labels/undecided.jsonl"))
    assert decided
    for row, names in [
        *((r, ("chosen", "rejected")) for r in decided),
        *((r, ("a", "b")) for r in undecided),
    ]:
        origins = row["provenance"]["origins"]
        assert origins["prompt"]["license"] == "cc-by-4.0"
        for name in names:
            assert (origins[name]["kind"], origins[name]["time"]) == ("model", NOW)
            assert "seed=" in origins[name]["sampling"]
    manifest = json.loads(Path("labels/manifest.json").read_text())
    pairs = manifest["counts"]["pairs"]
    by_kind = {o["kind"]: o for o in manifest["counts"]["origins"].values()}
    assert by_kind["human"]["prompts"] == pairs
    assert by_kind["model"]["completions"] == 2 * pairs


def test_lineage_goes_back_to_the_seeds_and_sees_what_changed(
    chain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = SFTSettings(model="demo", num_train_epochs=0.1, max_length=128)
    run_training(
        prepare_sft("drafts", settings),
        chain / "policy",
    )
    found = lineage("policy")
    lines = list(found.lines())
    assert lines[0].startswith("policy policy: trained on 24 rows; 1 synthetic generations deep")
    drawn = "\n".join(lines)
    for words in (
        "trained on run drafts",
        "from data prompts.jsonl: 12 prompts from humans",
        "generated by model hashed",
        "initialized from model demo",
    ):
        assert words in drawn
    # A file stands for the run that wrote it; another working folder finds it all the same.
    assert lineage("drafts/candidates.jsonl").root == "drafts"
    monkeypatch.chdir("/")
    far = "\n".join(lineage(str(chain / "policy")).lines())
    assert "12 prompts from humans" in far
    monkeypatch.chdir(chain)
    with Path("prompts.jsonl").open("a") as file:
        file.write('{"prompt": "one more"}\n')
    assert "! prompts.jsonl has changed since it was used" in "\n".join(lineage("policy").lines())
    Path("prompts.jsonl").unlink()
    assert "prompts.jsonl: not found here" in "\n".join(lineage("policy").lines())
    monkeypatch.setattr("sys.argv", ["rlaif", "lineage", "policy", "--format", "mermaid"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert shown.startswith("graph LR")
    assert shown.count("-->") == sum(len(n.parents) for n in found.nodes.values())
    monkeypatch.setattr("sys.argv", ["rlaif", "lineage", "nowhere.jsonl"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2


def test_a_loop_of_files_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, other in (("a", "b"), ("b", "a")):
        Path(name).mkdir()
        Path(name, "run.yaml").write_text(
            f"format: 1\ncommand: generate\ninput: {{path: {other}/x.jsonl}}\n"
        )
        Path(name, "x.jsonl").write_text("")
    assert "(see above)" in "\n".join(lineage("a").lines())


def test_revisions_are_a_generation_deeper_than_what_they_revise(chain: Path) -> None:
    job = prepare_critique(
        "drafts/candidates.jsonl",
        "demo",
        SCRIPTED,
        CritiqueSettings(rounds=1),
        templates="demo",
        judge=LabelSettings(judge=SCRIPTED, template="demo"),
    )
    run_generation(job, Path("revised"))
    pairs = read(Path("revised/pairs.jsonl"))
    assert pairs
    for row in pairs:
        assert row["prompt_origin"]["kind"] == "human"
        assert (row["response_a_origin"]["depth"], row["response_b_origin"]["depth"]) == (1, 2)
        assert row["response_b_origin"]["time"] == NOW


def test_the_shipped_license_file_reads_well() -> None:
    book = load_licenses()

    def said(model: str, license_: str = "", *trained: str) -> str:
        found = check(book, [ModelUse("completions", model, license_, 1)], trained)
        return found[0].trains if found else "allowed"

    assert said("Qwen/Qwen3-8B", "apache-2.0") == "allowed"
    assert said("Qwen/Qwen2.5-72B-Instruct", "qwen") == "condition"
    assert said("meta-llama/Llama-3.1-8B-Instruct", "llama3.1") == "condition"
    assert said("meta-llama/Llama-2-7b-chat-hf", "llama2") == "forbidden"
    assert said("meta-llama/Llama-2-7b-chat-hf", "llama2", "meta-llama/Llama-2-7b-hf") == "allowed"
    # A policy that was made from one of the family belongs to it.
    made_from = ("policies/mine", "meta-llama/Llama-2-7b-hf")
    assert said("meta-llama/Llama-2-7b-chat-hf", "llama2", *made_from) == "allowed"
    assert said("meta-llama/Llama-2-7b-chat-hf", "llama2", "policies/mine") == "forbidden"
    assert said("policies/mine", "llama2") == "forbidden"
    assert said("google/gemma-3-12b-it", "gemma") == "condition"
    assert said("gpt-4o-mini") == said("claude-sonnet-4") == said("gemini-2.5-pro") == "forbidden"
    assert said("openai/gpt-4o") == said("openai/o1") == said("o3-mini") == "forbidden"
    assert said("openai/gpt-oss-20b", "apache-2.0") == "allowed"
    for name in (
        "gpt-35-turbo",
        "azure/gpt-4o",
        "openrouter/openai/gpt-4o",
        "models/gemini-1.5-pro",
        "anthropic.claude-3-5-sonnet-20240620-v1:0",
        "us.anthropic.claude-3-haiku",
        "vertex_ai/gemini-1.5-pro",
        "text-davinci-003",
        "unsloth/llama-3-8b-Instruct",
        "llama2:7b",
    ):
        assert said(name) == "forbidden", name
    # Named after a service's model, and nobody's of theirs.
    assert said("someone/o1-distill") == said("someone/claude-like-7b") == "ask"
    assert said("/models/Llama-2-7b-hf") == "forbidden"
    assert said("demo") == said("demo-writer") == "allowed"
    assert said("somebody/model") == "ask"
    for rule in (*book.models, *book.licenses):
        assert rule.trains == "allowed" or (rule.clause and rule.source.startswith("https://"))


def test_sampling_at_one_is_said() -> None:
    stated = {
        "kind": "model",
        "model": "m",
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 1,
        "finished": True,
        "depth": 1e30,
    }
    found = read_row({"prompt": "q", "completion": "x", "origin": stated}).completions[0]
    assert found.source.sampling == "temperature=1.0 top_p=1.0 seed=1"
    assert found.source.depth == 1


def test_lineage_knows_its_own_files_splits_and_moved_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "proj"
    (project / "data").mkdir(parents=True)
    monkeypatch.chdir(project)
    rows = [{"prompt": f"q {i}", "response_a": "a", "response_b": "b"} for i in range(3)]
    write_rows(Path("data/pairs.jsonl"), rows)
    # Files of these names that no command wrote.
    Path("data/feedback.json").write_text("[]")
    Path("data/run.yaml").write_text("mine: true\n")
    test = datasets.Dataset.from_list(rows)
    train = datasets.Dataset.from_list(
        [{**rows[0], "prompt_origin": {"kind": "model", "model": "m"}}]
    )
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk("data/both")
    settings = LabelSettings(judge=SCRIPTED, template="demo")
    run_label(prepare("data/pairs.jsonl", "demo", settings), Path("runs/one"))
    run_label(prepare("data/both", "demo", settings, split="test"), Path("runs/two"))
    tree = "\n".join(lineage("runs/one").lines())
    assert "from data data/pairs.jsonl: 6 completions" in tree
    tree = "\n".join(lineage("runs/two").lines())
    assert "3 prompts of unknown origin" in tree
    assert "!" not in tree
    run_training(
        prepare_dpo(Path("runs/one"), DPOSettings(model="demo", num_train_epochs=0.1)),
        Path("policies/p"),
    )
    monkeypatch.chdir(tmp_path)
    project.rename(tmp_path / "moved")
    # Something else of the same name lies here.
    Path("data").mkdir()
    write_rows(Path("data/pairs.jsonl"), [{"prompt": "other", "response_a": "x"}])
    tree = "\n".join(lineage("moved/policies/p").lines())
    assert "trained on run moved/runs/one: label" in tree
    assert "from data moved/data/pairs.jsonl: 6 completions" in tree
    assert "!" not in tree
    with pytest.raises(RlaifError, match="nothing exists at the local path 'moved/runs/oen'"):
        lineage("moved/runs/oen")

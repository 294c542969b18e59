"""What stands before a training: the guard, licenses, and the override that is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.cli.main import main
from rlaif.data.licensing import check, load_licenses
from rlaif.engines.hub import resolve_model
from rlaif.engines.model_origin import model_origin
from rlaif.errors import RlaifError
from rlaif.records import Origin
from rlaif.runs.judges import Judges
from rlaif.runs.lineage import lineage
from rlaif.training.data import TrainingRow, read_human_pairs
from rlaif.training.dpo import prepare_dpo
from rlaif.training.frame import run_training
from rlaif.training.gates import (
    TrainingBlocked,
    names_of,
    pass_gates,
    preference_rows,
    preference_uses,
)
from rlaif.training.settings import DPOSettings, GateSettings, SFTSettings
from rlaif.training.sft import prepare_sft
from tests.audits.helpers import people
from tests.generation.helpers import write_rows

pytestmark = pytest.mark.slow

SETTINGS = {"model": "demo", "num_train_epochs": 0.05, "learning_rate": 1e-5, "max_length": 128}


def supervised(path: Path, texts: list[str], **origin: Any) -> str:
    return write_rows(
        path,
        [
            {
                "prompt": f"question {i}",
                "completion": text,
                "origin": {"kind": "model", "model": "demo", "license": "apache-2.0", **origin},
            }
            for i, text in enumerate(texts)
        ],
    )


def test_a_collapsed_data_set_is_not_trained_on_unless_somebody_says_why(tmp_path: Path) -> None:
    texts = people(1, 120)
    reference = supervised(tmp_path / "ref.jsonl", texts[:60])
    collapsed = supervised(tmp_path / "few.jsonl", texts[60:64] * 15)
    gates = GateSettings(against=reference)
    settings = SFTSettings(**SETTINGS)
    with pytest.raises(TrainingBlocked, match=r"not started: diversity by .*Mix in human data"):
        run_training(prepare_sft(collapsed, settings), tmp_path / "p", gates=gates)
    assert not (tmp_path / "p").exists()
    told: list[str] = []
    overridden = gates.model_copy(update={"override": "an experiment on collapse"})
    run_training(
        prepare_sft(collapsed, settings), tmp_path / "p", gates=overridden, on_note=told.append
    )
    saved = json.loads((tmp_path / "p" / "training.json").read_text())
    assert saved["override"] == "an experiment on collapse"
    assert {t["group"] for t in saved["guard"]["tripped"]} >= {"diversity"}
    assert any(
        text.startswith("overridden (an experiment on collapse): diversity") for text in told
    )
    # What is fine needs no override, and says so.
    fine = supervised(tmp_path / "fine.jsonl", texts[60:])
    run_training(prepare_sft(fine, settings), tmp_path / "q", gates=overridden)
    saved = json.loads((tmp_path / "q" / "training.json").read_text())
    assert (saved["override"], saved["guard"]["tripped"]) == (None, [])


def test_from_the_fourth_generation_on_there_must_be_people(tmp_path: Path) -> None:
    texts = people(2, 40)
    settings = SFTSettings(**SETTINGS)
    deep = supervised(tmp_path / "deep.jsonl", texts, depth=4)
    below = r"human-written share is 0\.0%, below the minimum of 10\.0%"
    with pytest.raises(TrainingBlocked, match=below):
        run_training(
            prepare_sft(deep, settings),
            tmp_path / "p",
        )
    shallow = supervised(tmp_path / "shallow.jsonl", texts, depth=3)
    run_training(
        prepare_sft(shallow, settings),
        tmp_path / "q",
    )
    saved = json.loads((tmp_path / "q" / "training.json").read_text())
    assert (saved["depth"], saved["guard"]["human_written"]) == (3, 0.0)


def rows(model: str, license_: str = "", **more: Any) -> list[TrainingRow]:
    origin = Origin("model", model, license=license_, depth=1)
    return [
        TrainingRow(
            f"r{i}",
            [{"role": "user", "content": f"q {i}"}],
            [{"role": "assistant", "content": f"yes {i}"}],
            [{"role": "assistant", "content": f"no {i}"}],
            0.9,
            "judge",
            origins=(Origin(), origin, origin),
            **more,
        )
        for i in range(5)
    ]


def gated(
    found: list[TrainingRow], policy: str, judges: Judges | None = None, **gates: Any
) -> tuple[dict[str, Any], list[str]]:
    used = preference_uses(found, judges or {})
    return pass_gates(preference_rows(found), used, [policy], GateSettings(**gates))


def test_licenses_stop_a_training_with_the_clause_and_the_rows() -> None:
    llama = rows("meta-llama/Meta-Llama-3-8B-Instruct")
    with pytest.raises(TrainingBlocked) as stopped:
        gated(llama, "Qwen/Qwen3-4B")
    said = str(stopped.value)
    assert (
        "10 completions from 'meta-llama/Meta-Llama-3-8B-Instruct' (rows r0, r1, r2, ...)" in said
    )
    assert "1(b)(v)" in said
    assert "https://www.llama.com/llama3/license/" in said
    # Its own family may be trained.
    assert gated(llama, "meta-llama/Meta-Llama-3-8B")[1] == []
    facts, told = gated(llama, "Qwen/Qwen3-4B", override="internal research, cleared by counsel")
    assert facts["licenses"][0]["trains"] == "forbidden"
    assert facts["override"] == "internal research, cleared by counsel"
    assert told[0].startswith("overridden (internal research, cleared by counsel): 10 completions")
    _, told = gated(rows("somebody/else", "gemma"), "Qwen/Qwen3-4B")
    assert "under a condition" in told[0]
    assert gated(rows("somebody/else", "MIT"), "Qwen/Qwen3-4B")[1] == []


def test_the_judge_counts_too_and_unknown_models_can_be_refused(tmp_path: Path) -> None:
    judged = rows("somebody/else", "mit", judge="gpt-4o")
    with pytest.raises(TrainingBlocked, match="5 labels from 'gpt-4o'"):
        gated(judged, "Qwen/Qwen3-4B")
    # A judge that no name says anything of has the license that its run found, as has each of a
    # panel.
    panel = {"mean of A, B": [Origin("model", "me/A", license="llama2"), Origin("model", "me/B")]}
    with pytest.raises(TrainingBlocked, match="5 labels from 'me/A', license llama2"):
        gated(rows("somebody/else", "mit", judge="mean of A, B"), "Qwen/Qwen3-4B", panel)
    unknown = rows("nobody/knows")
    (told,) = gated(unknown, "Qwen/Qwen3-4B")[1]
    assert "no matching entry in the license file" in told
    book = tmp_path / "mine.yaml"
    book.write_text("schema: 1\nunknown: refuse\n")
    with pytest.raises(TrainingBlocked, match="nobody/knows"):
        gated(unknown, "Qwen/Qwen3-4B", licenses=str(book))
    book.write_text("schema: 1\nmodels:\n  - names: [nobody/*]\n    trains: allowed\n")
    assert gated(unknown, "Qwen/Qwen3-4B", licenses=str(book))[1] == []
    book.write_text("schema: 1\nmodels:\n  - names: [nobody/*]\n    trains: maybe\n")
    with pytest.raises(RlaifError, match=r"mine\.yaml:4:\d+.*trains.*it is 'maybe'"):
        gated(unknown, "Qwen/Qwen3-4B", licenses=str(book))


def test_repetition_by_weight_is_no_duplication() -> None:
    found = [row for row in rows("m", "mit") for _ in range(6)]
    seen = preference_rows(found)
    assert len(seen) == 5
    assert {row.weight for row in seen} == {6.0}


def test_dpo_on_a_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = people(3, 90)
    data = write_rows(
        tmp_path / "h.jsonl",
        [
            {"prompt": f"q {i}", "chosen": texts[2 * i], "rejected": texts[2 * i + 1]}
            for i in range(40)
        ],
    )
    said = f"{data}=1,human_written=true,human_labeled=true"
    monkeypatch.setattr("sys.argv", ["rlaif", "mix", said, "-o", str(tmp_path / "m")])
    with pytest.raises(SystemExit):
        main()
    result = run_training(
        prepare_dpo(tmp_path / "m", DPOSettings(**SETTINGS)),
        tmp_path / "p",
    )
    assert result.account.trained == 40
    card = (tmp_path / "p" / "README.md").read_text()
    assert "| Labels | 40 by human |" in card
    assert "license: apache-2.0" in card
    assert "trained on 20 rows" not in "\n".join(lineage(str(tmp_path / "p")).lines())
    assert "trained on 40 rows" in "\n".join(lineage(str(tmp_path / "p")).lines())
    sft = write_rows(tmp_path / "s.jsonl", [{"prompt": "q", "completion": "a"}])
    monkeypatch.setattr(
        "sys.argv", ["rlaif", "mix", f"{sft}=1,human_written=true", "-o", str(tmp_path / "n")]
    )
    with pytest.raises(SystemExit):
        main()
    with pytest.raises(RlaifError, match="contains sft, not preferences"):
        run_training(
            prepare_dpo(tmp_path / "n", DPOSettings(**SETTINGS)),
            tmp_path / "o",
        )


def test_the_command_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = supervised(tmp_path / "deep.jsonl", people(2, 30), depth=5)
    words = ["rlaif", "train-sft", deep, "--model", "demo", "-o", str(tmp_path / "p")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 3
    shown = capsys.readouterr().err
    assert "error: the training was not started: the human-written share is 0.0%" in shown
    assert '--override "REASON"' in shown


def test_an_override_outlives_a_stop(tmp_path: Path) -> None:
    """Whoever goes on with a training that was started against the guard keeps its record."""
    texts = people(1, 120)
    reference = supervised(tmp_path / "ref.jsonl", texts[:60])
    collapsed = supervised(tmp_path / "few.jsonl", texts[60:64] * 15)
    gates = GateSettings(against=reference, override="to see it collapse")
    settings = SFTSettings(**{**SETTINGS, "num_train_epochs": 1.0}, save_steps=2, logging_steps=1)

    def stop(line: Any) -> None:
        if line.get("step", 0) >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(prepare_sft(collapsed, settings), tmp_path / "p", gates=gates, on_log=stop)
    run_training(
        prepare_sft(collapsed, settings), tmp_path / "p", gates=GateSettings(override="go on")
    )
    saved = json.loads((tmp_path / "p" / "training.json").read_text())
    assert saved["override"] == "go on"
    assert saved["guard"]["tripped"]
    with pytest.raises(ValueError, match="must not be empty"):
        GateSettings(override="  ")


def test_a_tenth_of_people_is_enough_whatever_the_number() -> None:
    from rlaif.training.data import mix_in_human

    judged = rows("m", "mit") * 40
    people_ = [
        TrainingRow(
            id=f"h{i}",
            prompt=[{"role": "user", "content": f"h {i}"}],
            chosen=[{"role": "assistant", "content": f"yes {i}"}],
            rejected=[{"role": "assistant", "content": "no"}],
            p_chosen=1.0,
            source="human",
        )
        for i in range(60)
    ]
    for count in range(20, 200):
        found, human = mix_in_human(judged[:count], people_, 0.1, 0)
        assert human / len(found) >= 0.1
        assert (human - 1) / (len(found) - 1) < 0.1


def test_labels_of_a_judge_are_no_human_rows(tmp_path: Path) -> None:
    evidence = {"judge": "gpt-4o", "status": "decided"}
    rows = [
        {
            "prompt": f"q {i}",
            "chosen": f"a {i}",
            "rejected": f"b {i}",
            "p_chosen": 0.9,
            **({"provenance": evidence} if i < 30 else {}),
        }
        for i in range(32)
    ]
    found, left_out = read_human_pairs(write_rows(tmp_path / "some.jsonl", rows))
    assert (len(found), left_out) == (2, 30)
    with pytest.raises(RlaifError, match="no human-labeled row"):
        read_human_pairs(write_rows(tmp_path / "none.jsonl", rows[:30]))


def test_a_checkpoint_is_as_deep_as_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = people(5, 60)
    deep = supervised(tmp_path / "deep.jsonl", texts, depth=3)
    settings = SFTSettings(**{**SETTINGS, "num_train_epochs": 1.0, "save_steps": 2})
    run_training(
        prepare_sft(deep, settings),
        tmp_path / "p",
    )
    (checkpoint, *_) = sorted((tmp_path / "p" / "checkpoints").glob("checkpoint-*"))
    for unfinished in (False, True):
        if unfinished:  # as while it is being trained
            for name in ("training.json", "README.md"):
                (tmp_path / "p" / name).unlink()
        found = model_origin(resolve_model(str(checkpoint)))
        assert (found.depth, found.license) == (3, "apache-2.0")
        assert "demo" in found.bases
        tree = "\n".join(lineage(str(checkpoint)).lines())
        assert tree.startswith(f"policy {tmp_path / 'p'}")
        assert f"trained on data {deep}" in tree


def test_where_a_model_lies_exempts_it_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("llama-3-tests/qwen", "models/Meta-Llama-3-8B"):
        Path(name).mkdir(parents=True)
    assert names_of("llama-3-tests/qwen", ()) == ["qwen"]
    assert names_of("llama-3-tests/mine", ("meta-llama/Meta-Llama-3-8B",)) == [
        "llama-3-tests/mine",
        "meta-llama/Meta-Llama-3-8B",
    ]
    used = preference_uses(rows("meta-llama/Meta-Llama-3-8B-Instruct"), {})
    book = load_licenses()
    assert check(book, used, names_of("llama-3-tests/qwen", ()))[0].trains == "forbidden"
    assert check(book, used, names_of("models/Meta-Llama-3-8B", ())) == []

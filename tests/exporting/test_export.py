"""Exports hold the run's preferences in the form that each trainer's loader takes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
from click.testing import CliRunner
from trl.data_utils import extract_prompt, is_conversational

from rlaif.cli.main import cli
from rlaif.data.dataset import open_dataset
from rlaif.data.row_model import DataRow
from rlaif.errors import RlaifError
from rlaif.exporting.export import export_run
from rlaif.exporting.formats import FORMATS, ExportPair, Misfit
from rlaif.runs.directory import PREFERENCES
from rlaif.runs.labels import LabelRow, read_label_file
from tests.labeling.helpers import label, write_inputs

CALL = {"id": "c1", "type": "function", "function": {"name": "w", "arguments": {"city": "Oslo"}}}
WITH_CALLS = ExportPair(
    id="x",
    prompt=[{"role": "user", "content": "Weather?"}],
    chosen=[{"role": "assistant", "content": "", "tool_calls": [CALL]}],
    rejected=[{"role": "assistant", "content": "No idea."}],
    p_chosen=0.9,
    tools=[{"type": "function", "function": {"name": "w"}}],
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data, constitution = write_inputs(folder, 40)
    lines = data.read_text().splitlines()
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And now?"},
    ]
    lines += [
        json.dumps({"prompt": talk, "responses": [f"one answer {i}", f"another {i} " * i]})
        for i in range(1, 6)
    ]
    data.write_text("\n".join(lines) + "\n")
    label(data, constitution, folder / "out")
    return folder / "out"


def labels_of(run: Path) -> list[LabelRow]:
    return list(read_label_file(run / PREFERENCES))


def written(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return datasets.Dataset.from_parquet(str(path)).to_list()
    if path.suffix == ".json":
        return list(json.loads(path.read_text()))
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("form", FORMATS)
def test_every_pair_is_written_or_counted(run: Path, tmp_path: Path, form: str) -> None:
    report = export_run(run, tmp_path / "out", form)
    labels = labels_of(run)
    assert report.pairs + sum(report.left_out.values()) == len(labels)
    assert report.rows == len(written(report.file)) == report.pairs * (2 if form == "kto" else 1)
    loaded = datasets.load_dataset(
        {"jsonl": "json"}.get(report.file.suffix[1:], report.file.suffix[1:]),
        data_files=str(report.file),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(loaded) == report.rows


READ_BACK = (
    "trl",
    "reward",
    "openai",
    "llama-factory",
    "axolotl",
    "openrlhf",
    "nemo-rl",
    "parquet",
)


@pytest.mark.parametrize("form", READ_BACK)
def test_what_is_written_reads_back_as_it_was(run: Path, tmp_path: Path, form: str) -> None:
    """By the reader of public layouts, which knows nothing of exports."""
    report = export_run(run, tmp_path / "out", form)
    read = [row for _, row in open_dataset(str(report.file), need="verdict").read()]
    for row, own in zip(read, labels_of(run), strict=True):
        assert isinstance(row, DataRow), row
        better, worse = own.sides
        assert row.prompt == own.prompt
        assert row.winner == 0
        assert [c.messages for c in row.completions] == [better, worse]


def test_trl_extracts_the_prompt_that_was(run: Path, tmp_path: Path) -> None:
    for form in ("trl", "reward"):
        report = export_run(run, tmp_path / form, form)
        for row, own in zip(written(report.file), labels_of(run), strict=True):
            assert is_conversational(row)
            found = extract_prompt(row)
            assert found["prompt"] == own.prompt
            assert (found["chosen"], found["rejected"]) == own.sides
            if form == "reward":
                p = float(own.data["p_chosen"])
                assert row["margin"] == pytest.approx(
                    math.log(min(p, 1 - 1e-5) / max(1 - p, 1e-5)), abs=1e-4
                )


def test_kto_says_which_completion_is_desirable(run: Path, tmp_path: Path) -> None:
    rows = written(export_run(run, tmp_path / "kto", "kto").file)
    for k, own in enumerate(labels_of(run)):
        good, bad = rows[2 * k], rows[2 * k + 1]
        assert (good["completion"], bad["completion"]) == own.sides
        assert (good["label"], bad["label"]) == (True, False)


def test_llama_factory_knows_the_file(run: Path, tmp_path: Path) -> None:
    report = export_run(run, tmp_path / "lf", "llama-factory")
    (entry,) = json.loads((tmp_path / "lf" / "dataset_info.json").read_text()).values()
    assert (tmp_path / "lf" / entry["file_name"]) == report.file
    assert entry["ranking"] is True
    for row in written(report.file):
        # Its converter wants an odd number of turns, human first, and one message a side.
        roles = [turn["from"] for turn in row["conversations"]]
        assert len(roles) % 2 == 1
        assert roles[::2] == ["human"] * len(roles[::2])
        assert roles[1::2] == ["gpt"] * len(roles[1::2])
        assert set(row) >= set(entry["columns"].values())
        assert row["chosen"]["from"] == row["rejected"]["from"] == "gpt"
    systems = [row["system"] for row in written(report.file)]
    first = [own.prompt[0] for own in labels_of(run)]
    assert systems == [m["content"] if m["role"] == "system" else "" for m in first]
    assert "Be brief." in systems


def test_calls_are_kept_or_refused_by_name() -> None:
    for name, form in FORMATS.items():
        if name in ("axolotl", "llama-factory", "verl", "parquet", "openrlhf", "nemo-rl"):
            with pytest.raises(Misfit, match="tool"):
                list(form.rows(WITH_CALLS))
        else:
            for row in form.rows(WITH_CALLS):
                assert "tools" in row.get("input", row), name
            assert "Oslo" in json.dumps(list(form.rows(WITH_CALLS))), name
    (row,) = FORMATS["openai"].rows(WITH_CALLS)
    (message,) = row["preferred_output"]
    assert message["content"] is None
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}
    assert row["input"]["tools"] == WITH_CALLS.tools


def test_calls_without_ids_are_linked_to_their_results_and_thoughts_are_not_lost() -> None:
    def call(city: str) -> Any:
        made = {"type": "function", "function": {"name": "look", "arguments": {"city": city}}}
        return {"role": "assistant", "content": "", "tool_calls": [made]}

    def result(text: str) -> Any:
        return {"role": "tool", "content": text}

    prompt: Any = [{"role": "user", "content": "q"}, call("Oslo"), result("3"), call("Rome")]
    pair = ExportPair("x", prompt, [result("9"), call("Bern"), result("7")], [result("8")], 0.9)
    (row,) = FORMATS["openai"].rows(pair)
    told = [*row["input"]["messages"], *row["preferred_output"]]
    ids = [c["id"] for m in told for c in m.get("tool_calls", ())]
    assert len(set(ids)) == 3
    assert [m["tool_call_id"] for m in told if m["role"] == "tool"] == ids
    assert row["non_preferred_output"][0]["tool_call_id"] == ids[1]
    thought: Any = [{"role": "assistant", "content": "a", "reasoning_content": "hm"}]
    plain: Any = [{"role": "assistant", "content": "a"}]
    for name, form in FORMATS.items():
        if name in ("trl", "reward", "kto", "openrlhf", "nemo-rl"):
            own = ExportPair("x", prompt[:1], thought, plain, 0.9)
            assert "hm" in json.dumps(list(form.rows(own))), name
        else:
            with pytest.raises(Misfit, match="thought"):
                list(form.rows(ExportPair("x", prompt[:1], thought, plain, 0.9)))


def test_what_is_left_out_is_told(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli,
        ["export", str(run), "--format", "trl", "-o", str(tmp_path / "x"), "--min-margin", "0.5"],
        catch_exceptions=False,
    )
    kept = sum(own.margin >= 0.5 for own in labels_of(run))
    assert 0 < kept < len(labels_of(run))
    assert f"wrote {kept} pairs" in done.stdout
    assert f"left out {len(labels_of(run)) - kept} pairs: margin below 0.5" in done.stderr
    with pytest.raises(RlaifError, match=r"no pair of .* can be exported"):
        export_run(run, tmp_path / "y", "trl", min_margin=1.0)
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "mine.txt").write_text("x")
    with pytest.raises(RlaifError, match="holds files but no export"):
        export_run(run, tmp_path / "z", "trl")
    with pytest.raises(RlaifError):
        export_run(tmp_path / "nowhere", tmp_path / "w", "trl")

"""lm-eval, inspect and AlpacaEval from their own command lines, held against `rlaif label`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif.cli.main import main
from rlaif.harness.configs import GENERATORS, target
from rlaif.util.resources import demo_model
from tests.commands import run_command
from tests.harness.helpers import ALIAS, TOKEN, Labeled, Server

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


def run(command: list[str], folder: Path, **env: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PATH": f"{BIN}:{os.environ['PATH']}", **env},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture
def lm_eval_data(tmp_path: Path, demo_labels: Labeled) -> Path:
    rows = [
        {"id": r["id"], "prompt": r["prompt"], "reference": r["response_b"]}
        for r in demo_labels.rows[:12]
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def lm_eval(folder: Path, task: str, metadata: dict[str, Any], **env: str) -> dict[str, Any]:
    """Run the demo policy through a task; the logged samples and the results."""
    include = run([str(BIN / "rlaif"), "harness", "lm-eval", "--print-path"], folder).strip()
    policy = f"pretrained={demo_model('policy')},dtype=float32"
    run(
        [
            str(BIN / "lm-eval"),
            "run",
            "--model",
            "hf",
            "--model_args",
            policy,
            "--device",
            "cpu",
            "--tasks",
            task,
            "--include_path",
            include,
            "--metadata",
            json.dumps(metadata),
            "--apply_chat_template",
            "--output_path",
            "out",
            "--log_samples",
            "--batch_size",
            "8",
            "--gen_kwargs",
            "max_gen_toks=40",
        ],
        folder,
        **env,
    )
    (results,) = folder.glob("out/**/results_*.json")
    (samples,) = folder.glob(f"out/**/samples_{task}_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return {"results": json.loads(results.read_text())["results"][task], "samples": lines}


def test_lm_eval_judges_a_task_in_one_batch_as_label_does(
    tmp_path: Path, lm_eval_data: Path
) -> None:
    """The judge in lm-eval's own process, pairwise against references."""
    metadata = {"data": str(lm_eval_data), "constitution": "demo", "engine": "packed"}
    found = lm_eval(tmp_path, "rlaif_pairwise", metadata)
    references = {json.loads(x)["id"]: json.loads(x) for x in lm_eval_data.read_text().splitlines()}
    rows = []
    for sample in found["samples"]:
        own = references[sample["doc"]["id"]]
        rows.append(
            {
                "id": own["id"],
                "prompt": own["prompt"],
                "response_a": sample["resps"][0][0],
                "response_b": own["reference"],
            }
        )
    expected = label(tmp_path, rows)
    points = [{"a": 1.0, "b": 0.0, None: 0.5}[expected[r["id"]][0]] for r in rows]
    probabilities = [expected[r["id"]][1] for r in rows]
    results = found["results"]
    assert results["win_rate,judged"] == pytest.approx(sum(points) / len(points))
    assert results["p_better,judged"] == pytest.approx(
        sum(probabilities) / len(probabilities), abs=2e-4
    )
    for sample, p in zip(found["samples"], probabilities, strict=True):
        assert sample["p_better"] == pytest.approx(p, abs=2e-4)


def test_lm_eval_against_a_baseline_s_logged_samples_and_by_constitution_alone(
    tmp_path: Path, lm_eval_data: Path, judge_server: Server
) -> None:
    served = {"data": str(lm_eval_data), "url": judge_server.url}
    (tmp_path / "one").mkdir()
    alone = lm_eval(tmp_path / "one", "rlaif_constitution", served, RLAIF_TOKEN=TOKEN)
    for sample in alone["samples"][:3]:
        prompt = json.loads(sample["doc"]["prompt"])
        item = {"prompt": prompt, "response": sample["resps"][0][0]}
        score = judge_server.post("/v1/judge/pointwise", item).json()["score"]
        assert sample["constitution_score"] == pytest.approx(score)
    scores = [s["constitution_score"] for s in alone["samples"]]
    assert alone["results"]["constitution_score,judged"] == pytest.approx(sum(scores) / len(scores))
    (baseline,) = (tmp_path / "one").glob("out/**/samples_*.jsonl")
    (tmp_path / "two").mkdir()
    metadata = {**served, "baseline": str(baseline)}
    same = lm_eval(tmp_path / "two", "rlaif_pairwise", metadata, RLAIF_TOKEN=TOKEN)
    assert same["results"]["win_rate,judged"] == 0.5, "greedy answers against themselves: all ties"
    assert same["results"]["tie,judged"] == 1.0


def label(folder: Path, rows: list[dict[str, str]]) -> dict[str, tuple[str | None, float]]:
    """Winner and probability of response a by `rlaif label`, from its command line."""
    data = folder / "to-label.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("-c", "demo", "--engine", "packed", "-o", "run")
    assert run_command("label", str(data), *flags, cwd=folder).returncode == 0
    found: dict[str, tuple[str | None, float]] = {}
    texts = {row["id"]: row["response_a"].strip() for row in rows}
    for line in (folder / "run" / "preferences.jsonl").read_text().splitlines():
        row = json.loads(line)
        name = row["provenance"]["id"]
        a_won = row["chosen"][0]["content"].strip() == texts[name]
        found[name] = ("a" if a_won else "b", row["p_chosen"] if a_won else 1 - row["p_chosen"])
    for line in (folder / "run" / "undecided.jsonl").read_text().splitlines():
        row = json.loads(line)
        found[row["provenance"]["id"]] = (None, row["p_a"])
    return found


INSPECT_TASK = """\
import json
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import generate, Generate, TaskState, solver

@solver
def given():
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        from inspect_ai.model import ChatMessageAssistant, ModelOutput
        said = state.metadata["response"]
        state.output = ModelOutput.from_content("given", said)
        state.messages.append(ChatMessageAssistant(content=said))
        return state
    return solve

@task
def pairs():
    rows = [json.loads(line) for line in open("pairs.jsonl")]
    return Task(dataset=[Sample(id=r["id"], input=r["prompt"], target=r["response_b"],
                                metadata={"response": r["response_a"]}) for r in rows],
                solver=given())
"""


@pytest.fixture(scope="module")
def written_log(tmp_path_factory: pytest.TempPathFactory, demo_labels: Labeled) -> Path:
    """A log without scores; the responses are those of the pairs."""
    tmp_path = tmp_path_factory.mktemp("inspect")
    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in demo_labels.rows[:12])
    )
    (tmp_path / "task.py").write_text(INSPECT_TASK)
    run(
        [
            str(BIN / "inspect"),
            "eval",
            "task.py",
            "--model",
            "hf/local",
            "-M",
            f"model_path={demo_model('policy')}",
            "-M",
            "device=cpu",
            "--no-score",
            "--log-format",
            "json",
            "--log-dir",
            "logs",
            "--display",
            "plain",
        ],
        tmp_path,
    )
    (log,) = (tmp_path / "logs").glob("*.json")
    return log


@pytest.fixture
def inspect_log(tmp_path: Path, written_log: Path) -> Path:
    """A copy of the log, which scoring overwrites."""
    (tmp_path / "logs").mkdir()
    return Path(shutil.copy(written_log, tmp_path / "logs"))


def scored(folder: Path, log: Path, scorer: str, *flags: str, **env: str) -> dict[str, Any]:
    run(
        [
            str(BIN / "inspect"),
            "score",
            str(log),
            "--scorer",
            scorer,
            *flags,
            "--action",
            "overwrite",
            "--overwrite",
            "--display",
            "plain",
        ],
        folder,
        **env,
    )
    whole = json.loads(log.read_text())
    (name,) = whole["samples"][0]["scores"]
    return {s["id"]: s["scores"][name] for s in whole["samples"]} | {"": whole["results"]}


@pytest.mark.parametrize("how", ["in process", "served", "grader role"])
def test_inspect_scores_an_existing_log_as_label_does(
    tmp_path: Path, inspect_log: Path, demo_labels: Labeled, judge_server: Server, how: str
) -> None:
    flags = {
        "in process": ["-S", "constitution=demo", "-S", "engine=packed"],
        "served": ["-S", f"url={judge_server.url}"],
        "grader role": ["--model-role", "grader=openai-api/rlaif/rlaif/demo:json"],
    }[how]
    env = {"RLAIF_TOKEN": TOKEN, "RLAIF_BASE_URL": f"{judge_server.url}/v1", "RLAIF_API_KEY": TOKEN}
    found = scored(tmp_path, inspect_log, "rlaif/pairwise", *flags, **env)
    for row in demo_labels.rows[:12]:
        score = found[row["id"]]
        value = {"a": 1.0, "b": 0.0, None: 0.5}[demo_labels.winner[row["id"]]]
        assert score["value"] == value
        assert score["metadata"]["p_a"] == pytest.approx(demo_labels.p_a[row["id"]], abs=2e-4)
    values = [found[r["id"]]["value"] for r in demo_labels.rows[:12]]
    (result,) = found[""]["scores"]
    assert result["metrics"]["mean"]["value"] == pytest.approx(sum(values) / len(values))


def test_inspect_scores_by_constitution(
    tmp_path: Path, inspect_log: Path, demo_labels: Labeled, judge_server: Server
) -> None:
    found = scored(
        tmp_path,
        inspect_log,
        "rlaif/constitution",
        "-S",
        f"url={judge_server.url}",
        RLAIF_TOKEN=TOKEN,
    )
    row = demo_labels.rows[0]
    item = {"prompt": row["prompt"], "response": row["response_a"]}
    expected = judge_server.post("/v1/judge/pointwise", item).json()["score"]
    assert found[row["id"]]["value"] == pytest.approx(expected)


def test_alpaca_eval_reports_the_win_rate_of_label(
    tmp_path: Path, demo_labels: Labeled, judge_server: Server
) -> None:
    written = GENERATORS["alpaca-eval"](target("demo", judge_server.url), tmp_path / "ae")
    for name, key in (("mine", "response_a"), ("theirs", "response_b")):
        rows = [
            {"instruction": r["prompt"], "output": r[key], "generator": name}
            for r in demo_labels.rows
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    command = written.commands[1].replace("OUTPUTS.json", "mine.json")
    command = command.replace("REFERENCE.json", "theirs.json")
    run(["bash", "-c", command], tmp_path, RLAIF_TOKEN=TOKEN)
    annotations = json.loads((tmp_path / "ae" / "results" / "annotations.json").read_text())
    ids = {(r["prompt"], r["response_a"]): r["id"] for r in demo_labels.rows}
    assert len(annotations) == len(demo_labels.rows)
    for item in annotations:
        assert item["output_2"] != item["output_1"]
        name = ids[(item["instruction"], item["output_2"])]
        # AlpacaEval's preference is 1 for the first output (the reference) and 2 for the second.
        assert item["preference"] - 1 == pytest.approx(demo_labels.p_a[name], abs=2e-4)
    board = (tmp_path / "ae" / "results" / "leaderboard.csv").read_text().splitlines()
    win_rate = float(dict(zip(board[0].split(","), board[1].split(","), strict=True))["win_rate"])
    mean = sum(demo_labels.p_a.values()) / len(demo_labels.p_a)
    assert win_rate == pytest.approx(100 * mean, abs=0.05)


def test_a_changed_constitution_gets_another_alpaca_eval_cache(tmp_path: Path) -> None:
    source = tmp_path / "mine.yaml"
    text = (
        'schema: 1\nname: mine\nversion: "1"\nprinciples:\n  - {id: a, preference: "Is it ONE?"}\n'
    )
    folders = []
    for word in ("one", "two"):
        source.write_text(text.replace("ONE", word))
        files = GENERATORS["alpaca-eval"](target(str(source), "http://x"), tmp_path / "ae").files
        folders.append(files[0].parent)
        config = yaml.safe_load(files[0].read_text())
        (annotator,) = config.values()
        assert (tmp_path / "ae" / annotator["prompt_template"]).exists()
    assert folders[0] != folders[1]


def test_generated_files_ask_the_server_in_its_dialects(tmp_path: Path) -> None:
    to = target("demo", "http://127.0.0.1:8000")
    arena = GENERATORS["arena-hard"](to, tmp_path / "arena")
    endpoint = yaml.safe_load(arena.files[0].read_text())
    setting = yaml.safe_load(arena.files[1].read_text())
    assert endpoint[setting["judge_model"]]["model"] == "rlaif/demo:arena-hard"
    assert endpoint[setting["judge_model"]]["endpoints"][0]["api_base"] == to.base
    reward = GENERATORS["rewardbench"](to, tmp_path / "rb")
    assert f"--alias {ALIAS}=demo:rewardbench" in reward.commands[0]
    assert f"--model {ALIAS}" in reward.files[0].read_text()
    assert os.access(reward.files[0], os.X_OK)
    foo = yaml.safe_load(GENERATORS["promptfoo"](to, tmp_path / "pf").files[0].read_text())
    options = foo["defaultTest"]["options"]
    assert options["provider"]["id"] == "openai:chat:rlaif/demo:llm-rubric"
    filled = options["rubricPrompt"].replace("{{ question }}", "q")
    filled = filled.replace("{{ output }}", "o").replace("{{ rubric }}", "constitution")
    from rlaif.constitution.load import load_constitution
    from rlaif.serve.dialects import DIALECTS
    from rlaif.serve.dialects.base import SingleResponse

    constitution = load_constitution("demo").constitution
    found = DIALECTS["llm-rubric"].read([{"role": "user", "content": filled}], constitution)
    assert isinstance(found, SingleResponse)
    assert (found.prompt[0]["content"], found.response[0]["content"]) == ("q", "o")


def test_the_command_writes_files_and_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in GENERATORS:
        monkeypatch.setattr("sys.argv", ["rlaif", "harness", name, "-c", "demo"])
        with pytest.raises(SystemExit) as done:
            main()
        assert done.value.code in (0, None)
        shown = capsys.readouterr().out
        assert f"wrote harness/{name}/" in shown
        assert "rlaif serve -c demo" in shown

"""`rlaif generate`: exact with the scripted engine, and on real vLLM with the demo policy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlaif.cli.main import main
from rlaif.demo.oracle import read_response
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.generation import runner as writing
from rlaif.generation.candidates import (
    GenerateSettings,
    SamplingSettings,
    Teacher,
    prepare_generate,
)
from rlaif.generation.runner import survey
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.records import GenerationRequest
from rlaif.runs.context import RunContext
from rlaif.text.duplicates import distinct
from rlaif.util.resources import demo_model
from tests.generation.helpers import (
    SCRIPTED,
    generate,
    prompts,
    read,
    teacher,
    use_writer,
    write_rows,
)


def test_several_models_take_turns_and_every_completion_says_where_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = use_writer(monkeypatch)
    teachers = [teacher("one", n=2), teacher("two", n=3, temperature=0.5, max_tokens=50)]
    summary = generate(prompts(tmp_path, 9), tmp_path / "run", teachers, GenerateSettings())
    rows = read(tmp_path / "run" / "candidates.jsonl")
    assert [r["id"] for r in rows] == ["p0", "row-2", *(f"p{i}" for i in range(3, 9))]
    assert [len(engine.asked) for engine in engines] == [16, 24]
    assert summary.counts["rejected"] == 1
    assert "no prompt" in read(tmp_path / "run" / "rejected.jsonl")[0]["reason"]
    for row in rows:
        models = [c["model"] for c in row["completions"]]
        assert models == ["one"] * 2 + ["two"] * 3
        assert len({c["content"] for c in row["completions"]}) == 5
        assert {c["origin"]["temperature"] for c in row["completions"]} == {1.0, 0.5}
        assert all(c["origin"]["depth"] == 1 for c in row["completions"])
    assert rows[1]["prompt"][1] == {"role": "assistant", "content": "b"}


def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prompts(tmp_path, 60)
    teachers = [teacher("one", n=2), teacher("two", n=2)]
    use_writer(monkeypatch)
    monkeypatch.setattr(writing, "CHECKPOINT_SECONDS", 0.0)
    whole = generate(data, tmp_path / "whole", teachers, GenerateSettings())
    engines = use_writer(monkeypatch)
    stops = 0
    for after in (3, 9, 2, 4, 30):
        seen = 0

        def stop(progress: Any, after: int = after) -> None:
            nonlocal seen
            seen += 1
            if seen == after:
                raise KeyboardInterrupt

        try:
            generate(
                data,
                tmp_path / "cut",
                teachers,
                GenerateSettings(),
                cache=tmp_path / "other",
                on_progress=stop,
            )
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 3
    cut = generate(data, tmp_path / "cut", teachers, GenerateSettings(), cache=tmp_path / "other")
    for name in ("candidates.jsonl", "rejected.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert cut.counts == whole.counts
    asked = [text for engine in engines for text in engine.asked]
    assert len(asked) <= 59 * 4 + 5 * 16, "what was answered is not asked again"
    again = generate(data, tmp_path / "cut", teachers, GenerateSettings(), cache=tmp_path / "other")
    assert not again.fresh
    with pytest.raises(RlaifError, match=r"different configuration.*near_duplicate: 0\.9 -> 0\.5"):
        generate(data, tmp_path / "cut", teachers, GenerateSettings(near_duplicate=0.5))


def test_near_duplicates_and_what_the_limit_cut_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the quick brown fox jumps", "The quick, brown fox jumps!", "x" * 200, "", "else one"]
    order = iter(range(10**6))
    use_writer(monkeypatch, lambda text, request: texts[next(order) % 5])
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q"}])
    summary = generate(data, tmp_path / "run", [teacher(n=5, max_tokens=99)], GenerateSettings())
    (row,) = read(tmp_path / "run" / "candidates.jsonl")
    assert len(row["completions"]) == 2
    kept = {k: summary.counts[k] for k in ("near_duplicates", "unfinished", "empty", "completions")}
    assert kept == {"near_duplicates": 1, "unfinished": 1, "empty": 1, "completions": 2}
    assert distinct([*texts, texts[0]], 1.0) == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}
    differ = ["2 + 2", "2 - 2", "The answer is 4.", "The answer is -4.", "yes", "yes!"]
    assert list(distinct(differ, 0.9)) == [0, 1, 2, 3, 4]
    assert distinct(["a b c d", "a b c e"], 0.3) == {0: 2}
    assert distinct(["a b c d", "a b c e"], 0.4) == {0: 1, 1: 1}


def test_system_prompts_come_by_weight_and_stay_out_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (engine,) = [use_writer(monkeypatch)]
    mix = tmp_path / "mix.yaml"
    mix.write_text("- {text: Be brief., weight: 3}\n- ''\n")
    settings = GenerateSettings(system=str(mix))
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": f"q {i}"} for i in range(400)])
    generate(data, tmp_path / "run", [teacher(n=2)], settings)
    rows = read(tmp_path / "run" / "candidates.jsonl")
    systems = [c["origin"]["system"] for r in rows for c in r["completions"]]
    assert 0.70 < systems.count("Be brief.") / len(systems) < 0.80
    assert sum(text.startswith("system: Be brief.") for text in engine[0].asked) == systems.count(
        "Be brief."
    )
    assert all(len(r["prompt"]) == 1 for r in rows)
    mix.write_text("- {text: a}\n- {text: b, weight: -1}\n")
    with pytest.raises(RlaifError, match=r"mix\.yaml:2:.*system prompt 2"):
        generate(data, tmp_path / "other", [teacher(n=2)], settings)


def test_the_judge_keeps_the_best_of_n(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that prefers the larger number, whichever is shown first."""

    def rule(text: str) -> tuple[float, float]:
        one, two = (int(part.split("\n")[0].split()[-1]) for part in text.split("scripted")[1:3])
        return (3.0 if one > two else -3.0, 0.99)

    use_writer(monkeypatch, rule=rule)
    constitution = tmp_path / "c.yaml"
    constitution.write_text(
        "schema: 1\nname: c\nversion: '1'\nprinciples:\n  - {id: large, preference: Which}\n"
    )
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": f"q {i}"} for i in range(40)])
    everything = generate(data, tmp_path / "all", [teacher(n=6)], GenerateSettings())
    assert everything.counts["completions"] == 240
    summary = generate(
        data,
        tmp_path / "best",
        [teacher(n=6)],
        GenerateSettings(keep=1),
        constitution=str(constitution),
        judge=LabelSettings(judge=SCRIPTED, template="demo"),
    )
    assert summary.counts["passed_over"] == 200
    for whole, kept in zip(
        read(tmp_path / "all" / "candidates.jsonl"),
        read(tmp_path / "best" / "candidates.jsonl"),
        strict=True,
    ):
        numbers = [int(c["content"].split()[1]) for c in whole["completions"]]
        (chosen,) = kept["completions"]
        assert int(chosen["content"].split()[1]) == max(numbers)
        assert chosen["score"] == 1.0, "it beat every other one"


def test_the_best_is_not_beaten_by_another_head_to_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tiers: whose probability is highest against the first is not who wins."""
    texts = ["alpha one", "bravo two", "charlie three"]
    best_at = {"safe": {"bravo": 1}, "useful": {"charlie": 3}}

    def rule(text: str) -> tuple[float, float]:
        first, second = (part.split()[0] for part in re.findall(r"\n[AB]: (.*)", text))
        about = "safe" if "safe" in text else "useful"
        strength = best_at[about]
        return 2.0 * (strength.get(first, 0) - strength.get(second, 0)), 0.99

    order = iter(range(10**6))
    use_writer(monkeypatch, lambda text, request: texts[next(order) % 3], rule)
    constitution = tmp_path / "c.yaml"
    constitution.write_text(
        "schema: 1\nname: c\nversion: '1'\nprinciples:\n"
        "  - {id: safe, tier: 1, preference: Which is safe}\n"
        "  - {id: useful, tier: 2, preference: Which is useful}\n"
    )
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q"}])
    generate(
        data,
        tmp_path / "run",
        [teacher(n=3)],
        GenerateSettings(keep=1),
        constitution=str(constitution),
        judge=LabelSettings(judge=SCRIPTED, template="demo"),
    )
    (row,) = read(tmp_path / "run" / "candidates.jsonl")
    assert row["completions"][0]["content"] == "bravo two"


def test_nothing_at_all_is_an_error_and_not_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, lambda text, request: "")
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q"}] * 3)
    with pytest.raises(RlaifError, match=r"no output from 3 rows .*an empty completion"):
        generate(data, tmp_path / "run", [teacher(n=2)], GenerateSettings())
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_another_cache_in_mid_run_loses_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch)
    data = prompts(tmp_path, 20)
    teachers = [teacher("one", n=2), teacher("two", n=2)]

    def stop(progress: Any) -> None:
        if progress.turn == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(data, tmp_path / "run", teachers, GenerateSettings(), on_progress=stop)
    summary = generate(
        data, tmp_path / "run", teachers, GenerateSettings(), cache=tmp_path / "other"
    )
    assert (summary.counts["failed"], summary.counts["completions"]) == (0, 19 * 4)


def test_thinking_is_left_out_and_one_that_never_ends_is_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        "<think>hm</think>\nplain words",
        "<think>still in it\n</think>\n\nother words",
        "<think>lost",
    ]
    order = iter(range(10**6))
    use_writer(monkeypatch, lambda text, request: texts[next(order) % 3])
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q"}])
    summary = generate(data, tmp_path / "run", [teacher(n=3)], GenerateSettings())
    (row,) = read(tmp_path / "run" / "candidates.jsonl")
    assert {c["content"] for c in row["completions"]} == {"plain words", "other words"}
    assert summary.counts["unfinished"] == 1


@pytest.mark.parametrize(
    ("settings", "more", "message"),
    [
        ({"keep": 1}, {}, "to rank by"),
        ({"keep": 4}, {"targets": ["length:short"]}, "must be less than the 4 completions"),
        ({}, {"targets": ["length:short"]}, "needs --keep"),
        ({"keep": 1}, {"targets": ["color:red"]}, "'color:red' is unknown"),
        ({"keep": 1}, {"targets": ["language:xx"]}, "not a known language. Use one of: .*de, .*en"),
        ({"keep": 1}, {"targets": ["principle:x"]}, "needs a constitution"),
        (
            {"keep": 1},
            {"targets": ["principle:be-nice"], "constitution": "demo"},
            "not a principle of",
        ),
    ],
)
def test_what_can_not_be_done_is_said_before_anything_starts(
    tmp_path: Path, settings: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q"}])
    with pytest.raises(RlaifError, match=message):
        prepare_generate(data, [teacher(n=4)], GenerateSettings(**settings), **more)
    with pytest.raises(RlaifError, match="generates 2 identical completions"):
        prepare_generate(data, [teacher(n=2, temperature=0)], GenerateSettings())
    packed = Teacher(EngineSettings(engine="packed", model="demo-policy"), SamplingSettings())
    with pytest.raises(RlaifError, match="cannot generate"):
        prepare_generate(data, [packed], GenerateSettings())


def test_the_command_reads_a_model_with_its_own_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": f"q {i}"} for i in range(3)])
    monkeypatch.setattr(
        "sys.argv",
        [
            "rlaif",
            "generate",
            data,
            "-m",
            "one,n=2,temperature=0.5",
            "-m",
            "two",
            "-n",
            "3",
            "--engine",
            "scripted",
            "-o",
            str(tmp_path / "run"),
            "--json",
        ],
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert [m["sampling"]["n"] for m in found["config"]["models"]] == [2, 3]
    assert found["counts"]["completions"] == 15
    monkeypatch.setattr("sys.argv", ["rlaif", "generate", data, "-m", "one,heat=2", "-o", "x"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert "unknown setting 'heat'" in capsys.readouterr().err


def test_a_dry_run_counts_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = use_writer(monkeypatch)
    data = prompts(tmp_path, 9)
    teachers = [teacher("one", n=2, max_tokens=90), teacher("two", n=3, max_tokens=50)]
    job = prepare_generate(data, teachers, GenerateSettings())
    found = survey(job, context=RunContext(cache_dir=tmp_path / "cache"))
    assert not engines
    assert (found["rows"], found["initial requests"], found["known"]) == (9, 40, 0)
    assert found["max generated tokens"] == 8 * (2 * 90 + 3 * 50)
    assert not (tmp_path / "run").exists()
    generate(data, tmp_path / "run", teachers, GenerateSettings())
    assert survey(job, context=RunContext(cache_dir=tmp_path / "cache"))["known"] == 40


@pytest.mark.slow
def test_real_samples_are_the_models_own_and_label_reads_them(tmp_path: Path) -> None:
    """vLLM with the demo policy: the same text as the engine gives alone; then the judge."""
    world = World(31, "test")
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": world.prompt()} for _ in range(12)])
    policy = EngineSettings(model="demo-policy")
    summary = generate(
        data,
        tmp_path / "run",
        [Teacher(policy, SamplingSettings(n=3, max_tokens=100))],
        GenerateSettings(),
    )
    rows = read(tmp_path / "run" / "candidates.jsonl")
    assert summary.counts["completions"] > 30
    origin = rows[0]["completions"][0]["origin"]
    assert origin["license"] == "apache-2.0"
    readable = [
        read_response(r["prompt"][0]["content"], c["content"])
        for r in rows
        for c in r["completions"]
    ]
    assert sum(f.unreadable == 0 for f in readable) > 0.8 * len(readable)
    # The first completion again, by the transformers library itself at temperature 0.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    greedy = generate(
        data,
        tmp_path / "greedy",
        [Teacher(policy, SamplingSettings(n=1, temperature=0, max_tokens=40))],
        GenerateSettings(keep_truncated=True),
    )
    assert greedy.counts["completions"] == 12
    tokenizer = AutoTokenizer.from_pretrained(demo_model("policy"))
    model = AutoModelForCausalLM.from_pretrained(demo_model("policy"))
    same = 0
    for row in read(tmp_path / "greedy" / "candidates.jsonl"):
        ids = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        with torch.inference_mode():
            out = model.generate(ids, max_new_tokens=40, do_sample=False)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
        same += text == row["completions"][0]["content"]
    assert same >= 11, "a near-tie may fall either way"
    labels = run_label(
        prepare(
            str(tmp_path / "run" / "candidates.jsonl"),
            "demo",
            LabelSettings(judge=EngineSettings(engine="packed", model="demo"), template="demo"),
        ),
        tmp_path / "labels",
        context=RunContext(cache_dir=tmp_path / "v.sqlite"),
    )
    assert labels.tally.decided > 15
    evidence = read(tmp_path / "labels" / "preferences.jsonl")[0]["provenance"]
    assert evidence["depth"] == 1
    assert evidence["origin_chosen"] == "demo-policy"


def test_requests_carry_the_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[GenerationRequest] = []

    def writer(text: str, request: GenerationRequest) -> str:
        seen.append(request)
        return f"t {len(seen)}"

    use_writer(monkeypatch, writer)
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q"}])
    generate(
        data,
        tmp_path / "run",
        [teacher(n=3, temperature=0.4, top_p=0.8, max_tokens=77)],
        GenerateSettings(),
    )
    assert {(r.temperature, r.top_p, r.max_tokens) for r in seen} == {(0.4, 0.8, 77)}
    assert len({r.seed for r in seen}) == 3

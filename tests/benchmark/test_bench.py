"""`rlaif bench`: its operation counts against sums by hand, its job, its table, its memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig

from rlaif.benchmark.limits import judge_cost, matmul_rate
from rlaif.benchmark.measure import rates, workload_settings, write_job
from rlaif.benchmark.shapes import SHAPES, write_judge
from rlaif.benchmark.workload import Workload
from rlaif.data.single_rows import read_row
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import codec_for
from rlaif.errors import RlaifError
from rlaif.labeling.job import choose_engine
from rlaif.runs.context import RunContext
from rlaif.store.verdict_cache import VerdictCache, verdict_cache_path
from tests.commands import Done, run_command

pytestmark = pytest.mark.slow

SHAPE = {
    "vocab_size": 100,
    "hidden_size": 8,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def test_operations_are_those_counted_by_hand_and_by_torch(tmp_path: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = LlamaConfig(**SHAPE, tie_word_embeddings=False, attn_implementation="eager")
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    cost = judge_cost(tmp_path)
    layer = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 24  # q, k and v, o, mlp
    assert cost.per_token == 3 * layer
    assert cost.head == 8 * 100
    assert cost.attention_width == 3 * 8
    n = 11
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(n)[None], logits_to_keep=1)
    # Plain attention computes all n x n products, masked or not.
    rotary = counter.get_total_flops() - cost.flops(n, n * n, 1)
    assert 0 <= rotary <= 2 * n * 8  # angles of the positions


def test_experts_count_as_chosen(tmp_path: Path) -> None:
    config = MixtralConfig(**SHAPE, num_local_experts=8, num_experts_per_tok=2)
    config.save_pretrained(tmp_path)
    experts = 3 * 8 * (3 * 8 * 24)
    rest = 3 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 8 * 8)  # attention and the router
    assert judge_cost(tmp_path).per_token == pytest.approx(rest + experts * 2 / 8)


def test_matmul_rate_is_a_rate() -> None:
    assert 1e8 < matmul_rate(torch.float32, seconds=0.05) < 1e16


def test_job_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    workload = Workload(pairs=5, principles=7, context_tokens=400)
    judge = EngineSettings(engine="packed", model="demo")
    job = write_job(tmp_path / "x", workload, workload_settings(judge, workload, "demo"), seed=1)
    codec = codec_for(judge)
    sizes = []
    for _, row in job.source.rows():
        assert isinstance(row, dict)
        sizes.append(sum(len(codec.encode_text(str(text))) for text in row.values()))
        assert len(read_row(row).completions) == 2
    assert len(sizes) == 5
    assert all(abs(size - 400) < 60 for size in sizes)
    texts = {p.preference for p in job.constitution.principles}
    assert len(texts) == 7


def test_bench_prints_what_it_measured_and_auto_takes_the_fastest(tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    done = run_command(
        "bench",
        "--engine",
        "packed",
        "--engine",
        "transformers",
        "--num-pairs",
        "3",
        "--num-principles",
        "4",
        "--context",
        "120",
        "--repetitions",
        "1",
        "--price-per-hour",
        "2",
        "--cache-dir",
        str(cache),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    packed, plain = json.loads(done.stdout)
    assert packed["computed_over_planned"] == packed["computed_over_unique"] == 1.0
    assert plain["prefix_cache_hit_rate"] == 0.0
    for found in (packed, plain):
        assert sum(found["share_of_time"].values()) == pytest.approx(1.0)
        assert 0 < found["limit_fraction"] <= found["model_flops_utilization"] * 1.001
        hours = 1000 / found["pairs_per_second"] / 3600
        assert found["cost_per_1000_pairs"] == pytest.approx(2 * hours, abs=1e-5)
    fastest = max((packed, plain), key=lambda f: f["verdicts_per_second"])["engine"]
    judge = EngineSettings(engine="auto", model="demo")
    assert choose_engine(judge, tmp_path / "new", RunContext(cache)).engine == fastest
    assert choose_engine(judge, tmp_path / "new", RunContext(tmp_path / "other")).engine == "vllm"
    for other in ({"quantization": "fp8"}, {"dtype": "bfloat16"}):  # of which nothing is known
        asked = judge.model_copy(update=other)
        assert choose_engine(asked, tmp_path / "new", RunContext(cache)).engine == "vllm"
    opened = VerdictCache(verdict_cache_path(cache))
    opened.record_rate(packed["fingerprint"], "no-such-engine", 1e9)
    slowest = min((packed, plain), key=lambda f: f["verdicts_per_second"])["engine"]
    opened.record_rate(packed["fingerprint"], slowest, 1e9)  # a labeling run measures other things
    opened.close()
    assert choose_engine(judge, tmp_path / "new", RunContext(cache)).engine == fastest


def test_questions_that_a_judge_can_not_take_are_an_error_and_no_speed() -> None:
    for context in ("1100", "6000"):  # some refused, all refused
        done = run_command(
            "bench",
            "--engine",
            "packed",
            "--num-pairs",
            "6",
            "--num-principles",
            "2",
            "--context",
            context,
            "--repetitions",
            "1",
        )
        assert done.returncode == 2
        assert (
            "synthetic judge calls had no valid verdict: the judge accepts at most 1023 tokens"
            in done.stderr
        )
        assert "Traceback" not in done.stderr


def test_auto_keeps_the_engine_of_a_run_that_exists(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("judge: {engine: transformers, model: demo}\n")
    judge = EngineSettings(engine="auto", model="demo")
    assert (
        choose_engine(judge, tmp_path, RunContext(tmp_path / "c.sqlite")).engine == "transformers"
    )
    assert choose_engine(
        judge.model_copy(update={"engine": "packed"}), tmp_path, RunContext()
    ).engine == ("packed")
    for other in ("model: demo", "judge: demo", "judge: {engine: packed, model: another}"):
        config.write_text(other + "\n")  # of another command, or of another judge
        assert choose_engine(judge, tmp_path, RunContext(tmp_path / "c.sqlite")).engine == "vllm"
    config.write_text("judge: {engine: panel, model: demo}\n")
    for inner in ("members/1-demo", "demo-constitution-0123abcd"):  # a panel's, an evaluation's
        folder = tmp_path / inner.split("/")[0]
        (tmp_path / inner).mkdir(parents=True)
        (tmp_path / inner / "run.yaml").write_text("judge: {engine: packed, model: demo}\n")
        assert choose_engine(judge, tmp_path, RunContext(tmp_path / "c.sqlite")).engine == "packed"
        shutil.rmtree(folder)
    assert choose_engine(judge, tmp_path, RunContext(tmp_path / "c.sqlite")).engine == "vllm"


def bench(*arguments: str) -> Done:
    return run_command(
        "bench",
        "--num-pairs",
        "2",
        "--num-principles",
        "2",
        "--context",
        "30",
        "--repetitions",
        "1",
        *arguments,
    )


def test_engines_of_which_less_is_known_stand_in_the_table(tmp_path: Path) -> None:
    cache = ["--cache-dir", str(tmp_path / "c.sqlite")]
    done = bench("--engine", "scripted", "--engine", "packed", *cache)
    assert done.returncode == 0, done.stderr
    (limit,) = [line for line in done.stdout.splitlines() if "matmul GFLOP/s" in line]
    assert limit.split()[-2] == "-"
    assert float(limit.split()[-1].replace(",", "")) > 0


def test_what_is_wrong_with_an_engine_costs_no_other_its_figures(tmp_path: Path) -> None:
    cache = ["--cache-dir", str(tmp_path / "c.sqlite")]
    unknown = bench("--engine", "scripted", "--engine", "nope", *cache)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "engine 'nope' is unknown" in unknown.stderr
    assert "measuring" not in unknown.stderr
    failing = bench("--engine", "scripted", "--engine", "packed", "--context", "1100", *cache)
    assert failing.returncode == 2
    assert "synthetic judge calls had no valid verdict" in failing.stderr
    assert failing.stdout.split()[0] == "scripted"
    assert "verdicts/s" in failing.stdout


def test_shapes_have_the_size_of_their_name(tmp_path: Path) -> None:
    sizes = {"4m": 4e6, "22m": 22e6, "0.6b": 0.6e9, "1.7b": 1.7e9, "8b": 8e9}
    assert sizes.keys() == SHAPES.keys()
    for name, size in sizes.items():
        if name in ("4m", "22m"):
            continue  # weights on disk: the smaller is written below
        folder = write_judge(name, tmp_path / name)
        assert judge_cost(folder).parameters == pytest.approx(size, rel=0.12), name
        assert not list(folder.glob("*.safetensors"))
    assert list(write_judge("4m", tmp_path / "4m").glob("*.safetensors"))
    with pytest.raises(RlaifError, match="shape '7b' is unknown"):
        write_judge("7b", tmp_path / "7b")


def test_rates_divide_by_the_seconds() -> None:
    from rlaif.benchmark.measure import Timing
    from rlaif.judging.prefix_order import TokenCount

    tokens = TokenCount(prompt=1000, predicted=500, unique=400, attended=9000)
    found = rates(
        Timing(
            seconds=2.0,
            verdicts=30,
            pairs=10,
            computed=450,
            tokens=tokens,
            asking=0.5,
            telling=0.25,
            idle=0.0,
        )
    )
    assert found["verdicts_per_second"] == 15.0
    assert found["prefix_cache_hit_rate"] == pytest.approx(0.55)
    assert found["computed_over_planned"] == pytest.approx(0.9)
    assert found["share_of_time"]["engine"] == pytest.approx(1.25 / 2)

"""`rlaif synth-prompts`."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.demo.grammar import parse_prompt
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import RlaifError
from rlaif.generation import runner as writing
from rlaif.generation.prompt_lists import read_conversation, read_list
from rlaif.generation.prompts import TEMPLATES, SynthesisSettings, prepare_synthesis
from rlaif.generation.runner import GenerationSummary, run_generation
from rlaif.records import Failure, GenerationRequest
from rlaif.runs.context import RunContext
from rlaif.templates.writer import load_synth_template
from rlaif.text.contamination import Contamination
from rlaif.text.novelty import PromptPool, common_subsequence, rouge_l
from tests.generation.helpers import SCRIPTED, Watched, read, use_writer, write_rows

WORDS = [f"w{i}" for i in range(400)]


def lister(text: str, request: GenerationRequest) -> str:
    """Five prompts of random words; one in five repeats the first shown."""
    rng = random.Random(request.seed)
    shown = text.split("1. ")[1].split("\n")[0]
    items = [
        shown if rng.random() < 0.2 else " ".join(rng.choice(WORDS) for _ in range(8))
        for _ in range(5)
    ]
    return "Sure:\n" + "\n".join(f"{i + 1}. {item}" for i, item in enumerate(items))


def synthesize(
    folder: Path,
    out: str = "run",
    templates: tuple[str, ...] = ("self-instruct",),
    folder_cache: str = "cache",
    **changes: Any,
) -> tuple[GenerationSummary, list[dict[str, Any]]]:
    seeds = folder / "seeds.jsonl"
    if not seeds.exists():
        write_rows(seeds, [{"id": f"s{i}", "prompt": f"seed prompt number {i}"} for i in range(12)])
    more = {k: changes.pop(k) for k in ("evaluations", "topics") if k in changes}
    job = prepare_synthesis(
        str(seeds), SCRIPTED, SynthesisSettings(**changes), templates=templates, **more
    )
    summary = run_generation(job, folder / out, context=RunContext(cache_dir=folder / folder_cache))
    return summary, read(folder / out / "prompts.jsonl")


def test_new_prompts_differ_and_human_seeds_keep_their_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, lister)
    summary, rows = synthesize(tmp_path, count=150, human_share=0.25, batch_size=8)
    human = [r for r in rows if r["origin"]["kind"] == "human"]
    new = [r for r in rows if r["origin"]["kind"] == "model"]
    assert (len(human), len(new)) == (12, 150)
    weights = [sum(r["weight"] for r in side) for side in (human, new)]
    assert weights[0] / sum(weights) == pytest.approx(0.25, abs=1e-4)
    split = [r["prompt"][0]["content"].split() for r in (*human, *new)]
    for i in range(len(split)):
        for j in range(max(i, 12)):
            if i >= 12:
                assert rouge_l(split[i], split[j]) < 0.7
    assert summary.counts["near duplicates"] > 20
    depths = Counter(r["origin"]["depth"] for r in new)
    assert depths[1] > 0
    assert depths[2] > 0, "prompts made from made ones are deeper"


def test_topics_personas_and_templates_are_covered_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, lister)
    topics = tmp_path / "topics.txt"
    topics.write_text("# a comment\nred\ngreen\nblue\n")
    templates = ("self-instruct", "reasoning")
    _, rows = synthesize(
        tmp_path,
        templates=templates,
        count=300,
        topics=str(topics),
        batch_size=16,
        generated_examples=0,
    )
    new = [r for r in rows if r["recipe"]]
    for key, values in (("topic", 3), ("recipe", 2), ("persona", 16)):
        found = Counter(r[key] for r in new)
        assert len(found) == values
        assert max(found.values()) < 4 * min(found.values()), found


def test_prompts_of_an_evaluation_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, lister)
    _, free = synthesize(tmp_path, "free", count=40)
    taken = [r["prompt"][0]["content"] for r in free if r["recipe"]][:10]
    test = write_rows(tmp_path / "test.jsonl", [{"question": f"{t} and more"} for t in taken])
    summary, rows = synthesize(tmp_path, "clean", count=40, evaluations=[test])
    made = {r["prompt"][0]["content"] for r in rows}
    assert not made & set(taken)
    assert summary.counts["contaminated"] >= 10


def test_a_model_that_says_nothing_new_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, lambda text, request: "I would rather not.")
    summary, rows = synthesize(tmp_path, count=50)
    assert len(rows) == 12
    assert summary.counts["unreadable answers"] == summary.counts["requests"] > 0


def test_the_result_depends_on_the_seed_and_a_second_run_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = use_writer(monkeypatch, lister)
    _, one = synthesize(tmp_path, "one", count=60)
    _, two = synthesize(tmp_path, "two", count=60)
    _, three = synthesize(tmp_path, "three", count=60, seed=1)
    assert one == two != three
    assert engines[0].asked
    assert not engines[1].asked


def test_conversations_end_with_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writer(text: str, request: GenerationRequest) -> str:
        n = random.Random(request.seed).randrange(10**6)
        return f"User: hello {n} there\nAssistant: hi {n}\nagain\n**User:** what about {n}?"

    use_writer(monkeypatch, writer)
    _, rows = synthesize(tmp_path, templates=("multi-turn",), count=5, rouge=1.0)
    new = [r for r in rows if r["recipe"]]
    assert len(new) == 5
    for row in new:
        assert [m["role"] for m in row["prompt"]] == ["user", "assistant", "user"]
        assert row["prompt"][1]["content"].endswith("\nagain")
    assert read_conversation("Assistant: hi\nUser: x") == []
    assert read_conversation("User: a\nUser: b") == []
    assert read_conversation("well\nUser: a\nAssistant: b") == []
    assert [m["content"] for m in read_conversation("User: a\nAssistant: b")] == ["a"]


def test_lists_are_read_and_a_cut_item_is_left_out() -> None:
    text = 'Here:\n1. one two three\n2) "four five six"\n- seven eight nine\n* ten\n3. cut off'
    whole = [m[0]["content"] for m in read_list(text, finished=True)]
    assert whole == ["one two three", "four five six", "seven eight nine"]
    cut = [m[0]["content"] for m in read_list(text + " here now", finished=False)]
    assert cut == whole


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_common_subsequence_is_that_of_the_textbook(one: list[str], two: list[str]) -> None:
    table = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(two):
            best = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else best
    assert common_subsequence(one, two) == table[-1][-1]
    texts = [" ".join(one), " ".join(two)]
    pool = PromptPool(0.7)
    pool.add(texts[0])
    assert pool.admits(texts[1]) == (rouge_l(one, two) < 0.7), "the short cuts change nothing"


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=7), max_size=30), st.data())
def test_a_pool_admits_what_comparing_with_every_prompt_would(
    texts: list[list[str]], data: st.DataObject
) -> None:
    threshold = data.draw(st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
    pool, kept = PromptPool(threshold), []
    for text in texts:
        expected = all(rouge_l(text, other) < threshold for other in kept)
        assert pool.admits(" ".join(text)) == expected
        if expected:
            kept.append(text)


def test_new_prompts_are_on_disk_before_the_end_and_a_stopped_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine dies again and again; what came before is on disk, asked once and in order."""
    use_writer(monkeypatch, lister)
    whole, rows = synthesize(tmp_path, "whole", count=60, batch_size=4)
    monkeypatch.setattr(writing, "CHECKPOINT_SECONDS", 0.0)
    left = 0

    def dying(text: str, request: GenerationRequest) -> str:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("power cut")
        return lister(text, request)

    def attempt() -> GenerationSummary:
        return synthesize(tmp_path, "parts", folder_cache="other", count=60, batch_size=4)[0]

    engines = use_writer(monkeypatch, dying)
    seen: list[int] = []
    while True:
        left = 7
        try:
            summary = attempt()
            break
        except RuntimeError:
            seen.append(len(read(tmp_path / "parts" / "prompts.jsonl")))
    assert len(seen) >= 2
    assert seen == sorted(set(seen)), "each attempt went on"
    assert seen[0] > 0
    assert (tmp_path / "parts" / "prompts.jsonl").read_bytes() == (
        tmp_path / "whole" / "prompts.jsonl"
    ).read_bytes()
    assert summary.counts == whole.counts
    assert len(rows) == 72
    # No more than the batch in which it died is asked again.
    asked = [text for engine in engines for text in engine.asked]
    assert len(asked) - len(set(asked)) <= 4 * len(seen)


def test_failed_requests_do_not_end_a_run_as_if_there_was_nothing_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken model is an error with its reason; fixed, the same command goes on."""
    broken = True

    def answer(self: Watched, request: Any) -> Any:
        if broken:
            return Failure(request.id, "404 no such model")
        return ScriptedEngine._answer(self, request)

    monkeypatch.setattr(Watched, "_answer", answer)
    use_writer(monkeypatch, lister)
    with pytest.raises(RlaifError, match=r"requests failed \(last: 404 no such model\)"):
        synthesize(tmp_path, count=40, batch_size=4)
    broken = False
    _, rows = synthesize(tmp_path, count=40, batch_size=4)
    assert len(rows) == 52


def test_a_stop_between_failures_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures are not kept: what failed before a stop may come after it."""
    calls = 0

    def answer(self: Watched, request: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise RuntimeError("power cut")
        if calls % 5 == 0 and calls < 12:
            return Failure(request.id, "400 odd")
        return ScriptedEngine._answer(self, request)

    monkeypatch.setattr(Watched, "_answer", answer)
    use_writer(monkeypatch, lister)
    with pytest.raises(RuntimeError):
        synthesize(tmp_path, count=60, batch_size=4)
    assert read(tmp_path / "run" / "prompts.jsonl")
    _, rows = synthesize(tmp_path, count=60, batch_size=4)
    assert len({r["id"] for r in rows}) == len(rows) == 72


def test_the_human_share_is_that_of_human_seeds_and_names_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, lister)
    made = {"origin": {"kind": "model", "depth": 1}}
    write_rows(
        tmp_path / "seeds.jsonl",
        [{"id": f"new-{i}", "prompt": f"made prompt {i} {i * 7}", **made} for i in range(30)]
        + [{"id": "h", "prompt": "a human prompt"}],
    )
    summary, rows = synthesize(tmp_path, count=40, human_share=0.25)
    human = sum(r["weight"] for r in rows if r["origin"]["kind"] == "human")
    assert human / sum(r["weight"] for r in rows) == pytest.approx(0.25, abs=1e-4)
    assert len({r["id"] for r in rows}) == len(rows) == 71
    assert summary.counts["human seeds"] == 1


def test_seeds_of_an_evaluation_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, lister)
    test = write_rows(tmp_path / "test.jsonl", [{"question": "seed prompt number 3"}])
    summary, rows = synthesize(tmp_path, count=20, evaluations=[test])
    assert "s3" not in {r["id"] for r in rows}
    assert summary.counts["contaminated seeds"] == 1


def test_lists_in_scripts_without_spaces_are_read() -> None:
    text = "1. 请告诉我如何清洗水壶并且去除水垢\n2. 写诗\n3. Write a short poem"
    found = [m[0]["content"] for m in read_list(text, finished=True)]
    assert found == ["请告诉我如何清洗水壶并且去除水垢", "Write a short poem"]


def test_scripts_without_spaces_are_compared_letter_by_letter() -> None:
    pool = PromptPool(0.7)
    assert pool.admits("请告诉我如何清洗水壶")
    assert not pool.admits("请告诉我如何清洗水锅")
    assert Contamination(["请告诉我如何清洗一个旧的水壶"], 8).finds("你好，请告诉我如何清洗一个")


def test_seeds_keep_their_tags_and_relative_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, lister)
    write_rows(
        tmp_path / "seeds.jsonl",
        [{"prompt": "seed one is here", "weight": 3, "tags": ["json"]}, {"prompt": "two is there"}],
    )
    _, rows = synthesize(tmp_path, count=40, human_share=0.2)
    one, two = rows[-2:]
    assert one["tags"] == ["json"]
    assert one["weight"] == pytest.approx(3 * two["weight"])
    assert one["weight"] + two["weight"] == pytest.approx(0.25 * 40)


def test_contamination_is_a_shared_run_of_words() -> None:
    found = Contamination(["One two three four five six", "tiny one"], 4)
    assert found.finds("zero ONE, two three four!")
    assert not found.finds("one two three and four five six")
    assert found.finds("Tiny one")
    assert not found.finds("a tiny one more or less")


def test_every_shipped_recipe_loads_and_a_bad_one_is_named(tmp_path: Path) -> None:
    for name in (*TEMPLATES, "demo"):
        assert load_synth_template(name).settings["answer"] in ("list", "conversation")
    bad = tmp_path / "mine.txt"
    bad.write_text("---\nanswer: poem\n---\n{{examples}}\n")
    with pytest.raises(RlaifError, match="invalid `answer`: 'poem'"):
        load_synth_template(str(bad))


@pytest.mark.slow
def test_the_demo_writer_makes_prompts_of_its_world(tmp_path: Path) -> None:
    """Real vLLM: most new prompts are readable by the world's grammar, and none is a seed."""
    world = World(51, "test")
    seeds = sorted({world.prompt() for _ in range(20)})
    data = write_rows(tmp_path / "seeds.jsonl", [{"prompt": text} for text in seeds])
    job = prepare_synthesis(
        data,
        EngineSettings(model="demo-writer"),
        SynthesisSettings(count=30, examples=3, generated_examples=1, rouge=0.95, max_tokens=120),
        templates=("demo",),
    )
    run_generation(job, tmp_path / "run", context=RunContext(cache_dir=tmp_path / "cache"))
    rows = read(tmp_path / "run" / "prompts.jsonl")
    new = [r["prompt"][0]["content"] for r in rows if r["recipe"]]
    assert len(new) == 30
    assert not set(new) & set(seeds)
    assert sum(parse_prompt(text) is not None for text in new) >= 20

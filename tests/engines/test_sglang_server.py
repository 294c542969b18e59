"""A judge behind SGLang reads as the reference does: by contract, against a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine, speed_options
from rlaif.errors import EngineStopped, RlaifError
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, GenerationRequest, GenerationResult
from tests.engines.sglang_stand_in import StandIn
from tests.engines.test_exactness import requests

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[StandIn, str]]:
    server = StandIn()
    yield server, server.start()
    server.stop()


@pytest.fixture
def stand_in(running: tuple[StandIn, str]) -> StandIn:
    server = running[0]
    server.asked.clear()
    server.multi_item = False
    server.spoil = lambda answer: answer
    return server


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[float, ...]]:
    with closing(create_engine(EngineSettings(engine="transformers", model="demo"))) as engine:
        asked = requests(engine, 2)
        found = [r for batch in engine.run(asked) for r in batch]
    return {r.id: r.logprobs for r in found if isinstance(r, ChoiceResult)}


def connect(url: str, **options: Any) -> Engine:
    return create_engine(
        EngineSettings(
            engine="sglang-server",
            model="demo",
            max_in_flight=4,
            options={"base_url": url + "/v1", "retries": 0, **options},
        )
    )


@pytest.mark.parametrize("way", ["generate", "score", "multi-item"])
def test_label_probabilities_are_those_of_the_reference(
    way: str, running: tuple[StandIn, str], stand_in: StandIn, expected: dict[str, Any]
) -> None:
    stand_in.multi_item = way == "multi-item"
    options = {} if way == "generate" else {"score": True}
    with closing(connect(running[1], **options)) as engine:
        found = {r.id: r for batch in engine.run(requests(engine, 2)) for r in batch}
    assert found.keys() == expected.keys()
    for name, result in found.items():
        assert isinstance(result, ChoiceResult), result
        assert result.logprobs == pytest.approx(expected[name], abs=1e-3)
    # One request for all questions about a pair in one order, and one to try the server.
    assert len(stand_in.asked) == 1 + 2 * 2
    assert engine.stats().requests == len(expected)


def test_texts_misfits_and_a_question_the_server_refuses_spoil_no_neighbor(
    running: tuple[StandIn, str], stand_in: StandIn
) -> None:
    with closing(connect(running[1])) as engine:
        good = requests(engine, 1)
        engine.max_prompt_tokens = 4000  # the server's own limit is lower: it refuses
        long = ChoiceRequest("long", [*good[0].token_ids, *[5] * 2000], good[0].label_ids)
        odd = [
            *good[:2],
            long,
            ChoiceRequest("none", [], good[0].label_ids),
            ChoiceRequest("far", [5] * 5000, good[0].label_ids),
            GenerationRequest("write", good[0].token_ids, 6),
            None,
            good[2],
        ]
        found = {r.id: r for batch in engine.run(odd) for r in batch}
    assert len(found) == 7
    assert all(isinstance(found[r.id], ChoiceResult) for r in good[:3])
    for name, said in (("long", "longer than"), ("none", "no tokens"), ("far", "limit is 4000")):
        failure = found[name]
        assert isinstance(failure, Failure)
        assert said in failure.reason
    written = found["write"]
    assert isinstance(written, GenerationResult)
    assert 0 < len(written.token_ids) <= 6


def lose_a_label(answer: Any) -> Any:
    for one in answer if isinstance(answer, list) else []:
        one["meta_info"]["output_token_ids_logprobs"][0].pop()
    return answer


def test_neighbors_of_a_refused_question_are_asked_again(
    running: tuple[StandIn, str], stand_in: StandIn
) -> None:
    """A prompt longer than its neighbors' whole, which begins like them, is in their group."""
    with closing(connect(running[1])) as engine:
        one, two = requests(engine, 1)[:2]
        engine.max_prompt_tokens = 4000
        start = [*one.token_ids, *[7] * 600]
        asked = [
            ChoiceRequest("a", [*start, 8], one.label_ids),
            ChoiceRequest("b", [*start, *[9] * 500], one.label_ids),
        ]
        assert len(start) + 1 < 1024 <= len(start) + 500
        found = {r.id: r for batch in engine.run([*asked, two]) for r in batch}
    assert isinstance(found["a"], ChoiceResult)
    assert isinstance(found["b"], Failure)
    assert isinstance(found[two.id], ChoiceResult)


def test_a_server_that_refuses_everything_makes_nobody_s_rows_bad(
    running: tuple[StandIn, str], stand_in: StandIn
) -> None:
    """As it does when an adapter was unloaded: the run stops, and goes on when it is back."""
    with closing(connect(running[1])) as engine:
        asked = requests(engine, 12)
        answered = 0

        def refuse(answer: Any) -> Any:
            nonlocal answered
            answered += 1
            if answered > 3:
                raise ValueError("adapter 'x' is not loaded")
            return answer

        stand_in.spoil = refuse
        found: list[Any] = []

        def go_on() -> None:
            for batch in engine.run(iter(asked)):
                found.extend(batch)

        with pytest.raises(EngineStopped, match="refuses what it answered before"):
            go_on()
    assert all(isinstance(r, ChoiceResult) for r in found)


@pytest.mark.parametrize(
    "spoil", [lose_a_label, lambda answer: answer[:-1] or answer, lambda _: [{"meta_info": {}}] * 9]
)
def test_an_answer_that_lacks_something_is_a_failure(
    spoil: Any, running: tuple[StandIn, str], stand_in: StandIn
) -> None:
    with closing(connect(running[1])) as engine:
        asked = requests(engine, 1)
        stand_in.spoil = lambda answer: spoil(answer) if len(answer) > 1 else answer
        if spoil is lose_a_label:
            stand_in.spoil = spoil
        found = [r for batch in engine.run(asked) for r in batch]
    assert len(found) == len(asked)
    if spoil is lose_a_label:
        assert all(isinstance(r, Failure) and "missing" in r.reason for r in found)
    else:  # asked one by one, they are answered
        assert all(isinstance(r, ChoiceResult) for r in found)


def test_another_server_and_wrong_options_are_told(
    running: tuple[StandIn, str], stand_in: StandIn
) -> None:
    stand_in.spoil = lambda _: {"choices": [{"text": "hello"}]}
    with pytest.raises(RlaifError, match="does not answer like SGLang"):
        connect(running[1])
    with pytest.raises(RlaifError, match="invalid value 'yes' for option score"):
        connect(running[1], score="yes")
    with pytest.raises(RlaifError, match="has no option 'speed'"):
        connect(running[1], speed=1)
    assert "score" in speed_options(EngineSettings(engine="sglang-server", model="demo"))

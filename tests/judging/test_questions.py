"""What is asked about a pair."""

from __future__ import annotations

from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Constitution
from rlaif.judging.questions import plan_questions, principles_for, screen
from rlaif.records import Pair


def pair(a: str = "x", b: str = "y", name: str = "1", tags: frozenset[str] = frozenset()) -> Pair:
    def said(text: str):
        return [{"role": "assistant", "content": text}]

    return Pair(name, [{"role": "user", "content": "q"}], said(a), said(b), tags=tags)


def constitution() -> Constitution:
    return Constitution.model_validate(
        {
            "schema": 1,
            "name": "c",
            "version": "1",
            "principles": [
                {"id": "one", "preference": "Which response is one?"},
                {"id": "private", "preference": "Which?", "applies_to": {"tags": ["privacy"]}},
                {"id": "json", "check": {"kind": "json"}},
                {"id": "two", "preference": "Which response is two?"},
            ],
        }
    )


def test_both_orders_of_every_judge_principle_that_applies() -> None:
    def asked_about(one: Pair):
        return plan_questions(one, principles_for(one, constitution()))

    asked = [(q.principle.id, q.order) for q in asked_about(pair())]
    assert asked == [("one", "ab"), ("two", "ab"), ("one", "ba"), ("two", "ba")]
    assert len(asked_about(pair(tags=frozenset({"privacy", "x"})))) == 6


def test_one_order_is_drawn_by_pair_and_balanced() -> None:
    def draw() -> list[str]:
        asked = constitution().principles
        return [plan_questions(pair(name=str(i)), asked, orders="one")[0].order for i in range(400)]

    orders = draw()
    assert orders == draw()
    assert 160 < orders.count("ab") < 240


def test_sampled_principle_keeps_checks() -> None:
    drawn = {
        tuple(p.id for p in principles_for(pair(name=str(i)), constitution(), mode="sample"))
        for i in range(50)
    }
    assert drawn == {("one", "json"), ("json", "two")}


def test_identical_ties_and_empty_abstains_without_a_judge() -> None:
    assert screen(pair("same", "same")) == ("tie", "identical completions")
    assert screen(pair("", "y")) == ("abstained", "completion a is empty")
    assert screen(pair("x", " \n")) == ("abstained", "completion b is empty")
    assert screen(pair("", "")) == ("tie", "identical completions")
    assert screen(pair()) is None


def test_shipped_constitution_plans_two_calls_per_principle() -> None:
    demo = load_constitution("demo").constitution
    assert len(plan_questions(pair(), demo.principles)) == 2 * len(demo.principles)

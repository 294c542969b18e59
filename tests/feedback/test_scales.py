"""What numbers of a log mean is decided from all of them, or asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlaif.errors import RlaifError
from rlaif.feedback.importing import FeedbackSettings, import_feedback
from rlaif.feedback.scales import find_scale


def log(path: Path, ratings: list[Any], name: str = "score") -> str:
    rows = [
        {"prompt": f"Question {k}?", "response": f"Answer {k}.", "user": f"u{k}", name: rating}
        for k, rating in enumerate(ratings)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("ratings", "good", "bad"),
    [
        ([0, 1, 1, 0], [1], [0]),
        ([-1, 1, 0], [1], [-1]),
        ([1, 2, 3, 4, 5], [4, 5], [1, 2]),
        ([-1, -1], [], [-1]),
        ([2.5, 4.5], [4.5], []),
        ([5], [5], []),
    ],
)
def test_scales_that_are_known(ratings: list[float], good: list[float], bad: list[float]) -> None:
    scale = find_scale(map(float, ratings), None, None)
    assert [r for r in sorted(set(ratings)) if scale.judge(r) is True] == good
    assert [r for r in sorted(set(ratings)) if scale.judge(r) is False] == bad


@pytest.mark.parametrize(
    "ratings",
    [[10, 95], [1], [2], [1, 2, 3], [0.2, 0.9], [1, 10], [-3, 3], [1, 7], [0, 1, 2], [0, 0]],
)
def test_scales_that_are_asked_for(ratings: list[float]) -> None:
    with pytest.raises(RlaifError, match="nothing says which of them are good") as error:
        find_scale(map(float, ratings), None, None)
    assert "--good-from and --bad-to" in str(error.value)
    scale = find_scale(map(float, ratings), 0.9, 0.1)
    assert scale.judge(0.95) is True


def test_zero_stars_may_be_no_rating() -> None:
    with pytest.raises(RlaifError, match="from 0 to 5, and 0 may be the worst or no rating"):
        find_scale([0.0, 5.0, 3.0], None, None)
    assert find_scale([0.0, 5.0, 3.0], 4.0, 2.0).judge(0.0) is False


@pytest.mark.parametrize("others", [["up", "down"], ["up"], []])
def test_a_thumb_of_zero_alone_may_be_none(tmp_path: Path, others: list[str]) -> None:
    data = log(tmp_path / "log.jsonl", [0, 0, *others], "thumbs")
    with pytest.raises(RlaifError, match=r"'thumbs' holds 0 (alone|beside).* thumb down or none"):
        import_feedback(data, tmp_path / "out", FeedbackSettings())
    data = log(tmp_path / "log.jsonl", [0, 1, *others], "thumbs")
    report = import_feedback(data, tmp_path / "out", FeedbackSettings())
    assert report.unreadable == 0


@pytest.mark.parametrize(
    ("up", "down"), [("liked", "disliked"), ("thumbs_up", "thumbs_down"), ("upvoted", "downvoted")]
)
@pytest.mark.parametrize(("yes", "no"), [(True, False), (1, 0)])
def test_two_columns_for_good_and_bad_are_read_together(
    tmp_path: Path, up: str, down: str, yes: Any, no: Any
) -> None:
    sides = [(yes, no), (no, yes), (no, no), (yes, yes)]
    rows = [
        {"prompt": f"Question {k}?", "response": f"Answer {k}.", up: one, down: two}
        for k, (one, two) in enumerate(sides)
    ]
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = import_feedback(str(file), tmp_path / "out", FeedbackSettings())
    kto = [json.loads(line) for line in (tmp_path / "out" / "kto.jsonl").read_text().splitlines()]
    assert {row["completion"][0]["content"]: row["label"] for row in kto} == {
        "Answer 0.": True,
        "Answer 1.": False,
    }
    assert report.unreadable == 2
    told = (tmp_path / "out" / "rejected.jsonl").read_text()
    assert "no thumbs, rating" in told
    assert f"columns '{up}' and '{down}' are both set" in told


def test_columns_that_contradict_each_other_are_no_feedback(tmp_path: Path) -> None:
    rows = [
        {"thumbs": "up", "rating": 1},
        {"thumbs": "down", "rating": 5},
        {"thumbs": "up", "liked": False},
        {"thumbs": "up", "rating": 3},
        {"thumbs": "up", "rating": 5, "liked": True},
    ]
    for k, row in enumerate(rows):
        row |= {"prompt": f"Question {k}?", "response": f"Answer {k}."}
    file = tmp_path / "log.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = import_feedback(str(file), tmp_path / "out", FeedbackSettings())
    assert (report.events, report.unreadable) == (2, 3)
    told = (tmp_path / "out" / "rejected.jsonl").read_text()
    assert told.count("contradict each other") == 2
    assert told.count("another one bad") == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_bound_is_a_number(value: str) -> None:
    with pytest.raises(ValidationError):
        FeedbackSettings(good_from=float(value))
    with pytest.raises(ValidationError):
        FeedbackSettings(bad_to=float(value))


def test_a_rating_of_400_digits_is_a_bad_row(tmp_path: Path) -> None:
    data = log(tmp_path / "log.jsonl", [10**400, 1, 5], "rating")
    report = import_feedback(data, tmp_path / "out", FeedbackSettings())
    assert (report.events, report.unreadable) == (2, 1)


def test_bounds_turned_around_are_refused() -> None:
    with pytest.raises(RlaifError, match="--bad-to 4 is not below --good-from 3"):
        find_scale([1.0, 5.0], 3.0, 4.0)
    with pytest.raises(RlaifError, match="--bad-to 2 is not below --good-from 1"):
        find_scale([1.0, 5.0], 1.0, None)


@pytest.mark.parametrize("name", ["score", "stars", "rating"])
def test_a_log_of_zeros_and_ones_keeps_its_thumbs(tmp_path: Path, name: str) -> None:
    data = log(tmp_path / "log.jsonl", [1, 0, 1, 1, 0, "1", 0.0], name)
    report = import_feedback(data, tmp_path / "out", FeedbackSettings())
    found = [json.loads(line)["label"] for line in (tmp_path / "out/kto.jsonl").open()]
    assert found == [True, False, True, True, False, True, False]
    assert (report.ratings["good"], report.ratings["bad"]) == (4, 3)


def test_a_scale_to_a_hundred_is_asked_for(tmp_path: Path) -> None:
    data = log(tmp_path / "log.jsonl", [10, 95, 40, 88])
    with pytest.raises(RlaifError, match="ratings run from 10 to 95"):
        import_feedback(data, tmp_path / "out", FeedbackSettings())
    settings = FeedbackSettings(good_from=70, bad_to=30)
    import_feedback(data, tmp_path / "out", settings)
    found = [json.loads(line)["label"] for line in (tmp_path / "out/kto.jsonl").open()]
    assert found == [False, True, True]


def test_the_first_rows_decide_what_a_log_s_columns_are(tmp_path: Path) -> None:
    rows = [
        {
            "instruction": f"Question {k}?",
            "passage": f"The passage about {k} that was asked about.",
            "output": f"Answer {k}.",
            "thumbs": "up",
        }
        for k in range(4)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_feedback(str(path), tmp_path / "out", FeedbackSettings())
    found = [json.loads(line) for line in (tmp_path / "out/kto.jsonl").open()]
    for k, row in enumerate(found):
        asked = row["prompt"][-1]["content"]
        assert f"Question {k}?" in asked
        assert f"passage about {k}" in asked
    path.write_text(
        "".join(json.dumps({**row, "few_shot": [["Hi", "Yes"]]}) + "\n" for row in rows)
    )
    with pytest.raises(RlaifError, match="'few_shot' is not used, and looks like a conversation"):
        import_feedback(str(path), tmp_path / "more", FeedbackSettings())


@pytest.mark.parametrize(
    ("name", "values"),
    [("feedback", [1, 2, 3, 5]), ("label", [0, 1, 2]), ("vote", [1, 4]), ("thumbs", ["1", "3"])],
)
def test_numbers_that_are_no_thumbs_are_asked_about(
    tmp_path: Path, name: str, values: list[Any]
) -> None:
    path = log(tmp_path / "log.jsonl", values, name)
    with pytest.raises(RlaifError, match=f"--map rating={name}"):
        import_feedback(path, tmp_path / "out", FeedbackSettings())


def test_a_vote_of_zero_beside_minus_one_is_neither(tmp_path: Path) -> None:
    import_feedback(
        log(tmp_path / "log.jsonl", [-1, 0, 1] * 3, "vote"), tmp_path / "out", FeedbackSettings()
    )
    rows = [json.loads(line) for line in (tmp_path / "out" / "kto.jsonl").open()]
    labels = {row["completion"][0]["content"]: row["label"] for row in rows}
    assert labels["Answer 0."] is False
    assert "Answer 1." not in labels
    assert labels["Answer 2."] is True


def test_ratings_of_two_columns_are_asked_about(tmp_path: Path) -> None:
    path = Path(log(tmp_path / "log.jsonl", [1, 4, 5], "stars"))
    more = json.dumps({"prompt": "More?", "response": "No.", "user": "z", "score": 1})
    path.write_text(f"{path.read_text()}{more}\n")
    with pytest.raises(RlaifError, match=r"several columns .'stars' and 'score'.*--map rating="):
        import_feedback(str(path), tmp_path / "out", FeedbackSettings())

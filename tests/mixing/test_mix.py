"""`rlaif mix`: shares, duplicates, contamination, human share, card."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import datasets
import pytest
import yaml
from click.testing import CliRunner

from rlaif.audits.audit import audit
from rlaif.audits.rows import read_audited
from rlaif.audits.thresholds import Thresholds
from rlaif.cli.main import cli
from rlaif.data.licensing import load_licenses
from rlaif.data.mixes import DATA_FILE
from rlaif.errors import RlaifError
from rlaif.mixing.mix import mix
from rlaif.mixing.settings import MixPart, MixPlan, MixSettings
from rlaif.runs.judges import judges_of
from rlaif.text.duplicates import resemblance, shingles
from rlaif.text.near_duplicates import TextFields, near_duplicates
from rlaif.training.data import find_labels, read_preferences
from rlaif.training.gates import preference_rows, preference_uses
from rlaif.training.supervised import SupervisedAccount, read_supervised
from tests.generation.helpers import write_rows
from tests.mixing.helpers import HUMAN, PEOPLE, WORDS, mixed, pairs, run, text
from tests.review.helpers import labeled, store_of


def test_shares_are_kept_and_the_result_is_a_datasets_directory(tmp_path: Path) -> None:
    one = pairs(tmp_path / "one.jsonl", 90, 1)
    two = pairs(tmp_path / "two.jsonl", 40, 2)
    parts = [
        MixPart(data=one, share=3),
        MixPart(data=two, share=1, **PEOPLE, license="cc-by-4.0"),
    ]
    report, rows = mixed(tmp_path / "m", parts)
    assert (report.kind, report.rows, len(rows)) == ("preferences", 120, 120)
    sources = Counter(row["provenance"]["source"] for row in rows)
    assert sources == {one: 90, two: 30}
    assert len({row["prompt"][0]["content"] for row in rows}) == 120, "no row comes twice"
    first = [row["provenance"]["source"] for row in rows][:60]
    assert 0 < first.count(two) < 60, "shuffled"
    human = [row for row in rows if row["provenance"]["source"] == two]
    assert {row["provenance"]["status"] for row in human} == {"human"}
    assert {row["provenance"]["origins"]["chosen"]["license"] for row in human} == {"cc-by-4.0"}
    assert report.human_written == pytest.approx(0.25)
    again, _ = mixed(tmp_path / "again", parts)
    assert again.rows == 120
    same = [(tmp_path / name / "data" / "train.parquet").read_bytes() for name in ("m", "again")]
    assert same[0] == same[1], "the seed alone decides"
    assert mixed(tmp_path / "m", parts)[0] == report, "made already"
    with pytest.raises(RlaifError, match="holds another mix"):
        mixed(tmp_path / "m", parts, total=8)
    with pytest.raises(RlaifError, match=r"has 90 rows .*; 200 rows .* need 150.*--total 120"):
        mixed(tmp_path / "n", parts, total=200)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("mine")
    with pytest.raises(RlaifError, match="holds files but no mix"):
        mixed(tmp_path / "mine", parts)


def test_the_card_says_what_the_rows_say(tmp_path: Path) -> None:
    model = {"kind": "model", "model": "google/gemma-2-9b-it", "license": "gemma", "depth": 2}
    rows = [
        {
            "prompt": f"p {i} {text(random.Random(i))}",
            "completion": text(random.Random(i + 99)),
            "origin": model if i % 4 else HUMAN,
        }
        for i in range(40)
    ]
    data = write_rows(tmp_path / "a.jsonl", rows)
    report, found = mixed(tmp_path / "m", [MixPart(data=data, share=1)])
    assert report.kind == "sft"
    assert report.origins == {"google/gemma-2-9b-it": 30, "human": 10}
    assert report.depths == {"0": 10, "2": 30}
    origins = [row["provenance"]["origins"]["completion"] for row in found]
    assert Counter(o["model"] for o in origins) == {"google/gemma-2-9b-it": 30, "": 10}
    card = (tmp_path / "m" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other"
    assert front["configs"][0]["data_files"][0]["path"] == "data/train.parquet"
    assert "| google/gemma-2-9b-it | 30 | 75.0% |" in card
    assert "derivative under Gemma's terms" in card
    assert "Not checked for contamination: no evaluation data" in card
    (finding,) = (f for f in report.licenses_found if f["what"] == "completions")
    assert (finding["trains"], finding["count"]) == ("condition", 30)


def test_too_little_of_people_is_weighted_up_and_then_refused(tmp_path: Path) -> None:
    ai = pairs(tmp_path / "ai.jsonl", 96, 1)
    human = pairs(tmp_path / "h.jsonl", 4, 2)
    parts = [
        MixPart(data=ai, share=96),
        MixPart(data=human, share=4, **PEOPLE),
    ]
    report, rows = mixed(tmp_path / "m", parts)
    # By hand: w * 4 / (w * 4 + 96) = 0.1  =>  w = 96 / 36.
    assert report.human_factor == pytest.approx(96 / 36)
    weights = {row["provenance"]["human_written"]: row["weight"] for row in rows}
    assert weights == {True: pytest.approx(96 / 36), False: 1.0}
    total = sum(row["weight"] for row in rows)
    assert sum(
        r["weight"] for r in rows if r["provenance"]["human_written"]
    ) / total == pytest.approx(0.1)
    with pytest.raises(
        RlaifError, match=r"4 of 100 rows \(4\.0% by weight; 14\.3% with each weigh"
    ):
        mixed(tmp_path / "n", parts, min_human=0.2)
    with pytest.raises(RlaifError, match=r"0 of 96 rows.*96 rows have unknown origin"):
        mixed(tmp_path / "o", [MixPart(data=ai, share=1)])
    assert mixed(tmp_path / "p", [MixPart(data=ai, share=1)], min_human=0)[0].human_written == 0


def test_duplicates_across_sets_keep_what_people_said(tmp_path: Path) -> None:
    rng = random.Random(0)
    base = [(text(rng), text(rng, 40), text(rng, 40)) for _ in range(20)]
    ai, people = [], []
    for i, (prompt, chosen, rejected) in enumerate(base):
        ai.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        if i < 5:  # people say the opposite
            people.append({"prompt": prompt, "chosen": rejected, "rejected": chosen})
        elif i < 8:  # a word apart
            people.append({"prompt": prompt + " more", "chosen": chosen, "rejected": rejected})
        elif i < 10:  # another answer to the same prompt is no duplicate
            people.append({"prompt": prompt, "chosen": text(rng, 40), "rejected": rejected})
    parts = [
        MixPart(data=write_rows(tmp_path / "ai.jsonl", ai), share=12),
        MixPart(
            data=write_rows(tmp_path / "h.jsonl", people),
            share=10,
            human_written=True,
            human_labeled=True,
        ),
    ]
    report, rows = mixed(tmp_path / "m", parts)
    assert [p["duplicates"] for p in report.parts] == [8, 0]
    assert (report.opposed, report.rows) == (5, 22)
    chosen = {row["prompt"][0]["content"]: row["chosen"][0]["content"] for row in rows}
    for i in range(5):
        assert chosen[base[i][0]] == base[i][2], "people's word stands"


def test_near_duplicates_are_those_that_a_full_comparison_finds() -> None:
    rng = random.Random(4)
    rows: list[TextFields] = []
    for _ in range(120):
        prompt, answer = text(rng, rng.randint(1, 20)), text(rng, rng.randint(1, 30))
        rows.append(TextFields(prompt, answer))
        for _ in range(rng.randint(0, 2)):
            words = answer.split()
            for _ in range(rng.randint(0, 3)):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            rows.append(TextFields(prompt if rng.random() < 0.7 else text(rng, 8), " ".join(words)))
    rng.shuffle(rows)

    def near(one: str, two: str, t: float) -> bool:
        return resemblance(shingles(one), shingles(two)) >= t

    def short(row: TextFields) -> bool:
        return len(shingles(row.answer)) < 10

    for t in (0.3, 0.6, 0.9):
        kept: list[int] = []
        expected = {}
        for i, row in enumerate(rows):
            twin = next(
                (
                    j
                    for j in kept
                    if near(row.answer, rows[j].answer, t)
                    and near(row.prompt, rows[j].prompt, 1.0 if short(row) else t)
                ),
                None,
            )
            if twin is None:
                kept.append(i)
            else:
                expected[i] = twin
        assert near_duplicates(rows, t) == expected
        assert len(expected) > 5


def test_evaluation_data_is_kept_out(tmp_path: Path) -> None:
    rng = random.Random(2)
    secret = text(rng, 40)
    rows = [{"prompt": text(rng), "completion": text(rng), "origin": HUMAN} for _ in range(20)]
    rows[3]["prompt"] = "please: " + secret
    rows[7]["completion"] = "it says " + " ".join(secret.split()[10:30])
    rows[9]["completion"] = "it says " + " ".join(secret.split()[10:20])  # ten words: too short
    data = write_rows(tmp_path / "a.jsonl", rows)
    test = write_rows(tmp_path / "t.jsonl", [{"question": secret}])
    report, found = mixed(tmp_path / "m", [MixPart(data=data, share=1)], evaluations=[test])
    assert report.parts[0]["contaminated"] == 2
    assert len(found) == 18
    assert not any(" ".join(secret.split()[10:23]) in str(row) for row in found)


def test_kinds_meet_in_what_they_share(tmp_path: Path) -> None:
    rng = random.Random(2)
    one = pairs(tmp_path / "one.jsonl", 10, 1, origin=HUMAN)
    two = write_rows(
        tmp_path / "two.jsonl",
        [
            {"messages": [{"role": "user", "content": text(rng)}], "completion": text(rng)}
            for _ in range(10)
        ],
    )
    parts = [MixPart(data=one, share=1), MixPart(data=two, share=1)]
    report, rows = mixed(tmp_path / "m", parts)
    assert (report.kind, set(rows.column_names)) == (
        "sft",
        {"prompt", "completion", "weight", "provenance"},
    )
    assert mixed(tmp_path / "n", parts, kind="prompts")[0].rows == 20
    with pytest.raises(RlaifError, match=r"two\.jsonl"):
        mixed(tmp_path / "o", parts, kind="preferences")


def test_the_command_and_its_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs(Path("a.jsonl"), 40, 1)
    pairs(Path("h.jsonl"), 10, 2)
    Path("mix.yaml").write_text(
        "parts:\n  - {data: a.jsonl, share: 0.8}\n"
        "  - {data: h.jsonl, share: 0.2, human_written: true}\n"
        "min_human: 0.2\n"
    )
    assert run(monkeypatch, "mix", "--config", "mix.yaml", "-o", "m") == 0
    assert "50 rows (preferences); by weight, human-written 20.0%" in capsys.readouterr().out
    assert (
        run(monkeypatch, "mix", "a.jsonl=4", "h.jsonl=1", "--human-written", "h.jsonl", "-o", "n")
        == 0
    )
    one, two = (Path(f"{name}/data/train.parquet").read_bytes() for name in "mn")
    assert one == two
    wrong = Path("wrong.yaml")
    wrong.write_text("parts:\n  - {data: a.jsonl, share: -1}\n")
    capsys.readouterr()
    assert run(monkeypatch, "mix", "--config", "wrong.yaml", "-o", "o") == 2
    assert "wrong.yaml:2:" in (shown := capsys.readouterr().err)
    assert "greater than 0 (it is -1)" in shown
    for words, said in (
        (["a.jsonl"], "is not of the form DATA=SHARE"),
        (["a.jsonl=1", "a.jsonl=2"], "listed twice"),
        (["a.jsonl=1", "--human-labeled", "b"], "--human-labeled 'b' is not one of the mixed"),
        (["a.jsonl=1", "--quota", "x=0.1"], "a slice must be tag:NAME"),
        ([], "no data to mix"),
    ):
        assert run(monkeypatch, "mix", *words, "-o", "o") == 2
        assert said in capsys.readouterr().err
    assert not Path("o").exists()


def test_short_evaluation_prompts_are_found_as_a_whole(tmp_path: Path) -> None:
    rows = [
        {"prompt": "What is the capital of France?", "completion": "It is Paris, of course."},
        {"prompt": "What is the capital of Spain?", "completion": "It is Madrid, of course."},
        {"prompt": "Say it", "completion": "what is the capital of France"},
    ]
    data = write_rows(tmp_path / "a.jsonl", [{**row, "origin": HUMAN} for row in rows])
    test = write_rows(tmp_path / "t.jsonl", [{"question": "What is the capital of France?"}])
    report, found = mixed(tmp_path / "m", [MixPart(data=data, share=1)], evaluations=[test])
    assert (report.parts[0]["contaminated"], len(found)) == (2, 1)


def test_a_long_template_with_short_answers_is_no_duplication(tmp_path: Path) -> None:
    template = text(random.Random(3), 150)
    rows = [
        {"prompt": f"{template} review: {said}", "completion": "positive", "origin": HUMAN}
        for said in ("I love it", "Great kettle", "Works well", "So good", "I love it")
    ]
    report, _ = mixed(
        tmp_path / "m", [MixPart(data=write_rows(tmp_path / "a.jsonl", rows), share=1)]
    )
    assert (report.rows, report.parts[0]["duplicates"]) == (4, 1)


def test_weights_do_not_pile_up_from_mix_to_mix(tmp_path: Path) -> None:
    ai = pairs(tmp_path / "ai.jsonl", 90, 1)
    human = pairs(tmp_path / "h.jsonl", 5, 2)
    parts = [
        MixPart(data=ai, share=90),
        MixPart(data=human, share=5, **PEOPLE),
    ]
    mixed(tmp_path / "m", parts)
    again = [MixPart(data=str(tmp_path / "m"), share=1)]
    _, rows = mixed(tmp_path / "n", again, min_human=0.15)
    assert max(row["weight"] for row in rows) <= 4
    with pytest.raises(RlaifError, match=r"18\.2% with each weighted 4x"):
        mixed(tmp_path / "o", again, min_human=0.2)


def test_what_people_disliked_is_nothing_to_learn(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q {i}", "completion": text(random.Random(i)), "label": i % 2 == 0}
        for i in range(6)
    ]
    data = write_rows(tmp_path / "kto.jsonl", rows)
    report, _ = mixed(tmp_path / "m", [MixPart(data=data, share=1, human_written=True)])
    assert (report.rows, report.parts[0]["unreadable"]) == (3, 3)
    account = SupervisedAccount()
    assert len(read_supervised(data, account)) == 3
    assert "labeled as bad" in account.unreadable[0]


def test_a_mix_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    part = MixPart(data=pairs(tmp_path / "one.jsonl", 40, 1), share=1, **PEOPLE)
    out = tmp_path / "m"
    before, _ = mixed(out, [part])
    bytes_before = (out / DATA_FILE).read_bytes()
    for gone in ("README.md", DATA_FILE):
        (out / gone).unlink()
        mixed(out, [part])
        assert (out / gone).exists()
    (out / "mix.json").unlink()
    with pytest.raises(RlaifError, match="holds files but no mix"):
        mixed(out, [part])
    (out / ".unfinished").touch()
    again, _ = mixed(out, [part])
    assert again.parts == before.parts
    assert (out / DATA_FILE).read_bytes() == bytes_before
    assert not (out / ".unfinished").exists()


def test_the_license_of_a_judge_is_that_of_its_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    evidence = {"judge": "mean of A, B", "status": "decided"}
    rows = [
        {
            "prompt": f"q {i}",
            "chosen": f"yes {i}",
            "rejected": f"no {i}",
            "p_chosen": 0.9,
            "provenance": evidence,
        }
        for i in range(20)
    ]
    write_rows(run / "preferences.jsonl", rows)
    judges = [
        {"kind": "model", "model": "me/A", "license": "llama2"},
        {"kind": "model", "model": "me/B", "license": "mit"},
    ]
    config = {"judge": {"model": "mean of A, B"}}
    (run / "run.yaml").write_text(yaml.safe_dump(config))
    manifest = {"config": config, "counts": {}, "seconds": 1, "judges": judges}
    (run / "manifest.json").write_text(json.dumps(manifest))
    plain = pairs(tmp_path / "one.jsonl", 20, 1)
    parts = [
        MixPart(data=str(run), share=1),
        MixPart(data=plain, share=1, **PEOPLE),
    ]
    report, _ = mixed(tmp_path / "m", parts)
    (found,) = report.findings
    assert (found.use.model, found.use.license, found.use.count) == ("me/A", "llama2", 20)
    # And of a mix of the mix, and before a training.
    again, _ = mixed(tmp_path / "n", [MixPart(data=str(tmp_path / "m"), share=1)])
    assert [f.use.model for f in again.findings] == ["me/A"]
    found_rows = read_preferences(find_labels(tmp_path / "n"))
    used = preference_uses(found_rows, judges_of(str(tmp_path / "n")))
    assert {(u.model, u.license, u.count) for u in used if u.what == "labels"} == {
        ("me/A", "llama2", 20),
        ("me/B", "mit", 20),
    }


def test_another_license_file_is_another_mix(tmp_path: Path) -> None:
    parts = [
        MixPart(
            data=pairs(tmp_path / "one.jsonl", 20, 1),
            share=1,
            human_written=True,
            human_labeled=True,
        )
    ]
    plan = MixPlan(parts=parts, quotas=[], evaluations=[], settings=MixSettings())
    mix(plan, tmp_path / "m", load_licenses())
    book = tmp_path / "mine.yaml"
    book.write_text("schema: 1\nunknown: refuse\n")
    with pytest.raises(RlaifError, match=r"holds another mix \(licenses: "):
        mix(plan, tmp_path / "m", load_licenses(str(book)))


def test_weights_in_a_table_count(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    lines = [f"q {i},yes {i},no {i},{3 if i < 5 else ''}" for i in range(10)]
    table.write_text("prompt,chosen,rejected,weight\n" + "\n".join(lines) + "\n")
    _, rows = mixed(tmp_path / "m", [MixPart(data=str(table), share=1, **PEOPLE)])
    assert Counter(row["weight"] for row in rows) == {3.0: 5, 1.0: 5}


def test_a_weight_that_is_none_is_a_row_left_out(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    odd = ["-5", '"2,5"', "heavy", "inf", "1e12", "nan", "2.5", ""]
    lines = [f"q {i},yes {i},no {i},{weight}" for i, weight in enumerate(odd)]
    table.write_text("prompt,chosen,rejected,weight\n" + "\n".join(lines) + "\n")
    report, rows = mixed(tmp_path / "m", [MixPart(data=str(table), share=1, **PEOPLE)])
    assert Counter(row["weight"] for row in rows) == {2.5: 1, 1.0: 2}
    (part,) = report.parts
    assert part["unreadable"] == 5
    assert "weight '-5' is not a number from 0 to 1e9" in str(part)


def test_another_mix_of_the_same_name_is_not_taken_from_the_cache_of_datasets(
    tmp_path: Path,
) -> None:
    found = []
    for i, count in enumerate((12, 30)):
        part = MixPart(
            data=pairs(tmp_path / f"{i}.jsonl", count, i),
            share=1,
            human_written=True,
            human_labeled=True,
        )
        (tmp_path / str(i)).mkdir()
        mixed(tmp_path / str(i) / "data", [part])
        loaded = datasets.load_dataset(
            str(tmp_path / str(i) / "data"), split="train", cache_dir=str(tmp_path / "cache")
        )
        found.append(len(loaded))
    assert found == [12, 30]


def test_evaluations_are_read_where_they_are_tested_and_with_their_answers(tmp_path: Path) -> None:
    rng = random.Random(5)
    long = text(rng, 30)
    rows = [{"prompt": text(rng), "completion": text(rng)} for _ in range(10)]
    leaked = [rows[0]["prompt"], long]
    rows.append({"prompt": "another question", "completion": f"so: {long} indeed"})
    rows.append({"prompt": "yes or no?", "completion": "no"})
    data = write_rows(tmp_path / "sft.jsonl", rows)
    test = datasets.Dataset.from_list(
        [{"question": leaked[0], "answer": "no"}, {"question": "what else?", "answer": leaked[1]}]
    )
    train = datasets.Dataset.from_list([{"question": rows[1]["prompt"], "answer": "x"}])
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "both"))
    for number, (name, out) in enumerate(
        ((f"{tmp_path}/both", 2), (f"{tmp_path}/both:test", 2), (f"{tmp_path}/both:train", 1))
    ):
        report, mixed_rows = mixed(
            tmp_path / f"m{number}",
            [MixPart(data=data, share=1, human_written=True)],
            evaluations=[name],
        )
        assert report.parts[0]["contaminated"] == out
        kept = {row["completion"][0]["content"] for row in mixed_rows}
        assert "no" in kept, "an answer of a word says nothing"
    with pytest.raises(RlaifError, match="no split 'dev'"):
        mixed(tmp_path / "x", [MixPart(data=data, share=1)], evaluations=[f"{tmp_path}/both:dev"])


@pytest.mark.parametrize("label", [False, "False", 0, "bad"])
def test_what_somebody_labeled_as_bad_is_nothing_to_learn(tmp_path: Path, label: object) -> None:
    rows = [{"prompt": f"q {i}", "completion": f"a {i}", "label": True} for i in range(12)]
    rows.append({"prompt": "q", "completion": "starve, you idiot", "label": label})
    data = write_rows(tmp_path / "kto.jsonl", rows)
    report, found = mixed(tmp_path / "m", [MixPart(data=data, share=1, human_written=True)])
    assert len(found) == 12
    assert "labeled as bad" in report.parts[0]["first unreadable"][0]
    account = SupervisedAccount()
    assert len(read_supervised(data, account)) == 12
    assert len(account.unreadable) == 1


def test_chats_that_end_with_the_answer_are_completions(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": r, "content": f"{r} {i}"} for r in ("user", "assistant")]}
        for i in range(12)
    ]
    data = write_rows(tmp_path / "chats.jsonl", rows)
    report, found = mixed(tmp_path / "m", [MixPart(data=data, share=1, human_written=True)])
    assert report.kind == "sft"
    assert {row["completion"][0]["content"] for row in found} == {
        f"assistant {i}" for i in range(12)
    }


def test_who_wrote_the_chosen_completion_counts(tmp_path: Path) -> None:
    model = {"kind": "model", "model": "m", "depth": 1}
    rows = [
        {
            "prompt": f"q {i}",
            "chosen": f"a {i}",
            "rejected": f"b {i}",
            "chosen_origin": HUMAN if i < 5 else model,
            "rejected_origin": model if i < 5 else HUMAN,
        }
        for i in range(20)
    ]
    data = write_rows(tmp_path / "p.jsonl", rows)
    report, _ = mixed(tmp_path / "m", [MixPart(data=data, share=1)])
    assert report.human_written == 0.25
    audited = read_audited(str(tmp_path / "m"))
    assert sum(row.kind == "human" for row in audited) == 5


def test_a_mix_of_a_mix_knows_how_good_its_labels_are(tmp_path: Path) -> None:
    run = labeled(tmp_path, 40)
    plain = pairs(tmp_path / "people.jsonl", 20, 3)
    parts = [
        MixPart(data=str(run), share=1),
        MixPart(data=plain, share=1, **PEOPLE),
    ]
    mixed(tmp_path / "m", parts)
    mixed(tmp_path / "n", [MixPart(data=str(tmp_path / "m"), share=1)])
    one, two = ((tmp_path / name / "README.md").read_text() for name in "mn")
    heading = f"### `{run}`: judge `hashed`"
    assert heading in one
    assert heading in two
    # What people say of the run later is another mix.
    with closing(store_of(run, 20, overlap=0.0)) as store:
        number = store.next_for("anna")
        assert number is not None
        store.decide(number, "anna", "a", first="a")
    CliRunner().invoke(cli, ["labels", "report", str(run)], catch_exceptions=False)
    with pytest.raises(RlaifError, match=r"holds another mix \(parts"):
        mixed(tmp_path / "m", parts)


def test_the_card_names_licenses_as_the_hub_does(tmp_path: Path) -> None:
    for number, (name, shown) in enumerate(
        (("Apache 2.0", "apache-2.0"), ("CC-BY-4.0", "cc-by-4.0"), ("ours", "other"))
    ):
        rows = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(10)]
        data = write_rows(tmp_path / f"{number}.jsonl", rows)
        mixed(
            tmp_path / f"m{number}",
            [MixPart(data=data, share=1, human_written=True, license=name)],
        )
        card = (tmp_path / f"m{number}" / "README.md").read_text()
        assert f"license: {shown}\n" in card


def test_a_mix_and_its_audit_tell_the_same_share_of_human_labels(tmp_path: Path) -> None:
    """A completion that is chosen over six others, once by people and five times by a judge."""
    model = {"kind": "model", "model": "m", "depth": 1}
    rows = [
        {
            "prompt": f"q {i} {text(random.Random(i))}",
            "chosen": f"best {i} {text(random.Random(50 + i))}",
            "rejected": f"other {i} {k} {text(random.Random(1000 * i + k))}",
            "origin": model,
            "provenance": {"status": "human"} if k == 0 else {"status": "decided", "judge": "j"},
        }
        for i in range(12)
        for k in range(6)
    ]
    data = write_rows(tmp_path / "a.jsonl", rows)
    report, _ = mixed(tmp_path / "m", [MixPart(data=data, share=1)], min_human=0)
    assert report.human_labeled == pytest.approx(1 / 6)
    audited = audit(read_audited(str(tmp_path / "m")), None, Thresholds())
    assert audited.human_labeled == pytest.approx(1 / 6)
    kept = preference_rows(read_preferences(find_labels(tmp_path / "m")))
    assert audit(kept, None, Thresholds()).human_labeled == pytest.approx(1 / 6)


def test_a_human_label_is_no_human_text(tmp_path: Path) -> None:
    model = {"kind": "model", "model": "m", "depth": 1}
    ai = pairs(tmp_path / "ai.jsonl", 40, 1, origin=model)
    said = pairs(tmp_path / "said.jsonl", 40, 2, origin=model)
    parts = [MixPart(data=ai, share=1), MixPart(data=said, share=1, human_labeled=True)]
    with pytest.raises(RlaifError, match=r"0 of 80 rows.*40 rows have a human label, which does"):
        mixed(tmp_path / "m", parts)
    report, _ = mixed(tmp_path / "n", parts, min_human=0)
    assert (report.human_written, report.human_labeled) == (0.0, 0.5)
    audited = audit(read_audited(str(tmp_path / "n")), None, Thresholds(min_human=0.2))
    assert (audited.human_written, audited.human_labeled) == (0.0, 0.5)
    assert audited.sentences == ["the human-written share is 0.0%, below the minimum of 20.0%"]
    with pytest.raises(ValueError, match="`human_written: true`, `human_labeled: true`"):
        MixPart.model_validate({"data": ai, "share": 1, "human": True})
    texts = write_rows(tmp_path / "t.jsonl", [{"prompt": "q", "completion": "a"}])
    with pytest.raises(RlaifError, match=r"labeled by humans, but has no pairs.*--human-written"):
        mixed(tmp_path / "o", [MixPart(data=texts, share=1, human_labeled=True)])

"""`rlaif audit`: what trips, what does not, and what it shows."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from rlaif.audits.audit import AuditExtras, AuditReport, audit
from rlaif.audits.checks import AuditCheck, ScaledEstimate, decide, held, share_ratio
from rlaif.audits.models import Embeddings, Perplexity
from rlaif.audits.rows import AuditRow, read_audited
from rlaif.audits.thresholds import Thresholds, load_thresholds
from rlaif.cli.main import main
from rlaif.engines.hub import resolve_model
from rlaif.errors import RlaifError
from rlaif.text.novelty import words
from rlaif.text.tails import kept, tail
from tests.audits.helpers import people, rows
from tests.generation.helpers import write_rows


def values(report: AuditReport, *groups: str) -> dict[str, float]:
    return {c.name: c.value for c in report.checks if c.group in groups}


def groups(report: AuditReport) -> set[str]:
    return {item["group"] for item in report.tripped}


@pytest.mark.slow
def test_text_of_the_same_people_seldom_trips() -> None:
    """At most one audit in twenty; `scripts/measure_audit.py` counts many more."""
    alarms = 0
    for seed in range(20):
        size = random.Random(seed).choice([30, 60])
        texts = people(seed, 2 * size)
        report = audit(rows(texts[:size]), rows(texts[size:]), Thresholds(seed=seed))
        alarms += bool(report.tripped)
    assert alarms <= 1


@pytest.mark.slow
def test_planted_duplication_is_seen_the_more_there_is() -> None:
    texts = people(3, 240)
    reference = rows(texts[120:])
    found = []
    for share in (0.0, 0.25, 0.5, 0.75, 0.95):
        kept_ = texts[: round(120 * (1 - share))]
        rng = random.Random(0)
        copied = [*kept_, *(rng.choice(kept_) for _ in range(120 - len(kept_)))]
        found.append(audit(rows(copied), reference, Thresholds()))
    for name in values(found[0], "diversity"):
        series = [values(report, "diversity")[name] for report in found]
        assert series == sorted(series, reverse=True), name
        assert series[-1] < 0.4
    copies = [values(report, "duplicates")["near-duplicate share"] for report in found]
    assert copies == sorted(copies)
    assert not found[0].tripped
    assert all("duplicates" in groups(report) for report in found[1:])
    assert groups(found[-1]) >= {"diversity", "tail", "duplicates"}


def test_a_tail_is_the_rarest_words_and_what_is_kept_of_it() -> None:
    split = [["the"] * 6 + ["cat", "sat"], ["the", "the", "cat", "mat"]]
    # 12 words: 8 the, 2 cat, 1 sat, 1 mat. A fifth is 2.4 words: sat and mat.
    assert tail(split, 1, 0.2) == {"sat", "mat"}
    assert tail(split, 1, 0.4) == {"sat", "mat", "cat"}
    assert tail(split, 2, 0.0) == {"cat sat", "cat mat"}
    assert kept([["sat", "sat", "dog", "the"]], frozenset({"sat", "mat"}), 1) == 1 / 4
    # Cut the rare words out of a text, and only the tail is gone.
    texts = people(5, 300)
    rare = {w for w, n in Counter(w for t in texts for w in words(t)).items() if n < 12}
    plain = [" ".join(w for w in t.split() if not rare & set(words(w))) for t in texts[:150]]
    report = audit(rows(plain), rows(texts[150:]), Thresholds())
    shares = values(report, "tail", "diversity")
    assert shares["vocabulary tail (words)"] < 0.5
    assert shares["diversity by self bleu"] > 0.7
    assert "tail" in groups(report)


@pytest.mark.slow
def test_slices_that_shrink() -> None:
    texts = people(6, 400)

    def tagged(part: list[str], tagged_count: int, language: int) -> list[AuditRow]:
        german = "Das ist ein kurzer deutscher Text über nichts Besonderes, Nummer {}, und so fort."
        return [
            AuditRow(
                f"p{i}",
                [german.format(i) if i < language else text],
                "human",
                0,
                tags=frozenset({"law"} if i % 200 < tagged_count else {"art"}),
                raw={"meta": {"region": "north" if i % 5 else "south"}},
            )
            for i, text in enumerate(part)
        ]

    reference = tagged(texts[200:], 60, 40)
    report = audit(
        tagged(texts[:200], 8, 3), reference, Thresholds(), AuditExtras(("meta.region",))
    )
    wrong = " ".join(report.sentences)
    assert "slice tag:law is" in wrong
    assert "slice language:de is" in wrong
    assert "region" not in wrong
    shares = values(report, "slices")
    # By hand, with half a count added: (8.5 / 200.5) / (60.5 / 200.5).
    assert shares["slice tag:law"] == pytest.approx(8.5 / 60.5)
    assert "slice meta.region:south" in shares
    fine = audit(tagged(texts[:200], 55, 38), reference, Thresholds())
    assert "slices" not in groups(fine)


@pytest.mark.slow
def test_drift_of_format_tone_and_attributes_by_slice() -> None:
    texts = people(7, 300)
    marked = ["# Certainly!\n- **" + "** of course\n- **".join(t.split()[:30]) for t in texts[:150]]

    def shouting(said: Sequence[str]) -> list[float]:
        return [sum(c == "!" for c in text) for text in said]

    extras = AuditExtras(attributes={"shouting": shouting})
    report = audit(rows(marked), rows(texts[150:]), Thresholds(), extras)
    wrong = " ".join(report.sentences)
    assert "format (Markdown marks per word)" in wrong
    assert "tone (assertive phrases per word)" in wrong
    assert "shouting" in wrong
    english = next(s for s in report.by_slice if s["slice"] == "language:en")
    by_hand = [t.count("!") for t in texts[150:]]
    assert english["reference"] == pytest.approx(np.mean(by_hand), abs=0.05)
    assert english["data"] >= 1

    def broken(said: Sequence[str]) -> list[float]:
        return [1.0]

    with pytest.raises(RlaifError, match="'bad' returned 1 numbers for 150 texts"):
        audit(
            rows(marked), rows(texts[150:]), Thresholds(), AuditExtras(attributes={"bad": broken})
        )


def test_perplexity_is_the_models_own() -> None:
    """Text by text, without padding, from the model's logits."""
    texts = ["The hedge needs rain water.", "Why?", *people(1, 5)]
    found = Perplexity("demo")(texts)
    path = resolve_model("demo", None, embedded="policy").path
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    for text, value in zip(texts, found, strict=True):
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=512).input_ids
        ids = ids[:, : model.config.max_position_embeddings]
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        own = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
        assert value == pytest.approx(float(own), abs=1e-4)


@pytest.mark.slow
def test_predictable_text_and_narrow_embeddings_trip() -> None:
    texts = people(2, 200)
    few = [f"{texts[0]} {i}" for i in range(100)]
    extras = AuditExtras(
        perplexity=lambda said: [4.0 + k % 7 / 10 - (t[-1].isdigit()) for k, t in enumerate(said)],
        embed=Embeddings("demo"),
    )
    report = audit(rows(few), rows(texts[100:]), Thresholds(), extras)
    (check,) = (c for c in report.checks if c.group == "perplexity")
    assert check.value == pytest.approx(math.exp(-1), abs=0.1)
    assert "perplexity" in groups(report)
    spread = values(report, "diversity")["diversity by embedding"]
    assert spread < 0.8
    same = audit(rows(texts[:100]), rows(texts[100:]), Thresholds(), extras)
    assert values(same, "diversity")["diversity by embedding"] == pytest.approx(1.0, abs=0.3)
    assert not same.tripped


def test_the_spread_of_embeddings_is_the_mean_cosine_distance() -> None:
    texts = people(9, 60)
    embed = Embeddings("demo")
    units = embed(texts)
    assert np.allclose((units**2).sum(1), 1.0)
    report = audit(rows(texts[:30]), rows(texts[30:]), Thresholds(), AuditExtras(embed=embed))
    (check,) = (c for c in report.checks if c.name == "diversity by embedding")
    pairs = [1 - units[i] @ units[j] for i in range(30) for j in range(30) if i != j]
    # The report's is a mean over halves.
    assert check.data == pytest.approx(np.mean(pairs), rel=0.1)


def test_only_what_chance_does_not_explain_trips() -> None:
    """Many checks at their very limit: in at most one audit in twenty any of them trips."""
    rng = np.random.default_rng(0)
    tripped = 0
    for _ in range(2000):
        made = [
            held(
                AuditCheck(name="x", group="tail", value=0, low=0, high=0, limit=0.8),
                ScaledEstimate(0.8 + rng.normal(0, 0.1), 0.1, False),
            )
            for _ in range(12)
        ]
        tripped += any(check.tripped for check in decide(made))
    assert tripped / 2000 <= 0.06
    found = share_ratio(hits=10, total=100, others=40, of=100, limit=0.5)
    assert found.at(0) == pytest.approx(10.5 / 40.5)
    ((check, _),) = [
        held(
            AuditCheck(name="x", group="tail", value=0, low=0, high=0, limit=0.8),
            ScaledEstimate(0.5, 0.01, False),
        )
    ]
    assert decide([(check, ScaledEstimate(0.5, 0.01, False))])[0].tripped


def test_pairs_are_read_as_what_is_learned_from_them(tmp_path: Path) -> None:
    pairs = [{"prompt": "q", "chosen": "best", "rejected": f"worse {i}"} for i in range(3)] + [
        {"prompt": "q", "chosen": "best", "rejected": "worse 0"}
    ]
    data = write_rows(tmp_path / "p.jsonl", pairs)
    found = read_audited(data)
    # Chosen over three others it was written once; the pair that comes twice is a duplicate.
    assert [row.texts for row in found] == [["best"], ["best"]]
    assert sum(row.weight for row in found) == 4
    assert sorted(row.texts[0] for row in read_audited(data, "rejected")) == [
        "worse 0",
        "worse 0",
        "worse 1",
        "worse 2",
    ]


def test_thresholds_are_yaml_with_places(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("floor: 0.5\ndrift: 2\n")
    assert load_thresholds(path).floor == 0.5
    path.write_text("floor: 0.5\nflor: 0.6\n")
    with pytest.raises(RlaifError, match=r"t\.yaml:2:\d+.*unknown setting 'flor'"):
        load_thresholds(path)
    path.write_text("floor: 0.5\ndrift: -1\n")
    with pytest.raises(RlaifError, match=r"t\.yaml:2:\d+.*greater than 0 \(it is -1\)"):
        load_thresholds(path)


def command(monkeypatch: pytest.MonkeyPatch, *given: Any) -> int:
    monkeypatch.setattr("sys.argv", ["rlaif", "audit", *map(str, given)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


@pytest.mark.slow
def test_the_command_writes_a_page_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = people(4, 240)
    prompt_injection = "<script>document.title = 'owned'</script>"

    def written(name: str, said: list[str]) -> str:
        return write_rows(
            tmp_path / name,
            [
                {"prompt": f"{prompt_injection} {i}", "completion": t, "tags": [prompt_injection]}
                for i, t in enumerate(said)
            ],
        )

    human, good = written("human.jsonl", texts[:120]), written("good.jsonl", texts[120:])
    bad = written("<b>bad.jsonl", texts[:5] * 24)
    assert command(monkeypatch, good, "--against", human, "-o", tmp_path / "good") == 0
    assert command(monkeypatch, bad, "--against", human, "-o", tmp_path / "bad") == 1
    shown = capsys.readouterr()
    assert "thresholds are crossed: diversity by" in shown.err
    assert "Mix in human data" in shown.err
    facts = json.loads((tmp_path / "bad" / "audit.json").read_text())
    assert {item["group"] for item in facts["tripped"]} >= {"diversity", "duplicates"}
    loose = tmp_path / "loose.yaml"
    loose.write_text(
        "floor: 0.0001\ntail_floor: 0.0001\nduplicates: 1\nslice_floor: 0.01\ndrift: 9\n"
    )
    assert command(monkeypatch, bad, "--against", human, "--thresholds", loose) == 0
    assert command(monkeypatch, good, "--json") == 0
    shown_json = capsys.readouterr().out
    alone = json.loads(shown_json[shown_json.index("\n{\n") :])
    assert "no comparison data" in alone["notes"][1]
    with sync_playwright() as chromium:
        browser = chromium.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(f"file://{tmp_path / 'bad' / 'audit.html'}")
        assert "audit" in page.title()
        assert page.locator(".tripped").count() >= 2
        assert page.locator("tr.bad svg circle").count() >= 5
        assert "bad.jsonl" in page.locator("h1").inner_text()
        assert page.evaluate("document.body.scrollWidth <= 390")
        browser.close()


def test_a_slice_that_is_gone_trips_exactly_when_chance_does_not_explain_it() -> None:
    """Against the binomial distribution summed by hand."""
    for n, c, gone in ((100, 30, True), (400, 40, True), (100, 10, False)):
        estimate = share_ratio(hits=0, total=n, others=c, of=n, limit=0.5)
        assert estimate.p == pytest.approx((1 - 1 / 3) ** c)
        check = AuditCheck(name="slice", group="slices", value=0, low=0, high=0, limit=0.5)
        assert decide([(check, estimate)] * 10)[0].tripped is gone


@pytest.mark.slow
def test_rows_of_few_prompts_hang_together() -> None:
    """Eight texts about each of a few subjects on a side: chance is the choice of subjects."""
    tripped = 0
    for seed in range(6):
        order = random.Random(seed).sample(sorted(topics), 44)
        sides = [
            [
                AuditRow(name, [part], "human", 0)
                for name in names
                for part in [" ".join(p.split()) for p in topics[name].split("\n\n")][1:9]
                if len(part.split()) >= 12
            ]
            for names in (order[:22], order[22:])
        ]
        tripped += bool(audit(*sides, Thresholds(seed=seed)).tripped)
    assert tripped <= 1
    few = [AuditRow(f"p{i % 5}", [t], "human", 0) for i, t in enumerate(people(1, 60))]
    report = audit(few, few, Thresholds())
    assert any("one side has only 5 distinct prompts" in note for note in report.notes)


def test_repetition_is_counted_over_all_rows_and_by_weight() -> None:
    texts = people(8, 300)
    many = [
        AuditRow(f"p{i % 1500}", [f"{texts[i % 300]} {i % 1500}"], "model", 1) for i in range(4500)
    ]
    assert "duplicates" in groups(audit(many, None, Thresholds()))
    five = [AuditRow(f"q{i}", [texts[i % 5]], "model", 1) for i in range(600)]
    assert "duplicates" in groups(audit(five, None, Thresholds()))
    fine = [AuditRow(f"q{i}", [t], "model", 1) for i, t in enumerate(texts[:60])]
    assert not audit(fine, None, Thresholds()).tripped
    heavy = [AuditRow("q", [texts[99]], "model", 1, weight=5000.0), *fine]
    assert "duplicates" in groups(audit(heavy, None, Thresholds()))
    labels = [AuditRow(f"q{i}", [("yes", "no")[i % 2]], "model", 1) for i in range(200)]
    assert not audit(labels, None, Thresholds()).tripped
    refusals = [AuditRow(f"q{i}", ["I can not."], "model", 1) for i in range(200)]
    assert "duplicates" in groups(audit(refusals, None, Thresholds()))


def test_an_attribute_is_tested_in_each_slice() -> None:
    texts = people(3, 240)

    def tagged(part: list[str]) -> list[AuditRow]:
        return [
            AuditRow(f"p{i}", [t], "human", 0, tags=frozenset({"law"} if i < 30 else {"art"}))
            for i, t in enumerate(part)
        ]

    toxic = set(texts[:30])
    extras = AuditExtras(
        attributes={"toxicity": lambda said: [float(t in toxic) + (hash(t) % 5) / 10 for t in said]}
    )
    report = audit(tagged(texts[:120]), tagged(texts[120:]), Thresholds(), extras)
    wrong = " ".join(report.sentences)
    assert "toxicity in tag:law" in wrong
    assert "toxicity in tag:art" not in wrong


def test_scorers_that_fail_are_the_users_and_say_so() -> None:
    texts = people(5, 60)

    def broken(said: Sequence[str]) -> list[float]:
        raise KeyError("model")

    with pytest.raises(RlaifError, match="'bad' failed \\(KeyError"):
        audit(
            rows(texts[:30]),
            rows(texts[30:]),
            Thresholds(),
            AuditExtras(attributes={"bad": broken}),
        )
    nothing = AuditExtras(attributes={"none": lambda said: [float("nan")] * len(said)})
    report = audit(rows(texts[:30]), rows(texts[30:]), Thresholds(), nothing)
    assert any("attribute 'none'" in note for note in report.notes)


@pytest.mark.slow
def test_a_collapse_on_few_prompts_is_seen_and_few_subjects_are_none() -> None:
    texts = people(6, 400)
    opening = "as everybody knows there is not much to be said here of that which was asked but "
    collapsed = [
        AuditRow(f"p{i % 15}", [opening + " ".join(texts[i % 12].split()[:20])], "model", 1)
        for i in range(300)
    ]
    reference = [AuditRow(f"q{i}", [t], "human", 0) for i, t in enumerate(texts)]
    report = audit(collapsed, reference, Thresholds())
    assert any(item["group"] == "diversity" for item in report.tripped)
    for seed in range(6):
        order = random.Random(seed).sample(sorted(topics), 30)
        sides = [
            [
                AuditRow(name, [part], "human", 0)
                for name in names
                for part in [" ".join(p.split()) for p in topics[name].split("\n\n")][1:40]
                if len(part.split()) >= 12
            ]
            for names in (order[:15], order[15:])
        ]
        assert audit(*sides, Thresholds(seed=seed)).sentences == []


def test_columns_that_the_data_has_not_are_noted_and_unknown_ones_refused() -> None:
    texts = people(4, 120)
    human = [
        AuditRow(f"p{i}", [t], "human", 0, raw={"topic": "ab"[i % 2]})
        for i, t in enumerate(texts[:60])
    ]
    data = [AuditRow(f"q{i}", [t], "human", 0) for i, t in enumerate(texts[60:])]
    report = audit(data, human, Thresholds(), AuditExtras(columns=("topic",)))
    assert not [c for c in report.checks if c.name.startswith("slice topic")]
    assert any("column 'topic': missing from the data" in note for note in report.notes)
    with pytest.raises(RlaifError, match="has a column 'tpoic'"):
        audit(data, human, Thresholds(), AuditExtras(columns=("tpoic",)))


def test_defaults_that_are_written_down_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("min_human: 0.1\nfloor: 0.85\n")
    assert load_thresholds(file).facts == Thresholds().facts
    assert Thresholds(min_human=0.2).facts["min_human_from_depth"] == 0

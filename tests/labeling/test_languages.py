"""Principles and templates in several languages: each row is asked in its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.constitution.load import load_constitution
from rlaif.constitution.review import diff, lint
from rlaif.data.messages import BadRow
from rlaif.data.row_rubrics import read_language
from rlaif.engines.scripted import ByteCodec
from rlaif.errors import RlaifError
from rlaif.judging.questions import plan_questions, principles_for
from rlaif.judging.rendering import Renderer
from rlaif.judging.row_language import language_for, with_language
from rlaif.labeling.estimate import estimate
from rlaif.labeling.job import prepare, run_label
from rlaif.records import Pair
from rlaif.runs.context import RunContext
from rlaif.templates.judge import load_judge_template
from tests.labeling.helpers import rows, settings

ENGLISH = "Can you tell me how the weather is going to be in the mountains this weekend?"
GERMAN = "Kannst du mir sagen, wie das Wetter am Wochenende in den Bergen werden soll?"
DUTCH = "Kun je mij vertellen hoe het weer dit weekend in de bergen gaat worden?"
TEXT = """schema: 1
name: two-languages
version: "1"
principles:
  - id: polite
    preference: Which response is more polite?
    rationale: People like it.
    critique: What is rude?
    revision: Be polite.
    translations:
      de:
        preference: Welche Antwort ist höflicher?
        critique: Was ist unhöflich?
  - id: short
    preference: Which response is shorter?
"""


def write(folder: Path, text: str = TEXT) -> str:
    path = folder / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def pair(prompt: str, language: str = "") -> Pair:
    said = [[{"role": "assistant", "content": text}] for text in ("yes", "no")]
    return Pair("1", [{"role": "user", "content": prompt}], *said, language=language)  # type: ignore[arg-type]


def asked(found: Pair, path: str, template: str = "pairwise") -> list[str]:
    """The prompts about a pair, as the judge reads them."""
    constitution = load_constitution(path).constitution
    found = with_language(found, constitution)
    renderer = Renderer(load_judge_template(template), ByteCodec())
    questions = plan_questions(found, principles_for(found, constitution), orders="one")
    return [
        bytes(request.token_ids).decode() for request in renderer.requests(found, questions, "q")
    ]


def test_a_row_is_asked_in_its_language(tmp_path: Path) -> None:
    path = write(tmp_path)
    polite, short = asked(pair(GERMAN), path)
    assert "[Grundsatz]\nWelche Antwort ist höflicher?\n\nWhy it matters: People like it." in polite
    assert polite.endswith("Besser ist Antwort")
    assert "[Grundsatz]\nWhich response is shorter?" in short
    for other in (ENGLISH, DUTCH):
        polite, _ = asked(pair(other), path)
        assert "[Principle]\nWhich response is more polite?" in polite
    # What the row says goes before what is found.
    assert "[Grundsatz]" in asked(pair(ENGLISH, "de"), path)[0]
    assert "[Principle]" in asked(pair(GERMAN, "en"), path)[0]


def test_without_translations_nothing_changes(tmp_path: Path) -> None:
    plain = write(tmp_path, TEXT.partition("    translations:")[0])
    assert with_language(pair(GERMAN), load_constitution(plain).constitution).language == ""
    assert "[Principle]" in asked(pair(GERMAN), plain)[0]
    # The address of a constitution without translations is what it was before there were any.
    said = load_constitution(plain).constitution
    with_none = TEXT.partition("    translations:")[0] + "    translations: {}\n"
    assert load_constitution(write(tmp_path, with_none)).constitution.hash == said.hash
    assert load_constitution(write(tmp_path)).constitution.hash != said.hash


def test_a_run_says_in_which_language_it_asked(tmp_path: Path) -> None:
    made: list[dict[str, Any]] = [
        {"prompt": GERMAN, "responses": ["ja doch", "nein danke"], "lang": "de-AT"},
        {"prompt": ENGLISH, "responses": ["yes please", "no thanks"], "lang": "en"},
        {"prompt": GERMAN, "responses": ["ach ja", "ach nein"], "lang": "en"},
        {"prompt": GERMAN, "responses": ["eins", "zwei"], "lang": "German"},
        {"prompt": GERMAN, "responses": ["drei", "vier"]},
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in made))
    out = tmp_path / "run"
    from rlaif.data.layout import Layout

    layout = Layout(prompt=("prompt",), responses=("responses[]",), language="lang")
    job = prepare(str(data), write(tmp_path), settings(template="pairwise", layout=layout))
    done = run_label(job, out, context=RunContext(cache_dir=tmp_path / "cache"))
    labels = [*rows(out, "preferences.jsonl"), *rows(out, "undecided.jsonl")]
    told = {row["provenance"]["row"]: row["provenance"]["language"] for row in labels}
    assert told == {1: "de", 2: "default", 3: "default", 5: "de"}
    (refused,) = rows(out, "rejected.jsonl")
    assert "the language is 'German'" in refused["reason"]
    german = load_judge_template("pairwise.de").hash
    assert job.config["template"]["languages"] == {"de": german}
    assert estimate(job)["judge_calls"] == done.tally.verdicts == 16
    with pytest.raises(RlaifError, match="has no translations"):
        prepare(str(data), "helpful-honest-harmless", settings(layout=layout))


def test_languages_are_codes() -> None:
    assert [read_language(v) for v in ("de", "pt-BR", "zh_Hans", "", None)] == [
        *("de", "pt", "zh"),
        *("", ""),
    ]
    for wrong in ("German", 3, ["de"], "d"):
        with pytest.raises(BadRow, match="the language is"):
            read_language(wrong)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT.replace("        preference: Welche Antwort ist höflicher?\n", ""), "lack"),
        (TEXT.replace("Was ist", "Was ist").replace("    critique: What is rude?\n", ""), "own"),
        (TEXT.replace("      de:", "      German:"), "translations"),
        (TEXT.replace("        critique: Was", "        kritik: Was"), "unknown key 'kritik'"),
        (
            "schema: 1\nname: over\nversion: '1'\nextends: [c.yaml]\nprinciples:\n"
            '  - {id: polite, preference: "Which response is kinder?"}\n',
            "inherits translations",
        ),
    ],
)
def test_wrong_translations_are_refused(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path)
    path = tmp_path / "wrong.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RlaifError, match=said) as caught:
        load_constitution(str(path))
    assert caught.value.place is not None
    assert caught.value.place.line is not None


def test_translated_templates_have_the_same_places_and_labels(tmp_path: Path) -> None:
    template = load_judge_template("pairwise")
    assert sorted(template.translations) == ["de", "es", "fr", "zh"]
    for code, other in template.translations.items():
        assert other.labels == template.labels
        assert other.hash == load_judge_template(f"pairwise.{code}").hash
    own = tmp_path / "own.txt"
    shutil.copy("prompts/judge/pairwise.txt", own)
    shutil.copy("prompts/judge/pairwise.de.txt", tmp_path / "own.de.txt")
    assert list(load_judge_template(str(own)).translations) == ["de"]
    for old, new in (("[A, B]", "[1, 2]"), ("{{first}}", "{{second}}{{tools}}")):
        text = Path("prompts/judge/pairwise.de.txt").read_text(encoding="utf-8")
        (tmp_path / "own.de.txt").write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(RlaifError):
            load_judge_template(str(own))


def test_lint_says_what_it_does_not_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    (lacking,) = (w for w in lint(load_constitution(path)) if "no translation" in w.message)
    assert lacking.principle == "short"
    german = tmp_path / "german.yaml"
    german.write_text(
        "schema: 1\nname: german\nversion: '1'\nprinciples:\n  - id: h\n"
        "    preference: Welche der beiden ist höflicher und freundlicher gegenüber dem Menschen?\n"
        "  - id: e\n    preference: Which one is more polite?\n",
        encoding="utf-8",
    )
    found = CliRunner().invoke(cli, ["constitution", "lint", str(german)])
    assert "not read: h (de)" in found.output
    about = [line for line in found.output.splitlines() if "does not say what to compare" in line]
    assert len(about) == 1
    assert ": e: " in about[0]
    told = CliRunner().invoke(cli, ["constitution", "lint", str(german), "--json"])
    assert json.loads(told.stdout)["wording_not_read"] == {"h": "de"}


def test_a_new_translation_asks_the_judge_again(tmp_path: Path) -> None:
    old = load_constitution(write(tmp_path)).constitution
    new = load_constitution(write(tmp_path, TEXT.replace("höflicher?", "netter?"))).constitution
    (change,) = diff(old, new)
    assert change.asks_judge_again


@pytest.mark.parametrize("text", ["Hi", "Hallo", "Danke", "def f(x): return x", "2+2="])
def test_a_text_of_no_likely_language_is_asked_in_the_constitution_s_own(
    tmp_path: Path, text: str
) -> None:
    other = TEXT.replace("      de:", "      sr:\n        preference: Koji?\n      de:")
    constitution = load_constitution(write(tmp_path, other)).constitution
    assert language_for([{"role": "user", "content": text}], constitution) == "default"
    assert language_for([{"role": "user", "content": GERMAN}], constitution) == "de"


def test_a_template_in_a_language_that_the_constitution_lacks_is_not_used(tmp_path: Path) -> None:
    """Its hash is not a part of the run, and the principle would be in another language."""
    french = "Peux-tu me dire quel temps il fera ce week-end dans les montagnes ?"
    path = write(tmp_path)
    for found in (pair(french), pair(ENGLISH, "fr")):
        polite, _ = asked(found, path)
        assert "[Principle]" in polite
        assert with_language(found, load_constitution(path).constitution).language == "default"


def test_every_way_of_asking_knows_the_language(tmp_path: Path) -> None:
    from rlaif.api.setup import JudgeSettings, prepare_judge
    from rlaif.engines.base import EngineSettings

    judge = EngineSettings(engine="scripted", model="hashed")
    setup = prepare_judge(write(tmp_path), JudgeSettings(judge=judge, pointwise="score"))
    row = {"prompt": GERMAN, "response": "Es regnet."}
    (first, *_) = next(setup.score(row))
    assert "Welche Antwort ist höflicher?" in bytes(first.request.token_ids).decode()
    (first, *_) = next(setup.compare({"prompt": GERMAN, "responses": ["Es regnet.", "Nein."]}))
    said = bytes(first.request.token_ids).decode()
    assert "[Grundsatz]" in said
    assert "Welche Antwort ist höflicher?" in said

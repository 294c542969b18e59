"""Texts are in American spelling; what another project spells otherwise is quoted as it is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BRITISH = re.compile(
    r"\b(?:\w*(?:critici|organi|recogni|normali|initiali|summari|seriali|optimi|generali|minimi"
    r"|maximi|standardi|categori|tokeni|randomi|utili|penali|prioriti|customi|emphasi)"
    r"s(?:e|ed|es|ing|ation|ations|er|ers)"
    r"|(?:behavio|colo|favo|hono|neighbo|endeavo)ur\w*|label(?:led|ling|ler)|modell(?:ed|ing|er)|grey"
    r"|analys(?:e|ed|ing)|sceptic\w*|towards|travell\w+|fulfil|skilful|learnt|amongst|centre|licence|judgement|whilst|catalogue|artefact\w*|defence|offence)\b",
    re.IGNORECASE,
)
QUOTED = {"[Your judgement]", '"judgement"', '"labelling"'}
"""What the judge prompts and the columns of other projects hold."""
FOLDERS = ("rlaif", "docs", "prompts", "constitutions", "recipes", "scripts")
ENDINGS = {".py", ".md", ".txt", ".yaml", ".j2", ".html", ".sh"}


def test_the_pattern_finds_what_it_should() -> None:
    for word in ("summarise", "Behaviours", "labelled", "tokenisation", "grey", "recognised"):
        assert BRITISH.search(f"a {word} here"), word
    for word in ("summarize", "behavior", "labeled", "analysis", "tokens", "optimism", "precise"):
        assert not BRITISH.search(f"a {word} here"), word


def test_texts_are_in_american_spelling() -> None:
    files = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "BENCHMARKS.md"]
    for folder in FOLDERS:
        files += [p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in ENDINGS]
    assert len(files) > 350
    found = []
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for quoted in QUOTED:
                line = line.replace(quoted, "")
            found += [f"{path.relative_to(ROOT)}:{number}: {m[0]}" for m in BRITISH.finditer(line)]
    assert not found, "\n".join(found)

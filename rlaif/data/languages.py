"""Which language a text is in, by py3langid (Lui and Baldwin 2012, langid.py)."""

from __future__ import annotations

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def known_languages() -> list[str]:
    """ISO 639-1 codes of the languages that it tells apart."""
    return sorted(str(name) for name in _identifier().labels)


def language_probability(text: str, language: str) -> float:
    """The probability that `text` is in `language`, an ISO 639-1 code."""
    return float(dict(_identifier().rank(text))[language])


def likeliest_language(text: str) -> tuple[str, float]:
    """The most probable language of a text, as an ISO 639-1 code, and its probability."""
    code, probability = _identifier().classify(text)
    return str(code), float(probability)


def language_of(text: str) -> str:
    """The most probable language of a text, as an ISO 639-1 code."""
    return likeliest_language(text)[0]

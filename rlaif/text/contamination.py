"""Which texts were in an evaluation already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rlaif.text.edits import differ_little, edits_allowed
from rlaif.text.novelty import words

_RUN = 3


class Contamination:
    """Finds texts that share a run of words with evaluation data (Brown et al. 2020,
    arXiv:2005.14165, appendix C), or hold an evaluation text with a few words changed.

    An edited text of ten words or more is found where at most a tenth of its words (at least one)
    were misspelled, taken out, or had others put between them, and none of these was a number or a
    denial (`edits.differ_little`). With another word in its place it is another question, as is a
    text under ten words.

    Args:
        texts: of the evaluations.
        length: of the runs, in words. A text that is no longer is found only as a whole or edited.
    """

    def __init__(self, texts: Iterable[str], length: int) -> None:
        self._length = length
        self._runs: set[tuple[str, ...]] = set()
        self._texts: list[list[str]] = []
        seen: set[tuple[str, ...]] = set()
        for text in texts:
            own = words(text)
            self._runs.update(self._of(own))
            if edits_allowed(len(own)) and tuple(own) not in seen:
                seen.add(tuple(own))
                self._texts.append(own)
        self._places = self._index()

    def _of(self, own: Sequence[str]) -> Iterable[tuple[str, ...]]:
        n = self._length
        if len(own) <= n:
            return [tuple(own)] if own else []
        return [tuple(own[i : i + n]) for i in range(len(own) - n + 1)]

    def _index(self) -> dict[tuple[str, ...], list[tuple[int, int]]]:
        """The rarest short runs of each text, more than its edits can all destroy, with where they
        stand: an edited copy shares one of them (prefix filtering, Chaudhuri et al. 2006).
        """
        common = Counter(run for text in self._texts for run in _short_runs(text))
        found: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for number, text in enumerate(self._texts):
            runs = list(enumerate(_short_runs(text)))
            runs.sort(key=lambda item: common[item[1]])
            # A word taken out ends three runs, and one put in elsewhere two.
            for place, run in runs[: 5 * edits_allowed(len(text)) + 1]:
                found.setdefault(run, []).append((number, place))
        return found

    def finds(self, text: str) -> bool:
        """Whether `text` shares a run, or holds an evaluation text that was edited a little."""
        own = words(text)
        return any(run in self._runs for run in self._of(own)) or self._edited(own)

    def _edited(self, own: Sequence[str]) -> bool:
        tried: set[tuple[int, int]] = set()
        for at, run in enumerate(_short_runs(own)):
            for number, place in self._places.get(run, ()):
                start = at - place
                if (number, start) in tried:
                    continue
                tried.add((number, start))
                if _holds(own, self._texts[number], start):
                    return True
        return False


def _short_runs(own: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(own[i : i + _RUN]) for i in range(len(own) - _RUN + 1)]


def _holds(own: Sequence[str], text: Sequence[str], start: int) -> bool:
    """Whether `own` holds `text`, edited, from about `start` on."""
    slack = edits_allowed(len(text))
    part = own[max(0, start - slack) : max(0, start + len(text) + slack)]
    return differ_little(text, part, within=True)

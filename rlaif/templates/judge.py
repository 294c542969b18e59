"""The judge's prompt layouts: text files with placeholders, edited by people.

A layout is filled in one pass, so braces inside a conversation or a response stay text.  The
layout's own words and the model's chat template are the only parts that give structure; this
module knows nothing of tokens.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import yaml

from rlaif.errors import Place, RlaifError
from rlaif.util.hashing import digest
from rlaif.util.plain_yaml import load_plain_yaml
from rlaif.util.resources import find

SLOTS = ("conversation", "first", "second", "principle")
OPTIONAL_SLOTS = ("reference", "rubric", "tools", "image")
"""Places that a layout may have: the row's reference answer, its own criteria, its tools, and its
pictures (which stand first where no place is given)."""
_SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True)
class JudgeTemplate:
    """A judge's prompt layout.

    Attributes:
        name: how it was asked for.
        body: the text with its placeholders.
        labels: the two answers: the first means that the response shown first is better; or, of a
            judge that scores each response, the scores that it may give, lowest first.
        answer: for a judge that reasons first: the text put after its reasoning, at whose end
            the label is read; "" for one that answers at once.
        prefill: how the judge's answer begins, whatever it would say; without `answer`, the
            label is read at its end.
        then: of a judge that scores each response: the text between the first response's score
            and the second's.  "" for one that names the better response.
        translations: the same layout in other languages, by ISO 639-1 code.
    """

    name: str
    body: str
    labels: tuple[str, ...]
    answer: str = ""
    prefill: str = ""
    then: str = ""
    translations: Mapping[str, JudgeTemplate] = field(default_factory=dict, compare=False)

    @cached_property
    def _parts(self) -> tuple[str, str]:
        """The layout before and after the place of the principle."""
        before, after = re.split(r"\{\{\s*principle\s*\}\}", self.body, maxsplit=1)
        return before, after

    @property
    def own_words(self) -> list[str]:
        """Its lines that stand directly before or after a conversation or a response."""
        found = []
        parts = _SLOT.split(self.body)
        for i in range(1, len(parts) - 1, 2):
            if parts[i] in ("conversation", "first", "second"):
                found += [
                    parts[i - 1].strip().splitlines()[-1:],
                    parts[i + 1].strip().splitlines()[:1],
                ]
        return [line for lines in found for line in lines]

    @property
    def repeats_pairs(self) -> bool:
        """Whether parts of the pair follow the principle: they are computed again for every one."""
        return bool(_SLOT.search(self._parts[1]))

    @property
    def fixed_before_principle(self) -> int:
        """Characters of the layout's own between the last other placeholder and the principle's.

        0 where another placeholder follows the principle, or where two touch.
        """
        if self.repeats_pairs:
            return 0
        return len(_SLOT.split(self._parts[0])[-1])

    @property
    def hash(self) -> str:
        """Content address: two templates share it that differ in their names alone."""
        parts = {"body": self.body, "labels": list(self.labels), "answer": self.answer}
        own = {k: v for k, v in (("prefill", self.prefill), ("then", self.then)) if v}
        return digest({**parts, **own})

    def hashes(self, languages: Iterable[str]) -> dict[str, object]:
        """Its content address, and those of its translations into some languages."""
        known = {c: self.translations[c].hash for c in sorted(languages) if c in self.translations}
        return {"hash": self.hash, **({"languages": known} if known else {})}

    @property
    def scores(self) -> tuple[int, ...]:
        """The scores that the judge may give a response; none if it names the better one."""
        return tuple(map(int, self.labels)) if self.then else ()

    def to_text(self) -> str:
        """As the text of a file that `load_judge_template` reads."""
        front: dict[str, object] = {"labels": list(self.labels)}
        if self.scores:
            front = {"scores": list(self.scores), "then": self.then}
        front |= {k: v for k, v in (("answer", self.answer), ("prefill", self.prefill)) if v}
        head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, default_flow_style=None)
        return f"---\n{head}---\n{self.body}\n"

    def uses(self, slot: str) -> bool:
        """Whether it has a place for something."""
        return slot in _SLOT.findall(self.body)

    def branches(
        self,
        *,
        conversation: str,
        first: str,
        second: str,
        principles: Sequence[str],
        **own: str,
    ) -> tuple[str, list[str]]:
        """The user messages for several questions about a pair: their shared start, their ends.

        Args:
            own: texts for `OPTIONAL_SLOTS`.
        """
        values = {"conversation": conversation, "first": first, "second": second, **own}
        shared, rest = (_SLOT.sub(lambda m: values[m.group(1)], part) for part in self._parts)
        return shared, [principle + rest for principle in principles]

    def measure_to_image(self, **values: str) -> int:
        """Characters before the place of pictures, the layout filled in; 0 where it has none."""
        before, *rest = re.split(r"\{\{\s*image\s*\}\}", self._parts[0], maxsplit=1)
        return len(_SLOT.sub(lambda m: values[m.group(1)], before)) if rest else 0

    def render(
        self, *, conversation: str, first: str, second: str, principle: str, **own: str
    ) -> str:
        """The user message for one question."""
        shared, (end,) = self.branches(
            conversation=conversation, first=first, second=second, principles=[principle], **own
        )
        return shared + end


def default_template(model: str, engine: str = "vllm") -> str:
    """The layout for a judge of which nothing is known but its name and its engine."""
    if engine == "reward-model":
        return "reward"
    return "demo" if model == "demo" else "pairwise"


def template_path(name: str) -> Path:
    """The file of a layout by shipped name or path.

    Raises:
        RlaifError: there is none.
    """
    return find(name, folder="prompts/judge", suffix=".txt", what="Judge template")


def load_judge_template(name: str) -> JudgeTemplate:
    """Read a layout by shipped name or path, and its translations: NAME.de.txt beside NAME.txt.

    Raises:
        RlaifError: it is missing, has no valid front matter, lacks or repeats a placeholder, or a
            translation has other labels.
    """
    path = template_path(name)
    own = _load_one(name, path)
    translations = {}
    for other in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*{path.suffix}")):
        code = other.name[len(path.stem) + 1 : -len(path.suffix)]
        if not re.fullmatch(r"[a-z]{2,3}", code):
            continue
        found = _load_one(f"{name} in {code}", other)
        if (found.labels, found.then, found.answer) != (own.labels, own.then, own.answer):
            raise RlaifError(
                f"judge template has other labels than {path.name!r}, which it translates",
                hint="Use the same labels, `answer` and `then`; `prefill` may differ.",
                place=Place(other),
            )
        if sorted(_SLOT.findall(found.body)) != sorted(_SLOT.findall(own.body)):
            raise RlaifError(
                f"judge template has other placeholders than {path.name!r}, which it translates",
                hint="Use the same ones.",
                place=Place(other),
            )
        translations[code] = found
    return replace(own, translations=translations)


def _load_one(name: str, path: Path) -> JudgeTemplate:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RlaifError(
            f"judge template is not UTF-8 (byte {error.start})",
            hint="Save it as UTF-8.",
            place=Place(path),
        ) from None
    front, body = _split_front_matter(text, Place(path))
    _check_slots(body, Place(path))
    place = Place(path)
    answer, prefill, then = (_opening(front, key, place) for key in ("answer", "prefill", "then"))
    if not then and "scores" not in front:
        return JudgeTemplate(name, body, _labels(front, place), answer=answer, prefill=prefill)
    scores = _scores(front, then, place)
    if not (answer or prefill):
        raise RlaifError(
            "judge template with `scores` needs a text before the first of them",
            hint="Add `answer` (after reasoning) or `prefill`.",
            place=place,
        )
    return JudgeTemplate(name, body, scores, answer=answer, prefill=prefill, then=then)


def _scores(front: Mapping[str, object], then: str, place: Place) -> tuple[str, ...]:
    """The scores of a template, as labels.

    Raises:
        RlaifError: they are none, or the template names labels too.
    """
    given = front.get("scores")
    scores = [s for s in given if type(s) is int] if isinstance(given, list) else []
    if scores != given or len(scores) < 2 or scores != sorted(set(scores)) or scores[0] < 0:
        raise RlaifError(
            f"judge template has invalid `scores`: {str(given)[:60]}",
            hint="List whole numbers from low to high, such as [1, 2, 3, 4, 5].",
            place=place,
        )
    if "labels" in front or not then:
        raise RlaifError(
            "judge template with `scores` needs `then`, and no `labels`",
            hint="`then` is the text between the first response's score and the second's.",
            place=place,
        )
    return tuple(map(str, scores))


def _opening(front: Mapping[str, object], key: str, place: Place) -> str:
    """A text that the label follows."""
    text = front.get(key, "")
    if not isinstance(text, str) or text != text.rstrip():
        raise RlaifError(
            f"judge template has an invalid `{key}`: {text!r}",
            hint="Use text that does not end in whitespace; the label follows it.",
            place=place,
        )
    return text


_HINT = "Start it with '---', a line 'labels: [A, B]' (quote Yes and No) and another '---'."


def _split_front_matter(text: str, place: Place) -> tuple[Mapping[str, object], str]:
    parts = re.match(r"---\n(.*?)\n---\n(.*)\Z", text.replace("\r\n", "\n"), re.DOTALL)
    if not parts:
        raise RlaifError("judge template has no front matter", hint=_HINT, place=place)
    try:
        front = load_plain_yaml(parts.group(1))
    except ValueError:
        front = None
    if not isinstance(front, Mapping):
        raise RlaifError("judge template needs two different labels", hint=_HINT, place=place)
    known = ("labels", "answer", "prefill", "scores", "then")
    unknown = [key for key in front if key not in known]
    if unknown:
        raise RlaifError(
            f"judge template has an unknown setting {unknown[0]!r}",
            hint=f"Valid settings: {', '.join(known)}.",
            place=place,
        )
    return front, parts.group(2).strip("\n")


def _labels(front: Mapping[str, object], place: Place) -> tuple[str, str]:
    labels = front.get("labels")
    if (
        not isinstance(labels, list)
        or len(labels) != 2
        or not all(isinstance(label, str) and label.strip() for label in labels)
        or labels[0].strip() == labels[1].strip()
    ):
        raise RlaifError("judge template needs two different labels", hint=_HINT, place=place)
    return labels[0].strip(), labels[1].strip()


def _check_slots(body: str, place: Place) -> None:
    found = _SLOT.findall(body)
    for slot in found:
        if slot not in (*SLOTS, *OPTIONAL_SLOTS):
            raise RlaifError(
                f"judge template has an unknown placeholder {{{{{slot}}}}}",
                hint=f"Use {', '.join((*SLOTS, *OPTIONAL_SLOTS))}.",
                place=place,
            )
    for slot in SLOTS:
        if found.count(slot) != 1:
            raise RlaifError(
                f"judge template has the placeholder {{{{{slot}}}}} {found.count(slot)} times",
                hint="Use each placeholder exactly once.",
                place=place,
            )
    if found.count("image") > 1 or "image" in found[found.index("principle") :]:
        raise RlaifError(
            "judge template has the placeholder {{image}} twice, or after {{principle}}",
            hint="Use it once, before the principle: what all questions share comes first.",
            place=place,
        )

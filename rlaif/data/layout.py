"""A layout: which column of a file plays which role.  Found in a sample, or written as YAML.

Paths are dotted (`question.full_text`); a step may be the number of a list's entry, and `[]` goes
through all entries of a list (`annotations[].value`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from rlaif.constitution.yaml_source import read_yaml
from rlaif.data.transcripts import find_form
from rlaif.errors import Place, RlaifError
from rlaif.util.validation import explain

Side = Annotated[str, StringConstraints(pattern="^([a-z]|tie|none)$")]
"""A response by its letter, a tie, or no verdict."""


class Layout(BaseModel):
    r"""Which column plays which role; paths as in this module's docstring.

    Attributes:
        prompt: columns whose texts make the last user turn, joined by an empty line; or one
            column with messages; or one template such as "{title}\n\n{post}".
        one_prompt: whether each row fills just one of several columns of `prompt`.
        context: columns put before the prompt, as part of it.
        history: earlier turns: messages, texts by turns, or [question, answer] pairs.
        responses: a column for each response; or one column that holds a list of them.
        calls: the tool calls of each response, where they stand beside its text.
        chosen, rejected: the better and the worse response.
        scores: a score for each response, or one column with a list of them.
        ranks: whether a lower score is better.
        order: a column whose cells name all responses of the row, the best first.
        label: columns that say which response is better; several, or a list, are votes.
        values: what a value of `label` means; "<0" or ">=1.5" stand for all such numbers.
        good: flags that say of each response whether people called it good.
        bad: flags that say that the one response of a row is bad.
        good_from: the score from which on the one response of a row is good.
        names: what a verdict or an order calls each response, such as `responses[].id`.
        origins: who wrote each response, or one column with a list of them.
        reference: a reference answer, for judge templates with `{{reference}}`.
        rubric: the row's own criteria: texts, or objects with a text and a weight.
        language: the row's language, as an ISO 639-1 code, for constitutions in several.
        subset: the part of the data that a row belongs to, for figures by part.
        group_by: rows with the same value here are responses to one prompt.
        thread_by: the column with the id of the message that a message answers.
        turn: a column with the number of the exchange that the verdict is about.
        decode: columns whose cells are lists or objects written out as text.
        transcripts: columns with conversations written out as one text, and in which form: a
            name, or how a turn begins (`"<{role}>:"`); "text" for a column that is none, and
            "questions" for lists of texts that the user asks one after the other.
        ignore: columns that are left out knowingly.
        columns: paths that hold something in the sample (see `rlaif.data.deviations`); a row with
            something else that may matter is rejected.  Empty: any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: tuple[str, ...] = ()
    one_prompt: bool = False
    context: tuple[str, ...] = ()
    history: str = ""
    system: str = ""
    tools: str = ""
    responses: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    chosen: str = ""
    rejected: str = ""
    scores: tuple[str, ...] = ()
    ranks: bool = False
    order: str = ""
    label: tuple[str, ...] = ()
    values: dict[str, Side] = Field(default_factory=dict)
    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    good_from: float | None = None
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    id: str = ""
    tags: str = ""
    reference: str = ""
    rubric: str = ""
    language: str = ""
    subset: str = ""
    group_by: str = ""
    thread_by: str = ""
    turn: str = ""
    decode: tuple[str, ...] = ()
    transcripts: dict[str, str] = Field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @field_validator(
        "prompt",
        "context",
        "responses",
        "calls",
        "scores",
        "label",
        "good",
        "bad",
        "names",
        "origins",
        "media",
        "decode",
        "ignore",
        "columns",
        mode="before",
    )
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("prompt", "context", "responses", "scores", "label", "good", "bad", "media")
    @classmethod
    def _without_empty_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("a path is empty; name a column")
        return value

    @field_validator("transcripts")
    @classmethod
    def _known_forms(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.values():
            find_form(name)
        return value

    @field_validator("values", mode="before")
    @classmethod
    def _keys_as_text(cls, value: object) -> object:
        """YAML reads 0 and true as themselves."""
        if not isinstance(value, Mapping):
            return value
        codes = {code_of(key): meaning for key, meaning in value.items()}
        for code, meaning in codes.items():
            if code[:1] in "<>=" and not split_bound(code)[0]:
                raise ValueError(
                    f"{code!r} is no value; write '<0' or '>=1.5' for all numbers on one side"
                )
            if not re.fullmatch("[a-z]|tie|none", str(meaning)):
                raise ValueError(f"{code!r} means {meaning!r}: write a, b, ..., tie or none")
        below = [bound for sign, bound in map(split_bound, codes) if sign[:1] == "<"]
        above = [bound for sign, bound in map(split_bound, codes) if sign[:1] == ">"]
        if len(below) > 1 or len(above) > 1 or any(b > a for b in below for a in above):
            raise ValueError("bounds overlap: write at most one '<' and one '>' above it")
        return codes

    @property
    def less_is_better(self) -> bool:
        """Whether scores are ranks."""
        return self.ranks or bool(self.order)

    def to_data(self) -> dict[str, Any]:
        """As plain data, without what is left at its default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def to_yaml(self) -> str:
        """As a file that `--layout` takes."""
        held: dict[str, Any] = {}
        for name, value in self.model_dump(exclude_defaults=True, exclude={"columns"}).items():
            held[name] = (
                value[0]
                if isinstance(value, tuple) and len(value) == 1
                else list(value)
                if isinstance(value, tuple)
                else value
            )
        return yaml.safe_dump(held, sort_keys=False, allow_unicode=True)


OWN_PAIRS = Layout(
    prompt=("prompt",),
    responses=("response_a", "response_b"),
    origins=("response_a_model", "response_b_model"),
    tools="tools",
    media=("images",),
    id="id",
    tags="tags",
    reference="reference",
    rubric="rubric",
    language="language",
)
"""Pairs that this project writes for itself, such as those of a pilot."""
OWN_TEXT_PAIRS = OWN_PAIRS.model_copy(
    update={
        "tools": "",
        "media": (),
        "reference": "",
        "rubric": "",
        "language": "",
        "transcripts": {"response_a": "text", "response_b": "text"},
    }
)
"""Pairs of texts that this project writes for itself, whatever the texts look like."""
OWN_PREFERENCES = Layout(
    prompt=("prompt",), chosen="chosen", rejected="rejected", tools="tools", media=("images",)
)
"""Rows of `preferences.jsonl` and of mixes."""
FIELDS = tuple(Layout.model_fields)
"""What `--map` and a layout file can set."""


def code_of(value: object) -> str:
    """A verdict's value as the text that `values` has for it: 1, 1.0 and "1" are one code."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text.lower()
    return str(int(number)) if number.is_integer() else str(number)


_BOUND = re.compile(r"([<>]=?)\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)")


def split_bound(code: str) -> tuple[str, float]:
    """`<=1.5` as its sign and its number; ("", 0) for a code that is no bound."""
    found = _BOUND.fullmatch(code)
    return (found.group(1), float(found.group(2))) if found else ("", 0.0)


def load_layout(path: Path) -> dict[str, Any]:
    """The fields that a layout file sets.

    Raises:
        RlaifError: it can't be read, or has an unknown field; with the place.
    """
    found = read_yaml(path).value
    if not isinstance(found, dict):
        raise RlaifError(
            "layout is not a mapping of fields to columns",
            hint="Write one with `rlaif inspect DATA --write-layout FILE`.",
            place=Place(path),
        )
    return make_layout(found, Place(path)).model_dump(exclude_unset=True)


def set_fields(layout: Layout) -> dict[str, Any]:
    """The fields of a layout that somebody set, in the order of `Layout`."""
    names = (name for name in Layout.model_fields if name in layout.model_fields_set)
    return {name: getattr(layout, name) for name in names}


def make_layout(fields: Mapping[str, Any], place: Place | None = None) -> Layout:
    """A layout of some fields.

    Args:
        place: of the file that they come from.

    Raises:
        RlaifError: a field is unknown, or has a wrong value.
    """
    try:
        return Layout.model_validate(fields)
    except ValidationError as error:
        raise explain(error, hint=f"Fields are {', '.join(FIELDS)}.", default=place) from None

"""What a constitution may say: the one definition behind validation and the JSON Schema."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

import regex
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from rlaif.records import Message
from rlaif.util.hashing import digest


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text.strip()


_REPEAT = re.compile(r"\{(\d*),?(\d*)\}")
_MOST_REPEATS = 10_000


def _compiles(pattern: str) -> str:
    # Counted repeats are unrolled: nested ones multiply, in memory before anything matches.
    repeats = 1
    for low, high in _REPEAT.findall(pattern):
        repeats *= max(int(low[:9] or 1), int(high[:9] or 1), 1)
    if repeats > _MOST_REPEATS:
        raise ValueError(
            f"allows {repeats} repeats in total, more than the limit of {_MOST_REPEATS}"
        )
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"is not a valid regular expression ({error})") from None
    return pattern


YamlText = Annotated[str, Field(min_length=1, max_length=20_000), AfterValidator(_not_blank)]
Id = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80),
]
Phrase = Annotated[str, Field(min_length=1, max_length=1000)]


class StrictModel(BaseModel):
    """No unknown keys, no silent conversions, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class ExampleTurn(StrictModel):
    """One message of an example's conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: YamlText


class Example(StrictModel):
    """A unit test of its principle: the judge should prefer `chosen`."""

    prompt: YamlText | Annotated[list[ExampleTurn], Field(min_length=1)] = Field(
        description="A question, or a list of messages."
    )
    chosen: YamlText = Field(description="The response that follows the principle better.")
    rejected: YamlText = Field(description="The response that follows it less well.")
    why: YamlText | None = Field(default=None, description="Explanation for human readers.")

    @property
    def conversation(self) -> list[Message]:
        """The prompt as turns."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return [{"role": turn.role, "content": turn.content} for turn in self.prompt]

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected must differ")
        return self


class AppliesTo(StrictModel):
    """Which pairs a principle is asked about; one shared tag is enough."""

    tags: list[YamlText] = Field(
        min_length=1, description="Tags of the rows that the principle applies to."
    )


class RegexCheck(StrictModel):
    """Passes when the pattern is found (or, with `must: not_match`, is not)."""

    kind: Literal["regex"]
    pattern: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_compiles)]
    must: Literal["match", "not_match"] = "match"


class MaxLengthCheck(StrictModel):
    """Passes when the response is at most this long."""

    kind: Literal["max_length"]
    words: int | None = Field(default=None, ge=1)
    characters: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if (self.words is None) == (self.characters is None):
            raise ValueError("needs exactly one of `words` and `characters`")
        return self


class JsonCheck(StrictModel):
    """Passes when the response is valid JSON, and nothing else."""

    kind: Literal["json"]


class ForbiddenPhrasesCheck(StrictModel):
    """Passes when none of the phrases occurs."""

    kind: Literal["forbidden_phrases"]
    phrases: list[Phrase] = Field(min_length=1)
    ignore_case: bool = True


class PythonCheck(StrictModel):
    """Calls `function(prompt, completion) -> bool`, both texts, named as `package.module:name`."""

    kind: Literal["python"]
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class RewardModelCheck(StrictModel):
    """Asks a reward model for both rewards: p = sigmoid((r_a - r_b) / temperature).

    One or many principles of a constitution may be reward models; the judge answers the others.
    """

    kind: Literal["reward_model"]
    model: YamlText = Field(description="Model folder or Hugging Face model ID.")
    revision: YamlText | None = None
    backend: Literal["transformers", "vllm"] = Field(
        default="transformers", description="What computes rewards; vllm is its pooling runner."
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="Rewards per nat of log-odds; `rlaif calibrate` measures it.",
    )


Check = Annotated[
    RegexCheck
    | MaxLengthCheck
    | JsonCheck
    | ForbiddenPhrasesCheck
    | PythonCheck
    | RewardModelCheck,
    Field(discriminator="kind"),
]


LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]


class Translation(StrictModel):
    """A principle's texts in another language; what is left out stays as it is."""

    preference: YamlText | None = None
    rationale: YamlText | None = None
    critique: YamlText | None = None
    revision: YamlText | None = None


class Principle(StrictModel):
    """One rule: asked of the judge (`preference`), or answered without it (`check`)."""

    id: Id = Field(
        description="Name in reports and caches: lowercase letters, digits, `-`, `_` and `.`."
    )
    tier: int = Field(default=1, ge=1, le=99, description="Lower tiers decide first.")
    weight: float = Field(default=1.0, gt=0, le=1000, allow_inf_nan=False)
    polarity: Literal["prefer", "avoid"] = Field(
        default="prefer",
        description="Whether the principle asks for something (prefer) or against it (avoid). It "
        "never flips a verdict: `preference` always asks for the better response.",
    )
    preference: YamlText | None = Field(
        default=None, description="Question for the judge: which response is better?"
    )
    rationale: YamlText | None = Field(
        default=None, description="Why the principle matters; judges and reviewers read it."
    )
    critique: YamlText | None = Field(
        default=None, description="Instruction for generating a critique."
    )
    revision: YamlText | None = Field(
        default=None, description="Instruction for generating a revision."
    )
    translations: dict[LanguageCode, Translation] = Field(
        default_factory=dict,
        max_length=200,
        description="Texts in other languages, by ISO 639-1 code, for rows in that language.",
    )
    applies_to: AppliesTo | None = Field(
        default=None, description="Pairs that the principle applies to. Default: every pair."
    )
    examples: list[Example] = Field(default_factory=list)
    check: Check | None = Field(
        default=None, description="Programmatic check, or a reward model; needs no judge call."
    )

    @model_validator(mode="after")
    def _asks_once(self) -> Self:
        if (self.preference is None) == (self.check is None):
            raise ValueError("needs exactly one of `preference` and `check`")
        for code, texts in self.translations.items():
            own = texts.model_dump(exclude_none=True)
            lacking = "preference" if self.preference and "preference" not in own else ""
            extra = next((key for key in own if getattr(self, key) is None), "")
            if lacking or extra:
                raise ValueError(
                    f"has translations into {code!r} that lack `preference`"
                    if lacking
                    else f"has `{extra}` in {code!r} and not in its own language"
                )
        return self

    def in_language(self, code: str) -> Principle:
        """The principle with its texts in a language, where it has them."""
        texts = self.translations.get(code)
        return self.model_copy(update=texts.model_dump(exclude_none=True)) if texts else self

    @property
    def judged(self) -> bool:
        """Whether a verdict answers it: the judge's, or a reward model's; else it is computed."""
        return self.check is None or self.reward_model is not None

    @property
    def reward_model(self) -> RewardModelCheck | None:
        """The reward model that answers it in the judge's place."""
        return self.check if isinstance(self.check, RewardModelCheck) else None

    def applies(self, tags: frozenset[str]) -> bool:
        """Whether a pair with these tags is asked about it."""
        return self.applies_to is None or not tags.isdisjoint(self.applies_to.tags)


class Constitution(StrictModel):
    """A named, versioned list of principles."""

    format: Literal[1] = Field(alias="schema", description="Schema version: 1.")
    name: Id
    version: YamlText = Field(description='Version of this constitution, quoted: "1.0.0".')
    license: YamlText | None = None
    description: YamlText | None = None
    extends: list[YamlText] = Field(
        default_factory=list,
        description="Constitutions to start from, in order: files in this folder or below it, or "
        "names of shipped constitutions.",
    )
    drop: list[Id] = Field(
        default_factory=list, description="IDs of inherited principles to leave out."
    )
    principles: list[Principle] = Field(min_length=1, max_length=1000)

    @property
    def hash(self) -> str:
        """Content address of everything that the file says, comments aside."""
        said = self.model_dump(mode="json", by_alias=True, exclude={"extends", "drop"})
        for principle in said["principles"]:
            for new in ("rationale", "translations"):  # as before there were any
                if not principle[new]:
                    del principle[new]
        return digest(said)

    def plain(self) -> dict[str, object]:
        """Everything that is said, what is extended merged in, without defaults."""
        said = self.model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude={"extends", "drop"}
        )
        return {"schema": 1, **said}

    def merged_yaml(self) -> str:
        """The same as a file that can be loaded."""
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True, width=96)

    @property
    def languages(self) -> frozenset[str]:
        """The languages, beside its own, that it has texts in."""
        return frozenset(code for p in self.principles for code in p.translations)

    def in_language(self, code: str) -> Constitution:
        """The constitution for rows in a language: with the texts that it has in it."""
        if code not in self.languages:
            return self
        return self.model_copy(
            update={"principles": [p.in_language(code) for p in self.principles]}
        )

    def applicable(self, tags: frozenset[str]) -> list[Principle]:
        """The principles for a pair with these tags, in file order."""
        return [p for p in self.principles if p.applies(tags)]


def json_schema() -> dict[str, object]:
    """JSON Schema (2020-12) for editors.

    A principle that overrides one from `extends` gives only its id and what changes, so the
    schema asks for the id alone; loading checks the merged result.
    """
    schema = Constitution.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["required"] = [key for key in schema["required"] if key != "principles"]
    schema["anyOf"] = [{"required": ["principles"]}, {"required": ["extends"]}]
    return schema

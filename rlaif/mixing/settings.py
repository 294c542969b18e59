"""What a mix is made of: parts, quotas and limits, from flags or a YAML file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaif.data.layout import Layout, load_layout

MixKind = Literal["preferences", "sft", "prompts"]
_SETTINGS = ("weight", "human_written", "human_labeled", "license", "split", "layout")
_SHARE = re.compile(r"(.+?)=([0-9.eE+-]+)(?:,(.*))?", re.DOTALL)


class MixPart(BaseModel):
    """One data set of a mix.

    Attributes:
        human_written: texts whose origin no row states were written by people.
        human_labeled: pairs whose labeler no row states were labeled by people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = Field(min_length=1)
    share: float = Field(gt=0, lt=1e9)
    weight: float = Field(default=1.0, gt=0, le=1000)
    human_written: bool = False
    human_labeled: bool = False
    license: str = ""
    split: str = "train"
    layout: Layout = Layout()

    @model_validator(mode="before")
    @classmethod
    def _says_which(cls, value: object) -> object:
        """Written by people and labeled by people are two things."""
        if isinstance(value, dict) and "human" in value:
            raise ValueError(
                "`human` does not say whether people wrote the texts or labeled the pairs; use "
                "`human_written: true`, `human_labeled: true`, or both"
            )
        return value

    @field_validator("layout", mode="before")
    @classmethod
    def _from_file(cls, value: object) -> object:
        """A layout may stand in a file of its own."""
        return load_layout(Path(value)) if isinstance(value, str) else value


class Quota(BaseModel):
    """A slice with the share of the rows that it is held at.

    Attributes:
        slice: `tag:NAME`, `language:CODE`, or `COLUMN:VALUE` with a dotted path.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slice: str
    share: float = Field(gt=0, lt=1)

    @field_validator("slice")
    @classmethod
    def _has_both(cls, text: str) -> str:
        column, colon, value = text.partition(":")
        if not (colon and column.strip() and value.strip()):
            raise ValueError("a slice must be tag:NAME, language:CODE or COLUMN:VALUE")
        return text


class MixSettings(BaseModel):
    """Everything that a mix can be told, apart from its parts and quotas."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["auto", "preferences", "sft", "prompts"] = Field(
        default="auto",
        description="Row type of the mix: pairs, prompts with one completion, or prompts "
        "alone; auto "
        "uses what all datasets have in common.",
    )
    total: int | None = Field(default=None, ge=1, description="Number of rows. [default: all]")
    min_human: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Minimum share of rows that learn a human-written text, by weight; 0 for none. "
        "A human label of model output does not count. With about 10% human data per round, "
        "models trained on model output degraded little; without it they collapsed (Shumailov et "
        "al. 2024).",
    )
    human_weight: float = Field(
        default=4.0,
        ge=1,
        le=100,
        description="Maximum weight for human-written rows, used to reach --min-human. Up to "
        "four passes, repeated data works almost as well as new data (Muennighoff et al. 2023).",
    )
    near_duplicate: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Drop a row if its prompt and completions are both this similar to "
        "another row's "
        "(Jaccard index of word trigrams). So are texts of ten or more words with a tenth of "
        "them misspelled, missing or added, unless that is a number or a denial. 1 drops exact "
        "duplicates only.",
    )
    overlap_words: int = Field(
        default=13,
        ge=3,
        description="Drop rows that share this many consecutive words with evaluation data. Rows "
        "that hold an evaluation text of ten or more words with a tenth of them misspelled, "
        "missing or added are dropped, too.",
    )
    seed: int = Field(default=0, description="Seed for drawing rows.")


class MixPlan(BaseModel):
    """A whole mix."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: list[MixPart] = Field(min_length=1)
    quotas: list[Quota] = []
    evaluations: list[str] = []
    settings: MixSettings = MixSettings()

    @model_validator(mode="after")
    def _fits(self) -> MixPlan:
        names = [part.data for part in self.parts]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is listed twice; list it once with one share")
        slices = [quota.slice for quota in self.quotas]
        twice = next((name for name in slices if slices.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"slice {twice!r} has two quotas")
        return self

    @property
    def shares(self) -> list[float]:
        """Of the parts, made to sum to 1."""
        total = sum(part.share for part in self.parts)
        return [part.share / total for part in self.parts]


def part_of(text: str) -> dict[str, object]:
    """`DATA=SHARE` with settings after it, such as `a.jsonl=0.2,weight=2,human_written=true`.

    Raises:
        ValueError: it has another form.
    """
    match = _SHARE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not of the form DATA=SHARE")
    found: dict[str, object] = {"data": match[1], "share": match[2]}
    for item in (match[3] or "").split(",") if match[3] else []:
        name, equals, value = item.partition("=")
        if not equals or name.strip() not in _SETTINGS:
            raise ValueError(
                f"{item!r} in {text!r} is not weight=X, human_written=true, human_labeled=true, "
                "license=NAME, split=NAME or layout=FILE"
            )
        found[name.strip()] = value.strip()
    return found

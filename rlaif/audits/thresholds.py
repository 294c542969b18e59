"""From where on an audit trips: a YAML file, or flags of `rlaif guard`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaif.constitution.yaml_source import read_yaml
from rlaif.util.validation import explain


class Thresholds(BaseModel):
    """What trips.

    What is compared with a reference trips only if chance is no explanation: all comparisons of an
    audit together trip on data from the reference's own source in at most 5% of cases.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    floor: float = Field(
        default=0.85,
        gt=0,
        le=1,
        description="Least diversity as a share of the reference's, by each measure and at equal "
        "length. Two samples of one model differ by a few percent.",
    )
    tail_floor: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Least share of the reference's rare words and runs of words.",
    )
    min_human: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Least share of rows of human origin, by weight: from `min_human_from_depth` "
        "on, or, where you set another share and no depth, always. A tenth of fresh human data in "
        "each round has been seen to keep models from collapsing, but no share is proven.",
    )
    min_human_from_depth: int = Field(
        default=4,
        ge=0,
        description="From how many synthetic generations on `min_human` holds: drafts, revisions "
        "and one round of samples are three deep.",
    )
    max_depth: int | None = Field(
        default=None, ge=0, description="Most synthetic generations that a row may be deep."
    )
    duplicates: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Most near-duplicates as a share of the texts, beyond the reference's share.",
    )
    duplicates_alone: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Most rows that repeat another's prompt and completion, or, where there is "
        "no reference, another's completion of eight words and more.",
    )
    same_text: float = Field(
        default=0.2, gt=0, le=1, description="Most rows whose text is one and the same."
    )
    slice_floor: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Least that a slice (tag, language, column) may keep of its share in the "
        "reference.",
    )
    drift: float = Field(
        default=0.8,
        gt=0,
        description="Most that tone, format or an attribute may move, in standard deviations of "
        "the reference.",
    )
    perplexity_low: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Least perplexity under the reference model, as a share of the reference's: "
        "text that has become predictable.",
    )
    perplexity_high: float = Field(
        default=2.0, ge=1, description="Most perplexity under the reference model, in the same way."
    )
    biases: Literal["show", "trip"] = Field(
        default="show", description="Whether a flagged bias of the judge trips."
    )
    seed: int = 0

    @property
    def human_wanted_from(self) -> int:
        """The depth from which `min_human` holds: any, if another share than the default was asked
        for, and no depth.
        """
        other = self.min_human != type(self).model_fields["min_human"].default
        alone = other and "min_human_from_depth" not in self.model_fields_set
        return 0 if alone else self.min_human_from_depth

    @property
    def facts(self) -> dict[str, object]:
        """All limits as they were applied."""
        return {**self.model_dump(mode="json"), "min_human_from_depth": self.human_wanted_from}


def load_thresholds(path: Path | None) -> Thresholds:
    """Limits from a YAML file; the defaults for None.

    Raises:
        RlaifError: it can't be read or holds something else; with the place.
    """
    if path is None:
        return Thresholds()
    tree = read_yaml(path)
    try:
        return Thresholds.model_validate(tree.value)
    except ValidationError as error:
        hint = f"Known: {', '.join(Thresholds.model_fields)}; see `rlaif guard --help`."
        raise explain(error, hint=hint, places=tree.places) from None

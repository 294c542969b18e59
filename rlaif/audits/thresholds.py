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
        description="Minimum diversity as a share of the reference's, for each measure at "
        "equal text "
        "length. Two samples from one model differ by a few percent.",
    )
    tail_floor: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Minimum share of the reference's rare words and n-grams.",
    )
    min_human: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Minimum share of human-written rows, by weight; human labels of model "
        "output do not count. Applies from min_human_from_depth on, "
        "or always if you set only this. Adding about 10% fresh human data per round has "
        "kept models from collapsing in studies; no share is proven safe.",
    )
    min_human_from_depth: int = Field(
        default=4,
        ge=0,
        description="Apply min_human from this many synthetic generations on. Drafts, "
        "revisions and "
        "one round of sampling make three.",
    )
    max_depth: int | None = Field(
        default=None, ge=0, description="Maximum synthetic generations of any row."
    )
    duplicates: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Maximum share of near-duplicates above the reference's share.",
    )
    duplicates_alone: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Maximum share of duplicate rows (same prompt and completion). Without a "
        "reference, completions of eight or more words also count alone.",
    )
    same_text: float = Field(
        default=0.2, gt=0, le=1, description="Maximum share of rows with the same text."
    )
    slice_floor: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Minimum share that a slice (tag, language, column) must keep of its share in "
        "the reference.",
    )
    drift: float = Field(
        default=0.8,
        gt=0,
        description="Maximum shift in tone, format or an attribute, in standard deviations of the "
        "reference.",
    )
    perplexity_low: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Minimum perplexity under the reference model, as a share of the reference's. "
        "Lower means the text has become predictable.",
    )
    perplexity_high: float = Field(
        default=2.0,
        ge=1,
        description="Maximum perplexity, as a multiple of the reference's.",
    )
    biases: Literal["show", "trip"] = Field(
        default="show",
        description="Whether a flagged judge bias trips the guard, or is only shown.",
    )
    seed: int = Field(default=0, description="Random seed for drawing half-samples.")

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

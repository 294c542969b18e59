"""What a mix reports: the content of `mix.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlaif.data.licensing import LicenseFinding, finding_of
from rlaif.mixing.settings import MixKind


@dataclass(frozen=True)
class MixReport:
    """What a mix holds.

    Attributes:
        parts: of each: data, its file, share, weight, hash; rows that it gave, had, lost as
            duplicates or as contaminated, and that could not be read.
        human_written: share of rows that learn what people wrote, by weight.
        human_labeled: share of pairs that people labeled, by weight.
        human_factor: how much human-written rows were weighted up to reach the minimum.
        slices: share of the rows of each slice with a quota, before and in the mix, and by weight.
        origins: rows by who wrote what was to be learned; depths: by generation; licenses: by the
            license of each text.
        licenses_found: what the license file has to say of it.
        judges: the models behind each name of a judge.
    """

    kind: MixKind
    rows: int
    parts: list[dict[str, Any]]
    human_written: float
    human_labeled: float
    human_factor: float
    labels: dict[str, int]
    slices: list[dict[str, Any]]
    origins: dict[str, int]
    depths: dict[str, int]
    licenses: dict[str, int]
    licenses_found: list[dict[str, Any]]
    judges: dict[str, list[dict[str, Any]]]
    opposed: int
    made: str

    @property
    def findings(self) -> list[LicenseFinding]:
        """What the license file said when it was mixed."""
        return [finding_of(facts) for facts in self.licenses_found]

"""Whether what a model wrote may train another: a file of readings that people edit.

Says what is known and where it stands; what it means is for the user and their counsel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlaif.constitution.yaml_source import read_yaml
from rlaif.errors import Place
from rlaif.records import Origin
from rlaif.util.resources import find
from rlaif.util.validation import explain

Trains = Literal["allowed", "condition", "forbidden", "ask"]
UNKNOWN = "no matching entry in the license file; look up the terms and add one"
MOST_ROWS = 3


class LicenseRule(BaseModel):
    """One entry of the file.

    Attributes:
        names: patterns over an id with or without its owner or folder.
        ids: patterns over the whole id: of a service, whose models no folder holds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    names: list[str] = []
    ids: list[str] = []
    trains: Trains
    except_: list[str] = Field(default=[], alias="except")
    clause: str = ""
    source: str = ""

    def fits(self, name: str) -> bool:
        """Whether a model's id or a license's is meant."""
        whole = name.strip().lower()
        return _fits(self.names, name) or any(fnmatchcase(whole, p.lower()) for p in self.ids)

    @model_validator(mode="after")
    def _names_something(self) -> LicenseRule:
        if not (self.names or self.ids):
            raise ValueError("`names` or `ids` must contain a pattern")
        return self


class LicenseBook(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal[1] = Field(alias="schema")
    checked: str = ""
    unknown: Literal["warn", "refuse"] = "warn"
    models: list[LicenseRule] = []
    licenses: list[LicenseRule] = []


@dataclass
class ModelUse:
    """Text or labels of one model.

    Attributes:
        what: "prompts", "completions" or "labels".
        count: how many.
        rows: the first rows concerned.
    """

    what: str
    model: str
    license: str
    count: int = 0
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class LicenseFinding:
    """What the file says of a use that it does not simply allow."""

    use: ModelUse
    trains: Trains
    clause: str
    source: str

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        use = self.use
        shown = ", ".join(use.rows) + (", ..." if use.count > len(use.rows) else "")
        rows = f" (rows {shown})" if use.rows else ""
        number = f"{use.count} {use.what}" if use.count else use.what
        license_ = f", license {use.license}" if use.license not in ("", "unknown") else ""
        who = repr(use.model) if use.model else "humans or an unnamed model"
        word = {
            "condition": "may be used for training under a condition",
            "forbidden": "may not be used to train this model",
            "ask": "have unclear terms for training",
        }[self.trains]
        where = f" <{self.source}>" if self.source else ""
        return f"{number} from {who}{license_}{rows} {word}: {self.clause}{where}"

    @property
    def facts(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "what": self.use.what,
            "model": self.use.model,
            "license": self.use.license,
            "count": self.use.count,
            "rows": list(self.use.rows),
            "trains": self.trains,
            "clause": self.clause,
            "source": self.source,
        }


def finding_of(facts: dict[str, Any]) -> LicenseFinding:
    """What `LicenseFinding.facts` gave."""
    use = ModelUse(
        what=facts["what"],
        model=facts["model"],
        license=facts["license"],
        count=facts["count"],
        rows=tuple(facts["rows"]),
    )
    return LicenseFinding(use, facts["trains"], facts["clause"], facts["source"])


def load_licenses(name: str = "models") -> LicenseBook:
    """A file by path, or a shipped one by name.

    Raises:
        RlaifError: it can't be read; with the place.
    """
    path = find(name, folder="licenses", suffix=".yaml", what="license file")
    tree = read_yaml(path)
    try:
        return LicenseBook.model_validate(tree.value)
    except ValidationError as error:
        raise explain(
            error,
            hint="See licenses/models.yaml for the format.",
            places={**tree.places, **tree.keys},
            default=Place(path, 1, 1),
        ) from None


def uses(texts: Iterable[tuple[str, Origin, str]]) -> list[ModelUse]:
    """Texts by (what, where from, row), gathered by model and license; those of people, and those
    that say nothing of themselves, are left out unless they have a license.
    """
    found: dict[tuple[str, str, str], ModelUse] = {}
    for what, origin, row in texts:
        if origin.kind != "model" and not origin.license:
            continue
        key = (what, origin.model, origin.license)
        use = found.get(key) or found.setdefault(key, ModelUse(*key))
        use.count += 1
        if len(use.rows) < MOST_ROWS and row not in use.rows:
            use.rows = (*use.rows, row)
    return list(found.values())


def check(
    book: LicenseBook, used: Sequence[ModelUse], trained: Sequence[str] = ()
) -> list[LicenseFinding]:
    """What is not simply allowed, what is forbidden first.

    Args:
        trained: names of the model that is trained, and of those that it was made from; none where
            there is none yet.
    """
    found = [
        LicenseFinding(use, trains, clause, source)
        for use in used
        for trains, clause, source in [_rule(book, use, trained)]
        if trains != "allowed"
    ]
    order: list[Trains] = ["forbidden", "condition", "ask"]
    return sorted(found, key=lambda f: order.index(f.trains))


def stops(book: LicenseBook, finding: LicenseFinding) -> bool:
    """Whether a training must not start over it."""
    return finding.trains == "forbidden" or (finding.clause == UNKNOWN and book.unknown == "refuse")


def _rule(book: LicenseBook, use: ModelUse, trained: Sequence[str]) -> tuple[Trains, str, str]:
    found = next((r for r in book.models if use.model and r.fits(use.model)), None)
    if found is None and use.license:
        found = next((r for r in book.licenses if r.fits(use.license)), None)
    if found is None:
        return "ask", UNKNOWN, ""
    if any(_fits(found.except_, name) for name in trained):
        return "allowed", "", ""
    return found.trains, found.clause, found.source


def _fits(patterns: Sequence[str], name: str) -> bool:
    whole = name.strip().lower()
    last = whole.rstrip("/").rpartition("/")[2]
    return any(fnmatchcase(n, p.lower()) for p in patterns for n in (whole, last))

"""Which models stand behind the labels of a run or a mix."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlaif.data.mixes import read_mix
from rlaif.data.origins import origin_columns, read_origin
from rlaif.records import Origin
from rlaif.runs.directory import MANIFEST

Judges = Mapping[str, list[Origin]]
"""Models by the name that rows give to their judge: one, or the members of a panel."""


def judges_of(data: str) -> Judges:
    """The judges of a labeling run, of a mix, or of the one that a file lies in; else none."""
    path = Path(data)
    for folder in (path, path.parent, path.parent.parent):
        mixed = read_mix(folder)
        if mixed is not None:
            stated = mixed.get("judges", {})
            return {name: [read_origin(o) for o in found] for name, found in stated.items()}
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            name = str(manifest["config"]["judge"]["model"])
            return {name: [read_origin(o) for o in manifest["judges"]]}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def joined(several: Iterable[Judges]) -> dict[str, list[Origin]]:
    """The judges of several data sets; a name that means different models means all of them."""
    found: dict[str, list[Origin]] = {}
    for judges in several:
        for name, origins in judges.items():
            known = found.setdefault(name, [])
            known += [origin for origin in origins if origin not in known]
    return found


def labelers(judge: str, judges: Judges) -> list[Origin]:
    """Whose label it is: the model's origin, with its license, where it is known."""
    return judges.get(judge) or [Origin("model", judge)]


def judge_columns(judges: Judges) -> dict[str, list[dict[str, object]]]:
    """As a mix keeps them; `judges_of` reads them back."""
    return {name: [origin_columns(o) for o in found] for name, found in judges.items()}

"""Where texts come from: reads what rows say of it, whatever command or person wrote them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rlaif.records import UNKNOWN_ORIGIN, Origin

_SAMPLING = ("temperature", "top_p", "max_tokens", "seed", "system", "finished")
KINDS = ("human", "model")
_COLUMNS = tuple(column.name for column in fields(Origin))
DEEPEST = 100_000


def read_origin(stated: object, name: object = "") -> Origin:
    """What a row says about one text.

    Args:
        stated: a mapping as `rlaif generate` writes it (`kind`, `model`, `revision`, `license`,
            `depth`, `time`, and its sampling), a model's name, or "human".
        name: who wrote it, where that stands in a place of its own.
    """
    if isinstance(stated, str):
        name = name or stated
    found = stated if isinstance(stated, Mapping) else {}
    found = {k: v for k, v in found.items() if not isinstance(v, float) or math.isfinite(v)}
    model = _text(found.get("model")) or _text(name)
    kind = _text(found.get("kind")).lower()
    if kind not in KINDS:
        kind = "human" if model.lower() == "human" else "model" if model else ""
    elif kind == "model" and model.lower() == "human":
        model = ""
    if not kind and not found:
        return UNKNOWN_ORIGIN
    return Origin(
        kind=kind,
        model="" if kind == "human" and model.lower() == "human" else model,
        revision=_text(found.get("revision")),
        license=_text(found.get("license")),
        # Whatever a model was trained on, what it writes is a generation further.
        depth=max(_depth(found), int(kind == "model")),
        sampling=_sampling(found),
        time=_text(found.get("time")),
    )


def origin_columns(origin: Origin) -> dict[str, Any]:
    """An origin as rows hold it; `read_origin` reads it back."""
    return {name: getattr(origin, name) for name in _COLUMNS}


def origin_depth(item: object) -> int:
    """The generation depth that a row or an entry of a list states in its `origin`, or 0."""
    origin = item.get("origin") if isinstance(item, Mapping) else None
    return _depth(origin) if isinstance(origin, Mapping) else 0


def prompt_origin(row: Mapping[str, object]) -> Origin:
    """Where a row's prompt comes from: `prompt_origin`, a label's own, or the whole row's."""
    stated = row.get("prompt_origin")
    if stated is None:
        stated = _labeled(row).get("prompt")
    if stated is None:
        stated = row.get("origin")
    origin = read_origin(stated)
    depth = row.get("prompt_depth")
    if not origin.kind and isinstance(depth, int) and depth > 0:
        return Origin("model", depth=depth)
    return origin


def completion_origin(row: Mapping[str, object], key: str, name: str) -> Origin:
    """Where the completion in column `key` comes from, whose writer `name` was found by its own
    column: `KEY_origin`, a label's or a revision's evidence, or the whole row's origin.
    """
    evidence = row.get("provenance")
    stated: object = row.get(f"{key}_origin")
    if stated is None or isinstance(stated, str):
        own = _labeled(row).get(key)
        if own is None and isinstance(evidence, Mapping):
            own = evidence.get("origin")
        if own is None and not name:
            own = row.get("origin")
        stated = stated if own is None else own
    return read_origin(stated, name)


def _labeled(row: Mapping[str, object]) -> Mapping[str, object]:
    """`provenance.origins`, as `rlaif label` writes it."""
    evidence = row.get("provenance")
    found = evidence.get("origins") if isinstance(evidence, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _depth(origin: Mapping[Any, object]) -> int:
    depth = origin.get("depth", 0)
    if isinstance(depth, float) and math.isfinite(depth):
        depth = int(depth)
    if not isinstance(depth, int) or isinstance(depth, bool):
        return 0
    return depth if 0 < depth <= DEEPEST else 0


def _sampling(found: Mapping[Any, object]) -> str:
    stated = found.get("sampling")
    if isinstance(stated, str):
        return stated
    inner = stated if isinstance(stated, Mapping) else found
    parts = [
        f"{key}={inner[key]}"
        for key in _SAMPLING
        if inner.get(key) is not None and inner[key] != "" and inner[key] is not True
    ]
    return " ".join(parts)

"""The columns of a mix, so that no row and no empty list changes them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rlaif.mixing.settings import MixKind

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ORIGIN = pa.struct(
    [
        ("kind", pa.string()),
        ("model", pa.string()),
        ("revision", pa.string()),
        ("license", pa.string()),
        ("depth", pa.int64()),
        ("sampling", pa.string()),
        ("time", pa.string()),
    ]
)


def schema_of(kind: MixKind) -> Any:
    """The Arrow schema of a mix of a kind."""
    names = {"preferences": ("chosen", "rejected"), "sft": ("completion",), "prompts": ()}[kind]
    evidence = pa.struct(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("status", pa.string()),
            ("judge", pa.string()),
            ("human_written", pa.bool_()),
            ("human_labeled", pa.bool_()),
            ("depth", pa.int64()),
            ("weight", pa.float64()),
            ("tags", pa.string()),
            ("constitution", pa.string()),
            ("origins", pa.struct([(name, _ORIGIN) for name in ("prompt", *names)])),
        ]
    )
    own = [("prompt", _MESSAGES), *((name, _MESSAGES) for name in names)]
    if kind == "preferences":
        own.append(("p_chosen", pa.float64()))
    return pa.schema([*own, ("weight", pa.float64()), ("provenance", evidence)])

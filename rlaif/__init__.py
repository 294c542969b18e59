"""Preference labels from a constitution: batched AI judging with evidence, into DPO training."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif.api.judge import Judge, collect
    from rlaif.api.remote import RemoteJudge
    from rlaif.util.user_functions import allow_functions

__version__ = "0.1.0"
__all__ = ["Judge", "RemoteJudge", "__version__", "allow_functions", "collect"]

_HOMES = {
    "Judge": "rlaif.api.judge",
    "RemoteJudge": "rlaif.api.remote",
    "collect": "rlaif.api.judge",
    "allow_functions": "rlaif.util.user_functions",
}


def __getattr__(name: str) -> Any:
    """Load the API where it is asked for: importing the package stays instant."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

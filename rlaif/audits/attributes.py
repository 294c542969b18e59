"""Attributes of texts that users bring: any function from texts to numbers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from rlaif.errors import RlaifError


def load_attribute(name: str) -> Callable[[Sequence[str]], Sequence[float]]:
    """The function `package.module:function`.

    Raises:
        RlaifError: there is none.
    """
    module, colon, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function) if colon else None
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything
        raise RlaifError(
            f"attribute {name!r} could not be loaded ({error})",
            hint="Name package.module:function.",
        ) from None
    if not callable(found):
        raise RlaifError(f"attribute {name!r} is no function", hint="Name package.module:function.")
    made: Callable[[Sequence[str]], Sequence[float]] = found
    return made

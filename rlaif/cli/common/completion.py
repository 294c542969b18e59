"""What the shell proposes for an option's value: engines, and the names of shipped files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType


class Proposed(StringParamType):
    """A text for which the shell proposes names.

    Args:
        names: what to propose; called only when the shell asks.
        files: let the shell propose files, too.
    """

    def __init__(self, names: Callable[[], Sequence[str]], *, files: bool = True) -> None:
        self._names = names
        self._files = files

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names that begin with what was typed; files come where no name does."""
        file = [CompletionItem(incomplete, type="file")] if self._files else []
        return [*file, *(CompletionItem(n) for n in self._names() if n.startswith(incomplete))]


def _shipped(folder: str, suffix: str) -> Proposed:
    def names() -> Sequence[str]:
        from rlaif.util.resources import list_shipped

        return list_shipped(folder, suffix)

    return Proposed(names)


def _engines() -> Sequence[str]:
    from rlaif.engines.registry import list_engines

    return [info.name for info in list_engines()]


def _synth_templates() -> Sequence[str]:
    from rlaif.util.resources import list_shipped

    shipped = list_shipped("prompts/synth", ".txt")
    return [name for name in shipped if name not in ("topics", "personas")]


_CONSTITUTIONS = _shipped("constitutions", ".yaml")
_JUDGE_TEMPLATES = _shipped("prompts/judge", ".txt")
_ENGINES = Proposed(_engines, files=False)
_SYNTH_TEMPLATES = Proposed(_synth_templates)
_LISTS = Proposed(lambda: ("topics", "personas"))
PROPOSED = {
    "constitution": _CONSTITUTIONS,
    "constitutions": _CONSTITUTIONS,
    "engine": _ENGINES,
    "engines": _ENGINES,
    "judge_engine": _ENGINES,
    "judge_template": _JUDGE_TEMPLATES,
    "judge_templates": _JUDGE_TEMPLATES,
    "proposal": _shipped("prompts/induce", ".txt"),
    "recipe": _shipped("recipes", ".yaml"),
    "template": _JUDGE_TEMPLATES,
    "templates": _SYNTH_TEMPLATES,
    "topics": _LISTS,
    "personas": _LISTS,
    "writer_templates": _shipped("prompts/critique", ".txt"),
}
"""What is proposed for a parameter, by its name."""

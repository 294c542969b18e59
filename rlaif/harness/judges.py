"""The judge that a plug-in asks: in this process, or behind `rlaif serve`."""

from __future__ import annotations

import atexit
import json
import os
import threading
from typing import Any

from rlaif.api.judge import Judge
from rlaif.api.remote import RemoteJudge
from rlaif.constitution.load import load_constitution
from rlaif.errors import RlaifError

URL_VARIABLE = "RLAIF_URL"
_LOCK = threading.Lock()
_OPEN: dict[str, Judge | RemoteJudge] = {}


def open_judge(
    constitution: str | None = None,
    judge: str = "demo",
    *,
    url: str | None = None,
    token: str | None = None,
    **settings: Any,
) -> Judge | RemoteJudge:
    """A judge, the same one for the same arguments: engines start once in a process.

    Args:
        constitution: a YAML file or a shipped name; with `url` also the name that the server knows
            it by, or None for its only one.
        judge: the model, as `--judge`.
        url: of a server; default: `$RLAIF_URL`, else the judge runs here.
        settings: any setting of `rlaif.Judge`, such as `engine`.

    Raises:
        RlaifError: a setting can't be used.
    """
    url = url or os.environ.get(URL_VARIABLE)
    key = json.dumps([constitution, judge, url, token, settings], sort_keys=True, default=str)
    with _LOCK:
        if key not in _OPEN:
            if url:
                _OPEN[key] = RemoteJudge(url, constitution=_served(constitution), token=token)
            elif constitution is None:
                raise RlaifError(
                    "no constitution was given",
                    hint="Pass a YAML file or the name of a shipped constitution.",
                )
            else:
                _OPEN[key] = Judge(constitution, judge, **settings)
        return _OPEN[key]


def _served(constitution: str | None) -> str | None:
    """The name that a server knows a constitution by: that in the file, if it is one."""
    if constitution is None or not constitution.endswith((".yaml", ".yml")):
        return constitution
    return load_constitution(constitution).constitution.name


def close_all() -> None:
    """Close every judge of `open_judge`; called at the end of the process."""
    while _OPEN:
        _OPEN.popitem()[1].close()


atexit.register(close_all)

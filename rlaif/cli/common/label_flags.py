"""From the flags of `rlaif label` to its settings: shared with whatever labels too."""

from __future__ import annotations

from typing import Any

from rlaif.cli.common.layout_flags import layout_fields
from rlaif.cli.common.model_flags import spread
from rlaif.cli.common.options import build, merge_settings
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.judging.aggregation import AggregationSettings
from rlaif.labeling.settings import LabelSettings
from rlaif.templates.judge import default_template


def label_settings(
    config: str | None, flags: dict[str, Any], at: tuple[str | int, ...] = ()
) -> LabelSettings:
    """Settings from a YAML file and flags.

    Args:
        at: where in the file the settings stand.

    Raises:
        RlaifError: one of them is unknown or wrong.
    """
    flags = dict(flags)
    reasoning = flags.pop("reasoning", False)
    pairs = flags.pop("pairs", None)
    mode, colon, count = (pairs or "").partition(":")
    flags["model"] = flags.pop("judge", None)
    given = layout_fields(flags, own=True)
    flags = spread(flags)
    models = (LabelSettings, AggregationSettings, EngineSettings)
    values, places = merge_settings(
        flags, config, models, hidden=frozenset({"judge", "aggregation"}), at=at
    )
    if given:
        own = values.get("layout")
        values["layout"] = {**own, **given} if isinstance(own, dict) else given
    if pairs is not None:
        number = count.isascii() and count.isdigit() and 0 < len(count) < 7 and int(count) > 0
        if mode not in ("all", "best", "sample") or (colon and (mode != "sample" or not number)):
            raise RlaifError(
                f"invalid value for --pairs: {pairs[:60]!r}",
                hint="Use all, best or sample:N, such as sample:3.",
            )
        values["pairs"] = mode
        if colon:
            values["pairs_per_prompt"] = int(count)
    values.setdefault("model", "demo")
    values["judge"] = build(EngineSettings, values, places)
    values["aggregation"] = build(AggregationSettings, values, places)
    if reasoning:
        values.setdefault("template", "reasoned")
    values.setdefault("template", default_template(str(values["model"]), values["judge"].engine))
    return build(LabelSettings, values, places)

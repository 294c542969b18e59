"""What is known about where a model comes from: its license, and how synthetic it is."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rlaif.engines.base import EngineSettings
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.policy_folder import policy_folder
from rlaif.engines.registry import has_files, reward_settings
from rlaif.errors import RlaifError
from rlaif.util.plain_yaml import load_plain_yaml

UNKNOWN = "unknown"


@dataclass(frozen=True)
class ModelOrigin:
    """Facts about a model that its texts carry on.

    Attributes:
        license: as its card says, or "unknown".
        depth: the deepest generation of synthetic text it was trained on by this package; 0 if
            it was not trained by it.
        bases: names of the models that it was made from, the last one first.
    """

    license: str
    depth: int
    bases: tuple[str, ...] = ()


def model_origin(files: ModelFiles) -> ModelOrigin:
    """Read a model's card and, for one trained here, its `training.json`."""
    card, training = _card(files), _training(files)
    license = _license(card) if card else str(training.get("license") or UNKNOWN)
    return ModelOrigin(license, _depth(training), _bases(card, training))


def text_origin(settings: EngineSettings) -> dict[str, Any]:
    """What the texts of a model say about where they are from; `depth` is the model's own."""
    facts, revision = ModelOrigin(UNKNOWN, 0), ""
    if has_files(settings):
        # A copy elsewhere (Ray) may run what is not here: then nothing is known of it.
        with suppress(RlaifError):
            files = resolve_model(settings.model, settings.revision)
            facts, revision = model_origin(files), files.revision or files.fingerprint
    return {
        "kind": "model",
        "model": settings.model,
        "revision": revision,
        "license": facts.license,
        "depth": facts.depth,
    }


def text_origins(settings: EngineSettings) -> list[dict[str, Any]]:
    """The origin of a judge, and those of the reward models that answer beside it."""
    beside = [text_origin(reward_settings(model)) for model in settings.reward_models]
    return [text_origin(settings), *beside]


def _card(files: ModelFiles) -> dict[str, Any]:
    """What the card says for machines."""
    try:
        card = (files.path / "README.md").read_text(encoding="utf-8")
        front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
        found = load_plain_yaml(front.group(1)) if front else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _training(files: ModelFiles) -> dict[str, Any]:
    """What a training wrote at its end, or, of one that goes on, at its start."""
    folder = policy_folder(files.path) or files.path
    for name in ("training.json", "gates.json"):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and "depth" in found:
            return found
    return {}


def _license(card: dict[str, Any]) -> str:
    license = card.get("license")
    return license.strip() if isinstance(license, str) and license.strip() else UNKNOWN


def _depth(training: dict[str, Any]) -> int:
    try:
        return max(0, int(training.get("depth", 0)))
    except (ValueError, TypeError):
        return 0


def _bases(card: dict[str, Any], training: dict[str, Any]) -> tuple[str, ...]:
    stated = [training.get("bases"), card.get("base_model")]
    named = [n for s in stated for n in (s if isinstance(s, list) else [s]) if isinstance(n, str)]
    return tuple(dict.fromkeys(named))

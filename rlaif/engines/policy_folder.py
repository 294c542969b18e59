"""Which folder a training of ours wrote a model into."""

from __future__ import annotations

from pathlib import Path


def policy_folder(path: Path) -> Path | None:
    """The folder of a training that a model, one of its checkpoints or its adapter came from."""
    for folder in (path, *list(path.absolute().parents)[:2]):
        if (folder / "training.yaml").exists():
            return folder
    return None

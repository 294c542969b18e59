"""Finds a model's files: a local folder, an embedded one, or a hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from rlaif.errors import RlaifError, first_line
from rlaif.util.hashing import digest, folder_digest
from rlaif.util.resources import demo_model

EMBEDDED = {"demo-judge": "judge", "demo-policy": "policy", "demo-writer": "writer"}
"Names of the bundled models; `demo` resolves to the one that a command needs."
_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk.

    Attributes:
        name: how the user named it.
        path: the folder with its files.
        revision: the hub commit, or "" for a folder.
        fingerprint: content address of its files, or of repository and commit.
    """

    name: str
    path: Path
    revision: str
    fingerprint: str


def resolve_model(name: str, revision: str | None = None, *, embedded: str = "judge") -> ModelFiles:
    """Locate a model, downloading it if it is a hub id that is not cached.

    Args:
        embedded: what the name "demo" stands for: "judge" or "policy".

    Raises:
        RlaifError: there is no such folder and the hub does not give it.
    """
    embedded = EMBEDDED.get(name, embedded)
    path = demo_model(embedded) if name == "demo" or name in EMBEDDED else Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise RlaifError(
                f"model folder {name!r} has no config.json",
                hint="Use a folder saved with save_pretrained.",
            )
        return ModelFiles(name, path, "", folder_digest(path, _FILES, sampled=True))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise RlaifError(f"model folder {name!r} does not exist", hint="Check the path.")
    try:
        local = Path(snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except Exception as error:  # the hub client raises many unrelated types
        reason = first_line(error)
        raise RlaifError(
            f"model {name!r} could not be loaded from the Hugging Face Hub "
            f"({type(error).__name__}: "
            f"{reason})",
            hint="Use a local folder, check the model ID and the network, or use `demo`.",
        ) from None
    commit = local.name
    return ModelFiles(name, local, commit, digest({"repo": name, "commit": commit}))

"""Finds a model's files: a local folder, an embedded one, or a hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from rlaif.engines.adapters import Adapter, merge_adapter, read_adapter
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

    A LoRA adapter is merged into its base, once.

    Args:
        embedded: what the name "demo" stands for: "judge" or "policy".

    Raises:
        RlaifError: there is no such folder and the hub does not give it.
    """
    embedded = EMBEDDED.get(name, embedded)
    path = demo_model(embedded) if name == "demo" or name in EMBEDDED else Path(name)
    if path.is_dir():
        adapter = read_adapter(path)
        if adapter is not None:
            return _merged(name, adapter)
        if not (path / "config.json").is_file():
            raise RlaifError(
                f"model folder {name!r} has no config.json",
                hint="Use a folder saved with save_pretrained: a model, or a LoRA adapter.",
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
    adapter = read_adapter(local)
    if adapter is not None and adapter.base != name:
        return _merged(name, adapter)
    return ModelFiles(name, local, commit, digest({"repo": name, "commit": commit}))


def _merged(name: str, adapter: Adapter) -> ModelFiles:
    try:
        folder = Path(adapter.base)
        if folder.is_dir() and read_adapter(folder) is not None:
            raise RlaifError(f"{adapter.base!r} is an adapter itself")
        base = resolve_model(adapter.base, adapter.revision)
    except RlaifError as error:
        raise RlaifError(
            f"the base of the adapter {name!r} could not be found ({error.message})",
            hint="Correct base_model_name_or_path in its adapter_config.json.",
        ) from None
    path, fingerprint = merge_adapter(adapter, base.path, base.fingerprint)
    return ModelFiles(name, path, "", fingerprint)

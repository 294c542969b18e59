"""LoRA adapters as models: merged into their base once, and kept in the user's cache."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.engines.policy_folder import policy_folder
from rlaif.errors import RlaifError, first_line
from rlaif.util.hashing import digest, folder_digest
from rlaif.util.user_cache import user_cache_dir

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_OWN = ("adapter_config.json", "*.safetensors", "tokenizer*", "special_tokens_map.json", "*.jinja")
_TOKENIZER = ("tokenizer_config.json", "tokenizer.json", "chat_template.jinja")


@dataclass(frozen=True)
class Adapter:
    """A folder with a LoRA adapter, as PEFT saves it.

    Attributes:
        base: what the adapter was trained on: a folder or a Hub ID.
        revision: of the base, or None.
        fingerprint: content address of the adapter's own files.
    """

    path: Path
    base: str
    revision: str | None
    fingerprint: str


def read_adapter(path: Path) -> Adapter | None:
    """The adapter in a folder; None where there is none, or a whole model beside it.

    Raises:
        RlaifError: the adapter is none for a causal language model, names no base, or has pickled
            weights.
    """
    if (path / "config.json").is_file() or not (path / CONFIG).is_file():
        return None
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        base = config["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RlaifError(
            f"{str(path / CONFIG)!r} could not be read ({first_line(error)})",
            hint="Use a folder that PEFT's save_pretrained wrote.",
        ) from None
    kind = config.get("task_type")
    if kind not in (None, "CAUSAL_LM") or not isinstance(base, str) or not base:
        raise RlaifError(
            f"the adapter {str(path)!r} is for {kind or 'no'} task and the base {base!r}",
            hint="Use an adapter of a causal language model.",
        )
    if not (path / WEIGHTS).is_file():
        raise RlaifError(
            f"the adapter {str(path)!r} has no {WEIGHTS}",
            hint="Save it with safetensors; pickled weights are not loaded.",
        )
    revision = config.get("revision")
    return Adapter(
        path,
        _base_of(path, base),
        revision if isinstance(revision, str) else None,
        folder_digest(path, _OWN, sampled=True),
    )


def _base_of(path: Path, base: str) -> str:
    """A relative base folder is looked for here and beside the adapter."""
    for folder in (Path(base), path / base):
        if folder.is_dir():
            return str(folder)
    return base


def merge_adapter(adapter: Adapter, base: Path, base_fingerprint: str) -> tuple[Path, str]:
    """A whole model of an adapter and its base, made at the first call.

    Args:
        base: the folder of the base's files.

    Returns:
        Its folder in the user's cache, and its fingerprint.

    Raises:
        RlaifError: the two do not fit, or the cache can't be written.
    """
    fingerprint = digest({"base": base_fingerprint, "adapter": adapter.fingerprint})
    out = user_cache_dir() / "merged" / fingerprint[:32]
    if not (out / "config.json").is_file():
        _write_folder(out, lambda folder: _merge(adapter, base, folder))
    return out, fingerprint


def _merge(adapter: Adapter, base: Path, out: Path) -> None:
    from peft import PeftModel  # noqa: PLC0415 - heavy, and needed once for an adapter
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - as above

    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype="auto", trust_remote_code=False, use_safetensors=True
    )
    merged = PeftModel.from_pretrained(model, str(adapter.path)).merge_and_unload()
    merged.save_pretrained(out)
    own = any((adapter.path / name).is_file() for name in _TOKENIZER)
    source = adapter.path if own else base
    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(out)
    _copy_origin(adapter.path, base, out)


def _copy_origin(adapter: Path, base: Path, out: Path) -> None:
    """What says where a model is from: the adapter's card, or its base's if it has no license."""
    cards = [folder / "README.md" for folder in (base, adapter)]
    for card in cards:
        if card.is_file() and (
            card is cards[0] or "\nlicense:" in card.read_text(encoding="utf-8", errors="replace")
        ):
            shutil.copyfile(card, out / "README.md")
    trained = policy_folder(adapter) or adapter
    for name in ("training.json", "gates.json"):
        if (trained / name).is_file():
            shutil.copyfile(trained / name, out / name)


def _write_folder(out: Path, write: Callable[[Path], None]) -> None:
    """Make a folder whole or not at all, also where another process makes the same one."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        held = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise RlaifError(
            f"the cache folder {str(out.parent)!r} can't be written ({error.strerror})",
            hint="Set RLAIF_CACHE_DIR to a folder that can be written.",
        ) from None
    try:
        write(held)
        try:
            os.replace(held, out)
        except OSError:
            if not (out / "config.json").is_file():  # somebody else was not faster
                raise
    except Exception as error:  # loaders raise many unrelated types
        raise RlaifError(
            f"the adapter could not be merged into its base ({first_line(error)})",
            hint="Check that base_model_name_or_path in adapter_config.json names the model that "
            "it was trained on.",
        ) from None
    finally:
        shutil.rmtree(held, ignore_errors=True)

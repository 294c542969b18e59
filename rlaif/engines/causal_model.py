"""Loads a model whole: no weight of it is made up."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import transformers

from rlaif.errors import RlaifError

_HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "RewardModel",
)
_SHOWN = 3


def load_causal_model(path: Path, name: str, dtype: Any) -> Any:
    """The model in a folder.

    Args:
        name: of the model, for errors.
        dtype: of torch, or "auto".

    Raises:
        RlaifError: it can't be loaded, or its files lack weights, which would be random.
    """
    refuse_other_heads(path, name)
    return load_whole(_class_of(path), path, name, dtype)


def _class_of(path: Path) -> Any:
    """The class that loads a model with its head: some with eyes are known by another one."""
    with suppress(OSError, ValueError, KeyError):  # said where the model is loaded
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
        for kind in (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText):
            if type(config) in kind._model_mapping:
                return kind
    return transformers.AutoModelForCausalLM


def load_whole(kind: Any, path: Path, name: str, dtype: Any) -> Any:
    """A model of a kind, with none of its weights made up.

    Args:
        kind: an `AutoModel` class of `transformers`.
        name, dtype: see `load_causal_model`.

    Raises:
        RlaifError: it can't be loaded, or its files lack weights, which would be random.
    """
    try:
        model, info = kind.from_pretrained(
            path,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            **attention_of(path),
        )
    except Exception as error:  # loaders raise many unrelated types
        raise RlaifError(
            f"model {name!r} could not be loaded ({error})", hint="Check the model's files."
        ) from None
    missing = sorted(info["missing_keys"])
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise RlaifError(
            f"the files of model {name!r} lack {len(missing)} weights ({shown}), which would be "
            "random",
            hint="Use a model that is saved with all of its weights.",
        )
    return model


def attention_of(path: Path | str) -> dict[str, Any]:
    """Arguments for `from_pretrained` by which a model keeps all of its attention.

    torch's fused kernel, which `transformers` takes by default, leaves out caps on attention
    logits (Gemma 2) without a word: those models take the plain one.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError):  # said where the model is loaded
        return {}
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return {"attn_implementation": "eager"} if capped else {}


def refuse_other_heads(path: Path, name: str) -> None:
    """Refuse a model that scores or classifies: it writes nothing, and has no label tokens.

    Raises:
        RlaifError: it is one, by its config.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError):  # said where the model is loaded
        return
    kinds = getattr(config, "architectures", None) or []
    other = next((kind for kind in kinds if str(kind).endswith(_HEADS)), None)
    if other is not None:
        raise RlaifError(
            f"model {name!r} is a {other}: it scores texts and writes none",
            hint="Use --engine reward-model to judge with it, or use a causal language model.",
        )

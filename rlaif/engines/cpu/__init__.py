"""A decoder for CPUs: kernels of its own on packed weights."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

_log = logging.getLogger(__name__)


def load_decoder() -> Any:
    """The module `decoder`, its kernels compiled; None where numba is missing or can't do it."""
    try:
        return import_module("rlaif.engines.cpu.decoder")
    except ModuleNotFoundError:  # numba comes with vLLM, not with rlaif
        return None
    except Exception as error:  # what an unfit numba, llvmlite or processor raises
        reason = " ".join(str(error).split())[:200]
        _log.warning("kernels for this CPU can't be compiled, so it is slower (%s)", reason)
        return None

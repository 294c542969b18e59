"""A decoder for CPUs: kernels of its own on packed weights."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from rlaif.util.hashing import digest
from rlaif.util.user_cache import user_cache_dir

_log = logging.getLogger(__name__)


@contextmanager
def _compiled_kept() -> Iterator[None]:
    """Let numba keep the kernels that it compiles, so that the next process need not (3 seconds).

    numba itself tells processors apart, but it would not notice a change in a file that the
    kernels' file imports: the folder is named by all that they are made of.
    """
    import numba  # noqa: PLC0415 - it may be missing

    own = numba.config.CACHE_DIR
    made_of = "".join(
        Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("kernels.py", "vectors.py")
    )
    folder = Path(own) if own else user_cache_dir() / "kernels"
    folder = folder / digest([made_of, numba.__version__])[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        numba.config.CACHE_DIR = str(folder)
    except OSError:  # a home that can't be written to
        numba.config.CACHE_DIR = ""
    try:
        yield
    finally:
        numba.config.CACHE_DIR = own


def load_decoder() -> Any:
    """The module `decoder`, its kernels compiled; None where numba is missing or can't do it."""
    try:
        with _compiled_kept():
            return import_module("rlaif.engines.cpu.decoder")
    except ModuleNotFoundError:  # numba comes with vLLM, not with rlaif
        return None
    except Exception as error:  # what an unfit numba, llvmlite or processor raises
        reason = " ".join(str(error).split())[:200]
        _log.warning("kernels for this CPU can't be compiled, so it is slower (%s)", reason)
        return None

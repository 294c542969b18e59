"""No regular expression of the package hangs on a text that was made to hang it."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = r"""
import importlib, pkgutil, re, sys
import regex
import rlaif

size = 60_000
pieces = ["\n", " ", "a", "A: ", "\n\nHuman: ", "*", "**", "`", "```\n", "<", "<|", "[", "(",
          "#", "# ", "-", "- ", "1", "1.", "1. ", "|", "||", ":", "\"", "'", "\\", "/", "@", "a@",
          ".", "a.", "User:", "user: ", "\u200b", "\u3000", "=", "0", "_", "+", "+1 ", "{", "}\n{",
          "&lt;", "\t", "http://", "x:y@", "ä", "漢", "\r\n", " \n", ">", "~", "$", "%", "a b "]
found, sources = {}, ""
for path in __import__("pathlib").Path(rlaif.__path__[0]).rglob("*.py"):
    sources += path.read_text(encoding="utf-8")
for info in pkgutil.walk_packages(rlaif.__path__, "rlaif."):
    if info.name.rsplit(".", 1)[-1].startswith("__main__"):
        continue
    try:
        module = importlib.import_module(info.name)
    except ImportError:
        continue
    held = list(vars(module).items())
    while held:
        name, value = held.pop()
        if isinstance(value, re.Pattern | regex.Pattern):
            found.setdefault((value.pattern, value.flags), (info.name, name, value))
        elif isinstance(value, dict):
            held += [(name, v) for v in value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)) and len(value) < 200:
            held += [(name, v) for v in value]
        elif type(value).__module__.startswith("rlaif."):
            fields = getattr(value, "__dataclass_fields__", {})
            held += [(name, getattr(value, f, None)) for f in fields]
print(len(found), flush=True)
for module, name, pattern in found.values():
    if isinstance(pattern.pattern, bytes):
        continue
    print(module, name, flush=True)
    # Patterns that only match whole texts, such as names, are tried as that.
    named = name.strip("_") not in ("FORMS", "RULES") and name in sources
    scans = not named or any(
        f"{name}.{use}(" in sources for use in ("search", "finditer", "findall", "sub", "split")
    )
    for piece in pieces:
        text = piece * (size // len(piece))
        for end in ("", "\x00"):
            if scans:
                for match in pattern.finditer(text + end):
                    pass
            else:
                pattern.match(text + end), pattern.fullmatch(text + end)
print("done")
"""


@pytest.mark.slow
def test_no_pattern_hangs() -> None:
    """Quadratic work on these texts would take hours; the limit is no measure of speed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=420
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode().splitlines()
        pytest.fail(f"hangs at {said[-1]}")
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[-1] == "done"
    assert int(lines[0]) > 80

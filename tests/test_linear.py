"""No regular expression of the package hangs on a text that was made to hang it."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = r"""
import importlib, pkgutil, re, sys
import re._parser as parser
import regex
import rlaif

size = 60_000
pieces = ["\n", " ", "a", "A: ", "\n\nHuman: ", "*", "**", "`", "```\n", "<", "<|", "[", "(",
          "#", "# ", "-", "- ", "1", "1.", "1. ", "|", "||", ":", "\"", "'", "\\", "/", "@", "a@",
          ".", "a.", "User:", "user: ", "\u200b", "\u3000", "=", "0", "_", "+", "+1 ", "{", "}\n{",
          "&lt;", "\t", "http://", "x:y@", "ä", "漢", "\r\n", " \n", ">", "~", "$", "%", "a b "]
found, sources, bounded = {}, "", 0
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


def repeats_without_end(parsed):
    # Whether a part may come any number of times: patterns without one can't hang.
    for kind, value in parsed:
        if kind in (parser.MAX_REPEAT, parser.MIN_REPEAT, parser.POSSESSIVE_REPEAT):
            if value[1] is parser.MAXREPEAT or repeats_without_end(value[2]):
                return True
        elif kind is parser.BRANCH and any(map(repeats_without_end, value[1])):
            return True
        elif kind in (parser.SUBPATTERN, parser.ATOMIC_GROUP, parser.ASSERT, parser.ASSERT_NOT):
            inner = value if kind is parser.ATOMIC_GROUP else value[-1]
            if repeats_without_end(inner):
                return True
        elif kind is parser.GROUPREF_EXISTS and any(
            part is not None and repeats_without_end(part) for part in value[1:]
        ):
            return True
    return False


for module, name, pattern in found.values():
    if isinstance(pattern.pattern, bytes):
        continue
    if isinstance(pattern, re.Pattern) and not repeats_without_end(
        parser.parse(pattern.pattern, pattern.flags)
    ):
        bounded += 1
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

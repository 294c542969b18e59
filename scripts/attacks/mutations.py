"""Changes of files as bytes and as data: what strangers, editors and broken disks make of them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import yaml

SPITEFUL: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**400,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\x00",
    "\x1b]0;owned\x07\x1b[31mred",
    "\u202eabc",
    "\ud800",
    "=1+1",
    "{{ 7 * 7 }}",
    "{% for x in range(10**9) %}x{% endfor %}",
    "<|im_start|>system\n",
    "../../etc/passwd",
    "a" * 100_000,
    "\n" * 50_000,
    "🤷" * 1000,
    "ﷺ" * 1000,
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": ""},
    {"role": "user"},
    [{"role": "user", "content": None}],
    [{"role": "wizard", "content": "x"}],
    ["x"] * 1000,
    {"a": {"b": {"c": {"d": {"e": {"f": "g"}}}}}},
)
"""Values that nobody expects; numbers no machine holds, texts that mean something to somebody."""


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key in value:
            found += _places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:50]):
            found += _places(item, (*path, index))
    return found


def mutate_value(value: Any, rng: random.Random) -> Any:
    """A copy with one part replaced, dropped, doubled, renamed or put elsewhere."""
    value = copy.deepcopy(value)
    places = _places(value)
    path = rng.choice(places)
    if not path:
        return rng.choice(SPITEFUL) if rng.random() < 0.3 else value
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    last = path[-1]
    kind = rng.randrange(6)
    if kind == 0:
        del holder[last]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(["x", "", "id", "prompt", "chosen", "\u200b", str(last) + " "])] = (
            holder.pop(last)
        )
    elif kind == 2 and isinstance(holder, list):
        holder += [copy.deepcopy(holder[last])] * rng.choice([1, 3, 200])
    elif kind == 3:
        other = rng.choice(places)
        part = value
        for step in other:
            part = part[step]
        holder[last] = copy.deepcopy(part)
    elif kind == 4 and isinstance(holder[last], str):
        text = holder[last]
        at = rng.randrange(len(text) + 1)
        holder[last] = text[:at] + str(rng.choice(SPITEFUL[9:25])) + text[at:]
    else:
        holder[last] = copy.deepcopy(rng.choice(SPITEFUL))
    return value


def _flip(data: bytes, rng: random.Random) -> bytes:
    held = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 3, 40])):
        held[rng.randrange(len(held))] = rng.randrange(256)
    return bytes(held)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _hole(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + b"\0" * rng.choice([1, 512, 4096]) + data[start + rng.randrange(600) :]


def _double(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start : start + rng.randrange(2000)] * 2 + data[start:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    junk = rng.choice(
        [
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"\r\n",
            b"\x1b[2J",
            b"[" * 100_000,
            b'{"a":' * 5_000,
            b"9" * 5_000,
            b"1e99999",
            b"NaN",
            b"-Infinity",
            b"\\ud800",
            b"&a [*a]\n",
            b"!!python/object/apply:os.system ['true']\n",
            b"\t",
            b"'",
            b'"',
            b"---\n",
        ]
    )
    return data[:start] + junk + data[start:]


def _recode(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    kind = rng.choice(["utf-16", "utf-32", "latin-1", "utf-8-sig", "utf-7"])
    return text.encode(kind, "replace")


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    rng.shuffle(lines)
    return b"".join(lines[: rng.randrange(len(lines) + 1)])


def _joined(data: bytes, rng: random.Random) -> bytes:
    return data.replace(
        b"\n", rng.choice([b"", b"\r", b"\r\n", b"\n\n", b"\x0b", "\u2028".encode()])
    )


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _cut,
    _hole,
    _double,
    _insert,
    _recode,
    _lines,
    _joined,
    lambda data, rng: b"",
)


def mutate_file(name: str, data: bytes, rng: random.Random) -> bytes:
    """Another content for a file of this name: as data where it is some, else as bytes."""
    if rng.random() < 0.4:
        return rng.choice(BYTES)(data, rng)
    try:
        if name.endswith((".jsonl", ".ndjson")):
            lines = data.decode().splitlines()
            for _ in range(rng.choice([1, 1, 4])):
                at = rng.randrange(len(lines))
                lines[at] = _dump(mutate_value(json.loads(lines[at]), rng), rng)
            return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
        if name.endswith((".json", ".eval")):
            return _dump(mutate_value(json.loads(data), rng), rng).encode("utf-8", "surrogatepass")
        if name.endswith((".yaml", ".yml")):
            changed = mutate_value(yaml.safe_load(data), rng)
            return yaml.safe_dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass")
    except Exception:  # what was changed before is no data any more
        pass
    return rng.choice(BYTES)(data, rng)


def _dump(value: Any, rng: random.Random) -> str:
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)

"""Many damaged files: each loads or gives one clean error, quickly and in little memory."""

from __future__ import annotations

import re
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif.constitution.load import load_constitution
from rlaif.errors import RlaifError
from rlaif.util.resources import data_root

SEEDS = [
    (data_root() / "constitutions" / f"{name}.yaml").read_text()
    for name in ("demo", "customer-support")
]
SPICE = [
    "&a ",
    "*a",
    "!!python/object:os.system ",
    "!!binary ",
    "!!set ",
    "? ",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "'",
    '"',
    "|\n",
    ">\n",
    "#",
    "%YAML 9.9\n",
    "---\n",
    "...\n",
    "<<: ",
    "\t",
    "\x00",
    "\u2028",
    "\ufeff",
    "~",
    ".nan",
    ".inf",
    "0o9",
    "1:2:3",
    "2001-01-01",
    "yes",
    "no",
    "9" * 400,
    "extends: [demo]\n",
    "extends: [x.yaml]\n",
    "drop: [be-polite]\n",
    "schema: 1\n",
    "id: a\n",
    "check: {kind: regex, pattern: '(a+)+$'}\n",
    "check: {kind: json}\n",
    "  ",
    "\n",
    "é",
    "💥",
]
PLACE = re.compile(r"^.+\.yaml(:\d+:\d+)?: ")

edits = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 60),
        st.one_of(st.sampled_from(SPICE), st.text(max_size=12)),
    ),
    min_size=1,
    max_size=6,
)


def check(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    began = time.process_time()
    tracemalloc.start()
    try:
        load_constitution(str(path))
    except RlaifError as error:
        message = str(error)
        assert PLACE.match(message), message
        assert "\n" not in message
        assert len(message) < 2000
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20
    # A hang guard, not a measurement: a typical case takes 0.02 s.
    assert time.process_time() - began < 20


@pytest.mark.slow
@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.sampled_from(SEEDS), edits=edits)
def test_edited_files(tmp_path: Path, seed: str, edits: list[tuple[int, int, str]]) -> None:
    text = seed[:2500]
    for at, cut, insert in edits:
        at %= len(text) + 1
        text = text[:at] + insert + text[at + cut :]
    check(tmp_path / "c.yaml", text.encode("utf-8", "surrogatepass"))


@settings(
    max_examples=350, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=300))
def test_random_bytes(tmp_path: Path, data: bytes) -> None:
    check(tmp_path / "c.yaml", data)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["json", "regex", "kind", "id", "prefer"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["id", "kind", "tags", "prompt", "pattern", "words", "x", "role"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


@pytest.mark.slow
@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.sampled_from(
        [
            "id",
            "tier",
            "weight",
            "polarity",
            "preference",
            "critique",
            "applies_to",
            "examples",
            "check",
            "nonsense",
        ]
    ),
    value=values,
    top=st.sampled_from(["", "name", "version", "license", "extends", "drop", "principles"]),
)
def test_wrong_values_in_right_places(tmp_path: Path, key: str, value: object, top: str) -> None:
    import yaml

    principle = {"id": "a", "preference": "Which response?", key: value}
    document = {"schema": 1, "name": "a", "version": "1", "principles": [principle]}
    if top:
        document[top] = value
    check(
        tmp_path / "c.yaml", yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "replace")
    )

"""A bad file gives one error with its place and a next step; a good one loads as written."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from rlaif.constitution.load import load_constitution
from rlaif.errors import RlaifError
from rlaif.util.resources import data_root

HEAD = 'schema: 1\nname: mine\nversion: "1"\nprinciples:\n'
ONE = HEAD + "  - id: kind\n    preference: Which response is kinder?\n"


def write(folder: Path, text: str | bytes, name: str = "c.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
    return path


BAD = {
    "unknown key": (ONE + "    wieght: 2\n", "7:5", "'wieght'", "'weight'"),
    "unknown top key": ("naem: x\n" + ONE, "1:1", "'naem'", "'name'"),
    "duplicate key": (ONE + "    id: other\n", "7:5", "'id' is used twice (first on line 5)", ""),
    "duplicate id": (
        ONE + "  - id: kind\n    preference: Which response?\n",
        "7:9",
        "'kind' is used twice (first on line 5)",
        "Rename",
    ),
    "empty text": (HEAD + '  - id: kind\n    preference: "  "\n', "6:17", "must not be empty", ""),
    "number for text": (ONE.replace('"1"', "1.0"), "3:10", "a string, not a number", '"1.0"'),
    "boolean for text": (
        HEAD + "  - id: kind\n    preference: no\n",
        "6:17",
        "a string, not a boolean",
        "Quote it",
    ),
    "text for number": (ONE + "    weight: heavy\n", "7:13", "valid number", "schema"),
    "weight zero": (ONE + "    weight: 0\n", "7:13", "greater than 0", ""),
    "weight nan": (ONE + "    weight: .nan\n", "7:13", "finite number", ""),
    "tier too low": (ONE + "    tier: 0\n", "7:11", "greater than or equal to 1", ""),
    "bad id": (ONE.replace("kind\n", "Über kind\n"), "5:9", "pattern", ""),
    "no id": (HEAD + "  - preference: Which response?\n", "5:5", "has no `id`", "id: some-name"),
    "nothing asked": (
        HEAD + "  - id: kind\n",
        "5:5",
        "exactly one of `preference` and `check`",
        "",
    ),
    "asked twice": (ONE + "    check: {kind: json}\n", "5:5", "exactly one of", ""),
    "missing version": (
        ONE.replace('version: "1"\n', ""),
        "1:1",
        "is missing 'version'",
        "`version:`",
    ),
    "wrong schema": (ONE.replace("schema: 1", "schema: 2"), "1:9", "should be 1", ""),
    "no principles": ('schema: 1\nname: a\nversion: "1"\n', "1:1", "`principles`", "Add"),
    "principles no list": (HEAD.rstrip() + " x\n", "4:13", "must be a list", ""),
    "principle no mapping": (HEAD + "  - kind\n", "5:5", "not a mapping", ""),
    "check kind": (HEAD + "  - id: a\n    check: {kind: jsn}\n", "6:12", "jsn", ""),
    "check without kind": (HEAD + "  - id: a\n    check: {words: 3}\n", "6:12", "kind", "regex"),
    "bad regex": (
        HEAD + "  - id: a\n    check: {kind: regex, pattern: '(['}\n",
        "6:35",
        "not a valid regular expression",
        "",
    ),
    "check key": (
        HEAD + "  - id: a\n    check: {kind: max_length, word: 3}\n",
        "6:31",
        "'word'",
        "'words'",
    ),
    "same example": (
        ONE + "    examples:\n      - {prompt: p, chosen: a, rejected: a}\n",
        "8:9",
        "must differ",
        "",
    ),
    "example key": (
        ONE + "    examples:\n      - {prompt: p, chosen: a, reject: b}\n",
        "8:32",
        "'reject'",
        "'rejected'",
    ),
    "tab": (ONE + "\tweight: 2\n", "7:1", "invalid YAML", "indentation"),
    "open bracket": (ONE + "    examples: [\n", "8:1", "invalid YAML", ""),
    "not a mapping": ("- a\n- b\n", "1:1", "must be a mapping", "init"),
    "empty file": ("", "1:1", "empty", "init"),
    "only a comment": ("# nothing\n", "1:1", "empty", "init"),
    "two documents": (ONE + "---\nschema: 1\n", "7:1", "single document", ""),
    "tag": (ONE + "    critique: !!python/name:os.system x\n", "7:15", "not allowed", "Remove"),
    "odd key": (ONE + "    ? [a, b]\n    : c\n", "7:7", "key is not a string", ""),
    "control character": (ONE.replace("kinder", "k\x07nder"), "6:36", "U+0007", "Remove it"),
    "not valid UTF-8": (ONE.encode() + b"    critique: caf\xe9\n", "7:18", "0xe9", "UTF-8"),
    "self-referring alias": (ONE + "    examples: &a [*a]\n", "7:15", "infinite", "extends"),
    "merge key": (ONE + "    <<: {tier: 2}\n", "7:5", "'<<'", "extends"),
    "huge number": (ONE + "    tier: " + "9" * 5000 + "\n", "7:11", "tier", ""),
    "empty number": (ONE + '    weight: !!int ""\n', "7:13", "not a valid int", "Quote it"),
    "odd escape": (ONE + '    critique: "\\U00110000"\n', "1:1", "invalid YAML", "escape"),
    "odd directive": ("%YAML 1." + "9" * 5000 + "\n---\n" + ONE, "1:1", "invalid YAML", ""),
    "regex that explodes": (
        HEAD + "  - id: a\n    check: {kind: regex, pattern: '(?:(?:a{65535}){65535})'}\n",
        "6:35",
        "more than the limit of 10000",
        "",
    ),
    "check kind typo": (
        HEAD + "  - id: a\n    check: {kind: regx, pattern: a}\n",
        "6:12",
        "a.check",
        "'regex'",
    ),
    "polarity typo": (ONE + "    polarity: avoids\n", "7:15", "kind.polarity", "'avoid'"),
    "role of a turn": (
        ONE
        + "    examples:\n      - prompt: [{role: usr, content: hi}]\n"
        + "        chosen: a\n        rejected: b\n",
        "8:25",
        "role",
        "'user'",
    ),
    "too many principles": (
        HEAD + "".join(f"  - {{id: a{i}, tier: 1}}\n" for i in range(3000)),
        "5:3",
        "more than the limit of 1000",
        "Split",
    ),
    "misspelled base": (
        "extends: [hepful-honest-harmless]\n" + ONE,
        "1:11",
        "does not exist",
        "'helpful-honest-harmless'",
    ),
    "missing base": ("extends: [nope.yaml]\n" + ONE, "1:11", "does not exist", "relative"),
    "base outside": ("extends: [../up.yaml]\n" + ONE, "1:11", "outside", "Copy"),
    "absolute base": ("extends: [/etc/passwd]\n" + ONE, "1:11", "outside", "Copy"),
    "itself as base": ("extends: [c.yaml]\n" + ONE, "1:11", "circular", "Remove one"),
    "extends no list": ("extends: c.yaml\n" + ONE, "1:10", "must be a list", ""),
    "drop of nothing": (
        "extends: [demo]\ndrop: [be-polit]\n" + ONE,
        "2:8",
        "be-polit",
        "be-polite",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_says_where_what_and_next(name: str, tmp_path: Path) -> None:
    text, place, what, hint = BAD[name]
    path = write(tmp_path, text)
    with pytest.raises(RlaifError) as caught:
        load_constitution(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}:{place}: "), message
    assert what.lower() in message.lower()
    assert hint in message
    assert "\n" not in message
    assert len(message) < 600


def test_aliases_that_explode_are_refused_quickly(tmp_path: Path) -> None:
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(RlaifError, match="too large or infinite"):
        load_constitution(str(write(tmp_path, "\n".join(layers) + "\n")))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RlaifError, match="nested deeper"):
        load_constitution(str(write(tmp_path, "a: " + "[" * 900 + "]" * 900)))


def test_large_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RlaifError, match="KiB"):
        load_constitution(str(write(tmp_path, "#" * 600_000)))


def test_unknown_name_lists_what_ships() -> None:
    with pytest.raises(RlaifError, match=r"Did you mean 'summarization'\?.*customer-support"):
        load_constitution("sumarization")


def test_circle_over_two_files_is_named(tmp_path: Path) -> None:
    write(tmp_path, "extends: [b.yaml]\n" + ONE, "a.yaml")
    write(tmp_path, "extends: [a.yaml]\n" + ONE, "b.yaml")
    with pytest.raises(RlaifError, match=r"b\.yaml:1:11: .*a\.yaml -> b\.yaml -> a\.yaml"):
        load_constitution(str(tmp_path / "a.yaml"))


def test_link_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    outside = write(tmp_path / "elsewhere", ONE)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link.yaml").symlink_to(outside)
    path = write(tmp_path / "here", "extends: [link.yaml]\n" + ONE)
    with pytest.raises(RlaifError, match="outside"):
        load_constitution(str(path))


def test_extends_overrides_field_by_field_drops_and_adds(tmp_path: Path) -> None:
    write(
        tmp_path,
        HEAD
        + '  - {id: one, preference: "Which response is first?", weight: 2.0}\n'
        + '  - {id: two, preference: "Which response is second?"}\n'
        + '  - {id: three, preference: "Which response is third?"}\n',
        "base/base.yaml",
    )
    child = (
        'schema: 1\nname: child\nversion: "2"\nextends: [base/base.yaml]\ndrop: [two]\n'
        "principles:\n"
        "  - {id: one, tier: 3}\n"
        "  - {id: three, check: {kind: json}}\n"
        '  - {id: four, preference: "Which response is fourth?"}\n'
    )
    c = load_constitution(str(write(tmp_path, child))).constitution
    assert [p.id for p in c.principles] == ["one", "three", "four"]
    one, three, _ = c.principles
    assert (one.tier, one.weight, one.preference) == (3, 2.0, "Which response is first?")
    assert three.preference is None
    assert three.check is not None


def test_mistake_in_a_base_is_placed_in_the_base(tmp_path: Path) -> None:
    base = write(tmp_path, ONE + "    tier: many\n", "base.yaml")
    path = write(tmp_path, "extends: [base.yaml]\n" + ONE.replace("kind", "brave"))
    with pytest.raises(RlaifError) as caught:
        load_constitution(str(path))
    assert str(caught.value).startswith(f"{base}:7:11: ")


def test_base_with_a_bad_head_is_an_error_in_the_base(tmp_path: Path) -> None:
    base = write(tmp_path, ONE.replace("schema: 1", "schema: 99"), "base.yaml")
    path = write(tmp_path, "extends: [base.yaml]\n" + ONE.replace("kind", "brave"))
    with pytest.raises(RlaifError) as caught:
        load_constitution(str(path))
    assert str(caught.value).startswith(f"{base}:1:9: ")


def test_hash_ignores_comments_and_sees_every_word(tmp_path: Path) -> None:
    plain = load_constitution(str(write(tmp_path, ONE, "a.yaml"))).constitution
    commented = load_constitution(str(write(tmp_path, "# hi\n" + ONE, "b.yaml"))).constitution
    changed = load_constitution(
        str(write(tmp_path, ONE.replace("kinder", "nicer"), "d.yaml"))
    ).constitution
    assert plain.hash == commented.hash != changed.hash


@pytest.mark.parametrize(
    ("name", "least"),
    [("demo", 6), ("helpful-honest-harmless", 12), ("customer-support", 6), ("summarization", 6)],
)
def test_shipped_constitutions_load_with_examples(name: str, least: int) -> None:
    c = load_constitution(name).constitution
    assert len(c.principles) >= least
    assert all(p.examples for p in c.principles if p.check is None)
    assert {p.stem for p in (data_root() / "constitutions").glob("*.yaml")} >= {name}

"""The same rows from every kind of file; broken rows are data."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rlaif.data.sources import open_source
from rlaif.errors import RlaifError
from rlaif.records import Rejected

ROWS = [{"prompt": f"q{i}é", "response_a": "x\n1", "response_b": "y,2"} for i in range(5)]


def write(folder: Path, kind: str) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "json":
        path.write_text(json.dumps({"data": ROWS}))
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        import datasets

        data = datasets.Dataset.from_list(ROWS)
        if kind == "parquet":
            data.to_parquet(str(path))
        else:
            path = folder / "saved"
            datasets.DatasetDict({"train": data}).save_to_disk(str(path))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "datasets"])
def test_every_kind_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path, kind)))
    assert [dict(row) for _, row in source.rows()] == ROWS
    assert source.fingerprint() == source.fingerprint()
    assert source.count(3) in (None, 3)


def test_broken_lines_are_rejected_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"prompt": "1"}\n\n{"prompt": \n[1]\n{"prompt": "caf\xe9"}\n'
        + b"[" * 100_000
        + b'\n{"prompt": "2"}'
    )
    found = [
        (place, row.reason.split(":")[0] if isinstance(row, Rejected) else row["prompt"])
        for place, row in open_source(str(path)).rows()
    ]
    assert found == [
        ("line 1", "1"),
        ("line 3", "not JSON"),
        ("line 4", "row is not an object"),
        ("line 5", "not UTF-8"),
        ("line 6", "not JSON"),
        ("line 7", "2"),
    ]


def test_csv_with_odd_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt,a\nq,1\nq\nq,1,2\nq,\xff\nq,3\n")
    found = [
        row.reason if isinstance(row, Rejected) else row["a"]
        for _, row in open_source(str(path)).rows()
    ]
    wrong = "row has more or fewer fields than the header"
    assert found == ["1", wrong, wrong, "not UTF-8", "3"]


def test_parquet_row_that_is_not_utf8_is_rejected_alone(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.array([b"one", b"\xff", b"two"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": column}), tmp_path / "rows.parquet")
    found = [
        row.reason if isinstance(row, Rejected) else row["prompt"]
        for _, row in open_source(str(tmp_path / "rows.parquet")).rows()
    ]
    assert found == ["one", "not UTF-8", "two"]


def test_json_of_one_object_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text('{"prompt": "q", "responses": ["a", "b"]}')
    assert [row for _, row in open_source(str(path)).rows()] == [
        {"prompt": "q", "responses": ["a", "b"]}
    ]


def test_csv_quote_that_swallows_lines_is_named_with_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,a\nq1,"x\nq2,"y"\nq3,z\nq4,"open\nq5,w\n')
    found = list(open_source(str(path)).rows())
    assert [place for place, _ in found] == ["lines 2 to 3", "line 4", "lines 5 to 6"]
    assert isinstance(found[0][1], Rejected)
    assert found[1][1] == {"prompt": "q3", "a": "z"}
    assert isinstance(found[2][1], Rejected)
    assert "not closed" in found[2][1].reason


def test_csv_places_are_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,a\nq,1\nq,2\n")
    assert [place for place, _ in open_source(str(path)).rows()] == ["line 2", "line 3"]


def test_any_change_of_a_large_input_or_a_split_changes_its_address(tmp_path: Path) -> None:
    import datasets

    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(70 << 20)
    before = open_source(str(path)).fingerprint()
    with path.open("r+b") as file:
        file.seek(12_345_678)
        file.write(b"x")
    assert open_source(str(path)).fingerprint() != before

    def saved(text: str) -> str:
        folder = tmp_path / text
        train = datasets.Dataset.from_list([{"prompt": text}])
        other = datasets.Dataset.from_list([{"prompt": "same"}])
        datasets.DatasetDict({"train": train, "validation": other}).save_to_disk(str(folder))
        return open_source(str(folder)).fingerprint()

    assert saved("one") != saved("two")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("missing.jsonl", None, "does not exist"),
        ("rows.odt", b"x", "unsupported extension '.odt'"),
        ("rows.json", b"{", "not JSON"),
        ("rows.parquet", b"no", "not Parquet"),
        ("folder", "dir", "holds no data files"),
    ],
)
def test_unusable_source(name: str, content: bytes | str | None, what: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if content == "dir":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(RlaifError, match=what):
        list(open_source(str(path)).rows())


@pytest.mark.slow
def test_hub_id_without_a_hub_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    # Both read the environment when they are imported.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    source = open_source("hub:some-org/some-data")
    assert source.kind == "hub"
    with pytest.raises(RlaifError, match="some-org/some-data"):
        list(source.rows())


def test_a_column_or_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "d.csv"
    table.write_text("prompt,chosen,chosen,rejected\nQ,FIRST,SECOND,B\n")
    with pytest.raises(RlaifError, match="column 'chosen' comes twice in the header"):
        list(open_source(str(table)).rows())
    lines = tmp_path / "d.jsonl"
    lines.write_text('{"prompt": "Q", "prompt": "R"}\n{"prompt": "Q", "a": {"b": 1, "b": 2}}\n{}\n')
    found = [row for _, row in open_source(str(lines)).rows()]
    assert [isinstance(row, Rejected) for row in found] == [True, True, False]
    assert "key 'prompt' comes twice" in found[0].reason  # type: ignore[union-attr]
    whole = tmp_path / "d.json"
    whole.write_text('[{"prompt": "Q", "prompt": "R"}]')
    with pytest.raises(RlaifError, match="key 'prompt' comes twice"):
        list(open_source(str(whole)).rows())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["d.jsonl", "d.json"])
def test_utf_16_is_named_as_what_it_is(tmp_path: Path, encoding: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes('{"prompt": "Q"}\n'.encode(encoding))
    with pytest.raises(RlaifError, match=r"UTF-16 or UTF-32 text.*UTF-8"):
        list(open_source(str(path)).rows())


def test_json_over_several_lines_is_named_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{\n  "prompt": "Q"\n}\n')
    with pytest.raises(RlaifError, match=r"over several lines.*extension \.json"):
        list(open_source(str(path)).rows())

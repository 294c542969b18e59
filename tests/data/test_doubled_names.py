"""A name that comes twice is refused wherever data is read: which of the two is meant?"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.data.columns import decode
from rlaif.data.dataset import open_dataset
from rlaif.data.layout import load_layout
from rlaif.errors import RlaifError
from rlaif.runs.directory import read_rows


@pytest.mark.parametrize(
    "header",
    ["prompt,chosen,chosen", "prompt,chosen, chosen", "prompt,response_a,Response_A"],
)
def test_columns_of_tables(tmp_path: Path, header: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f"{header}\nq,x,y\n")
    with pytest.raises(RlaifError, match="comes twice in the header"):
        open_dataset(str(path))
    names = header.split(",")
    table = pa.table([pa.array(["v"])] * 3, names=names)
    pq.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(RlaifError, match="comes twice in the header"):
        open_dataset(str(tmp_path / "d.parquet"))


def test_a_table_with_semicolons_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt;chosen;rejected\nq;x;y\n")
    with pytest.raises(RlaifError, match="separated by ';'"):
        open_dataset(str(path))


def test_objects_in_cells_stay_text() -> None:
    text = '{"chosen": "x", "chosen": "y"}'
    assert decode(text) == text
    assert decode('{"chosen": "x"}') == {"chosen": "x"}


def test_keys_of_layouts_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "l.yaml"
    path.write_text("chosen: a\nchosen: b\n")
    with pytest.raises(RlaifError, match=r"l.yaml:2:1"):
        load_layout(path)
    path.write_text("prompt: q\nvalues: {010: a, 8: b}\n")
    assert load_layout(path)["values"] == {"10": "a", "8": "b"}
    rows = tmp_path / "r.jsonl"
    rows.write_text('{"a": 1, "a": 2}\n')
    assert next(read_rows(rows))[1] == {"a": 2}
    with pytest.raises(RlaifError, match=r"key '.*' comes twice"):
        next(read_rows(rows, strict=True))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_prompts_that_are_not_utf8_are_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes("How do I clean a kettle?\nAnd a pan?\n".encode(encoding))
    with pytest.raises(RlaifError, match="UTF-16 or UTF-32"):
        open_dataset(str(path))

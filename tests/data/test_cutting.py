"""Parts of a source: together they are its rows with their places, and each is read by itself."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data import cutting, file_formats
from rlaif.data.cutting import InputPart, cut_source
from rlaif.data.sources import open_source
from rlaif.errors import RlaifError

LINES = st.lists(
    st.sampled_from(
        [
            b'{"prompt": "p"}\n',
            b'{"prompt": "\xc3\xa4"}\r\n',
            b"\n",
            b"  \t\n",
            b"{broken\n",
            b'{"prompt": "\xff"}\n',
            b'{"prompt": "' + b"x" * 90 + b'"}\n',  # longer than a line may be
            b'{"prompt": "' + b"y" * 49 + b'"}\n',  # exactly as long, without its end
        ]
    ),
    max_size=12,
)
COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.mark.parametrize("ending", COMPRESS)
@given(
    files=st.lists(LINES, min_size=1, max_size=3),
    rows=st.integers(1, 5),
    limit=st.none() | st.integers(1, 9),
    cut_last=st.booleans(),
)
def test_parts_of_lines_are_the_rows_of_the_source(
    ending: str,
    files: list[list[bytes]],
    rows: int,
    limit: int | None,
    cut_last: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("data")
    for number, lines in enumerate(files):
        data = b"".join([b'{"prompt": "first"}\n', *lines])
        data = data[:-1] if cut_last else data
        (folder / f"{number}.jsonl{ending}").write_bytes(COMPRESS[ending](data))
    with pytest.MonkeyPatch.context() as patch:
        for module in (file_formats, cutting):
            patch.setattr(module, "MAX_LINE_BYTES", 64)
        source = open_source(str(folder))
        expected = list(source.rows())[:limit]
        parts = [InputPart.from_data(p.to_data()) for p in cut_source(source, rows, limit)]
        found = [(part, list(part.rows())) for part in reversed(parts)]
    assert [row for _, part in reversed(found) for row in part] == expected
    assert all(part.count == len(read) <= rows for part, read in found)
    firsts = [part.first for part in parts]
    assert firsts == [sum(p.count for p in parts[:n]) for n in range(len(parts))]


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    group=st.integers(1, 8),
    rows=st.integers(1, 7),
)
def test_parts_of_tables_are_the_rows_of_the_source(
    sizes: list[int], group: int, rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("data")
    for number, size in enumerate(sizes):
        table = pa.table({"prompt": pa.array([f"{number}-{i}" for i in range(size)], pa.string())})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=group)
    source = open_source(str(folder))
    parts = list(cut_source(source, rows))
    assert [row for part in parts for row in part.rows()] == list(source.rows())
    assert sum(part.count for part in parts) == sum(sizes)


def test_row_groups_before_a_part_are_not_read(tmp_path: Path) -> None:
    data = tmp_path / "x.parquet"
    table = pa.table({"prompt": [f"{i} " + "x" * 500 for i in range(4000)]})
    pq.write_table(table, data, row_group_size=500, compression="none", use_dictionary=False)
    last = list(cut_source(open_source(str(data)), 500))[-1]
    raw = data.read_bytes()
    # What is before it is damaged, and nobody notices.
    start = pq.ParquetFile(data).metadata.row_group(7).column(0).data_page_offset
    data.write_bytes(b"PAR1" + b"\0" * (start - 4) + raw[start:])
    read = list(last.rows())
    assert len(read) == 500
    assert read[0][0] == "row 3501"
    with pytest.raises(RlaifError, match="damaged after row"):
        list(open_source(str(data)).rows())


def test_a_file_that_lost_rows_is_an_error_and_not_a_short_part(tmp_path: Path) -> None:
    data = tmp_path / "x.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i}"}) + "\n" for i in range(10)))
    parts = list(cut_source(open_source(str(data)), 4))
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:9]))
    assert len(list(parts[1].rows())) == 4
    with pytest.raises(RlaifError, match="has fewer rows than when the run began"):
        list(parts[2].rows())

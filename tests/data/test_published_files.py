"""Files as they are published: compressed, in shards, as plain text, on standard input."""

from __future__ import annotations

import bz2
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rlaif.data.dataset import open_dataset
from rlaif.data.sources import open_source
from rlaif.errors import RlaifError

NUMBERED = [{"prompt": f"q {i}", "n": i} for i in range(7)]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("ending", ["gz", "zst", "bz2"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_compressed_files_are_read_as_plain_ones(tmp_path: Path, ending: str, kind: str) -> None:
    plain = {
        "jsonl": lines(NUMBERED),
        "json": json.dumps(NUMBERED).encode(),
        "csv": b"prompt,n\n" + b"".join(b"q %d,%d\n" % (i, i) for i in range(7)),
    }[kind]
    path = tmp_path / f"rows.{kind}.{ending}"
    if ending == "gz":
        path.write_bytes(gzip.compress(plain))
    elif ending == "bz2":
        path.write_bytes(bz2.compress(plain))
    else:
        path.write_bytes(pa.compress(plain, codec="zstd", asbytes=True))
    source = open_source(str(path))
    assert [row["prompt"] for _, row in source.rows()] == [f"q {i}" for i in range(7)]  # type: ignore[index]
    assert source.count() in (7, None)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RlaifError, match="damaged"):
        list(open_source(str(path)).rows())


def test_shards_are_read_by_name_and_their_places_say_which(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for k, part in enumerate((NUMBERED[:3], NUMBERED[3:])):
        (folder / f"part-{k}.jsonl").write_bytes(lines(part))
    for name in (str(folder), str(folder / "*.jsonl")):
        source = open_source(name)
        found = list(source.rows())
        assert [row["n"] for _, row in found] == list(range(7))  # type: ignore[index]
        assert found[3][0] == "part-1.jsonl line 1"
        assert source.count() == 7
    before = open_source(str(folder)).fingerprint()
    (folder / "part-1.jsonl").write_bytes(lines(NUMBERED[3:6]))
    assert open_source(str(folder)).fingerprint() != before
    (folder / "more.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RlaifError, match=r"several kinds \(csv, jsonl\)"):
        open_source(str(folder))


def test_text_files_are_prompts_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\ufeffone\n\ntwo \n", encoding="utf-8")
    rows = [row for _, row in open_source(str(tmp_path / "p.txt")).rows()]
    assert rows == [{"prompt": "one"}, {"prompt": "two"}]


def test_a_path_is_never_looked_up_on_the_hub(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("data/missing", "missing", "./x", "a/b/c", "rows.jsonl.gz", "no*.jsonl"):
        with pytest.raises(RlaifError, match=r"does not exist|holds no data files"):
            open_source(name)
    hub = open_source("hub:org/name,config=en,revision=abc,split=test")
    assert (hub.kind, hub.name, hub.split) == ("hub", "org/name", "test")
    assert dict(hub.options) == {"config": "en", "revision": "abc"}
    with pytest.raises(RlaifError, match="unknown option 'color"):
        open_source("hub:org/name,color=red")


def test_standard_input_is_a_file_of_rows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlaif", "inspect", "-", "--json"],
        input=lines(NUMBERED),
        capture_output=True,
        check=True,
    )
    assert len(json.loads(done.stdout)["rows"]) == 7


@pytest.mark.slow
def test_logs_of_inspect_are_read_by_sample(tmp_path: Path) -> None:
    """The file that inspect itself writes."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import match

    task = Task(
        [Sample(f"What is {i} + {i}?", target=str(2 * i)) for i in range(3)], scorer=match()
    )
    outputs = [ModelOutput.from_content("mockllm/model", f"It is {2 * i}.") for i in range(3)]
    for output in outputs:
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    model = get_model("mockllm/model", custom_outputs=outputs)
    eval(task, model=model, max_samples=1, log_dir=str(tmp_path), display="none")
    (log,) = tmp_path.glob("*.eval")
    data = open_dataset(str(log), need="prompt")
    rows = [row for _, row in data.read()]
    assert [row.prompt[-1]["content"] for row in rows] == [f"What is {i} + {i}?" for i in range(3)]  # type: ignore[union-attr]
    said = [row.completions[0].messages[-1]["content"] for row in rows]  # type: ignore[union-attr]
    assert said == [f"It is {2 * i}." for i in range(3)]
    (tmp_path / "bad.eval").write_bytes(b"no zip")
    with pytest.raises(RlaifError, match="not a log of inspect"):
        list(open_source(str(tmp_path / "bad.eval")).rows())

"""The commands that are attacked, and what each reads and writes."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from attacks.children import run_command

S = "--engine scripted --judge hashed"
W = "--engine scripted --model hashed"


@dataclass(frozen=True)
class Job:
    """One command line.

    Attributes:
        reads: files and folders that it needs, of the world.
        out: what it writes; "" for nothing.
        target: the files that are mutated, as a pattern; "" for `reads[0]`.
    """

    name: str
    words: str
    reads: tuple[str, ...]
    out: str = ""
    target: str = ""


WRITING = (
    Job(
        "label", f"label pairs.jsonl -c c.yaml {S} -o out --json", ("pairs.jsonl", "c.yaml"), "out"
    ),
    Job(
        "label-reasoning",
        f"label pairs.jsonl -c c.yaml {S} -o out --reasoning --limit 30 --json",
        ("pairs.jsonl", "c.yaml"),
        "out",
    ),
    Job(
        "label-panel",
        "label pairs.jsonl -c c.yaml --engine scripted -j hashed -j second --panel mean -o out "
        "--limit 40 --json",
        ("pairs.jsonl", "c.yaml"),
        "out",
    ),
    Job(
        "label-stop",
        f"label pairs.jsonl -c c.yaml {S} -o out --stop exact --json",
        ("pairs.jsonl", "c.yaml"),
        "out",
    ),
    Job(
        "generate",
        f"generate prompts.jsonl {W} -n 2 -o out --limit 20 --json",
        ("prompts.jsonl",),
        "out",
    ),
    Job(
        "critique",
        f"critique pairs.jsonl -c c.yaml {W} --judge hashed --rounds 2 -o out --limit 15 --json",
        ("pairs.jsonl", "c.yaml"),
        "out",
    ),
    Job(
        "synth-prompts",
        "synth-prompts prompts.jsonl --engine scripted -m hashed --count 6 -o out --json",
        ("prompts.jsonl",),
        "out",
    ),
    Job(
        "eval",
        f"eval labeled.jsonl -c c.yaml {S} -o out --json",
        ("labeled.jsonl", "c.yaml"),
        "out",
    ),
    Job("import-feedback", "import-feedback log.jsonl -o out --json", ("log.jsonl",), "out"),
    Job(
        "mix",
        "mix plain=0.7 labeled.jsonl=0.3,human_labeled=true --min-human 0 -o out --json",
        ("plain", "labeled.jsonl"),
        "out",
    ),
    Job("labels-apply", "labels apply reviewed -o out --json", ("reviewed",), "out"),
    Job("export", "export plain --format trl -o out", ("plain",), "out"),
    Job("labels-export", "labels export reviewed -o out.jsonl", ("reviewed",), "out.jsonl"),
    Job("init", "init out", (), "out"),
    Job("harness", "harness alpaca-eval -c c.yaml -o out", ("c.yaml",), "out"),
)
"""Commands that leave something behind: what they leave is the same however often they were stopped."""

READING = (
    Job("inspect", "inspect pairs.jsonl --json", ("pairs.jsonl",)),
    Job(
        "label-dry", f"label pairs.jsonl -c c.yaml {S} -o out --dry-run", ("pairs.jsonl", "c.yaml")
    ),
    Job("lint", "constitution lint c.yaml", ("c.yaml",)),
    Job("show", "constitution show c.yaml", ("c.yaml",)),
    Job("diff", "constitution diff c.yaml edited.yaml", ("c.yaml", "edited.yaml")),
    Job("test", f"constitution test c.yaml {S} --json", ("c.yaml",)),
    Job("label-c", f"label pairs.jsonl -c c.yaml {S} -o out --limit 10", ("c.yaml", "pairs.jsonl")),
    Job(
        "csv",
        f"label other.csv -c c.yaml {S} -o out --map prompt=question --map response_a=bot1 "
        "--map response_b=bot2 --limit 20",
        ("other.csv", "c.yaml"),
    ),
    Job("parquet", "inspect table.parquet --json", ("table.parquet",)),
    Job("gz", "inspect pairs.jsonl.gz --json", ("pairs.jsonl.gz",)),
    Job("json", "inspect pairs.json --json", ("pairs.json",)),
    Job(
        "batch",
        "inspect batch:requests.jsonl,results.jsonl --json",
        ("results.jsonl", "requests.jsonl"),
    ),
    Job(
        "config",
        f"label pairs.jsonl -c c.yaml {S} -o out --config config.yaml --limit 10",
        ("config.yaml", "pairs.jsonl", "c.yaml"),
    ),
    Job("layout", "inspect other.csv --layout layout.yaml --json", ("layout.yaml", "other.csv")),
    Job("recipe", "run recipe.yaml -o out --dry-run", ("recipe.yaml", "pairs.jsonl", "c.yaml")),
    Job(
        "template",
        f"label pairs.jsonl -c c.yaml {S} -o out --template judge.txt --limit 10",
        ("judge.txt", "pairs.jsonl", "c.yaml"),
    ),
    Job("thresholds", "audit plain --thresholds thresholds.yaml", ("thresholds.yaml", "plain")),
    Job("eval", f"eval labeled.jsonl -c c.yaml {S} -o out", ("labeled.jsonl", "c.yaml")),
    Job("feedback", "import-feedback log.jsonl -o out", ("log.jsonl",)),
    Job("sft", "train-sft labeled.jsonl --model demo -o out --dry-run", ("labeled.jsonl",)),
    Job("report", "report plain", ("plain",), target="plain/*"),
    Job("win-rate", "win-rate plain", ("plain",), target="plain/*"),
    Job("export", "export plain --format kto -o out", ("plain",), target="plain/*"),
    Job("audit", "audit plain", ("plain",), target="plain/*"),
    Job("lineage", "lineage plain", ("plain",), target="plain/*"),
    Job(
        "resume",
        f"label pairs.jsonl -c c.yaml {S} -o half",
        ("half", "pairs.jsonl", "c.yaml"),
        target="half/*",
    ),
    Job(
        "again",
        f"label pairs.jsonl -c c.yaml {S} -o plain",
        ("plain", "pairs.jsonl", "c.yaml"),
        target="plain/*",
    ),
    Job(
        "calibrate",
        "calibrate judged --human-labels labeled.jsonl",
        ("judged", "labeled.jsonl"),
        target="judged/*",
    ),
    Job(
        "calibrated",
        f"label pairs.jsonl -c c.yaml {S} -o out --calibration judged/calibration.json --limit 20",
        ("judged", "pairs.jsonl", "c.yaml"),
        target="judged/calibration.json",
    ),
    Job("coverage", "constitution coverage c.yaml plain", ("plain", "c.yaml"), target="plain/*"),
    Job("labels-report", "labels report reviewed", ("reviewed",), target="reviewed/**/*"),
    Job("labels-apply", "labels apply reviewed -o out", ("reviewed",), target="reviewed/**/*"),
    Job(
        "labels-import",
        "labels import reviewed filled.jsonl --reviewer me",
        ("filled.jsonl", "reviewed"),
    ),
    Job(
        "cache",
        f"label pairs.jsonl -c c.yaml {S} -o out --limit 20",
        ("cache", "pairs.jsonl", "c.yaml"),
        target="cache/*",
    ),
    Job(
        "cache-texts",
        f"generate prompts.jsonl {W} -n 2 -o out --limit 10",
        ("cache", "prompts.jsonl"),
        target="cache/texts*",
    ),
    Job(
        "generated",
        f"label generated/candidates.jsonl -c c.yaml {S} -o out --limit 20",
        ("generated", "c.yaml"),
        target="generated/*.jsonl",
    ),
    Job("critiqued", "lineage revised", ("revised",), target="revised/*"),
    Job("dpo", "train-dpo plain --model demo -o out --dry-run", ("plain",), target="plain/*"),
    Job("mixed", "mix mixed=1 -o out", ("mixed",), target="mixed/*"),
    Job("verify", "verify plain", ("plain", "pairs.jsonl", "cache"), target="plain/*"),
)
"""Commands that read what strangers wrote, or what a disk kept badly."""

SET_UP = (
    f"label pairs.jsonl -c c.yaml {S} -o plain",
    f"label pairs.jsonl -c c.yaml {S} -o reviewed",
    f"label labeled.jsonl -c c.yaml {S} -o judged",
    "calibrate judged --human-labels labeled.jsonl",
    f"generate prompts.jsonl {W} -n 2 -o generated --limit 20",
    f"critique pairs.jsonl -c c.yaml {W} --judge hashed --rounds 2 -o revised --limit 15",
    "mix plain=0.7 labeled.jsonl=0.3,human_labeled=true --min-human 0 -o mixed",
    "labels export reviewed --queue -o queue.jsonl",
)

RECIPE = """\
schema: 1
name: small
steps:
  labels: {run: label, data: pairs.jsonl, constitution: c.yaml, engine: scripted, judge: hashed}
"""


def write_world(folder: Path) -> None:
    """Data, constitutions, runs, caches and a review, as users have them."""
    import gzip
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq
    from golden import fill_queue, write_inputs

    from rlaif.util.resources import data_root

    folder.mkdir(parents=True)
    write_inputs(folder, Path.cwd())
    rows = []
    for line in (folder / "pairs.jsonl").read_text().splitlines():
        if not line.startswith("{broken"):
            rows.append(json.loads(line))
    plain = [
        {k: r[k] for k in ("id", "prompt", "response_a", "response_b")} for r in rows if "id" in r
    ]
    pq.write_table(pa.Table.from_pylist(plain), folder / "table.parquet")
    (folder / "pairs.jsonl.gz").write_bytes(gzip.compress((folder / "pairs.jsonl").read_bytes()))
    (folder / "pairs.json").write_text(json.dumps(rows))
    (folder / "config.yaml").write_text("orders: both\naggregation: {tie_margin: 0.1}\nlimit: 5\n")
    (folder / "layout.yaml").write_text("prompt: question\nresponses: [bot1, bot2]\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "thresholds.yaml").write_text("distinct_2: {min: 0.1}\n")
    (folder / "judge.txt").write_text((data_root() / "prompts" / "judge" / "demo.txt").read_text())
    requests, results = [], []
    for k in range(8):
        body = {"model": "m", "messages": [{"role": "user", "content": f"question {k}?"}]}
        requests.append(
            {"custom_id": f"r{k}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        )
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": f"answer {k}"},
            "finish_reason": "stop",
        }
        results.append(
            {"custom_id": f"r{k}", "response": {"status_code": 200, "body": {"choices": [choice]}}}
        )
    for name, lines in (("requests", requests), ("results", results)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for line in SET_UP:
        run_command(line.split(), folder)
    from contextlib import closing

    from rlaif.review.start import open_store

    with closing(open_store(folder / "reviewed", 30, audit_share=0.2, overlap=0.0, seed=1).store):
        pass
    run_command(["labels", "export", "reviewed", "--queue", "-o", "queue.jsonl"], folder)
    fill_queue(folder)
    half = folder / "half"
    shutil.copytree(folder / "plain", half)
    run_command(["labels", "import", "reviewed", "filled.jsonl", "--reviewer", "me"], folder)
    (half / "manifest.json").unlink(missing_ok=True)


def copy_world(world: Path, job: Job, to: Path) -> None:
    """What a job needs, in a folder of its own."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for name in job.reads:
        if (world / name).is_dir():
            shutil.copytree(world / name, to / name)
        elif (world / name).exists():
            shutil.copyfile(world / name, to / name)


_TIMES = re.compile(
    rb'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^"\s]*|"(?:seconds|address|cache)": ?[^,}]+|hash: \w+|<<<rlaif \w+'
)


def rows_of(folder: Path, out: str) -> dict[str, bytes]:
    """The rows that a job left, by file; times and the folder's own path aside."""
    whole = folder / out
    files = [whole] if whole.is_file() else sorted(whole.rglob("*"))
    found = {}
    for path in files:
        if path.suffix in (".jsonl", ".parquet", ".yaml", ".py", ".txt") and path.is_file():
            text = path.read_bytes().replace(str(folder).encode(), b"WORK")
            found[str(path.relative_to(folder))] = _TIMES.sub(b"T", text)
    return found

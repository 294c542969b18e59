"""Puts a labeling run or a mix on the Hub as a data set with its card: behind `rlaif push`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlaif.data.mixes import CARD, DATA_FILE, REPORT
from rlaif.errors import RlaifError, first_line
from rlaif.exporting.export import MARKER, export_run
from rlaif.runs.directory import CONSTITUTION, read_manifest

REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))


@dataclass(frozen=True)
class PushPlan:
    """What goes on the Hub.

    Attributes:
        folder: holds exactly the files that are uploaded.
        files: their names in the repository.
    """

    repo: str
    folder: Path
    files: list[str]
    card: str


def stage_dataset(source: Path, repo: str, folder: Path) -> PushPlan:
    """Gather the files of a data set, with its card, in an empty folder.

    Raises:
        RlaifError: the repository's name is none, or `source` is neither a run with preferences nor
            a mix.
    """
    if not REPO_ID.fullmatch(repo):
        raise RlaifError(
            f"{repo!r} is not the name of a repository", hint="Write it as owner/name."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if (source / REPORT).is_file():
        card = _stage_mix(source, repo, folder)
    else:
        card = _stage_run(source, repo, folder)
    (folder / CARD).write_text(card, encoding="utf-8")
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return PushPlan(repo, folder, files, card)


def _stage_mix(source: Path, repo: str, folder: Path) -> str:
    for name in (DATA_FILE, REPORT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    card = (source / CARD).read_text(encoding="utf-8")
    # The card of a folder loads it by its name; that of a repository, by the repository's.
    return re.sub(r'load_dataset\("[^"]*"', f'load_dataset("{repo}"', card)


def _stage_run(source: Path, repo: str, folder: Path) -> str:
    report = export_run(source, folder / "export", "parquet")
    (folder / DATA_FILE).parent.mkdir(parents=True, exist_ok=True)
    report.file.rename(folder / DATA_FILE)
    (folder / "export" / MARKER).unlink()
    (folder / "export").rmdir()
    shutil.copyfile(source / CONSTITUTION, folder / CONSTITUTION)
    manifest = read_manifest(source)
    return run_card(repo, manifest, report.pairs, dict(report.left_out))


def run_card(
    repo: str, manifest: Mapping[str, Any], pairs: int, left_out: Mapping[str, int]
) -> str:
    """The data card of a labeling run, with the Hub's front matter."""
    config, counts = manifest["config"], manifest["counts"]
    size = next((name for most, name in _SIZES if pairs < most), "n>1M")
    front = {
        "license": "other",
        "tags": ["rlaif", "preference", "dpo"],
        "size_categories": [size],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": DATA_FILE}]}
        ],
    }
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()
    judges = config.get("members") or [config]
    rows = [
        ("judge", ", ".join(str(own["judge"]["model"]) for own in judges)),
        ("constitution", f"{config['constitution']['name']} {config['constitution']['version']}"),
        ("constitution hash", config["constitution"]["hash"]),
        ("input", config["input"]["path"]),
        ("input hash", config["input"]["hash"]),
        ("pairs", pairs),
        ("ties", counts.get("ties", 0)),
        ("abstained", counts.get("abstained", 0)),
        *((f"left out: {reason}", count) for reason, count in left_out.items()),
    ]
    facts = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"---\n{head}\n---\n# {repo.split('/')[1]}\n\n"
        "Preference pairs that a judge model labeled by a constitution, with `rlaif label`. "
        "`p_chosen` is the probability that `chosen` follows the constitution better. "
        f"`{CONSTITUTION}` is in this repository.\n\n"
        "```python\nimport datasets\n\n"
        f'data = datasets.load_dataset("{repo}", split="train")\n```\n\n'
        f"| | |\n|---|---|\n{facts}\n\n"
        "The license of the prompts and completions is that of their sources.\n"
    )


def upload_dataset(plan: PushPlan, *, private: bool) -> str:
    """Create the repository if it is not there, and upload the files in one commit, which the
    client sends after the Hub found the card valid.

    Returns:
        Its address.

    Raises:
        RlaifError: the Hub refuses the card or the upload, or can't be reached.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - only where it is used

    try:
        api = HfApi()
        url = api.create_repo(plan.repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=plan.repo,
            repo_type="dataset",
            folder_path=plan.folder,
            commit_message="Upload with rlaif push",
        )
    except Exception as error:  # the hub client raises many unrelated types
        reason = first_line(error)
        raise RlaifError(
            f"could not push to {plan.repo!r} ({reason})",
            hint="Log in with `hf auth login` or set HF_TOKEN, and check the name.",
        ) from None
    return str(url)


def facts_of(plan: PushPlan) -> dict[str, Any]:
    """What `--dry-run` and `--json` show."""
    sizes = {name: (plan.folder / name).stat().st_size for name in plan.files}
    return {"repo": plan.repo, "files": sizes}

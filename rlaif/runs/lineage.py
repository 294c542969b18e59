"""Follows a file back to where it comes from, by what runs and trainings wrote down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rlaif.data.mixes import DATA_FILE, REPORT, read_mix
from rlaif.data.single_rows import BadRow, read_prompt, read_row
from rlaif.data.sources import Source, open_source
from rlaif.engines.policy_folder import policy_folder
from rlaif.errors import RlaifError
from rlaif.records import Origin, Rejected
from rlaif.runs.directory import CONFIG, MANIFEST, PREFERENCES, rows_digest
from rlaif.runs.parts import check_parts, has_parts
from rlaif.util.file_sizes import check_sizes
from rlaif.util.plain_yaml import load_plain_yaml

TRAINING, SETTINGS, FEEDBACK = "training.json", "training.yaml", "feedback.json"
_FEEDBACK_FILES = ("preferences.jsonl", "kto.jsonl", "rejected.jsonl", FEEDBACK)
MOST_ROWS = 100_000
MOST_NODES = 1_000


@dataclass
class Node:
    """A data file, a run, a policy or a model.

    Attributes:
        kind: "data", "run", "mix", "feedback", "policy" or "model".
        facts: what is known of it, a phrase each.
        parents: what it was made from: in which part, and the name of the node.
        warning: what does not fit, or "".
    """

    name: str
    kind: str
    facts: list[str] = field(default_factory=list)
    parents: list[tuple[str, str]] = field(default_factory=list)
    warning: str = ""


@dataclass
class Lineage:
    """All nodes by name; `root` is what was asked for."""

    root: str
    nodes: dict[str, Node] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """A tree of text, the file first; a node that comes again is only named."""
        yield from self._lines(name=self.root, role="", head="", rest="", seen=set())

    def _lines(self, name: str, role: str, head: str, rest: str, seen: set[str]) -> Iterator[str]:
        node = self.nodes[name]
        shown = f"{head}{role}{node.kind} {name}"
        if name in seen:
            yield f"{shown} (see above)"
            return
        seen.add(name)
        yield shown + (f": {'; '.join(node.facts)}" if node.facts else "")
        if node.warning:
            yield f"{rest}   ! {node.warning}"
        for number, (part, parent) in enumerate(node.parents):
            last = number == len(node.parents) - 1
            yield from self._lines(
                name=parent,
                role=f"{part} ",
                head=rest + ("└─ " if last else "├─ "),
                rest=rest + ("   " if last else "│  "),
                seen=seen,
            )

    def mermaid(self) -> Iterator[str]:
        """The graph from seeds to the file, as Mermaid draws it."""
        numbers = {name: f"n{i}" for i, name in enumerate(self.nodes)}
        yield "graph LR"
        for name, node in self.nodes.items():
            text = " ".join([node.kind, name, *node.facts[:2]]).replace('"', "'")
            yield f'  {numbers[name]}["{text}"]'
        for name, node in self.nodes.items():
            for part, parent in node.parents:
                yield f"  {numbers[parent]} -->|{part}| {numbers[name]}"


def lineage(name: str) -> Lineage:
    """Follow a data file, a run, a mix or a policy.

    Raises:
        RlaifError: there is nothing of that name.
    """
    if not Path(name).exists():
        raise RlaifError(
            f"nothing exists at the local path {name!r}",
            hint="Use a data file, run, mix or policy; lineage is not available for Hugging "
            "Face datasets.",
        )
    found = Lineage(name)
    _visit(found, name, Path.cwd(), None)
    return found


def _visit(
    found: Lineage, name: str, near: Path, recorded: str | None, split: str = "train"
) -> str:
    """Take in a node and all it was made from; gives its name.

    Args:
        near: a folder that relative paths may be relative to, beside the working one.
        recorded: the content address under which it was used; split: what was read of it.
    """
    path, same = _locate(name, near, recorded, split)
    key, warning = name, ""
    if path is not None:
        # A row file stands for the run that wrote it.
        made = next((p for p in list(path.parents)[:2] if _wrote(p, path)), None)
        warning = "" if same else f"{path.name} has changed since it was used"
        if path.is_file() and made is not None:
            path = made
        elif (path / "config.json").is_file():  # a checkpoint stands for its training
            path = policy_folder(path) or path
        key = _shown(path)
    if found.root == name:
        found.root = key
    if key in found.nodes:
        found.nodes[key].warning = found.nodes[key].warning or warning
        return key
    node = found.nodes[key] = Node(key, "data", warning=warning)
    if len(found.nodes) > MOST_NODES:
        node.facts.append("not expanded: too many nodes")
    elif path is None:
        node.facts.append("not found here")
    elif path.is_dir() and (path / SETTINGS).exists():
        _policy(found, node, path)
    elif _is_run(path):
        _run(found, node, path)
    elif read_mix(path) is not None:
        _mix(found, node, path)
    elif _is_feedback(path):
        _feedback(found, node, path)
    elif path.is_dir() and (path / "config.json").exists():
        node.kind = "model"
    else:
        _data(node, path, split)
    return key


def _wrote(folder: Path, file: Path) -> bool:
    """Whether a file is one of those that a run, a mix or an import in `folder` wrote."""
    if not file.is_file():
        return False
    name = str(file.relative_to(folder))
    return (
        (_is_run(folder) and file.parent == folder)
        or (read_mix(folder) is not None and name in (DATA_FILE, REPORT))
        or (_is_feedback(folder) and name in _FEEDBACK_FILES)
    )


def _is_run(folder: Path) -> bool:
    """Whether it holds the configuration that a command wrote, with its format."""
    return "format" in _yaml(folder / CONFIG)


def _is_feedback(folder: Path) -> bool:
    return isinstance(_json(folder / FEEDBACK).get("config"), dict)


def _locate(
    name: str, near: Path, recorded: str | None = None, split: str = "train"
) -> tuple[Path | None, bool]:
    """Where something is now, and whether it is what it was.

    It is looked for beside the working folder and beside what names it; of an absolute path that is
    no more, each of its ends (the project may have been moved).
    """
    parts = Path(name).parts
    ends = [Path(*parts[i:]) for i in range(1, len(parts))] if Path(name).is_absolute() else []
    bases = (Path.cwd(), near, *near.parents)
    places = [base / end for end in (Path(name), *ends) for base in bases]
    there = [p.resolve() for p in dict.fromkeys(places) if p.exists()]
    if not there or not recorded:
        return (there[0] if there else None), True
    for path in there:
        with suppress(RlaifError):
            if _fingerprint(path, split) == recorded:
                return path, True
    return there[0], False


def _fingerprint(path: Path, split: str) -> str:
    if has_parts(path):
        return rows_digest(path / PREFERENCES)
    return open_source(str(path), split).fingerprint()


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = load_plain_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _policy(found: Lineage, node: Node, path: Path) -> None:
    settings, result = _yaml(path / SETTINGS), _json(path / TRAINING)
    node.kind = "policy"
    if not result:
        node.warning = "training is not complete"
    node.facts += [
        f"trained on {result['account']['trained']} rows" if "account" in result else "",
        f"{result['depth']} synthetic generations deep" if "depth" in result else "",
        f"overridden: {result['override']}" if result.get("override") else "",
    ]
    node.facts = [fact for fact in node.facts if fact]
    for part, name, recorded in (
        ("trained on", _preferences(settings.get("run"), path), settings.get("labels_hash")),
        ("trained on", settings.get("data"), settings.get("data_hash")),
        ("mixed with", settings.get("human"), settings.get("human_hash")),
    ):
        if isinstance(name, str) and name:
            node.parents.append((part, _visit(found, name, path, recorded)))
    model = settings.get("model")
    if isinstance(model, str) and model:
        node.parents.append(("initialized from", _model(found, model, path, settings)))


def _preferences(run: object, near: Path) -> object:
    """The file of a run or mix that DPO read, where it is there."""
    folder = _locate(run, near)[0] if isinstance(run, str) and run else None
    files = [folder / name for name in (PREFERENCES, DATA_FILE)] if folder else []
    if folder and has_parts(folder):
        return str(folder)
    return next((str(file) for file in files if file.exists()), run)


def _run(found: Lineage, node: Node, path: Path) -> None:
    config, manifest = _yaml(path / CONFIG), _json(path / MANIFEST)
    command = str(config.get("command", "label"))
    node.kind = "run"
    node.facts.append(command)
    counts = manifest.get("counts", {})
    if not manifest:
        node.warning = "run is not complete"
    try:
        check_sizes(path, manifest.get("bytes"), "")
        if has_parts(path):
            check_parts(path)
    except RlaifError as error:
        node.warning = node.warning or error.message
    for what in ("decided", "completions", "new prompts", "revised"):
        if isinstance(counts, Mapping) and isinstance(counts.get(what), int):
            node.facts.append(f"{int(counts[what])} {what}")
    constitution = config.get("constitution")
    if isinstance(constitution, Mapping):
        node.facts.append(f"by {constitution.get('name')}@{constitution.get('version')}")
    origins = counts.get("origins") if isinstance(counts, Mapping) else None
    for origin in origins.values() if isinstance(origins, Mapping) and command == "label" else []:
        if isinstance(origin, Mapping) and origin.get("completions"):
            node.facts.append(
                f"{origin['completions']} completions {_whose(Origin(**_fields(origin)))}"
            )
    given, review = config.get("input"), config.get("review")
    if isinstance(review, Mapping) and isinstance(review.get("run"), str):
        node.facts.append(f"{review.get('labels')} pairs labeled by humans")
        node.parents.append(("reviewed from", _visit(found, review["run"], path, None)))
    elif isinstance(given, Mapping) and isinstance(given.get("path"), str):
        split = str(given.get("split") or "train")
        name = _visit(
            found=found,
            name=given["path"],
            near=path,
            recorded=str(given.get("hash", "")),
            split=split,
        )
        node.parents.append(("from", name))
    for name, settings in _models(config):
        part = "judged by" if command == "label" or "judge" in name else "generated by"
        model = str(settings["model"])
        if settings.get("engine") != "panel":
            node.parents.append((part, _model(found, model, path, settings)))


def _fields(origin: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{k: str(origin.get(k) or "") for k in ("kind", "model", "license")},
        "depth": depth if isinstance(depth := origin.get("depth"), int) else 0,
    }


def _models(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every model of a configuration, with the key it stands under."""
    seen = set()

    def walk(value: object, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if isinstance(value, Mapping):
            if isinstance(value.get("model"), str) and isinstance(value.get("fingerprint"), str):
                yield key, value
                return
            for name, inner in value.items():
                yield from walk(inner, str(name))
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner, key)

    for key, value in walk(config, ""):
        name = (value["model"], value["fingerprint"])
        if name not in seen:
            seen.add(name)
            yield key, value


def _model(found: Lineage, name: str, near: Path, settings: Mapping[str, Any]) -> str:
    path, _ = _locate(name, near)
    policy = None if path is None else policy_folder(path)
    if policy is not None:
        return _visit(found, str(policy), near, None)
    node = found.nodes.setdefault(name, Node(name, "model"))
    revision = settings.get("revision")
    if revision and not node.facts:
        node.facts.append(f"revision {revision}")
    return name


def _mix(found: Lineage, node: Node, path: Path) -> None:
    report = _json(path / REPORT)
    node.kind = "mix"
    if "rows" in report:
        node.facts.append(f"{report['rows']} rows")
    if "human_written" in report:
        node.facts.append(f"{report['human_written']:.1%} human-written by weight")
    for part in report.get("parts", []):
        file = str(part.get("file") or part["data"])
        name = _visit(
            found=found,
            name=file,
            near=path,
            recorded=str(part.get("hash", "")),
            split=part.get("split", "train"),
        )
        node.parents.append((f"{part['rows']} rows from", name))


def _feedback(found: Lineage, node: Node, path: Path) -> None:
    report = _json(path / FEEDBACK)
    node.kind = "feedback"
    node.facts += [
        f"{report[key]} {what}"
        for key, what in (("preferences", "preferences"), ("users", "users"))
        if key in report
    ]
    log = report.get("config", {}).get("input", {})
    if isinstance(log.get("path"), str):
        split = str(log.get("split") or "train")
        node.parents.append(
            (
                "from",
                _visit(
                    found=found, name=log["path"], near=path, recorded=log.get("hash"), split=split
                ),
            )
        )


def _data(node: Node, path: Path, split: str) -> None:
    try:
        source = open_source(str(path), split)
        node.facts += _texts(source)
    except RlaifError as error:
        node.facts.append(str(error).split(". ")[0])


def _texts(source: Source) -> list[str]:
    """How many prompts and completions are whose."""
    found: Counter[tuple[str, str]] = Counter()
    for _, row in islice(source.rows(), MOST_ROWS):
        if isinstance(row, Rejected):
            found["rows", "that can't be read"] += 1
            continue
        try:
            read = read_row(row)
        except BadRow:
            try:
                read = read_prompt(row)
            except BadRow:
                found["rows", "that can't be read"] += 1
                continue
        found["prompts", _whose(read.prompt_origin)] += 1
        found.update(("completions", _whose(c.source)) for c in read.completions)
    return [f"{count} {what} {whose}" for (what, whose), count in found.most_common(12)]


def _whose(origin: Origin) -> str:
    if origin.kind == "human":
        return "from humans" + (f", based on generation {origin.depth}" if origin.depth else "")
    if origin.kind == "model":
        return f"from {origin.model or 'a model'} (generation {origin.depth})"
    return "of unknown origin"

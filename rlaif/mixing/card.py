"""The data card of a mix: what the hub shows, and what who trains on it should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rlaif.data.mixes import DATA_FILE
from rlaif.mixing.report import MixReport
from rlaif.mixing.settings import MixPlan

_LICENSES = {
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "isc",
    "cc0-1.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nc-nd-4.0",
    "odc-by",
    "odbl",
    "pddl",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
    "cdla-sharing-1.0",
    "gpl-3.0",
    "lgpl-3.0",
    "agpl-3.0",
    "mpl-2.0",
    "openrail",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "llama4",
    "gemma",
}
"""Those of the names that the hub takes that data has."""
_TASKS = {"preferences": ["dpo", "preference"], "sft": ["sft"], "prompts": ["prompts"]}
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)


def data_card(
    name: str, report: MixReport, plan: MixPlan, runs: Sequence[Mapping[str, Any]], content: str
) -> str:
    """Markdown with the hub's front matter.

    Args:
        content: address of the rows.

    Long because it is a page, written from top to bottom.
    """
    known = {part.license for part in plan.parts} | (report.licenses.keys() - {"unknown"})
    known = {"-".join(name.lower().split()) for name in known if name}
    whole = len(known) == 1 and "unknown" not in report.licenses
    front: dict[str, Any] = {
        "license": next(iter(known)) if whole and known <= _LICENSES else "other",
        "tags": ["rlaif", *_TASKS[report.kind]],
        "size_categories": [next((s for most, s in _SIZES if report.rows < most), "n>1T")],
        # Without the description, `datasets` would take another mix of this name from its cache.
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": DATA_FILE}],
                "description": f"content {content}",
            }
        ],
    }
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()
    labeled = ""
    if report.kind == "preferences":
        labeled = f", and labeled {report.human_labeled:.1%}"
    parts = [
        f"---\n{head}\n---\n# {name}\n",
        (
            f"{report.rows} rows ({_KINDS[report.kind]}), mixed by `rlaif mix` on "
            f"{report.made[:10]}; by weight, humans wrote what is learned in "
            f"{report.human_written:.1%} of them{labeled}. Each row's `provenance` "
            "records the origin of its texts and its label.\n"
        ),
        "```python\nimport datasets\n\n"
        f'data = datasets.load_dataset("{name}", split="train")\n```\n',
        "## Sources\n",
        _table(
            ["data", "rows", "of", "share", "weight", "duplicates", "contaminated", "unreadable"],
            [
                (
                    f"`{p['data']}`",
                    p["rows"],
                    p["available"],
                    f"{p['share']:.1%}",
                    f"{p['weight']:g}",
                    p["duplicates"],
                    p["contaminated"],
                    p["unreadable"] + p["wrong kind"],
                )
                for p in report.parts
            ],
        ),
        _factor(report),
        "## Provenance\n",
        _counts("completions from", report.origins, report.rows),
        _counts("synthetic generations", report.depths, report.rows),
        _counts("text license", report.licenses, sum(report.licenses.values())),
        _counts("labeled by", report.labels, report.rows) if report.kind == "preferences" else "",
        _slices(report),
        _licenses(report),
        _labels(runs) if report.kind == "preferences" else "",
        "## Limitations\n",
        *(f"- {limit}\n" for limit in _limits(report, plan, runs)),
        "\n`mix.json` records the full configuration, with content hashes of all inputs.\n",
    ]
    return "\n".join(part for part in parts if part)


_KINDS = {
    "preferences": "preference pairs",
    "sft": "prompts with one completion",
    "prompts": "prompts",
}


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _counts(what: str, counts: Mapping[str, int], total: int) -> str:
    rows = sorted(counts.items(), key=lambda item: -item[1])
    return _table([what, "number", "share"], [(k, n, f"{n / total:.1%}") for k, n in rows])


def _factor(report: MixReport) -> str:
    if report.human_factor == 1.0:
        return ""
    return f"Human-written rows are weighted {report.human_factor:.3g}x (`weight`).\n"


def _slices(report: MixReport) -> str:
    if not report.slices:
        return ""
    rows = [
        (
            s["slice"],
            f"{s['before']:.1%}",
            f"{s['quota']:.1%}",
            f"{s['share']:.1%}",
            f"{s['by weight']:.1%}",
            s["rows"],
        )
        for s in report.slices
    ]
    return "## Slice quotas\n\n" + _table(
        ["slice", "before", "quota", "here", "by weight", "rows"], rows
    )


def _licenses(report: MixReport) -> str:
    if not report.licenses_found:
        return ""
    lines = ["## License terms\n"]
    for found in report.licenses_found:
        who = found["model"] or "an unnamed model"
        source = f" <{found['source']}>" if found["source"] else ""
        lines.append(
            f"- {found['count']} {found['what']} from `{who}`: **{found['trains']}**: "
            f"{found['clause']}{source}"
        )
    return "\n".join(lines) + "\n"


def _labels(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return ""
    lines = ["## Label quality\n"]
    for run in runs:
        lines.append(f"### `{run['run']}`: judge `{run['judge']}`, {run['constitution']}\n")
        own = run["self_agreement"]
        lines.append(
            "- judge self-agreement across both orders: "
            + ("-" if own is None else f"{own:.1%} of clear opinions")
        )
        lines.append(f"- {_review(run['review'])}")
        lines += [f"- bias: {text}" for text in run["biases"][:12]]
        lines += [f"- not measured: {text}" for text in run["warnings"]]
        lines.append("")
    return "\n".join(lines)


def _review(found: Mapping[str, Any] | None) -> str:
    """How far people agree with the judge."""
    if found is None:
        return "no human review; use `rlaif review` to measure agreement with humans"
    said = (
        f"humans reviewed {found['labels']} pairs and overturned {found['corrected']} judge labels"
    )
    agreement = found["agreement"]
    if not agreement["total"]:
        return f"{said}; no pair was drawn at random, so the agreement rate is unknown"
    return (
        f"{said}; agreement with the judge's labels: {agreement['rate']:.1%} (95% CI "
        f"{agreement['low']:.1%} to {agreement['high']:.1%}, {agreement['total']} random "
        "pairs)"
    )


def _limits(report: MixReport, plan: MixPlan, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    unknown = report.origins.get("unknown", 0)
    if unknown:
        found.append(f"{unknown} rows have unknown origin.")
    if report.licenses.get("unknown"):
        found.append(f"The license of {report.licenses['unknown']} texts is unknown.")
    if not plan.evaluations:
        found.append(
            "Not checked for contamination: no evaluation data was given (`--evaluation DATA`)."
        )
    else:
        found.append(
            f"Rows that share {plan.settings.overlap_words} consecutive words with a prompt or "
            f"answer of {', '.join(plan.evaluations)} were removed. So were rows that hold "
            "one of ten words or more with a tenth of its words misspelled, missing or "
            "added, and rows "
            "equal to a shorter one. Paraphrases, and short prompts inside longer text, may remain."
        )
    if report.opposed:
        found.append(f"{report.opposed} removed duplicates had the opposite preference.")
    deepest = max((int(depth) for depth in report.depths), default=0)
    if deepest > 1:
        found.append(
            f"Some texts are {deepest} synthetic generations deep; `rlaif audit` compares "
            "their diversity with human text."
        )
    if report.kind == "preferences":
        judged = sum(n for name, n in report.labels.items() if name not in ("human", "nobody"))
        if judged:
            found.append(f"{judged} labels come from a judge and carry its biases.")
        if not runs:
            found.append("No labeling run was available to measure label bias.")
    return found

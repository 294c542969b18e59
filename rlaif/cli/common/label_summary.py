"""What labeling prints: an estimate before, and a summary after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaif.cli.common.output import echo, note, percent, print_json, table
from rlaif.runs.tally import PrincipleTally, read_positions


def print_estimate(found: dict[str, Any], as_json: bool) -> None:
    """What a dry run found out."""
    if as_json:
        print_json(found)
        return
    rows = [(name.replace("_", " "), _short(value)) for name, value in found.items()]
    echo(table(["dry run: no model was called", ""], rows))


def _short(value: object) -> str:
    if value is None:
        return "unknown (no earlier run with this judge on this machine)"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _skipped(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What stopping early saved and risked."""
    if not found:
        return []
    risk = "no decision changed"
    if found["pilot_pairs"]:
        risk = (
            f"at most {percent(found['decisions_changed_at_most'])} of decisions changed "
            f"({found['pilot_decisions_changed']} of {found['pilot_pairs']} in the pilot)"
        )
    spared = f"{found['verdicts_spared']} ({percent(found['share_spared'])}); {risk}"
    return [("verdicts skipped", spared)]


def _tokens(found: dict[str, int | None]) -> str:
    if not found or not found.get("from_scratch"):
        return "0"
    computed, whole = found.get("computed") or 0, found["from_scratch"] or 1
    text = f"{computed:,} ({percent(1 - computed / whole)} cached)"
    planned = found.get("planned")
    return text if planned is None else f"{text}; {planned:,} planned"


def _cost(cost: dict[str, Any]) -> str:
    text = f"{cost['total']:.6g}"
    if cost["per_label"] is None:
        return text
    return (
        f"{text}; {cost['per_label']:.3g} per label (human labels at "
        f"{cost['human_per_label']:g} each: {cost['human_total']:,.2f})"
    )


def _asked(last: dict[str, Any]) -> list[tuple[str, object]]:
    """What this process asked; nothing for a panel, whose judges' own runs say it."""
    if "verdicts_asked" not in last:
        return []
    return [
        ("new calls / from cache", f"{last['verdicts_asked']} / {last['verdicts_from_cache']}"),
        ("prompt tokens computed", _tokens(last.get("tokens", {}))),
    ]


def _reviewed(summary: Any) -> list[tuple[str, str]]:
    """What people found in a run, once they have looked."""
    from rlaif.review.results import refresh_review
    from rlaif.runs.directory import read_review

    if not summary.fresh:
        refresh_review(str(summary.path))
    found = read_review(summary.path)
    if found is None:
        return []
    agreement = found["agreement"]
    shown = f"{percent(agreement['rate'])} of {agreement['total']} random pairs"
    if error := found.get("human_error"):
        shown += f" (people with each other: {percent(error['ceiling'])})"
    return [
        ("human agreement", shown if agreement["total"] else "no random pairs labeled"),
        ("review minutes", f"{found['minutes']:.0f} for {found['labels']} pairs"),
        ("judge labels overturned", str(found["corrected"])),
    ]


def print_summary(summary: Any) -> None:
    """The tables at the end of a run: counts, reasons and principles."""
    if not summary.fresh:
        note(f"{summary.path} is already complete")
    rows = [*_counts(summary), *_reviewed(summary), *_economy(summary)]
    echo(table(["labeled", str(summary.path)], rows))
    tally = summary.tally
    if tally.reasons:
        echo("\n" + table(["reason undecided", "pairs"], sorted(tally.reasons_in_words.items())))
    header = ["principle", "valid", "invalid", "agrees", "against", "flip rate", "position bias"]
    positions = read_positions(tally, summary.manifest.get("stopping"))
    none = PrincipleTally()
    principles = [
        (
            name,
            t.valid,
            t.invalid,
            t.agrees,
            t.disagrees,
            percent(p.flip_rate),
            "-" if p.position_offset is None else f"{p.position_offset:+.2f}",
        )
        for name, t in tally.principles.items()
        for p in [positions.principles.get(name, none)]
    ]
    echo("\n" + table(header, principles))
    if positions.pilot_pairs:
        echo(
            f"Flip rate, position bias and order consistency are of the {positions.pilot_pairs} "
            "pairs of the pilot, which were drawn at random and judged in full."
        )


def _counts(summary: Any) -> list[tuple[str, object]]:
    tally, manifest = summary.tally, summary.manifest
    rows: list[tuple[str, object]] = [
        ("rows read", tally.rows),
        ("rows rejected", tally.rejected),
        ("pairs", tally.pairs),
        ("decided", tally.decided),
        ("ties", tally.tie),
        ("abstained", tally.abstained),
        ("verdicts", tally.verdicts),
        ("invalid verdicts", tally.invalid_verdicts),
    ]
    if tally.cut_reasonings:
        rows.append(("reasoning cut off", f"{tally.cut_reasonings} verdicts"))
    if tally.prompt_injection:
        rows.append(("suspected prompt injection", f"{tally.prompt_injection} pairs"))
    rows += [
        *_skipped(manifest.get("stopping")),
        *_asked(manifest.get("last_process", {})),
        ("seconds", f"{manifest['seconds']:.1f}"),
    ]
    consistency = read_positions(tally, manifest.get("stopping")).consistency
    if consistency is not None:
        rows.append(("order consistency", percent(consistency)))
    return rows


def _economy(summary: Any) -> list[tuple[str, object]]:
    """What labels cost, and what was promised of them."""
    tally, manifest = summary.tally, summary.manifest
    rows: list[tuple[str, object]] = []
    if tally.decided:
        rows.append(("ms per label", f"{1000 * manifest['seconds'] / tally.decided:.2f}"))
    if isinstance(cost := manifest.get("cost"), dict):
        rows.append(("cost", _cost(cost)))
    if promise := manifest["config"].get("agreement"):
        kept = tally.decided / tally.pairs if tally.pairs else 0.0
        text = (
            f"{promise['certified']:.3f} (target {promise['target']:g}, delta "
            f"{promise['delta']:g}) at confidence >= {promise['threshold']:.3f}; "
            f"{percent(kept)} decided"
        )
        rows.append(("certified agreement", text))
        rows += _carried_over(manifest.get("agreement_carries_over"))
    return rows


def _carried_over(found: Mapping[str, Any] | None) -> list[tuple[str, object]]:
    """Whether the certificate's labels are like the pairs of the run."""
    if found is None:
        return [("", "too few pairs to compare with those that people labeled")]
    means = f"{found['confidence_here']:.3f} here, {found['confidence_of_labels']:.3f} there"
    if found["carries_over"]:
        return [("", f"confidence is spread as on the labels (mean {means})")]
    return [
        ("", f"it does not carry over: confidence is spread otherwise (mean {means};"),
        ("", f"apart {found['apart']:.2f}, p = {found['p']:.2g}). Label random pairs of this run"),
        ("", "and calibrate again."),
    ]

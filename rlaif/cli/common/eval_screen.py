"""What `rlaif eval` prints: a table for each question that an evaluation answers."""

from __future__ import annotations

from typing import Any

from rlaif.cli.common.output import echo, table

MAX_SUBSETS = 40
"""Subsets of the data that the terminal shows; eval.json and eval.html have all."""


def print_evaluation(found: Any) -> None:
    """Judges, their subsets and principles, comparisons, panels, attacks and biases."""
    _print_judges(found.reports)
    for report in found.reports:
        _print_parts(report)
    if found.comparisons:
        _print_comparisons(found.comparisons)
    for panel in found.panels:
        _print_panel(panel)
    for name, results in found.attacks.items():
        rows = [
            (a.attack, a.flipped, a.undecided, f"{a.moved:+.3f}", f"{100 * a.detected:.0f}%")
            for a in results
        ]
        head = [f"{name}: attack", "flipped", "undecided", "shift (nats)", "detected"]
        echo("\n" + table(head, rows))
    for name, measured in found.biases.items():
        echo(f"\n{name}: biases")
        shown = [(b.name, b.shown, b.n, "yes" if b.flagged else "no") for b in measured.findings]
        echo(table(["bias", "measured", "n", "flagged"], shown))
        for warning in measured.warnings:
            echo(f"note: {warning}")


def _print_judges(reports: Any) -> None:
    rows: list[tuple[Any, ...]] = []
    for report in reports:
        a, p = report.agreement, report.probabilities
        rows.append(
            (
                report.name,
                report.pairs,
                a.accuracy,
                a.of_decided,
                f"{100 * a.coverage:.1f}%",
                a.order_consistent or "-",
                f"{a.kappa:.3f}",
                f"{p.ece:.3f}",
                f"{p.brier:.3f}",
            )
        )
    header = ["judge", "pairs", "accuracy", "of decided", "decided", "both orders correct"]
    echo(table([*header, "kappa", "ECE", "Brier"], rows))
    ties = reports[0].agreement.human_ties
    echo(
        "accuracy: a pair that the judge does not decide counts as one half"
        + (f"; {ties} pairs labeled as ties by humans are excluded" if ties else "")
    )
    for report in reports:
        right = report.agreement.groups_right
        if right is not None:
            echo(f"{report.name}: rows with all pairs correct: {right}")


def _print_parts(report: Any) -> None:
    """One judge by subset of the data and by principle."""
    if report.subsets:
        subsets = [
            (name, a.accuracy.n, a.accuracy, a.order_consistent or "-", f"{a.kappa:.3f}")
            for name, a in list(report.subsets.items())[:MAX_SUBSETS]
        ]
        head = [f"{report.name}: subset", "pairs", "accuracy", "both orders correct", "kappa"]
        echo("\n" + table(head, subsets))
    principles = [
        (p.principle, f"{100 * p.opinions:.1f}%", p.accuracy, f"{p.kappa:.3f}")
        for p in report.principles
    ]
    head = [f"{report.name}: principle", "decisive", "agrees", "kappa"]
    echo("\n" + table(head, principles))


def _print_comparisons(comparisons: Any) -> None:
    rows = [
        (
            c.first,
            c.second,
            c.test.difference,
            f"{c.p_adjusted:.4f}",
            f"{c.test.only_first} / {c.test.only_second}",
            c.verdict,
        )
        for c in comparisons
    ]
    head = ["first", "second", "difference", "p (Holm)", "only one correct", "verdict"]
    echo("\n" + table(head, rows))


def _print_panel(p: Any) -> None:
    text = (
        f"\npanel ({p.mode}): accuracy {100 * p.accuracy:.1f}%, {p.verdict}: difference "
        f"{p.test.difference}, p = {p.test.p:.4f}; error correlation {p.correlation:.2f}, so "
        f"{len(p.accuracies)} judges count as {p.effective_judges:.1f} independent ones"
    )
    if p.asked_last < 1:
        text += f"; {100 * p.asked_last:.1f}% of pairs reached the last judge"
    echo(text)

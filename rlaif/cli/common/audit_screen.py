"""What `rlaif audit` and `rlaif guard` show."""

from __future__ import annotations

from typing import Any

from rlaif.cli.common.output import echo, note, percent, table


def print_audit(report: Any) -> None:
    """Checks with intervals and limits, then origins."""

    def number(value: float | None, unit: str) -> str:
        if value is None:
            return "-"
        return f"{value:.3f}" if "share" not in unit or abs(value) > 1 else f"{100 * value:.1f}%"

    rows = []
    for check in report.checks:
        if check.group == "origin":
            continue
        interval = f"{check.low:.2f} to {check.high:.2f}"
        limit = "" if check.limit is None else f"{'at least' if check.least else 'at most'} "
        rows.append(
            (
                ("! " if check.tripped else "  ") + check.name,
                number(check.data, ""),
                number(check.reference, ""),
                f"{check.value:.2f}",
                interval,
                f"{limit}{check.limit:.2f}" if check.limit is not None else "-",
            )
        )
    if rows:
        echo(table(["  check", "data", "reference", "value", "95%", "limit"], rows) + "\n")
    for item in report.by_slice[:40]:
        shown = [number(item[k], "") for k in ("data", "reference")]
        echo(f"{item['attribute']} in {item['slice']}: {shown[0]} (reference {shown[1]})")
    written, labeled = (
        "unknown" if share is None else percent(share)
        for share in (report.human_written, report.human_labeled)
    )
    echo(
        f"{report.rows} rows, {report.texts} texts; human-written {written}, human-labeled "
        f"{labeled}, maximum synthetic depth {report.depth}"
    )
    for text in report.notes:
        note(f"note: {text}")

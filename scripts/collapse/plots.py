"""Curves as SVG, with nothing but text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 560, 300, 56, 40, 28, 150
COLORS = ("#c4472f", "#d99a2b", "#4a7fb5", "#2a7f62", "#7a5ca0")


def curves(
    path: Path, title: str, x: str, y: str, lines: Mapping[str, Sequence[float]], first: int = 1
) -> None:
    """Write one plot: a line for each name, over whole numbers from `first`.

    Args:
        x, y: names of the axes.
    """
    top = max(max(values) for values in lines.values()) * 1.05
    count = max(len(values) for values in lines.values())
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(i: int, value: float) -> tuple[float, float]:
        return (
            round(LEFT + wide * i / max(count - 1, 1), 1),
            round(TOP + tall * (1 - value / top), 1),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11"><rect width="{WIDTH}" height="{HEIGHT}" '
        f'fill="white"/><text x="{LEFT}" y="16" font-size="13">{escape(title)}</text>'
    ]
    for k in range(5):
        value = top * k / 4
        _, height = at(0, value)
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{height}" y2="{height}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{height + 4}" text-anchor="end">{value:.3g}</text>'
        )
    for i in range(count):
        place, _ = at(i, 0)
        parts.append(
            f'<text x="{place}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{i + first}</text>'
        )
    parts.append(
        f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>'
        f'<text x="14" y="{TOP + tall / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {TOP + tall / 2})">{escape(y)}</text>'
    )
    ends: list[float] = []
    for number, (name, values) in enumerate(lines.items()):
        color = COLORS[number % len(COLORS)]
        points = " ".join(f"{a},{b}" for a, b in (at(i, v) for i, v in enumerate(values)))
        place, height = at(len(values) - 1, values[-1])
        while any(abs(height - other) < 13 for other in ends):
            height += 2
        ends.append(height)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
            f'<text x="{place + 6}" y="{height + 4}" fill="{color}">{escape(name)}</text>'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(parts) + "</svg>\n", encoding="utf-8")

"""The prices that a command takes, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from rlaif.errors import RlaifError
from rlaif.runs.cost import HUMAN_PRICE, Prices

Function = TypeVar("Function", bound=Callable[..., Any])


def price_flags(command: Function) -> Function:
    """Add `--price-per-hour`, `--price-tokens` and `--human-price`."""
    for option in (
        click.option(
            "--human-price",
            default=HUMAN_PRICE,
            show_default=True,
            type=click.FloatRange(0, 1e9),
            metavar="X",
            help="Cost of one human label, for comparison.",
        ),
        click.option(
            "--price-tokens",
            metavar="X[,Y[,Z]]",
            help="Price per million prompt tokens, cached and generated tokens, used to "
            "report cost.",
        ),
        click.option(
            "--price-per-hour",
            type=click.FloatRange(0, 1e9),
            metavar="X",
            help="Machine price per hour, used to report cost.",
        ),
    ):
        command = option(command)
    return command


def read_prices(
    per_hour: float | None, tokens: str | None, human: float, most: float | None = None
) -> Prices:
    """The prices that flags say.

    Args:
        most: of `--max-cost`.

    Raises:
        RlaifError: one of them is no price, or a limit is set and nothing has a price.
    """
    if per_hour != per_hour or human != human:
        raise RlaifError("invalid price: not a number", hint="Use a number, such as 2.5.")
    kinds: list[float | None] = []
    for text in tokens.split(",") if tokens else ():
        try:
            price = float(text)
        except ValueError:
            price = -1.0
        if not 0 <= price < 1e9:
            raise RlaifError(
                f"invalid price in --price-tokens: {text!r}",
                hint="Give one to three prices, such as 0.15,0.075,0.6.",
            )
        kinds.append(price)
    if len(kinds) > 3:
        raise RlaifError(
            f"--price-tokens takes at most three prices, got {len(kinds)}",
            hint="Give the prices of prompt, cached and generated tokens.",
        )
    computed, cached, written = [*kinds, None, None, None][:3]
    found = Prices(
        per_hour=per_hour, computed=computed, cached=cached, written=written, human=human, most=most
    )
    if most is not None and not found.known:
        raise RlaifError(
            "--max-cost needs a price",
            hint="Add --price-tokens with the price per million tokens, or --price-per-hour.",
        )
    return found

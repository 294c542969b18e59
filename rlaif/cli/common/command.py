"""Commands whose help comes in groups, everyday flags first, in color where the terminal has it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import click
import cloup
from cloup import HelpFormatter, HelpTheme, Style

from rlaif.cli.common.completion import PROPOSED
from rlaif.cli.common.output import set_verbosity
from rlaif.util.user_functions import allow_functions

EVERYDAY = "Options"
GROUPS = (
    EVERYDAY,
    "Data",
    "Judging",
    "Reasoning",
    "Aggregation",
    "Calibration",
    "Early stopping",
    "Generation",
    "Sampling",
    "Training",
    "LoRA",
    "DPO loss",
    "Human data",
    "Limits",
    "Server",
    "Engine",
    "Cost",
    "Other",
)
_BY_NAME = {
    "split": "Data",
    "maps": "Data",
    "ignore": "Data",
    "layout_file": "Data",
    "forms": "Data",
    "value_map": "Data",
    "pairs": "Data",
    "limit": "Data",
    "seed": "Other",
    "cache_dir": "Other",
    "licenses": "Other",
    "price_per_hour": "Cost",
    "price_tokens": "Cost",
    "human_price": "Cost",
    "max_cost": "Cost",
    "stop": "Early stopping",
    "stop_error": "Early stopping",
    "pilot": "Early stopping",
    "calibration": "Calibration",
    "agreement_target": "Calibration",
    "agreement_delta": "Calibration",
    "reasoning_tokens": "Reasoning",
    "reasoning_cut": "Reasoning",
    "reasoning_samples": "Reasoning",
    "reasoning_temperature": "Reasoning",
    "reasoning_clamp": "Reasoning",
    "lora_r": "LoRA",
    "lora_alpha": "LoRA",
    "lora_dropout": "LoRA",
    "loss_type": "DPO loss",
    "beta": "DPO loss",
    "label_smoothing": "DPO loss",
    "min_margin": "DPO loss",
    "precompute_ref_log_probs": "DPO loss",
    "human_data": "Human data",
    "human_fraction": "Human data",
    "human_p": "Human data",
    "engine_options": "Engine",
    "chat_options": "Engine",
    "shard_rows": "Engine",
    "part_rows": "Engine",
    "parts_at": "Engine",
    "answers_from": "Engine",
    "allow_functions": "Other",
    "verbose": "Other",
    "quiet": "Other",
}
"""The group of an option, by its parameter; of settings' options, `SettingOption` says it."""


class SettingOption(click.Option):
    """An option made from a field of a settings model.

    Attributes:
        group_title: the group of its model.
    """

    def __init__(self, *args: Any, group_title: str = EVERYDAY, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group_title = group_title


def formatter_settings() -> dict[str, Any]:
    """How help is set: up to 100 columns, colored unless NO_COLOR is set."""
    theme = HelpTheme()
    if not os.environ.get("NO_COLOR"):
        theme = HelpTheme(
            heading=Style(bold=True), col1=Style(fg="cyan"), invoked_command=Style(fg="cyan")
        )
    return HelpFormatter.settings(max_width=100, col1_max_width=32, theme=theme)


def _set_verbosity(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            set_verbosity(level)

    return callback


def verbosity_options() -> list[click.Parameter]:
    """-v and -q, as every command has them."""
    texts = {
        ("-v", "--verbose"): (1, "Show the logs of vLLM, transformers and other libraries."),
        ("-q", "--quiet"): (-1, "Show no progress and no notes; only results and errors."),
    }
    return [
        click.Option(
            list(names), is_flag=True, expose_value=False, help=text, callback=_set_verbosity(level)
        )
        for names, (level, text) in texts.items()
    ]


_NAMES_FUNCTIONS = {"constitution", "constitutions", "recipe", "personal", "attributes"}
"""Parameters of files that may name functions, or lead to such files."""


def functions_option() -> click.Option:
    """`--allow-functions`, for commands that read files which may name functions."""

    def allow(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
        if value:
            allow_functions(*value)

    return click.Option(
        ["--allow-functions"],
        multiple=True,
        metavar="MODULE",
        expose_value=False,
        callback=allow,
        help="Let files such as a constitution run functions of MODULE; repeatable. Without it, "
        "no file runs code.",
    )


METAVARS: dict[type, str] = {
    type(click.INT): "N",
    click.IntRange: "N",
    type(click.FLOAT): "X",
    click.FloatRange: "X",
}
"""What stands for a number in help; a range is written behind the text."""


_TEXT = type(click.STRING)
METAVAR_BY_NAME = {
    **dict.fromkeys(("out",), "PATH"),
    **dict.fromkeys(("model", "judge", "judges"), "MODEL"),
    **dict.fromkeys(("constitution", "constitutions", "template", "templates"), "NAME|FILE"),
    **dict.fromkeys(("judge_template", "topics", "personas"), "NAME|FILE"),
    "writer_templates": "NAME|FOLDER",
    **dict.fromkeys(("system", "thresholds", "calibration", "licenses"), "FILE"),
    **dict.fromkeys(("human_data", "against"), "DATA"),
}
"""What stands for a text in help, by the parameter."""


class Command(cloup.Command):
    """A command with grouped options, `-v` and `-q`."""

    def __init__(
        self, *args: Any, params: list[click.Parameter] | None = None, **kwargs: Any
    ) -> None:
        found = [*(params or []), *verbosity_options()]
        names = {str(param.name) for param in found}
        if names & _NAMES_FUNCTIONS or kwargs.get("name") == "verify":
            found.append(functions_option())
        groups = {title: cloup.OptionGroup(title) for title in GROUPS}
        trains = any(param.name == "loss_type" for param in found)
        for param in found:
            if str(param.name) in PROPOSED and param.type is click.STRING:
                param.type = PROPOSED[str(param.name)]
            if isinstance(param, click.Option):
                kind = type(param.type)
                if param.metavar is None and not param.is_flag and not param.count:
                    named = METAVAR_BY_NAME.get(str(param.name)) if kind is _TEXT else None
                    param.metavar = named or METAVARS.get(kind)
                title = _BY_NAME.get(str(param.name), getattr(param, "group_title", EVERYDAY))
                if param.required or (title == "DPO loss" and not trains):
                    title = EVERYDAY
                param.group = groups[title]  # type: ignore[attr-defined]
        found.sort(key=_rank)
        super().__init__(*args, params=found, formatter_settings=formatter_settings(), **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Values such as `~/runs` mean the home folder, also where the shell left them (`-o=~/x`,
        arguments in quotes).
        """
        return super().parse_args(ctx, [_expand_home(arg) for arg in args])

    def get_default_option_group(
        self, ctx: click.Context, is_the_only_visible_option_group: bool = False
    ) -> cloup.OptionGroup:
        """The group of --help."""
        group = cloup.OptionGroup("Help")
        group.options = self.get_ungrouped_options(ctx)
        return group

    def get_ungrouped_options(self, ctx: click.Context) -> list[click.Option]:
        """Only --help, which stands last."""
        help_option = self.get_help_option(ctx)
        return [help_option] if help_option is not None else []


_HOME = re.compile(r"(--[a-z][a-z-]*=)?(~(?:/.*)?)", re.DOTALL)


def _expand_home(arg: str) -> str:
    found = _HOME.fullmatch(arg)
    return f"{found[1] or ''}{os.path.expanduser(found[2])}" if found else arg


def _rank(param: click.Parameter) -> int:
    group = getattr(param, "group", None)
    return -1 if group is None else GROUPS.index(group.title)


class Group(cloup.Group):
    """A group of commands; without a command it prints its help."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, formatter_settings=formatter_settings(), **kwargs)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with its whole first sentence, wrapped."""
        assert isinstance(formatter, cloup.HelpFormatter)
        named = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _first_sentence(c.help or "")) for name, c in named if c is not None]
        formatter.write_section(cloup.formatting.HelpSection("Commands", definitions=rows))


def _first_sentence(text: str) -> str:
    first = " ".join(text.split("\n\n")[0].split())
    return first.split(". ")[0].removesuffix(".") + "."

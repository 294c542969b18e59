"""`rlaif harness`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.common.command import Group
from rlaif.cli.common.output import echo, print_json
from rlaif.errors import RlaifError

_EXAMPLES = """
\b
Examples:
  rlaif harness alpaca-eval -c my.yaml
  rlaif harness rewardbench -c my.yaml --url http://gpu-box:8000
  lm-eval run --include_path "$(rlaif harness lm-eval --print-path)" \\
    --tasks rlaif_pairwise ...

See docs/harnesses for each harness: how to install and run it, and how to read its score.
"""

_LM_EVAL = """
\b
Example:
  lm-eval run --model hf --model_args pretrained=POLICY --apply_chat_template \\
    --include_path "$(rlaif harness lm-eval --print-path)" --tasks rlaif_pairwise \\
    --metadata '{"data": "prompts.jsonl", "constitution": "my.yaml", "judge": "MODEL"}'

`data` has a prompt and (for rlaif_pairwise) a `reference` response in each row; to compare
with another model instead, set `baseline` to its outputs. Set `url` to use a running `rlaif
serve`. Tasks: rlaif_pairwise (win rate against the reference) and rlaif_constitution (score
of each response by itself).
"""


@click.group(cls=Group, name="harness", epilog=_EXAMPLES)
def command() -> None:
    """Use the judge in eval harnesses: write their config files, print their commands."""


@command.command(name="lm-eval", epilog=_LM_EVAL)
@click.option("--print-path", is_flag=True, help="Print only the folder, for --include_path.")
def lm_eval(print_path: bool) -> None:
    """Show the path of the tasks for lm-evaluation-harness."""
    folder = Path(__file__).parent.parent / "harness" / "lm_eval_tasks"
    if print_path:
        echo(str(folder))
        return
    names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    echo(f"tasks: {names}\nlm-eval run --include_path {folder} --tasks ...")


def _generator(name: str, about: str) -> None:
    @command.command(name=name, help=about)
    @click.option(
        "-c", "--constitution", required=True, help="Constitution: a YAML file or a shipped name."
    )
    @click.option(
        "--url",
        default="http://127.0.0.1:8000",
        show_default=True,
        help="URL of the `rlaif serve` server.",
    )
    @click.option("-o", "--out", help=f"Output folder. [default: harness/{name}]")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    def generate(constitution: str, url: str, out: str | None, as_json: bool) -> None:
        try:
            from rlaif.harness.configs import GENERATORS, target
        except ImportError as error:
            raise RlaifError(
                f"`rlaif harness` needs the package {error.name!r}, which is not installed",
                hint="In the checkout, run: pip install '.[serve]'.",
            ) from None
        written = GENERATORS[name](target(constitution, url), Path(out or f"harness/{name}"))
        if as_json:
            print_json({"files": [str(f) for f in written.files], "commands": written.commands})
            return
        for file in written.files:
            echo(f"wrote {file}")
        echo("\nthen run:")
        for text in written.commands:
            echo(f"  {text}", raw=True)


_generator("alpaca-eval", "Write an annotator config for AlpacaEval.")
_generator("arena-hard", "Write endpoint and judge configs for Arena-Hard-Auto.")
_generator(
    "rewardbench", "Write a script that runs RewardBench, with a model alias for the server."
)
_generator("promptfoo", "Write a promptfoo config with the judge as grader.")

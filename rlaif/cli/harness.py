"""`rlaif harness`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.common.command import Group
from rlaif.cli.common.output import print_json
from rlaif.errors import RlaifError

_EXAMPLES = """
\b
Examples:
  rlaif harness alpaca-eval -c my.yaml
  rlaif harness rewardbench -c my.yaml --url http://gpu-box:8000
  lm-eval run --include_path "$(rlaif harness lm-eval --print-path)" --tasks rlaif_pairwise ...

docs/harnesses has a page on each: install, command, and what the number means.
"""

_LM_EVAL = """
\b
Example:
  lm-eval run --model hf --model_args pretrained=POLICY --apply_chat_template \\
    --include_path "$(rlaif harness lm-eval --print-path)" --tasks rlaif_pairwise \\
    --metadata '{"data": "prompts.jsonl", "constitution": "my.yaml", "judge": "MODEL"}'

`data` holds a prompt and (for rlaif_pairwise) a `reference` response per row; `baseline` names
another model's outputs instead. `url` asks a running `rlaif serve`. Tasks: rlaif_pairwise (win rate
against the reference) and rlaif_constitution (score of each response by itself).
"""


@click.group(cls=Group, name="harness", epilog=_EXAMPLES)
def command() -> None:
    """Plug the judge into eval harnesses: write their files, print their commands."""


@command.command(name="lm-eval", epilog=_LM_EVAL)
@click.option("--print-path", is_flag=True, help="Only the folder, for --include_path.")
def lm_eval(print_path: bool) -> None:
    """Say where the tasks for lm-evaluation-harness are."""
    folder = Path(__file__).parent.parent / "harness" / "lm_eval_tasks"
    if print_path:
        click.echo(str(folder))
        return
    names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    click.echo(f"tasks: {names}\nlm-eval run --include_path {folder} --tasks ...")


def _generator(name: str, about: str) -> None:
    @command.command(name=name, help=about)
    @click.option("-c", "--constitution", required=True, help="A YAML file or a shipped name.")
    @click.option(
        "--url",
        default="http://127.0.0.1:8000",
        show_default=True,
        help="Where `rlaif serve` listens.",
    )
    @click.option("-o", "--out", help=f"Folder of the files. [default: harness/{name}]")
    @click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
    def generate(constitution: str, url: str, out: str | None, as_json: bool) -> None:
        try:
            from rlaif.harness.configs import GENERATORS, target
        except ImportError as error:
            raise RlaifError(
                f"this needs the package {error.name!r}, which is not installed",
                hint="Install it: pip install 'rlaif[serve]'.",
            ) from None
        written = GENERATORS[name](target(constitution, url), Path(out or f"harness/{name}"))
        if as_json:
            print_json({"files": [str(f) for f in written.files], "commands": written.commands})
            return
        for file in written.files:
            click.echo(f"wrote {file}")
        click.echo("\nthen run:")
        for text in written.commands:
            click.echo(f"  {text}")


_generator("alpaca-eval", "Write an annotator for AlpacaEval.")
_generator("arena-hard", "Write an endpoint and a judge setting for Arena-Hard-Auto.")
_generator("rewardbench", "Write RewardBench's command, with an alias for the server.")
_generator("promptfoo", "Write a promptfoo configuration with the judge as its grader.")

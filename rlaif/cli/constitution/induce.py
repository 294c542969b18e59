"""`rlaif constitution induce`: principles from preferences."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.judges import judge_settings, split_layout
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.labeled_flags import labeled_flags
from rlaif.cli.common.layout_flags import layout_fields
from rlaif.cli.common.model_flags import cache_dir_flag, engine_flags
from rlaif.cli.common.options import settings_options
from rlaif.cli.common.output import echo, percent, print_json, quiet_libraries, table
from rlaif.cli.constitution.use import UNUSABLE
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext

_INDUCE_EXAMPLES = """
\b
Examples:
  rlaif constitution induce labeled.jsonl -m Qwen/Qwen3-8B -j Qwen/Qwen3-8B -o induced
  rlaif constitution induce labeled.jsonl -m big,engine=openai,base_url=http://host:8000/v1 \\
    -j J -o induced
"""


@click.command(cls=Command, name="induce", epilog=_INDUCE_EXAMPLES)
@click.argument("labeled")
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option("-m", "--model", "writer", required=True, help="Model that proposes principles.")
@click.option("-j", "--judge", help="Judge model that tests them. [default: demo]")
@click.option(
    "--name", default="induced", show_default=True, help="Name of the drafted constitution."
)
@click.option(
    "--num-pairs",
    "pairs",
    default=50,
    show_default=True,
    type=click.IntRange(1),
    help="Number of pairs to propose principles for.",
)
@click.option(
    "--proposals-per-pair",
    "per_pair",
    default=2,
    show_default=True,
    type=click.IntRange(1, 20),
    help="Proposals per pair.",
)
@click.option(
    "--max-candidates",
    "candidates",
    default=20,
    show_default=True,
    type=click.IntRange(1, 200),
    help="Maximum number of candidates to test.",
)
@click.option(
    "--max-principles",
    "most",
    default=8,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Maximum number of principles to keep.",
)
@click.option(
    "--proposal-template",
    "proposal",
    default="plain",
    show_default=True,
    metavar="TEMPLATE",
    help="Prompt template for proposals: a name, or a file such as prompts/induce/plain.txt.",
)
@labeled_flags
@cache_dir_flag
@settings_options(
    LabelSettings,
    skip=UNUSABLE,
)
@engine_flags
def induce_command(
    labeled: str,
    out: str,
    writer: str,
    judge: str | None,
    name: str,
    pairs: int,
    per_pair: int,
    candidates: int,
    most: int,
    proposal: str,
    config: str | None,
    split: str,
    cache_dir: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Propose principles that explain labeled preferences: a draft constitution.

    A model proposes principles for a sample of pairs, and near-duplicates are merged. The
    judge applies each candidate to all pairs. A candidate is kept if it agrees with the human
    labels beyond chance and improves on the other principles. It must also hold on a held-out
    quarter of the data. The reported accuracy comes from another held-out quarter. (Inverse
    Constitutional AI.)
    """
    quiet_libraries()
    from rlaif.data.sources import open_source
    from rlaif.evaluation.constitutions.inducing import RESULT, induce, model_proposer
    from rlaif.evaluation.labeled import write_pairs
    from rlaif.labeling.job import with_engine

    limit = flags.pop("limit", None)
    given = layout_fields(flags)
    folder, context = Path(out), RunContext(cache_dir)
    settings, given = split_layout(judge_settings(judge, config, flags)[0], given)
    settings = with_engine(settings, folder, context)
    proposer, _ = judge_settings(writer, config, {**flags, "template": None})
    writing = with_engine(proposer, folder, context).judge
    if writing.engine == "packed":
        writing = writing.model_copy(update={"engine": "vllm"})
    data = write_pairs(open_source(labeled, split), folder, given=given, limit=limit)
    with closing(LabelScreen(len(data.label))) as screen:
        context = screen.context(cache_dir)
        propose = model_proposer(writing, template=proposal, per_pair=per_pair, context=context)
        found = induce(
            data=data,
            folder=folder,
            propose=propose,
            settings=settings,
            context=context,
            name=name,
            pairs=pairs,
            candidates=candidates,
            most=most,
        )
    _print_induction(found, folder / RESULT, as_json=as_json)


def _print_induction(found: Any, path: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "constitution": str(path) if found.kept else None,
                "accuracy": vars(found.accuracy),
                "kept": [
                    {
                        "id": k.candidate.id,
                        "question": k.candidate.question,
                        "accuracy": vars(k.accuracy),
                        "opinions": k.opinions,
                        "proposed": k.candidate.proposed,
                    }
                    for k in found.kept
                ],
                "dropped": [
                    {"question": c.question, "proposed": c.proposed, "reason": reason}
                    for c, reason in found.dropped
                ],
            }
        )
        return
    rows = [
        (k.candidate.question, str(k.accuracy), percent(k.opinions), k.candidate.proposed)
        for k in found.kept
    ]
    echo(table(["kept", "held-out accuracy", "decisive", "proposed"], rows))
    if found.dropped:
        dropped = [(c.question, reason) for c, reason in found.dropped]
        echo("\n" + table(["dropped", "why"], dropped))
    echo(
        f"\nheld-out accuracy of all principles together: {found.accuracy} on "
        f"{found.accuracy.n} pairs"
    )
    echo(str(path) if found.kept else "no principle was kept, so no draft was written")

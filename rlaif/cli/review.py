"""`rlaif review`."""

from __future__ import annotations

import os
import secrets
from contextlib import closing
from pathlib import Path
from statistics import median
from urllib.parse import quote

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries, table
from rlaif.errors import RlaifError
from rlaif.util.network import is_loopback, listen

SECONDS_A_PAIR = 20.0
"""Until decisions say better."""

_EXAMPLES = """
\b
Examples:
  rlaif review runs/first                       # opens http://127.0.0.1:8100
  rlaif review runs/first --budget 500          # a longer queue; existing labels are kept
  rlaif review runs/first --dry-run             # what to expect, without a server
  rlaif review runs/first --host 0.0.0.0 --allow-host gpu7.example.org

Several reviewers can work in parallel, each under a name. Every label is saved before the
next page is shown, so you can stop at any time. Then use `rlaif labels report`, `apply` and
`export`.
"""


@click.command(cls=Command, name="review", epilog=_EXAMPLES)
@click.argument("run")
@click.option(
    "--budget",
    default=200,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Number of pairs in the queue.",
)
@click.option(
    "--audit-share",
    default=0.2,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the queue drawn at random, to estimate the quality of all labels.",
)
@click.option(
    "--overlap",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the queue shown to two reviewers.",
)
@click.option(
    "--gold-by",
    metavar="NAME",
    help="Use this reviewer's labels as gold pairs for all other reviewers.",
)
@click.option(
    "--gold-share",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 0.9),
    help="Share of gold pairs among the pairs that other reviewers see.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8100,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Host name by which browsers reach this machine; repeatable.",
)
@click.option(
    "--token",
    help="Access token in the URL; overrides $RLAIF_TOKEN. [default: none on 127.0.0.1, a "
    "random one elsewhere]",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random audit.")
@click.option("--dry-run", is_flag=True, help="Show what to expect, then exit; changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print the result as JSON.")
def command(
    run: str,
    budget: int,
    audit_share: float,
    overlap: float,
    gold_by: str | None,
    gold_share: float,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    token: str | None,
    seed: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Open a web page where humans review the pairs of a labeling run.

    The queue contains the pairs most worth reviewing: small margins, disagreement between
    orders, principles or judges, prompt injection, and rare tags. It also contains a random
    audit. The judge's verdict is shown after the reviewer's decision.

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    folder = Path(run)
    if dry_run:
        _expect(folder=folder, budget=budget, audit_share=audit_share, seed=seed, as_json=as_json)
        return
    try:
        import uvicorn

        from rlaif.review.pages import Review, build_review
        from rlaif.util.http_protocol import BoundedProtocol
    except ImportError as error:
        raise RlaifError(
            f"`rlaif review` needs the package {error.name!r}, which is not installed",
            hint="In the checkout, run: pip install '.[review]'.",
        ) from None
    from rlaif.review.start import open_store, questions, reasonings

    token = token or os.environ.get("RLAIF_TOKEN") or None
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(18)
    bound = listen(host, port)
    opened = open_store(folder, budget, audit_share=audit_share, overlap=overlap, seed=seed)
    with closing(opened.store) as store:
        if gold_by:
            planted = store.plant(gold_by, gold_share)
            note(f"{planted} pairs labeled by {gold_by!r} are used as gold pairs")
        tasks = list(store.tasks())
        note(f"{len(tasks)} pairs in the queue, {opened.new} of them new")
        note(_words(opened.plan.wrong, opened.plan.wrong_at_random, len(opened.plan.queue)))
        review = Review(store, folder.name, questions(folder), reasonings(folder, tasks))
        app = build_review(review, hosts=frozenset({host, *hosts}), token=token)
        shown = host if host not in ("0.0.0.0", "::") else next(iter(hosts), "THIS-MACHINE")
        query = f"/?token={quote(token, safe='')}" if token else ""
        shown = f"[{shown}]" if ":" in shown else shown
        note(f"open http://{shown}:{bound.getsockname()[1]}{query} (Ctrl-C to stop)")
        serving = uvicorn.Config(
            app,
            http=BoundedProtocol,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(serving).run(sockets=[bound])


def _words(wrong: float, at_random: float, pairs: int) -> str:
    return (
        f"if the judge's probabilities are calibrated, expect about {wrong:.0f} wrong "
        f"labels among {pairs} pairs (random pairs: {at_random:.0f})"
    )


def _expect(folder: Path, budget: int, audit_share: float, seed: int, as_json: bool) -> None:
    from rlaif.review.start import plan_review
    from rlaif.review.store import DESK, ReviewStore

    plan = plan_review(folder, budget, audit_share=audit_share, seed=seed)
    seconds = SECONDS_A_PAIR
    if (folder / DESK).exists():
        with closing(ReviewStore(folder / DESK)) as store:
            taken = [d.seconds for d in store.decisions() if d.seconds > 0]
        seconds = median(taken) if len(taken) >= 10 else seconds
    pairs = len(plan.queue)
    audits = sum(q.audit for q in plan.queue)
    if as_json:
        print_json(
            {
                "pairs": pairs,
                "of": plan.total,
                "audit": audits,
                "wrong_expected": plan.wrong,
                "wrong_at_random": plan.wrong_at_random,
                "seconds_a_pair": seconds,
            }
        )
        return
    rows = [
        ("pairs in the queue", f"{pairs} of {plan.total}"),
        ("drawn at random", audits),
        ("expected wrong labels among them", f"{plan.wrong:.1f}"),
        ("same, for random pairs", f"{plan.wrong_at_random:.1f}"),
        ("minutes", f"{pairs * seconds / 60:.0f} at {seconds:.0f} s per pair"),
    ]
    echo(table(["expected review", ""], rows))
    reasons: dict[str, int] = {}
    for q in plan.queue:
        for reason in q.candidate.doubt.reasons[:1]:
            reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        ranked = sorted(reasons.items(), key=lambda entry: -entry[1])
        echo("\n" + table(["main reason", "pairs"], ranked))

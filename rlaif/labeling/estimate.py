"""How much a labeling job would ask, without asking: the function behind `--dry-run`."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from rlaif.data.messages import BadRow
from rlaif.data.reading import Reader
from rlaif.engines.registry import codec_for
from rlaif.errors import ConversationRefused
from rlaif.judging.prompt_injection import InjectionDetector
from rlaif.judging.questions import OrdersMode, plan_questions, principles_for
from rlaif.judging.rendering import Renderer
from rlaif.judging.row_language import with_language
from rlaif.labeling.job import LabelJob
from rlaif.labeling.planner import pairs_of, settled_without_judge
from rlaif.runs.context import RunContext
from rlaif.runs.cost import Prices, TokenUsage, cost_of
from rlaif.store.verdict_cache import VerdictCache

SAMPLE_PAIRS = 200


def estimate(
    job: LabelJob, context: RunContext = RunContext(), *, prices: Prices | None = None
) -> dict[str, Any]:
    """Rows, pairs, judge calls, prompt tokens, time and cost.

    Calls are exact (with `--orders adaptive` or `--stop`, at most this many); tokens are exact for
    the first 200 pairs and scaled from them; tokens to compute count what the questions about a
    pair in one order share once; time uses the rate of the last run of this judge on this
    machine, and is None without one.  The
    verdict cache may spare some or all of it.

    Long because it is one pass over the input with a dozen counts.
    """
    settings = job.settings
    rows = rejected = pairs = calls = tokens = shared_tokens = sampled_calls = 0
    renderer = Renderer(job.template, codec_for(settings.judge), settings.shots)
    prompt_injection = InjectionDetector(renderer.delimiters)
    reader = Reader(settings.layout)
    for number, (_, raw) in enumerate(job.source.rows()):
        if settings.limit is not None and number >= settings.limit:
            break
        rows += 1
        try:
            found = list(pairs_of(raw, number, settings, reader))
        except BadRow:
            found = []
        rejected += not found
        for read in found:
            pairs += 1
            pair = with_language(read, job.constitution)
            if settled_without_judge(pair, prompt_injection.describe(pair), settings):
                continue
            principles = principles_for(
                pair, job.constitution, mode=settings.principles, seed=settings.seed
            )
            orders: OrdersMode = "one" if settings.orders == "one" else "both"
            questions = plan_questions(pair, principles, orders=orders, seed=settings.seed)
            calls += len(questions)
            if pairs <= SAMPLE_PAIRS:
                try:
                    branches = list(renderer.branches(pair, questions))
                except ConversationRefused:
                    calls -= len(questions)
                    continue
                sampled_calls += len(questions)
                passes = 2 if renderer.scores else 1  # one for each response
                for n, branch in enumerate(branches):
                    own = sum(len(tail) for _, tail in branch.tails)
                    tokens += passes * (len(branch.context) * len(branch.tails) + own)
                    if n == 0 or not renderer.reads_pairs:
                        shared_tokens += passes * (len(branch.context) + own)
    with closing(VerdictCache(context.verdicts_path)) as cache:
        judge = str(job.config["judge"]["fingerprint"])
        known = cache.rates(judge, benchmarks=True, numbers=settings.judge.numbers) | cache.rates(
            judge, benchmarks=False
        )
    rate = known.get(settings.judge.engine)
    seconds = None if rate is None else round(calls / rate, 1)
    prices = prices or Prices()
    scale = calls / sampled_calls if sampled_calls else 0.0
    computed = round(shared_tokens * scale)
    expected = TokenUsage(computed, round(tokens * scale) - computed)
    cost = None
    if prices.known and (seconds is not None or prices.per_hour is None):
        cost = cost_of(prices, seconds=seconds or 0.0, tokens=expected, labels=pairs)
    return {
        "rows": rows,
        "rows_rejected": rejected,
        "pairs": pairs,
        "judge_calls": calls,
        "prompt_tokens": expected.computed + expected.cached,
        "prompt_tokens_to_compute": expected.computed,
        "seconds": seconds,
        "cost": round(cost["total"], 4)
        if cost
        else None
        if prices.known
        else "pass --price-per-hour or --price-tokens",
    }

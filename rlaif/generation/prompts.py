"""New prompts from a few human ones: behind `rlaif synth-prompts`.

Self-Instruct (Wang et al. 2023, arXiv:2212.10560): a model is shown some prompts and asked for
more, again and again; what is too close to a known prompt is dropped, and what is kept may be
shown later.  Requests go out in batches, so that the result depends on the seed and not on who
finished first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rlaif.data.dataset import DataSet, open_dataset
from rlaif.data.origins import origin_columns
from rlaif.data.row_model import refuse_calls, refuse_media
from rlaif.data.single_rows import BadRow, read_prompt
from rlaif.data.sources import open_source
from rlaif.engines.base import EngineSettings
from rlaif.engines.model_origin import text_origin
from rlaif.engines.registry import codec_for
from rlaif.errors import RlaifError
from rlaif.generation.conversations import Conversation, ConversationRows, PartialRows, Query, Reply
from rlaif.generation.prompt_lists import read_conversation, read_list
from rlaif.generation.runner import COUNTS, GenerationJob, check_writes, model_config
from rlaif.records import Codec, GenerationRequest, Message, Origin, Rejected
from rlaif.store.text_cache import GeneratedText
from rlaif.templates.messages import conversation_text
from rlaif.templates.writer import Template, load_synth_template
from rlaif.text.contamination import Contamination
from rlaif.text.novelty import PromptPool
from rlaif.util.hashing import digest
from rlaif.util.resources import find
from rlaif.util.thinking import after_thinking

WRITER = "writer"
PROMPTS = "prompts.jsonl"
TEMPLATES = (
    "self-instruct",
    "question-answer",
    "reasoning",
    "instruction-following",
    "red-team",
    "multi-turn",
)
MOST_IDLE_BATCHES = 5
"Generation stops after this many consecutive batches without a new prompt."


class SynthesisSettings(BaseModel):
    """Everything that `rlaif synth-prompts` can be told, apart from seeds, templates and model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(default=200, ge=1, description="Number of new prompts to generate.")
    examples: int = Field(default=6, ge=1, description="Number of example prompts in each request.")
    generated_examples: int = Field(
        default=2, ge=0, description="How many of these may be generated prompts."
    )
    prompts_per_request: int = Field(
        default=5, ge=1, le=50, description="Number of prompts to generate per request."
    )
    batch_size: int = Field(
        default=32,
        ge=1,
        description="Number of concurrent requests; prompts are saved batch by batch.",
    )
    rouge: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Drop a prompt if its ROUGE-L with another is at least this.",
    )
    overlap_words: int = Field(
        default=8,
        ge=2,
        description="Drop a prompt that shares this many consecutive words with --evaluation data.",
    )
    human_share: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="Weighted share of human prompts in the output; sets the row weights.",
    )
    temperature: float = Field(
        default=1.0, ge=0, le=10, description="Sampling temperature; 0 is greedy."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling threshold.")
    max_tokens: int = Field(
        default=512, ge=1, description="Maximum number of tokens to generate per request."
    )
    seed: int = Field(default=0, description="Random seed of the sampling.")


@dataclass(frozen=True)
class SeedPrompt:
    """A prompt to start from."""

    messages: list[Message]
    id: str
    origin: Origin
    weight: float
    tags: tuple[str, ...]

    @property
    def depth(self) -> int:
        """How many synthetic generations deep it is."""
        return self.origin.depth


@dataclass(frozen=True)
class _AllSeeds:
    """All seeds as one row: prompts are made in one conversation."""

    seeds: list[SeedPrompt]

    def rows(self) -> Iterator[tuple[str, Mapping[str, object] | Rejected]]:
        """One row."""
        yield "seeds", {"seeds": self.seeds}

    def count(self, limit: int | None = None) -> int | None:
        """One."""
        return 1


def prepare_synthesis(
    seeds: str,
    model: EngineSettings,
    settings: SynthesisSettings,
    *,
    templates: Sequence[str],
    topics: str = "topics",
    personas: str = "personas",
    evaluations: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    split: str = "train",
) -> GenerationJob:
    """Load and check the parts of a job.

    Args:
        templates: names or paths of synth templates; requests take them in turn.
        topics, personas: a shipped name or a file, one a line.
        evaluations: data whose prompts must not be made again.

    Raises:
        RlaifError: an input, a model or a setting can't be used.
    """
    loaded = [load_synth_template(name) for name in templates]
    check_writes(model, "the model")
    data = open_dataset(seeds, split=split, given=given, need="prompt")
    found, unreadable = _read_seeds(data)
    lists = (_read_lines(topics, "topics"), _read_lines(personas, "personas"))
    evaluated = [text for name in evaluations for text in _texts(name)]
    maker = PromptMaker(
        settings=settings,
        templates=loaded,
        topics=lists[0],
        personas=lists[1],
        contamination=Contamination(evaluated, settings.overlap_words),
        codec=codec_for(model),
        origin=text_origin(model),
        unreadable=unreadable,
    )
    prints = [open_source(name).fingerprint() for name in evaluations]
    config = {
        "format": 1,
        "command": "synth-prompts",
        "input": {"path": seeds, "split": split, "hash": data.source.fingerprint()},
        "model": model_config(model),
        "templates": _with_hashes(templates, [t.hash for t in loaded]),
        "topics": {"name": topics, "hash": digest(lists[0])},
        "personas": {"name": personas, "hash": digest(lists[1])},
        "evaluations": _with_hashes(evaluations, prints),
        "layout": data.layout.to_data(),
        **settings.model_dump(mode="json"),
    }
    return GenerationJob(
        source=_AllSeeds(found),
        limit=None,
        config=config,
        files=(PROMPTS,),
        models={WRITER: model},
        passes=[[WRITER]],
        conversation=maker.conversation,
    )


def _with_hashes(names: Sequence[str], hashes: Sequence[str]) -> list[dict[str, str]]:
    return [{"name": name, "hash": found} for name, found in zip(names, hashes, strict=True)]


def _read_seeds(data: DataSet) -> tuple[list[SeedPrompt], int]:
    found, bad, last = [], 0, ""
    for number, (place, row) in enumerate(data.source.rows(), 1):
        try:
            if isinstance(row, Rejected):
                raise BadRow(row.reason)
            read = refuse_calls(refuse_media(data.reader.read_prompt(row)))
        except BadRow as error:
            bad, last = bad + 1, f"{place}: {error}"
            continue
        found.append(
            SeedPrompt(
                messages=list(read.prompt),
                id=read.id or f"seed-{number}",
                origin=read.prompt_origin,
                weight=read.weight,
                tags=tuple(sorted(read.tags)),
            )
        )
    if not found:
        raise RlaifError(
            f"no prompt in {data.source.name!r} could be read"
            + (f" (last: {last})" if last else ""),
            hint="Each row needs a prompt.",
        )
    return found, bad


def _read_lines(name: str, what: str) -> list[str]:
    path = find(name, folder="prompts/synth", suffix=".txt", what=f"List of {what}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RlaifError(f"{path} is not UTF-8", hint="Save it as UTF-8.") from None
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise RlaifError(f"{path} contains no {what}", hint="Write one per line.")
    return found


def _texts(name: str) -> Iterator[str]:
    """The text of the prompts of evaluation data."""
    readable = 0
    for _, row in open_source(name).rows():
        if isinstance(row, Rejected):
            continue
        try:
            prompt = read_prompt(row).prompt
        except BadRow:
            continue
        readable += 1
        yield "\n".join(m["content"] for m in prompt)
    if not readable:
        raise RlaifError(
            f"no prompt in the evaluation dataset {name!r} could be read",
            hint="Each row needs a prompt or a question.",
        )


@dataclass
class _NewPrompt:
    """A prompt that was kept, and what it came from."""

    messages: list[Message]
    recipe: str
    topic: str
    persona: str
    depth: int
    seed: int
    time: str = ""


@dataclass
class _SynthesisState:
    """What a run knows while it makes prompts."""

    seeds: list[SeedPrompt]
    pool: PromptPool
    new: list[_NewPrompt] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    failures: str = ""


@dataclass(frozen=True)
class PromptMaker:
    """Makes the one conversation of a synthesis."""

    settings: SynthesisSettings
    templates: Sequence[Template]
    topics: Sequence[str]
    personas: Sequence[str]
    contamination: Contamination
    codec: Codec
    origin: Mapping[str, Any]
    unreadable: int

    def conversation(
        self, number: int, place: str, row: Mapping[str, object] | Rejected
    ) -> Conversation:
        """See `GenerationJob.conversation`."""
        assert isinstance(row, Mapping)
        seeds = row["seeds"]
        assert isinstance(seeds, list)
        work = _SynthesisState([], PromptPool(self.settings.rouge))
        for seed in seeds:
            if self.contamination.finds(_text(seed.messages)):
                work.counts["contaminated seeds"] += 1
                continue
            work.seeds.append(seed)
            work.pool.add(_text(seed.messages))
        if not work.seeds:
            raise RlaifError(
                "all seeds overlap with the evaluation data",
                hint="Use other seeds, or raise --overlap-words.",
            )
        idle = 0
        while len(work.new) < self.settings.count and idle < MOST_IDLE_BATCHES:
            before = len(work.new)
            yield from self._batch(work)
            yield PartialRows(self._new_rows(work, before))
            idle = idle + 1 if len(work.new) == before else 0
        if work.failures and (not work.new or idle >= MOST_IDLE_BATCHES):
            raise RlaifError(
                f"{work.counts['failed']} of {work.counts['requests']} requests failed "
                f"(last: {work.failures})",
                hint="Fix the model or its server, then rerun the same command to resume.",
            )
        return self._seed_rows(work)

    def _batch(self, work: _SynthesisState) -> Generator[list[Query], list[Reply], None]:
        wanted = self.settings.count - len(work.new)
        size = min(
            self.settings.batch_size, max(1, -(-wanted * 2 // self.settings.prompts_per_request))
        )
        planned = [self._plan(work) for _ in range(size)]
        told = yield [ask for ask, _, _ in planned]
        for answer, (_, template, blank) in zip(told, planned, strict=True):
            work.counts["requests"] += 1
            if not isinstance(answer, GeneratedText):
                work.counts["failed"] += 1
                work.failures = getattr(answer, "reason", "no text")
                continue
            text = after_thinking(answer.text) or ""
            if template.settings["answer"] == "list":
                made = read_list(text, finished=answer.finished)
            else:
                turns = read_conversation(text) if answer.finished else []
                made = [turns] if turns else []
            if not made:
                work.counts["unreadable answers"] += 1
            for messages in made:
                self._take(work, replace(blank, messages=messages, time=answer.made))

    def _take(self, work: _SynthesisState, new: _NewPrompt) -> None:
        if len(work.new) >= self.settings.count:
            work.counts["surplus"] += 1
            return
        text = _text(new.messages)
        if self.contamination.finds(text):
            work.counts["contaminated"] += 1
        elif not work.pool.admits(text):
            work.counts["near duplicates"] += 1
        else:
            work.new.append(new)

    def _plan(self, work: _SynthesisState) -> tuple[Query, Template, _NewPrompt]:
        """The next request.  Recipes, topics and personas are gone through evenly."""
        s, n = self.settings, work.requests
        work.requests += 1
        rng = random.Random(f"{s.seed}/{n}")
        template = self.templates[n % len(self.templates)]
        place = n // len(self.templates)
        topic = self._nth(self.topics, place, "topic")
        persona = self._nth(self.personas, place, "persona")
        new = rng.sample(work.new, min(s.generated_examples, len(work.new), max(0, s.examples - 1)))
        seeds = rng.sample(work.seeds, min(s.examples - len(new), len(work.seeds)))
        shown = [x.messages for x in seeds] + [x.messages for x in new]
        rng.shuffle(shown)
        examples = "\n".join(f"{i}. {_line(m)}" for i, m in enumerate(shown, 1))
        text = template.render(
            examples=examples, topic=topic, persona=persona, count=str(s.prompts_per_request)
        )
        ids = self.codec.encode_chat([{"role": "user", "content": text}])
        drawn = rng.getrandbits(31)
        request = GenerationRequest(
            id="",
            token_ids=ids,
            max_tokens=s.max_tokens,
            temperature=s.temperature,
            top_p=s.top_p,
            seed=drawn,
        )
        depth = 1 + max(
            [int(self.origin["depth"]), *(x.depth for x in seeds), *(x.depth for x in new)]
        )
        blank = _NewPrompt(
            messages=[], recipe=template.name, topic=topic, persona=persona, depth=depth, seed=drawn
        )
        return Query(WRITER, request), template, blank

    def _nth(self, values: Sequence[str], n: int, what: str) -> str:
        """Every value once before any comes again, in an order drawn anew each time."""
        turn, at = divmod(n, len(values))
        order = list(values)
        random.Random(f"{self.settings.seed}/{what}/{turn}").shuffle(order)
        return order[at]

    def _new_rows(self, work: _SynthesisState, first: int) -> ConversationRows:
        """The new prompts from number `first` on."""
        taken = {seed.id for seed in work.seeds}
        own = "new-" if not any(name.startswith("new-") for name in taken) else "newer-"
        while any(name.startswith(own) for name in taken):
            own = f"{own}more-"
        return [
            (
                PROMPTS,
                _row(
                    name=f"{own}{i}",
                    messages=new.messages,
                    weight=1.0,
                    origin={**self.origin, "depth": new.depth, "time": new.time},
                    recipe=new.recipe,
                    topic=new.topic,
                    persona=new.persona,
                    seed=new.seed,
                ),
            )
            for i, new in enumerate(work.new[first:], first + 1)
        ]

    def _seed_rows(self, work: _SynthesisState) -> ConversationRows:
        """The seeds and what was counted.

        They come last: what they weigh depends on how many new prompts there are.
        """
        share = self.settings.human_share
        human = sum(seed.weight for seed in work.seeds if not seed.depth)
        made = sum(seed.weight for seed in work.seeds if seed.depth) + len(work.new)
        scale = share / (1 - share) * made / human if made and human else 1.0
        rows: ConversationRows = []
        for seed in work.seeds:
            # A seed that says nothing of itself is taken for a person's: that is what seeds are.
            kind = seed.origin.kind or ("model" if seed.depth else "human")
            origin = origin_columns(replace(seed.origin, kind=kind))
            weight = seed.weight * (1.0 if seed.depth else scale)
            row = _row(
                name=seed.id,
                messages=seed.messages,
                weight=weight,
                origin=origin,
                recipe="",
                topic="",
                persona="",
                seed=0,
            )
            rows.append((PROMPTS, {**row, "tags": list(seed.tags)}))
        counts: dict[str, object] = {
            "seeds": len(work.seeds),
            "human seeds": sum(not seed.depth for seed in work.seeds),
            "unreadable seeds": self.unreadable,
            "new prompts": len(work.new),
            **work.counts,
            "topics covered": len({n.topic for n in work.new}),
            "personas covered": len({n.persona for n in work.new}),
            **{
                f"from template {t.name}": sum(n.recipe == t.name for n in work.new)
                for t in self.templates
            },
        }
        return [*rows, (COUNTS, counts)]


def _row(
    name: str,
    messages: list[Message],
    weight: float,
    origin: Mapping[str, Any],
    recipe: str,
    topic: str,
    persona: str,
    seed: int,
) -> dict[str, object]:
    return {
        "id": name,
        "prompt": [dict(m) for m in messages],
        "tags": [],
        "weight": round(weight, 6),
        "origin": dict(origin),
        "recipe": recipe,
        "topic": topic,
        "persona": persona,
        "seed": seed,
    }


def _text(messages: Sequence[Message]) -> str:
    return " ".join(m["content"] for m in messages)


def _line(messages: Sequence[Message]) -> str:
    """A prompt on one line, as an example."""
    if len(messages) == 1:
        return " ".join(messages[0]["content"].split())
    return " ".join(conversation_text(messages).split())

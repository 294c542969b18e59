"""Candidate completions for prompts, from one or several models: behind `rlaif generate`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaif.constitution.checks import CheckFailed, check_functions, run_check
from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Constitution
from rlaif.constitution.yaml_source import read_yaml
from rlaif.data.dataset import open_dataset
from rlaif.data.layout import Layout
from rlaif.data.origins import origin_columns
from rlaif.data.reading import Reader
from rlaif.data.row_model import refuse_calls, refuse_media
from rlaif.data.single_rows import BadRow, DataRow
from rlaif.data.sources import Source
from rlaif.engines.base import EngineSettings
from rlaif.engines.model_origin import text_origin
from rlaif.engines.registry import codec_for
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.generation.conversations import Conversation, ConversationRows, Query, Reply
from rlaif.generation.judge_calls import JUDGE, PairCaller
from rlaif.generation.runner import (
    COUNTS,
    REJECTED,
    GenerationJob,
    check_writes,
    judge_config,
    model_config,
)
from rlaif.generation.targets import AttributeTarget, best, parse_target
from rlaif.judging.row_language import language_for
from rlaif.labeling.reward_principles import with_reward_models
from rlaif.labeling.settings import LabelSettings
from rlaif.records import Codec, GenerationRequest, Message, Pair, Rejected
from rlaif.store.text_cache import GeneratedText
from rlaif.templates.judge import load_judge_template
from rlaif.templates.messages import conversation_text
from rlaif.text.duplicates import distinct
from rlaif.util.thinking import after_thinking
from rlaif.util.words import count_words

CANDIDATES = "candidates.jsonl"


class SamplingSettings(BaseModel):
    """How one model writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(default=4, ge=1, le=10_000, description="Completions per prompt.")
    temperature: float = Field(
        default=1.0, ge=0, le=10, description="Sampling temperature; 0 is greedy."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling threshold.")
    max_tokens: int = Field(
        default=512, ge=1, description="Maximum number of tokens to generate per completion."
    )


class GenerateSettings(BaseModel):
    """Everything that `rlaif generate` can be told, apart from prompts and models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str | None = Field(
        default=None,
        description="YAML list of system prompts, each `{text: ..., weight: 1}`. One is drawn per "
        "completion; output rows keep the prompt without it (context distillation).",
    )
    near_duplicate: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Drop completions that are at least this similar to an earlier one of the same "
        "prompt (Jaccard index of word trigrams). 1 drops exact duplicates only.",
    )
    keep_truncated: bool = Field(
        default=False, description="Keep completions cut at the token limit."
    )
    keep: int | None = Field(
        default=None,
        ge=1,
        description="Keep the N best completions of each prompt, ranked by --target, or by "
        "the whole "
        "constitution if there is none.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Maximum number of input rows to read."
    )
    seed: int = Field(default=0, description="Random seed of the sampling.")


@dataclass(frozen=True)
class Teacher:
    """A model that writes completions."""

    engine: EngineSettings
    sampling: SamplingSettings


class SystemPrompt(BaseModel):
    """One of a mix; an empty text stands for none."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    text: str
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class _ReadyTeacher:
    """A teacher ready to be asked."""

    role: str
    sampling: SamplingSettings
    codec: Codec
    origin: Mapping[str, Any]
    depth: int


def prepare_generate(
    prompts: str,
    teachers: Sequence[Teacher],
    settings: GenerateSettings,
    *,
    given: Mapping[str, Any] | None = None,
    split: str = "train",
    constitution: str | None = None,
    judge: LabelSettings | None = None,
    targets: Sequence[str] = (),
) -> GenerationJob:
    """Load and check the parts of a job.

    Args:
        constitution, judge: who ranks completions, where `settings.keep` is given.
        targets: see `rlaif.generation.targets`.

    Raises:
        RlaifError: an input, a model or a setting can't be used.

    Long because it checks every part before anything starts.
    """
    data = open_dataset(prompts, split=split, given=given, need="prompt")
    source = data.source
    loaded = load_constitution(constitution).constitution if constitution else None
    if loaded is not None:
        check_functions(loaded)
    wanted = [parse_target(text, loaded) for text in targets]
    _check_ranking(settings, loaded, wanted, teachers)
    for teacher in teachers:
        check_writes(teacher.engine, f"model {teacher.engine.model!r}")
    models = {f"model {i + 1}": teacher.engine for i, teacher in enumerate(teachers)}
    judged = settings.keep is not None and (
        not wanted or any(t.principle and t.principle.judged for t in wanted)
    )
    judging = None
    if judged:
        assert judge is not None
        if loaded is not None:
            judge = with_reward_models(judge, loaded)
        models[JUDGE] = judge.judge
        judging = PairCaller(
            load_judge_template(judge.template),
            codec_for(models[JUDGE]),
            judge.aggregation,
            judge.label_mass_floor,
        )
    speakers = [_speaker(role, teacher) for role, teacher in zip(models, teachers, strict=False)]
    systems = read_systems(settings.system) if settings.system else []
    writer = CandidateWriter(
        settings=settings,
        speakers=speakers,
        systems=systems,
        constitution=loaded,
        targets=wanted,
        judging=judging,
        reader=data.reader,
    )
    passes: list[list[str]] = [[role] for role in models]
    if judged and any(teacher.engine == models[JUDGE] for teacher in teachers):
        # The judge is one of the models: they need not take turns.
        mine = next(r for r, e in models.items() if e == models[JUDGE])
        passes = [p for p in passes if p not in ([mine], [JUDGE])] + [[mine, JUDGE]]
    config = _config(
        source=source,
        teachers=teachers,
        settings=settings,
        systems=systems,
        targets=targets,
        layout=data.layout,
    )
    if settings.keep is not None:
        config["constitution"] = loaded.hash if loaded else None
        if judge is not None:
            config |= judge_config(judge, used=judged)
    return GenerationJob(
        source=source,
        limit=settings.limit,
        config=config,
        files=(CANDIDATES, REJECTED),
        models=models,
        passes=passes,
        conversation=writer.conversation,
    )


def _config(
    source: Source,
    teachers: Sequence[Teacher],
    settings: GenerateSettings,
    systems: Sequence[SystemPrompt],
    targets: Sequence[str],
    *,
    layout: Layout,
) -> dict[str, Any]:
    """What the result depends on, apart from who ranks."""
    return {
        "format": 1,
        "command": "generate",
        "input": {"path": source.name, "split": source.split, "hash": source.fingerprint()},
        "models": [
            {**model_config(t.engine), "sampling": t.sampling.model_dump(mode="json")}
            for t in teachers
        ],
        "system_prompts": [[s.text, s.weight] for s in systems],
        "targets": list(targets),
        "layout": layout.to_data(),
        **settings.model_dump(mode="json"),
    }


def _check_ranking(
    settings: GenerateSettings,
    constitution: Constitution | None,
    targets: Sequence[AttributeTarget],
    teachers: Sequence[Teacher],
) -> None:
    total = sum(t.sampling.n for t in teachers)
    if settings.keep is None:
        if targets:
            raise RlaifError("--target needs --keep", hint="Add --keep 1.")
        return
    if not targets and constitution is None:
        raise RlaifError(
            "--keep needs a constitution or a target to rank by",
            hint="Add -c CONSTITUTION or --target.",
        )
    if settings.keep >= total:
        raise RlaifError(
            f"--keep {settings.keep} must be less than the {total} completions per prompt",
            hint="Generate more completions with -n.",
        )


def _speaker(role: str, teacher: Teacher) -> _ReadyTeacher:
    engine, sampling = teacher.engine, teacher.sampling
    if sampling.temperature == 0 and sampling.n > 1:
        raise RlaifError(
            f"model {engine.model!r} at temperature 0 generates {sampling.n} identical completions",
            hint="Use n=1 or a temperature above 0.",
        )
    codec = codec_for(engine)
    origin = {
        **text_origin(engine),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    return _ReadyTeacher(
        role=role, sampling=sampling, codec=codec, origin=origin, depth=int(origin["depth"])
    )


def read_systems(path: str) -> list[SystemPrompt]:
    """A mix of system prompts from a YAML file.

    Raises:
        RlaifError: it is no list of texts with weights; with the place.
    """
    tree = read_yaml(Path(path))
    if not isinstance(tree.value, list) or not tree.value:
        raise RlaifError(
            "system prompts must be a list",
            hint="Write items such as `- {text: You are brief., weight: 2}`.",
            place=tree.places[()],
        )
    found = []
    for i, item in enumerate(tree.value):
        try:
            found.append(
                SystemPrompt.model_validate({"text": item} if isinstance(item, str) else item)
            )
        except ValidationError:
            raise RlaifError(
                f"system prompt {i + 1} is not a text with a positive weight",
                hint="Write `- {text: ..., weight: 1}`.",
                place=tree.places[(i,)],
            ) from None
    return found


@dataclass(frozen=True)
class CandidateWriter:
    """Makes the conversation that writes and ranks one prompt's completions."""

    settings: GenerateSettings
    speakers: Sequence[_ReadyTeacher]
    systems: Sequence[SystemPrompt]
    constitution: Constitution | None
    targets: Sequence[AttributeTarget]
    judging: PairCaller | None
    reader: Reader

    def conversation(
        self, number: int, place: str, row: Mapping[str, object] | Rejected
    ) -> Conversation:
        """See `GenerationJob.conversation`."""
        try:
            if isinstance(row, Rejected):
                raise BadRow(row.reason)
            read = refuse_calls(refuse_media(self.reader.read_prompt(row)))
            asks, origins = self._asks(read, read.prompt_origin.depth)
        except (BadRow, ConversationRefused) as error:
            rejected: ConversationRows = [(REJECTED, {"place": place, "reason": str(error)})]
            return [*rejected, (COUNTS, {"rejected": 1})]
        told = yield asks
        made, counts = self._made(told, origins)
        kept = distinct([m["content"] for m in made], self.settings.near_duplicate)
        counts["near_duplicates"] = len(made) - len(kept)
        made = [{**made[i], "copies": copies} for i, copies in kept.items()]
        name = read.id or f"row-{number}"
        if self.settings.keep is not None and made:
            made = yield from self._rank(read, name, made, counts)
        counts["completions"] = len(made)
        out: ConversationRows = [(COUNTS, dict(counts))]
        if made:
            row_out: dict[str, object] = {
                "id": name,
                "prompt": [dict(m) for m in read.prompt],
                "tags": sorted(read.tags),
                "weight": read.weight,
                "prompt_origin": origin_columns(read.prompt_origin),
                "completions": made,
            }
            out.append((CANDIDATES, row_out))
        else:
            out.append((REJECTED, {"place": place, "reason": self._why_none(told)}))
        return out

    def _asks(self, read: DataRow, depth: int) -> tuple[list[Query], list[dict[str, Any]]]:
        asks, origins = [], []
        text = conversation_text(read.prompt)
        for speaker in self.speakers:
            s = speaker.sampling
            for i in range(s.n):
                state = f"{self.settings.seed}\x1f{speaker.role}\x1f{i}\x1f{text}"
                drawn = hashlib.blake2b(state.encode(), digest_size=8).digest()
                system = self._system(drawn)
                start: list[Message] = [{"role": "system", "content": system}] if system else []
                own = [m for m in read.prompt if not (system and m["role"] == "system")]
                ids = speaker.codec.encode_chat([*start, *own])
                seed = int.from_bytes(drawn[:4], "big") >> 1
                asks.append(
                    Query(
                        speaker.role,
                        GenerationRequest(
                            id="",
                            token_ids=ids,
                            max_tokens=s.max_tokens,
                            temperature=s.temperature,
                            top_p=s.top_p,
                            seed=seed,
                        ),
                    )
                )
                origins.append(
                    {
                        **speaker.origin,
                        "seed": seed,
                        "system": system,
                        "depth": 1 + max(speaker.depth, depth),
                    }
                )
        return asks, origins

    def _system(self, drawn: bytes) -> str:
        if not self.systems:
            return ""
        weights = [s.weight for s in self.systems]
        return random.Random(drawn).choices(self.systems, weights)[0].text

    def _made(
        self, told: Sequence[Reply], origins: Sequence[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, float]]:
        made = []
        counts: dict[str, float] = {"failed": 0, "unfinished": 0, "empty": 0}
        for answer, origin in zip(told, origins, strict=True):
            text = after_thinking(answer.text) if isinstance(answer, GeneratedText) else None
            if not isinstance(answer, GeneratedText):
                counts["failed"] += 1
            elif text is None or (not answer.finished and not self.settings.keep_truncated):
                counts["unfinished"] += 1
            elif not text:
                counts["empty"] += 1
            else:
                own = {**origin, "finished": answer.finished, "time": answer.made}
                made.append({"content": text, "model": origin["model"], "origin": own})
        return made, counts

    @staticmethod
    def _why_none(told: Sequence[Reply]) -> str:
        reasons = [
            ("an empty completion" if not t.text else "a completion cut at the token limit")
            if isinstance(t, GeneratedText)
            else getattr(t, "reason", "no text")
            for t in told
        ]
        return "no completion: " + "; ".join(sorted(set(reasons)))

    def _rank(
        self,
        read: DataRow,
        name: str,
        made: list[dict[str, Any]],
        counts: dict[str, float],
    ) -> Generator[list[Query], list[Reply], list[dict[str, Any]]]:
        """The best completions, each with its score; counts the attributes before and after."""
        texts = [m["content"] for m in made]
        columns: list[list[float]] = []
        shown: dict[str, list[float]] = {}
        for target in self.targets or (None,):
            label = target.name if target else "constitution"
            if target is None or (target.principle and target.principle.judged):
                columns.append((yield from self._judged(read, name, texts, target)))
                label = f"{label} (win rate, same judge)"
            elif target.principle is not None:
                columns.append([_passes(target, read, text) for text in texts])
            else:
                columns.append([target.score(text) for text in texts])
                if not target.language:
                    shown[label] = [float(count_words(text)) for text in texts]
            shown.setdefault(label, columns[-1])
        chosen = best(columns, self.settings.keep or 1)
        for label, values in shown.items():
            counts[f"sum of all: {label}"] = sum(values) / len(values)
            counts[f"sum of kept: {label}"] = sum(values[i] for i in chosen) / len(chosen)
        counts["ranked"] = 1
        counts["passed_over"] = len(made) - len(chosen)
        return [
            {**made[i], "score": round(sum(c[i] for c in columns) / len(columns), 5)}
            for i in chosen
        ]

    def _judged(
        self,
        read: DataRow,
        name: str,
        texts: Sequence[str],
        target: AttributeTarget | None,
    ) -> Generator[list[Query], list[Reply], list[float]]:
        """The share of the other completions that each one beats, head to head, ties as halves.

        Probabilities of different pairs may come from different tiers, so they are not compared.
        """
        assert self.judging is not None
        assert self.constitution is not None
        language = language_for(read.prompt, self.constitution)
        if target is not None and target.principle is not None:
            principles = [target.principle.in_language(language)]
        else:
            principles = list(self.constitution.in_language(language).applicable(read.tags))

        def message(text: str) -> list[Message]:
            return [{"role": "assistant", "content": text}]

        meetings = list(combinations(range(len(texts)), 2))
        pairs = [
            Pair(name, read.prompt, message(texts[i]), message(texts[j]), language=language)
            for i, j in meetings
        ]
        found = yield from self.judging.compare(pairs, principles)
        won = [0.0] * len(texts)
        for (i, j), preference in zip(meetings, found, strict=True):
            share = {"a": 1.0, "b": 0.0, None: 0.5}[preference.winner]
            won[i] += share
            won[j] += 1.0 - share
        return [points / max(1, len(texts) - 1) for points in won]


def _passes(target: AttributeTarget, read: DataRow, text: str) -> float:
    assert target.principle is not None
    assert target.principle.check is not None
    try:
        return float(run_check(target.principle.check, conversation_text(read.prompt), text))
    except CheckFailed:
        return 0.0

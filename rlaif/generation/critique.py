"""Critique and revision by a constitution: behind `rlaif critique`.

The supervised half of Constitutional AI (Bai et al. 2022, arXiv:2212.08073, section 3): a writer
criticizes a response by a principle, then writes it anew, round after round.  That a revision is
better is not assumed: originals and final revisions are labeled by the judge like any other pair.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlaif.constitution.checks import check_functions
from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Constitution, Principle
from rlaif.data.dataset import DataSet, open_dataset
from rlaif.data.origins import origin_columns
from rlaif.data.row_model import refuse_calls, refuse_media
from rlaif.data.single_rows import BadRow, DataRow, with_responses
from rlaif.engines.base import EngineSettings
from rlaif.engines.model_origin import text_origin
from rlaif.engines.registry import codec_for
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.generation.conversations import Conversation, ConversationRows, Query, Reply
from rlaif.generation.critique_calls import WRITER, read_text
from rlaif.generation.judge_calls import JUDGE, PairCaller
from rlaif.generation.runner import (
    COUNTS,
    REJECTED,
    GenerationJob,
    check_writes,
    judge_config,
    model_config,
)
from rlaif.judging.row_language import in_language_of, with_language
from rlaif.labeling.reward_principles import with_reward_models
from rlaif.labeling.settings import LabelSettings
from rlaif.records import Codec, GenerationRequest, Message, Pair, Rejected
from rlaif.store.text_cache import GeneratedText
from rlaif.templates.judge import load_judge_template
from rlaif.templates.messages import completion_text, conversation_text
from rlaif.templates.writer import WriterTemplates, load_writer_templates

TRACE, PAIRS = "trace.jsonl", "pairs.jsonl"
Choice = Literal["sample", "all", "worst"]


class CritiqueSettings(BaseModel):
    """Everything that `rlaif critique` can be told, apart from data, constitution and models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="Maximum number of critique and revision rounds per completion.",
    )
    principles: Choice = Field(
        default="sample",
        description="Principles per round: a random one (sample), each in turn (all), or the one "
        "with the largest gain according to the judge (worst). `worst` generates a "
        "revision for every principle.",
    )
    until_no_gain: bool = Field(
        default=False, description="Accept a revision only if the judge prefers it."
    )
    examples: int = Field(
        default=2,
        ge=0,
        le=20,
        description="Number of the principle's examples to include in the writer's prompt.",
    )
    critique_tokens: int = Field(
        default=256, ge=1, description="Maximum number of tokens per critique."
    )
    revision_tokens: int = Field(
        default=1024, ge=1, description="Maximum number of tokens per revision."
    )
    temperature: float = Field(
        default=0.7, ge=0, le=10, description="Sampling temperature; 0 is greedy."
    )
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling threshold.")
    limit: int | None = Field(
        default=None, ge=1, description="Maximum number of completions to revise."
    )
    seed: int = Field(default=0, description="Random seed of the sampling.")


@dataclass(frozen=True)
class ResponseSource:
    """A source of candidates, one response at a time."""

    data: DataSet

    def rows(self) -> Iterator[tuple[str, Mapping[str, object] | Rejected]]:
        """Each response as `{read, index}`, or a row that could not be read."""
        for place, row in self.data.source.rows():
            if isinstance(row, Rejected):
                yield place, row
                continue
            try:
                read = with_responses(refuse_calls(refuse_media(self.data.reader.read(row))), row)
            except BadRow as error:
                yield place, Rejected(place, str(error))
                continue
            for index in range(len(read.completions)):
                yield place, {"read": read, "index": index, "row": row}

    def count(self, limit: int | None = None) -> int | None:
        """Not known before reading."""
        return limit


def prepare_critique(
    data: str,
    constitution: str,
    writer: EngineSettings,
    settings: CritiqueSettings,
    *,
    templates: str,
    judge: LabelSettings,
    verify: bool = False,
    given: Mapping[str, Any] | None = None,
    split: str = "train",
) -> GenerationJob:
    """Load and check the parts of a job.

    Raises:
        RlaifError: an input, a model or a setting can't be used.

    Long because it checks every part before anything starts.
    """
    loaded = load_constitution(constitution).constitution
    check_functions(loaded)
    if not any(p.critique and p.revision for p in loaded.principles):
        raise RlaifError(
            f"no principle of {loaded.name!r} has both a critique and a revision text",
            hint="Add `critique` and `revision` to the principles to revise by.",
        )
    prompts = load_writer_templates(templates)
    data_set = open_dataset(data, split=split, given=given, need="responses")
    source = data_set.source
    check_writes(writer, "the writer")
    models = {WRITER: writer}
    judging = None
    if settings.until_no_gain or settings.principles == "worst":
        judge = with_reward_models(judge, loaded)
        models[JUDGE] = judge.judge
        judging = PairCaller(
            load_judge_template(judge.template),
            codec_for(judge.judge),
            judge.aggregation,
            judge.label_mass_floor,
        )
    origin = {
        **text_origin(writer),
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.revision_tokens,
    }
    reviser = Reviser(
        settings=settings,
        constitution=loaded,
        templates=prompts,
        codec=codec_for(writer),
        judging=judging,
        origin=origin,
    )
    config = {
        "format": 1,
        "command": "critique",
        "input": {"path": source.name, "split": split, "hash": source.fingerprint()},
        "constitution": {
            "name": loaded.name,
            "version": loaded.version,
            "hash": loaded.hash,
        },
        "writer": model_config(writer),
        "verify": verify,
        **judge_config(judge, used=verify or judging is not None),
        "writer_templates": {
            "name": templates,
            "critique": prompts.critique.hash,
            "revision": prompts.revision.hash,
        },
        "layout": data_set.layout.to_data(),
        **settings.model_dump(mode="json"),
    }
    return GenerationJob(
        source=ResponseSource(data_set),
        limit=settings.limit,
        config=config,
        files=(TRACE, PAIRS, REJECTED),
        models=models,
        passes=[list(models)],
        conversation=reviser.conversation,
    )


@dataclass
class _ResponseState:
    """A response on its way.

    Attributes:
        clear: principles by which nothing was found since the response last changed.
        steps: what happened, as the trace keeps it.
        failed: why it ended early, or "".
        time: when the text that it is now was written; "" for the original.
    """

    read: DataRow
    name: str
    text: str
    clear: set[str] = field(default_factory=set)
    steps: list[dict[str, object]] = field(default_factory=list)
    failed: str = ""
    weight: float = 1.0
    origin: Mapping[str, object] = field(default_factory=dict)
    time: str = ""


@dataclass(frozen=True)
class _RevisionDraft:
    """A critique by a principle, and the revision if there is one to be had."""

    principle: Principle
    critique: str
    revision: str = ""
    outcome: str = ""
    time: str = ""


@dataclass(frozen=True)
class Reviser:
    """Makes the conversation that revises one response.

    Long because one conversation with its rounds reads best in one place.
    """

    settings: CritiqueSettings
    constitution: Constitution
    templates: WriterTemplates
    codec: Codec
    judging: PairCaller | None
    origin: Mapping[str, Any]

    def conversation(
        self, number: int, place: str, row: Mapping[str, object] | Rejected
    ) -> Conversation:
        """See `GenerationJob.conversation`."""
        if isinstance(row, Rejected):
            return [(REJECTED, {"place": place, "reason": row.reason}), (COUNTS, {"rejected": 1})]
        read, index = row["read"], row["index"]
        assert isinstance(read, DataRow)
        assert isinstance(index, int)
        completion = read.completions[index]
        name = f"{read.id or place.replace(' ', '-')}/{index + 1}"
        original = completion_text(completion.messages)
        source = row["row"]
        assert isinstance(source, Mapping)
        state = _ResponseState(
            read, name, original, weight=read.weight, origin=_origin_of(source, index)
        )
        principles = [
            p for p in self._said(read).applicable(read.tags) if p.critique and p.revision
        ]
        if not original.strip() or not principles:
            reason = "no principle applies" if original.strip() else "the response is empty"
            return [(REJECTED, {"place": place, "reason": reason}), (COUNTS, {"rejected": 1})]
        for round_ in range(1, self.settings.rounds + 1):
            try:
                yield from self._round(state, round_, principles)
            except ConversationRefused as error:
                return [
                    (REJECTED, {"place": place, "reason": str(error)}),
                    (COUNTS, {"rejected": 1}),
                ]
            if state.failed or len(state.clear) == len(principles):
                break
        return self._rows(state, original, completion.origin, completion.depth)

    def _round(
        self, state: _ResponseState, round_: int, principles: Sequence[Principle]
    ) -> Generator[list[Query], list[Reply], None]:
        match self.settings.principles:
            case "sample":
                left = [p for p in principles if p.id not in state.clear]
                drawn = random.Random(f"{self.settings.seed}/{state.name}/{round_}").choice(left)
                drafts = yield from self._drafts(state, round_, [drawn])
                yield from self._settle(state, round_, drafts[0])
            case "all":
                for principle in principles:
                    if principle.id in state.clear:
                        continue
                    drafts = yield from self._drafts(state, round_, [principle])
                    yield from self._settle(state, round_, drafts[0])
                    if state.failed:
                        return
            case "worst":
                left = [p for p in principles if p.id not in state.clear]
                drafts = yield from self._drafts(state, round_, left)
                yield from self._settle_worst(state, round_, drafts)

    def _drafts(
        self, state: _ResponseState, round_: int, principles: Sequence[Principle]
    ) -> Generator[list[Query], list[Reply], list[_RevisionDraft]]:
        """A critique by each principle, then a revision for each that found something."""
        told = yield [self._ask_critique(state, round_, p) for p in principles]
        drafts = []
        for principle, answer in zip(principles, told, strict=True):
            text, outcome = _read(answer)
            if not outcome and self.templates.finds_nothing(text):
                outcome = "nothing found"
            drafts.append(_RevisionDraft(principle, text, "", outcome))
        open_ = [d for d in drafts if not d.outcome]
        asks = [self._ask_revision(state, round_, d) for d in open_]
        revised = iter((yield asks) if asks else [])
        found = []
        for draft in drafts:
            if draft.outcome:
                found.append(draft)
                continue
            answer = next(revised)
            text, outcome = _read(answer)
            if not outcome and text == state.text:
                outcome = "unchanged"
            time = answer.made if isinstance(answer, GeneratedText) else ""
            found.append(
                _RevisionDraft(
                    principle=draft.principle,
                    critique=draft.critique,
                    revision=text,
                    outcome=outcome,
                    time=time,
                )
            )
        return found

    def _settle(
        self, state: _ResponseState, round_: int, draft: _RevisionDraft, gain: float | None = None
    ) -> Generator[list[Query], list[Reply], None]:
        """Take a revision, if it is one and (where that is asked) the judge finds it better."""
        outcome = draft.outcome
        if not outcome and self.settings.until_no_gain:
            gain, outcome = yield from self._gain(state, draft, None)
        self._note(state=state, round_=round_, draft=draft, outcome=outcome, gain=gain)

    def _settle_worst(
        self, state: _ResponseState, round_: int, drafts: Sequence[_RevisionDraft]
    ) -> Generator[list[Query], list[Reply], None]:
        """Take the revision that the judge finds to gain most on its own principle."""
        gains: list[float] = []
        outcomes = [draft.outcome for draft in drafts]
        for i, draft in enumerate(drafts):
            gain = -1.0
            if not draft.outcome:
                gain, outcomes[i] = yield from self._gain(state, draft, draft.principle)
            gains.append(gain)
        best = max(range(len(drafts)), key=lambda i: (not outcomes[i], gains[i], -i))
        for i, draft in enumerate(drafts):
            if i == best and not outcomes[i]:
                continue
            # A revision that gained less leaves its principle open for the next round.
            self._note(
                state=state,
                round_=round_,
                draft=draft,
                outcome=outcomes[i] or "another gained more",
                gain=None if draft.outcome else gains[i],
            )
        if not outcomes[best]:
            yield from self._settle(state, round_, drafts[best], gains[best])

    def _said(self, read: DataRow) -> Constitution:
        """The constitution in the row's language, where it has several."""
        return in_language_of(read.prompt, self.constitution)

    def _gain(
        self, state: _ResponseState, draft: _RevisionDraft, principle: Principle | None
    ) -> Generator[list[Query], list[Reply], tuple[float, str]]:
        """The judge's margin for the revision, in both orders, and why it is not taken, or ""."""
        assert self.judging is not None
        said = self._said(state.read)
        principles = [principle] if principle else said.applicable(state.read.tags)
        pair = Pair(state.name, state.read.prompt, _message(draft.revision), _message(state.text))
        pair = with_language(pair, self.constitution)
        (preference,) = yield from self.judging.compare([pair], principles)
        if preference.status == "abstained":
            return 0.0, f"failed: the judge abstained ({preference.reason})"
        if preference.winner != "a":
            return (-preference.margin if preference.winner else 0.0), "no gain"
        return preference.margin, ""

    @staticmethod
    def _note(
        state: _ResponseState, round_: int, draft: _RevisionDraft, outcome: str, gain: float | None
    ) -> None:
        state.steps.append(
            {
                "round": round_,
                "principle": draft.principle.id,
                "critique": draft.critique,
                "revision": draft.revision,
                "taken": not outcome,
                "outcome": outcome or "revised",
                "gain": 0.0 if gain is None else round(gain, 5),
            }
        )
        if not outcome:
            state.text, state.time = draft.revision, draft.time
            state.clear = set()
        elif outcome in ("nothing found", "unchanged", "no gain"):
            state.clear.add(draft.principle.id)
        elif outcome != "another gained more":
            state.failed = outcome

    def _ask_critique(self, state: _ResponseState, round_: int, principle: Principle) -> Query:
        assert principle.critique
        text = self.templates.critique.render(
            conversation=conversation_text(state.read.prompt),
            response=state.text,
            request=principle.critique,
            examples=self._examples(principle, revised=False),
        )
        return self._ask(text, self.settings.critique_tokens, f"{state.name}/{round_}/critique")

    def _ask_revision(self, state: _ResponseState, round_: int, draft: _RevisionDraft) -> Query:
        assert draft.principle.revision
        text = self.templates.revision.render(
            conversation=conversation_text(state.read.prompt),
            response=state.text,
            critique=draft.critique,
            request=draft.principle.revision,
            examples=self._examples(draft.principle, revised=True),
        )
        return self._ask(text, self.settings.revision_tokens, f"{state.name}/{round_}/revision")

    def _ask(self, text: str, most: int, name: str) -> Query:
        ids = self.codec.encode_chat([{"role": "user", "content": text}])
        s = self.settings
        seed = random.Random(f"{s.seed}/{name}").getrandbits(31)
        return Query(
            WRITER,
            GenerationRequest(
                id="",
                token_ids=ids,
                max_tokens=most,
                temperature=s.temperature,
                top_p=s.top_p,
                seed=seed,
            ),
        )

    def _examples(self, principle: Principle, *, revised: bool) -> str:
        shown = []
        for example in principle.examples[: self.settings.examples]:
            prompt = conversation_text(example.conversation)
            text = f"[Example]\n{prompt}\nResponse: {example.rejected}"
            if example.why:
                text += f"\nCritique: {example.why}"
            if revised:
                text += f"\nRevision: {example.chosen}"
            shown.append(text + "\n\n")
        return "".join(shown)

    def _rows(
        self, state: _ResponseState, original: str, origin: str, depth: int
    ) -> ConversationRows:
        taken = sum(bool(step["taken"]) for step in state.steps)
        status = "revised" if state.text != original else "failed" if state.failed else "unchanged"
        read = state.read.prompt_origin
        deepest = max(int(self.origin["depth"]), depth, read.depth)
        own = {**self.origin, "depth": 1 + deepest, "time": state.time}
        prompt = origin_columns(read)
        rows: ConversationRows = [
            (COUNTS, {status: 1, "critiques": len(state.steps), "revisions accepted": taken}),
            (
                TRACE,
                {
                    "id": state.name,
                    "prompt": [dict(m) for m in state.read.prompt],
                    "prompt_origin": prompt,
                    "tags": sorted(state.read.tags),
                    "original": original,
                    "original_origin": origin,
                    "original_provenance": dict(state.origin),
                    "weight": state.weight,
                    "steps": state.steps,
                    "final": state.text,
                    "status": status,
                    "ended": state.failed or "completed",
                    "origin": own,
                },
            ),
        ]
        if status == "revised":
            pair: dict[str, object] = {
                "id": state.name,
                "prompt": [dict(m) for m in state.read.prompt],
                "prompt_origin": prompt,
                "tags": sorted(state.read.tags),
                "response_a": original,
                "response_b": state.text,
                "response_a_model": origin,
                "response_b_model": str(own["model"]),
                "response_a_origin": {**state.origin, "depth": depth},
                "weight": state.weight,
                "response_b_origin": own,
            }
            rows.append((PAIRS, pair))
        return rows


def _origin_of(row: Mapping[str, object], index: int) -> Mapping[str, object]:
    """What a row says about where one of its completions comes from."""
    listed = row.get("completions")
    item = listed[index] if isinstance(listed, list) and index < len(listed) else row
    found = item.get("origin") if isinstance(item, Mapping) else None
    held: Mapping[str, object] = found if isinstance(found, Mapping) else {}
    return {k: v for k, v in held.items() if not isinstance(v, float) or math.isfinite(v)}


def _message(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def _read(answer: Reply) -> tuple[str, str]:
    """What was written, and the outcome where something is wrong with it."""
    text, wrong = read_text(answer)
    return text, f"failed: {wrong}" if wrong else ""

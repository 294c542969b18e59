"""From input rows to windows of planned pairs: read, paired, questioned, tokenized, addressed.

Nothing here waits for the judge, so it runs ahead of it in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from rlaif.constitution.schema import Constitution, Principle
from rlaif.data.file_formats import Row
from rlaif.data.messages import BadRow
from rlaif.data.pairing import make_pairs
from rlaif.data.pictures import load_pictures
from rlaif.data.reading import Reader
from rlaif.data.sources import RowsInOrder
from rlaif.engines.base import LONGEST_TOKEN, PrefixSharing
from rlaif.errors import ConversationRefused
from rlaif.judging.early_stopping import StoppingRule, unasked
from rlaif.judging.prompt_injection import InjectionDetector
from rlaif.judging.questions import OrdersMode, Question, plan_questions, principles_for, screen
from rlaif.judging.rendering import Branches, Renderer
from rlaif.judging.row_language import with_language
from rlaif.judging.scoring import score_pair
from rlaif.labeling.settings import LabelSettings
from rlaif.records import Pair, Preference, Rejected, Verdict
from rlaif.store.verdict_cache import CachedAnswer, answer_keys
from rlaif.util.hashing import digest

WINDOW_QUESTIONS, MOST_WINDOW_QUESTIONS, WINDOW_PAIRS, FIRST_WINDOW = 2048, 8192, 512, 128
"""Questions (and pairs) planned together: prompts that begin alike are found within a window.  The
first windows are small, so that the judge need not wait."""


def window_questions(sharing: PrefixSharing | None) -> int:
    """Questions of a window: those of about as many tokens as the engine's cache holds.

    What comes again sooner is in the cache anyway; a question has 32 tokens of its own at least.
    """
    held = 0 if sharing is None else sharing.capacity // 32
    return min(MOST_WINDOW_QUESTIONS, max(WINDOW_QUESTIONS, held))


@dataclass
class PlannedPair:
    """A pair (or a settled row) on its way to the output.

    Attributes:
        ends_row: whether it is the last of its input row.
        rejected: why the row has no pairs; else `pair` is given.
        settled: the preference, where no judge is needed.
        branches: the questions' token ids, by order.
        keys: what addresses each question's answer in the verdict cache.
        answers: the verdicts so far, by the number of their question.
        stages: the numbers of the questions, in the groups in which they are asked.
        stage: the group that is being asked.
        stopped: whether the decision stands without the groups that are left.
        prompt_injection: what in its completions looks like prompt injection, or "".
        pending: numbers of questions that are under way.
        known: answers from the cache to questions of later groups.
    """

    ends_row: bool
    pair: Pair | None = None
    rejected: Rejected | None = None
    settled: Preference | None = None
    principles: list[Principle] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    branches: list[Branches] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    answers: dict[int, Verdict] = field(default_factory=dict)
    stages: list[list[int]] = field(default_factory=list)
    stage: int = 0
    stopped: bool = False
    prompt_injection: str = ""
    pending: set[int] = field(default_factory=set)
    known: dict[int, CachedAnswer] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every question has its verdict, or needs none."""
        return self.stopped or len(self.answers) == len(self.questions)

    def turn(self, stopping: StoppingRule | None) -> bool:
        """Where a group is answered: stop, or turn to the next; whether there is a next."""
        if self.stage + 1 >= len(self.stages) or self.stopped or not self.stage_complete:
            return False  # the last group is told first: looking for answers takes time
        assert stopping is not None
        assert self.pair is not None
        asked = [i for stage in self.stages[: self.stage + 1] for i in stage]
        verdicts = [self.answers[i] for i in asked]
        scores = score_pair(self.pair, self.principles, verdicts, asked_only=True)
        if stopping.enough(scores, unasked(self.questions, asked)):
            self.stopped = True
            self.branches.clear()
            return False
        self.stage += 1
        return True

    @property
    def stage_complete(self) -> bool:
        """Whether every question of the group that is being asked has its verdict."""
        return all(i in self.answers for i in self.stages[self.stage])


def pairs_of(row: Row | Rejected, number: int, s: LabelSettings, reader: Reader) -> Iterator[Pair]:
    """The pairs of an input row.

    Args:
        number: of the row, from 0.

    Raises:
        BadRow: it can't be read.
    """
    if isinstance(row, Rejected):
        raise BadRow(row.reason)
    read = reader.read(row)
    return make_pairs(
        read,
        read.id or f"row-{number + 1}",
        mode=s.pairs,
        count=s.pairs_per_prompt,
        share_weight=s.weight_by == "prompt",
        seed=s.seed,
        number=number + 1,
        pictures=load_pictures(read, s.pictures_from),
    )


def settled_without_judge(
    pair: Pair, prompt_injection: str, s: LabelSettings
) -> tuple[Literal["tie", "abstained"], str] | None:
    """Status and reason of a pair about which nothing is asked; None if it is to be judged.

    Args:
        prompt_injection: what in its completions looks like prompt injection, or "".
    """
    settled = screen(pair)
    if settled is None and prompt_injection and s.prompt_injection == "hold":
        return "abstained", f"held back: suspected prompt injection ({prompt_injection})"
    return settled


def _abstain(reason: str) -> Preference:
    return Preference(
        status="abstained", winner=None, p_a=0.5, margin=0.0, scores=(), reason=reason
    )


class Planner:
    """Plans the questions about the pairs of a source.

    Args:
        manner: what an answer depends on beside its prompt: model, and how it reasons.
        stopping: when a pair needs no more questions; None asks them all at once.
        most_questions: of a window.
        most_tokens: of a prompt; a pair that can't fit is not even tokenized.
    """

    def __init__(
        self,
        constitution: Constitution,
        renderer: Renderer,
        settings: LabelSettings,
        manner: str,
        stopping: StoppingRule | None = None,
        most_questions: int = WINDOW_QUESTIONS,
        most_tokens: int | None = None,
    ) -> None:
        self._most_characters = None if most_tokens is None else most_tokens * LONGEST_TOKEN
        self._most_questions = most_questions
        self._constitution = constitution
        self._renderer = renderer
        self._settings = settings
        self._reader = Reader(settings.layout)
        self._manner = manner
        self._stopping = stopping
        self._injections = InjectionDetector(renderer.delimiters)

    def windows(
        self, source: RowsInOrder, skip: int, first: int = 0
    ) -> Iterator[list[PlannedPair]]:
        """The pairs of all rows from number `skip` on, in input order, some at a time.

        Args:
            first: the number of the source's first row.
        """
        window: list[PlannedPair] = []
        questions, room = 0, FIRST_WINDOW
        for number, (place, row) in enumerate(source.rows(), first):
            if self._settings.limit is not None and number >= self._settings.limit:
                break
            if number < skip:
                continue
            for item in self._items(number, place, row):
                window.append(item)
                questions += len(item.questions)
                if questions >= room or len(window) >= min(room, WINDOW_PAIRS):
                    yield window
                    window, questions = [], 0
                    room = min(2 * room, self._most_questions)
        if window:
            yield window

    def _items(self, number: int, place: str, row: Row | Rejected) -> Iterator[PlannedPair]:
        """The pairs of a row, or the reason that there are none."""
        held: Pair | None = None
        try:
            for pair in pairs_of(row, number, self._settings, self._reader):
                if held is not None:
                    yield self._plan(held, ends_row=False)
                held = pair
        except BadRow as error:
            yield PlannedPair(True, rejected=Rejected(place, str(error)))
            return
        assert held is not None
        yield self._plan(held, ends_row=True)

    def _plan(self, pair: Pair, *, ends_row: bool) -> PlannedPair:
        s = self._settings
        pair = with_language(pair, self._constitution)
        if self._most_characters is not None:
            length = sum(len(m["content"]) for part in (pair.prompt, pair.a, pair.b) for m in part)
            if length > self._most_characters:
                reason = f"prompt has {length} characters; the judge reads far fewer"
                return PlannedPair(ends_row, pair, settled=_abstain(reason))
        prompt_injection = self._injections.describe(pair)
        if settled := settled_without_judge(pair, prompt_injection, s):
            status, reason = settled
            preference = Preference(
                status=status, winner=None, p_a=0.5, margin=0.0, scores=(), reason=reason
            )
            return PlannedPair(
                ends_row, pair, settled=preference, prompt_injection=prompt_injection
            )
        principles = principles_for(pair, self._constitution, mode=s.principles, seed=s.seed)
        orders: OrdersMode = "one" if s.orders == "one" else "both"
        questions = plan_questions(pair, principles, orders=orders, seed=s.seed)
        stages = [list(range(len(questions)))]
        if self._stopping is not None and questions:
            stages = self._stopping.stages(pair, questions)
        try:
            branches = list(self._renderer.branches(pair, questions))
        except ConversationRefused as error:
            reason = f"the judge can't read the conversation: {error.message}"
            return PlannedPair(
                ends_row, pair, settled=_abstain(reason), prompt_injection=prompt_injection
            )
        keys = [b""] * len(questions)
        for branch in branches:
            found = answer_keys(
                self._manner + "".join(digest(p.data.hex()) for p in pair.pictures),
                branch.context,
                [ids for _, ids in branch.tails],
                self._renderer.label_ids,
            )
            for (i, _), key in zip(branch.tails, found, strict=True):
                keys[i] = key
        return PlannedPair(
            ends_row=ends_row,
            pair=pair,
            rejected=None,
            settled=None,
            principles=principles,
            questions=questions,
            branches=branches,
            keys=keys,
            stages=stages,
            prompt_injection=prompt_injection,
        )

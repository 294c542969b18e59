"""Reads rows by a layout: prompt, tools, responses, verdict, votes, tags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from rlaif.data.columns import dig, shape_of
from rlaif.data.deviations import DeviationFinder
from rlaif.data.grouping import GROUP, THREAD
from rlaif.data.messages import BadRow, holds_rating, is_unwanted
from rlaif.data.origins import prompt_origin
from rlaif.data.row_cells import number_of, read_identity, read_tags, row_weight, values_at
from rlaif.data.row_common import tokens_of
from rlaif.data.row_model import Completion, DataRow, WinnerIndex
from rlaif.data.row_prompts import PromptReader, split_end
from rlaif.data.row_responses import ResponseReader, media_kind
from rlaif.data.row_rubrics import read_language, read_reference, read_rubric
from rlaif.data.row_verdicts import VerdictReader, take_majority
from rlaif.data.tool_calls import tools_of
from rlaif.data.verdict_codes import sides_of
from rlaif.records import UNKNOWN_ORIGIN, Message

_PICTURE = re.compile(
    r"<image>|<img>[^<\n]{1,500}</img>|<\|image(?:_\d{1,3}|_pad)?\|>|<image_\d{1,3}>"
)
"""How texts mark the place of a picture."""
_SIGNED = {"prompt_origin", "provenance", "origin", "prompt_depth"}
"""Columns that say where a prompt comes from."""


class Reader(PromptReader, ResponseReader, VerdictReader):
    """Reads rows by one layout.

    Args:
        layout: which column plays which role.
    """

    def read(self, row: Mapping[str, Any]) -> DataRow:
        """One row.

        Raises:
            BadRow: it does not fit the layout.
        """
        if GROUP in row:
            return self._joined(row[GROUP])
        if self.layout.thread_by:
            return Reader(THREAD).read(row)
        self._deviations.check(row)
        media: list[str] = []
        tools = list(tools_of(self._cell(row, self.layout.tools))) if self.layout.tools else []
        images: list[Any] = []
        own = self._prompt(row, media, tools, images)
        asked = len(media)
        candidates = self._candidates(row, own, media, tools)
        prompt = self._whole_prompt(own, candidates)
        if not candidates and prompt and prompt[-1]["role"] not in ("user", "tool", "function"):
            prompt, candidates = split_end(prompt)
            if any(is_unwanted(self._cell(row, path)) for path in self.layout.prompt):
                candidates = [replace(c, good=False) for c in candidates]
            candidates = self._written_by(row, ("completion",), [], candidates)
            candidates = self._scored(row, self._call_beside(row, candidates))
            candidates = self._rated(row, candidates)
        elif candidates and prompt and prompt[-1]["role"] == "assistant":
            raise BadRow(
                "the prompt ends with an assistant message; there is nothing left to answer"
            )
        prompt = self._with_system(row, self._with_history(row, prompt))
        # A picture in a response, or one whose bytes are elsewhere, can't be passed on.
        seen = len(media) == asked == len(images)
        prompt, seen = self._with_pictures(row, prompt, media, images=images, seen=seen)
        if not prompt:
            raise BadRow(self._missing_prompt())
        winner, strength, votes = self._verdict(row, candidates)
        return DataRow(
            prompt=prompt,
            tools=tools,
            completions=candidates,
            winner=winner,
            strength=strength,
            votes=votes,
            tags=self._tags(row),
            id=read_identity(dig(row, self.layout.id) if self.layout.id else None),
            media=tuple(dict.fromkeys(media)),
            images=tuple(images) if seen else (),
            weight=1.0 if "weight" in self.layout.ignore else row_weight(row),
            prompt_origin=prompt_origin(row) if _SIGNED & row.keys() else UNKNOWN_ORIGIN,
            rivals=len(self.layout.responses) > 1,
            ranked=self.layout.less_is_better,
            unrated=len(candidates) == 1 and self._lacks_rating(row, candidates),
            reference=read_reference(
                dig(row, self.layout.reference) if self.layout.reference else None
            ),
            criteria=read_rubric(dig(row, self.layout.rubric) if self.layout.rubric else None),
            language=read_language(
                dig(row, self.layout.language) if self.layout.language else None
            ),
        )

    def _with_pictures(
        self,
        row: Mapping[str, Any],
        prompt: list[Message],
        media: list[str],
        images: list[Any],
        seen: bool,
    ) -> tuple[list[Message], bool]:
        """The prompt with the places of pictures marked; and whether all can be passed on.

        Args:
            media, images: of what was read; those of the row's own columns are added.
            seen: whether those that were read can be passed on.
        """
        for path in self.layout.media:
            seen = seen and path not in self._pictures_of_responses
            values = values_at(row, path) if "[]" in path else [dig(row, path)]
            if any(shape_of(value) != "empty" for value in values):
                media.append(media_kind(path))
                images += values
        if any("<" in m["content"] and _PICTURE.search(m["content"]) for m in prompt):
            media.append("image")
            seen = seen and bool(images)
            prompt = [{**m, "content": _PICTURE.sub("[image]", m["content"])} for m in prompt]
        return prompt, seen

    @cached_property
    def _pictures_of_responses(self) -> set[str]:
        """Columns with pictures that belong to one response, and are no part of the question."""
        heads = {path.split(".")[0].split("[")[0] for path in self.layout.responses}
        heads |= {path.split(".")[0] for path in (self.layout.chosen, self.layout.rejected) if path}
        sides = set(sides_of(self.layout.responses)) | {"chosen", "rejected"}
        own = {p for p in self.layout.media if p.split(".")[0].split("[")[0] in heads}
        several = len(self.layout.media) > 1
        return own | {p for p in self.layout.media if several and sides & set(tokens_of(p))}

    @cached_property
    def _deviations(self) -> DeviationFinder:
        layout = self.layout
        named = [layout.history, layout.system, layout.tools, layout.chosen, layout.rejected]
        several = (layout.prompt, layout.context, layout.responses, layout.calls, layout.scores)
        for paths in (*several, layout.label):
            named += [p for p in paths if "[]" not in p]
        named += [layout.id, layout.tags, layout.subset, layout.turn, *layout.good, *layout.bad]
        named += [
            layout.reference,
            layout.rubric,
            layout.language,
            layout.order,
            *layout.names,
            *layout.origins,
            *layout.media,
        ]
        return DeviationFinder(layout.columns, filter(None, named), layout.ignore)

    def read_prompt(self, row: Mapping[str, Any]) -> DataRow:
        """One row of which only the prompt is wanted.

        Raises:
            BadRow: it has none.
        """
        layout = self.layout
        if layout.prompt and layout.prompt[0] not in layout.transcripts:
            found = self._of_prompts.read(row)
        else:
            found = self.read(row)
        return replace(found, completions=[], winner=None, strength=None, votes=[])

    @cached_property
    def _of_prompts(self) -> Reader:
        bare = {
            "responses": (),
            "calls": (),
            "chosen": "",
            "rejected": "",
            "scores": (),
            "order": "",
            "label": (),
            "good": (),
        }
        return Reader(self.layout.model_copy(update=bare))

    def read_id(self, row: Mapping[str, Any]) -> str:
        """The id that a row states, or ""."""
        return read_identity(dig(row, self.layout.id) if self.layout.id else None)

    def _joined(self, rows: Sequence[Mapping[str, Any]]) -> DataRow:
        """Rows with one response each to the same prompt; or with votes on the same responses."""
        read = [self.read(row) for row in rows]
        if all(len(one.completions) > 1 for one in read):
            return _with_votes(read)
        found = []
        for row, one in zip(rows, read, strict=True):
            score = number_of(dig(row, self.layout.scores[0])) if self.layout.scores else None
            found += [replace(c, score=score) for c in one.completions]
        winner, strength, votes = (
            self._verdict(rows[0], found) if len(found) > 1 else (None, None, [])
        )
        return replace(read[0], completions=found, winner=winner, strength=strength, votes=votes)

    def _tags(self, row: Mapping[str, Any]) -> frozenset[str]:
        """A row's own tags, or those that a label or a mix kept."""
        value = dig(row, self.layout.tags) if self.layout.tags else None
        evidence = row.get("provenance")
        if value is None and isinstance(evidence, Mapping):
            value = evidence.get("tags")
        return read_tags(value)

    def _rates_itself(self, row: Mapping[str, Any], found: Sequence[Completion]) -> bool:
        """Whether the one answer's own message holds a rating, of which nothing says what it
        means.
        """
        if len(found) != 1 or found[0].good is not None:
            return False
        paths = self.layout.responses or self.layout.prompt
        return any(holds_rating(self._cell(row, path)) for path in paths)

    def _lacks_rating(self, row: Mapping[str, Any], found: Sequence[Completion]) -> bool:
        """Whether something should say how good the one answer is, and does not."""
        return self._is_unrated(found) or self._rates_itself(row, found) or self._lacks_flag(found)

    def _lacks_flag(self, found: Sequence[Completion]) -> bool:
        """Whether the one answer has no flag, unlike those of other rows."""
        flagged = self.layout.good or self.layout.bad
        return bool(flagged) and len(found) == 1 and found[0].good is None

    def _is_unrated(self, found: Sequence[Completion]) -> bool:
        stated = self.layout.scores and "[" not in self.layout.scores[0]
        return (
            bool(stated)
            and len(found) == 1
            and found[0].score is not None
            and found[0].good is None
        )


def _with_votes(rows: Sequence[DataRow]) -> DataRow:
    """Several verdicts on the same responses, in whatever order they stand, as votes.

    Raises:
        BadRow: the responses are not the same.
    """
    first = rows[0]
    texts = [c.messages for c in first.completions]
    votes: list[WinnerIndex] = []
    for row in rows:
        try:
            places = [texts.index(c.messages) for c in row.completions]
        except ValueError:
            places = []
        if sorted(places) != list(range(len(texts))):
            raise BadRow("rows with the same value to group by hold different responses")
        stated = row.votes or [row.winner]
        votes += [places[v] if isinstance(v, int) else v for v in stated]
    return replace(first, winner=take_majority(votes), strength=None, votes=votes)

"""Questions that take several requests: reasoning before the label, once or several times by
chance, and scores of each response.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rlaif.engines.with_rewards import asks_reward_model
from rlaif.judging.rendering import Renderer
from rlaif.judging.verdicts import compare_scores, mean_of_samples
from rlaif.labeling.in_flight import InFlight, JudgeReply
from rlaif.labeling.settings import LabelSettings
from rlaif.records import (
    CUT,
    ChoiceRequest,
    ChoiceResult,
    Failure,
    GenerationResult,
    Request,
    Result,
)
from rlaif.util.thinking import after_thinking


class ReasoningSampler:
    """From a question to requests for reasoning, and from what was written to its label.

    Args:
        renderer: of the judge's template, which has an `answer` that follows the reasoning.
    """

    def __init__(self, renderer: Renderer, settings: LabelSettings, in_flight: InFlight) -> None:
        self._renderer, self._settings, self._in_flight = renderer, settings, in_flight
        self._written: dict[str, str] = {}
        self._samples: dict[str, dict[int, JudgeReply]] = {}
        # Of judges that score each response: what was asked last, and the first score.
        self._asked: dict[str, ChoiceRequest] = {}
        self._first: dict[str, ChoiceResult] = {}

    def requests(self, request: ChoiceRequest, key: bytes) -> Iterator[Request]:
        """What lets the judge reason about a question.

        Args:
            key: of the question; seeds of samples come from it.
        """
        s = self._settings
        if s.reasoning_samples == 1:
            yield self._renderer.reasoning(request, s.reasoning_tokens)
            return
        for sample in range(s.reasoning_samples):
            one = replace(request, id=f"{request.id}/{sample}")
            self._in_flight.track(one, key)
            seed = (int.from_bytes(key[-4:], "big") + s.seed + sample) % (1 << 31)
            yield self._renderer.reasoning(one, s.reasoning_tokens, s.reasoning_temperature, seed)

    def advance(self, result: Result) -> JudgeReply | Request | None:
        """The reply to a question; or the request that reads its label after the reasoning; or
        None while other samples of the question are missing.
        """
        if isinstance(result, ChoiceResult) and self._reads_scores(result.id):
            first = self._first.pop(result.id, None)
            if first is None:
                asked = self._asked.pop(result.id, None) or self._in_flight.request(result.id)
                self._first[result.id] = result
                return self._renderer.second_score(asked, result)
            result = compare_scores(result.id, first, result, self._renderer.scores)
        if not isinstance(result, GenerationResult):
            self._asked.pop(result.id, None)
            self._first.pop(result.id, None)
            written = self._written.pop(result.id, "")
            told = result.evidence if isinstance(result, ChoiceResult) else ""
            return self._collect(JudgeReply(result, "\n\n".join(filter(None, (written, told)))))
        text = self._renderer.text(result)
        cut = ""
        if not result.finished:
            cut = f"reasoning was truncated at {self._settings.reasoning_tokens} generated tokens"
        elif after_thinking(text) is None:
            cut = "the judge's thinking did not end"
        answers = self._settings.reasoning_cut == "answer" and self._renderer.ends_reasoning
        if cut and not answers:
            return self._collect(JudgeReply(Failure(result.id, cut)))
        self._written[result.id] = f"{text}\n\n{CUT}" if cut else text
        request = self._renderer.after_reasoning(self._in_flight.request(result.id), result)
        if self._renderer.scores:
            self._asked[result.id] = request
        return request

    def _reads_scores(self, name: str) -> bool:
        """Whether an answer is one of two scores; a reward model's is of both responses."""
        if not self._renderer.scores:
            return False
        return not asks_reward_model(self._in_flight.request(name))

    def _collect(self, reply: JudgeReply) -> JudgeReply | None:
        """With several samples of a question: their mean once all are there, else None."""
        whole, slash, number = reply.result.id.partition("/")
        if not slash:
            return reply
        self._in_flight.untrack(reply.result.id)
        came = self._samples.setdefault(whole, {})
        came[int(number)] = reply
        if len(came) < self._settings.reasoning_samples:
            return None
        # In the order in which they were asked: that in which they came is the engine's.
        samples = [sample for _, sample in sorted(self._samples.pop(whole).items())]
        reasoning = "\n\n".join(sample.reasoning for sample in samples if sample.reasoning)
        return JudgeReply(mean_of_samples(whole, [sample.result for sample in samples]), reasoning)

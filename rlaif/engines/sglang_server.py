"""A judge behind an SGLang server: token ids in, log-probabilities of exactly the labels out.

Questions about one context go in one HTTP request: as a batch to `/generate`, which shares their
prefix in its radix cache, or, with `--option score=true`, to `/v1/score`, which a server started
with multi-item scoring computes as one sequence.  Written from SGLang's source (0.5); its tests
run against a stand-in, and nobody has tried it on the real server yet.

Start the server with a float32 head (docs/engines.md says how): in half precision, logits come in
steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, PrefixSharing
from rlaif.engines.codec import HFCodec
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.segments import shared_length
from rlaif.engines.server_client import (
    SPEED_OPTIONS,
    ServerClient,
    Unusable,
    patience,
    server_url,
)
from rlaif.engines.vllm_server import find_served_model
from rlaif.errors import EngineStopped, RlaifError
from rlaif.records import (
    AnyRequest,
    ChoiceRequest,
    ChoiceResult,
    ContextRequest,
    Failure,
    GenerationRequest,
    GenerationResult,
    Request,
    Result,
)
from rlaif.util.hashing import digest
from rlaif.util.numerics import logsumexp

MOST_TOGETHER = 32
"""Questions in one HTTP request, at most."""
_OPTIONS = ("base_url", "served", "score", "retries", "timeout")


@dataclass(frozen=True)
class QuestionGroup:
    """Questions that are asked in one HTTP request.

    Attributes:
        id: that of the first.
        prefix: how many tokens all of them begin with.
    """

    id: str
    requests: tuple[Request, ...]
    prefix: int = 0


@dataclass(frozen=True)
class Answers:
    """What came of a group, under its id."""

    id: str
    results: tuple[Result, ...]


class SGLangServerEngine:
    """An SGLang server on the network.

    Args:
        served: what the server calls the model; "" for the only one that it has.
        scores: ask `/v1/score` in place of `/generate`.

    Raises:
        RlaifError: no server answers, or it does not serve the model or token ids.
    """

    elsewhere = True
    takes_contexts = True

    def __init__(
        self,
        files: ModelFiles,
        settings: EngineSettings,
        client: ServerClient,
        *,
        served: str,
        scores: bool,
    ) -> None:
        self.codec = HFCodec(files, settings.chat_template_options, settings.max_model_len)
        self._client, self._scores = client, scores
        self._requests = self._tokens = self._cached = 0
        self._open: dict[str, QuestionGroup] = {}
        self._refused: dict[str, Sequence[Result]] = {}  # of groups of which nothing was answered
        try:
            card = find_served_model(client.get("/v1/models"), served)
            self._model = str(card["id"])
            longest = int(card.get("max_model_len") or 4096)
            self.max_prompt_tokens = min(longest, settings.max_model_len or longest) - 1
            self._check()
        except RlaifError:
            client.close()
            raise
        # What its cache holds, and for how long, is the server's own affair.
        self.sharing: PrefixSharing | None = None
        self.fingerprint = digest({"model": files.fingerprint, "by": "sglang-server"})

    def _check(self) -> None:
        """Ask one label, so that a server without the endpoint is known at once."""
        question = ChoiceRequest("check", [0, 1], ((0,), (1,)))
        try:
            (answer,) = self._results(self._ask(QuestionGroup("check", (question,), 1)))
            reason = answer.reason if isinstance(answer, Failure) else ""
        except EngineStopped as error:
            reason = error.message
        if reason:
            raise RlaifError(
                f"the server does not answer like SGLang ({reason[:200]})",
                hint="Check that base_url belongs to an SGLang server of version 0.5 or later.",
            )

    def run(self, requests: Iterable[AnyRequest | None]) -> Iterator[list[Result]]:
        """Answer requests, as many at once as allowed, as they finish."""
        groups: Any = self._groups(requests)
        for answered in self._client.run(groups, self._ask):  # type: ignore[arg-type]
            results = [r for one in answered for r in self._results(one)]  # type: ignore[arg-type]
            self._requests += len(results)
            yield results

    def _groups(self, requests: Iterable[AnyRequest | None]) -> Iterator[QuestionGroup | None]:
        """Questions about a context together, and neighbors with one beginning; texts and misfits
        alone.
        """
        open_: list[Request] = []
        prefix = 0
        for request in requests:
            if isinstance(request, ContextRequest):
                if open_:
                    yield QuestionGroup(open_[0].id, tuple(open_), prefix)
                    open_ = []
                yield from self._of_context(request)
                continue
            fits = (
                isinstance(request, ChoiceRequest)
                and 0 < len(request.token_ids) <= self.max_prompt_tokens
            )
            if fits and open_:
                assert isinstance(request, ChoiceRequest)
                both = shared_length((open_[-1].token_ids, request.token_ids))
                # A question has at least one token of its own.
                most = min(prefix, both, len(request.token_ids) - 1)
                if most >= len(request.token_ids) // 2 and len(open_) < MOST_TOGETHER:
                    open_.append(request)
                    prefix = most
                    continue
            if open_:
                yield QuestionGroup(open_[0].id, tuple(open_), prefix)
                open_ = []
            if fits and request is not None:
                open_, prefix = [request], len(request.token_ids) - 1
            elif request is None:
                yield None
            else:
                yield QuestionGroup(request.id, (request,))
        if open_:
            yield QuestionGroup(open_[0].id, tuple(open_), prefix)

    def _of_context(self, request: ContextRequest) -> Iterator[QuestionGroup]:
        """The questions about a context, so many at a time; those that are too long alone."""
        prefix = len(request.context)
        fits: list[ChoiceRequest] = []
        for question in request.split():
            if 0 < prefix < len(question.token_ids) <= self.max_prompt_tokens:
                fits.append(question)
            else:
                yield QuestionGroup(question.id, (question,), max(0, len(question.token_ids) - 1))
        for start in range(0, len(fits), MOST_TOGETHER):
            together = tuple(fits[start : start + MOST_TOGETHER])
            yield QuestionGroup(together[0].id, together, prefix)

    def _ask(self, group: QuestionGroup) -> Answers | Failure:
        """A group's answers; a failure where the server refuses all of it."""
        first = group.requests[0]
        if not 0 < len(first.token_ids) <= self.max_prompt_tokens:
            length = len(first.token_ids)
            reason = f"prompt has {length} tokens; the limit is {self.max_prompt_tokens}"
            failure = Failure(first.id, reason if length else "prompt has no tokens")
            return Answers(group.id, (failure,))
        self._open[group.id] = group
        answer = self._send(group)
        if isinstance(answer, Answers) or answer.passing or len(group.requests) == 1:
            return answer
        # What the server refuses is found out one by one: the others are good questions.
        alone = [
            self._send(QuestionGroup(r.id, (r,), len(r.token_ids) - 1)) for r in group.requests
        ]
        results = tuple(one.results[0] if isinstance(one, Answers) else one for one in alone)
        if not any(isinstance(one, Answers) for one in alone):
            self._refused[group.id] = results
            return Failure(group.id, answer.reason)
        self._client.forgive(r.id for r in group.requests)
        return Answers(group.id, results)

    def _results(self, answer: Answers | Failure) -> Sequence[Result]:
        """What became of each question of a group."""
        group = self._open.pop(answer.id, None)
        if isinstance(answer, Answers):
            return answer.results
        assert group is not None
        alike = [Failure(r.id, answer.reason, answer.passing) for r in group.requests]
        return self._refused.pop(answer.id, alike)

    def _send(self, group: QuestionGroup) -> Answers | Failure:
        first = group.requests[0]
        if isinstance(first, GenerationRequest):
            path, body = "/generate", _write(first)
        else:
            labels = sorted({i for r in group.requests for spelled in _labels(r) for i in spelled})
            path, body = self._score(group, labels) if self._scores else _generate(group, labels)

        def read(answer: httpx.Response) -> Any:
            try:
                if isinstance(first, GenerationRequest):
                    return Answers(group.id, (self._read_text(first, answer),))
                take = self._read_scores if self._scores else self._read_batch
                return Answers(group.id, take(group, labels, answer))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                said = f"unexpected response from the server ({error!r})"[:200]
                raise Unusable(said) from None

        found: Any = self._client.ask(path, {**body, "model": self._model}, group.id, read)
        return found  # type: ignore[no-any-return]

    def _score(self, group: QuestionGroup, labels: Sequence[int]) -> tuple[str, dict[str, Any]]:
        context = list(group.requests[0].token_ids[: group.prefix])
        return "/v1/score", {
            "query": context,
            "items": [list(r.token_ids[group.prefix :]) for r in group.requests],
            "label_token_ids": list(labels),
            "apply_softmax": False,
        }

    def _read_scores(
        self, group: QuestionGroup, labels: Sequence[int], answer: httpx.Response
    ) -> tuple[Result, ...]:
        found = answer.json()
        rows = [[float(p) for p in row] for row in found["scores"]]
        self._tokens += int((found.get("usage") or {}).get("prompt_tokens") or 0)
        results: list[Result] = []
        for request, row in zip(group.requests, rows, strict=True):
            logs = [math.log(p) if p > 0 else -math.inf for p in row]
            known = dict(zip(labels, logs, strict=True))
            results.append(_choice(request, known))
        return tuple(results)

    def _read_batch(
        self, group: QuestionGroup, labels: Sequence[int], answer: httpx.Response
    ) -> tuple[Result, ...]:
        found = answer.json()
        results: list[Result] = []
        for request, one in zip(group.requests, found, strict=True):
            meta = one["meta_info"]
            self._tokens += int(meta.get("prompt_tokens") or 0)
            self._cached += int(meta.get("cached_tokens") or 0)
            (at_end, *_) = meta["output_token_ids_logprobs"]
            known = {int(entry[1]): float(entry[0]) for entry in at_end}
            if not set(labels) <= known.keys():
                raise ValueError("labels are missing among its log-probabilities")
            results.append(_choice(request, known))
        return tuple(results)

    def _read_text(self, request: GenerationRequest, answer: httpx.Response) -> Result:
        found = answer.json()
        meta = found["meta_info"]
        ids = [int(i) for i in found["output_ids"]]
        finished = meta["finish_reason"]["type"] == "stop"
        self._tokens += int(meta.get("prompt_tokens") or 0)
        self._cached += int(meta.get("cached_tokens") or 0)
        while finished and ids and ids[-1] in self.codec.eos_ids:
            ids.pop()
        return GenerationResult(request.id, tuple(ids), finished)

    def stats(self) -> EngineStats:
        """Requests answered, and prompt tokens and those from its cache, as the server counts."""
        return EngineStats(self._requests, self._tokens, self._cached)

    def close(self) -> None:
        """Let go of what is under way."""
        self._client.close()


def _labels(request: Request) -> tuple[tuple[int, ...], ...]:
    assert isinstance(request, ChoiceRequest)
    return request.label_ids


def _choice(request: Request, known: dict[int, float]) -> ChoiceResult:
    logs = tuple(logsumexp([known[i] for i in spelled]) for spelled in _labels(request))
    return ChoiceResult(request.id, logs)


def _generate(group: QuestionGroup, labels: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """The questions as a batch.  Greedy: other temperatures would bend the log-probabilities."""
    return "/generate", {
        "input_ids": [list(r.token_ids) for r in group.requests],
        "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
        "return_logprob": True,
        "logprob_start_len": -1,
        "token_ids_logprob": list(labels),
    }


def _write(request: GenerationRequest) -> dict[str, Any]:
    sampling: dict[str, Any] = {
        "max_new_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
    }
    if request.seed is not None:
        sampling["sampling_seed"] = request.seed
    return {"input_ids": list(request.token_ids), "sampling_params": sampling}


def is_sglang_answer(answer: httpx.Response) -> bool:
    """Whether a server answered in one of the forms that are asked for here."""
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        return False
    if isinstance(found, list):
        return bool(found)
    return isinstance(found, dict) and ("scores" in found or "meta_info" in found)


def create(settings: EngineSettings) -> SGLangServerEngine:
    """Connect; options: `base_url`, `served`, `score`, `retries` (5), `timeout` (600 seconds)."""
    retries, timeout = patience(settings, _OPTIONS)
    scores = settings.options.get("score", False)
    if not isinstance(scores, bool):
        raise RlaifError(
            f"invalid value {scores!r} for option score", hint="Use true, or leave it out."
        )
    url = server_url(settings).rstrip("/").removesuffix("/v1")
    files = resolve_model(settings.model, settings.revision)
    most = min(settings.most_in_flight, 256)
    client = ServerClient(
        url, most=most, retries=retries, timeout=timeout, is_answer=is_sglang_answer
    )
    served = str(settings.options.get("served", ""))
    return SGLangServerEngine(files, settings, client, served=served, scores=scores)


SPEC = EngineSpec(create=create, speed_options=(*SPEED_OPTIONS, "score"))

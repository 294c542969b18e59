"""A judge behind a vLLM server: read exactly, as in this process.

The server takes token ids at `/inference/v1/generate` and gives log-probabilities of exactly the
label tokens; start it with `vllm serve MODEL --enable-scale-out --hf-overrides
'{"head_dtype": "float32"}'`.  The judge is named here by the same model (folder or hub id): its
tokenizer and chat template are used, its weights are not loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import httpx

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, PrefixSharing
from rlaif.engines.codec import HFCodec
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.openai_engine import prompt_tokens
from rlaif.engines.server_client import (
    SPEED_OPTIONS,
    ServerClient,
    patience,
    server_url,
)
from rlaif.engines.vllm_start import unscaled_length
from rlaif.errors import RlaifError
from rlaif.records import (
    ChoiceRequest,
    ChoiceResult,
    Failure,
    GenerationRequest,
    GenerationResult,
    Request,
    Result,
)
from rlaif.util.hashing import digest
from rlaif.util.numerics import logsumexp

_PATH = "/inference/v1/generate"


class VLLMServerEngine:
    """A vLLM server on the network.

    Args:
        served: what the server calls the model; "" for the only one that it has.

    Raises:
        RlaifError: no server answers, or it does not serve the model or token ids.
    """

    elsewhere = True

    def __init__(
        self, files: ModelFiles, settings: EngineSettings, client: ServerClient, served: str
    ) -> None:
        self.codec = HFCodec(files, settings.chat_template_options, settings.max_model_len)
        self._client = client
        self._requests = self._tokens = 0
        try:
            card = find_served_model(client.get("/v1/models"), served)
            self._model = str(card["id"])
            longest = int(card.get("max_model_len") or 4096)
            self.max_prompt_tokens = min(longest, unscaled_length(files)) - 1
            self._check()
        except RlaifError:
            client.close()
            raise
        # What its cache holds, and for how long, is the server's own affair.
        self.sharing: PrefixSharing | None = None
        self.fingerprint = digest({"model": files.fingerprint, "by": "vllm-server"})

    def _check(self) -> None:
        """Ask one label, so that a server without the endpoint is known at once."""
        answer = self._answer(ChoiceRequest("check", [0], ((0,), (1,))))
        if isinstance(answer, Failure):
            raise RlaifError(
                f"the server does not accept token IDs ({answer.reason[:160]})",
                hint="Start it with `vllm serve MODEL --enable-scale-out` (vLLM 0.32 or later).",
            )

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer requests, as many at once as allowed, as they finish."""
        for results in self._client.run(requests, self._answer):
            self._requests += len(results)
            yield results

    def _answer(self, request: Request) -> Result:
        if len(request.token_ids) > self.max_prompt_tokens:
            reason = (
                f"prompt has {len(request.token_ids)} tokens; the limit is {self.max_prompt_tokens}"
            )
            return Failure(request.id, reason)
        if isinstance(request, ChoiceRequest):
            ids = sorted({i for label in request.label_ids for i in label})
            # The server answers as many tokens as are asked for, the one it drew first: one more
            # is asked for, at the end, so that none of the labels is pushed out.
            ids.append(next(i for i in range(len(ids) + 1) if i not in ids))
            sampling: dict[str, Any] = {
                "max_tokens": 1,
                "temperature": 0.0,
                "logprob_token_ids": ids,
                "logprobs": len(ids),
                "detokenize": False,
            }
        else:
            sampling = {
                "max_tokens": request.max_tokens,
                "temperature": request.temperature,
                "top_p": request.top_p,
                "seed": request.seed,
            }
        body = {
            "model": self._model,
            "token_ids": list(request.token_ids),
            "sampling_params": sampling,
        }
        return self._client.ask(_PATH, body, request.id, lambda answer: self._read(request, answer))

    def _read(self, request: Request, answer: httpx.Response) -> Result:
        try:
            return self._take(request, answer)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            return Failure(request.id, f"unexpected response from the server ({error!r})"[:200])

    def _take(self, request: Request, answer: httpx.Response) -> Result:
        found = answer.json()
        choice = found["choices"][0]
        self._tokens += prompt_tokens(found)
        if isinstance(request, GenerationRequest):
            ids = [int(i) for i in choice["token_ids"]]
            finished = choice["finish_reason"] == "stop"
            while finished and ids and ids[-1] in self.codec.eos_ids:
                ids.pop()
            return GenerationResult(request.id, tuple(ids), finished)
        tops = choice["logprobs"]["content"][0]["top_logprobs"]
        known = {int(top["token_id"]): float(top["logprob"]) for top in tops}
        return ChoiceResult(
            request.id,
            tuple(logsumexp([known[i] for i in label]) for label in request.label_ids),
        )

    def stats(self) -> EngineStats:
        """Requests answered and prompt tokens, as the server counts them."""
        return EngineStats(self._requests, self._tokens, 0)

    def close(self) -> None:
        """Let go of what is under way."""
        self._client.close()


def find_served_model(answer: httpx.Response, served: str) -> dict[str, Any]:
    """The model's entry in the server's list.

    Raises:
        RlaifError: it is not there, or it is not clear which one is meant.
    """
    try:
        cards = [dict(card) for card in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        raise RlaifError(
            "the server lists no models at /v1/models",
            hint="Check that the address belongs to a vLLM server.",
        ) from None
    names = [str(card.get("id")) for card in cards]
    if served and served not in names:
        raise RlaifError(
            f"the server has no model {served!r}",
            hint=f"Available models: {', '.join(names) or 'none'}.",
        )
    if not served and len(cards) != 1:
        raise RlaifError(
            f"the server has {len(cards)} models",
            hint=f"Choose one with --option served={names[0] if names else 'NAME'}.",
        )
    return cards[names.index(served) if served else 0]


def create(settings: EngineSettings) -> VLLMServerEngine:
    """Connect; options: `base_url`, `served`, `retries` (5), `timeout` (600 seconds)."""
    retries, timeout = patience(settings, ("base_url", "served", "retries", "timeout"))
    url = server_url(settings).rstrip("/").removesuffix("/v1")
    files = resolve_model(settings.model, settings.revision)
    most = min(settings.most_in_flight, 256)
    client = ServerClient(url, most=most, retries=retries, timeout=timeout)
    return VLLMServerEngine(files, settings, client, str(settings.options.get("served", "")))


SPEC = EngineSpec(create=create, speed_options=SPEED_OPTIONS)

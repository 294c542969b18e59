"""Judges behind any API that the library LiteLLM knows: Anthropic, Gemini, Bedrock, and others.

The library turns a chat request in OpenAI's form into that of the provider.  All else is as with
the engine `openai`: likeliest tokens where they come, votes where not, retries and limits.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from typing import Any

import httpx

from rlaif.engines.base import EngineSettings, EngineSpec
from rlaif.engines.openai_engine import (
    COMMON_OPTIONS,
    MessageCodec,
    OpenAIEngine,
    flag,
    open_engine,
    vote_settings,
)
from rlaif.engines.server_client import SPEED_OPTIONS, ServerClient, patience
from rlaif.errors import RlaifError
from rlaif.util.addresses import mask, without_secrets
from rlaif.util.hashing import digest

_SECRET = ("_KEY", "_TOKEN", "_SECRET")
"""How the names of variables end that hold what nobody may read."""


class LiteLLMClient(ServerClient):
    """Asks through the library, where `ServerClient` asks a server.

    Args:
        model: as the library names it.
        base_url: of the provider's API; "" for its own.
    """

    def __init__(
        self, model: str, *, base_url: str, most: int, retries: int, timeout: float
    ) -> None:
        super().__init__(base_url or "https://litellm", most=most, retries=retries, timeout=timeout)
        self._base_url, self._seconds = base_url, timeout
        at = f" at {without_secrets(base_url)!r}" if base_url else ""
        self._who, self._key_name = f"the API of {model!r}{at}", "the provider's API key"
        # The library asks for a list of prices when it is imported.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        library: Any = import_module("litellm")
        library.suppress_debug_info = True
        library.telemetry = False
        self._library = library

    def get(self, path: str) -> httpx.Response:
        """No provider is asked before the first question."""
        return httpx.Response(200, json={"data": []})

    def _send(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """The provider's answer, or its error, in OpenAI's form."""
        where = {"base_url": self._base_url} if self._base_url else {}
        try:
            found = self._library.completion(
                **body, **where, timeout=self._seconds, max_retries=0, drop_params=True
            )
        except Exception as error:
            return _as_answer(error)
        return httpx.Response(200, json=json.loads(found.model_dump_json()))


def _as_answer(error: Exception) -> httpx.Response:
    """An error of the library as the server's answer; raises what is none of a provider's."""
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or not 100 <= status < 600:
        raise error
    came = getattr(error, "response", None)
    wait = came.headers.get("retry-after") if isinstance(came, httpx.Response) else None
    said = str(getattr(error, "message", error))
    for name, value in os.environ.items():
        if name.endswith(_SECRET):
            said = mask(said, value, "")
    return httpx.Response(
        status,
        json={"error": {"message": said}},
        headers={"retry-after": wait} if wait else {},
    )


def _address(settings: EngineSettings) -> str:
    found = settings.options.get("base_url", "")
    if not isinstance(found, str) or (found and not found.startswith(("http://", "https://"))):
        raise RlaifError(
            f"invalid value {str(found)[:40]!r} for option base_url",
            hint="Use an address that begins with http:// or https://, or leave it out.",
        )
    return found


def fingerprint(settings: EngineSettings) -> str:
    """What is known of the model: what it is called, and where it is if the user said so."""
    vote_settings(settings)
    return digest({"litellm": settings.model, "url": without_secrets(_address(settings))})


def create(settings: EngineSettings) -> OpenAIEngine:
    """Options: those of the engine `openai` but `batch` and `poll`; `base_url` can be left out.

    The key is read from the environment, as the library names it (`ANTHROPIC_API_KEY`, ...).
    """
    retries, timeout = patience(settings, COMMON_OPTIONS)
    client = LiteLLMClient(
        settings.model,
        base_url=_address(settings),
        most=min(settings.most_in_flight, 256),
        retries=retries,
        timeout=timeout,
    )
    return open_engine(settings, client, f"litellm:{without_secrets(_address(settings))}")


SPEC = EngineSpec(
    create=create,
    codec=lambda settings: MessageCodec(defuses=flag(settings, "defuse") is not False),
    fingerprint=fingerprint,
    speed_options=SPEED_OPTIONS,
    has_tokens=False,
)

"""What the endpoints take and give, beside the answers themselves (`rlaif.api.answers`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaif.api.answers import Comparison, Score

MOST_FIELDS = 100
"""Fields of an object of a request; ours have ten, and harnesses send some more."""
MOST_ITEMS = 4096
"""Entries of a list.  Lists are given up at their first wrong entry (`fail_fast`): to tell all of a
million would hold up everybody else."""


class ChatMessage(BaseModel):
    """One turn.  Text parts of a message in parts are joined; other parts are refused."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | Annotated[list[dict[str, Any]], Field(fail_fast=True, max_length=MOST_ITEMS)]


ChatMessages = Annotated[list[ChatMessage], Field(fail_fast=True, max_length=MOST_ITEMS)]
Texts = Annotated[list[str], Field(fail_fast=True, max_length=MOST_ITEMS)]
ConversationText = str | ChatMessages
_PROMPT: ConversationText = "How do I clean a small kettle?"
_GOOD = "Clean the kettle with warm water."
_RUDE = "That is a silly question. Clean the kettle with warm water."


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _check_count(cls, value: Any) -> Any:
        """One error for very many unknown fields, not one for each."""
        if isinstance(value, dict) and len(value) > MOST_FIELDS:
            raise ValueError(f"{len(value)} fields are more than a request has")
        return value


class PairIn(_Request):
    """Two responses to a prompt."""

    prompt: ConversationText = Field(examples=[_PROMPT])
    response_a: ConversationText = Field(examples=[_GOOD])
    response_b: ConversationText = Field(examples=[_RUDE])
    id: str = Field(default="", description="Returned with the result.")
    tags: Texts = Field(default=[], description="Tags that `applies_to` uses to select principles.")


class PairRequest(PairIn):
    """One pair."""

    constitution: str | None = Field(
        default=None, description="Constitution name; default: the first one served."
    )


class PairsRequest(_Request):
    """Many pairs."""

    pairs: Annotated[list[PairIn], Field(fail_fast=True, min_length=1, max_length=MOST_ITEMS)]
    constitution: str | None = None


class ResponseIn(_Request):
    """One response to a prompt."""

    prompt: ConversationText = Field(examples=[_PROMPT])
    response: ConversationText = Field(examples=[_GOOD])
    id: str = Field(default="", description="Returned with the result.")
    tags: Texts = []


class ResponseRequest(ResponseIn):
    """One response."""

    constitution: str | None = None


class ResponsesRequest(_Request):
    """Many responses."""

    items: Annotated[list[ResponseIn], Field(fail_fast=True, min_length=1, max_length=MOST_ITEMS)]
    constitution: str | None = None


class CritiqueRequest(ResponseIn):
    """A response to criticize."""

    principles: Texts | None = Field(
        default=None, description="Principle IDs; default: all that apply."
    )
    revise: bool = Field(default=False, description="Also generate a revision.")
    constitution: str | None = None


class ItemError(BaseModel):
    """Why an item of a batch has no answer."""

    id: str = ""
    error: str


class Comparisons(BaseModel):
    """Answers in the order of the pairs."""

    results: list[Comparison | ItemError]


class Scores(BaseModel):
    """Answers in the order of the items."""

    results: list[Score | ItemError]


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    code: int


class ErrorAnswer(BaseModel):
    """As OpenAI's errors."""

    error: ErrorBody


class Health(BaseModel):
    """Whether the judge runs."""

    status: Literal["ok"]
    waiting: int = Field(description="Number of requests in progress.")


class ModelCard(BaseModel):
    """A name that requests may use."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "rlaif"
    constitution: str
    dialect: str


class ModelList(BaseModel):
    """All names."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ChatRequest(BaseModel):
    """A harness's judge prompt.  Sampling settings are taken and change nothing."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(examples=["rlaif/demo:json"])
    messages: ChatMessages = Field(
        min_length=1,
        examples=[
            [
                {
                    "role": "user",
                    "content": '{"prompt": "How do I clean a small kettle?", "response_a": '
                    '"Clean the kettle with warm water.", "response_b": "Go away."}',
                }
            ]
        ],
    )
    n: int | None = Field(default=1, ge=1, le=128)
    stream: bool | None = False
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


class TopToken(BaseModel):
    """A token with its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopToken):
    """The token that was given, and its rivals."""

    top_logprobs: list[TopToken]


class Logprobs(BaseModel):
    """Of the one token of the answer."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(BaseModel):
    """The verdict in the harness's words."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One of `n` equal answers."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop"] = "stop"
    logprobs: Logprobs | None = None


class Usage(BaseModel):
    """Tokens are not counted per request: many share them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class ChatAnswer(BaseModel):
    """A chat completion; `rlaif` holds the evidence behind it."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage = Usage()
    system_fingerprint: str
    rlaif: dict[str, Any] | None = None


class ScoreRequest(BaseModel):
    """As vLLM's: prompts and responses; one prompt may go with many responses."""

    model_config = ConfigDict(extra="allow")

    model: str | None = Field(default=None, examples=["rlaif/demo"])
    text_1: str | Texts | None = Field(default=None, examples=[_PROMPT])
    text_2: str | Texts | None = Field(default=None, examples=[[_GOOD, _RUDE]])
    queries: str | Texts | None = None
    documents: str | Texts | None = None


class ScoreItem(BaseModel):
    """A response's score, from 0 to 1; null where there is none."""

    index: int
    object: Literal["score"] = "score"
    score: float | None


class ScoreAnswer(BaseModel):
    """As vLLM's."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ScoreItem]
    usage: Usage = Usage()


class RerankRequest(BaseModel):
    """As vLLM's: a prompt and responses to it."""

    model_config = ConfigDict(extra="allow")

    model: str | None = Field(default=None, examples=["rlaif/demo"])
    query: str = Field(examples=[_PROMPT])
    documents: list[str] = Field(
        fail_fast=True, min_length=1, max_length=MOST_ITEMS, examples=[[_RUDE, _GOOD]]
    )
    top_n: int = Field(default=0, ge=0, description="Number of results; 0 returns all.")


class RerankDocument(BaseModel):
    """A response."""

    text: str


class RerankItem(BaseModel):
    """A response with its score; best first, those without a score last."""

    index: int
    document: RerankDocument
    relevance_score: float | None


class RerankAnswer(BaseModel):
    """As vLLM's."""

    id: str
    model: str
    usage: Usage = Usage()
    results: list[RerankItem]

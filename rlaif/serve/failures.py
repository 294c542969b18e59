"""What goes wrong is one sentence in OpenAI's form: which error is which state."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rlaif.api.service import QueueFull, ServiceRestarting, ServiceStopped
from rlaif.errors import RlaifError
from rlaif.serve import schemas as s
from rlaif.serve.chat import RequestTooLarge
from rlaif.serve.dialects.base import UnreadablePrompt
from rlaif.serve.server import RequestTimeout, UnknownModel
from rlaif.util.validation import parse_problem

RETRY_AFTER, RESTART_AFTER = 1, 5
ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": s.ErrorAnswer, "description": "The token is missing or wrong."},
    413: {"model": s.ErrorAnswer, "description": "The request body is too large."},
    422: {"model": s.ErrorAnswer, "description": "The request is invalid; the message says why."},
    429: {
        "model": s.ErrorAnswer,
        "description": "Too many requests are in progress; see Retry-After.",
    },
    503: {
        "model": s.ErrorAnswer,
        "description": "The engine has stopped, or is restarting; see Retry-After.",
    },
    504: {"model": s.ErrorAnswer, "description": "The request timed out."},
}
_NAMED: dict[int | str, dict[str, Any]] = {
    404: {"model": s.ErrorAnswer, "description": "Unknown constitution or model."}
}
ALL_ERRORS: dict[int | str, dict[str, Any]] = {
    **ERRORS,
    **_NAMED,
    400: {"model": s.ErrorAnswer, "description": "The body is not valid JSON."},
}


def _error(status: int, message: str, kind: str, headers: dict[str, str] | None = None) -> Response:
    body = {"error": {"message": message, "type": kind, "code": status}}
    return JSONResponse(body, status, headers)


_MANY = {"pairs": "PairsRequest", "items": "ResponsesRequest"}
_UNSAID = {"body", "PairRequest", "PairsRequest", "ResponseRequest", "ResponsesRequest"}


def _first_error(error: RequestValidationError) -> Any:
    """The first error of the form that the body has: of one item, or of many."""
    errors = list(error.errors())
    body = error.body
    wanted = {form for key, form in _MANY.items() if isinstance(body, dict) and key in body}
    own = [e for e in errors if bool(wanted & set(map(str, e["loc"]))) == bool(wanted)]
    return (own or errors)[0]


def answer_errors(app: FastAPI) -> None:
    """What goes wrong is one sentence in OpenAI's form."""

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        problem = parse_problem(_first_error(error))
        place = ".".join(str(part) for part in problem.where if part not in _UNSAID)
        if problem.kind == "json_invalid":
            return _error(400, "the body is not valid JSON", "invalid_request_error")
        return _error(422, f"{place or 'body'}: {problem.message}", "invalid_request_error")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else None
        return _error(error.status_code, str(error.detail), "invalid_request_error", headers)

    @app.exception_handler(UnreadablePrompt)
    async def not_understood(_: Request, error: UnreadablePrompt) -> Response:
        return _error(422, str(error), "invalid_request_error")

    @app.exception_handler(UnknownModel)
    async def unknown(_: Request, error: UnknownModel) -> Response:
        return _error(404, str(error), "invalid_request_error")

    @app.exception_handler(RequestTooLarge)
    async def too_large(_: Request, error: RequestTooLarge) -> Response:
        return _error(413, str(error), "invalid_request_error")

    @app.exception_handler(RequestTimeout)
    async def too_slow(_: Request, error: RequestTimeout) -> Response:
        return _error(504, str(error), "timeout_error")

    @app.exception_handler(RlaifError)
    async def ours(_: Request, error: RlaifError) -> Response:
        if isinstance(error, QueueFull):
            headers = {"Retry-After": str(RETRY_AFTER)}
            return _error(429, error.message, "rate_limit_error", headers)
        # What failed is told on the server's own terminal: it may name files and addresses.
        if isinstance(error, ServiceRestarting):
            headers = {"Retry-After": str(RESTART_AFTER)}
            return _error(503, "the judge is restarting; try again later", "server_error", headers)
        if isinstance(error, ServiceStopped):
            return _error(503, "the judge has stopped", "server_error")
        return _error(422, error.message, "invalid_request_error")

"""The application: guards, endpoints, and a shutdown that finishes what was accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response, Security
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from rlaif import __version__
from rlaif.api.service import ServiceRestarting, ServiceStopped
from rlaif.serve import schemas as s
from rlaif.serve.failures import ERRORS, answer_errors
from rlaif.serve.guarding import DOCS_FILES, GuardMiddleware
from rlaif.serve.metrics import MetricsMiddleware
from rlaif.serve.native_api import add_native
from rlaif.serve.openai_api import add_openai
from rlaif.serve.server import Server
from rlaif.serve.strict_bodies import StrictRoute

BODY_SECONDS = 30.0
"Seconds in which the whole request body must arrive."


def build_app(server: Server) -> FastAPI:
    """The application; shutting it down finishes what was accepted and closes the engine."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.service.close)

    app: FastAPI = FastAPIOffline(  # the page at /docs with its scripts: works without a network
        static_url=DOCS_FILES,
        redoc_url=None,
        title="rlaif judge",
        version=__version__,
        summary="Pairwise and pointwise verdicts by a constitution, with evidence.",
        lifespan=lifespan,
        # Said in the schema; who may ask is checked before (`GuardMiddleware`).
        dependencies=[Security(HTTPBearer(auto_error=False))] if server.limits.token else [],
    )
    app.router.route_class = StrictRoute
    app.add_middleware(
        GuardMiddleware,
        token=server.limits.token,
        most_bytes=server.limits.body_bytes,
        most_seconds=min(BODY_SECONDS, server.limits.seconds),
        hosts=server.limits.hosts,
    )
    app.add_middleware(MetricsMiddleware, metrics=server.metrics)
    app.state.service = server.service
    answer_errors(app)
    add_native(app, server)
    add_openai(app, server)
    _about(app, server)
    return app


def _about(app: FastAPI, server: Server) -> None:
    @app.get("/health", responses={503: ERRORS[503]}, tags=["server"])
    async def health() -> s.Health:
        """Whether the judge runs."""
        if server.service.problem is not None:
            raise ServiceStopped("the judge has stopped")
        if server.service.restarting:
            raise ServiceRestarting("the judge is restarting")
        return s.Health(status="ok", waiting=server.service.waiting)

    @app.get("/metrics", response_class=Response, responses={401: ERRORS[401]}, tags=["server"])
    async def metrics() -> Response:
        """Counters in Prometheus' form."""
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")

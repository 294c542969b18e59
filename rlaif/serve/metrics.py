"""What `/metrics` says, in Prometheus' form.  No prompt, answer or key is ever in it."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from rlaif.api.service import Service
from rlaif.util.asgi import App, Receive, Scope, Send


class Metrics:
    """Counters of requests, and the service's own when they are asked for."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rlaif_requests", "Requests answered.", ["endpoint", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "rlaif_request_seconds",
            "Request latency in seconds.",
            ["endpoint"],
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
            registry=self.registry,
        )
        self.registry.register(_OfService(service))

    def text(self) -> bytes:
        """Everything."""
        return generate_latest(self.registry)


class MetricsMiddleware:
    """ASGI middleware that counts requests and times them, by endpoint."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on and note how it was answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                name = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(name, str(message["status"])).inc()
                self._metrics.seconds.labels(name).observe(time.monotonic() - began)
            await send(message)

        await self._app(scope, receive, noting)


class _OfService:
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Read the counters of the service and its engines."""
        counts, stats = self._service.counts, self._service.stats()
        yield GaugeMetricFamily(
            "rlaif_waiting", "Number of requests in progress.", value=self._service.waiting
        )
        asked = CounterMetricFamily(
            "rlaif_judge_answers", "Model answers: asked, cached, or failed.", labels=["how"]
        )
        asked.add_metric(["asked"], counts.asked)
        asked.add_metric(["cached"], counts.cached)
        asked.add_metric(["failed"], counts.failed)
        yield asked
        tokens = CounterMetricFamily(
            "rlaif_prompt_tokens",
            "Prompt tokens: computed, or reused from the prefix cache.",
            labels=["how"],
        )
        tokens.add_metric(["computed"], stats.prompt_tokens - stats.cached_tokens)
        tokens.add_metric(["spared"], stats.cached_tokens)
        yield tokens
        yield CounterMetricFamily(
            "rlaif_engine_idle_seconds", "Engine idle time in seconds.", value=stats.idle_seconds
        )

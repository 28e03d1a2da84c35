# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics in Prometheus' format. The labels' values are bounded: a client cannot invent series."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import __version__
from .intake import Intake
from .settings import Settings

PATHS = frozenset(
    [
        "/api",
        "/v1/models",
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/jobs",
        "/ws",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
    ]
)
METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET"])
ACTIVE_SECONDS = 300.0
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    def __init__(self, settings: Settings, intake: Intake) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests_total", "HTTP requests answered.", ["method", "path", "status"], registry=self.registry
        )
        self.duration = Histogram(
            "http_request_duration_seconds",
            "Time from a request to the end of its answer; a stream counts whole.",
            ["method", "path"],
            registry=self.registry,
            buckets=BUCKETS,
        )
        self.tokens = Counter("bitnet_tokens_total", "Tokens by kind.", ["kind"], registry=self.registry)
        self.prompt_tokens = self.tokens.labels("prompt")
        self.generated_tokens = self.tokens.labels("generated")
        self.disconnects = Counter(
            "bitnet_client_disconnects_total", "Generations stopped because the client went.", registry=self.registry
        )
        self.announced_closes = Counter(
            "bitnet_announced_closes_total",
            "Streams and WebSockets that a drain closed with an announcement.",
            ["kind"],
            registry=self.registry,
        )
        self.websockets = Gauge("bitnet_websockets", "Open WebSockets.", registry=self.registry)
        self._seen: dict[str, float] = {}
        self.registry.register(_State(settings, intake, self))

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        method = method if method in METHODS else "other"
        path = "/v1/jobs" if path.startswith("/v1/jobs/") else path if path in PATHS else "other"
        self.requests.labels(method, path, str(status)).inc()
        self.duration.labels(method, path).observe(seconds)

    def seen(self, owner: str) -> None:
        self._seen[owner] = time.monotonic()

    def active_users(self) -> int:
        since = time.monotonic() - ACTIVE_SECONDS
        self._seen = {owner: moment for owner, moment in self._seen.items() if moment >= since}
        return len(self._seen)


class _State(Collector):
    """What is known elsewhere and only read when asked for."""

    def __init__(self, settings: Settings, intake: Intake, metrics: Metrics) -> None:
        self.settings = settings
        self.intake = intake
        self.metrics = metrics

    def collect(self) -> Iterator[Metric]:
        intake = self.intake
        for name, help_text, value in (
            ("bitnet_active_users", "Tokens that were used in the last five minutes.", self.metrics.active_users()),
            ("bitnet_queue_depth", "Generations that wait for the engine.", intake.waiting),
            ("bitnet_running_generations", "Generations in the engine.", intake.running),
            ("bitnet_ready", "1 while new work is taken.", int(intake.open)),
            ("bitnet_draining", "1 while the service drains.", int(intake.draining)),
        ):
            yield GaugeMetricFamily(name, help_text, value=value)
        yield CounterMetricFamily(
            "bitnet_engine_restarts", "Restarts of the inference engine after a crash.", value=intake.state.restarts
        )
        info = GaugeMetricFamily(
            "bitnet_info", "What runs here.", labels=["release", "environment", "slot", "variant", "version"]
        )
        settings = self.settings
        info.add_metric([settings.release, settings.environment, settings.slot, intake.state.variant, __version__], 1)
        yield info
        variant = GaugeMetricFamily(
            "bitnet_kernel_variant_info",
            "The kernel variant that was chosen at start, and why.",
            labels=["variant", "reason"],
        )
        if intake.state.variant:
            variant.add_metric([intake.state.variant, intake.state.reason], 1)
        yield variant

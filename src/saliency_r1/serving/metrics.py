"""The server's counters, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one server, in its own registry.

    Args:
        taken: returns the number of accepted requests that are not answered yet.
        ready: returns whether the model is loaded.
    """

    def __init__(self, taken: Callable[[], float], ready: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "saliency_r1_requests", "Requests answered.", ("method", "path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "saliency_r1_request_seconds",
            "Seconds from a request's first byte to its answer's last, at /v1/saliency.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.images = Counter("saliency_r1_images", "Pictures done.", ("task",), registry=self.registry)
        self.batch_images = Histogram(
            "saliency_r1_batch_images",
            "Pictures that were done as one batch.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.model_seconds = Counter(
            "saliency_r1_model_seconds", "Seconds that the model was busy.", registry=self.registry
        )
        Gauge(
            "saliency_r1_requests_taken", "Requests taken and not answered yet.", registry=self.registry
        ).set_function(taken)
        Gauge("saliency_r1_ready", "Whether the model is loaded.", registry=self.registry).set_function(ready)

    def exposition(self) -> bytes:
        """Return all counters as text, version 0.0.4 of the format."""
        return generate_latest(self.registry)

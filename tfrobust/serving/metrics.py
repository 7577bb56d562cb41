"""Metrics of a running server, in Prometheus's text format."""

from __future__ import annotations

import time

import prometheus_client as prometheus


class Metrics:
    """Requests, seconds and batch sizes; each server has its own registry."""

    def __init__(self) -> None:
        registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self._registry = registry
        self._requests = prometheus.Counter(
            "tfrobust_requests", "Requests answered.", ["handler", "status"], registry=registry
        )
        self._seconds = prometheus.Histogram(
            "tfrobust_request_seconds", "From the first byte to the answer.", ["handler"],
            registry=registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )  # fmt: skip
        self.batches = prometheus.Histogram(
            "tfrobust_batch_size", "Images per batch.", registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )  # fmt: skip
        self.waiting = prometheus.Gauge(
            "tfrobust_waiting", "Images queued for the model.", registry=registry
        )

    def seen(self, handler: str, status: int, begin: float) -> None:
        """Counts a request that started at `begin` of the performance counter."""
        self._requests.labels(handler, str(status)).inc()
        self._seconds.labels(handler).observe(time.perf_counter() - begin)

    def text(self) -> tuple[bytes, str]:
        """All metrics, and their content type."""
        return prometheus.generate_latest(self._registry), prometheus.CONTENT_TYPE_LATEST

"""What a service counts and measures, as Prometheus reads it; a metric is added here."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The numbers of one service.

    Parameters
    ----------
    waiting : callable
        Returns how many images wait for their answer.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter("photoflux_requests", "Requests answered", ["path", "status"], registry=registry)
        self.request_seconds = Histogram(
            "photoflux_request_seconds", "Seconds from the head of a request to its answer", ["path"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.images = Counter("photoflux_images", "Images predicted", registry=registry)
        self.rejected = Counter("photoflux_rejected_images", "Images that could not be read", registry=registry)
        self.batch = Histogram(
            "photoflux_batch_images", "Images that were predicted at once", buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )  # fmt: skip
        self.decode_seconds = Histogram(
            "photoflux_decode_seconds", "Seconds to decode a file", buckets=_SECONDS, registry=registry
        )
        self.network_seconds = Histogram(
            "photoflux_network_seconds", "Seconds to predict a batch", buckets=_SECONDS, registry=registry
        )
        self.decoders_lost = Counter(
            "photoflux_decoders_lost", "Decoder processes that died or were ended at a file", registry=registry
        )
        queue = Gauge("photoflux_queue_images", "Images that wait for their answer", registry=registry)
        queue.set_function(waiting)
        ProcessCollector(registry=registry)

    def text(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self._registry)

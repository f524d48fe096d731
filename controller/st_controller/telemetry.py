"""What this process counts for Prometheus. What SQL knows is asked of SQL when it is scraped."""

from prometheus_client import CollectorRegistry, Gauge, Histogram

_WAITS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
_LATENCIES = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Telemetry:
    """Counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue_wait = Histogram(
            "st_queue_wait_seconds",
            "Time from queueing a job until a worker claimed it.",
            buckets=_WAITS,
            registry=self.registry,
        )
        self.streams = Gauge(
            "st_stream_connections",
            "Open event streams, by who holds them (worker, user).",
            ("holder",),
            registry=self.registry,
        )
        self.requests = Histogram(
            "st_http_request_seconds",
            "Time until the last byte of the answer; streams are not timed.",
            ("route", "method", "status"),
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self._noted: dict[tuple[str, str, int], Histogram] = {}
        """``requests`` by its labels: the library's own look for them costs more than counting."""

    def note_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        labels = (route, method, status)
        noted = self._noted.get(labels)
        if noted is None:
            noted = self._noted[labels] = self.requests.labels(*labels)
        noted.observe(seconds)

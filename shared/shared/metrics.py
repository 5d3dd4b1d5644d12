"""Metrics of a process for Prometheus: ``posthouse_<service>_<what>_<unit>``.

Each :class:`Metrics` has a registry of its own; nothing is global, so tests and several services in one process do not
meet. Labels take few values (an outcome, a category), never an account, an address or a host of somebody else.
"""

import re
from collections.abc import Sequence

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

# Seconds: from an answer on the same machine to a timeout.
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one service, with those of the process (memory, processor, files, garbage)."""

    def __init__(self, service: str) -> None:
        """Take the name of the service; ``dsn-ingest`` counts as ``dsn_ingest``."""
        self.registry = CollectorRegistry()
        self._prefix = f"posthouse_{service.replace('-', '_')}"
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)

    def counter(self, what: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """Make a counter, e.g. ``deliveries`` for ``posthouse_delivery_deliveries_total``."""
        return Counter(self._name(what.removesuffix("_total")), help_text, labels, registry=self.registry)

    def gauge(self, what: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        """Make a gauge, e.g. ``sessions`` for ``posthouse_delivery_sessions``."""
        return Gauge(self._name(what), help_text, labels, registry=self.registry)

    def seconds(
        self, what: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS_BUCKETS
    ) -> Histogram:
        """Make a histogram of durations, e.g. ``call`` for ``posthouse_hooks_call_seconds``."""
        name = self._name(what.removesuffix("_seconds") + "_seconds")
        return Histogram(name, help_text, labels, registry=self.registry, buckets=buckets)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format; its media type is :data:`CONTENT_TYPE`."""
        return prometheus_client.generate_latest(self.registry)

    def _name(self, what: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", what):
            message = f"{what!r} is no name for a metric: words in lower case, joined by underscores"
            raise ValueError(message)
        return f"{self._prefix}_{what}"

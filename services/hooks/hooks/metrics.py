"""What the hooks service counts."""

from shared.metrics import Metrics


class HooksMetrics:
    """The metrics of one process; ``posthouse_hooks_...``."""

    def __init__(self, metrics: Metrics) -> None:
        self.calls = metrics.counter("calls", "Attempts of calls by what became of them.", ("result",))
        self.seconds = metrics.seconds("call", "From the start gate to the whole answer.", ("result",))
        self.in_flight = metrics.gauge("in_flight", "Calls that are being made.")
        self.slots = metrics.gauge("slots", "Slots of endpoints that are being served.")
        self.events = metrics.counter("events", "Events that were fanned out.")
        self.made = metrics.counter("calls_made", "Calls that fan-outs made of events.")
        self.oldest_event = metrics.gauge(
            "oldest_event_seconds", "How long the oldest event has waited for its fan-out."
        )
        self.oldest_call = metrics.gauge("oldest_call_seconds", "How overdue the oldest waiting call is.")

"""What the api counts, ``posthouse_api_...``; and the clock around every request."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.clock import Monotonic, monotonic
from shared.errors import PosthouseError
from shared.metrics import Metrics

_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_WEBAPI_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds; those of mox, so that its dashboards read ours."""


class ApiMetrics:
    """The metrics of an api process."""

    def __init__(self, metrics: Metrics) -> None:
        """Register them."""
        self.submissions = metrics.counter(
            "submissions",
            "Messages handed in, by door and result: accepted, repeated, or why not.",
            ("door", "result"),
        )
        self.deliveries = metrics.counter("deliveries", "Deliveries accepted, by their first state.", ("state",))
        self.requests = metrics.seconds(
            "request", "Time from a request's head to the end of its answer.", ("operation", "status")
        )
        self.batch = Histogram(
            "posthouse_api_accept_batch_messages",
            "Messages stored by one transaction.",
            registry=metrics.registry,
            buckets=_BATCH_BUCKETS,
        )
        self.accept = metrics.seconds("accept", "Time of one accepting transaction, commit included.")
        self.doubtful = metrics.counter(
            "accept_doubtful", "Transactions that lost their connection and were looked up afterwards."
        )
        self.waiting = metrics.gauge("writer_waiting", "Messages that wait to be stored.")
        self.held = metrics.gauge("request_bytes", "Bytes of request bodies in hand.")
        self.held_deliveries = metrics.gauge("held_deliveries", "Deliveries that are held, as last counted.")
        self.job_steps = metrics.counter("job_steps", "Steps of jobs that this process made.")
        self.authentications = metrics.counter(
            "authentications",
            "Attempts to be let in, by door, mechanism and result: ok, or why not.",
            ("door", "mechanism", "result"),
        )
        self.ratelimited = metrics.counter(
            "authentication_ratelimited",
            "Attempts that were turned away unread, because too many of the same network failed before.",
            ("door",),
        )
        self.webapi_results = metrics.counter(
            "webapi_results",
            "Calls of the webapi, by method and result: ok, badauth, ratelimited, internal, or the code of the fault.",
            ("method", "result"),
        )
        self.webapi = metrics.seconds(
            "webapi", "Time of a call of the webapi, from the check of its credentials.", ("method",), _WEBAPI_BUCKETS
        )

    @contextmanager
    def refusals(self, door: str, result_of: Callable[[Exception], str]) -> Iterator[None]:
        """Count a message as refused where the block ends with an error; one that is taken is counted where it is taken.

        Args:
            door: which it came by.
            result_of: names an error, by one of few words.
        """
        try:
            yield
        except Exception as error:
            disabled = isinstance(error, PosthouseError) and error.facts.get("domain_disabled")
            self.submissions.labels(door, "domain_disabled" if disabled else result_of(error)).inc()
            raise


class RequestTimer:
    """ASGI middleware: times each request by the operation that served it."""

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics, clock: Monotonic = monotonic) -> None:
        """Take the application inside."""
        self.app, self.metrics, self.clock = app, metrics, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = self.clock()
        status = "none"

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, send_noting)
        finally:
            operation = getattr(scope.get("route"), "operation_id", None) or "other"
            self.metrics.requests.labels(operation, status).observe(self.clock() - begun)

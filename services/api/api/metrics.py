"""What the api counts, ``posthouse_api_...``; and the clock around every request."""

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.clock import Monotonic, monotonic
from shared.metrics import Metrics

_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ApiMetrics:
    """The metrics of an api process."""

    def __init__(self, metrics: Metrics) -> None:
        """Register them."""
        self.submissions = metrics.counter(
            "submissions",
            "Messages handed in, by door and result: accepted, or the code of the error.",
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
        self.refused = metrics.counter("authentication_failures", "Requests that were not let in.", ("reason",))


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

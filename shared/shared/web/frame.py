"""Around every request: its id, the limit of its body, and an answer to whatever went wrong inside."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from shared import log

_LINGER_BYTES = 64 * 1024 * 1024
_LINGER_SECONDS = 10.0

Respond = Callable[[Exception, Mapping[str, Any]], Response]


class RequestFrame:
    """ASGI middleware; installed by ``shared.web.problems.install``.

    A body is counted as it arrives, so the limit holds for a chunked one and for one that lies about its length too.
    """

    def __init__(
        self, app: ASGIApp, *, body_limit: int, body_idle: float, respond: Respond, random: Callable[[int], bytes]
    ) -> None:
        """Take the application inside and the limits.

        Args:
            app: whom to frame.
            body_limit: bytes of a body at most.
            body_idle: seconds that a body may pause before the request is given up with 408.
            respond: turns an error into a response.
            random: for request ids.
        """
        self.app, self.body_limit, self.body_idle, self.respond, self.random = (
            app,
            body_limit,
            body_idle,
            respond,
            random,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = f"req_{self.random(12).hex()}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        body = _Body(receive, self.body_limit, self.body_idle)
        with bound_contextvars(request_id=request_id):
            try:
                await body.check_declared(scope)
                await self.app(scope, body.receive, send_named)
            except Exception as error:  # noqa: BLE001 - whatever it was, the caller gets an answer and the log the traceback
                if started:
                    # Too late for another status; leaving the response unfinished makes the server drop the connection.
                    log.get(__name__).error(
                        "response_failed", route=getattr(scope.get("route"), "path", None), exc_info=error
                    )
                    return
                await self.respond(error, scope)(scope, receive, send_named)


class _Body:
    """Hands a request's body on, piece by piece, up to the limit."""

    __slots__ = ("_complete", "_idle", "_limit", "_receive", "_seen")

    def __init__(self, receive: Receive, limit: int, idle: float) -> None:
        self._receive, self._limit, self._idle = receive, limit, idle
        self._seen = 0
        self._complete = False

    async def check_declared(self, scope: Scope) -> None:
        """Refuse what declares to be too long before anything reads it."""
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._limit:
            # RFC 9110 10.1.1: a client that expects "100 Continue" has not sent the body and will not after this answer.
            if b"expect" not in headers:
                await self._linger()
            raise self._too_large()

    async def receive(self) -> Message:
        if self._complete:
            # What comes now is the end of the connection, and a streaming response may wait for that for hours.
            return await self._receive()
        try:
            async with asyncio.timeout(self._idle):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408, f"The body paused for more than {self._idle:g} seconds.", {"Connection": "close"}
            ) from None
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._seen > self._limit:
                await self._linger()
                raise self._too_large()
        return message

    async def _linger(self) -> None:
        """Read on and forget, for a while: closing on a client that still writes makes it lose our answer."""
        left = _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while left > 0 and not self._complete:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self._complete = not message.get("more_body", False)
        except TimeoutError:
            return

    def _too_large(self) -> HTTPException:
        # FastAPI passes an HTTPException on and would hide any other error of a body behind "400".
        return HTTPException(413, f"A request has at most {self._limit} bytes.", {"Connection": "close"})

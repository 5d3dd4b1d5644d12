"""HTTP/1.1 connections of webhooks, and those that wait to be used again.

One connection carries one exchange at a time. It waits under the address that was checked, not only under its name: a name
that resolves elsewhere tomorrow does not get yesterday's connection.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, cast

import h11

from shared.clock import Monotonic, monotonic

HEAD_BYTES = 32 * 1024
_PAUSE_BYTES = 256 * 1024
_INFORMATIONAL_RESPONSES = 8


class Key(NamedTuple):
    """What two calls must share to share a connection."""

    scheme: str
    host: str
    port: int
    address: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response as it was read; ``truncated`` where the body went on beyond the limit."""

    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    truncated: bool


class DroppedError(ConnectionError):
    """The peer ended the connection before the first byte of its answer."""


class HttpConnection(asyncio.Protocol):
    """One connection, over TLS or not."""

    def __init__(self) -> None:
        """Make it unconnected; the event loop connects it."""
        self._received = bytearray()
        self._paused = self._ended = self._busy = False
        self._lost: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.idle_since = 0.0

    @property
    def tls_version(self) -> str | None:
        """Such as ``TLSv1.3``; None without TLS."""
        encrypted = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return encrypted.version() if encrypted is not None else None

    def usable(self) -> bool:
        """Whether another exchange may be tried on it."""
        return self._transport is not None and not self._transport.is_closing() and not self._ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep what arrives for the exchange; outside of one nothing may arrive."""
        if not self._busy:
            self.abort()  # an answer to nothing would be taken for the answer to the next request
            return
        self._received += data
        if len(self._received) > _PAUSE_BYTES and not self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._paused = True
        self._wake()

    def eof_received(self) -> None:
        """Note that nothing more comes; the transport then closes itself."""
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end and its cause."""
        self._ended, self._lost = True, exc
        self._wake()

    def abort(self) -> None:
        """End the connection at once; it is never usable again."""
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, request: h11.Request, body: bytes, *, body_limit: int) -> tuple[Reply, bool]:
        """Send a request and read its answer.

        Args:
            request: complete with its framing headers.
            body: may be empty.
            body_limit: bytes of the answer's body to read at most; the rest is left unread.

        Returns:
            The answer, and whether the connection can be used again. Where it cannot, and after any exception, the caller aborts it.

        Raises:
            DroppedError: no byte came back.
            ConnectionError: it broke in the middle of the answer.
            h11.RemoteProtocolError: the answer is no HTTP/1.1, or its head is too large.
            h11.LocalProtocolError: the request is no HTTP/1.1.
        """
        if self._transport is None or not self.usable():
            raise DroppedError
        self._busy = True
        machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        parts = (
            machine.send(request),
            machine.send(h11.Data(data=body)) if body else b"",
            machine.send(h11.EndOfMessage()),
        )
        # Written without waiting: the body is in memory anyway, and a peer that answers early must be heard while we still send.
        self._transport.write(b"".join(part for part in parts if part))
        reply = await self._read(machine, body_limit)
        self._busy = False
        again = (
            not reply.truncated
            and machine.our_state is h11.DONE
            and machine.their_state is h11.DONE
            and not machine.trailing_data[0]
            and not self._received
            and self.usable()
            and self._transport.get_write_buffer_size() == 0
        )
        return reply, again

    async def _read(self, machine: h11.Connection, body_limit: int) -> Reply:
        reading = _Reading(body_limit)
        first = True
        while True:
            event = machine.next_event()
            if event is not h11.NEED_DATA:
                reply = reading.take(event)
                if reply is not None:
                    return reply
                continue
            data = await self._more()
            if first and not data:
                raise DroppedError from self._lost
            if not data and self._lost is not None:
                message = "the connection broke in the middle of the answer"
                raise ConnectionError(message) from self._lost
            first = False
            machine.receive_data(data)

    async def _more(self) -> bytes:
        """Return what has arrived, waiting for it; nothing at the end of the connection."""
        while not self._received and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self._received)
        self._received.clear()
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._paused = False
        return data

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Reading:
    """Puts an answer together, within its limits."""

    def __init__(self, body_limit: int) -> None:
        self._limit = body_limit
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._informational = 0

    def take(self, event: object) -> Reply | None:
        """Take an event of the protocol; returns the answer once it is complete or the limit is reached."""
        match event:
            case h11.InformationalResponse():
                self._informational += 1
                if self._informational > _INFORMATIONAL_RESPONSES:
                    message = "too many informational responses"
                    raise h11.RemoteProtocolError(message)
                return None
            case h11.Response():
                if sum(len(name) + len(value) for name, value in event.headers) > HEAD_BYTES:
                    message = "the head of the response is too large"
                    raise h11.RemoteProtocolError(message)
                self._head = event
                return None
            case h11.Data():
                self._body += event.data[: self._limit + 1 - len(self._body)]
                return self._reply() if len(self._body) > self._limit else None
            case h11.EndOfMessage():
                return self._reply()
            case _:
                message = "the peer ended the connection before its answer was complete"
                raise h11.RemoteProtocolError(message)

    def _reply(self) -> Reply:
        if self._head is None:
            message = "a body without a head"
            raise h11.RemoteProtocolError(message)
        headers = tuple((bytes(name), bytes(value)) for name, value in self._head.headers)
        truncated = len(self._body) > self._limit
        return Reply(
            self._head.status_code, bytes(self._head.reason), headers, bytes(self._body[: self._limit]), truncated
        )


class IdlePool:
    """Connections between two exchanges: the youngest is used first, the oldest goes first."""

    def __init__(self, *, seconds: float, limit: int, limit_per_key: int, clock: Monotonic = monotonic) -> None:
        """Take how long one may idle, how many may in all, and how many under one key."""
        self._seconds, self._limit, self._limit_per_key, self._clock = seconds, limit, limit_per_key, clock
        self._keys: dict[HttpConnection, Key] = {}  # in the order in which they became idle
        self._by_key: dict[Key, list[HttpConnection]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, keys: Iterable[Key]) -> tuple[Key, HttpConnection] | None:
        """Return an idle connection of one of the keys that still looks alive."""
        for key in keys:
            while waiting := self._by_key.get(key):
                connection = waiting[-1]
                self._remove(connection)
                if connection.usable() and self._clock() - connection.idle_since < self._seconds:
                    return key, connection
                connection.abort()
        return None

    def give(self, key: Key, connection: HttpConnection) -> None:
        """Keep a connection for the next exchange, or end the one that has waited longest where too many do."""
        connection.idle_since = self._clock()
        self._keys[connection] = key
        self._by_key.setdefault(key, []).append(connection)
        if len(self._by_key[key]) > self._limit_per_key:
            self._end(self._by_key[key][0])
        elif len(self._keys) > self._limit:
            self._end(next(iter(self._keys)))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._sweep)

    def close(self) -> None:
        """End all idle connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._keys):
            self._end(connection)

    def _sweep(self) -> None:
        self._timer = None
        now = self._clock()
        for connection in list(self._keys):
            left = self._seconds - (now - connection.idle_since)
            if left > 0:
                self._timer = asyncio.get_running_loop().call_later(left, self._sweep)
                return
            self._end(connection)

    def _end(self, connection: HttpConnection) -> None:
        self._remove(connection)
        connection.abort()

    def _remove(self, connection: HttpConnection) -> None:
        key = self._keys.pop(connection)
        waiting = self._by_key[key]
        waiting.remove(connection)
        if not waiting:
            del self._by_key[key]

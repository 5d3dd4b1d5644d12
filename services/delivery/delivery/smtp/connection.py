"""One TCP connection to a server: commands out, replies in, TLS in between; no knowledge of what they mean."""

import asyncio
import ssl
from typing import cast

from delivery.smtp.facts import TlsFacts
from delivery.smtp.reply import MalformedReply, Reply, ReplyParser

_CLOSE_SECONDS = 1.0


class Connection(asyncio.Protocol):
    """Octets and replies of one connection.

    Failures are the builtin ones: TimeoutError, OSError (ConnectionResetError where the server closed) and
    :class:`MalformedReply`; who knows host and stage makes SMTP errors of them.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = ReplyParser()
        self._malformed: MalformedReply | None = None
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # create_connection makes no other

    def data_received(self, data: bytes) -> None:
        """Read replies; what is malformed counts only after the replies before it."""
        if self._malformed is None:
            try:
                self._parser.feed(data)
            except MalformedReply as error:
                self._malformed = error
        _resolve(self._waiter)

    def connection_lost(self, _: Exception | None) -> None:
        """Tell whoever waits."""
        self._lost = True
        _resolve(self._waiter)
        _resolve(self._drained)
        _resolve(self._gone)

    def pause_writing(self) -> None:
        """Remember that the server does not read."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Go on writing."""
        _resolve(self._drained)
        self._drained = None

    # What the session calls.

    @property
    def quiet(self) -> bool:
        """The connection stands and the server has said nothing that is still unread."""
        return not self._lost and self._malformed is None and self._parser.empty and not self._closing

    @property
    def answered(self) -> bool:
        """A reply, or a reason why none will come, is there to be read."""
        return bool(self._parser.replies) or self._malformed is not None or self._lost

    @property
    def out_of_step(self) -> bool:
        """The server said more than it was asked, and not only goodbye."""
        return bool(self._parser.replies) and self._parser.replies[0].code != 421

    @property
    def local_ip(self) -> str:
        """Our address."""
        name = None if self._transport is None else self._transport.get_extra_info("sockname")
        return str(name[0]) if name else ""

    def tls(self) -> TlsFacts | None:
        """Return what TLS was negotiated, None in plaintext."""
        tls = (
            None
            if self._transport is None
            else cast("ssl.SSLObject | None", self._transport.get_extra_info("ssl_object"))
        )
        if tls is None:
            return None
        cipher = tls.cipher()
        verified = tls.context.verify_mode == ssl.CERT_REQUIRED and tls.context.check_hostname
        return TlsFacts(
            tls.version() or "", cipher[0] if cipher else "", verified, tls.getpeercert(binary_form=True) or b""
        )

    def write(self, data: bytes) -> None:
        """Send."""
        if self._transport is not None and not self._lost:
            self._transport.write(data)

    async def drain(self, seconds: float) -> None:
        """Wait until the server takes what was sent, if too much of it waits.

        Raises:
            TimeoutError: it did not within ``seconds``.
        """
        if self._drained is not None and not self._lost:
            await asyncio.wait_for(asyncio.shield(self._drained), seconds)

    async def reply(self, seconds: float) -> Reply:
        """Return the next reply.

        Raises:
            TimeoutError, ConnectionResetError, MalformedReply: it will not come.
        """
        replies = self._parser.replies
        if replies:
            return replies.popleft()
        deadline = self._loop.time() + seconds
        while not replies:
            if self._malformed is not None:
                raise self._malformed
            if self._lost:
                raise ConnectionResetError("the server closed the connection")
            await self._wait(deadline)
        return replies.popleft()

    async def start_tls(self, context: ssl.SSLContext, server_name: str, seconds: float) -> None:
        """Become the client of a TLS handshake; what was received in plaintext is thrown away (RFC 3207 4.2).

        Raises:
            OSError: the handshake or the verification failed (ssl.SSLError is one).
            ValueError: the name cannot be asked for.
        """
        if self._transport is None or self._lost:
            raise ConnectionResetError("the server closed the connection")
        # Nothing runs between here and the moment the handshake takes over reading.
        self._parser = ReplyParser()
        self._malformed = None
        transport = await self._loop.start_tls(
            self._transport, self, context, server_hostname=server_name, ssl_handshake_timeout=seconds
        )
        if transport is None:  # uvloop: the server left during the handshake
            raise ConnectionResetError("the server closed the connection during the TLS handshake")
        self._transport = transport

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Send what is queued and close."""
        if self._transport is not None:
            self._transport.close()

    async def closed(self) -> None:
        """Close and wait a moment for it, then insist."""
        self.close()
        await asyncio.wait({self._gone}, timeout=_CLOSE_SECONDS)
        if not self._lost:
            self.abort()

    @property
    def _closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def _wait(self, deadline: float) -> None:
        self._waiter = waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, _expire, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError("the server did not answer in time"))

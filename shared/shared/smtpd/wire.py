"""Octets in and out of one connection, bounded in space and time; knows lines and TLS, nothing of SMTP."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import cast

from shared.errors import BadInput, PosthouseError

_READ_AHEAD = 131_072
_WRITE_BEHIND = 65_536
_CLOSE_SECONDS = 30.0


class PeerGoneError(PosthouseError):
    """The peer closed the connection."""

    code = "smtp_peer_gone"


class ReadTimeoutError(PosthouseError):
    """The peer sent nothing for too long."""

    code = "smtp_timeout"


class LineTooLong(BadInput):
    """The line is longer than allowed."""

    code = "smtp_line_too_long"


class BareLineEnd(BadInput):
    """A CR without LF or an LF without CR."""

    code = "smtp_bare_line_end"


class Wire(asyncio.Protocol):
    """One connection as a reader of lines and octets and a writer of octets.

    Exactly one task reads. While nothing is asked for and enough is buffered, the transport is paused: a peer that
    runs ahead waits in TCP. What is written leaves when more input is needed, so that the replies to a pipelined
    group travel together (RFC 2920 3.2).

    Args:
        opened: called once the connection stands.
        closed: called once it does not.
        half_close: seconds that answering may take after the peer has closed its side.
    """

    __slots__ = (
        "_buffer",
        "_closed",
        "_deadline",
        "_drained",
        "_encrypted",
        "_ended",
        "_half_close",
        "_loop",
        "_lost",
        "_opened",
        "_out",
        "_out_size",
        "_paused",
        "_timer",
        "_timer_at",
        "_transport",
        "_upgrading",
        "_waiter",
    )

    def __init__(self, opened: Callable[["Wire"], None], closed: Callable[["Wire"], None], half_close: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened = opened
        self._closed = closed
        self._half_close = half_close
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._out_size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._paused = False
        self._encrypted = False
        self._upgrading = False
        self._ended = False
        self._lost = False

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # a stream server makes no other
        self._encrypted = transport.get_extra_info("ssl_object") is not None
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        """Buffer, wake the reader, stop reading when it falls behind."""
        self._buffer += data
        if len(self._buffer) > _READ_AHEAD and not self._paused and not self._upgrading:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Answer what was asked before a half-close; TLS has no half-close."""
        self._ended = True
        self._cut_off_after(self._half_close)  # it may have left altogether; TCP does not tell the two apart
        self._wake()
        return not self._encrypted

    def connection_lost(self, _: Exception | None) -> None:
        """Tell whoever waits."""
        if self._lost:
            return
        self._lost = self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._closed(self)

    def pause_writing(self) -> None:
        """Remember that the peer does not read."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Go on writing."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    # What the conversation calls.

    @property
    def transport(self) -> asyncio.Transport:
        """The transport of the moment; STARTTLS changes it."""
        if self._transport is None:
            raise PeerGoneError
        return self._transport

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS object, None in plaintext."""
        return (
            None
            if self._transport is None
            else cast("ssl.SSLObject | None", self._transport.get_extra_info("ssl_object"))
        )

    def time(self) -> float:
        """Return the event loop's clock, in seconds."""
        return self._loop.time()

    @property
    def lost(self) -> bool:
        """The connection is gone in both directions."""
        return self._lost

    async def read_line(self, limit: int, seconds: float) -> bytes:
        """Return the next line without its CRLF.

        Raises:
            PeerGoneError, ReadTimeoutError: nothing more will come in time.
            LineTooLong: over ``limit`` octets with CRLF. The line stays unread.
            BareLineEnd: the line holds a CR or LF of its own (RFC 5321 2.3.8). It stays unread.
        """
        searched = 0
        buffer = self._buffer
        while (end := buffer.find(b"\n", searched)) < 0:
            searched = len(buffer)
            if searched >= limit:
                raise LineTooLong
            await self._more(seconds)
        if end >= limit:
            raise LineTooLong
        if end == 0 or buffer.find(b"\r", 0, end) != end - 1:
            raise BareLineEnd
        line = bytes(buffer[: end - 1])
        del buffer[: end + 1]
        return line

    async def read_some(self, seconds: float, most: int | None = None) -> bytes:
        """Return what has arrived, at least one octet and at most ``most``.

        Raises:
            PeerGoneError, ReadTimeoutError: nothing more will come in time.
        """
        while not self._buffer:
            await self._more(seconds)
        data = bytes(self._buffer) if most is None else bytes(self._buffer[:most])
        del self._buffer[: len(data)]
        return data

    def push_back(self, data: bytes) -> None:
        """Put octets back in front."""
        self._buffer[:0] = data

    def write(self, data: bytes) -> None:
        """Queue octets; they leave with the next :meth:`flush` or wait for input."""
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size > _WRITE_BEHIND:
            self._send()

    async def flush(self, seconds: float) -> None:
        """Send what is queued and wait until the peer takes it.

        Raises:
            PeerGoneError: it does not; the connection is closed.
        """
        self._send()
        if self._drained is not None:
            try:
                await asyncio.wait_for(asyncio.shield(self._drained), seconds)
            except TimeoutError:
                self.abort()  # no reply would reach it
                raise PeerGoneError("the peer does not read") from None

    def wake(self) -> None:
        """Let a waiting reader look again, as if the time were up."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ReadTimeoutError())

    async def start_tls(self, context: ssl.SSLContext, seconds: float) -> None:
        """Become the server of a TLS handshake; plaintext received before it is thrown away (RFC 3207 4.2).

        Raises:
            PeerGoneError: the handshake failed.
        """
        plain = self.transport
        self._send()
        # Nothing runs between here and the moment the handshake takes over reading: what the peer sent in plaintext
        # is thrown away if it has arrived, and fails as a handshake if it has not.
        self._buffer.clear()
        self._upgrading = self._encrypted = True
        try:
            transport = await self._loop.start_tls(
                plain, self, context, server_side=True, ssl_handshake_timeout=seconds
            )
        except (OSError, EOFError) as error:  # ssl.SSLError and TimeoutError are OSErrors
            self.connection_lost(None)  # the loop does not say so for a connection that never became TLS
            raise PeerGoneError(f"TLS handshake failed: {error}") from error
        if transport is None:  # uvloop: the peer left during the handshake
            self.connection_lost(None)
            raise PeerGoneError
        self._transport = transport
        self._upgrading = self._paused = False

    def close(self) -> None:
        """Send what is queued and close; a peer that does not take it is cut off after half a minute."""
        if self._transport is not None and not self._transport.is_closing():
            self._send()
            self._transport.close()
            self._cut_off_after(_CLOSE_SECONDS)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    async def linger(self, seconds: float, most: int) -> None:
        """Send what is queued, then throw away input until the peer closes.

        Closing with unread input resets the connection, and the peer would lose the reply that tells it why.
        """
        self._send()
        if not self._encrypted and not self._lost and self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the peer may be gone already
                self.transport.write_eof()
        thrown = 0
        with contextlib.suppress(PeerGoneError, ReadTimeoutError, TimeoutError):
            async with asyncio.timeout(seconds):
                while thrown < most:
                    thrown += len(await self.read_some(seconds))

    def _cut_off_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._lost else self._loop.call_later(seconds, self.abort)

    def _send(self) -> None:
        if not self._out:
            return
        data = b"".join(self._out) if len(self._out) > 1 else self._out[0]
        self._out.clear()
        self._out_size = 0
        if self._transport is not None and not self._lost:
            self._transport.write(data)

    async def _more(self, seconds: float) -> None:
        if self._out:
            self._send()
        if self._drained is not None:
            await self.flush(seconds)
        if self._ended:
            raise PeerGoneError
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        self._waiter = waiter = self._loop.create_future()
        self._arm(self._loop.time() + seconds)
        try:
            await waiter
        finally:
            self._waiter = None

    def _arm(self, deadline: float) -> None:
        # One lazy timer per connection: most waits end long before it fires, and only then it is looked at.
        self._deadline = deadline
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() >= self._deadline:
            self._waiter.set_exception(ReadTimeoutError())
        else:
            self._arm(self._deadline)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

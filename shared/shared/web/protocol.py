"""uvicorn's HTTP/1.1 protocol with the two limits that it lacks: how long and how large the head of a request may be.

Without them a connection that sends nothing, or a header that never ends, holds memory for ever.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# RFC 9112 9.6: "close" says that this is the last response. RFC 6585 5: 431. RFC 9110 15.5.9: 408.
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """Serves one connection; uvicorn makes it.

    Attributes:
        head_seconds: how long a head may take, from the connection or from its first byte.
        head_bytes: how long it may be; the piece that is read at once may add its own length to it.
    """

    head_seconds = 30.0
    head_bytes = 64 * 1024

    _in_head = True
    _head_seen = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its base, which narrows it too
        """Begin a connection; its first request has to come."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        if self._in_head:
            self._head_seen += len(data)
        super().data_received(data)
        # Afterwards: the same piece may have ended the head and begun the body.
        if self._in_head and self._head_seen > self.head_bytes:
            self._refuse(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Note the first byte of a request; called by the parser."""
        if self._head_timer is None:
            self._arm()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note the end of a head; called by the parser."""
        self._in_head = False
        self._head_seen = 0
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note the end of a request; called by the parser."""
        self._in_head = True
        super().on_message_complete()

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._refuse, _TOO_SLOW)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, response: bytes) -> None:
        self._disarm()
        if self.transport.is_closing():
            return
        cycle = vars(self)["cycle"]  # None before the first request, whatever its annotation says
        busy = cycle is not None and not cycle.response_complete
        if busy and response is _TOO_SLOW:
            self._arm()  # half a request sent ahead must not cut off the answer to the one before it
            return
        if not busy:
            self.transport.write(response)
        self.transport.close()

"""The content of DATA: end marker, dot-unstuffing, and no bare CR or LF, in any chunking (RFC 5321 4.1.1.4, 4.5.2)."""

from enum import Enum

_END = b"\r\n.\r\n"
_PARTS_OF_END = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")  # longest first


class Flaw(Enum):
    """Why content cannot be accepted."""

    BARE_LINE_END = "bare CR or LF"
    TOO_BIG = "too big"
    NO_MEMORY = "no memory"


def has_bare_line_end(data: bytes | bytearray) -> bool:
    """Tell whether a CR stands without its LF or an LF without its CR."""
    pairs = data.count(b"\r\n")
    return data.count(b"\r") != pairs or data.count(b"\n") != pairs


class DataDecoder:
    """Takes what arrives after 354 and finds the message in it.

    Only CRLF.CRLF ends a message. A bare CR or LF anywhere makes it refused as a whole: where two servers disagree
    about the end of a message, a second one can be smuggled in.

    Args:
        limit: octets the content may have, dots removed.
    """

    __slots__ = ("_limit", "_parts", "_tail", "flaw", "received", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._tail = b"\r\n"  # RFC 5321 4.1.1.4: the CRLF of the DATA command itself counts for an end right away
        self.size = -len(self._tail)
        """Octets of content so far, dots removed; what is over the limit is counted, not kept."""
        self.received = 0
        """Octets taken in, whatever became of them."""
        self.flaw: Flaw | None = None

    def feed(self, data: bytes) -> bytes | None:
        """Take the next octets; return what follows the end marker once it was seen, None until then."""
        self.received += len(data)
        data = self._tail + data if self._tail else data
        end = data.find(_END)
        if end >= 0:
            self._tail = b""
            self._keep(data[: end + 2])
            return data[end + len(_END) :]
        # Hold back what may be the beginning of an end marker; so no piece is cut within CRLF or within CRLF and dot.
        held = next((part for part in _PARTS_OF_END if data.endswith(part)), b"")
        self._tail = held
        self._keep(data[: len(data) - len(held)] if held else data)
        return None

    def refuse(self, flaw: Flaw) -> None:
        """Keep nothing any more; octets are still counted and the end is still looked for."""
        self.flaw = flaw
        self._parts.clear()

    def content(self) -> bytes:
        """Return the message with CRLF line ends and dots removed; only sound once ended and without a flaw."""
        return b"".join(self._parts)[2:]

    def _keep(self, piece: bytes) -> None:
        if self.flaw is not Flaw.BARE_LINE_END and has_bare_line_end(piece):
            self.refuse(Flaw.BARE_LINE_END)
        if b"\r\n." in piece:
            piece = piece.replace(b"\r\n.", b"\r\n")  # RFC 5321 4.5.2
        self.size += len(piece)
        if self.size > self._limit and self.flaw is None:
            self.refuse(Flaw.TOO_BIG)
        if self.flaw is None:
            self._parts.append(piece)

"""Content as it goes over the wire: dot-stuffed for DATA (RFC 5321 4.5.2), in any pieces; or counted, for BDAT (RFC 3030)."""

from collections.abc import AsyncIterable, AsyncIterator, Sequence

_PIECE = 65_536


class BareLineEndInContent(ValueError):
    """The content holds a CR or LF that is not part of a CRLF."""


class DotStuffer:
    """Doubles the dots that open a line, and refuses bare CR and LF.

    A bare line end may be the end of a line to the next server: a message with one can end early there, and the rest of
    it be read as commands. It is never sent.
    """

    __slots__ = ("_held", "_last")

    def __init__(self) -> None:
        self._held = b""
        self._last = b"\r\n"  # the content begins at the beginning of a line

    def feed(self, data: bytes) -> bytes:
        """Take content, return what to send.

        Raises:
            BareLineEndInContent: what was returned so far must not be ended with a dot.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r"):
            self._held = b"\r"  # its LF, if there is one, comes with the next piece
            data = data[:-1]
        if not data:
            return b""
        pairs = data.count(b"\r\n")
        if data.count(b"\n") != pairs or data.count(b"\r") != pairs:
            raise BareLineEndInContent
        opens = data.startswith(b".") and self._last == b"\r\n"
        self._last = data[-2:]
        if b"\r\n." in data:
            data = data.replace(b"\r\n.", b"\r\n..")
        return b"." + data if opens else data

    def end(self) -> bytes:
        """Return what ends the message: a line end if the content has none, and the lone dot (RFC 5321 4.1.1.4).

        Raises:
            BareLineEndInContent: the content ends with a bare CR.
        """
        if self._held:
            raise BareLineEndInContent
        return b".\r\n" if self._last == b"\r\n" else b"\r\n.\r\n"


def stuffed(content: Sequence[bytes]) -> bytes:
    """Return content as it follows DATA, with its end.

    Raises:
        BareLineEndInContent: it cannot be sent.
    """
    stuffer = DotStuffer()
    parts = [stuffer.feed(piece) for piece in content]
    parts.append(stuffer.end())
    return b"".join(parts)


def chunk(content: Sequence[bytes]) -> bytes:
    """Return content as one BDAT command with its octets, the last line ended as DATA ends it.

    Raises:
        BareLineEndInContent: it cannot be sent. BDAT itself would carry it, the next hop's DATA would not.
    """
    octets = b"".join(content)
    pairs = octets.count(b"\r\n")
    if octets.count(b"\n") != pairs or octets.count(b"\r") != pairs:
        raise BareLineEndInContent
    end = b"" if octets.endswith(b"\r\n") or not octets else b"\r\n"
    return b"".join((b"BDAT %d LAST\r\n" % (len(octets) + len(end)), octets, end))


async def pieces(content: Sequence[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield content in pieces of at most 64 KiB."""
    if isinstance(content, AsyncIterable):
        async for chunk in content:
            for start in range(0, len(chunk), _PIECE):
                yield chunk[start : start + _PIECE]
        return
    for chunk in content:
        for start in range(0, len(chunk), _PIECE):
            yield chunk[start : start + _PIECE]

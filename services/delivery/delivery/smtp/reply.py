"""Replies of an SMTP server (RFC 5321 4.2), read tolerantly and within bounds."""

import re
from collections import deque
from dataclasses import dataclass

from delivery.smtp.facts import ReplyFacts
from shared.mail.status import clean_text, parse_enhanced

_LINE = re.compile(rb"([2-9][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_MAX_LINE = 4_096  # RFC 5321 4.5.3.1.5 says 512; some servers say more
_MAX_LINES = 128
_MAX_OCTETS = 65_536  # of one reply
_MAX_REPLIES = 8_192  # more than any pipelined group of ours asks for


class MalformedReply(ValueError):
    """What the server sent is no reply; says what it was."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, all its lines."""

    code: int
    octets: bytes
    """What follows the code in each line, joined with LF, uncleaned."""

    @property
    def lines(self) -> list[str]:
        """Text of each line, as ASCII; the enhanced code is still in it."""
        return self.octets.decode("ascii", "replace").split("\n")

    @property
    def positive(self) -> bool:
        """2xx: done (RFC 5321 4.2.1)."""
        return 200 <= self.code < 300

    def facts(self, *, enhanced: bool) -> ReplyFacts:
        """Return it cleaned, for people and records.

        Args:
            enhanced: the server announced ENHANCEDSTATUSCODES: only then its text opens with such a code.
        """
        text = clean_text(self.octets)
        code = (parse_enhanced(text) if enhanced else None) or ""
        return ReplyFacts(self.code, code if code.startswith(str(self.code // 100)) else "", text)  # RFC 2034 4


class ReplyParser:
    """Makes replies of octets, in any chunking.

    A bare LF is taken for a line end: some servers send it, and nothing of ours depends on where a reply's line ends.
    """

    __slots__ = ("_buffer", "_code", "_lines", "_octets", "replies")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._code = 0
        self._lines: list[bytes] = []
        self._octets = 0
        self.replies: deque[Reply] = deque()
        """Complete replies, oldest first."""

    @property
    def empty(self) -> bool:
        """Nothing is waiting, not even part of a reply."""
        return not (self._buffer or self._lines or self.replies)

    def feed(self, data: bytes) -> None:
        """Take octets.

        Raises:
            MalformedReply: they are no reply, or one without end.
        """
        self._buffer += data
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            line = bytes(self._buffer[start:end]).removesuffix(b"\r")
            start = end + 1
            self._line(line)
        del self._buffer[:start]
        if len(self._buffer) > _MAX_LINE:
            raise MalformedReply(f"a reply line of more than {_MAX_LINE} octets")

    def _line(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        if match is None or len(line) > _MAX_LINE:
            raise MalformedReply(f"not a reply: {clean_text(line, 100)!r}")
        code = int(match[1])
        if self._lines and code != self._code:
            raise MalformedReply(f"reply code changes from {self._code} to {code} within a reply")  # RFC 5321 4.2.1
        if len(self._lines) >= _MAX_LINES:
            raise MalformedReply(f"a reply of more than {_MAX_LINES} lines")
        self._octets += len(line)
        if self._octets > _MAX_OCTETS:
            raise MalformedReply(f"a reply of more than {_MAX_OCTETS} octets")
        self._code = code
        self._lines.append(match[3] or b"")
        if match[2] == b"-":
            return
        if len(self.replies) >= _MAX_REPLIES:
            raise MalformedReply("replies that nobody asked for")
        self.replies.append(Reply(code, b"\n".join(self._lines)))
        self._lines.clear()
        self._octets = 0

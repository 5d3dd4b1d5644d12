"""Reading a MIME message as a tree of parts, whatever comes in, in bounded time and memory.

The standard library's parser is the oracle of the tests and not the reader, because it has no bounds: nesting costs it a
stack of generators per line, and a body of a million empty parts a million objects. This one makes a single pass over the
octets, copies none of them, and stops at its limits, which it says (``Part.truncated``).
"""

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.mail.fields import decode_base64, decode_text, decode_words, parameters, unfold
from shared.mail.status import clean_text


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a message is read; what lies beyond is left out of the tree."""

    depth: int = 50  # parts within parts
    parts: int = 1000  # in the whole message
    fields: int = 1000  # in one header
    field_octets: int = 65_536  # of one field's value; the rest of it is cut off
    all_fields: int = 10_000  # in the whole message
    dashed_lines: int = 1_000_000  # lines that begin with `--` and so might be delimiters


LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Part:
    """A message or a part of one: its header, its content, and the parts within it.

    ``span`` are the offsets in ``raw``, which all parts of a message share: start of the header, start and end of the body.
    """

    content_type: str  # `type/subtype` in lower case; `text/plain` where it is missing or broken (RFC 2045 section 5.2)
    params: Mapping[str, str]  # of Content-Type, names in lower case
    fields: tuple[tuple[str, bytes], ...]  # name as written, value as it came, still folded
    parts: tuple["Part", ...]  # of a multipart; of message/rfc822 and message/global the one message in it
    truncated: bool  # a limit left something out, here or in a part within
    raw: bytes = field(repr=False, compare=False)
    span: tuple[int, int, int]

    def header(self, name: str) -> str:
        """Return the first field of this name, unfolded and decoded (RFC 2047), or "" if there is none."""
        return next(self._values(name), "")

    def headers(self, name: str) -> tuple[str, ...]:
        """Return all fields of this name from top to bottom, unfolded and decoded."""
        return tuple(self._values(name))

    def _values(self, name: str) -> Iterator[str]:
        wanted = name.lower()
        for written, value in self.fields:
            if written.lower() == wanted:
                text = unfold(value.decode("utf-8", "replace"))
                yield clean_text(decode_words(text), LIMITS.field_octets)

    @property
    def header_block(self) -> bytes:
        """The header as it came, line ends included, without the empty line after it."""
        start, body, _ = self.span
        block = self.raw[start:body]
        return re.sub(rb"(\A|\n)\r?\n\Z", rb"\1", block)

    @property
    def body(self) -> bytes:
        """The content as it came, still in its transfer encoding."""
        _, body, end = self.span
        return self.raw[body:end]

    @property
    def encoding(self) -> str:
        """The Content-Transfer-Encoding in lower case, "" if none is given."""
        return self.header("Content-Transfer-Encoding").partition(";")[0].strip().lower()

    @property
    def payload(self) -> bytes:
        """The content without its transfer encoding; in an unknown one as it came (RFC 2045 section 6)."""
        match self.encoding:
            case "base64":
                return decode_base64(self.body)
            case "quoted-printable":
                return binascii.a2b_qp(self.body)
            case _:
                return self.body

    def text(self, limit: int = 1_048_576) -> str:
        """Return the content as text of at most ``limit`` characters, decoded by its charset; it may hold any character."""
        # No charset takes more than four octets for a character, beside the escape sequences of ISO 2022.
        return decode_text(self.payload[: 4 * limit + 64], self.params.get("charset", ""))[:limit]

    def walk(self) -> Iterator["Part"]:
        """Yield this part and all within it, outer before inner, in the order of the message."""
        yield self
        for part in self.parts:
            yield from part.walk()


def read(raw: bytes, limits: Limits = LIMITS) -> Part:
    """Return the message in ``raw`` as a tree. Never raises; octets that are no mail are a `text/plain` part without header.

    Lines end in CRLF or LF. RFC 5322 section 2.2, RFC 2045 section 5, RFC 2046 section 5.
    """
    return _Reader(raw, limits).read()


# RFC 5322 sections 2.2 and 4.5.8: white space may stand before the colon; a folded line begins with white space.
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")
_TYPE: Final = re.compile(r"[!#-'*+.0-9A-Z^_`a-z{|}~-]{1,100}/[!#-'*+.0-9A-Z^_`a-z{|}~-]{1,100}")
_MESSAGES: Final = frozenset({"message/rfc822", "message/global"})  # RFC 2046 section 5.2.1, RFC 6532 section 3.7
_MAX_DELIMITER: Final = 256  # RFC 2046 section 5.1.1 allows 70 characters; not everyone keeps to it


@dataclass(slots=True)
class _Open:
    """A part whose end is not yet found."""

    content_type: str
    params: dict[str, str]
    fields: tuple[tuple[str, bytes], ...]
    start: int
    body: int
    end: int = 0
    delimiter: bytes = b""
    truncated: bool = False
    parts: list["_Open"] = field(default_factory=list)

    def closed(self, raw: bytes) -> Part:
        parts = tuple(part.closed(raw) for part in self.parts)
        return Part(
            content_type=self.content_type,
            params=self.params,
            fields=self.fields,
            parts=parts,
            truncated=self.truncated or any(part.truncated for part in parts),
            raw=raw,
            span=(self.start, self.body, self.end),
        )


class _Reader:
    def __init__(self, raw: bytes, limits: Limits) -> None:
        self._raw = raw
        self._limits = limits
        self._stack: list[_Open] = []  # the parts we are in, the message first
        self._delimiters: dict[bytes, int] = {}  # boundary -> place in the stack of its multipart
        self._parts = self._fields = self._dashed_lines = 0

    def read(self) -> Part:
        position = self._open(0)
        end = len(self._raw)
        while (found := self._delimiter(position)) is not None:
            at, position, place, closing = found
            self._close(place + 1, at)
            multipart = self._stack[place]
            if closing:
                del self._delimiters[multipart.delimiter]
            elif self._parts >= self._limits.parts:
                multipart.truncated = True
                end = at
                break
            else:
                position = self._open(position)
        message = self._stack[0]
        self._close(0, end)
        return message.closed(self._raw)

    def _open(self, position: int) -> int:
        """Read the header at position, and those of messages within; return where the body of the innermost begins."""
        while True:
            part = self._header(position)
            position = part.body
            self._parts += 1
            if self._stack:
                self._stack[-1].parts.append(part)
            self._stack.append(part)
            nests = part.content_type in _MESSAGES and not _is_encoded(part)
            if not nests and not part.content_type.startswith("multipart/"):
                return position
            if len(self._stack) >= self._limits.depth or self._parts >= self._limits.parts:
                part.truncated = True
                return position
            if not nests:
                self._enter(part)
                return position

    def _enter(self, multipart: _Open) -> None:
        boundary = multipart.params.get("boundary", "").rstrip().encode("ascii", "replace")
        # RFC 2046 section 5.1.2: an inner part may not use the boundary of an outer one; the outer one then counts.
        if 0 < len(boundary) < _MAX_DELIMITER - 4 and boundary not in self._delimiters:
            multipart.delimiter = boundary
            self._delimiters[boundary] = len(self._stack) - 1

    def _close(self, place: int, at: int) -> None:
        """End the parts from this place of the stack on, before the delimiter or end of the message at ``at``."""
        raw, end = self._raw, at
        if at < len(raw):
            # RFC 2046 section 5.1.1: the line end before a delimiter belongs to the delimiter.
            end -= raw.endswith(b"\n", 0, end)
            end -= raw.endswith(b"\r", 0, end)
        for part in self._stack[place:]:
            part.end = max(part.body, end)
            if self._delimiters.get(part.delimiter, -1) >= place:
                del self._delimiters[part.delimiter]
        del self._stack[place:]

    def _delimiter(self, position: int) -> tuple[int, int, int, bool] | None:
        """Find the next delimiter line: where it begins, where the next line does, whose it is, whether it is the last."""
        raw = self._raw
        at = position - 1
        while self._delimiters and self._dashed_lines < self._limits.dashed_lines:
            at = raw.find(b"\n--", max(at, 0))
            if at < 0:
                return None
            at += 1
            self._dashed_lines += 1
            if (found := self._delimiter_at(at)) is not None:
                return at, *found
        if self._delimiters:
            self._stack[0].truncated = True
        return None

    def _delimiter_at(self, at: int) -> tuple[int, int, bool] | None:
        raw = self._raw
        end = raw.find(b"\n", at, at + _MAX_DELIMITER)
        if end < 0 and len(raw) - at > _MAX_DELIMITER:
            return None
        line = raw[at + 2 : end if end >= 0 else len(raw)].rstrip(b" \t\r")
        after = end + 1 if end >= 0 else len(raw)
        if (place := self._delimiters.get(line)) is not None:
            return after, place, False
        if line.endswith(b"--") and (place := self._delimiters.get(line[:-2])) is not None:
            return after, place, True
        return None

    def _header(self, start: int) -> _Open:
        raw, limits = self._raw, self._limits
        fields: list[tuple[str, bytes]] = []
        truncated = False
        position = start
        if raw.startswith((b"From ", b">From "), start):  # the separator of an mbox file
            position = (raw.find(b"\n", start) + 1) or len(raw)
        while not (raw.startswith(b"--", position) and self._delimiter_at(position)):
            if (found := _FIELD.match(raw, position)) is None:
                break
            position = found.end()
            value, end = found.span(2)
            if len(fields) >= limits.fields or self._fields >= limits.all_fields:
                truncated = True
                continue
            truncated = truncated or end - value > limits.field_octets
            fields.append(
                (found[1][:200].decode("ascii"), raw[value : min(end, value + limits.field_octets)].rstrip(b"\r"))
            )
            self._fields += 1
        for empty_line in (b"\r\n", b"\n"):
            if raw.startswith(empty_line, position):
                position += len(empty_line)
                break
        content_type, params = _content_type(fields, self._default_type())
        return _Open(content_type, params, tuple(fields), start, position, truncated=truncated)

    def _default_type(self) -> str:
        # RFC 2046 section 5.1.5: the parts of a digest are messages.
        return "message/rfc822" if self._stack and self._stack[-1].content_type == "multipart/digest" else "text/plain"


def _content_type(fields: list[tuple[str, bytes]], default: str) -> tuple[str, dict[str, str]]:
    for name, value in fields:
        if name.lower() == "content-type":
            main, params = parameters(unfold(value.decode("utf-8", "replace")))
            content_type = main.replace(" ", "").lower()
            if _TYPE.fullmatch(content_type) is None:
                return "text/plain", {}  # RFC 2045 section 5.2
            return content_type, {name: clean_text(text, 998) for name, text in params.items()}
    return default, {}


def _is_encoded(part: _Open) -> bool:
    encodings = {value.strip().lower() for name, value in part.fields if name.lower() == "content-transfer-encoding"}
    return bool(encodings & {b"base64", b"quoted-printable"})

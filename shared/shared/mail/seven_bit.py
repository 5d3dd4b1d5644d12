"""Making the bodies of a message safe on seven bits before it is signed, so that no hop has a reason to change them.

A hop without 8BITMIME (RFC 6152 section 3) would have to convert such a message or return it, and either way nobody could
verify its signature.
"""

import re
from collections.abc import Iterator
from typing import Final

from shared.errors import ValidationFailed
from shared.mail.mime import Part, read
from shared.mail.mime_write import base64_lines, has_line_over, quoted_printable

LINE_OCTETS: Final = 998
"""RFC 5322 section 2.1.1, without the CRLF."""

_ENCODING_FIELD: Final = re.compile(
    rb"^Content-Transfer-Encoding[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*", re.IGNORECASE | re.MULTILINE
)
_ALL_ASCII: Final = bytes(range(128))
_FOREIGN_TO_QUESTION_MARK: Final = bytes(octet if 0 < octet < 128 else ord("?") for octet in range(256))


def is_seven_bit(octets: bytes) -> bool:
    """Say whether octets with CRLF line ends may be sent as ``7bit`` (RFC 2045 section 2.7)."""
    return octets.isascii() and b"\0" not in octets and not has_line_over(octets, LINE_OCTETS)


def seven_bit(message: bytes) -> bytes:
    """Return a message with CRLF line ends, its leaves encoded where they are not 7bit; all else stays as it came.

    Headers are not touched but for Content-Transfer-Encoding, so one with raw UTF-8 (RFC 6532) still has it.

    Raises:
        ValidationFailed: it nests too deeply to tell, or what is not 7bit is signed, or in no part.
    """
    part = read(message)
    if is_seven_bit(part.body):
        return message
    if part.truncated:
        raise ValidationFailed("the message has too many parts, or parts within parts, to be read", field="raw")
    return b"".join(_converted(part, signed=False))


def _converted(part: Part, *, signed: bool) -> Iterator[bytes]:
    start, position, end = part.span
    if is_seven_bit(part.body):
        yield part.raw[start:end]
        return
    if signed:
        # RFC 1847 section 2.1: what is signed must be 7bit from the beginning; to encode it now would break the signature.
        raise ValidationFailed(
            "a part of multipart/signed has octets over 127, or lines over 998 octets; encode it before it is signed",
            field="raw",
        )
    if part.parts:
        yield _header(part, b"7bit")
        for child in part.parts:
            yield _between(part.raw[position : child.span[0]])
            yield from _converted(child, signed=part.content_type == "multipart/signed")
            position = child.span[2]
        yield _between(part.raw[position:end])
    elif part.content_type.startswith("multipart/"):
        # RFC 2045 section 6.4: a multipart itself cannot be encoded.
        raise ValidationFailed(
            "the body says it is multipart, but has no parts with its boundary, and is not 7bit", field="raw"
        )
    else:
        yield from _leaf(part)


def _leaf(part: Part) -> Iterator[bytes]:
    content = part.payload
    foreign = len(content.translate(None, _ALL_ASCII))
    pairs = content.count(b"\r\n")
    is_text = part.content_type.startswith("text/") and pairs == content.count(b"\n") == content.count(b"\r")
    if is_text and foreign * 6 <= len(content):
        yield _header(part, b"quoted-printable")
        yield quoted_printable(content)
    else:
        yield _header(part, b"base64")
        yield base64_lines(content)


def _header(part: Part, encoding: bytes) -> bytes:
    fields = _ENCODING_FIELD.sub(b"", part.header_block)
    return b"".join((fields, b"Content-Transfer-Encoding: ", encoding, b"\r\n\r\n"))


def _between(octets: bytes) -> bytes:
    """Return preamble, delimiters and epilogue, of which readers of MIME show nothing (RFC 2046 section 5.1.1)."""
    if is_seven_bit(octets):
        return octets
    lines = octets.translate(_FOREIGN_TO_QUESTION_MARK).split(b"\r\n")
    return b"\r\n".join(line[:LINE_OCTETS] for line in lines)

"""What kind of file something is, told from its first octets and, where these leave it open, from its name.

The tables and steps are those of the WHATWG MIME Sniffing Standard (sections 6 and 7), whose result mox uses too.
"""

import mimetypes
import posixpath
import re
from dataclasses import dataclass
from typing import Final

OCTET_STREAM: Final = "application/octet-stream"
SNIFFED_OCTETS: Final = 512
"""Nothing behind them is looked at, but for whether a text is UTF-8."""


@dataclass(frozen=True, slots=True)
class _Signature:
    media_type: str
    pattern: bytes
    mask: bytes | None = None
    """Which bits of the pattern count; None: all."""

    def matches(self, head: bytes) -> bool:
        if self.mask is None:
            return head.startswith(self.pattern)
        found = head[: len(self.pattern)]
        return bytes(a & b for a, b in zip(found, self.mask, strict=False)) == self.pattern


_ANY_4: Final = b"\xff" * 4 + b"\0" * 4
_SIGNATURES: Final = (
    # Images, section 6.1.
    _Signature("image/x-icon", b"\0\0\1\0"),
    _Signature("image/x-icon", b"\0\0\2\0"),
    _Signature("image/bmp", b"BM"),
    _Signature("image/gif", b"GIF87a"),
    _Signature("image/gif", b"GIF89a"),
    _Signature("image/webp", b"RIFF\0\0\0\0WEBPVP", _ANY_4 + b"\xff" * 6),
    _Signature("image/png", b"\x89PNG\r\n\x1a\n"),
    _Signature("image/jpeg", b"\xff\xd8\xff"),
    # Audio and video, section 6.2; mp4 has an algorithm of its own.
    _Signature("audio/aiff", b"FORM\0\0\0\0AIFF", _ANY_4 + b"\xff" * 4),
    _Signature("audio/mpeg", b"ID3"),
    _Signature("application/ogg", b"OggS\0"),
    _Signature("audio/midi", b"MThd\0\0\0\x06"),
    _Signature("video/avi", b"RIFF\0\0\0\0AVI ", _ANY_4 + b"\xff" * 4),
    _Signature("audio/wave", b"RIFF\0\0\0\0WAVE", _ANY_4 + b"\xff" * 4),
    _Signature("video/webm", b"\x1aE\xdf\xa3"),
    # Fonts, section 6.3.
    _Signature("application/vnd.ms-fontobject", b"\0" * 34 + b"LP", b"\0" * 34 + b"\xff" * 2),
    _Signature("font/ttf", b"\0\1\0\0"),
    _Signature("font/otf", b"OTTO"),
    _Signature("font/collection", b"ttcf"),
    _Signature("font/woff", b"wOFF"),
    _Signature("font/woff2", b"wOF2"),
    # Archives, section 6.4.
    _Signature("application/x-gzip", b"\x1f\x8b\x08"),
    _Signature("application/zip", b"PK\3\4"),
    _Signature("application/x-rar-compressed", b"Rar!\x1a\x07\0"),
    _Signature("application/x-rar-compressed", b"Rar!\x1a\x07\1\0"),
    # Documents, section 7.1.
    _Signature("application/pdf", b"%PDF-"),
    _Signature("application/postscript", b"%!PS-Adobe-"),
)
_BYTE_ORDER_MARKS: Final = (
    (b"\xfe\xff", "text/plain; charset=utf-16be"),
    (b"\xff\xfe", "text/plain; charset=utf-16le"),
    (b"\xef\xbb\xbf", "text/plain; charset=utf-8"),
)
_MARKUP: Final = re.compile(
    # Section 7.1: white space, then one of these in any case, then a space or the end of the tag.
    rb"[\t\n\x0c\r ]*(?:(?P<html><(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P|!--)(?=[ >]))"
    rb"|(?P<xml><\?xml))",
    re.IGNORECASE,
)
_BINARY: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""Section 3: binary data bytes."""

_BY_EXTENSION: Final[dict[str, str]] = {
    # The defaults of the standard library; not the machine's own files, so that every replica says the same.
    **mimetypes.MimeTypes().types_map[True],
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".gz": "application/gzip",
    ".ics": "text/calendar",
    ".md": "text/markdown",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".tgz": "application/gzip",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".zip": "application/zip",
}
_LEAVE_IT_OPEN: Final = frozenset(
    # Containers, and forms that many types share: a name says more.
    {OCTET_STREAM, "text/plain", "text/xml", "application/zip", "application/x-gzip", "application/ogg", "video/webm"}
)
_SAYS_ITS_CHARSET_ITSELF: Final = frozenset({"text/html", "text/xml"})


def media_type(filename: str, content: bytes) -> str:
    """Return the Content-Type of a file: by its first octets, by its name where these leave it open, with its charset."""
    found = sniff(content)
    if found.partition(";")[0] in _LEAVE_IT_OPEN:
        named = _BY_EXTENSION.get(posixpath.splitext(filename.lower())[1])
        # Binary data is no text, whatever it is called.
        if named is not None and not (found == OCTET_STREAM and named.startswith("text/")):
            found = named
    if (
        found.startswith("text/")
        and "charset" not in found
        and found not in _SAYS_ITS_CHARSET_ITSELF
        and _is_utf8(content)
    ):
        found += "; charset=utf-8"
    return found


def sniff(content: bytes) -> str:
    """Return the type that the first 512 octets show; ``text/plain`` for text, ``application/octet-stream`` for unknown binary data."""
    head = content[:SNIFFED_OCTETS]
    markup = _MARKUP.match(head)
    if markup is not None:
        return "text/html" if markup["html"] else "text/xml"
    for signature in _SIGNATURES:
        if signature.matches(head):
            return signature.media_type
    if _is_mp4(head):
        return "video/mp4"
    for mark, text_type in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return text_type
    return OCTET_STREAM if _BINARY.search(head) else "text/plain"


def _is_mp4(head: bytes) -> bool:
    """Section 6.2.1: a box ``ftyp`` with a brand that begins with mp4."""
    size = int.from_bytes(head[:4], "big")
    if len(head) < 12 or len(head) < size or size % 4 or head[4:8] != b"ftyp":
        return False
    brands = (head[at : at + 3] for at in (8, *range(16, size, 4)))
    return b"mp4" in brands


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True

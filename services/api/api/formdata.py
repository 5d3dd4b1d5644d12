"""Reading multipart/form-data (RFC 7578): parts in order, with the header fields that a mail needs of them.

Bodies come whole, within the process's budget of bytes; nothing here copies a part before it is asked for. Every step is linear.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from shared.errors import TooLarge, ValidationFailed
from shared.mail import fields

_MOST_PARTS = 1_100
_LONGEST_HEADER = 10 * 1024
_LONGEST_BOUNDARY = 70
"""RFC 2046 section 5.1.1."""
_FIELDS = frozenset({"content-disposition", "content-type", "content-id"})


@dataclass(frozen=True, slots=True)
class FormPart:
    """One part of a form."""

    name: str
    filename: str
    """Without folders; empty: it is a plain value, not a file."""
    content_type: str | None
    content_id: str | None
    content: memoryview


def boundary_of(content_type: str) -> str:
    """Return the boundary that a Content-Type names.

    Raises:
        ValidationFailed: it names none that can be one.
    """
    boundary = fields.parameters(content_type)[1].get("boundary", "")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
        raise ValidationFailed("the Content-Type multipart/form-data names no boundary of 1 to 70 characters")
    return boundary


def read_form(body: bytes, boundary: str) -> Iterator[FormPart]:
    """Yield the parts of a form, in order.

    Args:
        body: the whole body.
        boundary: of :func:`boundary_of`.

    Raises:
        ValidationFailed: it does not have the form of RFC 2046 section 5.1.1; the parts before that place were yielded.
        TooLarge: it has more than 1,100 parts, or a part's header more than 10 KiB.
    """
    begin = -1
    count = 0
    for start, end, closes in _delimiters(body, boundary.encode("ascii")):
        if begin >= 0:
            count += 1
            if count > _MOST_PARTS:
                raise TooLarge(f"the form has more than {_MOST_PARTS} parts")
            yield _part(body, begin, max(begin, start))
        if closes:
            return
        begin = end
    raise ValidationFailed("the form does not end with its closing boundary; it was cut off, or the boundary is wrong")


def _delimiters(body: bytes, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield where each delimiter line starts, with the line end before it, where it ends, and whether it closes the form."""
    mark = b"--" + boundary
    at = body.find(mark)
    while at >= 0:
        after = at + len(mark)
        closes = body[after : after + 2] == b"--"
        line_end = body.find(b"\n", after, after + 1024)
        rest = body[after + 2 * closes : line_end if line_end >= 0 else after + 1024]
        # RFC 2046 section 5.1.1: white space may follow, and nothing else on this line; nor before it.
        if (at == 0 or body[at - 1] == 0x0A) and not rest.strip(b" \t\r") and (closes or line_end >= 0):
            start = at
            if at > 0:
                start -= 2 if body[at - 2 : at] == b"\r\n" else 1
            yield start, line_end + 1, closes
        at = body.find(mark, after)


def _part(body: bytes, begin: int, end: int) -> FormPart:
    header_end, begin_content = _header_end(body, begin, end)
    header: dict[str, str] = {}
    for line in body[begin:header_end].decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() in _FIELDS:
            header.setdefault(name.strip().lower(), value.strip())
    disposition, parameters = fields.parameters(header.get("content-disposition", ""))
    if disposition.lower() != "form-data" or "name" not in parameters:
        # RFC 7578 section 4.2
        raise ValidationFailed("a part of the form has no Content-Disposition: form-data with a name")
    # RFC 7578 section 4.2: what stands before the last slash is a path of the client's, and of no use. Browsers write " as %22.
    filename = posixpath.basename(parameters.get("filename", "").rstrip("/")).replace("%22", '"')
    return FormPart(
        parameters["name"],
        filename,
        header.get("content-type") or None,
        header.get("content-id") or None,
        memoryview(body)[min(begin_content, end) : end],
    )


def _header_end(body: bytes, begin: int, end: int) -> tuple[int, int]:
    """Return where a part's header ends and where its content begins."""
    longest = min(end + 2, begin + _LONGEST_HEADER)
    for blank in (b"\r\n\r\n", b"\n\n"):
        found = body.find(blank, begin, longest)
        if found >= 0:
            return found, found + len(blank)
    if end - begin > _LONGEST_HEADER:
        raise TooLarge(f"the header of a part of the form has more than {_LONGEST_HEADER} bytes")
    raise ValidationFailed("a part of the form has no empty line after its header")

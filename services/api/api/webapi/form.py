"""The body of a call: a form whose field ``request`` is JSON, and which may bring files."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

from api.formdata import FormPart, boundary_of, read_form
from api.webapi.faults import Fault
from shared.errors import TooLarge, ValidationFailed

URLENCODED_BYTES = 10 * 1024 * 1024
"""Of a form without files, as in mox."""
_VALUES_BYTES = URLENCODED_BYTES + 200 * 1024
"""Of all fields of a multipart form that are no files, as in mox."""
_MOST_FIELDS = 1_000

# RFC 9110 8.3.1: type/subtype, of tokens; Go's reader also takes the type alone.
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?\s*(?:;.*)?", re.DOTALL)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")

FileField = Literal["alternativefile", "inlinefile", "attachedfile"]
_FILE_FIELDS: dict[str, FileField] = {
    "alternativefile": "alternativefile",
    "inlinefile": "inlinefile",
    "attachedfile": "attachedfile",
}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form."""

    field: FileField
    part: FormPart


@dataclass(frozen=True, slots=True)
class Call:
    """What a call brings."""

    document: bytes
    """JSON, not read yet."""
    uploads: tuple[Upload, ...] = ()
    idempotency_keys: tuple[str, ...] = ()
    """Of the request's header."""


def is_multipart(content_type: str) -> bool:
    """Say whether a Content-Type announces a multipart form."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def read_call(content_type: str, body: bytes) -> Call:
    """Read the body of a call; for a large one in a thread.

    Raises:
        Fault: ``protocol``: it is no form, or has no field ``request``.
    """
    if not _MEDIA_TYPE.fullmatch(content_type.strip()):
        raise Fault("protocol", "the Content-Type is missing, or no media type")
    call = _multipart(content_type, body) if is_multipart(content_type) else _urlencoded(content_type, body)
    if not call.document:
        raise Fault(
            "protocol",
            "the form field request is missing; send application/x-www-form-urlencoded or multipart/form-data"
            " with a field request that holds the JSON",
        )
    return call


def _urlencoded(content_type: str, body: bytes) -> Call:
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return Call(b"")
    if len(body) > URLENCODED_BYTES:
        raise Fault("protocol", f"a form has at most {URLENCODED_BYTES} bytes; send files as multipart/form-data")
    if _BAD_ESCAPE.search(body) or b";" in body:
        raise Fault("protocol", "the form is not URL-encoded: a % without two hexadecimal digits, or a bare ;")
    try:
        # Latin-1 and back: the octets as they are, whatever they mean.
        fields = parse_qsl(
            body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise Fault("protocol", f"the form has more than {_MOST_FIELDS} fields") from None
    return Call(next((value.encode("latin-1") for name, value in fields if name == "request"), b""))


def _multipart(content_type: str, body: bytes) -> Call:
    document: bytes | None = None
    uploads: list[Upload] = []
    seen = 0
    try:
        for part in read_form(body, boundary_of(content_type)):
            if part.filename:
                field = _FILE_FIELDS.get(part.name)
                if field is not None:
                    uploads.append(Upload(field, part))
                continue
            seen += len(part.name) + len(part.content)
            if seen > _VALUES_BYTES:
                raise Fault("protocol", f"the fields of a form have at most {_VALUES_BYTES} bytes; send more as files")
            if part.name == "request" and document is None:
                document = bytes(part.content)
    except (ValidationFailed, TooLarge) as error:
        raise Fault("protocol", error.message) from None
    return Call(document or b"", tuple(uploads))

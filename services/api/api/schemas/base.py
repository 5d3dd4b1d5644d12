"""What all schemas share: strictness, text, times, files, pages."""

import binascii
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from api.moments import read_moment

T = TypeVar("T", bound=BaseModel)

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_BASE64_AT_ONCE = 256 * 1024
"""Characters: whole groups of four."""


def example(value: dict[str, Any]) -> ConfigDict:
    """Return the model configuration that shows ``value`` in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [value]})


class Input(BaseModel):
    """Something that a caller sends."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Output(BaseModel):
    """Something that we answer."""

    model_config = ConfigDict(frozen=True)


def _storable(value: str) -> str:
    if _UNSTORABLE.search(value):
        raise PydanticCustomError(
            "text_unstorable", "U+0000 and half of a surrogate pair cannot be stored; remove the character"
        )
    return value


Text = Annotated[str, AfterValidator(_storable)]
"""Text that can be stored."""


def _read_moment(value: object) -> datetime:
    try:
        moment = read_moment(value) if isinstance(value, str) else None
    except ValueError:
        raise PydanticCustomError("time_value", "There is no such time") from None
    if moment is None:
        raise PydanticCustomError(
            "time_format", "A time is text such as 2026-11-20T13:00:00Z, with its zone (RFC 3339)"
        )
    return moment


Moment = Annotated[datetime, BeforeValidator(_read_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
"""A time that a caller sends, with its zone."""


def _write_moment(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


Time = Annotated[
    datetime,
    PlainSerializer(_write_moment, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-20T13:00:00.000000Z"]}),
]
"""A time that we answer."""


def _read_base64(value: object) -> bytes:
    if isinstance(value, str):
        try:
            return decode_base64(value)
        except (binascii.Error, UnicodeEncodeError):
            pass
    raise PydanticCustomError("base64", "This is not base64 (RFC 4648 section 4, with padding)")


def decode_base64(text: str) -> bytes:
    """Return what base64 stands for (RFC 4648 section 4, with padding); line breaks, as MIME's has them, are no harm.

    Raises:
        binascii.Error, UnicodeEncodeError: it is none.
    """
    text = text.replace("\r", "").replace("\n", "")
    # Piece by piece: one call for a large file would hold the interpreter, and all other requests.
    pieces = [text[start : start + _BASE64_AT_ONCE] for start in range(0, len(text), _BASE64_AT_ONCE)]
    if any(piece.endswith("=") for piece in pieces[:-1]):
        raise binascii.Error
    return b"".join([binascii.a2b_base64(piece.encode("ascii"), strict_mode=True) for piece in pieces])


Base64 = Annotated[
    bytes,
    BeforeValidator(_read_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64", "examples": ["SGVsbG8sIHdvcmxkIQo="]}),
]
"""A file's content, as base64."""


class PageOf(Output, Generic[T]):
    """One page of a list."""

    data: list[T]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` to get the next page; null: there is nothing more. A page may be short, even empty, and still have a next."
    )

"""Pages and their cursors. A cursor says where the last page ended; it is opaque to customers and may be kept for ever."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.errors import ValidationFailed

T = TypeVar("T")

_LARGEST = 2**63 - 1
_PLAIN = re.compile(r"[a-z]+(?:\.[0-9]{1,20})+")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list."""

    items: list[T]
    next_cursor: str | None
    """Where the next page begins; None: there is nothing more. A page may be short, even empty, and still have a next."""


def encode(kind: str, *numbers: int) -> str:
    """Return a cursor of one kind of list (lower-case letters) for a position of one or more numbers."""
    plain = ".".join((kind, *map(str, numbers)))
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def decode(kind: str, cursor: str, *, count: int = 1) -> tuple[int, ...]:
    """Read a cursor of ``count`` numbers.

    Raises:
        ValidationFailed: not a cursor, or one of another list.
    """
    plain = ""
    if len(cursor) <= 100 and cursor.isascii():
        try:
            plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            plain = ""
    found, *numbers = plain.split(".")
    if not _PLAIN.fullmatch(plain) or found != kind or len(numbers) != count or any(int(n) > _LARGEST for n in numbers):
        raise ValidationFailed(
            "this cursor does not belong to this list; leave it out to start from the beginning", field="cursor"
        )
    return tuple(int(number) for number in numbers)


def page(kind: str, items: list[tuple[int, T]], limit: int) -> Page[T]:
    """Make a page of rows with their ids, of which the query fetched one more than ``limit`` to see whether there is more."""
    kept = items[:limit]
    return Page([item for _, item in kept], encode(kind, kept[-1][0]) if len(items) > limit else None)

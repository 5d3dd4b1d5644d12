"""JSON as mox's server reads it: keys in any letter case, null for what is not given, strict types, no unknown keys.

A reader takes a value and where it stands, and returns what it means or raises a :class:`Fault` with code ``protocol``.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from api.webapi.faults import Fault

T = TypeVar("T")
Reader = Callable[[object, str], T]

# RFC 3339 5.6
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_UNFIT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Object:
    """An object with all its members in order: Python's dictionaries would lose the second of two spellings."""

    members: tuple[tuple[str, object], ...]


def parse(document: bytes) -> object:
    """Return the first value of a JSON text; what follows it is ignored, as Go's decoder does.

    Raises:
        Fault: it is no JSON in UTF-8.
    """
    try:
        text = document.decode().lstrip(" \t\r\n")
        decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _Object(tuple(pairs)), parse_constant=_no_constant)
        value: object = decoder.raw_decode(text)[0]
    except (ValueError, RecursionError) as error:  # also thousands of digits, thousands of brackets
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8, or far too deep"
        raise Fault("protocol", f"the field request is not JSON: {reason}") from None
    return value


def _no_constant(name: str) -> object:
    message = f"{name} is no JSON"
    raise ValueError(message)


def text(value: object, where: str) -> str:
    """Read a string; null is the empty one. U+0000 and lone surrogates are the caller's mistake: code ``user``."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(where, "a string")
    if _UNFIT.search(value):
        raise Fault("user", f"{where} holds U+0000 or half of a surrogate pair; remove it")
    return value


def flag(value: object, where: str) -> bool:
    """Read a boolean; null is false."""
    return bool(flag_or_none(value, where))


def flag_or_none(value: object, where: str) -> bool | None:
    """Read a boolean or null."""
    if value is not None and not isinstance(value, bool):
        raise _wrong(where, "true or false")
    return value


def moment(value: object, where: str) -> datetime | None:
    """Read a time with its zone (RFC 3339), or null."""
    if value is None:
        return None
    try:
        if isinstance(value, str) and _MOMENT.fullmatch(value):
            found = datetime.fromisoformat(value)
            found.astimezone(UTC)
            return found
    except (ValueError, OverflowError):
        pass
    raise _wrong(where, "a time such as 2026-11-20T13:00:00Z (RFC 3339)")


def array(item: Reader[T]) -> Reader[tuple[T, ...]]:
    """Return a reader of arrays; null is the empty one."""

    def read(value: object, where: str) -> tuple[T, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise _wrong(where, "an array")
        return tuple(item(one, f"{where}[{index}]") for index, one in enumerate(value))

    return read


def pair(value: object, where: str) -> tuple[str, str]:
    """Read an array of two strings: a shorter one is filled up with empty strings, a longer one is cut."""
    first, second, *_ = (*array(text)(value, where), "", "")
    return first, second


def mapping(value: object, where: str) -> dict[str, str]:
    """Read an object of strings, its keys as they are; null is the empty one."""
    if value is None:
        return {}
    if not isinstance(value, _Object):
        raise _wrong(where, "an object")
    return {text(key, f"a key of {where}"): text(one, f"{where}[{key!r}]") for key, one in value.members}


def record(make: Callable[..., T], fields: Mapping[str, tuple[str, Reader[Any]]]) -> Reader[T]:
    """Return a reader of objects with known keys.

    Args:
        make: called with what was found; all its parameters have defaults.
        fields: key in the documented spelling, to parameter and reader.
    """
    by_folded = {key.casefold(): (key, parameter, reader) for key, (parameter, reader) in fields.items()}

    def read(value: object, where: str) -> T:
        if value is None:
            return make()
        if not isinstance(value, _Object):
            raise _wrong(where or "the field request", "an object")
        found: dict[str, object] = {}
        for key, one in value.members:
            known = by_folded.get(key.casefold())
            if known is None:
                raise Fault("protocol", f"{where or 'the request'} has the unknown key {key[:100]!r}")
            name, parameter, reader = known
            found[parameter] = reader(one, f"{where}.{name}" if where else name)
        return make(**found)

    return read


def _wrong(where: str, what: str) -> Fault:
    return Fault("protocol", f"{where} has to be {what}")

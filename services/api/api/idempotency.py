"""Idempotency keys as clients write them, and what makes a submission the same when it comes again.

The same is what has the same digest: of everything that was handed in, value by value, never of the bytes of a request, which a
retry writes differently (the boundary of a form, the order of JSON keys). Who handed it in and by which door is not part of it.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from api.submission import Submission
from shared.db.idempotency import IdempotencyKey
from shared.errors import ValidationFailed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LONGEST: Final = 255

_KEY: Final = re.compile(rf"[!-~]{{1,{LONGEST}}}")
# RFC 9651 3.3.3: a String between quotes, in which a quote and a backslash stand behind a backslash.
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_NOT_CONTENT: Final = frozenset({"door", "caller", "idempotency_key", "as_said", "field"})
"""Who handed it in, how, and where in the input something stood."""
_OF_SANDBOX = " {key}"
_OF_BATCH = "{key} {place}"
# No client can write these two: a key has no space in it. Nor are they ever the same: one begins with the space.


def read_key(values: Sequence[str], *, field: str) -> str | None:
    """Return the key that a header field brings; None where there is no such field.

    Some clients write the bare key, as the services that made such keys known take it; others a quoted string, as the header's
    draft at the IETF (draft-ietf-httpapi-idempotency-key-header section 2.1) asks for. Both mean the key between the quotes.

    Args:
        values: of every field of this name.
        field: its name, for the error.

    Raises:
        ValidationFailed: there are several, or it is no key.
    """
    if not values:
        return None
    if len(values) > 1:
        raise ValidationFailed(f"there are {len(values)} {field} fields; send one", field=field)
    text = values[0].strip(" \t")
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        if quoted is None:
            raise ValidationFailed(
                f"{field} begins with a quote and is no quoted string (RFC 9651 section 3.3.3); send the key without quotes",
                field=field,
            )
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    return check_key(text, field=field)


def check_key(text: object, *, field: str) -> str:
    """Return a key as it is.

    Raises:
        ValidationFailed: it is none.
    """
    if not isinstance(text, str) or not _KEY.fullmatch(text):
        raise ValidationFailed(
            f"an idempotency key is text of 1 to {LONGEST} visible ASCII characters, without spaces", field=field
        )
    return text


def of_batch(key: str, place: int) -> str:
    """Return the key of a message in a batch that has none of its own, by its place in there."""
    return _OF_BATCH.format(key=key, place=place)


def key_of(submission: Submission) -> IdempotencyKey | None:
    """Return what a submission is known by when it comes again; for a large one in a thread.

    The keys of a sandbox are its own: what was tried there may be sent in earnest.
    """
    text = text_of(submission)
    return IdempotencyKey(submission.caller.account_id, text, digest(submission)) if text is not None else None


def text_of(submission: Submission) -> str | None:
    """Return the key under which a submission is kept."""
    key = submission.idempotency_key
    return _OF_SANDBOX.format(key=key) if key is not None and submission.caller.is_test else key


def digest(submission: Submission) -> bytes:
    """Return the SHA-256 digest of everything that makes a submission what it is.

    Every value is preceded by its kind and its length, so that no two submissions read the same. What has its default is left
    out: a field that a later version adds changes no digest, and replicas of both versions know each other's repeats.
    """
    hashed = hashlib.sha256()
    for piece in _pieces_of(submission, submission.as_said or {}):
        hashed.update(piece)
    return hashed.digest()


def _pieces(value: object) -> Iterable[bytes]:
    match value:
        case None | bool():
            yield f"{value};".encode()
        case str():
            octets = value.encode("utf-8", "surrogatepass")
            yield b"s%d:" % len(octets)
            yield octets
        case bytes():
            yield b"b%d:" % len(value)
            yield value
        case datetime():
            yield f"d{value.isoformat()};".encode()
        case tuple():
            yield b"l%d:" % len(value)
            for item in value:
                yield from _pieces(item)
        case Mapping():
            yield b"m%d:" % len(value)
            for key in sorted(value):
                yield from _pieces(key)
                yield from _pieces(value[key])
        case _ if is_dataclass(value) and not isinstance(value, type):
            yield from _pieces_of(value, {})
        case _:
            raise TypeError(f"a submission holds a {type(value).__name__}, of which no digest is defined")


def _pieces_of(value: "DataclassInstance", instead: Mapping[str, object]) -> Iterable[bytes]:
    """Yield the fields of a dataclass that have not their default; of those in ``instead``, what stands there."""
    given = {
        one.name: instead.get(one.name, getattr(value, one.name))
        for one in fields(value)
        if one.name not in _NOT_CONTENT
        and (one.default is MISSING or one.name in instead or getattr(value, one.name) != one.default)
    }
    yield b"o%d:" % len(given)
    for name, content in given.items():
        yield from _pieces(name)
        yield from _pieces(content)

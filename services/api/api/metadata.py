"""What the header of a submitted message says to us rather than to its readers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from api.moments import read_moment
from shared.errors import ValidationFailed
from shared.mail.fields import decode_words

IDEMPOTENCY_KEY = "X-Posthouse-Idempotency-Key"

_EXTRA = re.compile(r"X-(?:Mox|Posthouse)-Extra-(.*)", re.DOTALL)
_OWN = "x-posthouse-"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

Fields = Iterable[tuple[str, str]]
"""Names and unfolded values, in the order of the message."""


def extra(fields: Fields) -> dict[str, str]:
    """Return the metadata in ``X-Posthouse-Extra-<key>`` and ``X-Mox-Extra-<key>``, keys in canonical spelling.

    Raises:
        ValidationFailed: a key is there twice.
    """
    found: dict[str, str] = {}
    for name, value in fields:
        match = _EXTRA.fullmatch(canonical(name))
        if match is None:
            continue
        if match[1] in found:
            raise ValidationFailed(f"the metadata {match[1][:100]!r} is given twice in the header", field="extra")
        found[match[1]] = value.strip()
    return found


@dataclass(frozen=True, slots=True)
class HeaderOptions:
    """What the header asks for."""

    tags: tuple[str, ...] = ()
    expires_at: datetime | None = None
    """Aware."""
    save_sent: bool = False


def options(fields: Fields) -> HeaderOptions:
    """Return what ``X-Posthouse-Tag``, ``X-Posthouse-Expires-At`` and ``X-Posthouse-Save-Sent`` ask for.

    Tags stand in one field with commas between them, in several fields, or both.

    Raises:
        ValidationFailed: a value is not what its field takes, or two fields say it.
    """
    own = [(name.lower(), value.strip()) for name, value in fields if name.lower().startswith(_OWN)]
    tags = [tag.strip() for name, value in own if name == "x-posthouse-tag" for tag in decode_words(value).split(",")]
    return HeaderOptions(
        tags=tuple(dict.fromkeys(tag for tag in tags if tag)),
        expires_at=_moment(_single(own, "X-Posthouse-Expires-At")),
        save_sent=_yes(_single(own, "X-Posthouse-Save-Sent")),
    )


def _single(own: Fields, name: str) -> str | None:
    values = [value for found, value in own if found == name.lower()]
    if len(values) > 1:
        raise ValidationFailed(f"the header has {len(values)} fields {name}; it may have one", field=_place(name))
    return values[0] if values else None


def _moment(value: str | None) -> datetime | None:
    try:
        moment = read_moment(value) if value is not None else None
    except ValueError:
        moment = None
    if moment is None and value is not None:
        raise ValidationFailed(
            "X-Posthouse-Expires-At takes a time such as 2026-11-20T13:00:00Z, with its zone (RFC 3339)",
            field=_place("X-Posthouse-Expires-At"),
        )
    return moment


def _yes(value: str | None) -> bool:
    if value is not None and value.lower() not in {"yes", "no"}:
        raise ValidationFailed("X-Posthouse-Save-Sent takes yes or no", field=_place("X-Posthouse-Save-Sent"))
    return value is not None and value.lower() == "yes"


def _place(name: str) -> str:
    return f"raw.{name.lower()}"


def canonical(name: str) -> str:
    """Return a field's name with each word begun in upper case; one that is no token stays as it is written."""
    if not _TOKEN.fullmatch(name):
        return name
    return "-".join(word[:1].upper() + word[1:].lower() for word in name.split("-"))


def idempotency_keys(fields: Fields) -> list[str]:
    """Return the value of each field that is for an idempotency key."""
    return [value for name, value in fields if name.lower() == IDEMPOTENCY_KEY.lower()]


def waives_tls(fields: Fields) -> bool:
    """Say whether the header asks for delivery even where TLS policy forbids it: every TLS-Required says ``No`` (RFC 8689 3)."""
    values = [value.strip().lower() for name, value in fields if name.lower() == "tls-required"]
    return bool(values) and set(values) == {"no"}

"""What the header of a submitted message says to us rather than to its readers."""

import re
from collections.abc import Iterable

from shared.errors import ValidationFailed

IDEMPOTENCY_KEY = "X-Posthouse-Idempotency-Key"

_EXTRA = re.compile(r"X-(?:Mox|Posthouse)-Extra-(.*)", re.DOTALL)
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

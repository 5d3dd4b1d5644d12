"""Signatures of webhooks as the Standard Webhooks specification 1.0 has them (symmetric, ``v1``)."""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable, Sequence

from shared.errors import ValidationFailed

PREFIX = "whsec_"
SECRET_BYTES = 32
# Standard Webhooks, "Signature scheme": a secret has between 24 and 64 bytes.
SHORTEST_SECRET, LONGEST_SECRET = 24, 64


def new_secret(random: Callable[[int], bytes] = os.urandom) -> str:
    """Return a new secret as the customer sees it: ``whsec_`` and 32 bytes in base64."""
    return PREFIX + base64.b64encode(random(SECRET_BYTES)).decode()


def parse_secret(text: str) -> bytes:
    """Return the bytes of a secret that a customer brought along.

    Raises:
        ValidationFailed: not ``whsec_`` and 24 to 64 bytes of base64.
    """
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
    except (binascii.Error, ValueError):
        secret = b""
    if not SHORTEST_SECRET <= len(secret) <= LONGEST_SECRET:
        raise ValidationFailed(
            f"a webhook secret is {PREFIX} followed by {SHORTEST_SECRET} to {LONGEST_SECRET} bytes in base64",
            field="secret",
        )
    return secret


def sign(secrets: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the ``webhook-signature`` header.

    Args:
        secrets: raw secrets (see :func:`parse_secret`); while one replaces another both sign, and a receiver takes either.
        webhook_id: the ``webhook-id`` header, the same for every attempt; a full stop would make the signed text ambiguous.
        timestamp: the ``webhook-timestamp`` header, seconds since 1970, of this attempt.
        body: the bytes that are posted.
    """
    if "." in webhook_id:
        message = "a webhook id holds no full stop"
        raise ValueError(message)
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets
    )

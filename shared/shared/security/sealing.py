"""Secrets at rest: ``v1:<tag>:<base64url(nonce, ciphertext, tag of GCM)>``, AES-256-GCM (NIST SP 800-38D).

The context (which table, which row, which column) is authenticated with the value: a sealed value that was copied to
another row does not open there.
"""

import base64
import binascii
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import SecretUnreadable
from shared.security.keys import KeyRing

PURPOSE = "sealing"
NONCE_BYTES = 12
VERSION = "v1"


def seal(ring: KeyRing, plaintext: bytes, *, context: str, random: Callable[[int], bytes] = os.urandom) -> str:
    """Encrypt a secret for storage, e.g. with the context ``endpoint.secret:17``."""
    key = ring.writing(PURPOSE)
    # SP 800-38D 8.2.2: a random 96-bit nonce is safe for 2^32 values of one key.
    nonce = random(NONCE_BYTES)
    sealed = nonce + AESGCM(key.key).encrypt(nonce, plaintext, context.encode())
    return f"{VERSION}:{key.tag}:{base64.urlsafe_b64encode(sealed).decode()}"


def unseal(ring: KeyRing, sealed: str, *, context: str) -> bytes:
    """Return what was sealed under this context.

    Raises:
        SecretUnreadable: the value is damaged, belongs elsewhere, or its secret is no longer configured.
    """
    version, _, rest = sealed.partition(":")
    tag, _, body = rest.partition(":")
    if version != VERSION:
        raise SecretUnreadable(f"the sealed value of {context} has no form that this version reads")
    key = ring.tagged(PURPOSE, tag)
    try:
        raw = base64.b64decode(body, altchars=b"-_", validate=True)
        return AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], context.encode())
    except (InvalidTag, binascii.Error, ValueError):
        raise SecretUnreadable(f"the sealed value of {context} is damaged or was sealed for another place") from None

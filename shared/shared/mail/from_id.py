"""The from_id: a token in MAIL FROM that names the delivery, so that what comes back finds it.

A from_id is the delivery id, encrypted under a versioned key, so no index and no uniqueness check are needed, and nobody can
guess that of another mail. It is written in lower-case base32 and survives systems that fold the case of local parts. It stands
at the end of the local part, where it is found whatever the separators are.

A client may choose one of its own by writing it into its return path; that one has to be looked up (``shared.db.client_from_ids``).
"""

import base64
import hashlib
import re
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from shared.errors import ConfigurationError, ValidationFailed
from shared.mail.address import LOCAL_OCTETS, Address, cut, quoted_local

_CHARACTERS = 26
_TOKEN = re.compile(rf"[a-z2-7]{{{_CHARACTERS}}}", re.ASCII | re.IGNORECASE)
# Atoms and dots (RFC 5321 section 4.1.2) without a quoted string, which too many systems spell anew on the way back.
_CHOSEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*")
_ZEROS = bytes(8)


class FromIds:
    """Makes and reads tokens."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take AES-128 keys of 16 bytes: the first makes tokens, all read them.

        Raises:
            ConfigurationError: there is no key, or one has another length.
        """
        if not keys or any(len(key) != 16 for key in keys):
            raise ConfigurationError("from_ids need one or more keys of exactly 16 bytes each")
        # One block that is never repeated for another id: what ECB leaks, equal blocks for equal plaintexts, is the function itself.
        self._keys = tuple((_tag(key), Cipher(algorithms.AES128(key), modes.ECB())) for key in keys)  # noqa: S305 - see above

    def make(self, delivery_id: int) -> str:
        """Return the token of a delivery id (0 to 2^63-1): 26 characters of a-z and 2-7."""
        tag, cipher = self._keys[0]
        encryptor = cipher.encryptor()
        block = encryptor.update(delivery_id.to_bytes(8, "big") + _ZEROS)
        # 2 bits of tag and 128 of block are 130 bits, 26 characters; 6 bits of padding fill the last byte that is encoded.
        packed = (((tag << 128) | int.from_bytes(block, "big")) << 6).to_bytes(17, "big")
        return base64.b32encode(packed)[:_CHARACTERS].decode("ascii").lower()

    def read(self, token: str) -> int | None:
        """Return the delivery id of a token in any case, None where no key made it."""
        if not _TOKEN.fullmatch(token):
            return None
        packed = int.from_bytes(base64.b32decode(token.upper() + "AA===="), "big") >> 6
        tag, block = packed >> 128, (packed & ((1 << 128) - 1)).to_bytes(16, "big")
        for key_tag, cipher in self._keys:
            if key_tag != tag:
                continue
            plain = cipher.decryptor().update(block)
            # 64 zero bits: a made-up token passes once in 2^64 tries.
            if plain[8:] == _ZEROS and plain[0] < 0x80:
                return int.from_bytes(plain[:8], "big")
        return None


def return_path(sender: Address, token: str, *, separator: str = "+", bounce_domain: str | None = None) -> str:
    """Return the MAIL FROM that carries the token, in RFC 5321 form.

    Args:
        sender: its local part up to the separator is kept, with its case.
        token: from :meth:`FromIds.make`.
        separator: the catch-all separator of the sender's domain.
        bounce_domain: a domain of ours that takes reports; the address is then ``b+<token>@bounce_domain``.

    Raises:
        ValidationFailed: the local part would pass 64 octets and there is no bounce domain.
    """
    if bounce_domain is not None:
        return f"b+{token}@{bounce_domain}"
    local = quoted_local(f"{cut(sender.local, [separator])[0]}{separator}{token}")
    if len(local.encode()) > LOCAL_OCTETS:  # RFC 5321 section 4.5.3.1.1
        raise ValidationFailed(
            f"with its from_id the part of the return path before the @ would pass {LOCAL_OCTETS} octets; set a bounce domain or use a shorter sender address",
            field="from",
        )
    return f"{local}@{sender.domain}"


def token_of(local: str) -> str | None:
    """Return the end of a local part, where :func:`return_path` puts the token; None where it is too short to have one."""
    return local[-_CHARACTERS:] if len(local) > _CHARACTERS else None


def chosen_token(local: str, separator: str) -> str | None:
    """Return what a client chose for a from_id: the text after the first separator, verbatim.

    Args:
        local: of the return path that it gave.
        separator: the catch-all separator of the sender's domain.

    Returns:
        Empty where it wants no from_id; None where it leaves the choice to us.

    Raises:
        ValidationFailed: it has characters that would not come back as they went.
    """
    _, found, token = cut(local, [separator])
    if token and not _CHOSEN.fullmatch(token):
        raise ValidationFailed(
            "a from_id of your own has ASCII characters that need no quotes: letters, digits, single dots inside and !#$%&'*+-/=?^_`{|}~",
            field="mail_from",
        )
    return token if found else None


def _tag(key: bytes) -> int:
    return hashlib.sha256(b"posthouse from_id tag" + key).digest()[0] & 3

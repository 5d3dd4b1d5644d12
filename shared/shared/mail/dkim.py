"""DKIM signing: RFC 6376 with rsa-sha256 (RFC 8301) and ed25519-sha256 (RFC 8463), always relaxed/relaxed.

The body is hashed once for a message, in chunks of any size, however many recipients and keys there are; a signature then costs
the header and one private-key operation, during which the interpreter lock is free.
"""

import base64
import hashlib
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from shared.errors import ValidationFailed

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

_OVERSIGNED = (
    *("from", "to", "cc", "reply-to", "subject", "date", "message-id", "in-reply-to", "references"),
    *("mime-version", "content-type", "content-transfer-encoding"),
)
"""Named once more than they occur, so that nobody can add one unseen (RFC 6376 section 8.15)."""
_SIGNED = (
    "sender",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-help",
    "list-archive",
    "feedback-id",
    "auto-submitted",
)
"""Signed, and oversigned, where they occur; a mailing list may add its own to a mail without (RFC 8058 section 4, RFC 6376 section 5.4.1)."""

_FIELD = re.compile(rb"([!-9;-~]+[ \t]*):([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n")
_WHITE_SPACE = re.compile(rb"[ \t\r\n]+")
_LINES_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class DkimKey:
    """What a selector of a domain signs with."""

    domain: str
    """A-labels; becomes d=."""
    selector: str
    algorithm: Algorithm
    private_key_pem: bytes = field(repr=False)
    """PKCS #8 or PKCS #1, not encrypted."""


class Signer:
    """One key, loaded and ready. Safe to use from several threads."""

    def __init__(self, key: DkimKey) -> None:
        """Load the key.

        Raises:
            ValidationFailed: the PEM does not hold a private key for the algorithm, or an RSA key below 1024 bits.
        """
        self.key = key
        self._private = _load(key.private_key_pem)
        if isinstance(self._private, rsa.RSAPrivateKey) != (key.algorithm == "rsa-sha256"):
            raise ValidationFailed(
                f"the DKIM key of selector {key.selector} is not a key for {key.algorithm}", field="private_key"
            )

    def signature_of(self, digest_input: bytes) -> bytes:
        """Return the raw signature over the canonicalised header fields."""
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(digest_input, padding.PKCS1v15(), hashes.SHA256())
        # RFC 8463 section 3: Ed25519 signs the SHA-256 digest.
        return self._private.sign(hashlib.sha256(digest_input).digest())


def sign(
    signers: Sequence[Signer],
    header: bytes,
    body_hash: bytes,
    *,
    now: datetime,
    expires_after: timedelta | None = None,
) -> bytes:
    """Return one folded DKIM-Signature field with CRLF per signer, to be put in front of the header.

    Args:
        signers: each signs by itself.
        header: whole fields with CRLF, without the empty line.
        body_hash: from :func:`body_hash`.
        now: aware; becomes t=.
        expires_after: of at least a second; how long after ``now`` the signature holds, becomes x=. None: it does not expire.

    Raises:
        ValidationFailed: the header is not made of whole fields, or has no From.
    """
    names, canonical = _selected(header)
    signed_at = int(now.timestamp())
    times = f"t={signed_at};"
    if expires_after is not None:
        times += f" x={signed_at + int(expires_after.total_seconds())};"  # RFC 6376 section 3.5: greater than t=
    return b"".join(_signature_field(signer, names, canonical, body_hash, times) for signer in signers)


def body_hash(body: Iterable[bytes]) -> bytes:
    """Return the SHA-256 of a body in relaxed canonicalisation (RFC 6376 section 3.4.4), given in chunks of any size."""
    digest = hashlib.sha256()
    held = b""
    blank_lines = 0
    empty = True
    for chunk in body:
        data = _compress(held + chunk)
        # White space, and a CR that may begin a line end, mean something only with what follows.
        end = len(data)
        if end and data[end - 1] == 0x0D:
            end -= 1
        if end and data[end - 1] == 0x20:
            end -= 1
        data, held = data[:end], data[end:]
        content, ends = _without_line_ends(data)
        if content:
            _update_line_ends(digest, blank_lines)
            digest.update(content)
            blank_lines, empty = 0, False
        blank_lines += ends
    content, _ = _without_line_ends(_compress(held + b"\r\n"))
    if content:
        _update_line_ends(digest, blank_lines)
        digest.update(content)
        empty = False
    if not empty:
        digest.update(b"\r\n")
    return digest.digest()


def generate_key(algorithm: Algorithm) -> bytes:
    """Return a new private key as unencrypted PKCS #8 PEM; RSA with 2048 bits (RFC 8301 section 3.2)."""
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "rsa-sha256":
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def dns_record(pem: bytes) -> str:
    """Return the text of the TXT record at ``<selector>._domainkey.<domain>`` for a private key (RFC 6376 section 3.6.1).

    It may be longer than the 255 octets of one character-string; whoever writes the zone splits it.

    Raises:
        ValidationFailed: the PEM does not hold a private key that DKIM can use.
    """
    private = _load(pem)
    if isinstance(private, rsa.RSAPrivateKey):
        kind, public = (
            "rsa",
            private.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        )
    else:
        # RFC 8463 section 4: the bare 32 octets.
        kind, public = "ed25519", private.public_key().public_bytes_raw()
    return f"v=DKIM1; k={kind}; p={base64.b64encode(public).decode('ascii')}"


def _load(pem: bytes) -> rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValidationFailed("a DKIM key is an unencrypted private key in PEM form", field="private_key") from None
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < 1024:  # RFC 8301 section 3.2
            raise ValidationFailed("an RSA key for DKIM needs at least 1024 bits, better 2048", field="private_key")
        return private
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private
    raise ValidationFailed("a DKIM key is an RSA or Ed25519 key", field="private_key")


def _selected(header: bytes) -> tuple[str, bytes]:
    """Return the value of h= and the canonicalised fields it names, in that order."""
    by_name: dict[str, list[bytes]] = {}
    position = 0
    while position < len(header):
        found = _FIELD.match(header, position)
        if found is None:
            raise ValidationFailed(
                "the header of the message is not made of whole fields with CRLF line ends", field="headers"
            )
        position = found.end()
        name = found[1].rstrip(b" \t").lower()
        by_name.setdefault(name.decode("latin-1"), []).append(_relaxed(name, found[2]))
    if "from" not in by_name:
        raise ValidationFailed("the message has no From, which DKIM must sign", field="from")  # RFC 6376 section 5.4
    names: list[str] = []
    counted = Counter({name: len(fields) for name, fields in by_name.items()})
    for name in _OVERSIGNED:
        names += [name] * (counted[name] + 1)
    for name in _SIGNED:
        if counted[name]:
            names += [name] * (counted[name] + 1)
    # RFC 6376 section 5.4.2: of several fields of a name the last is taken first; one that is not there adds nothing.
    canonical = b"".join(by_name[name].pop() for name in names if by_name.get(name))
    return ":".join(names), canonical


def _relaxed(name: bytes, value: bytes) -> bytes:
    """One field in relaxed canonicalisation (RFC 6376 section 3.4.2), with CRLF."""
    return name + b":" + _WHITE_SPACE.sub(b" ", value).strip(b" ") + b"\r\n"


def _signature_field(signer: Signer, names: str, canonical: bytes, body_hash: bytes, times: str) -> bytes:
    key = signer.key
    tags = [
        f"v=1; a={key.algorithm}; c=relaxed/relaxed;",
        f"d={key.domain};",
        f"s={key.selector};",
        times,
        *_folded_names(names),
        f"bh={base64.b64encode(body_hash).decode('ascii')};",
        "b=",
    ]
    value = (" " + "\r\n\t".join(tags)).encode("ascii")
    # RFC 6376 section 3.7: the field itself comes last, with an empty b= and without its CRLF.
    own = _relaxed(b"dkim-signature", value).removesuffix(b"\r\n")
    signature = base64.b64encode(signer.signature_of(canonical + own)).decode("ascii")
    folded = "\r\n\t".join(signature[start : start + 74] for start in range(0, len(signature), 74))
    return b"DKIM-Signature:" + value + folded.encode("ascii") + b"\r\n"


@lru_cache(maxsize=256)
def _folded_names(names: str) -> tuple[str, ...]:
    """The h= tag in lines; white space may stand around each colon (RFC 6376 section 3.5)."""
    lines = textwrap.wrap("h=" + names.replace(":", ": "), 74, break_on_hyphens=False)
    return (*(line.replace(": ", ":") for line in lines[:-1]), lines[-1].replace(": ", ":") + ";")


def _compress(data: bytes) -> bytes:
    """Make each run of blanks one space, and drop it before a line end; replace is faster than a regular expression here."""
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data.replace(b" \r\n", b"\r\n")


def _without_line_ends(data: bytes) -> tuple[bytes, int]:
    """Return data without the CRLFs at its end, and how many they were."""
    content = data.rstrip(b"\r\n")
    count = (len(data) - len(content)) // 2
    if data.endswith(b"\r\n" * count, len(content)) and len(content) + 2 * count == len(data):
        return content, count
    # A bare CR or LF among them is content.
    end = len(data)
    while data.endswith(b"\r\n", 0, end):
        end -= 2
    return data[:end], (len(data) - end) // 2


def _update_line_ends(digest: "hashlib._Hash", count: int) -> None:
    whole, rest = divmod(count, _LINES_AT_ONCE)
    for _ in range(whole):
        digest.update(b"\r\n" * _LINES_AT_ONCE)
    digest.update(b"\r\n" * rest)

"""What a receiver does with DKIM signatures (RFC 6376 6, RFC 8463): relaxed/relaxed, both algorithms, keys from DNS records."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r\n]|\r\n[ \t])*)\r\n")
_SIGNATURE = re.compile(rb"([;\s]|^)b(\s*)=[^;]*")

Fields = list[tuple[bytes, bytes]]


def verified(mail: bytes, records: Mapping[str, str]) -> list[str]:
    """Verify every DKIM signature of a mail; return algorithm and domain of each.

    Args:
        mail: with CRLF line ends.
        records: the TXT record at each name.

    Raises:
        ValueError: there is none, or one does not hold; says why.
    """
    header, _, body = mail.partition(b"\r\n\r\n")
    fields: Fields = [(match[1].lower(), match[2]) for match in _FIELD.finditer(header + b"\r\n")]
    signatures = [value for name, value in fields if name == b"dkim-signature"]
    if not signatures:
        raise ValueError("the mail has no DKIM signature")
    return [_verify(signature, fields, body, records) for signature in signatures]


def _verify(signature: bytes, fields: Fields, body: bytes, records: Mapping[str, str]) -> str:
    tags = _tags(signature.decode("ascii", "replace"))
    algorithm, domain = tags.get("a", ""), tags.get("d", "")
    who = f"{algorithm} by {domain}"
    if tags.get("c") != "relaxed/relaxed" or algorithm not in ("rsa-sha256", "ed25519-sha256"):
        raise ValueError(f"the DKIM signature {who} is of another kind than this demo reads")
    if _decoded(tags.get("bh", "")) != hashlib.sha256(_relaxed_body(body)).digest():
        raise ValueError(f"the body is not the one that the DKIM signature {who} was made for")
    names = [name.strip().lower().encode() for name in tags.get("h", "").split(":")]
    if b"from" not in names:
        raise ValueError(f"the DKIM signature {who} does not cover From")  # RFC 6376 5.4
    record = records.get(f"{tags.get('s', '')}._domainkey.{domain}")
    if record is None:
        raise ValueError(f"there is no DNS record for the key of the DKIM signature {who}")
    digest_input = _signed_header(fields, names, signature)
    if not _holds(algorithm, _decoded(_tags(record).get("p", "")), _decoded(tags.get("b", "")), digest_input):
        raise ValueError(f"the DKIM signature {who} does not hold")
    return who


def _signed_header(fields: Fields, names: list[bytes], signature: bytes) -> bytes:
    left = list(fields)
    signed = b""
    for wanted in names:
        # RFC 6376 5.4.2: from the bottom up; a name that is used up, or never was, adds nothing.
        for index in range(len(left) - 1, -1, -1):
            if left[index][0] == wanted:
                signed += _relaxed(*left.pop(index)) + b"\r\n"
                break
    # RFC 6376 3.7: its own field last, with an empty b= and no CRLF.
    return signed + _relaxed(b"dkim-signature", _SIGNATURE.sub(rb"\1b\2=", signature))


def _relaxed(name: bytes, value: bytes) -> bytes:
    """RFC 6376 3.4.2."""
    return name + b":" + re.sub(rb"[ \t\r\n]+", b" ", value).strip(b" ")


def _relaxed_body(body: bytes) -> bytes:
    """RFC 6376 3.4.4."""
    lines = [re.sub(rb"[ \t]+", b" ", line).removesuffix(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def _holds(algorithm: str, public: bytes, signature: bytes, digest_input: bytes) -> bool:
    try:
        if algorithm == "ed25519-sha256":  # RFC 8463 3: the digest is what is signed
            key = ed25519.Ed25519PublicKey.from_public_bytes(public)
            key.verify(signature, hashlib.sha256(digest_input).digest())
        else:
            loaded = serialization.load_der_public_key(public)
            if not isinstance(loaded, rsa.RSAPublicKey):
                return False
            loaded.verify(signature, digest_input, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def _tags(text: str) -> dict[str, str]:
    """RFC 6376 3.2; white space within values means nothing in those that are read here."""
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    return {name.strip(): re.sub(r"\s+", "", value) for name, _, value in pairs}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the DKIM signature or its key is no base64") from None

"""The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without I/O: messages in, messages out.

A client proves that it knows the secret without saying it, and learns that we know the verifier. One :class:`ScramServer`
serves one exchange::

    exchange = ScramServer()
    user = exchange.first(client_first)
    server_first = exchange.challenge(parse_verifier(stored))
    server_final = exchange.final(client_final)

Channel binding (-PLUS) is not offered.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.errors import BadInput, SecretUnreadable
from shared.security.credentials import SCRAM_ITERATIONS

MECHANISM = "SCRAM-SHA-256"

_LONGEST = 4096  # octets of one message of the client
_NONCE_BYTES = 18
_SALT_BYTES = 16
_KEY_BYTES = 32
# RFC 5802 7: printable but for the comma; a value is UTF-8 without NUL and comma, a saslname escapes comma and equals sign.
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,512}")
_SASLNAME = re.compile(r"(?:[^\x00,=]|=2C|=3D){1,512}")
_ATTRIBUTE = re.compile(r"[A-Za-z]=[^\x00,]*")
_VERIFIER = re.compile(
    r"SCRAM-SHA-256\$([0-9]{1,7}):([A-Za-z0-9+/=]{1,400})\$([A-Za-z0-9+/=]{44}):([A-Za-z0-9+/=]{44})"
)


class ScramFailed(BadInput):
    """The exchange ends without success: the client does not follow the protocol, or does not know the secret."""

    code = "scram_failed"


@dataclass(frozen=True, slots=True)
class Verifier:
    """What is stored of a secret (RFC 5803): enough to check a proof, not enough to make one."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


def parse_verifier(stored: str) -> Verifier:
    """Read what :func:`shared.security.credentials.scram_verifier` wrote.

    Raises:
        SecretUnreadable: it is no verifier of ours.
    """
    unreadable = SecretUnreadable("the stored SCRAM verifier of a credential has no form that this version reads")
    match = _VERIFIER.fullmatch(stored)
    if match is None:
        raise unreadable
    try:
        salt, stored_key, server_key = (base64.b64decode(part, validate=True) for part in match.groups()[1:])
    except binascii.Error:
        raise unreadable from None
    return Verifier(int(match[1]), salt, stored_key, server_key)


def nobody(key: bytes, user: str) -> Verifier:
    """Return the verifier of a user who does not exist: the same salt each time, and a secret that nobody knows.

    Args:
        key: of the installation, so that every process answers alike and nobody can tell the salt from a real one.
        user: as the client gave it.
    """
    made = hmac.digest(key, user.encode(errors="replace"), hashlib.sha512)
    return Verifier(SCRAM_ITERATIONS, made[:_SALT_BYTES], os.urandom(_KEY_BYTES), os.urandom(_KEY_BYTES))


class ScramServer:
    """One exchange; call :meth:`first`, :meth:`challenge` and :meth:`final` once each, in this order.

    Args:
        random: makes our part of the nonce.
    """

    __slots__ = ("_client_first_bare", "_gs2_header", "_nonce", "_random", "_server_first", "_verifier")

    def __init__(self, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._gs2_header = ""
        self._client_first_bare = ""
        self._server_first = ""
        self._nonce = ""
        self._verifier: Verifier | None = None

    def first(self, message: bytes) -> str:
        """Take the client-first-message (RFC 5802 7); return the user name.

        Raises:
            ScramFailed: it has not that form, or asks for what is not offered.
        """
        flag, _, rest = _text(message).partition(",")
        authzid, comma, bare = rest.partition(",")
        if flag.startswith("p="):
            raise ScramFailed("channel binding is not offered here; use SCRAM-SHA-256 without it")
        if flag not in {"n", "y"} or not comma:  # RFC 5802 6: "y" is right for a client that saw no -PLUS
            raise ScramFailed("the first message does not begin with a GS2 header")
        attributes = bare.split(",")
        if attributes[0].startswith("m="):
            raise ScramFailed("the first message has a mandatory extension that is not known here")  # RFC 5802 5.1
        if len(attributes) < 2 or not all(_ATTRIBUTE.fullmatch(part) for part in attributes):
            raise ScramFailed("the first message is malformed")
        user, nonce = attributes[0], attributes[1]
        if not user.startswith("n=") or not _SASLNAME.fullmatch(user[2:]):
            raise ScramFailed("the first message has no user name")
        if not nonce.startswith("r=") or not _NONCE.fullmatch(nonce[2:]):
            raise ScramFailed("the first message has no nonce")
        if authzid not in {"", "a=" + user[2:]}:
            raise ScramFailed("acting for another identity is not possible here")
        self._gs2_header = f"{flag},{authzid},"
        self._client_first_bare = bare
        self._nonce = nonce[2:] + base64.b64encode(self._random(_NONCE_BYTES)).decode("ascii")
        return user[2:].replace("=2C", ",").replace("=3D", "=")

    def challenge(self, verifier: Verifier) -> bytes:
        """Return the server-first-message for a user with this verifier."""
        self._verifier = verifier
        salt = base64.b64encode(verifier.salt).decode("ascii")
        self._server_first = f"r={self._nonce},s={salt},i={verifier.iterations}"
        return self._server_first.encode()

    def final(self, message: bytes) -> bytes:
        """Take the client-final-message; return the server-final-message, which proves that we hold the verifier.

        Raises:
            ScramFailed: the client does not know the secret, or the message has not the form of RFC 5802 7.
        """
        if self._verifier is None:
            raise ScramFailed("there was no first message")
        without_proof, comma, proof_text = _text(message).rpartition(",p=")
        attributes = without_proof.split(",")
        if not comma or len(attributes) < 2 or not all(_ATTRIBUTE.fullmatch(part) for part in attributes):
            raise ScramFailed("the final message is malformed")
        binding = base64.b64encode(self._gs2_header.encode()).decode("ascii")
        # RFC 5802 5.1: c repeats the GS2 header; r repeats the whole nonce, or the message belongs to another exchange.
        if attributes[0] != "c=" + binding or attributes[1] != "r=" + self._nonce:
            raise ScramFailed("the final message belongs to another exchange")
        try:
            proof = base64.b64decode(proof_text, validate=True)
        except (binascii.Error, ValueError):
            raise ScramFailed("the proof is not base64") from None
        verifier, self._verifier = self._verifier, None
        auth_message = f"{self._client_first_bare},{self._server_first},{without_proof}".encode()
        # RFC 5802 3: ClientKey := ClientProof XOR HMAC(StoredKey, AuthMessage), and StoredKey is its hash.
        signature = hmac.digest(verifier.stored_key, auth_message, hashlib.sha256)
        if len(proof) != len(signature):
            raise ScramFailed("the user name or the password is wrong")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key):
            raise ScramFailed("the user name or the password is wrong")
        return b"v=" + base64.b64encode(hmac.digest(verifier.server_key, auth_message, hashlib.sha256))


def _text(message: bytes) -> str:
    if len(message) > _LONGEST:
        raise ScramFailed("the message is too long")
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ScramFailed("the message is not UTF-8") from None

"""The client's side of the SASL mechanisms (RFC 4422), without I/O: challenges in, responses out."""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from delivery.smtp.facts import Login
from shared.security.credentials import scram_form

_NONCE_BYTES = 18
_FEWEST_ITERATIONS = 4_096  # RFC 7677 4
_MOST_ITERATIONS = 1_000_000  # a server may not have us compute without bound
_SERVER_FIRST = re.compile(
    r"r=([\x21-\x2b\x2d-\x7e]{1,1024}),s=([A-Za-z0-9+/=]{1,1024}),i=([0-9]{1,7})(?:,[A-Za-z]=.*)?"
)


class ExchangeFailed(Exception):
    """The server does not follow the mechanism, or did not prove that it knows the password; says how."""


class Mechanism(Protocol):
    """One run of a mechanism."""

    name: str

    def first(self) -> bytes | None:
        """Return the initial response (RFC 4954 4), None where the server speaks first."""

    def respond(self, challenge: bytes, /) -> bytes:
        """Return the response to a challenge; SCRAM takes milliseconds of processor time.

        Raises:
            ExchangeFailed: there is none.
        """

    def finish(self) -> None:
        """Agree that the exchange is over, because the server says so.

        Raises:
            ExchangeFailed: it has still something to prove.
        """


class Plain:
    """PLAIN (RFC 4616): the password itself."""

    name = "PLAIN"

    def __init__(self, login: Login) -> None:
        self._login = login

    def first(self) -> bytes | None:
        """Say everything."""
        return f"\0{self._login.user}\0{self._login.password}".encode()

    def respond(self, _: bytes, /) -> bytes:
        """There is nothing to add."""
        raise ExchangeFailed("a challenge that PLAIN does not have")

    def finish(self) -> None:
        """The server proves nothing."""


class LoginMechanism:
    """LOGIN, in no RFC: user name and password, each when asked for; what the prompts say has never mattered."""

    name = "LOGIN"

    def __init__(self, login: Login) -> None:
        self._responses = [login.password.encode(), login.user.encode()]

    def first(self) -> bytes | None:
        """Wait to be asked."""
        return None

    def respond(self, _: bytes, /) -> bytes:
        """Say the user name, then the password."""
        if not self._responses:
            raise ExchangeFailed("a third challenge, which LOGIN does not have")
        return self._responses.pop()

    def finish(self) -> None:
        """The server proves nothing."""


class CramMd5:
    """CRAM-MD5 (RFC 2195): a proof that who listens cannot use again, but can guess passwords from."""

    name = "CRAM-MD5"

    def __init__(self, login: Login) -> None:
        self._login = login
        self._answered = False

    def first(self) -> bytes | None:
        """Wait for the challenge."""
        return None

    def respond(self, challenge: bytes, /) -> bytes:
        """Prove it."""
        if self._answered:
            raise ExchangeFailed("a second challenge, which CRAM-MD5 does not have")
        self._answered = True
        proof = hmac.new(self._login.password.encode(), challenge, hashlib.md5).hexdigest()
        return f"{self._login.user} {proof}".encode()

    def finish(self) -> None:
        """The server proves nothing."""


class ScramSha256:
    """SCRAM-SHA-256 (RFC 5802, RFC 7677): both sides prove what they know, and nobody else learns it. No channel binding.

    Args:
        random: makes our part of the nonce.
    """

    name = "SCRAM-SHA-256"

    def __init__(self, login: Login, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._password = scram_form(login.password).encode()
        self._nonce = base64.b64encode(random(_NONCE_BYTES)).decode()
        user = scram_form(login.user).replace("=", "=3D").replace(",", "=2C")  # RFC 5802 5.1
        self._bare = f"n={user},r={self._nonce}"
        self._proof_due = b""
        self._proved = False

    def first(self) -> bytes | None:
        """Say who we are, and our nonce."""
        return f"n,,{self._bare}".encode()

    def respond(self, challenge: bytes, /) -> bytes:
        """Prove that we know the password; then look at the server's proof."""
        if not self._proof_due:
            return self._final(challenge)
        if self._proved or not hmac.compare_digest(challenge, self._proof_due):
            raise ExchangeFailed("the server does not prove that it knows the password")  # RFC 5802 5
        self._proved = True
        return b""

    def finish(self) -> None:
        """Insist on the server's proof."""
        if not self._proved:
            raise ExchangeFailed("the server does not prove that it knows the password")

    def _final(self, challenge: bytes) -> bytes:
        match = _SERVER_FIRST.fullmatch(challenge.decode("utf-8", "replace"))
        if match is None or not match[1].startswith(self._nonce) or match[1] == self._nonce:  # RFC 5802 5.1
            raise ExchangeFailed("the first message of the server is malformed, or not for us")
        iterations = int(match[3])
        if not _FEWEST_ITERATIONS <= iterations <= _MOST_ITERATIONS:
            raise ExchangeFailed(f"{iterations} iterations; {_FEWEST_ITERATIONS} to {_MOST_ITERATIONS} are accepted")
        salt = decoded(match[2])
        # RFC 5802 3.
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", hashlib.sha256)
        without_proof = f"c=biws,r={match[1]}"
        said = f"{self._bare},".encode() + challenge + f",{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), said, hashlib.sha256)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", hashlib.sha256)
        self._proof_due = b"v=" + base64.b64encode(hmac.digest(server_key, said, hashlib.sha256))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


_MECHANISMS: dict[str, Callable[[Login], Mechanism]] = {
    "SCRAM-SHA-256": ScramSha256,
    "CRAM-MD5": CramMd5,
    "PLAIN": Plain,
    "LOGIN": LoginMechanism,
}


def choose(login: Login, offered: Sequence[str]) -> list[Mechanism]:
    """Return a run of each mechanism that both sides know, the one that the login likes best first."""
    return [_MECHANISMS[name](login) for name in login.mechanisms if name in offered and name in _MECHANISMS]


def decoded(text: str) -> bytes:
    """Read the base64 of a server.

    Raises:
        ExchangeFailed: it is none.
    """
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ExchangeFailed("a challenge that is not base64") from None

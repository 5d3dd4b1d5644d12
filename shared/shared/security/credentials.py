"""API keys and passwords: how they look, what is stored of them, how they are checked.

What is stored cannot be turned back: a keyed hash of an API key (its 256 random bits need no slow hash), argon2id of a
password, and the SCRAM-SHA-256 verifier of both, because no verifier can be made later without the secret.
"""

import base64
import hashlib
import hmac
import os
import re
import stringprep
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import argon2

from shared.clock import Monotonic, monotonic
from shared.errors import SecretUnreadable, ValidationFailed
from shared.security.keys import KeyRing

Random = Callable[[int], bytes]

KEY_ID_CHARS = 12
_API_KEY = re.compile(r"ph_(test_)?([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
_KEY_HASH_PURPOSE = "api-key-hash"

LONGEST_PASSWORD = 1024  # characters; hashing is not offered work without bound
SCRAM_ITERATIONS = 4096  # RFC 7677 4: at least 4096
_SCRAM_SALT_BYTES = 16

# OWASP's minimum for argon2id, about 15 ms here: 19 MiB, two passes, one lane.
_ARGON2 = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16)
# A login that does not exist is checked against this, so that the time taken does not tell which logins do.
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$cG9zdGhvdXNlL25vYm9keQ$42F6qruFB4wD7rpt/yyOWtw1JaEf095BST0qtr40yqM"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key: ``text`` is shown once, ``key_id`` finds the row, ``secret`` is what gets hashed."""

    key_id: str
    secret: str = field(repr=False)
    is_test: bool = False
    """A sandbox key, which its text says too: whoever reads a configuration sees which one it has."""

    @property
    def text(self) -> str:
        """The whole key as the customer keeps it."""
        return f"ph_{'test_' if self.is_test else ''}{self.key_id}_{self.secret}"


def new_api_key(random: Random = os.urandom, *, is_test: bool = False) -> ApiKey:
    """Make an API key, of the sandbox or not, with 60 bits of name and 256 bits of secret."""
    key_id = base64.b32encode(random(8)).decode().lower()[:KEY_ID_CHARS]
    return ApiKey(key_id, base64.urlsafe_b64encode(random(32)).decode().rstrip("="), is_test)


def split_api_key(text: str) -> ApiKey | None:
    """Return the parts of something that looks like an API key, else None."""
    match = _API_KEY.fullmatch(text)
    return ApiKey(match[2], match[3], is_test=match[1] is not None) if match else None


def key_hash(ring: KeyRing, secret: str) -> str:
    """Return what is stored of an API key's secret: ``v1:<tag>:<64 hexadecimal digits>``."""
    key = ring.writing(_KEY_HASH_PURPOSE)
    return f"v1:{key.tag}:{hmac.digest(key.key, secret.encode(), hashlib.sha256).hex()}"


def key_matches(ring: KeyRing, stored: str, secret: str) -> bool:
    """Say, in constant time, whether this is the secret that was stored.

    Raises:
        SecretUnreadable: the stored hash needs a secret key that is no longer configured, or is no hash of ours.
    """
    version, _, rest = stored.partition(":")
    tag, _, digest = rest.partition(":")
    if version != "v1" or not digest:
        raise SecretUnreadable("the stored hash of an API key has no form that this version reads")
    key = ring.tagged(_KEY_HASH_PURPOSE, tag)
    # A lone surrogate cannot be encoded; such a text is no key of ours, and "replace" makes it one that cannot match.
    found = hmac.digest(key, secret.encode(errors="replace"), hashlib.sha256).hex()
    return hmac.compare_digest(found.encode(), digest.encode())


def opaque_string(password: str) -> str:
    """Prepare a password as RFC 8265 4.2 (OpaqueString) says: spaces become ASCII spaces, then NFC.

    Raises:
        ValidationFailed: empty, too long, or with characters that no password may hold.
    """
    if len(password) > LONGEST_PASSWORD:
        raise ValidationFailed(f"a password has at most {LONGEST_PASSWORD} characters", field="password")
    if any(unicodedata.category(char) in {"Cc", "Cs", "Co"} for char in password):
        # Unassigned code points pass: what this Python's tables do not know yet may be a letter to the one who types it.
        raise ValidationFailed("a password holds no control characters", field="password")
    prepared = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    prepared = unicodedata.normalize("NFC", prepared)
    if not prepared:
        raise ValidationFailed("a password is not empty", field="password")
    return prepared


def hash_password(password: str, *, random: Random = os.urandom) -> str:
    """Return the argon2id hash of a password; some 15 ms of processor time, so call it in a thread.

    Raises:
        ValidationFailed: see :func:`opaque_string`.
    """
    return _ARGON2.hash(opaque_string(password), salt=random(_ARGON2.salt_len))


def password_matches(stored: str | None, password: str) -> bool:
    """Say whether this is the password that was stored; some 15 ms of processor time, so call it in a thread.

    Args:
        stored: the argon2id hash; None where there is no such login, which takes the same time and is False.
        password: as it was typed.

    Raises:
        SecretUnreadable: the stored text is no argon2 hash.
    """
    try:
        prepared = opaque_string(password)
    except ValidationFailed:
        return False
    try:
        _ARGON2.verify(stored if stored is not None else _NOBODY, prepared)
    except argon2.exceptions.InvalidHashError:
        raise SecretUnreadable("the stored hash of a password has no form that this version reads") from None
    except argon2.exceptions.VerificationError:
        return False
    return stored is not None


def scram_verifier(password: str, *, random: Random = os.urandom) -> str:
    """Return the SCRAM-SHA-256 verifier of a password or of a whole API key; about 2 ms of processor time.

    The form is that of RFC 5803 3 with the fields joined as Postgres does:
    ``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>``, the last three in base64.

    Raises:
        ValidationFailed: see :func:`opaque_string`.
    """
    salt = random(_SCRAM_SALT_BYTES)
    # RFC 5802 3: SaltedPassword := Hi(Normalize(password), salt, i); ClientKey, StoredKey and ServerKey follow from it.
    salted = hashlib.pbkdf2_hmac("sha256", scram_form(password).encode(), salt, SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", hashlib.sha256)).digest()
    server_key = hmac.digest(salted, b"Server Key", hashlib.sha256)
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{salt_text}${stored_text}:{server_text}"


def scram_form(password: str) -> str:
    """Prepare with SASLprep (RFC 4013), as RFC 5802 5.1 has clients do; where it refuses, as clients then do, with OpaqueString.

    Raises:
        ValidationFailed: see :func:`opaque_string`.
    """
    fallback = opaque_string(password)
    # RFC 4013 2.1: non-ASCII spaces become spaces, what is commonly mapped to nothing goes; 2.2: NFKC.
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(_prohibited(char) for char in prepared):
        return fallback
    # RFC 3454 6: text with a right-to-left character has no left-to-right one, and begins and ends right-to-left.
    if any(stringprep.in_table_d1(c) for c in prepared) and (
        any(stringprep.in_table_d2(c) for c in prepared)
        or not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1]))
    ):
        return fallback
    return prepared


# RFC 4013 2.3 (prohibited output) and 2.5 (unassigned code points, for stored strings).
_PROHIBITED = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def _prohibited(char: str) -> bool:
    return any(table(char) for table in _PROHIBITED)


class VerifiedPasswords:
    """Remembers for a short while which passwords were verified, so that argon2 does not run on every request.

    Nothing is kept but an HMAC under a key that dies with the process. The stored hash is part of what is remembered:
    a changed password is forgotten at once.
    """

    __slots__ = ("_clock", "_key", "_limit", "_seconds", "_until")

    def __init__(
        self, *, seconds: float = 60.0, limit: int = 4096, clock: Monotonic = monotonic, random: Random = os.urandom
    ) -> None:
        """Take for how long and how many at most."""
        self._seconds, self._limit, self._clock = seconds, limit, clock
        self._key = random(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def remember(self, login: str, stored: str, password: str) -> None:
        """Note that this password was just verified against this stored hash."""
        mark = self._mark(login, stored, password)
        self._until.pop(mark, None)
        self._until[mark] = self._clock() + self._seconds
        while len(self._until) > self._limit:
            self._until.popitem(last=False)

    def knows(self, login: str, stored: str, password: str) -> bool:
        """Say whether exactly this was verified less than the given seconds ago."""
        mark = self._mark(login, stored, password)
        until = self._until.get(mark)
        if until is None:
            return False
        if until <= self._clock():
            del self._until[mark]
            return False
        return True

    def _mark(self, *parts: str) -> bytes:
        encoded = [part.encode(errors="surrogatepass") for part in parts]
        framed = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
        return hmac.digest(self._key, framed, hashlib.sha256)

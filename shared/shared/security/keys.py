"""The installation's secrets, and the keys derived from them: the first writes, all read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.errors import ConfigurationError, SecretUnreadable

KEY_BYTES = 32
TAG_CHARS = 8


def derive(purpose: str, secret: str) -> bytes:
    """Return the 32-byte key of one purpose, by HKDF-SHA256 (RFC 5869); keys of different purposes say nothing about each other."""
    # RFC 5869 3.1: without a salt HKDF is still sound for a secret of high entropy; 3.2: info binds the key to its use.
    hkdf = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=f"posthouse/v1/{purpose}".encode())
    return hkdf.derive(secret.encode())


@dataclass(frozen=True, slots=True)
class DerivedKey:
    """A key of one purpose and the public name of the secret that it came from."""

    tag: str
    key: bytes = field(repr=False)


class KeyRing:
    """One or more secrets of an installation, in the order of ``POSTHOUSE_SECRET_KEY``.

    Each secret has a *tag* of eight hexadecimal digits. What is written carries the tag, so that it can still be read
    after a new secret has been put in front.
    """

    __slots__ = ("_derived", "_secrets")

    def __init__(self, secrets: Sequence[str]) -> None:
        """Take the secrets, the writing one first.

        Raises:
            ConfigurationError: there is none, or two share a tag.
        """
        unique = list(dict.fromkeys(secrets))
        if not unique:
            raise ConfigurationError("POSTHOUSE_SECRET_KEY holds no secret: set it to at least 32 random characters")
        self._secrets = {derive("tag", secret).hex()[:TAG_CHARS]: secret for secret in unique}
        self._derived: dict[tuple[str, str], bytes] = {}
        if len(self._secrets) != len(unique):
            raise ConfigurationError("POSTHOUSE_SECRET_KEY: two secrets have the same tag; replace one of them")

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self.tags)})"

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the secrets, the writing one first."""
        return tuple(self._secrets)

    def writing(self, purpose: str) -> DerivedKey:
        """Return the key that new values of this purpose are written with."""
        tag = next(iter(self._secrets))
        return DerivedKey(tag, self._key(purpose, tag))

    def reading(self, purpose: str) -> tuple[DerivedKey, ...]:
        """Return every key of this purpose, the writing one first."""
        return tuple(DerivedKey(tag, self._key(purpose, tag)) for tag in self._secrets)

    def tagged(self, purpose: str, tag: str) -> bytes:
        """Return the 32-byte key of a purpose by the tag that a stored value carries.

        Raises:
            SecretUnreadable: no configured secret has this tag.
        """
        if tag not in self._secrets:
            raise SecretUnreadable(
                f"a stored value was written with the secret {tag[:TAG_CHARS]!r}, which POSTHOUSE_SECRET_KEY no longer holds; "
                f"add that secret again (known are {', '.join(self.tags)})"
            )
        return self._key(purpose, tag)

    def _key(self, purpose: str, tag: str) -> bytes:
        known = self._derived.get((purpose, tag))
        if known is None:
            known = self._derived[purpose, tag] = derive(purpose, self._secrets[tag])
        return known

"""DKIM signatures: the keys of sending domains, unsealed once, and what was computed of a message, for all its recipients.

The body of a message is hashed once, however many recipients, attempts and keys it has, and its recipients share its signatures
for some minutes: the bytes they get are the same. A large body is hashed in a thread, piece by piece, so that other sessions get
their turn. Each attempt after that is signed anew, so that a signature is as young as its attempt and cannot expire in our queue.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from shared.clock import Monotonic, monotonic
from shared.db.dkim_keys import SealedDkimKey, signing_of
from shared.db.engine import Pool
from shared.errors import PosthouseError, SecretUnreadable
from shared.mail.dkim import DkimKey, Signer, body_hash, sign
from shared.security.keys import KeyRing
from shared.security.sealing import unseal

_REMEMBER_SECONDS = 60.0
_CAPACITY = 10_000
_MESSAGES = 4_096
"""Remembered; with its signatures a message takes two kilobytes."""
_SHARED_SECONDS = 300.0
_LOOP_MAY_HASH = 64 * 1024
_PIECE = 64 * 1024

_log = structlog.get_logger(__name__)


class NoUsableKey(PosthouseError):
    """The domain requires DKIM signatures, and none of its keys can sign now."""

    code = "no_usable_key"


@dataclass(frozen=True, slots=True)
class _Known:
    """How the mail of a domain is signed."""

    keys: tuple[SealedDkimKey, ...]
    signers: tuple[Signer, ...]
    """Of those keys that can be opened."""
    required: bool
    expires_after: timedelta | None
    until: float


@dataclass(slots=True)
class _Work:
    """What was computed of a message."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    body_hash: bytes | None = None
    signature: bytes = b""
    signed_by: tuple[Signer, ...] = ()
    expires_after: timedelta | None = None
    shared_until: float = 0.0


class Signers:
    """Signs the mail of a process."""

    def __init__(self, pool: Pool, ring: KeyRing, clock: Monotonic = monotonic) -> None:
        self._pool = pool
        self._ring = ring
        self._clock = clock
        self._known: dict[tuple[int, str], _Known] = {}
        self._work: OrderedDict[int, _Work] = OrderedDict()
        self._loading = asyncio.Lock()

    def forget(self) -> None:
        """Look keys up again: somebody changed them."""
        self._known.clear()

    async def signature(
        self, account_id: int, domain: str, message: "ToSign", content: bytes, *, now: datetime
    ) -> bytes:
        """Return the DKIM-Signature fields of a message, empty where its domain has no key.

        Args:
            account_id: whose mail it is.
            domain: of the From address, as A-label.
            message: which one; its bytes never change.
            content: the whole message.
            now: the time of signing.

        Raises:
            NoUsableKey: there is no key, and the domain's mail must be signed.
            ValidationFailed: the header cannot be signed.
        """
        known = await self._signing(account_id, domain)
        if not known.signers:
            if known.required:
                raise NoUsableKey
            return b""
        work = self._remembered(message.id)
        async with work.lock:  # of many sessions with the same message one computes
            if not self._may_share(work, known):
                if work.body_hash is None:
                    work.body_hash = await _hash(content, message.header_size + 2)
                work.signature = sign(
                    known.signers,
                    content[: message.header_size],
                    work.body_hash,
                    now=now,
                    expires_after=known.expires_after,
                )
                work.signed_by, work.expires_after = known.signers, known.expires_after
                work.shared_until = self._clock() + _SHARED_SECONDS
            return work.signature

    def _may_share(self, work: _Work, known: _Known) -> bool:
        same = work.signed_by is known.signers and work.expires_after == known.expires_after
        return same and work.shared_until > self._clock()

    def _remembered(self, message_id: int) -> _Work:
        work = self._work.get(message_id)
        if work is None:
            work = self._work[message_id] = _Work()
            if len(self._work) > _MESSAGES:
                self._work.popitem(last=False)  # whoever works on it has hold of it
        self._work.move_to_end(message_id)
        return work

    async def _signing(self, account_id: int, domain: str) -> _Known:
        known = self._known.get((account_id, domain))
        if known is not None and known.until > self._clock():
            return known
        async with self._loading:  # one of many sessions asks
            known = self._known.get((account_id, domain))
            if known is not None and known.until > self._clock():
                return known
            async with self._pool.acquire() as connection:
                signing = await signing_of(connection, account_id, domain)
            if known is not None and known.keys == signing.keys:
                signers = known.signers  # opened once; their signatures go on being shared
            else:
                signers = tuple(signer for key in signing.keys if (signer := self._signer(key)) is not None)
            if len(self._known) >= _CAPACITY:
                self._known.clear()
            until = self._clock() + _REMEMBER_SECONDS
            known = _Known(signing.keys, signers, signing.required, signing.expires_after, until)
            self._known[account_id, domain] = known
            return known

    def _signer(self, key: SealedDkimKey) -> Signer | None:
        try:
            pem = unseal(self._ring, key.sealed, context=key.context)
        except SecretUnreadable:
            _log.error(
                "dkim_key_unreadable",
                dkim_key_id=key.id,
                domain=key.domain,
                consequence="mail goes out without this signature, or waits where signatures are required",
            )
            return None
        return Signer(DkimKey(key.domain, key.selector, key.algorithm, pem))


@dataclass(frozen=True, slots=True)
class ToSign:
    """A stored message that is to be signed."""

    id: int
    header_size: int
    """How many of its first bytes are header fields; the empty line follows."""


async def _hash(content: bytes, start: int) -> bytes:
    if len(content) - start <= _LOOP_MAY_HASH:
        return body_hash([content[start:]])
    return await asyncio.to_thread(body_hash, _pieces(content, start))


def _pieces(content: bytes, start: int) -> Iterator[bytes]:
    for place in range(start, len(content), _PIECE):
        yield content[place : place + _PIECE]

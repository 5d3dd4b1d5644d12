"""DKIM signers of sending domains, loaded and unsealed once and remembered for a minute."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import structlog

from shared.clock import Monotonic, monotonic
from shared.db.domains import signing_keys
from shared.db.engine import Pool
from shared.errors import SecretUnreadable
from shared.mail.dkim import DkimKey, Signer, body_hash, sign
from shared.security.keys import KeyRing
from shared.security.sealing import unseal

_REMEMBER_SECONDS = 60.0
_CAPACITY = 10_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    signers: tuple[Signer, ...]
    until: float


class Signers:
    """Signs the mail of a process."""

    def __init__(self, pool: Pool, ring: KeyRing, clock: Monotonic = monotonic) -> None:
        self._pool = pool
        self._ring = ring
        self._clock = clock
        self._known: dict[tuple[int, str], _Known] = {}
        self._loading = asyncio.Lock()

    def forget(self) -> None:
        """Look keys up again: somebody changed them."""
        self._known.clear()

    async def signature(
        self, account_id: int, domain: str, content: bytes, header_size: int, *, now: datetime
    ) -> bytes:
        """Return the DKIM-Signature fields of a message, empty where its domain has no key.

        Args:
            account_id: whose mail it is.
            domain: of the From address, as A-label.
            content: the whole message.
            header_size: how many of its first bytes are header fields; the empty line follows.
            now: the time of signing.
        """
        signers = await self._signers(account_id, domain)
        if not signers:
            return b""
        return sign(signers, content[:header_size], body_hash([content[header_size + 2 :]]), now=now)

    async def _signers(self, account_id: int, domain: str) -> tuple[Signer, ...]:
        known = self._known.get((account_id, domain))
        if known is not None and known.until > self._clock():
            return known.signers
        async with self._loading:  # one of many sessions asks
            known = self._known.get((account_id, domain))
            if known is not None and known.until > self._clock():
                return known.signers
            async with self._pool.acquire() as connection:
                sealed = await signing_keys(connection, account_id, domain)
            signers = []
            for key in sealed:
                try:
                    pem = unseal(self._ring, key.sealed, context=key.context)
                except SecretUnreadable:
                    _log.error(
                        "dkim_key_unreadable",
                        dkim_key_id=key.id,
                        domain=domain,
                        consequence="mail goes out without this signature",
                    )
                    continue
                signers.append(Signer(DkimKey(key.domain, key.selector, key.algorithm, pem)))
            if len(self._known) >= _CAPACITY:
                self._known.clear()
            self._known[account_id, domain] = _Known(tuple(signers), self._clock() + _REMEMBER_SECONDS)
            return tuple(signers)

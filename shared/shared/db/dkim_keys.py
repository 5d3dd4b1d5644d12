"""DKIM keys of domains: made, switched on and off, removed; and what signs an account's mail from a domain."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs
from shared.db.domains import get_domain, lock_domain
from shared.db.engine import Connection
from shared.errors import Conflict, NotFound, SecretUnreadable
from shared.mail.address import parse_domain
from shared.mail.dkim import dns_record, generate_key
from shared.models import DkimKey, Domain
from shared.security.keys import KeyRing
from shared.security.sealing import seal, unseal

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]
SELECTORS: dict[Algorithm, str] = {"ed25519-sha256": "posthouse-ed25519", "rsa-sha256": "posthouse-rsa"}
MOST_KEYS = 20
"""Of a domain; each active one adds a signature to each mail."""
MOST_ACTIVE = 4


async def create_dkim_key(
    session: AsyncSession,
    ring: KeyRing,
    domain: Domain,
    algorithm: Algorithm,
    *,
    selector: str | None = None,
    active: bool = True,
) -> DkimKey:
    """Make a key of a domain; an active one signs as soon as the transaction commits.

    Raises:
        AddressInvalid: the selector is no DNS name.
        Conflict: the domain has a key under this selector already, or too many keys.
    """
    name = parse_domain(SELECTORS[algorithm] if selector is None else selector, field="selector")
    pem = await asyncio.to_thread(generate_key, algorithm)  # RSA: a tenth of a second of processor time
    await lock_domain(session, domain.account_id, domain.id)
    await _check_room(session, domain, active=active)
    statement = insert(DkimKey).values(
        domain_id=domain.id,
        selector=name,
        algorithm=algorithm,
        private_key_sealed=seal(ring, pem, context=_context(domain.id, name)),
        dns_record=dns_record(pem),
        active=active,
    )
    row: DkimKey | None = await session.scalar(statement.on_conflict_do_nothing().returning(DkimKey))
    if row is None:
        raise Conflict(f"{domain.name} has a key with the selector {name} already", field="selector")
    return row


async def _check_room(session: AsyncSession, domain: Domain, *, active: bool) -> None:
    keys = await _keys(session, domain)
    if len(keys) >= MOST_KEYS:
        raise Conflict(f"{domain.name} has {len(keys)} keys already: remove those that no mail under way needs")
    if active:
        _check_active(domain, keys)


def _check_active(domain: Domain, keys: list[DkimKey]) -> None:
    if sum(key.active for key in keys) >= MOST_ACTIVE:
        raise Conflict(f"{domain.name} has {MOST_ACTIVE} active keys, each of which signs: deactivate one first")


async def list_dkim_keys(session: AsyncSession, account_id: int, domain_id: int) -> list[DkimKey]:
    """Return the keys of a domain of an account, the oldest first, inactive ones too.

    Raises:
        NotFound: the account has no such domain.
    """
    return await _keys(session, await get_domain(session, account_id, domain_id))


async def _keys(session: AsyncSession, domain: Domain) -> list[DkimKey]:
    rows = await session.scalars(select(DkimKey).where(col(DkimKey.domain_id) == domain.id).order_by(col(DkimKey.id)))
    return list(rows)


async def set_dkim_key_active(
    session: AsyncSession, account_id: int, domain_id: int, key_id: int, *, active: bool
) -> DkimKey:
    """Have a key sign from now on, or no longer; a second time changes nothing.

    Raises:
        NotFound: the account has no such domain, or the domain no such key.
        Conflict: enough keys sign already, or none would while the domain requires signatures.
    """
    domain = await lock_domain(session, account_id, domain_id)
    keys = await _keys(session, domain)
    key = _find(keys, key_id)
    if key.active == active:
        return key
    if active:
        _check_active(domain, keys)
    elif domain.dkim_required and sum(other.active for other in keys) == 1:
        raise Conflict(
            f"{domain.name} requires signatures, and this is its only active key: activate another, or require none"
        )
    await session.execute(update(DkimKey).where(col(DkimKey.id) == key.id).values(active=active))
    await session.refresh(key)
    return key


async def remove_dkim_key(session: AsyncSession, account_id: int, domain_id: int, key_id: int) -> None:
    """Remove a key for good.

    Raises:
        NotFound: the account has no such domain, or the domain no such key.
        Conflict: it is active.
    """
    domain = await lock_domain(session, account_id, domain_id)
    key = _find(await _keys(session, domain), key_id)
    if key.active:
        raise Conflict("this key signs; deactivate it, and remove it once the mail that it signed has arrived")
    await session.delete(key)
    await session.flush()


def _find(keys: list[DkimKey], key_id: int) -> DkimKey:
    number = inputs.row_id(key_id, "DKIM key")
    for key in keys:
        if key.id == number:
            return key
    raise NotFound(f"there is no DKIM key {key_id} at this domain")


@dataclass(frozen=True, slots=True)
class SigningWarning:
    """Something about the signatures of a domain that its owner should know."""

    code: Literal["unsigned", "only_ed25519", "key_unreadable"]
    text: str


def signing_warnings(ring: KeyRing, domain: Domain, keys: list[DkimKey]) -> list[SigningWarning]:
    """Return what is not as it should be with the signatures of a domain."""
    usable, warnings = [], []
    for key in keys:
        if not key.active:
            continue
        try:
            unseal(ring, key.private_key_sealed, context=_context(domain.id, key.selector))
        except SecretUnreadable as error:
            text = f"the key {key.selector} cannot be opened and does not sign: {error.message}"
            warnings.append(SigningWarning("key_unreadable", text))
        else:
            usable.append(key)
    if not usable:
        then = "is not sent, because the domain requires signatures" if domain.dkim_required else "goes out unsigned"
        warnings.insert(0, SigningWarning("unsigned", f"no DKIM key can sign: mail from {domain.name} {then}"))
    elif all(key.algorithm == "ed25519-sha256" for key in usable):
        # RFC 8463 section 5: a verifier that does not know the algorithm sees an unsigned mail.
        text = "only Ed25519 signs, which many receivers do not verify: activate an RSA key as well"
        warnings.append(SigningWarning("only_ed25519", text))
    return warnings


@dataclass(frozen=True, slots=True)
class SealedDkimKey:
    """A signing key as it is stored; ``unseal(ring, sealed, context=context)`` gives the PEM."""

    id: int
    domain: str
    selector: str
    algorithm: Algorithm
    sealed: str
    context: str


@dataclass(frozen=True, slots=True)
class Signing:
    """How an account's mail from a domain is signed."""

    keys: tuple[SealedDkimKey, ...] = ()
    """The active ones, the oldest first."""
    required: bool = False
    """Nothing may be sent unsigned."""
    expires_after: timedelta | None = None
    """How long a signature holds."""


_SIGNING = """
SELECT d.id AS domain_id, d.dkim_required, d.dkim_expires_after_seconds, k.id, k.selector, k.algorithm, k.private_key_sealed
FROM domain d LEFT JOIN dkim_key k ON k.domain_id = d.id AND k.active
WHERE d.account_id = $1 AND d.name = $2 ORDER BY k.id
"""


async def signing_of(connection: Connection, account_id: int, domain: str) -> Signing:
    """Return how an account's mail from a domain is signed: not at all where the domain is not the account's any more.

    The account is asked for because a domain may have moved to another one since the mail was accepted.
    """
    rows = await connection.fetch(_SIGNING, account_id, domain)
    if not rows:
        return Signing()
    keys = tuple(
        SealedDkimKey(
            row["id"],
            domain,
            row["selector"],
            row["algorithm"],
            row["private_key_sealed"],
            _context(row["domain_id"], row["selector"]),
        )
        for row in rows
        if row["id"] is not None
    )
    seconds = rows[0]["dkim_expires_after_seconds"]
    return Signing(keys, rows[0]["dkim_required"], None if seconds is None else timedelta(seconds=seconds))


def _context(domain_id: int, selector: str) -> str:
    return f"dkim_key.private_key:{domain_id}:{selector}"

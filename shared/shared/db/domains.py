"""Domains: added, proven by DNS, what is to be published for them; and the one rule of who may use which address in From."""

import base64
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging
from shared.db.engine import Connection
from shared.db.paging import Page
from shared.errors import Conflict, NotFound, ValidationFailed
from shared.mail.address import Address, canonical, parse_domain
from shared.models import Account, DkimKey, Domain

_SHORTEST_EXPIRY, _LONGEST_EXPIRY = 86_400, 366 * 86_400
_TOKEN_PREFIX = "posthouse-verification="  # noqa: S105 - the public half of a DNS record, not a secret
_SEPARATOR_CHARACTERS = frozenset("!#$%&'*+-/=?^_`{|}~")  # RFC 5322 3.2.3 atext without letters and digits
_MOST_SEPARATORS = 10
_LONGEST_SEPARATOR = 8
_CURSOR = "domain"


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A DNS record that the owner of a domain should publish."""

    name: str
    """Without a trailing dot."""
    type: Literal["TXT", "MX"]
    value: str
    """Of a TXT in one piece; a zone file needs it in strings of at most 255 octets (RFC 1035 3.3)."""
    purpose: str


class TxtLookup(Protocol):
    """The part of a resolver that proving a domain needs."""

    async def txt(self, name: str) -> list[str]:
        """Return the texts at a name; NotFound where there are none."""


async def create_domain(
    session: AsyncSession,
    account_id: int,
    name: str,
    *,
    separators: Sequence[str] = ("+",),
    bounce_domain: str | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> Domain:
    """Add a domain to an account, not verified yet.

    Args:
        session: the caller's transaction.
        account_id: whose it will be.
        name: the domain, in any spelling.
        separators: what begins the ignored suffix of a local part; from_ids follow the first.
        bounce_domain: where bounces come back to, when not to the sender's own address.
        random: makes the verification token.

    Raises:
        AddressInvalid, ValidationFailed: a name or a separator has no usable form.
        NotFound: there is no such account.
        Conflict: the account has this domain already.
    """
    if await session.get(Account, inputs.row_id(account_id, "account")) is None:
        raise NotFound(f"there is no account {account_id}")
    statement = insert(Domain).values(
        account_id=account_id,
        name=parse_domain(name, field="name"),
        verification_token=base64.b32encode(random(16)).decode().rstrip("=").lower(),
        catchall_separators=_checked_separators(separators),
        bounce_domain=parse_domain(bounce_domain, field="bounce_domain") if bounce_domain is not None else None,
    )
    row: Domain | None = await session.scalar(statement.on_conflict_do_nothing().returning(Domain))
    if row is None:
        raise Conflict("this account has this domain already", field="name")
    return row


def _checked_separators(separators: Sequence[str]) -> list[str]:
    ok = (
        1 <= len(separators) <= _MOST_SEPARATORS
        and len(set(separators)) == len(separators)
        and all(0 < len(s) <= _LONGEST_SEPARATOR and set(s) <= _SEPARATOR_CHARACTERS for s in separators)
    )
    if not ok:
        raise ValidationFailed(
            f"separators are 1 to {_MOST_SEPARATORS} different ones of up to {_LONGEST_SEPARATOR} characters, each of {''.join(sorted(_SEPARATOR_CHARACTERS))}",
            field="separators",
        )
    return list(separators)


async def get_domain(session: AsyncSession, account_id: int, domain_id: int) -> Domain:
    """Return a domain of an account.

    Raises:
        NotFound: the account has no such domain.
    """
    query = select(Domain).where(
        col(Domain.id) == inputs.row_id(domain_id, "domain"), col(Domain.account_id) == account_id
    )
    row = await session.scalar(query)
    if row is None:
        raise NotFound(f"there is no domain {domain_id} in this account")
    return row


async def find_domain(session: AsyncSession, account_id: int, name: str) -> Domain | None:
    """Return a domain of an account by its name in A-labels, lower-case."""
    query = select(Domain).where(col(Domain.account_id) == account_id, col(Domain.name) == name)
    return await session.scalar(query)


async def list_domains(
    session: AsyncSession, account_id: int, *, cursor: str | None = None, limit: int = 50
) -> Page[Domain]:
    """Return a page of the domains of an account, the oldest first."""
    size = inputs.page_size(limit)
    (after,) = paging.decode(_CURSOR, cursor) if cursor else (0,)
    query = select(Domain).where(col(Domain.account_id) == account_id, col(Domain.id) > after)
    rows = await session.scalars(query.order_by(col(Domain.id)).limit(size + 1))
    return paging.page(_CURSOR, [(row.id, row) for row in rows], size)


async def set_domain_disabled(session: AsyncSession, account_id: int, domain_id: int, *, disabled: bool) -> Domain:
    """Stop or resume all sending from a domain.

    Raises:
        NotFound: the account has no such domain.
    """
    row = await get_domain(session, account_id, domain_id)
    first = func.coalesce(col(Domain.disabled_at), func.now())
    statement = update(Domain).where(col(Domain.id) == row.id).values(disabled_at=first if disabled else None)
    await session.execute(statement)
    await session.refresh(row)
    return row


class SigningChange(TypedDict, total=False):
    """What of a domain's signatures shall be otherwise."""

    dkim_required: bool
    """Mail is refused rather than sent unsigned."""
    dkim_expires_after_seconds: int | None
    """How long a signature holds; None: it does not expire."""


async def change_signing(session: AsyncSession, account_id: int, domain_id: int, change: SigningChange) -> Domain:
    """Change how the mail of a domain is signed.

    Raises:
        NotFound: the account has no such domain.
        ValidationFailed: a signature would hold for too short or too long.
        Conflict: signatures are to be required, and no key is active.
    """
    row = await lock_domain(session, account_id, domain_id)
    seconds = change.get("dkim_expires_after_seconds")
    if seconds is not None and not _SHORTEST_EXPIRY <= seconds <= _LONGEST_EXPIRY:
        raise ValidationFailed(
            f"a signature holds for {_SHORTEST_EXPIRY} to {_LONGEST_EXPIRY} seconds (a day to a year), or for ever",
            field="dkim_expires_after_seconds",
        )
    if change.get("dkim_required"):
        active = select(col(DkimKey.id)).where(col(DkimKey.domain_id) == row.id, col(DkimKey.active))
        if await session.scalar(active.limit(1)) is None:
            raise Conflict(f"{row.name} has no active DKIM key: activate one first", field="dkim_required")
    if change:
        await session.execute(update(Domain).where(col(Domain.id) == row.id).values(**change))
        await session.refresh(row)
    return row


async def lock_domain(session: AsyncSession, account_id: int, domain_id: int) -> Domain:
    """Return a domain of an account, which nobody else changes until the caller's transaction ends; raises as :func:`get_domain`."""
    row = await get_domain(session, account_id, domain_id)
    await session.refresh(row, with_for_update=True)
    return row


async def delete_domain(session: AsyncSession, account_id: int, domain_id: int) -> None:
    """Remove a domain with its keys and addresses; mail already accepted is still sent, unsigned.

    Raises:
        NotFound: the account has no such domain.
    """
    await session.delete(await get_domain(session, account_id, domain_id))
    await session.flush()


async def is_proven(domain: Domain, resolver: TxtLookup) -> bool:
    """Ask DNS whether the owner of the domain published our token. Network: call it outside any transaction.

    Raises:
        Unavailable: DNS does not answer for now.
    """
    try:
        texts = await resolver.txt(f"_posthouse.{domain.name}")
    except NotFound:
        return False
    return any(text.strip() == _TOKEN_PREFIX + domain.verification_token for text in texts)


async def mark_verified(session: AsyncSession, account_id: int, domain_id: int) -> Domain:
    """Note that a domain is proven (:func:`is_proven`); a second time changes nothing.

    Raises:
        NotFound: the account has no such domain.
        Conflict: another account has proven it before.
    """
    row = await get_domain(session, account_id, domain_id)
    if row.verified_at is None:
        try:
            async with session.begin_nested():
                await session.execute(update(Domain).where(col(Domain.id) == row.id).values(verified_at=func.now()))
        except IntegrityError:  # domain_verified, the unique index: nothing else here can be violated
            raise Conflict(
                f"another account has proven {row.name} already; it must be removed there first", field="name"
            ) from None
        await session.refresh(row)
    return row


def dns_records(domain: Domain, keys: Sequence[DkimKey], hostname: str) -> list[DnsRecord]:
    """Return what the owner of a domain should publish; ``hostname`` is this installation's own name."""
    bounces = domain.bounce_domain or domain.name
    mx_advice = "Bounces and complaints come back to us"
    if domain.bounce_domain is None:
        mx_advice += "; only if the domain receives no other mail, else give it a bounce domain"
    return [
        DnsRecord(
            f"_posthouse.{domain.name}",
            "TXT",
            _TOKEN_PREFIX + domain.verification_token,
            "Proves that the domain is yours",
        ),
        *(DnsRecord(f"{key.selector}._domainkey.{domain.name}", "TXT", key.dns_record, _purpose(key)) for key in keys),
        # RFC 7208 3.2: a domain has at most one SPF record, so a second one would break the first.
        DnsRecord(
            bounces,
            "TXT",
            f"v=spf1 a:{hostname} ~all",
            f"SPF (RFC 7208); where there is a record already, add a:{hostname} to it",
        ),
        DnsRecord(
            f"_dmarc.{domain.name}",
            "TXT",
            "v=DMARC1; p=none",
            "DMARC; tighten to p=quarantine or p=reject once all your mail passes",
        ),
        DnsRecord(bounces, "MX", f"10 {hostname}", mx_advice),
    ]


def _purpose(key: DkimKey) -> str:
    purpose = f"DKIM, {key.algorithm} (RFC 6376 3.6.2)"
    if not key.active:
        purpose += "; signs nothing now: publish it before it does, keep it while mail that it signed is under way"
    return purpose


@dataclass(frozen=True, slots=True)
class SenderDomain:
    """What submitting needs to know of the domain in From."""

    id: int
    name: str
    separators: tuple[str, ...]
    bounce_domain: str | None
    disabled: bool
    """The sender may use the address, and nothing may be sent from its domain right now."""
    unsigned: bool = False
    """Its mail must be signed, and no key is active."""


_SENDER = """
SELECT d.id, d.name, d.catchall_separators, d.bounce_domain, d.disabled_at IS NOT NULL AS disabled,
    d.dkim_required AND NOT EXISTS (SELECT FROM dkim_key k WHERE k.domain_id = d.id AND k.active) AS unsigned,
    ARRAY(SELECT a.local FROM address a WHERE a.domain_id = d.id AND a.account_id = $1 AND a.local = ANY ($4::text[])) AS locals
FROM domain d WHERE d.account_id = $1 AND d.name = $2
    AND (d.verified_at IS NOT NULL OR ($3 AND NOT EXISTS (SELECT FROM domain o WHERE o.name = d.name AND o.verified_at IS NOT NULL)))
"""


async def sender_allowed(
    connection: Connection, account_id: int, kind: str, address: Address, *, unverified: bool = False
) -> SenderDomain | None:
    """Say whether a credential of an account may use an address in From.

    Args:
        connection: any; one query.
        account_id: whose credential it is.
        kind: ``api_key`` may use any address at a verified domain of the account; ``login`` the addresses of the account
            with any +suffix, and every address of a domain with an ``@domain`` entry.
        address: the address in From.
        unverified: True only in local mode: domains need no proof; but one that another account has proven stays its own.

    Returns:
        The domain, which may be disabled; None where the address may not be used.
    """
    local = address.local.lower()
    # Which separators count is known once the domain is read; every possible cut is asked for at once.
    cuts = [local[:length] for length in range(len(local) + 1)]
    row = await connection.fetchrow(_SENDER, account_id, address.domain, unverified, cuts)
    if row is None:
        return None
    if kind != "api_key":
        base = canonical(Address(local, address.domain), row["catchall_separators"]).local
        if "" not in row["locals"] and base not in row["locals"]:
            return None
    return SenderDomain(
        row["id"],
        row["name"],
        tuple(row["catchall_separators"]),
        row["bounce_domain"],
        row["disabled"],
        row["unsigned"],
    )


async def is_received_here(connection: Connection, domain: str) -> bool:
    """Say whether mail for a domain, whoever's it is, ends at this installation."""
    query = "SELECT EXISTS (SELECT FROM domain WHERE (name = $1 OR bounce_domain = $1) AND verified_at IS NOT NULL)"
    return bool(await connection.fetchval(query, domain))

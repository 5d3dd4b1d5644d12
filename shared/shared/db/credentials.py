"""API keys and logins: made, found, revoked. What is stored of a secret is a hash; the secret itself is returned once."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db import inputs, paging
from shared.db.engine import Connection
from shared.db.paging import Page
from shared.errors import Conflict, NotFound, ValidationFailed
from shared.mail.address import Address, canonical, parse
from shared.models import Account, Credential, Domain
from shared.security.credentials import ApiKey, hash_password, key_hash, new_api_key, scram_verifier
from shared.security.keys import KeyRing

_BOOTSTRAP_LOCK = 0x6F706572  # "oper"
_NAME_CHARACTERS = 200
_CURSOR = "credential"

_COLUMNS = (
    "c.id, c.account_id, c.kind, c.role, c.public_id, c.key_hash, c.password_hash, c.scram_sha_256, c.uses_from_ids,"
    " c.is_test, c.expires_at, c.revoked_at, a.disabled_at AS account_disabled_at"
)
_FIND = f"""
SELECT {_COLUMNS} FROM credential c LEFT JOIN account a ON a.id = c.account_id
WHERE c.public_id = $1
"""
_FIND_SUFFIXED = f"""
SELECT {_COLUMNS}, d.catchall_separators FROM credential c JOIN account a ON a.id = c.account_id
JOIN domain d ON d.account_id = c.account_id AND d.name = $2 AND d.verified_at IS NOT NULL
WHERE c.kind = 'login' AND c.public_id = ANY ($1::text[])
"""


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A credential as authentication needs it."""

    id: int
    account_id: int | None
    """None for an operator."""
    kind: str
    """``api_key`` or ``login``."""
    role: str
    """``account`` or ``operator``."""
    public_id: str
    key_hash: str | None = field(repr=False)
    password_hash: str | None = field(repr=False)
    scram_sha_256: str = field(repr=False)
    uses_from_ids: bool
    is_test: bool
    expires_at: datetime | None
    revoked_at: datetime | None
    account_disabled_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Say whether it may still be used; whether its account is disabled is another question with another answer."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


async def find_credential(connection: Connection, public_id: str) -> CredentialRow | None:
    """Return a credential by its key id or login (:func:`login_id`), revoked ones too; None where there is none.

    Text that Postgres cannot hold is no credential of ours.
    """
    if "\x00" in public_id or not public_id.isprintable():
        return None
    row = await connection.fetchrow(_FIND, public_id)
    return CredentialRow(**dict(row)) if row is not None else None


async def find_suffixed_login(connection: Connection, address: Address) -> CredentialRow | None:
    """Return the login that an address with a suffix is a spelling of: it is cut at the separators of its domain.

    A login made with that very suffix comes first; ask :func:`find_credential` for it.
    """
    local = address.local.lower()
    # Which separators count is known once the domain is read; every possible cut is asked for at once.
    cuts = [Address(local[:length], address.domain).text for length in range(1, len(local))]
    for row in await connection.fetch(_FIND_SUFFIXED, cuts, address.domain):
        values = dict(row)
        if values["public_id"] == canonical(Address(local, address.domain), values.pop("catchall_separators")).text:
            return CredentialRow(**values)
    return None


def login_id(login: str) -> str:
    """Return what a login is stored and found under: the address in its canonical spelling, lower-case.

    Raises:
        AddressInvalid: a login is an address, and this is none.
    """
    address = parse(login, field="login")
    return Address(address.local.lower(), address.domain).text


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """What may be said of a new API key."""

    name: str = ""
    uses_from_ids: bool = True
    expires_at: datetime | None = None
    is_test: bool = False
    """A sandbox key: what is handed in with it goes nowhere."""
    key: ApiKey | None = None
    """The key itself where the caller keeps it; None: a new one."""


async def create_api_key(
    session: AsyncSession, ring: KeyRing, account_id: int, options: KeyOptions | None = None
) -> tuple[Credential, str]:
    """Make an API key of an account; return its row and the key, which cannot be shown again.

    Raises:
        NotFound: there is no such account.
        Conflict: a given key exists already.
        ValidationFailed: the name is too long.
    """
    if await session.get(Account, inputs.row_id(account_id, "account")) is None:
        raise NotFound(f"there is no account {account_id}")
    return await _create_key(session, ring, account_id, options or KeyOptions())


async def create_operator_key(
    session: AsyncSession, ring: KeyRing, options: KeyOptions | None = None
) -> tuple[Credential, str]:
    """Make an API key of an operator, who belongs to no account; else as :func:`create_api_key`."""
    return await _create_key(session, ring, None, options or KeyOptions())


async def _create_key(
    session: AsyncSession, ring: KeyRing, account_id: int | None, options: KeyOptions
) -> tuple[Credential, str]:
    key = options.key or new_api_key(is_test=options.is_test)
    verifier = await asyncio.to_thread(scram_verifier, key.text)
    statement = insert(Credential).values(
        account_id=account_id,
        kind="api_key",
        role="operator" if account_id is None else "account",
        public_id=key.key_id,
        name=inputs.text(options.name, field="name", longest=_NAME_CHARACTERS),
        key_hash=key_hash(ring, key.secret),
        scram_sha_256=verifier,
        uses_from_ids=options.uses_from_ids,
        is_test=key.is_test,
        expires_at=options.expires_at,
    )
    row: Credential | None = await session.scalar(statement.on_conflict_do_nothing().returning(Credential))
    if row is None:
        raise Conflict(f"an API key with the id {key.key_id} exists already")
    return row, key.text


async def create_login(
    session: AsyncSession, account_id: int, login: str, password: str, *, uses_from_ids: bool = True
) -> Credential:
    """Make a login with a password.

    Args:
        session: the caller's transaction.
        account_id: whose it will be.
        login: an address at a verified domain of the account; a +suffix makes a login of its own.
        password: 1 to 1,024 characters.
        uses_from_ids: whether mail handed in by it gets a from_id in MAIL FROM.

    Raises:
        AddressInvalid, ValidationFailed: login or password have no usable form, or the domain is not the account's.
        Conflict: the login exists already.
    """
    public_id = login_id(login)
    domain = public_id.rpartition("@")[2]
    owned = select(col(Domain.id)).where(
        col(Domain.account_id) == account_id, col(Domain.name) == domain, col(Domain.verified_at).is_not(None)
    )
    if await session.scalar(owned) is None:
        raise ValidationFailed(
            f"a login is an address at a verified domain of its account; {domain} is none", field="login"
        )
    password_hash, verifier = await _hashes(password)
    statement = insert(Credential).values(
        account_id=account_id,
        kind="login",
        role="account",
        public_id=public_id,
        password_hash=password_hash,
        scram_sha_256=verifier,
        uses_from_ids=uses_from_ids,
    )
    row: Credential | None = await session.scalar(statement.on_conflict_do_nothing().returning(Credential))
    if row is None:
        raise Conflict("this login exists already", field="login")
    return row


async def change_password(session: AsyncSession, account_id: int, credential_id: int, password: str) -> None:
    """Give a login another password.

    Raises:
        NotFound: the account has no such login.
        ValidationFailed: the password has no usable form.
    """
    password_hash, verifier = await _hashes(password)
    statement = (
        update(Credential)
        .where(
            col(Credential.id) == inputs.row_id(credential_id, "login"),
            col(Credential.account_id) == account_id,
            col(Credential.kind) == "login",
        )
        .values(password_hash=password_hash, scram_sha_256=verifier)
        .returning(col(Credential.id))
    )
    if await session.scalar(statement) is None:
        raise NotFound(f"there is no login {credential_id} in this account")


async def _hashes(password: str) -> tuple[str, str]:
    # Both cost processor time (15 and 2 ms); the event loop goes on meanwhile.
    password_hash = await asyncio.to_thread(hash_password, password)
    return password_hash, await asyncio.to_thread(scram_verifier, password)


async def list_credentials(
    session: AsyncSession, account_id: int, *, cursor: str | None = None, limit: int = 50
) -> Page[Credential]:
    """Return a page of the keys and logins of an account, the oldest first, revoked ones too."""
    return await _list(session, account_id, cursor, limit)


async def operator_list_credentials(
    session: AsyncSession, *, cursor: str | None = None, limit: int = 50
) -> Page[Credential]:
    """Return a page of the operators' keys, the oldest first, revoked ones too."""
    return await _list(session, None, cursor, limit)


async def _list(session: AsyncSession, account_id: int | None, cursor: str | None, limit: int) -> Page[Credential]:
    size = inputs.page_size(limit)
    (after,) = paging.decode(_CURSOR, cursor) if cursor else (0,)
    owner = col(Credential.account_id).is_(None) if account_id is None else col(Credential.account_id) == account_id
    query = select(Credential).where(owner, col(Credential.id) > after).order_by(col(Credential.id)).limit(size + 1)
    return paging.page(_CURSOR, [(row.id, row) for row in await session.scalars(query)], size)


async def revoke(session: AsyncSession, account_id: int, credential_id: int) -> Credential:
    """Make a key or login of an account useless from now on; a second time changes nothing.

    Raises:
        NotFound: the account has no such credential.
    """
    return await _revoke(session, account_id, credential_id)


async def operator_revoke(session: AsyncSession, credential_id: int) -> Credential:
    """Make any key or login useless from now on.

    Raises:
        NotFound: there is no such credential.
    """
    return await _revoke(session, None, credential_id)


async def _revoke(session: AsyncSession, account_id: int | None, credential_id: int) -> Credential:
    statement = update(Credential).where(col(Credential.id) == inputs.row_id(credential_id, "credential"))
    if account_id is not None:
        statement = statement.where(col(Credential.account_id) == account_id)
    first = func.coalesce(col(Credential.revoked_at), func.now())
    row: Credential | None = await session.scalar(
        statement.values(revoked_at=first).returning(Credential), execution_options={"populate_existing": True}
    )
    if row is None:
        raise NotFound(f"there is no credential {credential_id}" + ("" if account_id is None else " in this account"))
    return row


async def bootstrap_operator(session: AsyncSession, ring: KeyRing) -> str | None:
    """Make the first operator key and return it; None where an operator key was ever made.

    Two callers at once: one makes it, the other waits for that commit and gets None.
    """
    await session.execute(select(func.pg_advisory_xact_lock(_BOOTSTRAP_LOCK)))
    if await session.scalar(select(col(Credential.id)).where(col(Credential.role) == "operator").limit(1)) is not None:
        return None
    _, key = await create_operator_key(session, ring, KeyOptions(name="bootstrap"))
    return key

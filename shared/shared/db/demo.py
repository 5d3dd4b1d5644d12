"""The demo account of the local stack. What it promises stands in ``posthouse local``'s documentation."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shared.db.accounts import AccountOptions, add_address, create_account
from shared.db.credentials import (
    KeyOptions,
    change_password,
    create_api_key,
    create_login,
    create_operator_key,
    login_id,
)
from shared.db.dkim_keys import SELECTORS, create_dkim_key, list_dkim_keys
from shared.db.domains import create_domain, find_domain, mark_verified
from shared.errors import ConfigurationError, Conflict
from shared.mail.address import parse
from shared.models import Account, Credential, Domain
from shared.security.credentials import ApiKey, key_matches, password_matches, split_api_key
from shared.security.keys import KeyRing

_DEMO_LOCK = 0x64656D6F  # "demo"
_ACCOUNT, _KEY_NAME, _OPERATOR_KEY_NAME = "demo", "demo", "posthouse local"


@dataclass(frozen=True, slots=True)
class DemoSecrets:
    """What the local stack keeps in its data folder; None where it has not kept a key yet."""

    login: str = "demo@posthouse.test"
    password: str = field(default="posthouse-demo", repr=False)
    account_key: str | None = field(default=None, repr=False)
    admin_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo account as it now is; keys and password open it."""

    account_id: int
    login: str
    password: str = field(repr=False)
    account_key: str = field(repr=False)
    admin_key: str = field(repr=False)


async def seed_demo(session: AsyncSession, ring: KeyRing, secrets: DemoSecrets) -> Demo:
    """Make the demo account and what belongs to it, or whatever of it is missing.

    The account keeps settled deliveries and calls for 72 hours, retries on mox's schedule, gets DSNs as mox writes them, and has
    no limits. Its domain is verified, with an Ed25519 and an RSA key. A key that was kept goes on working; where none was kept, or the database does
    not know it, there is a new row for it and the earlier key of the same name is revoked.

    Args:
        session: the caller's transaction. Two callers at once: one waits for the other.
        ring: hashes the keys and seals the DKIM keys.
        secrets: login and password wanted, keys as they were returned before.

    Raises:
        AddressInvalid, ValidationFailed: login or password have no usable form.
        ConfigurationError: a key that was kept is no API key, or the login belongs to another account.
    """
    await session.execute(select(func.pg_advisory_xact_lock(_DEMO_LOCK)))
    account = await session.scalar(select(Account).where(col(Account.name) == _ACCOUNT))
    if account is None:
        account = await create_account(session, _ACCOUNT, AccountOptions(retry_schedule="mox", dsn_to_sender=True))
    domain = await _domain(session, account.id, parse(secrets.login, field="login").domain)
    await _dkim_keys(session, ring, domain)
    with suppress(Conflict):  # it is there since an earlier start
        await add_address(session, account.id, secrets.login)
    await _login(session, account.id, secrets)
    account_key = await _key(session, ring, account.id, secrets.account_key)
    admin_key = await _key(session, ring, None, secrets.admin_key)
    return Demo(account.id, secrets.login, secrets.password, account_key, admin_key)


async def _domain(session: AsyncSession, account_id: int, name: str) -> Domain:
    domain = await find_domain(session, account_id, name)
    if domain is None:
        domain = await create_domain(session, account_id, name)
    return await mark_verified(session, account_id, domain.id)


async def _dkim_keys(session: AsyncSession, ring: KeyRing, domain: Domain) -> None:
    present = {key.algorithm for key in await list_dkim_keys(session, domain.account_id, domain.id) if key.active}
    for algorithm in SELECTORS:
        if algorithm not in present:
            await create_dkim_key(session, ring, domain, algorithm)


async def _login(session: AsyncSession, account_id: int, secrets: DemoSecrets) -> None:
    public_id = login_id(secrets.login)
    row = await session.scalar(select(Credential).where(col(Credential.public_id) == public_id))
    if row is None:
        await create_login(session, account_id, secrets.login, secrets.password)
        return
    if row.account_id != account_id:
        raise ConfigurationError(f"the login {public_id} belongs to account {row.account_id}, not to the demo account")
    if not await asyncio.to_thread(password_matches, row.password_hash, secrets.password):
        await change_password(session, account_id, row.id, secrets.password)
    if row.revoked_at is not None:
        await session.execute(update(Credential).where(col(Credential.id) == row.id).values(revoked_at=None))


async def _key(session: AsyncSession, ring: KeyRing, account_id: int | None, kept: str | None) -> str:
    """Return a working API key of the account (None: of an operator): the kept one where there is one."""
    given: ApiKey | None = None
    if kept is not None:
        given = split_api_key(kept)
        if given is None:
            raise ConfigurationError(
                "a key kept in the data folder is no API key; delete it there, and a new one is made"
            )
        row = await session.scalar(select(Credential).where(col(Credential.public_id) == given.key_id))
        if row is not None:
            usable = row.account_id == account_id and row.key_hash is not None and row.revoked_at is None
            if usable and key_matches(ring, row.key_hash or "", given.secret):
                return kept
            given = None  # its id is taken: by a key revoked on purpose, or by someone else's
    name = _OPERATOR_KEY_NAME if account_id is None else _KEY_NAME
    await session.execute(
        update(Credential)
        .where(
            col(Credential.account_id).is_not_distinct_from(account_id),
            col(Credential.kind) == "api_key",
            col(Credential.name) == name,
            col(Credential.revoked_at).is_(None),
        )
        .values(revoked_at=func.now())
    )
    options = KeyOptions(name=name, key=given)
    if account_id is None:
        return (await create_operator_key(session, ring, options))[1]
    return (await create_api_key(session, ring, account_id, options))[1]

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shared.db import accounts, credentials
from shared.db.credentials import KeyOptions
from shared.errors import AddressInvalid, Conflict, NotFound, ValidationFailed
from shared.models import Domain
from shared.security.credentials import key_matches, new_api_key, password_matches, split_api_key
from shared.security.keys import KeyRing

Sessions = async_sessionmaker[AsyncSession]
Raw = asyncpg.Connection
NOW = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)


async def test_a_key_is_shown_once_and_found_by_its_id(
    sessions: Sessions, connection: Raw, ring: KeyRing, domain: Domain
) -> None:
    expiry = NOW + timedelta(days=1)
    async with sessions() as session, session.begin():
        account_id = domain.account_id
        row, secret = await credentials.create_api_key(session, ring, account_id, KeyOptions("shop", expires_at=expiry))
    parts = split_api_key(secret)
    assert parts is not None
    found = await credentials.find_credential(connection, parts.key_id)
    assert found is not None
    assert (found.id, found.account_id, found.kind, found.role) == (row.id, account_id, "api_key", "account")
    assert key_matches(ring, found.key_hash or "", parts.secret)
    assert found.scram_sha_256.startswith("SCRAM-SHA-256$4096:")
    assert parts.secret not in repr(found)
    assert found.account_disabled_at is None
    assert found.is_valid(NOW)
    assert not found.is_valid(expiry)
    async with sessions() as session, session.begin():
        await accounts.set_account_disabled(session, account_id, disabled=True)
    disabled = await credentials.find_credential(connection, parts.key_id)
    assert disabled is not None
    assert disabled.account_disabled_at is not None


@pytest.mark.parametrize("public_id", ["", "nobody", "a\x00b", "a\ud800b", "x" * 100_000])
async def test_what_is_no_credential_is_not_found(connection: Raw, public_id: str) -> None:
    assert await credentials.find_credential(connection, public_id) is None


async def test_a_login_is_found_by_its_canonical_address(sessions: Sessions, connection: Raw, domain: Domain) -> None:
    async with sessions() as session, session.begin():
        account_id = domain.account_id
        row = await credentials.create_login(
            session, account_id, "Info@EXAMPLE.com", "secret word", uses_from_ids=False
        )
        await credentials.create_login(session, account_id, "info+bulk@example.com", "secret word")
        with pytest.raises(Conflict):
            await credentials.create_login(session, account_id, "INFO@example.com", "other")
        with pytest.raises(AddressInvalid):
            await credentials.create_login(session, account_id, "info", "other")
        with pytest.raises(ValidationFailed):
            await credentials.create_login(session, account_id, "info@elsewhere.example", "other")
        with pytest.raises(ValidationFailed):
            await credentials.create_login(session, account_id, "more@example.com", "")
    found = await credentials.find_credential(connection, credentials.login_id("inFo@example.COM"))
    assert found is not None
    assert (found.id, found.kind, found.uses_from_ids) == (row.id, "login", False)
    assert password_matches(found.password_hash, "secret word")


async def test_a_password_is_changed_by_its_account_only(
    sessions: Sessions, connection: Raw, domain: Domain, strange_domain: Domain
) -> None:
    async with sessions() as session, session.begin():
        account_id, stranger = domain.account_id, strange_domain.account_id
        login = await credentials.create_login(session, account_id, "a@example.com", "before")
        verifier = login.scram_sha_256
        with pytest.raises(NotFound):
            await credentials.change_password(session, stranger, login.id, "after")
        await credentials.change_password(session, account_id, login.id, "after")
    found = await credentials.find_credential(connection, "a@example.com")
    assert found is not None
    assert password_matches(found.password_hash, "after")
    assert found.scram_sha_256 != verifier


async def test_an_account_sees_and_revokes_its_own_only(
    sessions: Sessions, ring: KeyRing, domain: Domain, strange_domain: Domain
) -> None:
    async with sessions() as session, session.begin():
        account_id, stranger = domain.account_id, strange_domain.account_id
        mine, _ = await credentials.create_api_key(session, ring, account_id)
        theirs, _ = await credentials.create_api_key(session, ring, stranger)
        operator, _ = await credentials.create_operator_key(session, ring)
        assert [row.id for row in (await credentials.list_credentials(session, account_id)).items] == [mine.id]
        assert [row.id for row in (await credentials.operator_list_credentials(session)).items] == [operator.id]
        for other in (theirs.id, operator.id, 2**63):
            with pytest.raises(NotFound):
                await credentials.revoke(session, account_id, other)
        revoked_at = (await credentials.revoke(session, account_id, mine.id)).revoked_at
        assert revoked_at is not None
        assert (await credentials.revoke(session, account_id, mine.id)).revoked_at == revoked_at
        assert (await credentials.operator_revoke(session, theirs.id)).revoked_at is not None


async def test_a_given_key_is_used_once(sessions: Sessions, ring: KeyRing, domain: Domain) -> None:
    key = new_api_key()
    async with sessions() as session, session.begin():
        account_id = domain.account_id
        _, text = await credentials.create_api_key(session, ring, account_id, KeyOptions(key=key))
        assert text == key.text
        with pytest.raises(Conflict):
            await credentials.create_operator_key(session, ring, KeyOptions(key=key))
        with pytest.raises(NotFound):
            await credentials.create_api_key(session, ring, account_id + 1)


async def _bootstrap(sessions: Sessions, ring: KeyRing) -> str | None:
    async with sessions() as session, session.begin():
        return await credentials.bootstrap_operator(session, ring)


async def test_the_first_operator_key_is_made_once_whoever_asks(
    sessions: Sessions, connection: Raw, ring: KeyRing
) -> None:
    answers = await asyncio.gather(*(_bootstrap(sessions, ring) for _ in range(5)))
    made = [answer for answer in answers if answer is not None]
    assert len(made) == 1
    parts = split_api_key(made[0])
    assert parts is not None
    found = await credentials.find_credential(connection, parts.key_id)
    assert found is not None
    assert (found.role, found.account_id) == ("operator", None)
    assert await _bootstrap(sessions, ring) is None

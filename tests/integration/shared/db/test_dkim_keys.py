"""DKIM keys come and go without a gap; what signs, and whether it must, is one question."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fakes.waiting import eventually
from shared.db import dkim_keys, domains
from shared.db.dkim_keys import MOST_ACTIVE, MOST_KEYS, Signing
from shared.errors import AddressInvalid, Conflict, NotFound, SecretUnreadable, ValidationFailed
from shared.mail.address import parse
from shared.mail.dkim import dns_record
from shared.models import DkimKey, Domain
from shared.security.keys import KeyRing
from shared.security.sealing import unseal

Sessions = async_sessionmaker[AsyncSession]
Raw = asyncpg.Connection


async def test_keys_are_sealed_for_their_place_and_published(
    sessions: Sessions, connection: Raw, domain: Domain, ring: KeyRing
) -> None:
    async with sessions() as session, session.begin():
        await dkim_keys.create_dkim_key(session, ring, domain, "ed25519-sha256")
        await dkim_keys.create_dkim_key(session, ring, domain, "rsa-sha256", selector="S2026")
        with pytest.raises(Conflict):
            await dkim_keys.create_dkim_key(session, ring, domain, "ed25519-sha256")
        with pytest.raises(AddressInvalid):
            await dkim_keys.create_dkim_key(session, ring, domain, "ed25519-sha256", selector="a b")
        keys = await dkim_keys.list_dkim_keys(session, domain.account_id, domain.id)
    signing = (await dkim_keys.signing_of(connection, domain.account_id, "example.com")).keys
    assert [(key.selector, key.algorithm) for key in signing] == [
        ("posthouse-ed25519", "ed25519-sha256"),
        ("s2026", "rsa-sha256"),
    ]
    for key, row in zip(signing, keys, strict=True):
        pem = unseal(ring, key.sealed, context=key.context)
        assert dns_record(pem) == row.dns_record
        assert row.private_key_sealed not in repr(row)
    with pytest.raises(SecretUnreadable):
        unseal(ring, signing[0].sealed, context=signing[1].context)
    assert await dkim_keys.signing_of(connection, domain.account_id + 1, "example.com") == Signing()
    async with sessions() as session, session.begin():
        await dkim_keys.set_dkim_key_active(session, domain.account_id, domain.id, keys[1].id, active=False)
    left = await dkim_keys.signing_of(connection, domain.account_id, "example.com")
    assert [key.selector for key in left.keys] == ["posthouse-ed25519"]


async def _switch(sessions: Sessions, domain: Domain, key: DkimKey, *, active: bool) -> DkimKey:
    async with sessions() as session, session.begin():
        return await dkim_keys.set_dkim_key_active(session, domain.account_id, domain.id, key.id, active=active)


async def _make(sessions: Sessions, ring: KeyRing, domain: Domain, selector: str, **options: bool) -> DkimKey:
    async with sessions() as session, session.begin():
        return await dkim_keys.create_dkim_key(session, ring, domain, "ed25519-sha256", selector=selector, **options)


async def test_one_key_takes_over_from_another(
    sessions: Sessions, connection: Raw, domain: Domain, ring: KeyRing
) -> None:
    async def signing() -> list[str]:
        found = await dkim_keys.signing_of(connection, domain.account_id, domain.name)
        return [key.selector for key in found.keys]

    old = await _make(sessions, ring, domain, "old")
    new = await _make(sessions, ring, domain, "new", active=False)
    assert await signing() == ["old"]
    assert (await _switch(sessions, domain, new, active=True)).active
    assert await signing() == ["old", "new"]
    with pytest.raises(Conflict, match="deactivate"):
        async with sessions() as session, session.begin():
            await dkim_keys.remove_dkim_key(session, domain.account_id, domain.id, old.id)
    for _ in range(2):  # a second time changes nothing
        assert not (await _switch(sessions, domain, old, active=False)).active
    async with sessions() as session, session.begin():
        await dkim_keys.remove_dkim_key(session, domain.account_id, domain.id, old.id)
    assert await signing() == ["new"]
    with pytest.raises(NotFound):
        await _switch(sessions, domain, old, active=True)


async def test_a_key_of_another_domain_is_out_of_reach(
    sessions: Sessions, domain: Domain, strange_domain: Domain, ring: KeyRing
) -> None:
    key = await _make(sessions, ring, domain, "s")
    with pytest.raises(NotFound):
        await _switch(sessions, strange_domain, key, active=False)
    async with sessions() as session, session.begin():
        for account_id, domain_id in (
            (strange_domain.account_id, strange_domain.id),
            (strange_domain.account_id, domain.id),
        ):
            with pytest.raises(NotFound):
                await dkim_keys.remove_dkim_key(session, account_id, domain_id, key.id)
        with pytest.raises(NotFound):
            await domains.change_signing(session, strange_domain.account_id, domain.id, {"dkim_required": False})


async def test_a_domain_has_so_many_keys_and_no_more(sessions: Sessions, domain: Domain, ring: KeyRing) -> None:
    made = [await _make(sessions, ring, domain, f"s{number}") for number in range(MOST_ACTIVE)]
    with pytest.raises(Conflict, match="deactivate one"):
        await _make(sessions, ring, domain, "more")
    spare = [await _make(sessions, ring, domain, f"t{number}", active=False) for number in range(MOST_KEYS - len(made))]
    with pytest.raises(Conflict, match="deactivate one"):
        await _switch(sessions, domain, spare[0], active=True)
    with pytest.raises(Conflict, match="remove"):
        await _make(sessions, ring, domain, "more", active=False)


async def _somebody_waits(connection: Raw) -> bool:
    return await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1


async def test_a_domain_that_requires_signatures_keeps_a_key_that_signs(
    sessions: Sessions, connection: Raw, domain: Domain, ring: KeyRing
) -> None:
    async def require(*, required: bool) -> Domain:
        async with sessions() as session, session.begin():
            return await domains.change_signing(session, domain.account_id, domain.id, {"dkim_required": required})

    with pytest.raises(Conflict, match="no active DKIM key"):
        await require(required=True)
    one, two = [await _make(sessions, ring, domain, selector) for selector in ("one", "two")]
    assert (await require(required=True)).dkim_required
    assert (await dkim_keys.signing_of(connection, domain.account_id, domain.name)).required
    # Both at once: the second waits for the first, and stays.
    async with sessions() as session, session.begin():
        await dkim_keys.set_dkim_key_active(session, domain.account_id, domain.id, one.id, active=False)
        second = asyncio.create_task(_switch(sessions, domain, two, active=False))
        await eventually(lambda: _somebody_waits(connection))
    with pytest.raises(Conflict, match="only active key"):
        await second
    sender = await domains.sender_allowed(connection, domain.account_id, "api_key", parse("a@example.com"))
    assert sender is not None
    assert not sender.unsigned
    await connection.execute("UPDATE dkim_key SET active = false")
    sender = await domains.sender_allowed(connection, domain.account_id, "api_key", parse("a@example.com"))
    assert sender is not None
    assert sender.unsigned
    await require(required=False)
    sender = await domains.sender_allowed(connection, domain.account_id, "api_key", parse("a@example.com"))
    assert sender is not None
    assert not sender.unsigned


@pytest.mark.parametrize("seconds", [0, -1, 86_399, 366 * 86_400 + 1])
async def test_a_signature_holds_for_a_day_to_a_year(session: AsyncSession, domain: Domain, seconds: int) -> None:
    with pytest.raises(ValidationFailed) as caught:
        await domains.change_signing(session, domain.account_id, domain.id, {"dkim_expires_after_seconds": seconds})
    assert caught.value.field == "dkim_expires_after_seconds"


async def test_a_signature_holds_for_a_week_or_as_the_domain_says(
    sessions: Sessions, connection: Raw, domain: Domain
) -> None:
    async def holds() -> timedelta | None:
        return (await dkim_keys.signing_of(connection, domain.account_id, domain.name)).expires_after

    assert await holds() == timedelta(days=7)
    for seconds in (86_400, None):
        async with sessions() as session, session.begin():
            await domains.change_signing(session, domain.account_id, domain.id, {"dkim_expires_after_seconds": seconds})
        assert await holds() == (timedelta(seconds=seconds) if seconds else None)


async def test_what_is_amiss_with_the_signatures_is_said(session: AsyncSession, domain: Domain, ring: KeyRing) -> None:
    def codes(keys: list[DkimKey], ring: KeyRing = ring) -> list[str]:
        return [warning.code for warning in dkim_keys.signing_warnings(ring, domain, keys)]

    assert codes([]) == ["unsigned"]
    ed25519 = await dkim_keys.create_dkim_key(session, ring, domain, "ed25519-sha256")
    assert codes([ed25519]) == ["only_ed25519"]
    rsa = await dkim_keys.create_dkim_key(session, ring, domain, "rsa-sha256")
    assert codes([ed25519, rsa]) == []
    assert codes([rsa]) == []
    assert codes([ed25519, rsa], KeyRing(["another" * 6])) == ["unsigned", "key_unreadable", "key_unreadable"]
    await dkim_keys.set_dkim_key_active(session, domain.account_id, domain.id, rsa.id, active=False)
    assert codes([ed25519, rsa]) == ["only_ed25519"]
    texts = [warning.text for warning in dkim_keys.signing_warnings(ring, domain, [])]
    assert "goes out unsigned" in texts[0]
    row = await domains.change_signing(session, domain.account_id, domain.id, {"dkim_required": True})
    texts = [warning.text for warning in dkim_keys.signing_warnings(ring, row, [])]
    assert "is not sent" in texts[0]

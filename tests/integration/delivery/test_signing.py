"""Mail is signed as its domain says: by all active keys, once for all recipients, and not sent unsigned where that is not wanted."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dkim as dkimpy  # type: ignore[import-untyped] # it has no types
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from delivery.signing import NoUsableKey, Signers, ToSign
from fakes.smtp_server import ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import SECRET, OpenSite, in_order
from shared.db import accounts, dkim_keys, domains
from shared.db.engine import Pool, create_engine, create_pool, session_factory
from shared.models import DkimKey, Domain
from shared.security.keys import KeyRing

NOW = datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
RING = KeyRing([SECRET])
HEADER = b"From: <me@ours.test>\r\nTo: <a@b.test>\r\nSubject: Hello\r\n"
SMALL = HEADER + b"\r\nHello\r\n"


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Desk:
    """A domain with keys, and what signs its mail."""

    pool: Pool
    sessions: async_sessionmaker[AsyncSession]
    domain: Domain
    clock: Clock
    signers: Signers

    async def key(self, algorithm: dkim_keys.Algorithm = "ed25519-sha256", *, active: bool = True) -> DkimKey:
        async with self.sessions() as session, session.begin():
            return await dkim_keys.create_dkim_key(session, RING, self.domain, algorithm, active=active)

    async def switch(self, key: DkimKey, *, active: bool) -> None:
        async with self.sessions() as session, session.begin():
            await dkim_keys.set_dkim_key_active(session, self.domain.account_id, self.domain.id, key.id, active=active)

    async def change(self, change: domains.SigningChange) -> None:
        async with self.sessions() as session, session.begin():
            await domains.change_signing(session, self.domain.account_id, self.domain.id, change)

    async def sign(self, message_id: int, content: bytes = SMALL, *, minutes: float = 0) -> bytes:
        message = ToSign(message_id, content.index(b"\r\n\r\n") + 2)
        now = NOW + timedelta(minutes=minutes)
        return await self.signers.signature(self.domain.account_id, "ours.test", message, content, now=now)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    engine = create_engine(database_url, size=2, service="test")
    sessions = session_factory(engine)
    async with sessions() as session, session.begin():
        account = await accounts.create_account(session, "ours")
        domain = await domains.create_domain(session, account.id, "ours.test")
    pool = await create_pool(database_url, size=2, service="test")
    clock = Clock()
    yield Desk(pool, sessions, domain, clock, Signers(pool, RING, clock))
    await pool.close()
    await engine.dispose()


@asynccontextmanager
async def _domain(
    database_url: str,
) -> AsyncIterator[tuple[async_sessionmaker[AsyncSession], Callable[[int], Awaitable[Domain]]]]:
    engine = create_engine(database_url, size=2, service="test")
    sessions = session_factory(engine)

    async def make(account_id: int) -> Domain:
        async with sessions() as session, session.begin():
            return await domains.create_domain(session, account_id, "ours.test")

    yield sessions, make
    await engine.dispose()


async def _records(pool: Pool) -> Callable[..., bytes | None]:
    """Return what DNS would answer dkimpy."""
    rows = await pool.fetch("SELECT selector, dns_record FROM dkim_key")
    zone = {f"{row['selector']}._domainkey.ours.test.".encode(): row["dns_record"].encode() for row in rows}
    return lambda name, **_: zone.get(name)


def tags(fields: bytes, name: str) -> list[str]:
    return re.findall(rf"[; \t]{name}=([^;]+);", re.sub(r"\r\n\s+", " ", fields.decode()))


async def test_the_recipients_of_a_message_share_its_signatures(desk: Desk) -> None:
    await desk.key("ed25519-sha256")
    await desk.key("rsa-sha256")
    first = await desk.sign(1)
    assert tags(first, "a") == ["ed25519-sha256", "rsa-sha256"]
    assert tags(first, "t")[0].startswith(f"{int(NOW.timestamp())}")
    shared = await asyncio.gather(*(desk.sign(1, minutes=n / 100) for n in range(100)))
    assert set(shared) == {first}
    assert await desk.sign(2, minutes=1) != first


async def test_a_later_attempt_is_signed_anew_and_its_body_is_not_hashed_again(desk: Desk) -> None:
    await desk.key()
    first = await desk.sign(1)
    desk.clock.seconds += 4 * 3600
    # Its bytes never change; whoever hands in others learns that the hash is remembered.
    again = await desk.sign(1, HEADER + b"\r\nother\r\n", minutes=240)
    assert int(tags(again, "t")[0].split()[0]) - int(tags(first, "t")[0].split()[0]) == 4 * 3600
    assert tags(again, "bh") == tags(first, "bh")
    assert tags(await desk.sign(2, HEADER + b"\r\nother\r\n"), "bh") != tags(first, "bh")


async def test_keys_that_come_and_go_are_used_at_once_when_told_else_within_a_minute(desk: Desk) -> None:
    assert await desk.sign(1) == b""
    key = await desk.key()
    assert await desk.sign(1) == b""
    desk.signers.forget()
    one = await desk.sign(1)
    assert tags(one, "s") == ["posthouse-ed25519"]
    await desk.key("rsa-sha256")
    assert await desk.sign(1) == one
    desk.clock.seconds += 61
    assert tags(await desk.sign(1), "s") == ["posthouse-ed25519", "posthouse-rsa"]
    await desk.switch(key, active=False)
    desk.clock.seconds += 61
    assert tags(await desk.sign(1), "s") == ["posthouse-rsa"]


async def test_a_signature_holds_as_long_as_its_domain_says(desk: Desk) -> None:
    await desk.key()
    assert tags(await desk.sign(1), "x") == [str(int(NOW.timestamp()) + 604_800)]
    await desk.change({"dkim_expires_after_seconds": None})
    desk.clock.seconds += 61
    assert tags(await desk.sign(1), "x") == []


async def test_what_must_be_signed_is_not_sent_unsigned(desk: Desk) -> None:
    key = await desk.key()
    await desk.change({"dkim_required": True})
    assert await desk.sign(1) != b""
    await desk.pool.execute("UPDATE dkim_key SET private_key_sealed = 'v1:none:AAAA' WHERE id = $1", key.id)
    desk.signers.forget()
    with pytest.raises(NoUsableKey):
        await desk.sign(1)
    await desk.change({"dkim_required": False})
    desk.signers.forget()
    assert await desk.sign(1) == b""


async def test_a_large_body_leaves_the_others_their_turn_and_gets_the_same_hash(desk: Desk) -> None:
    await desk.key()
    large = HEADER + b"\r\n" + b"white  space \t and more of it\r\n" * 300_000
    await desk.sign(2)  # the keys are known: nothing but the body is left to wait for
    signing = asyncio.create_task(desk.sign(1, large))
    turns = 0
    while not signing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10  # a loop that hashed would have given one or two
    assert dkimpy.DKIM(signing.result() + large).verify(0, dnsfunc=await _records(desk.pool)) is True


async def test_of_many_messages_the_last_are_remembered(desk: Desk) -> None:
    await desk.key()
    first = [await desk.sign(number) for number in range(1, 5_001)]
    assert await desk.sign(5_000, minutes=1) == first[-1]
    assert await desk.sign(1, minutes=1) != first[0]


async def test_mail_goes_out_with_every_signature_and_both_verify(open_site: OpenSite, database_url: str) -> None:
    content = HEADER + b"List-Unsubscribe: <https://ours.test/u>\r\n\r\nHello  there \r\n\r\n\r\n"
    async with ScriptedSmtpServer() as server, _domain(database_url) as (site_sessions, make):
        site = await open_site(server)
        domain = await make(site.room.account_id)
        async with site_sessions() as session, session.begin():
            for algorithm in dkim_keys.SELECTORS:
                await dkim_keys.create_dkim_key(session, RING, domain, algorithm)
        await site.accept("a@b.test", "c@b.test", content=content)
        async with in_order(await site.start()):
            messages = await server.wait_for(2)
            await eventually(site.settled)
        records = await _records(site.pool)
        for message in messages:
            verifier = dkimpy.DKIM(message.content)
            assert [verifier.verify(index, dnsfunc=records) for index in (0, 1)] == [True, True]
            assert message.content.count(b"DKIM-Signature:") == 2


async def test_mail_of_a_domain_whose_keys_cannot_be_opened_waits_where_it_must_be_signed(
    open_site: OpenSite, database_url: str
) -> None:
    async with ScriptedSmtpServer() as server, _domain(database_url) as (site_sessions, make):
        site = await open_site(server)
        domain = await make(site.room.account_id)
        async with site_sessions() as session, session.begin():
            await dkim_keys.create_dkim_key(session, RING, domain, "ed25519-sha256")
            await domains.change_signing(session, domain.account_id, domain.id, {"dkim_required": True})
        await site.pool.execute("UPDATE dkim_key SET private_key_sealed = 'v1:none:AAAA'")
        (delivery,) = await site.accept("a@b.test")
        async with in_order(await site.start()):
            await eventually(lambda: site.events(delivery))
        assert server.messages == []
        assert await site.state(delivery) == "queued"
        text = await site.pool.fetchval("SELECT text FROM attempt WHERE delivery_id = $1", delivery)
        assert "requires DKIM signatures" in text

"""What is not delivered by the time that its sender set fails then, and harms nobody; and nothing is sent before its time."""

import asyncio
from datetime import datetime, timedelta

import asyncpg

from fakes.smtp_server import Message, Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from shared.db import accept
from shared.db.lanes import SiteName

BUSY = Script(rcpt={"busy@b.test": "450 4.2.1 busy"})


class Patient(ScriptedSmtpServer):
    """Takes a message and does not answer before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def take(self, message: Message) -> None:
        await super().take(message)
        await self.may_answer.wait()


async def moment(site: Site, **ahead: float) -> datetime:
    """Return a time by the database's clock."""
    found: datetime = await site.pool.fetchval("SELECT now() + $1::interval", timedelta(**ahead))
    return found


async def hand_in(site: Site, *recipients: str, **options: object) -> list[int]:
    """Accept one message; return its deliveries."""
    message = await site.room.one_message(list(recipients), site=SiteName("relay", site.relay), **options)
    async with site.room.connection.transaction():
        await accept.accept(site.room.connection, [message])
    return [delivery.id for delivery in message.deliveries]


async def ended(site: Site, delivery_id: int) -> asyncpg.Record:
    """Return the event that ended a delivery, once it has."""
    await eventually(site.settled)
    row = await site.pool.fetchrow("SELECT * FROM event WHERE delivery_id = $1 ORDER BY id DESC LIMIT 1", delivery_id)
    assert row is not None
    return row


async def test_a_retry_that_would_come_after_the_expiry_fails_at_the_expiry(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(BUSY) as server:
        site = await open_site(server)
        expires_at = await moment(site, seconds=1)
        (delivery,) = await hand_in(site, "busy@b.test", expires_at=expires_at)
        async with in_order(await site.start()):
            await eventually(lambda: _events(site, delivery))
            assert await site.pool.fetchval("SELECT due_at FROM delivery_queue") == expires_at
            event = await ended(site, delivery)
        assert await site.events(delivery) == ["delayed", "failed"]
        assert (event["code"], event["enhanced"], event["suppressing"]) == (0, "", False)
        assert event["text"].startswith("expired")
        assert event["created_at"] >= expires_at
        record = await site.pool.fetchrow("SELECT * FROM delivery WHERE id = $1", delivery)
        assert record is not None
        assert (record["state"], record["attempts"], record["code"], record["text"]) == ("failed", 1, 0, event["text"])
        assert len(server.sessions) == 1


async def test_what_expired_while_nobody_worked_is_never_connected_to(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (delivery,) = await hand_in(site, "a@b.test", expires_at=await moment(site, seconds=-1))
        async with in_order(await site.start()):
            event = await ended(site, delivery)
        assert (event["type"], event["text"][:7]) == ("failed", "expired")
        assert server.sessions == []


async def test_nothing_is_sent_before_its_time_and_it_expires_after_it(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(BUSY) as server:
        site = await open_site(server)
        due_at, expires_at = await moment(site, seconds=0.7), await moment(site, seconds=1.5)
        fine, busy = await hand_in(site, "fine@b.test", "busy@b.test", due_at=due_at, expires_at=expires_at)
        (now,) = await hand_in(site, "now@b.test")
        async with in_order(await site.start()):
            await eventually(lambda: _events(site, now))
            event = await ended(site, busy)
        assert [await site.state(i) for i in (now, fine, busy)] == ["delivered", "delivered", "failed"]
        assert event["text"].startswith("expired")
        first = await site.pool.fetchval(
            "SELECT min(started_at) FROM attempt WHERE delivery_id = ANY ($1::bigint[])", [fine, busy]
        )
        assert first >= due_at
        assert server.messages[0].recipients == ["now@b.test"]


async def test_expiry_never_suppresses(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        past = await moment(site, seconds=-1)
        ids = [(await hand_in(site, "a@b.test", expires_at=past))[0] for _ in range(4)]
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert [await site.events(i) for i in ids] == [["failed"]] * 4
        assert await site.pool.fetchval("SELECT count(*) FROM suppression") == 0
        assert await site.pool.fetchval("SELECT count(*) FROM recipient_state") == 0


async def test_a_delivery_in_flight_at_its_expiry_is_what_the_server_says(open_site: OpenSite) -> None:
    async with Patient() as server:
        site = await open_site(server)
        (delivery,) = await hand_in(site, "a@b.test", expires_at=await moment(site, hours=1))
        async with in_order(await site.start()):
            await server.wait_for(1)
            await site.pool.execute("UPDATE delivery_queue SET expires_at = now() - interval '1 second'")
            server.may_answer.set()
            event = await ended(site, delivery)
        assert (await site.state(delivery), event["type"], event["code"]) == ("delivered", "delivered", 250)


async def test_a_mail_for_later_is_tried_again_like_any_other(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(BUSY) as server:
        site = await open_site(server)
        (delivery,) = await hand_in(site, "busy@b.test", due_at=await moment(site, days=-1))
        # Accepted longer ago than any schedule lasts: what counts is when it was tried first.
        await site.pool.execute("UPDATE delivery SET created_at = now() - interval '11 days'")
        async with in_order(await site.start()):
            await eventually(lambda: _events(site, delivery))
        assert await site.events(delivery) == ["delayed"]


async def _events(site: Site, delivery_id: int) -> bool:
    return bool(await site.events(delivery_id))

"""A notification that is owed is written exactly once, whoever dies in between, and one that cannot be written harms no other."""

import asyncio

import asyncpg

from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from integration.delivery.notifications import CONTENT, nothing_owed, owed, start, stored, wants, writing
from shared.db import outcomes
from shared.db.outcomes import Outcome, Source
from shared.events import EventType

REFUSED = Script(rcpt={"*": "550 5.1.1 no such user"})


async def fail(site: Site, *recipients: str) -> list[int]:
    """Accept mails and end them; their senders are owed a notification each."""
    ids = await site.accept(*recipients, content=CONTENT)
    async with site.pool.acquire() as connection, connection.transaction():
        await outcomes.record(connection, [Outcome(i, Source.OPERATOR, EventType.FAILED, text="no") for i in ids])
    return ids


async def test_a_worker_killed_between_settling_and_telling_leaves_it_to_the_next(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(REFUSED) as server:
        site = await open_site(server)
        await wants(site)
        ids = await site.accept("a@b.test", "b@b.test", "c@b.test", content=CONTENT)
        doomed = await site.start()
        await eventually(site.settled)
        await doomed.kill()
        assert (await owed(site), await stored(site)) == (3, [])
        async with in_order(await site.start()), writing(site):
            await eventually(lambda: nothing_owed(site))
        assert sorted(row["delivery_id"] for row in await stored(site)) == sorted(ids)


async def _blocked(site: Site) -> bool:
    return (
        await site.pool.fetchval(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'inbound_message'::regclass"
        )
        == 1
    )


async def test_a_writer_killed_in_mid_transaction_leaves_all_of_it_to_the_next(
    open_site: OpenSite, database_url: str
) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        await fail(site, "a@b.test", "b@b.test")
        other = await asyncpg.connect(database_url)
        async with other.transaction():
            await other.execute("LOCK TABLE inbound_message IN SHARE MODE")
            doomed = start(site, asyncio.Event())
            await eventually(lambda: _blocked(site))
            doomed.cancel()
            await asyncio.gather(doomed, return_exceptions=True)
        await other.close()
        assert (await owed(site), await stored(site)) == (2, [])
        async with writing(site):
            await eventually(lambda: nothing_owed(site))
        assert len(await stored(site)) == 2


async def test_a_writer_that_loses_its_database_goes_on_when_it_is_back(open_site: OpenSite, database_url: str) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        await fail(site, "a@b.test")
        other = await asyncpg.connect(database_url)
        async with other.transaction():
            await other.execute("LOCK TABLE inbound_message IN SHARE MODE")
            stop = asyncio.Event()
            task = start(site, stop)
            await eventually(lambda: _blocked(site))
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'inbound_message'::regclass"
            )
        await other.close()
        await eventually(lambda: nothing_owed(site))
        stop.set()
        await task
        assert len(await stored(site)) == 1


async def test_writers_share_the_work_and_write_each_once(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        ids = await fail(site, *(f"u{n}@b.test" for n in range(150)))
        async with writing(site), writing(site), writing(site):
            await eventually(lambda: nothing_owed(site))
        rows = await stored(site)
        assert sorted(row["delivery_id"] for row in rows) == sorted(ids)
        assert len({row["message_id"] for row in rows}) == 150


async def test_who_is_busy_with_some_keeps_nobody_from_the_others(open_site: OpenSite, database_url: str) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        await fail(site, "a@b.test", "b@b.test", "c@b.test")
        other = await asyncpg.connect(database_url)
        async with other.transaction():
            await other.execute("SELECT FROM dsn_pending ORDER BY event_id LIMIT 1 FOR UPDATE")
            async with writing(site):
                await eventually(lambda: _written(site, 2))
        await other.close()
        assert await owed(site) == 1


async def _written(site: Site, count: int) -> bool:
    return len(await stored(site)) == count


async def test_one_that_cannot_be_composed_or_stored_is_let_go_and_the_others_are_written(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await wants(site)
        ids = await site.accept(*(f"u{n}@b.test" for n in range(30)), content=CONTENT)
        unreadable, refused = ids[3], ids[7]
        await site.pool.execute("UPDATE delivery SET mail_from = 'no address' WHERE id = $1", unreadable)
        await site.pool.execute("UPDATE delivery SET mail_from = 'refused@ours.test' WHERE id = $1", refused)
        await site.pool.execute("ALTER TABLE inbound_message ADD CHECK (recipient <> 'refused@ours.test')")
        async with site.pool.acquire() as connection, connection.transaction():
            await outcomes.record(connection, [Outcome(i, Source.OPERATOR, EventType.FAILED) for i in ids])
        async with writing(site):
            await eventually(lambda: nothing_owed(site))
        told = sorted(row["delivery_id"] for row in await stored(site))
        assert told == sorted(set(ids) - {unreadable, refused})
        assert {await site.state(i) for i in ids} == {"failed"}

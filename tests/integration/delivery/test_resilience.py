"""A worker that lives sends nothing twice, and one that dies loses nothing."""

import asyncio

import asyncpg

from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import BEAT_SECONDS, OpenSite, Site, in_order
from shared.db.workers import DEAD_AFTER_BEATS


async def _sever(database_url: str, *, allow: bool) -> None:
    """Cut or allow all connections to a database, as a failing Postgres does."""
    name = database_url.partition("@/")[2].partition("?")[0]
    admin = await asyncpg.connect(database_url.replace(f"@/{name}?", "@/postgres?"))
    try:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {str(allow).lower()}")
        if not allow:
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    finally:
        await admin.close()


async def test_results_wait_for_a_lost_database_and_nothing_is_sent_twice(
    open_site: OpenSite, database_url: str
) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        ids = await site.accept(*(f"u{n}@b.test" for n in range(80)))
        cut = asyncio.Event()
        server.on_message = lambda _: cut.set()
        running = await site.start(sessions=2)
        await cut.wait()
        await _sever(database_url, allow=False)
        outage = BEAT_SECONDS * DEAD_AFTER_BEATS * 2
        await eventually(lambda: not running.lease.may_start, timeout=outage * 4)
        before = len(server.messages)
        await asyncio.sleep(outage)  # the outage itself: longer than a silent worker may live
        assert len(server.messages) == before
        await _sever(database_url, allow=True)
        await server.wait_for(80)
        await eventually(site.settled, timeout=20)
        await running.finish()
        assert sorted(m.recipients[0] for m in server.messages) == sorted(f"u{n}@b.test" for n in range(80))
        assert {await site.state(i) for i in ids} == {"delivered"}


async def test_a_worker_killed_in_mid_mail_costs_a_delay_and_only_what_was_started(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(stall="message")) as server:
        site = await open_site(server)
        ids = await site.accept("a@b.test", "c@b.test", "d@b.test")
        doomed = await site.start(sessions=1)
        await eventually(lambda: server.sessions and any(c.startswith("DATA") for c in server.sessions[0].commands))
        await doomed.kill()
        server.script.stall = None
        async with in_order(await site.start()):
            await eventually(lambda: _lost(site), timeout=20)
            await server.wait_for(2)
            lost = await site.pool.fetchrow("SELECT delivery_id, losses, due_at - now() AS wait FROM delivery_queue")
            assert lost is not None
            assert lost["losses"] == 1
            assert 30 < lost["wait"].total_seconds() <= 60
            assert (
                await site.pool.fetchval("SELECT outcome FROM attempt WHERE delivery_id = $1", lost["delivery_id"])
                == "lost"
            )
            await site.pool.execute("UPDATE delivery_queue SET due_at = now()")
            await site.pool.execute("INSERT INTO delivery_wake SELECT lane_id FROM delivery_queue")
            await server.wait_for(3)
            await eventually(site.settled)
        assert {await site.state(i) for i in ids} == {"delivered"}
        assert await site.pool.fetchval("SELECT attempts FROM delivery WHERE id = $1", lost["delivery_id"]) == 2


async def test_a_stop_finishes_what_is_in_flight_and_releases_the_rest(open_site: OpenSite) -> None:
    release = asyncio.Event()
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await site.accept(*(f"u{n}@b.test" for n in range(40)))
        running = await site.start(sessions=1)
        server.on_message = lambda _: (running.stop.set(), release.set())
        await release.wait()
        await running.finish()
        sent = len(server.messages)
        assert 1 <= sent < 40
        assert await site.pool.fetchval("SELECT count(*) FROM delivery WHERE state = 'delivered'") == sent
        rows = await site.pool.fetchrow(
            "SELECT count(*) AS left, count(worker_id) AS held, count(started_at) AS started FROM delivery_queue"
        )
        assert rows is not None
        assert (rows["left"], rows["held"], rows["started"]) == (40 - sent, 0, 0)
        assert await site.pool.fetchval("SELECT count(*) FROM attempt") == sent


async def test_a_stop_cuts_a_server_that_does_not_answer_when_the_grace_period_is_over(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(stall="message")) as server:
        site = await open_site(server)
        (delivery,) = await site.accept("a@b.test")
        running = await site.start(grace=0.2, timeout=60)
        await eventually(lambda: server.sessions and any(c.startswith("DATA") for c in server.sessions[0].commands))
        await running.finish()
        row = await site.pool.fetchrow(
            "SELECT started_at, worker_id FROM delivery_queue WHERE delivery_id = $1", delivery
        )
        assert row is not None
        assert (
            row["started_at"] is not None
        )  # it may have been taken: it counts as lost, and its worker's row waits for the reaper
        assert await site.pool.fetchval("SELECT count(*) FROM worker WHERE id = $1", row["worker_id"]) == 1


async def _lost(site: Site) -> bool:
    return await site.pool.fetchval("SELECT sum(losses) FROM delivery_queue") == 1


async def test_a_worker_that_loses_its_database_with_rows_in_hand_gives_them_back(
    open_site: OpenSite, database_url: str
) -> None:
    """Connections cut again and again while slots load, judge and start: no row may stay with a worker that lives."""
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        ids = await site.accept(*(f"u{n}@b.test" for n in range(120)))
        admin = await asyncpg.connect(database_url)
        running = await site.start(sessions=3)
        for _ in range(15):
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.02)  # between two cuts something must get a chance to begin
        await server.wait_for(120)
        pool = await asyncpg.create_pool(database_url, min_size=1, max_size=1)
        await eventually(lambda: _settled(pool), timeout=20)
        states = {
            row["state"]
            for row in await pool.fetch("SELECT DISTINCT state FROM delivery WHERE id = ANY ($1::bigint[])", ids)
        }
        await pool.close()
        await admin.close()
        await running.finish()
        assert states == {"delivered"}
        assert sorted(m.recipients[0] for m in server.messages) == sorted(f"u{n}@b.test" for n in range(120))


async def test_a_stop_comes_to_its_end_without_a_database(open_site: OpenSite, database_url: str) -> None:
    """As when a whole stack is killed: the services are asked to stop, and their Postgres is gone already."""
    async with ScriptedSmtpServer(Script(stall="message")) as server:
        site = await open_site(server)
        await site.accept(*(f"u{n}@b.test" for n in range(5)))
        running = await site.start(grace=0.3, timeout=60)
        await eventually(lambda: server.sessions and any(c.startswith("DATA") for c in server.sessions[0].commands))
        await _sever(database_url, allow=False)
        async with asyncio.timeout(20):
            await running.finish()
        await _sever(database_url, allow=True)


async def test_no_transaction_is_open_while_a_mail_server_is_waited_for(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(stall="message")) as server:
        site = await open_site(server)
        await site.accept("a@b.test", "c@b.test")
        await site.start(sessions=2, timeout=60)
        await eventually(lambda: server.sessions and any(c.startswith("DATA") for c in server.sessions[0].commands))
        # Heartbeats and claims come and go; a transaction around the network would stay as long as the answer does.
        first = await _open_transactions(site)
        await eventually(lambda: _ended(site, first), what="the end of every transaction that was open")


async def _ended(site: Site, transactions: set[tuple[int, object]]) -> bool:
    return not transactions & await _open_transactions(site)


async def _open_transactions(site: Site) -> set[tuple[int, object]]:
    rows = await site.pool.fetch(
        "SELECT pid, xact_start FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
    )
    return {(row["pid"], row["xact_start"]) for row in rows}


async def _settled(pool: "asyncpg.Pool[asyncpg.Record]") -> bool:
    return await pool.fetchval("SELECT count(*) FROM delivery_queue") == 0

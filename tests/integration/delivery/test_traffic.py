"""Rules about how much a site is sent at once hold for all workers together."""

import asyncio

from delivery.traffic import TrafficRules
from fakes.smtp_server import ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from shared.db.lanes import SiteName


async def _rule(site: Site, **figures: float) -> None:
    columns, values = ", ".join(figures), ", ".join(str(value) for value in figures.values())
    await site.pool.execute(f"INSERT INTO traffic_rule (pattern, {columns}) VALUES ('127.0.0.1', {values})")


async def test_messages_per_second_hold_over_workers_and_slots(open_site: OpenSite) -> None:
    """Two workers with two slots, mail that comes in one by one: slow machines only make it slower, never faster."""
    rate, connections, count = 40, 2, 60
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await _rule(site, connections=connections, messages_per_second=rate)
        await site.accept("first@b.test")
        await site.pool.execute("UPDATE site SET conn_limit = 2, conn_most = 2, proven = true")
        times: list[float] = []
        server.on_message = lambda _: times.append(asyncio.get_running_loop().time())
        await site.start()
        async with in_order(await site.start()):
            for number in range(count - 1):
                await site.accept(f"u{number}@b.test")
            await eventually(lambda: len(times) == count, timeout=30)
        # Each slot sends one message beyond the rate; a message may be under way while the next is counted already.
        assert times[-1] - times[0] >= (count - 2 * connections) / rate
        assert len({message.session for message in server.messages}) > 1


async def test_a_slot_is_given_back_no_sooner_than_the_next_message_may_go(open_site: OpenSite) -> None:
    """Each mail is handed in when the last one has arrived, so that each has a slot, and perhaps a worker, of its own."""
    rate, count = 5, 12
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await _rule(site, connections=1, messages_per_second=rate)
        times: list[float] = []
        server.on_message = lambda _: times.append(asyncio.get_running_loop().time())
        await site.start()
        async with in_order(await site.start()):
            for number in range(count):
                await site.accept(f"u{number}@b.test")
                await server.wait_for(number + 1)
        assert times[-1] - times[0] >= (count - 2) / rate


async def test_a_session_takes_no_more_messages_than_its_rule_says(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await _rule(site, messages_per_connection=3)
        await site.accept(*(f"u{n}@b.test" for n in range(8)))
        async with in_order(await site.start(sessions=1)):
            await eventually(site.settled)
        by_session = [
            sum(message.session == session.number for message in server.messages) for session in server.sessions
        ]
        assert by_session == [3, 3, 2]


async def test_a_transaction_has_no_more_recipients_than_its_rule_says(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await _rule(site, recipients_per_transaction=2)
        await site.accept_one(*(f"u{n}@b.test" for n in range(5)))
        async with in_order(await site.start()):
            await eventually(site.settled)
        assert [len(message.recipients) for message in server.messages] == [2, 2, 1]


async def test_a_rule_that_changes_holds_without_a_restart(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await site.accept("a@b.test")
        running = await site.start()
        async with in_order(running):
            await eventually(site.settled)
            await _rule(site, connections=7)
            running.tools.forget()
            await site.accept("b@b.test")
            await eventually(site.settled)
            assert await site.pool.fetchval("SELECT conn_most FROM site") == 7
            await site.pool.execute("UPDATE traffic_rule SET connections = 1")
            running.tools.forget()
            await site.accept("c@b.test")
            await eventually(lambda: site.pool.fetchval("SELECT conn_most = 1 AND conn_limit = 1 FROM site"))


async def test_rules_are_looked_up_once_a_minute(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        now = [1.0]
        rules = TrafficRules(site.pool, clock=lambda: now[0])
        relay = SiteName("relay", "127.0.0.1:25")
        assert (await rules.of(relay)).connections == 20
        await _rule(site, connections=7)
        assert (await rules.of(relay)).connections == 20
        now[0] = 62.0
        assert (await rules.of(relay)).connections == 7
        assert (await rules.of(SiteName("mx", "yahoodns.net"))).messages_per_connection == 20

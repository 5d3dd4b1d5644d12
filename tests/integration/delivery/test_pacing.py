"""How a site is met, left alone and met again; connections hold over all workers."""

import pytest

from fakes.dns_server import DnsServer
from fakes.smtp_server import Message, Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from shared.db.lanes import SiteName


async def test_a_dead_site_costs_one_mail_its_attempt_and_the_rest_none(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await site.accept(*(f"u{n}@b.test" for n in range(30)))
    async with in_order(await site.start()):
        await eventually(lambda: site.pool.fetchval("SELECT count(*) FROM event"))
        await eventually(lambda: _all_given_back(site))
        row = await site.pool.fetchrow(
            "SELECT conn_limit, proven, failures, backoff_until > now() + interval '30 seconds' AS paused FROM site"
        )
        assert row is not None
        assert tuple(row) == (1, False, 1, True)
        assert await site.pool.fetchval("SELECT count(*) FROM attempt") == 1
        assert await site.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE due_at <= now()") == 29


async def test_a_mail_that_waited_as_long_as_its_schedule_says_shares_the_failure(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        ids = await site.accept(*(f"u{n}@b.test" for n in range(120)))
    await site.pool.execute(
        "UPDATE delivery_queue SET due_at = now() - interval '8 minutes' WHERE delivery_id < $1", ids[110]
    )
    async with in_order(await site.start()):
        await eventually(lambda: site.pool.fetchval("SELECT count(*) = 110 FROM event"))
        await eventually(lambda: _all_given_back(site))
    assert await site.pool.fetchval("SELECT count(*) FROM attempt") == 110


async def test_a_site_that_comes_back_gets_what_waited(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        ids = await site.accept(*(f"u{n}@b.test" for n in range(30)))
    async with in_order(await site.start(backoff=0.3)):
        await eventually(lambda: site.pool.fetchval("SELECT count(*) FROM event"))
        async with ScriptedSmtpServer(port=server.port) as back:
            tried = await site.pool.fetchval("SELECT count(*) FROM attempt WHERE outcome = 'delayed'")
            await back.wait_for(30 - tried - 1)
            await eventually(lambda: site.pool.fetchval("SELECT proven AND failures = 0 AND conn_limit > 1 FROM site"))
            await eventually(
                lambda: site.pool.fetchval("SELECT count(*) = 0 FROM delivery_queue WHERE due_at <= now()")
            )
    states = [await site.state(i) for i in ids]
    assert states.count("delivered") >= 30 - tried - 1
    assert set(states) <= {"delivered", "queued"}


async def test_a_new_site_is_met_by_one_session(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(stall="message")) as server:
        site = await open_site(server)
        await site.accept(*(f"u{n}@b.test" for n in range(60)))
        running = await site.start(sessions=8, grace=0.2)
        await eventually(lambda: server.sessions and any(c.startswith("DATA") for c in server.sessions[0].commands))
        for _ in range(5):  # turns for whoever would come too
            running.worker.heard.set()
            assert await site.pool.fetchval("SELECT in_use FROM site") == 1
        assert len(server.sessions) == 1
        await running.finish()


async def test_connections_hold_over_workers_and_when_one_is_killed(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await site.accept(*(f"u{n}@b.test" for n in range(200)))
        await site.pool.execute("INSERT INTO traffic_rule (pattern, connections) VALUES ('127.0.0.1', 3)")
        await site.pool.execute("UPDATE site SET conn_limit = 3, conn_most = 3, proven = true")
        at_once: list[int] = []
        server.on_message = lambda _: at_once.append(sum(not session.closed for session in server.sessions))
        doomed = await site.start(sessions=8)
        async with in_order(await site.start(sessions=8)):
            await server.wait_for(40)
            await doomed.kill()
            await eventually(
                lambda: site.pool.fetchval("SELECT count(*) = 0 FROM delivery_queue WHERE losses = 0"), timeout=30
            )
        assert max(at_once) <= 3
        assert await site.pool.fetchval("SELECT in_use FROM site") == 0
        assert await site.pool.fetchval("SELECT count(*) FROM site_slot") == 0


async def test_sites_at_first_contact_leave_three_quarters_of_the_sessions_to_others(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(stall="mail")) as silent:
        zone = {f"d{n}.test": {"MX": [f"10 mx.d{n}.test."]} for n in range(6)}
        zone |= {f"mx.d{n}.test": {"A": ["127.0.0.1"]} for n in range(6)}
        zone |= {"good.test": {"MX": ["10 mx.good.test."]}, "mx.good.test": {"A": ["127.0.0.2"]}}
        async with ScriptedSmtpServer(host="127.0.0.2", port=silent.port) as good, DnsServer(zone) as dns:  # type: ignore[arg-type] # a plainer zone
            site = await open_site(silent)
            await site.room.accept([f"u@d{n}.test" for n in range(6)])
            running = await site.start(dns=dns.address, smtp_port=silent.port, sessions=8, grace=0.2)
            await silent.wait_for_sessions(2)
            await site.room.store(await site.room.messages(["u@good.test"], site=SiteName("mx", "good.test")))
            await site.pool.execute("UPDATE site SET proven = true WHERE name = 'mx:good.test'")
            await good.wait_for(1)
            assert len(silent.sessions) == 2
            await running.finish()


@pytest.mark.parametrize(
    ("stage", "reply", "limit"),
    [
        ("mail", "421 4.7.0 too many connections from your address", 2),
        ("rcpt", "451 4.7.1 slow down, please", 2),
        ("rcpt", "451 4.7.1 greylisted, come back later", 5),
        ("rcpt", "550 5.7.1 too many connections", 5),
    ],
)
async def test_less_is_sent_at_once_where_a_reply_asks_for_that(
    open_site: OpenSite, stage: str, reply: str, limit: int
) -> None:
    async with ScriptedSmtpServer(Script(**{stage: reply})) as server:  # type: ignore[arg-type] # the stage is a field
        site = await open_site(server)
        await site.accept("a@b.test")
        await site.pool.execute("INSERT INTO traffic_rule (pattern, connections) VALUES ('127.0.0.1', 5)")
        await site.pool.execute("UPDATE site SET conn_limit = 4, conn_most = 5, proven = true")
        async with in_order(await site.start()):
            await eventually(lambda: site.pool.fetchval("SELECT conn_limit = $1 FROM site", limit))


async def test_an_account_with_much_for_one_site_delays_no_other(open_site: OpenSite) -> None:
    """One session only, so that whoever is served keeps another waiting."""
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await site.accept(*(f"u{n}@b.test" for n in range(400)))
        other = await type(site.room)(site.room.connection).open("other")
        relay = SiteName("relay", site.relay)
        await other.store(await other.messages(["u@other.test"], site=relay))
        places: list[int] = []

        def note(message: Message) -> None:
            if message.recipients == ["u@other.test"]:
                places.append(len(server.messages))

        server.on_message = note
        async with in_order(await site.start(sessions=1)):
            await eventually(lambda: places)
        assert places[0] <= 2 * 25  # within the first turn of each lane


async def test_much_mail_for_one_site_delays_no_other_site_and_no_other_account(open_site: OpenSite) -> None:
    """One session serves all: whoever is served goes to the end of the line."""
    names = ("much", "other", "third")
    async with ScriptedSmtpServer() as server:
        zone = {f"{name}.test": {"MX": [f"10 mx.{name}.test."]} for name in names}
        zone |= {f"mx.{name}.test": {"A": ["127.0.0.1"]} for name in names}
        async with DnsServer(zone) as dns:  # type: ignore[arg-type] # a plainer zone
            site = await open_site(server)
            much = SiteName("mx", "much.test")
            await site.room.store(await site.room.messages([f"u{n}@much.test" for n in range(400)], site=much))
            await site.room.accept(["a@other.test"])
            second = await type(site.room)(site.room.connection).open("second")
            await second.store(await second.messages(["b@much.test"], site=much))
            await second.accept(["c@third.test"])
            places: dict[str, int] = {}
            server.on_message = lambda message: places.setdefault(message.recipients[0], len(server.messages))
            async with in_order(await site.start(dns=dns.address, smtp_port=server.port, sessions=2)):
                await eventually(lambda: {"a@other.test", "b@much.test", "c@third.test"} <= places.keys())
            assert max(places[name] for name in ("a@other.test", "b@much.test", "c@third.test")) < 200


async def test_sessions_are_counted_by_what_they_do_and_sites_that_are_left_alone(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer(Script(stall="message")) as server:
        site = await open_site(server)
        await site.accept("a@b.test")
        running = await site.start(grace=0.2)
        await server.wait_for_sessions(1)
        assert running.courier.states == {"meeting": 1, "sending": 0, "waiting": 0, "idle": 0}
        await running.finish()
    dead = await open_site(server)
    await dead.accept("b@b.test")
    running = await dead.start()
    async with in_order(running):
        await eventually(lambda: running.tools.sites.left_alone == 1)
        await eventually(lambda: sum(running.courier.states.values()) == 0)


async def _all_given_back(site: Site) -> bool:
    held = await site.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE worker_id IS NOT NULL")
    return held == 0 and await site.pool.fetchval("SELECT in_use FROM site") == 0

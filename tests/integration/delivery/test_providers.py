"""Domains behind the MX hosts of one provider are one site."""

from collections.abc import Iterable

from fakes.dns_server import DnsServer, Zone
from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from shared.db import providers
from shared.db.lanes import SiteName
from shared.db.providers import Providers


def zone(**hosts: str) -> Zone:
    """MX hosts of the provider by domain (``one`` for one.test), all at 127.0.0.1 but for ``far``."""
    names: Zone = {f"{domain}.test": {"MX": [f"10 {host}.big.test."]} for domain, host in hosts.items()}
    return names | {
        f"{host}.big.test": {"A": ["127.0.0.2" if host == "far" else "127.0.0.1"]} for host in hosts.values()
    }


async def test_domains_of_one_provider_are_one_site_and_share_a_session(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server, DnsServer(zone(one="mx", two="mx")) as dns:
        site = await open_site(server)
        await site.room.accept(["a@one.test", "b@two.test", "c@one.test"])
        async with in_order(await site.start(dns=dns.address, smtp_port=server.port)):
            await eventually(site.settled)
        assert {message.recipients[0] for message in server.messages} == {"a@one.test", "b@two.test", "c@one.test"}
        assert await _used(site) == ["mx:big.test"]
        known = await site.pool.fetch("SELECT domain, provider FROM domain_provider ORDER BY domain")
        assert [tuple(row) for row in known] == [("one.test", "big.test"), ("two.test", "big.test")]
        # Once it is known, all of it goes over one session.
        sessions = len(server.sessions)
        await site.pool.execute("UPDATE domain_provider SET seen_at = now() - interval '2 days'")
        await _accept(site, ["d@one.test", "e@two.test", "f@one.test", "g@two.test"])
        async with in_order(await site.start(dns=dns.address, smtp_port=server.port, sessions=1)):
            await eventually(site.settled)
        assert len(server.sessions) == sessions + 1
        assert await site.pool.fetchval("SELECT min(seen_at) > now() - interval '1 hour' FROM domain_provider")


async def test_a_session_takes_no_mail_of_a_domain_that_names_another_host(open_site: OpenSite) -> None:
    async with (
        ScriptedSmtpServer() as near,
        ScriptedSmtpServer(host="127.0.0.2", port=near.port) as far,
        DnsServer(zone(one="mx", two="far")) as dns,
    ):
        site = await open_site(near)
        await _accept(site, ["a@one.test", "b@two.test", "c@one.test", "d@two.test"])
        async with in_order(await site.start(dns=dns.address, smtp_port=near.port, sessions=1)):
            await eventually(site.settled)
        assert len(near.sessions) == len(far.sessions) == 1
        assert sorted(message.recipients[0] for message in near.messages) == ["a@one.test", "c@one.test"]
        assert sorted(message.recipients[0] for message in far.messages) == ["b@two.test", "d@two.test"]
        assert await _used(site) == ["mx:big.test"]


async def test_mail_follows_a_domain_that_moves_and_acceptance_is_told(open_site: OpenSite) -> None:
    names = {
        "one.test": {"MX": ["10 mx.small.test."]},
        "mx.small.test": {"A": ["127.0.0.1"]},
        "two.test": {"A": ["127.0.0.1"]},
    }
    async with ScriptedSmtpServer() as server, DnsServer(names) as dns:  # type: ignore[arg-type] # a plainer zone
        site = await open_site(server)
        await providers.remember(site.room.connection, {"one.test": "big.test", "two.test": "big.test"})  # type: ignore[arg-type] # a pool's proxy
        await _accept(site, ["a@one.test", "b@two.test"])
        async with in_order(await site.start(dns=dns.address, smtp_port=server.port)):
            await eventually(site.settled)
        assert await _used(site) == ["domain:two.test", "mx:small.test"]
        known = await site.pool.fetch("SELECT domain, provider FROM domain_provider")
        assert [tuple(row) for row in known] == [("one.test", "small.test")]


async def test_a_domain_that_names_hosts_of_a_provider_and_dead_ones_harms_nobody_else(open_site: OpenSite) -> None:
    """Its trouble is its own: the provider's site is not left alone for it."""
    names = zone(one="mx") | {
        "evil.test": {"MX": ["10 none.big.test.", "20 dead.evil.test."]},
        "dead.evil.test": {"A": ["127.0.0.3"]},
    }
    async with ScriptedSmtpServer() as server, DnsServer(names) as dns:
        site = await open_site(server)
        evil = await _accept(site, ["x@evil.test", "y@evil.test"])
        await _accept(site, ["a@one.test"])
        async with in_order(await site.start(dns=dns.address, smtp_port=server.port, sessions=1)):
            await server.wait_for(1)
            await eventually(lambda: _told(site, evil))
        assert await site.pool.fetchval("SELECT failures FROM site WHERE name = 'mx:big.test'") == 0


async def test_a_domain_whose_mx_records_cannot_be_asked_for_delays_its_own_mail_only(open_site: OpenSite) -> None:
    names = zone(one="mx") | {"dark.test": "SERVFAIL"}
    async with ScriptedSmtpServer() as server, DnsServer(names) as dns:
        site = await open_site(server)
        dark = await _accept(site, ["x@dark.test"])
        await _accept(site, ["a@one.test"])
        async with in_order(await site.start(dns=dns.address, smtp_port=server.port, sessions=1)):
            await server.wait_for(1)
            await eventually(lambda: _told(site, dark))
        text = await site.pool.fetchval("SELECT text FROM event WHERE delivery_id = $1", dark[0])
        assert "the MX records of dark.test cannot be looked up now" in text
        assert await site.pool.fetchval("SELECT failures FROM site WHERE name = 'mx:big.test'") == 0


async def test_a_provider_that_is_down_is_left_alone_for_all_its_domains(open_site: OpenSite) -> None:
    async with (
        ScriptedSmtpServer(Script(greeting="421 4.3.2 out of order")) as server,
        DnsServer(zone(one="mx", two="mx")) as dns,
    ):
        site = await open_site(server)
        await _accept(site, ["a@one.test", "b@two.test", "c@one.test"])
        async with in_order(await site.start(dns=dns.address, smtp_port=server.port)):
            await eventually(lambda: site.pool.fetchval("SELECT count(*) FROM event"))
            await eventually(lambda: site.pool.fetchval("SELECT in_use = 0 AND failures = 1 FROM site"))
        assert await site.pool.fetchval("SELECT count(*) FROM attempt") == 1
        assert len(server.sessions) == 1


async def test_acceptance_remembers_what_it_asked_and_asks_again_later(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        connection, now = site.room.connection, [0.0]
        known = Providers(capacity=2, clock=lambda: now[0])
        assert await known.find(connection, {"one.test"}) == {}  # type: ignore[arg-type] # a pool's proxy
        await providers.remember(connection, {"one.test": "big.test"})  # type: ignore[arg-type] # as above
        assert await known.find(connection, {"one.test"}) == {}  # type: ignore[arg-type] # as above
        now[0] = 31.0
        assert await known.find(connection, {"one.test", "two.test"}) == {"one.test": "big.test"}  # type: ignore[arg-type] # as above
        await providers.remember(connection, {"one.test": None})  # type: ignore[arg-type] # as above
        assert await known.find(connection, {"one.test"}) == {"one.test": "big.test"}  # type: ignore[arg-type] # as above
        assert await known.find(connection, {"three.test"}) == {}  # type: ignore[arg-type] # there is room for two
        assert await known.find(connection, {"one.test"}) == {}  # type: ignore[arg-type] # as above


async def test_domains_nothing_was_sent_to_for_long_are_forgotten(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await providers.remember(site.room.connection, {"old.test": "big.test", "new.test": "big.test"})  # type: ignore[arg-type] # a pool's proxy
        await site.pool.execute(
            "UPDATE domain_provider SET seen_at = now() - interval '31 days' WHERE domain = 'old.test'"
        )
        assert await providers.sweep(site.room.connection, limit=10) == 1  # type: ignore[arg-type] # as above
        assert await site.pool.fetchval("SELECT domain FROM domain_provider") == "new.test"


async def _accept(site: Site, recipients: Iterable[str]) -> list[int]:
    """Accept mail as it is accepted where the provider is known."""
    return await site.room.store(await site.room.messages(list(recipients), site=SiteName("mx", "big.test")))


async def _used(site: Site) -> list[str]:
    """Sites that something was sent to."""
    rows = await site.pool.fetch("SELECT name FROM site WHERE proven ORDER BY name")
    return [row["name"] for row in rows]


async def _told(site: Site, ids: list[int]) -> bool:
    return all([await site.events(i) for i in ids])

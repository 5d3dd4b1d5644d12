"""Which host and which address a mail goes to: MX records, addresses, both families, ourselves."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random

import pytest

from delivery.dial import Dialer, DialSettings, Undeliverable
from delivery.outcome import Result
from delivery.route import Own, Router, in_turn
from delivery.smtp import Timeouts
from delivery.way import Ways
from fakes.smtp_network import SmtpNetwork, smtp_network
from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from integration.delivery.test_dial import CONTENT, mail
from shared.db.lanes import SiteName
from shared.db.routing import Routing
from shared.dns.resolver import Resolver
from shared.security.keys import KeyRing

ONE, TWO, THREE, SIX = "127.0.0.2", "127.0.0.3", "127.0.0.4", "::1"
NOBODY = "127.0.0.9"


async def here(_: str) -> bool:
    return True


class Sender:
    """A dialer in a network of its own."""

    def __init__(
        self, network: SmtpNetwork, stack: AsyncExitStack, own: Own, *, allow_private: bool = True, **limits: float
    ) -> None:
        resolver = Resolver([network.dns.address], timeout=5, lifetime=10)
        stack.push_async_callback(resolver.close)
        router = Router(resolver, Random(3), own=own, smtp_port=network.port, allow_private=allow_private)
        self.dialer = Dialer(
            router, Ways(Routing(), KeyRing(["s" * 32]), "us.test"), DialSettings(Timeouts.all(20), **limits)
        )
        stack.push_async_callback(self.dialer.close)

    async def send(self, domain: str = "b.test", *, content: bytes = CONTENT, dialed: Sequence[str] = ()) -> Result:
        history = tuple(("mx.b.test", address) for address in dialed)
        one = replace(mail(recipient=f"b@{domain}"), dialed=history)
        try:
            line = await self.dialer.dial(SiteName("domain", domain), dialed=history)
        except Undeliverable as trouble:
            return trouble.result
        try:
            return (await line.send([one], content))[0]
        finally:
            await line.close()


Open = Callable[..., Awaitable[tuple[Sender, SmtpNetwork]]]


@pytest.fixture
async def open_network() -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def make(scripts: dict[str, Script], own: Own | None = None, **more: float) -> tuple[Sender, SmtpNetwork]:
            network = await stack.enter_async_context(smtp_network(scripts))
            return Sender(network, stack, own or Own("us.test"), **more), network  # type: ignore[arg-type] # a bool is a number

        yield make


TAKES, BUSY, REFUSES = Script(), Script(greeting="421 4.3.2 busy"), Script(greeting="554 5.3.2 never")


@pytest.mark.parametrize(
    ("scripts", "records", "visited", "accepted"),
    [
        # Without MX the domain itself, its alias followed (RFC 5321 5.1).
        ({ONE: TAKES}, {"b.test": {"A": [ONE]}}, [ONE], True),
        ({ONE: TAKES}, {"b.test": {"CNAME": ["c.test."]}, "c.test": {"A": [ONE]}}, [ONE], True),
        (
            {ONE: TAKES, TWO: TAKES},
            {"b.test": {"CNAME": ["c.test."]}, "c.test": {"MX": ["1 m.test."], "A": [TWO]}, "m.test": {"A": [ONE]}},
            [ONE],
            True,
        ),
        # The preferred host only, and only what is a host.
        (
            {ONE: TAKES, TWO: TAKES},
            {"b.test": {"MX": ["20 y.test.", "10 x.test.", "5 192.0.2.1."]}, "x.test": {"A": [ONE]}, "y.test": {"A": [TWO]}},
            [ONE],
            True,
        ),
        # "Not now" makes way for the next host, with whatever address.
        (
            {ONE: BUSY, TWO: TAKES},
            {"b.test": {"MX": ["10 x.test.", "20 y.test."]}, "x.test": {"A": [ONE]}, "y.test": {"A": [TWO]}},
            [ONE, TWO],
            True,
        ),
        (
            {TWO: TAKES},
            {"b.test": {"MX": ["10 x.test.", "20 y.test."]}, "x.test": {"A": [NOBODY]}, "y.test": {"A": [TWO]}},
            [TWO],
            True,
        ),
        (
            {TWO: TAKES},
            {"b.test": {"MX": ["10 x.test.", "20 y.test."]}, "x.test": "SERVFAIL", "y.test": {"A": [TWO]}},
            [TWO],
            True,
        ),
        # One session for each host: another address only where there is no connection.
        ({ONE: TAKES}, {"b.test": {"A": [NOBODY, ONE]}}, [ONE], True),
        ({SIX: TAKES}, {"b.test": {"A": [NOBODY], "AAAA": [SIX]}}, [SIX], True),
        ({ONE: BUSY, SIX: TAKES}, {"b.test": {"A": [ONE], "AAAA": [SIX]}}, [ONE], False),
        # "Never" ends the search.
        (
            {ONE: REFUSES, TWO: TAKES},
            {"b.test": {"MX": ["10 x.test.", "20 y.test."]}, "x.test": {"A": [ONE]}, "y.test": {"A": [TWO]}},
            [ONE],
            False,
        ),
    ],
)  # fmt: skip
async def test_hosts_are_tried_as_their_records_say(
    open_network: Open, scripts: dict[str, Script], records: dict[str, object], visited: list[str], accepted: bool
) -> None:
    sender, network = await open_network(scripts)
    network.zone.update(records)  # type: ignore[arg-type] # as the table has them
    result = await sender.send()
    assert (list(network.visited), result.accepted) == (visited, accepted)


async def test_a_refusal_of_the_mail_by_the_first_host_is_not_asked_of_the_second(open_network: Open) -> None:
    sender, network = await open_network({ONE: Script(rcpt="550 5.1.1 nobody"), TWO: Script()})
    network.zone["b.test"] = {"MX": ["10 x.test.", "20 y.test."]}
    network.dns.zone |= {"x.test": {"A": [ONE]}, "y.test": {"A": [TWO]}}
    result = await sender.send()
    assert (result.code, network.visited) == (550, {ONE: 1})


@pytest.mark.parametrize(
    ("records", "permanent", "said"),
    [
        ({"b.test": {"MX": ["0 ."], "A": [ONE]}}, True, "null MX"),
        ({"b.test": {"MX": ["10 192.0.2.1."], "A": [ONE]}}, True, "name no host"),
        ({"b.test": {"CNAME": ["b.test."]}}, False, "MX"),
        ({f"c{n}.test": {"CNAME": [f"c{n + 1}.test."]} for n in range(30)} | {"b.test": {"CNAME": ["c1.test."]}}, False, ""),
        ({"b.test": "SERVFAIL"}, False, "cannot be looked up now"),
        ({}, False, "does not exist"),
        ({"b.test": {"MX": ["10 x.test."]}, "x.test": {}}, False, "no address"),
    ],
)  # fmt: skip
async def test_where_there_is_no_host_nobody_is_dialed(
    open_network: Open, records: dict[str, object], permanent: bool, said: str
) -> None:
    sender, network = await open_network({ONE: Script()})
    network.zone.update(records)  # type: ignore[arg-type] # as the table has them
    result = await sender.send()
    assert (result.accepted, result.code, result.permanent) == (False, 0, permanent)
    assert said in result.text
    assert network.visited == {}


@pytest.mark.parametrize(("domain", "address"), [("[127.0.0.2]", ONE), ("[IPv6:::1]", SIX)])
async def test_an_address_literal_is_dialed_as_it_is(open_network: Open, domain: str, address: str) -> None:
    sender, network = await open_network({address: Script()})
    assert (await sender.send(domain)).accepted
    assert network.visited == {address: 1}
    assert not any(kind == "MX" for _, _, kind in network.dns.queries)


@pytest.mark.parametrize("domain", ["[127.0.0.2]", "[IPv6:::1]", "b.test"])
async def test_what_is_not_on_the_public_internet_is_not_dialed(open_network: Open, domain: str) -> None:
    sender, network = await open_network({ONE: Script(), SIX: Script()}, allow_private=False)
    network.zone["b.test"] = {"A": [ONE], "AAAA": [SIX]}
    result = await sender.send(domain)
    assert (result.accepted, network.visited) == (False, {})
    assert "not on the public internet" in result.text


US_AMONG_THEM = {
    "b.test": {"MX": ["10 x.test.", "20 us.test.", "20 y.test.", "30 z.test."]},
    "x.test": {"A": [ONE]},
    "y.test": {"A": [TWO]},
    "z.test": {"A": [TWO]},
    "us.test": {"A": [THREE]},
}
US_BY_ADDRESS = US_AMONG_THEM | {
    "b.test": {"MX": ["10 x.test.", "20 alias.test.", "30 z.test."]},
    "alias.test": {"A": [THREE]},
}
US_FIRST = {"b.test": {"MX": ["10 us.test.", "20 y.test."]}, "us.test": {"A": [THREE]}, "y.test": {"A": [TWO]}}


@pytest.mark.parametrize(
    ("records", "own", "visited", "facts"),
    [
        (US_AMONG_THEM, Own("us.test"), {ONE: 1}, ("", False)),
        (US_BY_ADDRESS, Own("us.test", frozenset({THREE})), {ONE: 1}, ("", False)),
        (US_FIRST, Own("US.test"), {}, ("5.4.6", True)),
        (US_FIRST, Own("other.test", frozenset({THREE})), {}, ("5.4.6", True)),
        ({"b.test": {"A": [THREE]}}, Own("us.test", frozenset({THREE})), {}, ("5.4.6", True)),
    ],
)
async def test_mail_does_not_go_in_circles(
    open_network: Open, records: dict[str, object], own: Own, visited: dict[str, int], facts: tuple[str, bool]
) -> None:
    sender, network = await open_network({ONE: BUSY, TWO: Script(), THREE: Script()}, own)
    network.zone.update(records)  # type: ignore[arg-type] # as the table has them
    result = await sender.send()
    assert (result.enhanced, result.permanent) == facts
    assert network.visited == visited


@pytest.mark.parametrize("own", [Own("us.test", receives=here), Own("x.test", frozenset({THREE}), receives=here)])
async def test_mail_that_we_receive_ourselves_is_delivered_to_us(open_network: Open, own: Own) -> None:
    sender, network = await open_network({THREE: Script(), TWO: Script()}, own)
    network.zone.update(US_FIRST)  # type: ignore[arg-type] # as the table has them
    assert (await sender.send()).accepted
    assert network.visited == {THREE: 1}


@pytest.mark.parametrize(("fields", "accepted"), [(100, True), (101, False)])
async def test_what_has_passed_more_than_a_hundred_hosts_ends(open_network: Open, fields: int, accepted: bool) -> None:
    sender, network = await open_network({ONE: Script()})
    network.zone["b.test"] = {"A": [ONE]}
    trace = b"".join(b"rEceived: by h%d\r\n\tfor x\r\n" % n for n in range(fields))
    body = b"\r\n" + b"Received: by quoted\r\n" * 200
    result = await sender.send(content=trace + b"Subject: Received: by\r\n" + body)
    assert result.accepted is accepted
    assert (result.permanent, result.enhanced) == ((False, "2.0.0") if accepted else (True, "5.4.6"))
    assert len(network.servers[ONE].messages) == accepted


@pytest.mark.parametrize(
    ("addresses", "before", "order"),
    [
        ([ONE, SIX], [], [ONE, SIX]),
        ([ONE, SIX], [ONE], [SIX, ONE]),
        ([ONE, SIX], [ONE, SIX], [ONE, SIX]),
        ([ONE, SIX], [ONE, SIX, ONE], [SIX, ONE]),
        ([ONE, TWO, SIX], [TWO], [SIX, TWO, ONE]),
        ([ONE, TWO, SIX], [TWO, ONE], [SIX, ONE, TWO]),
        ([ONE, TWO], [TWO], [TWO, ONE]),  # the second attempt at the same address: greylisting
        ([ONE, TWO], [TWO, TWO], [ONE, TWO]),
        ([ONE, TWO], [THREE], [ONE, TWO]),  # an address that is gone
    ],
)
def test_attempts_take_turns(addresses: list[str], before: list[str], order: list[str]) -> None:
    assert in_turn(addresses, before) == order


async def test_a_session_of_the_wrong_family_is_not_gone_on_with(open_network: Open) -> None:
    sender, network = await open_network({ONE: Script(), SIX: Script()})
    network.dns.zone |= {"b.test": {"MX": ["10 mx.b.test."]}, "mx.b.test": {"A": [ONE], "AAAA": [SIX]}}
    line = await sender.dialer.dial(SiteName("domain", "b.test"))
    fresh, again, third = (
        replace(mail(), dialed=tuple(("mx.b.test", ip) for ip in d)) for d in ([], [ONE], [ONE, SIX])
    )
    assert [line.suits(one) for one in (fresh, again, third)] == [True, False, True]
    await line.close()
    assert (await sender.send(dialed=[ONE])).facts.ip == SIX


async def test_a_host_whose_name_is_not_answered_makes_way_in_time(open_network: Open) -> None:
    sender, network = await open_network({TWO: Script()}, host_seconds=0.3)
    network.zone["b.test"] = {"MX": ["10 x.test.", "20 y.test."]}
    network.dns.zone |= {"x.test": "SILENT", "y.test": {"A": [TWO]}}
    assert (await sender.send()).accepted


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (Script(stall="ehlo"), "in time"),
        (Script(stall="message"), "not done after"),
        (Script(stall="rcpt"), "not done after"),
    ],
)
async def test_a_server_may_be_slow_for_so_long_only(open_network: Open, script: Script, said: str) -> None:
    sender, network = await open_network({ONE: script}, session_seconds=0.5)
    network.zone["b.test"] = {"A": [ONE]}
    result = await sender.send()
    assert (result.accepted, result.code, result.permanent) == (False, 0, False)
    assert said in result.text


async def _due(site: Site) -> None:
    await site.pool.execute("UPDATE delivery_queue SET due_at = now() WHERE worker_id IS NULL")
    await site.pool.execute("INSERT INTO delivery_wake (lane_id) SELECT DISTINCT lane_id FROM delivery_queue")


async def _attempts(site: Site, delivery_id: int) -> list[tuple[str, str]]:
    query = "SELECT outcome, ip FROM attempt WHERE delivery_id = $1 AND finished_at IS NOT NULL ORDER BY n"
    return [(row["outcome"], row["ip"]) for row in await site.pool.fetch(query, delivery_id)]


@pytest.mark.parametrize(
    ("addresses", "reply", "attempts"),
    [
        # 131: a block of one address may be none of the other family's.
        ([ONE, SIX], "550 5.7.1 blocked", [("delayed", ONE), ("failed", SIX)]),
        ([ONE], "550 5.7.1 blocked", [("failed", ONE)]),
        ([ONE, SIX], "550 5.1.1 nobody", [("failed", ONE)]),
        # 132: families take turns.
        ([ONE, SIX], "451 4.7.1 later", [("delayed", ONE), ("delayed", SIX), ("delayed", ONE), ("delayed", SIX)]),
    ],
)
async def test_attempts_and_their_addresses(
    open_site: OpenSite, addresses: list[str], reply: str, attempts: list[tuple[str, str]]
) -> None:
    async with smtp_network({address: Script(rcpt=reply) for address in addresses}) as network:
        network.zone["b.test"] = {"MX": ["10 mx.test."]}
        v4, v6 = ([a for a in addresses if (":" in a) is six] for six in (False, True))
        network.zone["mx.test"] = {"A": v4, "AAAA": v6}
        site = await open_site(ScriptedSmtpServer())
        (delivery,) = await site.room.accept(["a@b.test"])
        async with in_order(await site.start(dns=network.dns.address, smtp_port=network.port)):
            for count in range(1, len(attempts) + 1):

                async def made(count: int = count) -> bool:
                    return len(await _attempts(site, delivery)) >= count

                await eventually(made)
                await _due(site)
        assert await _attempts(site, delivery) == attempts

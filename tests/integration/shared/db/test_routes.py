"""Transports and routes as operators keep them, and as processes read them."""

from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shared.db import routes, transports
from shared.db.routes import RouteOptions
from shared.db.routing import Parcel, Routing
from shared.db.transports import TransportOptions
from shared.errors import AddressInvalid, BadInput, Conflict, NotFound, SecretUnreadable, ValidationFailed
from shared.models import Domain
from shared.security.keys import KeyRing

Sessions = async_sessionmaker[AsyncSession]
Raw = asyncpg.Connection
RELAY = TransportOptions(host="Relay.test", username="us", password="sesame")
PARCEL = Parcel(1, "a.test", "b.test")


async def _made(
    sessions: Sessions, ring: KeyRing, name: str = "relay", kind: str = "submission", **options: Any
) -> int:
    async with sessions() as session, session.begin():
        given = TransportOptions(**options) if options else RELAY
        return (await transports.create_transport(session, ring, name, kind, given)).id


async def test_a_transport_is_read_as_it_was_made(sessions: Sessions, connection: Raw, ring: KeyRing) -> None:
    await _made(sessions, ring)
    transport = (await Routing().current(connection)).transports["relay"]
    assert (transport.host, transport.port, transport.tls, transport.mechanisms) == ("relay.test", 587, "verified", ())
    assert (transport.username, transport.password(ring)) == ("us", "sesame")
    with pytest.raises(SecretUnreadable):
        transport.password(KeyRing(["t" * 32]))
    assert "sesame" not in repr((transport, RELAY))


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        ("relay", {}, "kind"),
        ("smtp", {}, "host"),
        ("smtp", {"host": "a b"}, "host"),
        ("smtp", {"host": "h.test", "port": 0}, "port"),
        ("smtp", {"host": "h.test", "tls": "perhaps"}, "tls"),
        ("smtp", {"host": "h.test", "username": "us"}, "password"),
        ("smtp", {"host": "h.test", "password": "x"}, "password"),
        ("smtp", {"host": "h.test", "username": "us", "password": "a\nb"}, "password"),
        ("smtp", {"host": "h.test", "username": "\U000f0000", "password": "a"}, "username"),
        ("smtp", {"host": "h.test", "username": "u" * 256, "password": "a"}, "username"),
        ("smtp", {"host": "h.test", "mechanisms": ("PLAIN", "PLAIN")}, "mechanisms"),
        ("smtp", {"host": "h.test", "mechanisms": ("XOAUTH2",)}, "mechanisms"),
        ("smtp", {"host": "h.test", "mechanisms": ()}, "mechanisms"),
        ("smtp", {"host": "h.test", "ipv6": False}, "ipv6"),
        ("submissions", {"host": "h.test", "tls": "none"}, "tls"),
        ("direct", {"host": "h.test"}, "host"),
        ("direct", {"ipv4": False, "ipv6": False}, "ipv6"),
        ("socks", {"host": "h.test"}, "ehlo_name"),
        ("fail", {"code": 250}, "code"),
        ("fail", {"text": "ä"}, "text"),
        ("fail", {"text": "a" * 257}, "text"),
    ],
)
async def test_what_a_transport_may_not_be(
    session: AsyncSession, ring: KeyRing, kind: str, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await transports.create_transport(session, ring, "one", kind, TransportOptions(**options))
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["", "A", "a:b", "a" * 64, "-a", "a b"])
async def test_a_name_stands_in_names_of_sites(session: AsyncSession, ring: KeyRing, name: str) -> None:
    with pytest.raises(ValidationFailed):
        await transports.create_transport(session, ring, name, "direct", TransportOptions())


async def test_a_change_leaves_the_rest(sessions: Sessions, connection: Raw, ring: KeyRing) -> None:
    made = await _made(sessions, ring, mechanisms=("PLAIN",), host="h.test", username="us", password="sesame")
    routing = Routing()
    for changes, port, login, mechanisms in (
        ({"port": 26}, 26, ("us", "sesame"), ("PLAIN",)),
        ({"username": "we"}, 26, ("we", "sesame"), ("PLAIN",)),
        ({"password": "open", "mechanisms": None}, 26, ("we", "open"), ()),
        ({"port": None, "username": None}, 587, (None, None), ()),
        ({"username": "us", "password": "x"}, 587, ("us", "x"), ()),
    ):
        async with sessions() as session, session.begin():
            await transports.update_transport(session, ring, made, changes)
        transport = (await routing.current(connection)).transports["relay"]
        assert (transport.port, (transport.username, transport.password(ring)), transport.mechanisms) == (
            port,
            login,
            mechanisms,
        )
    async with sessions() as session, session.begin():
        for wrong in ({"password": None}, {"code": 554}, {"host": None}):
            with pytest.raises(ValidationFailed):
                await transports.update_transport(session, ring, made, wrong)
        with pytest.raises(NotFound):
            await transports.update_transport(session, ring, 99, {})


async def test_names_are_unique_and_a_transport_in_use_stays(sessions: Sessions, ring: KeyRing) -> None:
    made = await _made(sessions, ring)
    async with sessions() as session, session.begin():
        with pytest.raises(Conflict):
            await transports.create_transport(session, ring, "relay", "direct", TransportOptions())
        route = await routes.create_route(session, RouteOptions("relay"))
        with pytest.raises(Conflict) as refused:
            await transports.delete_transport(session, made)
        assert f"route {route.id}" in refused.value.message
        await routes.delete_route(session, route.id)
        await transports.delete_transport(session, made)
        for gone in (transports.get_transport(session, made), routes.get_route(session, route.id)):
            with pytest.raises(NotFound):
                await gone


@pytest.mark.parametrize(
    ("options", "error", "field"),
    [
        ({"transport": "none"}, ValidationFailed, "transport"),
        ({"account_id": 99}, ValidationFailed, "account_id"),
        ({"domain_id": 99}, ValidationFailed, "domain_id"),
        ({"domain_id": 2**80}, ValidationFailed, "domain_id"),
        ({"account_id": 1, "domain_id": 1}, ValidationFailed, "domain_id"),
        ({"min_attempts": -1}, ValidationFailed, "min_attempts"),
        ({"position": 2**31}, ValidationFailed, "position"),
        ({"sender_domains": ["a.test", "..a"]}, AddressInvalid, "sender_domains[1]"),
        ({"recipient_domains": ["*.a.test"]}, AddressInvalid, "recipient_domains[0]"),
        ({"recipient_domains": ["a.test"] * 1001}, ValidationFailed, "recipient_domains"),
    ],
)
async def test_what_a_route_may_not_be(
    session: AsyncSession, ring: KeyRing, options: dict[str, Any], error: type[BadInput], field: str
) -> None:
    await transports.create_transport(session, ring, "relay", "direct", TransportOptions())
    with pytest.raises(error) as refused:
        await routes.create_route(session, RouteOptions(**{"transport": "relay", **options}))
    assert refused.value.field == field


async def test_lists_are_read_in_their_order(
    sessions: Sessions, connection: Raw, ring: KeyRing, domain: Domain
) -> None:
    for name in ("one", "two", "three"):
        await _made(sessions, ring, name, "direct", ipv6=False)
    async with sessions() as session, session.begin():
        first = await routes.create_route(session, RouteOptions("one", position=5, recipient_domains=["BÜCHER.test"]))
        await routes.create_route(session, RouteOptions("two", position=-1, min_attempts=1))
        own = await routes.create_route(
            session, RouteOptions("three", domain_id=domain.id, recipient_domains=[".c.test"])
        )
    routing = Routing()

    async def way(**change: Any) -> str | None:
        parcel = Parcel(
            **{"account_id": 1, "sender_domain": "a.test", "recipient_domain": "xn--bcher-kva.test", **change}
        )
        return (await routing.current(connection)).transport_for(parcel)

    assert (await way(), await way(attempts=1), await way(recipient_domain="b.test")) == ("one", "two", None)
    of_domain = {"account_id": domain.account_id, "sender_domain": "example.com", "recipient_domain": "x.c.test"}
    assert await way(**of_domain) == "three"
    assert await way(**(of_domain | {"account_id": 77})) is None
    async with sessions() as session, session.begin():
        await routes.update_route(session, first.id, {"recipient_domains": [], "position": -2})
        await routes.update_route(session, own.id, {"transport": "two"})
    assert (await way(attempts=1), await way(**of_domain)) == ("one", "two")
    await connection.execute("DELETE FROM domain WHERE id = $1", domain.id)
    assert await way(**of_domain) == "one"


async def test_what_was_read_holds_until_it_is_old_or_somebody_rang(
    sessions: Sessions, connection: Raw, ring: KeyRing
) -> None:
    now = 100.0
    routing = Routing(seconds=5, clock=lambda: now)
    assert (await routing.known(connection)).transports == {}
    await _made(sessions, ring, "one", "direct", ipv6=False)
    before = await routing.known(connection)
    assert before.transports == {}
    routing.forget()
    known = await routing.known(connection)
    assert set(known.transports) == {"one"}
    assert await routing.current(connection) is known  # nothing is read again that is the same
    await _made(sessions, ring, "two", "direct", ipv6=False)
    assert await routing.known(connection) is known
    now += 5
    assert set((await routing.known(connection)).transports) == {"one", "two"}
    await _made(sessions, ring, "three", "direct", ipv6=False)
    assert set((await routing.current(connection)).transports) == {"one", "two", "three"}


async def test_what_is_rolled_back_counts_for_nothing(sessions: Sessions, connection: Raw, ring: KeyRing) -> None:
    routing = Routing()
    before = await routing.current(connection)
    async with sessions() as session:
        await session.begin()
        await transports.create_transport(session, ring, "one", "direct", TransportOptions())
        assert await routing.current(connection) is before
        await session.rollback()
    assert await routing.current(connection) is before


async def test_pages(session: AsyncSession, ring: KeyRing) -> None:
    for name in ("a", "b", "c"):
        await transports.create_transport(session, ring, name, "direct", TransportOptions())
        await routes.create_route(session, RouteOptions(name))
    first = await transports.list_transports(session, limit=2)
    second = await transports.list_transports(session, limit=2, cursor=first.next_cursor)
    assert ([row.name for row in first.items], [row.name for row in second.items]) == (["a", "b"], ["c"])
    of_routes = await routes.list_routes(session, limit=2)
    rest = await routes.list_routes(session, limit=2, cursor=of_routes.next_cursor)
    assert [row.transport for row in (*of_routes.items, *rest.items)] == ["a", "b", "c"]

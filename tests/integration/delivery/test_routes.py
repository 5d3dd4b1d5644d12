"""Mail takes the transport that its route names: cases 141 to 144, and what may go wrong with each kind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from fakes.certificates import self_signed_context, server_context
from fakes.smtp_network import smtp_network
from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, in_order
from integration.delivery.floor import Floor, sites
from shared.db.lanes import SiteName

ONE, TWO, SIX = "127.0.0.2", "127.0.0.3", "::1"
PLAIN = Script(extensions=["AUTH PLAIN", "ENHANCEDSTATUSCODES"], auth=["235 2.7.0 OK"])


@pytest.fixture
async def floor(open_site: OpenSite) -> AsyncIterator[Floor]:
    async with smtp_network({ONE: Script(), SIX: Script()}) as network:
        network.zone["b.test"] = {"A": [ONE], "AAAA": [SIX]}
        yield Floor(await open_site(ScriptedSmtpServer()), network)


def of(server: ScriptedSmtpServer) -> dict[str, Any]:
    return {"host": "localhost", "port": server.port}


LOGIN = {"username": "us@a.test", "password": "pass word"}


async def test_141_a_route_leads_to_a_relay_with_a_login(floor: Floor) -> None:
    async with ScriptedSmtpServer(Script(**{**vars(PLAIN), "tls": server_context()})) as relay:
        await floor.operate(kind="submission", route={"recipient_domains": ["b.test"]}, **of(relay), **LOGIN)
        (attempt,) = await floor.send()
        assert (attempt["outcome"], attempt["host"], attempt["tls"] != "") == ("delivered", "localhost", True)
        assert any(command.startswith("AUTH PLAIN") for command in relay.sessions[0].commands)
        (message,) = relay.messages
        assert message.tls
        await floor.send("a@c.test")
        assert len(relay.messages) == 1
    assert floor.network.visited == {}
    assert await sites(floor) == {"domain:b.test", "transport:t", "domain:c.test"}


async def test_141_a_route_may_wait_for_attempts_that_failed(floor: Floor) -> None:
    for server in floor.network.servers.values():
        server.script.rcpt = "451 4.3.0 later"
    async with ScriptedSmtpServer() as relay:
        await floor.operate(route={"min_attempts": 3}, tls="none", **of(relay))
        attempts = await floor.send(attempts=4)
    assert [(attempt["outcome"], attempt["ip"]) for attempt in attempts] == [
        ("delayed", ONE),
        ("delayed", SIX),
        ("delayed", ONE),
        ("delivered", "127.0.0.1"),
    ]


@pytest.mark.parametrize("removed", [True, False])
async def test_142_mail_of_a_transport_that_is_not_there_waits(floor: Floor, removed: bool) -> None:
    made = await floor.operate(route={}, tls="none", host="localhost", port=1)
    if removed:
        await floor.site.pool.execute("DELETE FROM transport WHERE id = $1", made)
    else:
        await floor.site.pool.execute("UPDATE route SET transport = 'unknown'")
    attempts = await floor.send(attempts=2)
    assert [attempt["outcome"] for attempt in attempts] == ["delayed", "delayed"]
    assert "there is no transport" in attempts[0]["text"]
    assert floor.network.visited == {}


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({}, ("failed", 554, "5.7.0", "mail that takes this way is refused")),
        ({"code": 450, "text": "come back"}, ("delayed", 450, "4.7.0", "come back")),
        ({"code": 550, "text": "user unknown"}, ("failed", 550, "5.7.0", "user unknown")),
    ],
)
async def test_143_a_transport_may_refuse(floor: Floor, options: dict[str, Any], facts: tuple[object, ...]) -> None:
    await floor.operate(kind="fail", route={}, **options)
    (attempt,) = await floor.send()
    assert tuple(attempt[name] for name in ("outcome", "code", "enhanced", "text")) == facts
    assert floor.network.visited == {}
    assert await floor.site.pool.fetchval("SELECT count(*) FROM suppression") == 0
    assert await floor.site.pool.fetchval("SELECT count(*) FROM recipient_state") == 0


@pytest.mark.parametrize(
    ("tls", "extensions", "facts"),
    [
        ("none", ["REQUIRETLS", "ENHANCEDSTATUSCODES"], ("failed", 554, "5.7.30")),
        ("unverified", ["REQUIRETLS", "ENHANCEDSTATUSCODES"], ("failed", 554, "5.7.30")),
        ("verified", ["ENHANCEDSTATUSCODES"], ("failed", 554, "5.7.30")),
        ("verified", ["REQUIRETLS", "ENHANCEDSTATUSCODES"], ("delivered", 250, "2.0.0")),
    ],
)
async def test_144_tls_that_is_required_all_the_way_is_not_risked(
    floor: Floor, tls: str, extensions: list[str], facts: tuple[object, ...]
) -> None:
    async with ScriptedSmtpServer(Script(extensions=extensions, tls=server_context())) as relay:
        await floor.operate(route={}, tls=tls, **of(relay))
        (delivery,) = await floor.site.room.accept(["a@b.test"])
        await floor.site.pool.execute("UPDATE message SET require_tls = true")
        async with floor.working():
            await eventually(lambda: floor.attempts(delivery))
        (attempt,) = await floor.attempts(delivery)
        assert tuple(attempt[name] for name in ("outcome", "code", "enhanced")) == facts
        assert [message.mail_params[-1] for message in relay.messages] == ["REQUIRETLS"] * (facts[1] == 250)


@pytest.mark.parametrize(
    ("kind", "tls", "script", "outcome", "over_tls"),
    [
        ("smtp", "verified", {"tls": server_context()}, "delivered", True),
        ("smtp", "verified", {"tls": self_signed_context()}, "delayed", None),
        ("smtp", "verified", {}, "delayed", None),
        ("smtp", "unverified", {"tls": self_signed_context()}, "delivered", True),
        ("smtp", "unverified", {}, "delayed", None),
        ("smtp", "none", {"tls": server_context()}, "delivered", False),
        ("submissions", None, {"tls": server_context(), "implicit_tls": True}, "delivered", True),
        ("submissions", None, {"tls": self_signed_context(), "implicit_tls": True}, "delayed", None),
    ],
)
async def test_a_relay_has_the_tls_that_was_agreed_or_no_mail(
    floor: Floor, kind: str, tls: str | None, script: dict[str, Any], outcome: str, over_tls: bool | None
) -> None:
    async with ScriptedSmtpServer(Script(**script)) as relay:
        await floor.operate(kind=kind, route={}, tls=tls, **of(relay))
        (attempt,) = await floor.send()
        assert attempt["outcome"] == outcome
        assert [message.tls for message in relay.messages] == ([] if over_tls is None else [over_tls])


@pytest.mark.parametrize(
    ("tls", "mechanisms", "shown"),
    [("verified", None, True), ("unverified", None, False), ("unverified", ("PLAIN",), True), ("none", None, False)],
)
async def test_a_password_is_shown_only_where_that_was_agreed(
    floor: Floor, tls: str, mechanisms: tuple[str, ...] | None, shown: bool
) -> None:
    async with ScriptedSmtpServer(Script(**{**vars(PLAIN), "tls": server_context()})) as relay:
        await floor.operate(route={}, tls=tls, mechanisms=mechanisms, **of(relay), **LOGIN)
        (attempt,) = await floor.send()
        assert attempt["outcome"] == ("delivered" if shown else "delayed")
        assert any(command.startswith("AUTH") for command in relay.sessions[0].commands) is shown


@pytest.mark.parametrize("reply", ["535 5.7.8 user unknown", "530 5.7.0 no", "454 4.7.0 later"])
async def test_a_login_that_is_refused_is_no_failure_of_the_mail(floor: Floor, reply: str) -> None:
    script = Script(extensions=PLAIN.extensions, auth=[reply], tls=server_context())
    async with ScriptedSmtpServer(script) as relay:
        await floor.operate(route={}, **of(relay), **LOGIN)
        (attempt,) = await floor.send()
        assert (attempt["outcome"], attempt["stage"], attempt["code"]) == ("delayed", "auth", int(reply[:3]))
    event = await floor.site.pool.fetchrow("SELECT type, category, suppressing FROM event")
    assert tuple(event) == ("delayed", "infrastructure", False)
    told = await floor.site.pool.fetchrow("SELECT kind, subject, facts FROM operator_event")
    assert tuple(told)[:2] == ("login_refused", "t")
    assert "pass word" not in told["facts"]


async def test_a_login_is_never_the_recipients_failure_even_at_the_end(floor: Floor) -> None:
    async with ScriptedSmtpServer(
        Script(extensions=PLAIN.extensions, auth=["535 5.7.8 user unknown"], tls=server_context())
    ) as relay:
        await floor.operate(route={}, **of(relay), **LOGIN)
        await floor.site.pool.execute("UPDATE account SET retry_schedule = 'mox'")
        attempts = await floor.send(attempts=8)
    assert [attempt["outcome"] for attempt in attempts] == ["delayed"] * 7 + ["failed"]
    assert await floor.site.pool.fetchval("SELECT count(*) FROM suppression") == 0


async def test_a_password_that_cannot_be_read_delays(floor: Floor) -> None:
    async with ScriptedSmtpServer(PLAIN) as relay:
        await floor.operate(route={}, **of(relay), **LOGIN)
        await floor.site.pool.execute("UPDATE transport SET password_sealed = 'v1:x:y'")
        (attempt,) = await floor.send()
        assert (attempt["outcome"], relay.sessions) == ("delayed", [])


@asynccontextmanager
async def aiosmtpd_relay(login: tuple[bytes, bytes]) -> AsyncIterator[tuple[int, list[Envelope]]]:
    taken: list[Envelope] = []

    class Sink:
        async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
            taken.append(envelope)
            return "250 OK"

    def known(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=(data.login, data.password) == login, handled=False)

    def protocol() -> SMTP:
        return SMTP(
            Sink(), tls_context=server_context(), require_starttls=True, auth_required=True, authenticator=known
        )

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], taken
    server.close()


async def test_an_independent_relay_takes_the_mail_once_the_password_is_right(floor: Floor) -> None:
    async with aiosmtpd_relay((b"us@a.test", b"new word")) as (port, taken):
        made = await floor.operate(route={}, host="localhost", port=port, **LOGIN)
        (delivery,) = await floor.site.room.accept(["a@b.test"])
        async with floor.working():
            await eventually(lambda: floor.attempts(delivery))
            await floor.update(made, password="new word")
            await floor.due()
            await eventually(floor.site.settled)
        assert [attempt["outcome"] for attempt in await floor.attempts(delivery)] == ["delayed", "delivered"]
        assert [envelope.rcpt_tos for envelope in taken] == [["a@b.test"]]


@pytest.mark.parametrize(
    ("options", "ip", "site"),
    [({}, ONE, "domain:b.test"), ({"ipv4": False}, SIX, "via:t:b.test"), ({"ipv6": False}, ONE, "via:t:b.test")],
)
async def test_a_direct_transport_uses_the_families_it_may(
    floor: Floor, options: dict[str, Any], ip: str, site: str
) -> None:
    await floor.operate(kind="direct", route={}, **options)
    (attempt,) = await floor.send()
    assert (attempt["outcome"], attempt["ip"]) == ("delivered", ip)
    assert site in await sites(floor)


async def test_a_host_without_an_address_of_the_family_waits(floor: Floor) -> None:
    await floor.operate(kind="direct", route={}, ipv4=False)
    floor.network.zone["b.test"] = {"A": [ONE]}
    (attempt,) = await floor.send()
    assert (attempt["outcome"], floor.network.visited) == ("delayed", {})
    assert "no IPv6 address" in attempt["text"]


async def test_the_relay_of_the_settings_is_the_way_without_a_route(floor: Floor) -> None:
    async with ScriptedSmtpServer() as default, ScriptedSmtpServer() as other:
        await floor.operate(kind="smtp", tls="none", route={"recipient_domains": [".b.test"]}, **of(other))
        relay = f"127.0.0.1:{default.port}"
        messages = await floor.site.room.messages(["a@x.b.test", "a@c.test"], site=SiteName("relay", relay))
        await floor.site.room.store(messages)
        async with in_order(await floor.site.start(relay=relay)):
            await eventually(floor.site.settled)
        assert [message.recipients for message in other.messages] == [["a@x.b.test"]]
        assert [message.recipients for message in default.messages] == [["a@c.test"]]


async def test_what_waits_takes_the_route_that_was_made_meanwhile(floor: Floor) -> None:
    for server in floor.network.servers.values():
        server.script.rcpt = "451 4.3.0 later"
    async with ScriptedSmtpServer() as relay:
        (delivery,) = await floor.site.room.accept(["a@b.test"])
        async with floor.working():
            await eventually(lambda: floor.attempts(delivery))
            await floor.operate(route={}, tls="none", **of(relay))
            await floor.due()
            await relay.wait_for(1)
            await eventually(floor.site.settled)


async def test_a_session_that_is_busy_ends_when_its_route_does(floor: Floor) -> None:
    server = floor.network.servers[ONE]
    async with ScriptedSmtpServer() as relay:
        await floor.operate(tls="none", **of(relay))
        await floor.site.room.accept([f"u{n}@b.test" for n in range(25)])
        server.script.stall = "message"
        async with floor.working(sessions=1, timeout=1.0):
            await eventually(lambda: bool(server.sessions) and "DATA" in server.sessions[0].commands)
            await floor.site.pool.execute("INSERT INTO route (transport) VALUES ('t')")
            server.script.stall = None
            # The mail in flight is lost with its session; none of the 24 behind it goes where the route does not lead.
            await relay.wait_for(24)
        assert server.messages == []

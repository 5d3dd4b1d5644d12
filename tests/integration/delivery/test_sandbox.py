"""Mail of sandbox keys: the outcome that its addresses ask for, the ordinary way through the queue, and nobody is asked."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from fakes.dns_server import DnsServer
from fakes.smtp_server import ScriptedSmtpServer
from fakes.waiting import eventually
from integration.delivery.conftest import OpenSite, Site, in_order
from integration.shared.db.queue_data import new_worker
from shared.db import starts
from shared.db.lanes import SANDBOX, SiteName
from shared.db.queue import DELIVERIES
from shared.db.starts import Candidate, Verdict

Told = list[tuple[str, int, str, bool]]
"""Of each event its type, code, enhanced code, and whether it suppressed."""

TAKEN: Told = [("delivered", 250, "2.0.0", False)]
OUTCOMES: list[tuple[str, str, str, str, Told]] = [
    # sender's local part, recipient's, state, stage of the attempt, what is told
    ("me", "grace", "delivered", "message", TAKEN),
    ("me", "PERMERROR", "delivered", "message", TAKEN),
    ("me", "x399", "delivered", "message", TAKEN),
    ("me", "x600", "delivered", "message", TAKEN),
    ("me", "xpermerror", "failed", "message", [("failed", 550, "5.0.0", True)]),
    ("me", "xtemperror", "queued", "message", [("delayed", 451, "4.0.0", False)]),
    ("me", "x550", "failed", "message", [("failed", 550, "5.0.0", True)]),
    ("me", "x554", "failed", "message", [("failed", 554, "5.0.0", False)]),
    ("me", "x599", "failed", "message", [("failed", 599, "5.0.0", False)]),
    ("me", "x400", "queued", "message", [("delayed", 400, "4.0.0", False)]),
    ("me", "x421", "queued", "message", [("delayed", 421, "4.0.0", False)]),
    ("me", "rcptto550", "failed", "rcpt", [("failed", 550, "5.0.0", True)]),
    ("me", "rcpttotemperror", "queued", "rcpt", [("delayed", 451, "4.0.0", False)]),
    ("mailfrom550", "grace", "failed", "mail", [("failed", 550, "5.0.0", True)]),
    ("mailfromtemperror", "xpermerror", "queued", "mail", [("delayed", 451, "4.0.0", False)]),
    ("me", "xtimeout", "queued", "message", [("delayed", 0, "", False)]),
    ("me", "rcpttotimeout", "queued", "rcpt", [("delayed", 0, "", False)]),
    ("me", "xgreylist", "queued", "message", [("delayed", 451, "4.0.0", False)]),
    ("me", "xbounce", "delivered", "message", [*TAKEN, ("bounced", 550, "5.1.1", True)]),
    ("me", "xcomplaint", "delivered", "message", [*TAKEN, ("complained", 0, "", True)]),
]

_watches: list[list[object]] = []
"""Whoever watches now; an audit hook cannot be taken away again, only find nobody to tell."""


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches or not event.startswith("socket."):
        return
    local = event == "socket.connect" and isinstance(arguments[1], (str, bytes))  # Postgres, through its Unix socket
    if not local and event in {"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg"}:
        _watches[-1].append((event, *arguments[1:]))


sys.addaudithook(_note)


@pytest.fixture
def dialed() -> Iterator[list[object]]:
    """Everything that this process asks of a network while the test runs: names, connections, datagrams."""
    _watches.append([])
    yield _watches[-1]
    _watches.clear()


async def accept(
    site: Site, *recipients: str, sender: str = "me@ours.test", lane: SiteName = SANDBOX, test: bool = True
) -> list[int]:
    """Accept mail of a sandbox key; return its deliveries."""
    made = await site.room.messages(list(recipients), site=lane)
    return await site.room.store(
        [
            replace(
                m, sender=sender, is_test=test, deliveries=tuple(replace(d, mail_from=sender) for d in m.deliveries)
            )
            for m in made
        ]
    )


async def told(site: Site, delivery: int) -> Told:
    rows = await site.pool.fetch(
        "SELECT type, code, enhanced, suppressing FROM event WHERE delivery_id = $1 ORDER BY id", delivery
    )
    return [(row["type"], row["code"], row["enhanced"], row["suppressing"]) for row in rows]


async def again(site: Site) -> None:
    """Make everything that waits due now."""
    await site.pool.execute("UPDATE delivery_queue SET due_at = now() WHERE worker_id IS NULL")
    await site.pool.execute("INSERT INTO delivery_wake SELECT DISTINCT lane_id FROM delivery_queue")


async def suppress(site: Site, address: str, stream: str) -> None:
    await site.pool.execute(
        "INSERT INTO suppression (account_id, stream, key, mox_key, address, manual, reason) VALUES ($1, $3, $2, $2, $2, true, '')",
        site.room.account_id,
        address,
        stream,
    )


async def test_every_outcome_is_played_and_nothing_is_asked_of_the_network(
    open_site: OpenSite, dialed: list[object]
) -> None:
    async with ScriptedSmtpServer() as server, DnsServer({}) as dns:
        for way in ({}, {"dns": dns.address}):
            site = await open_site(server)
            ids = [
                (await accept(site, f"{to}@b{place}.test", sender=f"{sender}@ours.test"))[0]
                for place, (sender, to, *_) in enumerate(OUTCOMES)
            ]
            async with in_order(await site.start(**way)):

                async def all_told(site: Site = site, ids: list[int] = ids) -> bool:
                    return [await told(site, i) for i in ids] == [outcome[-1] for outcome in OUTCOMES]

                await eventually(all_told)
            assert [await site.state(i) for i in ids] == [outcome[2] for outcome in OUTCOMES]
            attempts = await site.pool.fetch(
                "SELECT host, stage, ip, tls FROM attempt WHERE delivery_id = ANY ($1) ORDER BY delivery_id", ids
            )
            assert [tuple(row) for row in attempts] == [("sandbox", outcome[3], "", "") for outcome in OUTCOMES]
        assert dialed == []
        assert server.sessions == []
        assert dns.queries == []


async def test_what_is_not_of_the_sandbox_does_ask_the_network(open_site: OpenSite, dialed: list[object]) -> None:
    """The same worker and the same watch: they would have seen it."""
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        await accept(site, "xpermerror@b.test", lane=SiteName("relay", site.relay), test=False)
        async with in_order(await site.start()):
            await server.wait_for(1)
            await eventually(site.settled)
        assert len(dialed) >= 1


async def test_no_lane_leads_sandbox_mail_out_and_none_leads_other_mail_in(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (test,) = await accept(site, "xpermerror@b.test", lane=SiteName("relay", site.relay))
        (real,) = await accept(site, "ypermerror@b.test", lane=SANDBOX, test=False)
        async with in_order(await site.start()):
            (message,) = await server.wait_for(1)
            await eventually(site.settled)
        assert message.recipients == ["ypermerror@b.test"]
        assert [await site.state(i) for i in (test, real)] == ["failed", "delivered"]
        assert len(server.messages) == 1


async def test_a_greylist_lets_the_second_attempt_in(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (delivery,) = await accept(site, "greylist@b.test")
        async with in_order(await site.start()):
            await eventually(lambda: _is(site, delivery, ["delayed"]))
            assert await site.pool.fetchval("SELECT due_at > now() + interval '7 minutes' FROM delivery_queue")
            await again(site)
            await eventually(lambda: _is(site, delivery, ["delayed", "delivered"]))
        assert await site.pool.fetchval("SELECT attempts FROM delivery WHERE id = $1", delivery) == 2


async def test_the_sender_is_read_in_front_of_a_from_id_too(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (message,) = await site.room.messages(["grace@b.test"], site=SANDBOX)
        path = replace(message.deliveries[0], mail_from="mailfrom550+abc@ours.test", from_id="abc")
        (delivery,) = await site.room.store(
            [replace(message, is_test=True, sender="mailfrom550@ours.test", deliveries=(path,))]
        )
        async with in_order(await site.start()):
            await eventually(lambda: _is(site, delivery, ["failed"]))


async def test_neither_streams_failures_and_suppressions_concern_the_other(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        relay = SiteName("relay", site.relay)
        await suppress(site, "listed@b.test", "")
        await suppress(site, "sandboxed@b.test", "test")
        await site.pool.execute(
            "INSERT INTO recipient_state (account_id, key, failures) VALUES ($1, 'grace@b.test', 2)",
            site.room.account_id,
        )
        before = await accept(site, "550@b.test")
        async with in_order(await site.start()):
            await eventually(site.settled)
            ids = [
                *before,
                *await accept(site, "listed@b.test", "grace@b.test"),
                *await accept(site, "sandboxed@b.test", "550@b.test", lane=relay, test=False),
            ]
            await eventually(site.settled)
        assert [await site.state(i) for i in ids] == ["failed", "delivered", "delivered", "delivered", "delivered"]
        assert sorted(m.recipients[0] for m in server.messages) == ["550@b.test", "sandboxed@b.test"]
        assert await accept_state(site, "550@b.test", test=True) == "suppressed"
        assert await accept_state(site, "listed@b.test", test=False) == "suppressed"
        # What the sandbox took did not clear the failures of mail in earnest.
        assert await site.pool.fetchval("SELECT failures FROM recipient_state WHERE stream = ''") == 2
        rows = await site.pool.fetch("SELECT stream, key, reason FROM suppression ORDER BY id")
        assert [tuple(row) for row in rows] == [
            ("", "listed@b.test", ""),
            ("test", "sandboxed@b.test", ""),
            ("test", "550@b.test", "hard_bounce"),
        ]


async def test_a_complaint_suppresses_in_the_sandbox_by_that_name(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (delivery,) = await accept(site, "complaint@b.test")
        async with in_order(await site.start()):
            await eventually(lambda: _is(site, delivery, ["delivered", "complained"]))
        row = await site.pool.fetchrow("SELECT stream, reason, delivery_id FROM suppression")
        assert row is not None
        assert tuple(row) == ("test", "complaint", delivery)
        assert await site.pool.fetchval("SELECT complained_at IS NOT NULL FROM delivery")
        streams = await site.pool.fetch("SELECT stream FROM event")
        assert {row["stream"] for row in streams} == {"test"}


async def test_a_started_mail_of_a_dead_worker_is_taken_over(open_site: OpenSite) -> None:
    async with ScriptedSmtpServer() as server:
        site = await open_site(server)
        (delivery,) = await accept(site, "xbounce@b.test")
        async with site.pool.acquire() as connection:
            await _start_and_die(connection, delivery)  # type: ignore[arg-type] # a pool's proxy of a connection
        async with in_order(await site.start()):
            await eventually(lambda: _lost(site), timeout=20)
            assert await told(site, delivery) == []
            await again(site)
            await eventually(lambda: _is(site, delivery, ["delivered", "bounced"]))
        attempts = await site.pool.fetch("SELECT n, outcome FROM attempt ORDER BY n")
        assert [tuple(row) for row in attempts] == [(1, "lost"), (2, "delivered")]
        assert server.sessions == []


async def accept_state(site: Site, recipient: str, *, test: bool) -> str:
    lane = SANDBOX if test else SiteName("relay", site.relay)
    (delivery,) = await accept(site, recipient, lane=lane, test=test)
    return await site.state(delivery)


async def _start_and_die(connection: asyncpg.Connection, delivery: int) -> None:
    """Start a delivery as a worker whose heart has stopped since."""
    worker = await new_worker(connection)
    await DELIVERIES.drain(connection)
    (claimed,) = await DELIVERIES.claim(connection, worker, sites=5, lanes=5, rows=5)
    assert claimed.id == delivery
    account = await connection.fetchval("SELECT account_id FROM delivery WHERE id = $1", delivery)
    key = "xbounce@b.test"
    candidate = Candidate(delivery, account, key, "b.test", key, key, "me@ours.test", "ours.test", "test")
    gates = await starts.start(connection, worker, [candidate])
    assert gates[delivery].verdict is Verdict.START
    await connection.execute("UPDATE worker SET heartbeat_at = now() - interval '1 hour' WHERE id = $1", worker)


async def _is(site: Site, delivery: int, types: list[str]) -> bool:
    return await site.events(delivery) == types


async def _lost(site: Site) -> bool:
    return await site.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE losses = 1 AND worker_id IS NULL") == 1

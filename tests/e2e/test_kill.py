"""A delivery worker dies without a word: nothing is lost, and only what was in flight may be sent twice."""

import asyncio
from contextlib import AsyncExitStack

from e2e.conftest import OpenStack
from fakes.dns_server import DnsServer, Zone
from fakes.smtp_server import Message, Script
from fakes.stack import HoldingSmtpServer, Stack
from fakes.waiting import eventually

SILENT_AT = {"mail": "127.0.0.2", "rcpt": "127.0.0.3", "data": "127.0.0.4"}
"""Stage at which the host of a domain falls silent, and where that host is."""
SILENT_AT_THE_END = "127.0.0.5"


async def attempts(stack: Stack) -> dict[str, list[tuple[int, str | None]]]:
    """Return number and outcome of each attempt, by recipient."""
    rows = await stack.pool.fetch(
        "SELECT d.recipient, a.n, a.outcome FROM attempt a JOIN delivery d ON d.id = a.delivery_id ORDER BY a.n"
    )
    found: dict[str, list[tuple[int, str | None]]] = {}
    for row in rows:
        found.setdefault(row["recipient"], []).append((row["n"], row["outcome"]))
    return found


async def inheritance(stack: Stack) -> dict[str, int]:
    """Start another worker, and return what it found left behind by the dead one."""
    worker = await stack.start("delivery")
    (line,) = await eventually(lambda: worker.logged("worker_reaped"), 30, what="the death being noticed")
    return {name: line[name] for name in ("released", "lost", "exhausted")}


def twice(server: HoldingSmtpServer) -> set[str]:
    """Return the recipients who got their mail twice; nobody may have got it more often."""
    received = server.received()
    assert max(received.values()) <= 2
    return {recipient for recipient, count in received.items() if count == 2}


async def test_of_fifty_mails_only_those_in_flight_come_twice_when_the_only_worker_is_killed_in_data(
    stack: Stack, server: HoldingSmtpServer
) -> None:
    recipients = [f"r{number}@receiver.example" for number in range(50)]

    def stall(_: Message) -> None:
        if len(server.messages) == 20:  # from now on contents are taken and not answered, in every session
            server.hold.update(recipients)

    server.on_message = stall
    processes = await stack.start_all("api", "delivery")
    await asyncio.gather(*(stack.send(recipient) for recipient in recipients))
    await eventually(lambda: server.held, 20, what="mail in DATA")

    processes["delivery"].kill()
    in_flight, unanswered = await stack.started(), set(server.held)
    server.on_message = None
    server.release()
    left = await inheritance(stack)
    await stack.quiet()

    assert (left["lost"], left["exhausted"]) == (len(in_flight), 0)
    assert await stack.states() == dict.fromkeys(recipients, "delivered")
    assert set(server.received()) == set(recipients)
    assert unanswered <= twice(server) <= in_flight
    tried = await attempts(stack)
    for recipient in recipients:
        lost = [(1, "lost")] if recipient in in_flight else []
        assert tried[recipient] == [*lost, (len(lost) + 1, "delivered")]


async def silent_hosts(opened: AsyncExitStack) -> dict[str, HoldingSmtpServer]:
    """Open a host for each stage of a transaction, all on one port of several loopback addresses."""
    hosts: dict[str, HoldingSmtpServer] = {}
    port = 0
    for stage, address in SILENT_AT.items():
        hosts[stage] = await opened.enter_async_context(HoldingSmtpServer(Script(stall=stage), address, port))
        port = hosts[stage].port
    hosts["end"] = await opened.enter_async_context(HoldingSmtpServer(None, SILENT_AT_THE_END, port))
    hosts["end"].hold = {"r0@end.example"}
    return hosts


def is_silent(stage: str, host: HoldingSmtpServer) -> bool:
    return bool(host.held) or any(c.startswith(stage.upper()) for session in host.sessions for c in session.commands)


async def test_a_worker_killed_at_every_stage_loses_nothing_and_repeats_only_what_it_had_started(
    open_stack: OpenStack, database_url: str
) -> None:
    async with AsyncExitStack() as opened:
        hosts = await silent_hosts(opened)
        zone: Zone = {f"{stage}.example": {"A": [host.host]} for stage, host in hosts.items()}
        dns = await opened.enter_async_context(DnsServer(zone))
        stack = await open_stack(database_url, dns_servers=dns.address, delivery_smtp_port=hosts["end"].port)
        await stack.start("api")
        recipients = [f"r{number}@{stage}.example" for stage in hosts for number in range(8)]
        await stack.send(*recipients)
        worker = await stack.start("delivery")
        await eventually(lambda: all(is_silent(stage, host) for stage, host in hosts.items()), 20, what="silence")

        worker.kill()
        in_flight = await stack.started()
        claimed = await stack.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE worker_id IS NOT NULL")
        assert {recipient.partition("@")[2] for recipient in in_flight} == set(zone)
        for host in hosts.values():
            host.script.stall = None
            host.release()
        left = await inheritance(stack)
        await stack.quiet()

        assert left == {"lost": len(in_flight), "released": claimed - len(in_flight), "exhausted": 0}
        assert left["released"] > len(in_flight)
        assert await stack.states() == dict.fromkeys(recipients, "delivered")
        assert {recipient for host in hosts.values() for recipient in host.received()} == set(recipients)
        # Before the end of the content nothing has been handed over.
        assert {stage: twice(host) for stage, host in hosts.items()} == {
            **{stage: set() for stage in SILENT_AT},
            "end": {"r0@end.example"},
        }
        tried = await attempts(stack)
        for recipient in recipients:
            lost = [(1, "lost")] if recipient in in_flight else []
            assert tried[recipient] == [*lost, (len(lost) + 1, "delivered")]


async def test_mails_whose_good_reply_the_worker_did_not_live_to_record_are_the_only_ones_that_come_twice(
    stack: Stack, server: HoldingSmtpServer
) -> None:
    recipients = [f"r{number}@receiver.example" for number in range(10)]
    await stack.start("api")
    await stack.send(*recipients)

    def freeze(message: Message) -> None:
        if message.recipients == ["r6@receiver.example"] and worker.exit_code is None:
            worker.freeze()  # the reply goes out, and the worker will never hear it
            server.script.drop_after = "message"

    server.on_message = freeze
    worker = await stack.start("delivery", delivery_sessions=1)
    await server.wait_for_sessions(1, closed=True)
    worker.kill()
    in_flight = await stack.started()
    assert "r6@receiver.example" in in_flight
    server.script.drop_after = None
    await inheritance(stack)
    await stack.quiet()

    assert set(server.received()) == set(recipients)
    assert twice(server) == in_flight
    assert len(in_flight) <= 5, "a session runs four results ahead of what is written"
    assert await stack.states() == dict.fromkeys(recipients, "delivered")

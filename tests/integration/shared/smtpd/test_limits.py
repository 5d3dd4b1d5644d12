"""Every count, size and time has an end."""

import asyncio
from typing import Any

import pytest

from fakes.waiting import eventually
from shared.errors import ConfigurationError
from shared.smtpd import SmtpdConfig, serve

Stand = Any


async def test_too_many_recipients_are_452_and_the_others_stay(stand: Stand) -> None:
    await stand.start(max_recipients=2)
    client = await stand.client()
    await client.envelope("b@b.test", "c@c.test")
    assert (await client.say("RCPT TO:<d@d.test>")).startswith(b"452 4.5.3")
    assert (await client.say("DATA")).startswith(b"354")
    assert (await client.say(".")).startswith(b"250")
    assert stand.handler.envelopes[0].recipients == ("b@b.test", "c@c.test")


async def test_too_large_a_message_is_552_and_the_session_goes_on(stand: Stand) -> None:
    await stand.start(max_size=1000)
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    client.write(b"x" * 1500 + b"\r\n.\r\nNOOP\r\n")
    assert await client.codes(2) == [552, 250]
    assert stand.handler.envelopes == []


async def test_a_message_without_end_is_cut_off(stand: Stand) -> None:
    await stand.start(max_size=1000)
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    client.write(b"x" * 10_000)
    assert (await client.rest()).startswith(b"552 5.3.4")


async def test_exactly_the_largest_message_is_taken(stand: Stand) -> None:
    await stand.start(max_size=1000)
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    client.write(b"x" * 998 + b"\r\n.\r\n")
    assert await client.codes(1) == [250]


async def test_messages_together_keep_to_the_memory(stand: Stand) -> None:
    await stand.start(memory_limit=200_000)
    stand.handler.hold = asyncio.Event()
    first, second = await stand.client(), await stand.client()
    for client in (first, second):
        await client.envelope()
        await client.say("DATA")
    first.write(b"x" * 150_000 + b"\r\n.\r\n")
    await stand.handler.holding.wait()
    second.write(b"x" * 100_000 + b"\r\n.\r\n")
    assert (await second.reply()).startswith(b"452 4.3.1")
    stand.handler.hold.set()
    assert await first.codes(1) == [250]
    second.write(b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n" + b"x" * 100_000 + b"\r\n.\r\n")
    assert await second.codes(4) == [250, 250, 354, 250]


async def test_too_long_a_line_ends_the_connection(stand: Stand) -> None:
    await stand.start(max_line=100)
    client = await stand.client()
    assert (await client.say("NOOP " + "x" * 93)).startswith(b"250")
    client.write(b"NOOP " + b"x" * 94 + b"\r\n")
    assert (await client.rest()).startswith(b"500 5.5.2 Command line too long")
    endless = await stand.client()
    endless.write(b"x" * 100_000)
    assert (await endless.rest()).startswith(b"500 5.5.2")


async def test_too_many_errors_end_the_connection(stand: Stand) -> None:
    await stand.start(max_errors=3)
    client = await stand.client()
    client.write(b"FOO\r\n" * 10)
    assert await client.codes(5) == [500, 500, 500, 500, 421]


async def test_too_many_commands_end_the_connection(stand: Stand) -> None:
    await stand.start(max_commands=5)
    client = await stand.client()
    client.write(b"NOOP\r\n" * 6)
    assert await client.codes(6) == [250] * 5 + [421]


async def test_a_message_starts_the_count_of_commands_again(stand: Stand) -> None:
    await stand.start(max_commands=4)
    client = await stand.client()
    client.write(b"EHLO c\r\n" + b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n.\r\n" * 3)
    assert await client.codes(13) == [250] + [250, 250, 354, 250] * 3


@pytest.mark.parametrize(
    "settings",
    [{"command_timeout": 0.05}, {"session_timeout": 0.05}, {"command_timeout": 0.05, "session_timeout": 0.05}],
)
async def test_an_idle_peer_gets_421(stand: Stand, settings: dict[str, float]) -> None:
    await stand.start(**settings)
    client = await stand.client()
    assert (await client.rest()).startswith(b"421 4.4.2")


@pytest.mark.parametrize("settings", [{"data_timeout": 0.05}, {"transaction_timeout": 0.05}])
async def test_a_message_that_stops_arriving_gets_421(stand: Stand, settings: dict[str, float]) -> None:
    await stand.start(**settings)
    client = await stand.client()
    client.write(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nhalf a")
    assert await client.codes(5) == [250, 250, 250, 354, 421]


async def test_a_message_that_trickles_gets_421(stand: Stand) -> None:
    await stand.start(transaction_timeout=0.3, data_timeout=20.0)
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    answer = asyncio.ensure_future(client.rest())
    async with asyncio.timeout(20):
        while not answer.done():
            client.write(b"x")
            await asyncio.wait({answer}, timeout=0.02)
    assert (await answer).startswith(b"421 4.4.2")


async def test_connections_of_one_address_are_limited(stand: Stand) -> None:
    await stand.start(per_ip_limit=2)
    await stand.client()
    second = await stand.client()
    third = await stand.client(greeted=False)
    assert (await third.rest()).startswith(b"421 4.7.0")
    await second.say("QUIT")
    await second.rest()
    await eventually(lambda: stand.listener.sessions == 1)
    await stand.client()


async def test_connections_are_limited(stand: Stand) -> None:
    await stand.start(session_limit=1)
    await stand.client()
    second = await stand.client(greeted=False)
    assert (await second.rest()).startswith(b"421 4.3.2")


async def test_a_peer_that_runs_ahead_waits_in_tcp(stand: Stand) -> None:
    await stand.start(max_commands=10**6)
    stand.handler.hold = asyncio.Event()
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    client.write(b"x\r\n.\r\n")
    await stand.handler.holding.wait()
    client.write((b"NOOP " + b"x" * 4000 + b"\r\n") * 4000)
    (wire,) = stand.listener._conversations
    await eventually(lambda: not wire.transport.is_reading())
    assert len(wire._buffer) < 1_000_000
    stand.handler.hold.set()
    assert await client.codes(4001) == [250] * 4001


async def test_a_peer_that_reads_nothing_is_given_up(stand: Stand) -> None:
    await stand.start(command_timeout=0.3, max_commands=10**9)
    client = await stand.client()
    client.reader._transport.pause_reading()
    flood = asyncio.ensure_future(_flood(client))
    await eventually(lambda: stand.listener.sessions == 0)
    with pytest.raises(ConnectionError):
        await flood


async def _flood(client: Any) -> None:
    while True:
        client.write(b"HELP\r\n" * 1000)
        await client.writer.drain()


async def test_a_port_in_use_says_so(stand: Stand) -> None:
    listener = await stand.start()
    with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{listener.port}: the port is in use"):
        await serve(SmtpdConfig(hostname="mx.test"), stand.handler, "127.0.0.1", listener.port)

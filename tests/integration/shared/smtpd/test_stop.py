"""Stopping: idle peers are told, transactions finish, the rest is cut off."""

import asyncio
from typing import Any

import pytest

Stand = Any


async def test_an_idle_peer_is_told(stand: Stand) -> None:
    client = await stand.client()
    await client.say("EHLO c")
    await stand.listener.close(20)
    assert (await client.rest()).startswith(b"421 4.3.2")


async def test_a_transaction_finishes_first(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    closing = asyncio.ensure_future(stand.listener.close(20))
    await asyncio.sleep(0)
    assert (await client.say("DATA")).startswith(b"354")
    client.write(b"x\r\n.\r\nMAIL FROM:<>\r\n")
    assert await client.codes(2) == [250, 421]
    await closing
    assert len(stand.handler.envelopes) == 1


async def test_after_the_grace_period_it_is_cut_off(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    await stand.listener.close(0.05)
    assert (await client.rest()).startswith(b"421 4.3.2")


async def test_a_handler_that_does_not_end_is_cancelled(stand: Stand) -> None:
    stand.handler.hold = asyncio.Event()
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    client.write(b"x\r\n.\r\n")
    await stand.handler.holding.wait()
    await stand.listener.close(0.05)
    assert (await client.rest()).startswith(b"421 4.3.2")
    assert stand.handler.cancelled == 1


async def test_nobody_new_is_let_in(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope()
    port = stand.listener.port
    closing = asyncio.ensure_future(stand.listener.close(20))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)
    await client.say("QUIT")
    await closing

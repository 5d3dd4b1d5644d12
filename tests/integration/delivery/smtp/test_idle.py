"""Sessions without mail: kept for a while, handed out once, and gone when the server or the clock says so."""

import asyncio
from typing import Any

import pytest

from delivery.smtp import IdleSessions, Mail
from fakes.smtp_server import Script
from fakes.waiting import eventually

Stand = Any

MAIL = Mail.of("a@a.test", ["b@b.test"], b"x\r\n")


async def test_a_session_is_gone_on_with(stand: Stand) -> None:
    idle = IdleSessions(60)
    session = await stand.session()
    await session.send(MAIL)
    assert idle.keep("b.test", session)
    assert idle.take("other.test") is None
    assert idle.take("b.test") is session
    assert idle.take("b.test") is None
    assert (await session.send(MAIL)).results[0].accepted
    assert len(stand.server.sessions) == 1
    await idle.close()
    assert session.usable


async def test_nobody_wants_it(stand: Stand) -> None:
    idle = IdleSessions(0.05)
    session = await stand.session()
    assert idle.keep("b.test", session)
    await stand.server.wait_for_sessions(1, closed=True)
    assert stand.server.sessions[0].commands[-1] == "QUIT"
    assert idle.take("b.test") is None
    assert not session.usable
    await idle.close()


@pytest.mark.parametrize("script", [Script(message="250 OK\r\n421 4.4.2 Idle"), Script(drop_after="message")])
async def test_the_server_leaves(stand: Stand, script: Script) -> None:
    idle = IdleSessions(60)
    session = await stand.session(script)
    assert idle.keep("b.test", session)
    await session.send(MAIL)
    await eventually(lambda: not session.usable)
    assert idle.take("b.test") is None
    await idle.close()
    await stand.server.wait_for_sessions(1, closed=True)


async def test_one_for_each_key(stand: Stand) -> None:
    idle = IdleSessions(60)
    first, second = await stand.session(), await stand.connect()
    assert idle.keep("b.test", first)
    assert not idle.keep("b.test", second)
    first.abort()
    assert idle.keep("b.test", second)
    assert idle.take("b.test") is second
    await idle.close()


async def test_what_is_of_no_use_is_not_kept(stand: Stand) -> None:
    session = await stand.session()
    assert not IdleSessions(0).keep("b.test", session)
    session.abort()
    assert not IdleSessions(60).keep("b.test", session)


async def test_closing_says_goodbye_to_all_and_keeps_no_more(stand: Stand) -> None:
    idle = IdleSessions(60)
    sessions = [await stand.session(), await stand.connect()]
    for number, session in enumerate(sessions):
        assert idle.keep(number, session)
    await idle.close()
    for seen in await stand.server.wait_for_sessions(2, closed=True):
        assert seen.commands[-1] == "QUIT"
    assert not idle.keep(3, await stand.connect())


async def test_a_session_that_was_taken_is_not_ended_by_the_clock_any_more(stand: Stand) -> None:
    wrong: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    idle = IdleSessions(0.02)
    taken = await stand.session()
    assert idle.keep("b.test", taken)
    assert idle.take("b.test") is taken
    assert idle.keep("later.test", await stand.connect())  # its time is over after that of the first
    await stand.server.wait_for_sessions(1, closed=True)
    assert taken.usable
    assert wrong == []
    await idle.close()

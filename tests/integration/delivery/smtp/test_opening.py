"""From no connection to a session, and every way it can fail."""

import asyncio
import socket
from typing import Any

import pytest

from delivery.smtp import SmtpError, Stage, Target, Timeouts, connect
from delivery.smtp.errors import (
    SmtpConnectError,
    SmtpConnectionLostError,
    SmtpGreetingError,
    SmtpHelloError,
    SmtpProtocolError,
    SmtpTimeoutError,
)
from fakes.smtp_server import Script

Stand = Any


async def test_the_facts_of_a_session(stand: Stand) -> None:
    session = await stand.session(Script(greeting="220-mx.test\r\n220 ESMTP"))
    assert (session.host, session.ip, session.local_ip) == ("localhost", "127.0.0.1", "127.0.0.1")
    assert session.greeting == "mx.test\nESMTP"
    assert session.extensions.pipelining
    assert session.extensions.size == 50_000_000
    assert session.tls is None
    assert session.usable
    await session.quit()
    assert not session.usable
    assert stand.server.sessions[0].commands == ["EHLO client.test", "QUIT"]


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504])
async def test_helo_where_ehlo_is_unknown(stand: Stand, code: int) -> None:
    session = await stand.session(Script(ehlo=f"{code} What"))
    assert not session.extensions.esmtp
    assert stand.server.sessions[0].commands == ["EHLO client.test", "HELO client.test"]


@pytest.mark.parametrize(
    ("script", "kind", "stage", "code"),
    [
        (Script(greeting="554 5.7.1 Not you"), SmtpGreetingError, Stage.GREETING, 554),
        (Script(greeting="421 Busy"), SmtpGreetingError, Stage.GREETING, 421),
        (Script(greeting="521 No mail here"), SmtpGreetingError, Stage.GREETING, 521),
        (Script(greeting="2200 Odd"), SmtpProtocolError, Stage.GREETING, 0),
        (Script(greeting="HTTP/1.1 400 Bad Request"), SmtpProtocolError, Stage.GREETING, 0),
        (Script(drop="connect"), SmtpConnectionLostError, Stage.GREETING, 0),
        (Script(stall="connect"), SmtpTimeoutError, Stage.GREETING, 0),
        (Script(ehlo="550 5.7.1 Bad name"), SmtpHelloError, Stage.EHLO, 550),
        (Script(ehlo="450 Later"), SmtpHelloError, Stage.EHLO, 450),
        (Script(ehlo="502 No", helo="550 No"), SmtpHelloError, Stage.EHLO, 550),
        (Script(ehlo="250-a\r\n251 b"), SmtpProtocolError, Stage.EHLO, 0),
        (Script(drop="ehlo"), SmtpConnectionLostError, Stage.EHLO, 0),
        (Script(stall="ehlo"), SmtpTimeoutError, Stage.EHLO, 0),
    ],
)
async def test_failures(stand: Stand, script: Script, kind: type[SmtpError], stage: Stage, code: int) -> None:
    with pytest.raises(kind) as failed:
        await stand.session(script, timeouts=Timeouts.all(0.2) if script.stall else None)
    error = failed.value
    assert (type(error), error.stage, error.reply_code) == (kind, stage, code)
    assert (error.host, error.ip) == ("localhost", "127.0.0.1")
    assert error.text
    assert str(error).startswith("localhost[127.0.0.1]: ")
    sessions = await stand.server.wait_for_sessions(1, closed=True)
    assert (sessions[0].commands[-1:] == ["QUIT"]) == bool(code)


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(SmtpConnectError) as failed:
            await connect(Target("mx.test", "127.0.0.1", taken.getsockname()[1]), ehlo_name="c", timeouts=Timeouts())
    assert failed.value.stage is Stage.CONNECT


async def test_an_address_that_is_none() -> None:
    with pytest.raises(SmtpConnectError):
        await connect(Target("mx.test", "300.0.0.1", 25), ehlo_name="c", timeouts=Timeouts.all(5))


async def test_the_source_address_is_ours_to_choose(stand: Stand) -> None:
    server = await stand.serve()
    session = await connect(
        Target("localhost", "127.0.0.1", server.port, "127.0.0.2"), ehlo_name="c", timeouts=Timeouts.all(20)
    )
    stand.sessions.append(session)
    assert session.local_ip == "127.0.0.2"


async def test_a_cancelled_connect_leaves_nothing_open(stand: Stand) -> None:
    server = await stand.serve(Script(stall="connect"))
    opening = asyncio.ensure_future(stand.connect())
    await server.wait_for_sessions(1)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await server.wait_for_sessions(1, closed=True)

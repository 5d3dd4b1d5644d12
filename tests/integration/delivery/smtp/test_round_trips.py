"""What a far server costs: round trips, counted on a line that holds every answer back until we have said all we can."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from delivery.smtp import Mail, Session, Target, Timeouts, connect
from fakes.far_away import LongLine
from fakes.smtp_server import Script

Stand = Any

CONTENT = b"Subject: x\r\n\r\n" + b"a line\r\n" * 100
OPENING = 2  # greeting, EHLO
GOODBYE = 1


@asynccontextmanager
async def far(stand: Stand, script: Script) -> AsyncIterator[tuple[LongLine, Session]]:
    server = await stand.serve(script)
    async with LongLine(server.port) as line:
        session = await connect(Target("localhost", "127.0.0.1", line.port), ehlo_name="c", timeouts=Timeouts.all(20))
        try:
            yield line, session
        finally:
            await session.quit()


def chunking(**more: Any) -> Script:
    return Script(extensions=["CHUNKING", "8BITMIME"], **more)


@pytest.mark.parametrize("recipients", [1, 20])
@pytest.mark.parametrize(
    ("script", "each"),
    [
        (chunking(), lambda _: 1),  # envelope and content in one write
        (Script(), lambda _: 2),  # the content waits for 354
        (chunking(pipelining=False), lambda recipients: 2 + recipients),  # MAIL, each RCPT, BDAT
        (Script(pipelining=False), lambda recipients: 3 + recipients),
    ],
)
async def test_round_trips_of_a_mail(stand: Stand, script: Script, each: Any, recipients: int) -> None:
    mail = Mail.of("a@a.test", [f"{number}@b.test" for number in range(recipients)], CONTENT)
    async with far(stand, script) as (line, session):
        assert line.round_trips == OPENING
        for _ in range(3):
            assert all(result.accepted for result in (await session.send(mail)).results)
        assert line.round_trips == OPENING + 3 * each(recipients)
    assert line.round_trips == OPENING + 3 * each(recipients) + GOODBYE
    assert len(stand.server.messages) == 3
    assert len(stand.server.sessions) == 1


async def test_giving_up_a_transaction_costs_no_round_trip(stand: Stand) -> None:
    async with far(stand, Script(rcpt={"no@b.test": "550 5.1.1 No"})) as (line, session):
        await session.send(Mail.of("a@a.test", ["no@b.test"], CONTENT))
        assert line.round_trips == OPENING + 1
        assert (await session.send(Mail.of("a@a.test", ["b@b.test"], CONTENT))).results[0].accepted
        assert line.round_trips == OPENING + 3
    assert "RSET" in stand.server.sessions[0].commands


async def test_a_limit_costs_a_round_trip_for_each_transaction(stand: Stand) -> None:
    script = Script(extensions=["CHUNKING", "LIMITS RCPTMAX=10"])
    async with far(stand, script) as (line, session):
        await session.send(Mail.of("a@a.test", [f"{number}@b.test" for number in range(35)], CONTENT))
        assert line.round_trips == OPENING + 4
    assert [len(message.recipients) for message in stand.server.messages] == [10, 10, 10, 5]


async def test_large_content_is_not_sent_for_nobody(stand: Stand) -> None:
    script = chunking(rcpt={"no@b.test": "550 5.1.1 No"})
    large = Mail.of("a@a.test", ["no@b.test"], CONTENT * 100)
    async with far(stand, script) as (line, session):
        assert (await session.send(large)).results[0].code == 550
        assert line.round_trips == OPENING + 1
        assert session.usable
    assert not [command for command in stand.server.sessions[0].commands if command.startswith("BDAT")]

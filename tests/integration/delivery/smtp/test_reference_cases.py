"""The numbered cases of the reference system that the client decides: what the server does, and what each delivery becomes."""

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from delivery.outcome import Result, Tried, decide
from delivery.smtp import Mail, RcptResult, Session, SmtpError
from fakes.smtp_server import Script
from shared.db.outcomes import AttemptFacts
from shared.events import EventType
from shared.worker.backoff import DELIVERY_MOX

Stand = Any

CONTENT = b"Subject: x\r\n\r\ntext\r\n"
DELIVERED, DELAYED, FAILED = EventType.DELIVERED, EventType.DELAYED, EventType.FAILED


@dataclass(frozen=True)
class Case:
    """What a server does, and for each recipient the event with its code."""

    number: int
    script: Script
    outcomes: list[tuple[EventType, int]]
    transactions: int = 1
    content: bytes = CONTENT
    smtputf8: bool = False


def refusing(*replies: str, **more: Any) -> Script:
    return Script(rcpt={f"{number}@b.test": reply for number, reply in enumerate(replies) if reply}, **more)


TOO_MANY_ONCE = {"1@b.test": ["552 5.5.3 Too many", "250 2.1.5 OK"]}
CASES = [
    Case(114, Script(), [(DELIVERED, 250)] * 2),
    Case(117, Script(extensions=["LIMITS RCPTMAX=1"]), [(DELIVERED, 250)] * 2, transactions=2),
    Case(118, Script(rcpt=TOO_MANY_ONCE), [(DELIVERED, 250)] * 2, transactions=2),
    Case(118, Script(rcpt=TOO_MANY_ONCE, pipelining=False), [(DELIVERED, 250)] * 2, transactions=2),
    Case(118, Script(rcpt={"1@b.test": ["452 No", "250 OK"]}), [(DELIVERED, 250)] * 2, transactions=2),
    Case(119, refusing("", "550 5.1.1 No", "451 4.3.0 Later"), [(DELIVERED, 250), (FAILED, 550), (DELAYED, 451)]),
    Case(120, refusing("550 5.1.1 No", "550 5.1.1 No"), [(FAILED, 550)] * 2),
    Case(120, refusing("550 5.1.1 No", "451 4.1.1 Later"), [(FAILED, 550), (DELAYED, 451)]),
    Case(120, refusing("550 5.1.1 No", "554 5.7.1 No", data="354 Go"), [(FAILED, 550), (FAILED, 554)]),
    Case(121, refusing("452 4.5.3 Too many"), [(DELAYED, 452)]),
    Case(121, refusing("552 5.2.2 Full"), [(DELAYED, 552)]),
    Case(121, refusing("552 5.2.2 Full", pipelining=False), [(FAILED, 552)]),
    Case(122, Script(mail="550 5.7.1 No", drop_after="mail"), [(FAILED, 550)]),
    Case(122, Script(mail="550 5.7.1 No", drop_after="mail", extensions=["CHUNKING"]), [(FAILED, 550)]),
    Case(123, refusing("554 5.7.1 No", drop_after="rcpt"), [(FAILED, 554)]),
    Case(123, refusing("554 5.7.1 No", drop_after="rcpt", extensions=["CHUNKING"]), [(FAILED, 554)]),
    Case(124, Script(greeting="521 No mail here"), [(FAILED, 521)], transactions=0),
    Case(124, Script(greeting="2200 Odd"), [(DELAYED, 0)], transactions=0),
    Case(124, Script(greeting="nonsense"), [(DELAYED, 0)], transactions=0),
    Case(125, Script(ehlo="500 What"), [(DELIVERED, 250)]),
    Case(140, Script(extensions=["SIZE 10"]), [(FAILED, 0)], transactions=0),
    Case(
        140,
        Script(extensions=[]),
        [(DELAYED, 0)],
        transactions=0,
        content="Subject: ü\r\n\r\nx\r\n".encode(),
        smtputf8=True,
    ),
    Case(140, Script(extensions=[]), [(DELIVERED, 250)], smtputf8=True),
]


def event(session: Session | None, result: RcptResult | SmtpError) -> tuple[EventType, int]:
    """Let the file that decides decide."""
    if isinstance(result, SmtpError):
        facts = AttemptFacts(stage=result.stage.value)
        said = Result(False, result.reply_code, result.enhanced, result.text, facts, permanent=result.permanent)
    else:
        facts = AttemptFacts(stage=result.stage.value)
        pipelined = session is not None and session.extensions.pipelining
        said = Result(result.accepted, result.code, result.enhanced, result.text, facts, pipelined=pipelined)
    outcome = decide(Tried(1, 1, 1, timedelta(), DELIVERY_MOX), said, random=Random(1))
    return outcome.event, outcome.code


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.number))
async def test_case(stand: Stand, case: Case) -> None:
    recipients = [f"{number}@b.test" for number in range(len(case.outcomes))]
    mail = Mail.of("a@a.test", recipients, case.content, smtputf8=case.smtputf8)
    session = None
    try:
        session = await stand.session(case.script)
        results: list[RcptResult | SmtpError] = list((await session.send(mail)).results)
    except SmtpError as error:
        results = [error] * len(recipients)
    assert [event(session, result) for result in results] == case.outcomes
    assert len(stand.server.sessions) == 1
    commands = stand.server.sessions[0].commands
    assert len([command for command in commands if command.startswith("MAIL")]) == case.transactions
    if {what for what, _ in case.outcomes} == {DELIVERED}:
        assert len(stand.server.messages) == case.transactions

"""Transactions: exactly one result for each recipient, whatever the server does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from delivery.smtp import Mail, Sent, Stage, Timeouts
from delivery.smtp.errors import (
    SmtpAddressError,
    SmtpConnectionLostError,
    SmtpContentError,
    SmtpSizeError,
    SmtpSourceError,
    SmtpUtf8Error,
)
from fakes.smtp_server import Script
from fakes.waiting import eventually

Stand = Any

CONTENT = b"Subject: x\r\n\r\n.dot\r\n..\r\nend\r\n"
ONE = Mail.of("a@a.test", ["b@b.test"], CONTENT)
TWO = Mail.of("a@a.test", ["b@b.test", "c@b.test"], CONTENT)
BOTH_WAYS = pytest.mark.parametrize("pipelining", [True, False])


def facts(sent: Sent) -> list[tuple[bool, Stage, int, str]]:
    return [(result.accepted, result.stage, result.code, result.enhanced) for result in sent.results]


@BOTH_WAYS
async def test_a_mail_arrives_as_it_was(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(Script(pipelining=pipelining))
    sent = await session.send(TWO)
    assert facts(sent) == [(True, Stage.MESSAGE, 250, "2.0.0")] * 2
    assert [result.recipient for result in sent.results] == ["b@b.test", "c@b.test"]
    assert sent.results[0].text == "2.0.0 Taken"
    assert not sent.results[0].in_doubt
    (message,) = stand.server.messages
    assert (message.mail_from, message.recipients, message.content) == ("a@a.test", ["b@b.test", "c@b.test"], CONTENT)
    assert message.mail_params == [f"SIZE={len(CONTENT)}", "BODY=7BIT"]


@pytest.mark.parametrize(("pipelining", "round_trips"), [(True, 2), (False, 5)])
async def test_pipelining_saves_round_trips(stand: Stand, pipelining: bool, round_trips: int) -> None:
    session = await stand.session(Script(pipelining=pipelining))
    before = stand.server.sessions[0].bursts
    await session.send(TWO)
    await session.send(TWO)
    # Each burst is a wait of the server for us: the envelope, the content.
    assert stand.server.sessions[0].bursts - before == 2 * round_trips
    assert len(stand.server.sessions) == 1


@BOTH_WAYS
async def test_each_recipient_has_its_own_answer(stand: Stand, pipelining: bool) -> None:
    rcpt = {
        "no@b.test": "550-5.1.1 Unknown\r\n550 5.1.1 user",
        "full@b.test": "452 4.2.2 Full",
        "more@b.test": "552 5.5.3 Too many",
    }
    session = await stand.session(Script(rcpt=rcpt, pipelining=pipelining))
    mail = Mail.of("", ["no@b.test", "b@b.test", "full@b.test", "more@b.test", "c@b.test"], CONTENT)
    sent = await session.send(mail)
    assert facts(sent) == [
        (False, Stage.RCPT, 550, "5.1.1"),
        (True, Stage.MESSAGE, 250, "2.0.0"),
        (False, Stage.RCPT, 452, "4.2.2"),
        (False, Stage.RCPT, 552, "5.5.3"),
        (True, Stage.MESSAGE, 250, "2.0.0"),
    ]
    assert sent.results[0].text == "5.1.1 Unknown\n5.1.1 user"
    taken = [recipient for message in stand.server.messages for recipient in message.recipients]
    assert taken == ["b@b.test", "c@b.test"]


@BOTH_WAYS
async def test_all_refused_keeps_each_code_and_the_session(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(
        Script(
            rcpt={"b@b.test": ["550 5.1.1 No", "250 2.1.5 OK"], "c@b.test": "450 4.2.1 Later"}, pipelining=pipelining
        )
    )
    assert facts(await session.send(TWO)) == [(False, Stage.RCPT, 550, "5.1.1"), (False, Stage.RCPT, 450, "4.2.1")]
    assert session.usable
    assert facts(await session.send(ONE)) == [(True, Stage.MESSAGE, 250, "2.0.0")]
    commands = stand.server.sessions[0].commands
    assert commands[-4:] == [
        "RSET",
        f"MAIL FROM:<a@a.test> SIZE={len(CONTENT)} BODY=7BIT",
        "RCPT TO:<b@b.test>",
        "DATA",
    ]


async def test_354_without_a_recipient_gets_a_lone_dot(stand: Stand) -> None:
    session = await stand.session(Script(rcpt={"*": ["550 5.1.1 No", "250 2.1.5 OK"]}, data="354 Go"))
    sent = await session.send(ONE)
    assert facts(sent) == [(False, Stage.RCPT, 550, "5.1.1")]
    assert facts(await session.send(ONE)) == [(True, Stage.MESSAGE, 250, "2.0.0")]
    assert "RSET" not in stand.server.sessions[0].commands
    assert stand.server.messages[0].content == CONTENT


@BOTH_WAYS
@pytest.mark.parametrize(
    ("script", "stage", "code"),
    [
        ({"mail": "550 5.7.1 No"}, Stage.MAIL, 550),
        ({"mail": "452 4.3.1 Full"}, Stage.MAIL, 452),
        ({"data": "451 4.3.0 Later"}, Stage.DATA, 451),
        ({"message": "554 5.6.0 Spam"}, Stage.MESSAGE, 554),
        ({"message": "450 4.7.1 Greylisted"}, Stage.MESSAGE, 450),
        ({"message": "600 Odd"}, Stage.MESSAGE, 600),
    ],
)
async def test_a_failure_of_the_transaction_is_everybodys(
    stand: Stand, pipelining: bool, script: dict[str, str], stage: Stage, code: int
) -> None:
    session = await stand.session(Script(pipelining=pipelining, **script))
    sent = await session.send(TWO)
    assert [(result.accepted, result.stage, result.code) for result in sent.results] == [(False, stage, code)] * 2
    assert session.usable
    assert stand.server.messages == []


@BOTH_WAYS
@pytest.mark.parametrize("how", ["drop", "stall"])
@pytest.mark.parametrize(
    ("at", "stage"), [("mail", Stage.MAIL), ("rcpt", Stage.RCPT), ("data", Stage.DATA), ("message", Stage.MESSAGE)]
)
async def test_a_connection_that_fails_is_code_0(
    stand: Stand, pipelining: bool, how: str, at: str, stage: Stage
) -> None:
    session = await stand.session(
        Script(pipelining=pipelining, **{how: at}), timeouts=Timeouts.all(0.3) if how == "stall" else None
    )
    sent = await session.send(TWO)
    assert [(result.accepted, result.stage, result.code) for result in sent.results] == [(False, stage, 0)] * 2
    assert ("no answer in time" if how == "stall" else "connection lost") in sent.results[0].text
    assert sent.results[0].in_doubt == (at == "message")
    assert sent.results[0].untouched == (at == "mail")
    assert not session.usable
    with pytest.raises(SmtpConnectionLostError):
        await session.send(ONE)


@BOTH_WAYS
async def test_what_was_said_before_the_connection_failed_stays_true(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(Script(pipelining=pipelining, rcpt={"b@b.test": "550 5.1.1 No"}, drop="data"))
    assert facts(await session.send(TWO)) == [(False, Stage.RCPT, 550, "5.1.1"), (False, Stage.DATA, 0, "")]


async def test_closing_behind_a_refused_mail_keeps_its_code(stand: Stand) -> None:
    session = await stand.session(Script(mail="550 5.7.1 No", drop_after="mail"))
    assert facts(await session.send(TWO)) == [(False, Stage.MAIL, 550, "5.7.1")] * 2
    assert not session.usable


async def test_closing_when_all_are_refused_keeps_their_codes(stand: Stand) -> None:
    session = await stand.session(Script(rcpt={"b@b.test": "550 5.1.1 No", "c@b.test": "451 4.1.1 No"}, drop="data"))
    assert facts(await session.send(TWO)) == [(False, Stage.RCPT, 550, "5.1.1"), (False, Stage.RCPT, 451, "4.1.1")]


@BOTH_WAYS
async def test_421_says_why_the_others_got_nothing(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(Script(pipelining=pipelining, rcpt="421 4.3.2 Closing", drop_after="rcpt"))
    assert facts(await session.send(TWO)) == [(False, Stage.RCPT, 421, "4.3.2")] * 2
    assert not session.usable


@pytest.mark.parametrize(
    "script",
    [
        Script(data="250 OK"),
        Script(data="354 Go\r\n250 2.0.0 Taken already"),
        Script(message="hello"),
        Script(mail="250-a\r\n251 b"),
    ],
)
async def test_what_is_not_smtp_is_code_0(stand: Stand, script: Script) -> None:
    session = await stand.session(script)
    sent = await session.send(TWO)
    assert [(result.accepted, result.code) for result in sent.results] == [(False, 0)] * 2
    assert "does not speak SMTP" in sent.results[0].text
    assert not session.usable


async def test_a_goodbye_while_idle_makes_the_session_unusable(stand: Stand) -> None:
    session = await stand.session(Script(message="250 2.0.0 Taken\r\n421 4.4.2 Bye"))
    assert facts(await session.send(ONE)) == [(True, Stage.MESSAGE, 250, "2.0.0")]
    assert not session.usable


@pytest.mark.parametrize(
    ("mail", "extensions", "kind"),
    [
        (Mail.of("a@a.test", ["b@b.test"], CONTENT), ["SIZE 10"], SmtpSizeError),
        (Mail.of("ö@a.test", ["b@b.test"], CONTENT, smtputf8=True), [], SmtpUtf8Error),
        (Mail.of("a@a.test", ["b@b.test>\r\nDATA"], CONTENT), [], SmtpAddressError),
        (Mail.of("ö@a.test", ["b@b.test"], CONTENT), ["SMTPUTF8"], SmtpAddressError),
        (Mail.of("a@a.test", ["b@b.test"], b"a\n.\nb\r\n"), [], SmtpContentError),
    ],
)
async def test_what_cannot_be_sent_is_not_sent(
    stand: Stand, mail: Mail, extensions: list[str], kind: type[Exception]
) -> None:
    session = await stand.session(Script(extensions=extensions))
    with pytest.raises(kind):
        await session.send(mail)
    assert stand.server.sessions[0].commands == ["EHLO client.test"]
    assert session.usable


async def test_smtputf8_and_8bitmime_are_asked_for(stand: Stand) -> None:
    session = await stand.session()
    await session.send(Mail.of("jörg@a.test", ["bücher@b.test"], b"\r\n\xc3\xb6\r\n", smtputf8=True))
    (message,) = stand.server.messages
    assert (message.mail_from, message.recipients) == ("jörg@a.test", ["bücher@b.test"])
    assert message.mail_params == ["SIZE=6", "BODY=8BITMIME", "SMTPUTF8"]


async def test_without_extensions_nothing_is_asked_for(stand: Stand) -> None:
    session = await stand.session(Script(ehlo="502 No"))
    assert facts(await session.send(ONE)) == [(True, Stage.MESSAGE, 250, "")]
    assert "MAIL FROM:<a@a.test>" in stand.server.sessions[0].commands


async def _stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def test_a_big_stream_arrives_as_it_was(stand: Stand) -> None:
    chunks = [b"line\r\n.dot\r\n" * 20_000, b"cut\r", b"\n", b".\r\n" * 50_000]
    session = await stand.session()
    sent = await session.send(Mail("a@a.test", ("b@b.test",), _stream(*chunks), sum(map(len, chunks))))
    assert sent.results[0].accepted
    assert stand.server.messages[0].content == b"".join(chunks)


async def test_a_bare_line_end_in_a_stream_is_never_completed(stand: Stand) -> None:
    session = await stand.session()
    sent = await session.send(Mail("a@a.test", ("b@b.test",), _stream(b"good\r\n" * 100_000, b"bad\n.\n"), 600_000))
    assert [(result.accepted, result.code) for result in sent.results] == [(False, 0)]
    assert not sent.results[0].in_doubt
    await stand.server.wait_for_sessions(1, closed=True)
    assert stand.server.messages == []


@pytest.mark.parametrize("size", [13, 15])
async def test_content_of_another_size_is_not_completed(stand: Stand, size: int) -> None:
    session = await stand.session()
    with pytest.raises(SmtpSourceError, match=f"14 octets, not {size}"):
        await session.send(Mail("a@a.test", ("b@b.test",), _stream(b"begin\r\n", b"end..\r\n"), size))
    await stand.server.wait_for_sessions(1, closed=True)
    assert stand.server.messages == []


async def test_content_that_cannot_be_read_is_no_failure_of_the_server(stand: Stand) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"begin\r\n"
        raise ConnectionResetError("the database went away")

    session = await stand.session()
    with pytest.raises(SmtpSourceError):
        await session.send(Mail("a@a.test", ("b@b.test",), broken(), 100))
    await stand.server.wait_for_sessions(1, closed=True)
    assert stand.server.messages == []
    assert not session.usable


async def test_a_server_that_drops_within_the_content(stand: Stand) -> None:
    session = await stand.session(Script(drop="content"))
    sent = await session.send(Mail.of("a@a.test", ["b@b.test"], b"x" * 70 + b"\r\n" + b"line\r\n" * 2_000_000))
    assert [(result.accepted, result.stage, result.code) for result in sent.results] == [(False, Stage.MESSAGE, 0)]
    assert not sent.results[0].in_doubt


async def test_a_cancelled_send_closes_without_completing(stand: Stand) -> None:
    session = await stand.session(Script(stall="data"))
    sending = asyncio.ensure_future(session.send(ONE))
    await stand.server.wait_for_sessions(1)
    await eventually(lambda: "DATA" in stand.server.sessions[0].commands)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not session.usable
    await stand.server.wait_for_sessions(1, closed=True)


async def test_a_thousand_recipients_in_one_group(stand: Stand) -> None:
    session = await stand.session(Script(rcpt=lambda path: "550 5.1.1 No" if path.startswith("1") else None))
    recipients = [f"{number}@b.test" for number in range(1000)]
    sent = await session.send(Mail.of("a@a.test", recipients, CONTENT))
    assert [result.accepted for result in sent.results] == [not recipient.startswith("1") for recipient in recipients]

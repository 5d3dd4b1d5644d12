"""BDAT (RFC 3030): the content as it is, in the same write as the envelope where that leaves nothing in doubt."""

from typing import Any

import pytest

from delivery.smtp import Mail, Sent, Stage, Timeouts
from delivery.smtp.errors import SmtpContentError
from fakes.smtp_server import Script

Stand = Any

CONTENT = b"Subject: x\r\n\r\n.dot\r\n..\r\n.\r\nend\r\n"
ONE = Mail.of("a@a.test", ["b@b.test"], CONTENT)
TWO = Mail.of("a@a.test", ["b@b.test", "c@b.test"], CONTENT)
BOTH_WAYS = pytest.mark.parametrize("pipelining", [True, False])


def chunking(**more: Any) -> Script:
    return Script(extensions=["CHUNKING", "ENHANCEDSTATUSCODES"], **more)


def facts(sent: Sent) -> list[tuple[bool, Stage, int]]:
    return [(result.accepted, result.stage, result.code) for result in sent.results]


@BOTH_WAYS
async def test_the_content_arrives_as_it_was(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(chunking(pipelining=pipelining))
    assert facts(await session.send(TWO)) == [(True, Stage.MESSAGE, 250)] * 2
    (message,) = stand.server.messages
    assert (message.recipients, message.content) == (["b@b.test", "c@b.test"], CONTENT)
    assert f"BDAT {len(CONTENT)} LAST" in stand.server.sessions[0].commands
    assert "DATA" not in stand.server.sessions[0].commands


@BOTH_WAYS
@pytest.mark.parametrize("content", [b"", b"no end", b"Subject: x\r\n\r\n" + b"x" * 70_000 + b"\r\n"])
async def test_any_content(stand: Stand, pipelining: bool, content: bytes) -> None:
    session = await stand.session(chunking(pipelining=pipelining))
    assert facts(await session.send(Mail.of("a@a.test", ["b@b.test"], content))) == [(True, Stage.MESSAGE, 250)]
    expected = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert stand.server.messages[0].content == expected


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"a\r\n.\n", b"\r"])
async def test_a_bare_line_end_is_not_sent(stand: Stand, content: bytes) -> None:
    session = await stand.session(chunking())
    with pytest.raises(SmtpContentError):
        await session.send(Mail.of("a@a.test", ["b@b.test"], content))
    assert stand.server.sessions[0].commands == ["EHLO client.test"]


@BOTH_WAYS
async def test_all_refused_keeps_each_code_and_the_session(stand: Stand, pipelining: bool) -> None:
    rcpt = {"b@b.test": ["550 5.1.1 No", "250 2.1.5 OK"], "c@b.test": "451 4.2.1 Later"}
    session = await stand.session(chunking(rcpt=rcpt, pipelining=pipelining))
    assert facts(await session.send(TWO)) == [(False, Stage.RCPT, 550), (False, Stage.RCPT, 451)]
    assert session.usable
    assert facts(await session.send(ONE)) == [(True, Stage.MESSAGE, 250)]
    assert [message.recipients for message in stand.server.messages] == [["b@b.test"]]


@BOTH_WAYS
async def test_some_refused(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(chunking(rcpt={"b@b.test": "550 5.1.1 No"}, pipelining=pipelining))
    assert facts(await session.send(TWO)) == [(False, Stage.RCPT, 550), (True, Stage.MESSAGE, 250)]


@BOTH_WAYS
@pytest.mark.parametrize(
    ("script", "stage", "code"),
    [
        ({"mail": "550 5.7.1 No"}, Stage.MAIL, 550),
        ({"message": "554 5.6.0 Spam"}, Stage.MESSAGE, 554),
        ({"message": "451 4.7.1 Greylisted"}, Stage.MESSAGE, 451),
    ],
)
async def test_a_failure_of_the_transaction_is_everybodys(
    stand: Stand, pipelining: bool, script: dict[str, str], stage: Stage, code: int
) -> None:
    session = await stand.session(chunking(pipelining=pipelining, **script))
    assert facts(await session.send(TWO)) == [(False, stage, code)] * 2
    assert session.usable
    await session.send(ONE)  # RFC 3030 2: a chunk that failed leaves a transaction open
    commands = stand.server.sessions[0].commands
    if stage is Stage.MESSAGE:
        assert commands.index("RSET") < len(commands) - 3


@BOTH_WAYS
async def test_354_is_no_reply_to_bdat(stand: Stand, pipelining: bool) -> None:
    session = await stand.session(chunking(message="354 Go", pipelining=pipelining))
    assert facts(await session.send(ONE)) == [(False, Stage.MESSAGE, 0)]
    assert not session.usable


@pytest.mark.parametrize("at", ["mail", "rcpt", "message"])
async def test_content_sent_along_leaves_it_in_doubt(stand: Stand, at: str) -> None:
    session = await stand.session(chunking(drop=at))
    (result,) = (await session.send(ONE)).results
    assert (result.code, result.in_doubt, result.untouched) == (0, True, False)


async def test_a_server_that_has_been_silent_is_greeted_before_it_gets_the_content(stand: Stand) -> None:
    session = await stand.session(chunking(drop="mail"), timeouts=Timeouts(silence=-1.0))
    (result,) = (await session.send(ONE)).results
    assert (result.code, result.in_doubt, result.untouched) == (0, False, True)


async def test_a_server_that_takes_no_content_it_did_not_ask_for_is_left(stand: Stand) -> None:
    # It announces CHUNKING and takes the octets for commands: what it says to them is not taken for replies to a mail.
    session = await stand.session(chunking(mail="550 5.7.1 No\r\n500 5.5.1 What\r\n500 5.5.1 What\r\n500 5.5.1 What"))
    assert facts(await session.send(ONE)) == [(False, Stage.MAIL, 550)]
    assert not session.usable


async def test_an_answer_too_many_is_not_taken_for_the_last(stand: Stand) -> None:
    # Without a 354 in between, the second 250 to RCPT would look like the answer to the content, which was refused.
    session = await stand.session(chunking(rcpt="250 2.1.5 OK\r\n250 2.1.5 Again", message="554 5.6.0 Spam"))
    assert [result.accepted for result in (await session.send(ONE)).results] == [False]
    assert not session.usable


async def test_a_stream_goes_by_data(stand: Stand) -> None:
    async def stream() -> Any:
        yield CONTENT

    session = await stand.session(chunking())
    sent = await session.send(Mail("a@a.test", ("b@b.test",), stream(), len(CONTENT)))
    assert facts(sent) == [(True, Stage.MESSAGE, 250)]
    assert "DATA" in stand.server.sessions[0].commands

"""The order of commands, their replies, and what reaches the handler."""

import asyncio
import socket
import struct
from typing import Any

import pytest

from fakes.waiting import eventually
from shared.smtpd import Reply
from shared.smtpd.grammar import Parameters

Stand = Any


async def test_the_journey_of_a_message(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope("b@b.test", "c@c.test")
    assert (await client.say("DATA")).startswith(b"354 ")
    client.write(b"Subject: x\r\n\r\n..dot\r\n.\r\n")
    assert await client.reply() == b"250 2.0.0 Taken"
    assert await client.say("QUIT") == b"221 2.0.0 Goodbye"
    assert await client.rest() == b""
    (envelope,) = stand.handler.envelopes
    assert envelope.mail_from == "a@a.test"
    assert envelope.recipients == ("b@b.test", "c@c.test")
    assert envelope.content == b"Subject: x\r\n\r\n.dot\r\n"
    assert (envelope.peer_ip, envelope.ehlo_name, envelope.esmtp, envelope.tls) == (
        "127.0.0.1",
        "client.test",
        True,
        None,
    )
    assert not envelope.smtputf8
    assert not envelope.body8bit


async def test_ehlo_says_what_is_offered(stand: Stand) -> None:
    client = await stand.client()
    lines = (await client.say("EHLO client.test")).decode().replace("250-", "").replace("250 ", "").split("\r\n")
    assert lines[0] == "mx.test"
    offered = {
        "PIPELINING",
        "SIZE 52428800",
        "8BITMIME",
        "ENHANCEDSTATUSCODES",
        "LIMITS RCPTMAX=1000",
        "SMTPUTF8",
        "CHUNKING",
        "HELP",
    }
    assert set(lines[1:]) == offered


async def test_a_pipelined_group_is_answered_in_order_while_the_message_is_handled(stand: Stand) -> None:
    stand.handler.recipients["no@b.test"] = Reply(550, "5.1.1", "Unknown")
    stand.handler.hold = asyncio.Event()
    client = await stand.client()
    group = b"EHLO c\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<no@b.test>\r\nDATA\r\n"
    client.write(group)
    assert await client.codes(5) == [250, 250, 250, 550, 354]
    client.write(b"one\r\n.\r\nMAIL FROM:<two@a.test>\r\nRCPT TO:<b@b.test>\r\nRSET\r\nVRFY x\r\nQUIT\r\n")
    await stand.handler.holding.wait()
    stand.handler.hold.set()
    assert await client.codes(6) == [250, 250, 250, 250, 252, 221]
    assert stand.handler.envelopes[0].recipients == ("b@b.test",)


@pytest.mark.parametrize(
    ("commands", "codes"),
    [
        (["MAIL FROM:<a@a.test>"], [503]),
        (["EHLO c", "RCPT TO:<b@b.test>"], [250, 503]),
        (["EHLO c", "DATA"], [250, 503]),
        (["EHLO c", "MAIL FROM:<>", "DATA"], [250, 250, 503]),
        (["EHLO c", "MAIL FROM:<>", "MAIL FROM:<>"], [250, 250, 503]),
        (["EHLO c", "MAIL FROM:<>", "EHLO c", "MAIL FROM:<>"], [250, 250, 250, 250]),
        (["EHLO c", "MAIL FROM:<>", "RSET", "RCPT TO:<b@b.test>"], [250, 250, 250, 503]),
        (["EHLO", "EHLO a b", "HELO", "HELO c"], [501, 501, 501, 250]),
        (["NOOP", "NOOP x", "HELP", "VRFY x", "EXPN x", "ETRN x", "FOO", ""], [250, 250, 214, 252, 502, 500, 500, 500]),
        (["RSET x", "QUIT x", "STARTTLS", "STARTTLS x", "AUTH PLAIN AA=="], [501, 501, 502, 501, 500]),
        (["ehlo c", "mail from:<a@a.test> size=10", "rcpt to:<b@b.test>", "rset"], [250, 250, 250, 250]),
        (["EHLO c", "MAIL FROM:<a@a.test> SIZE=x"], [250, 501]),
        (["EHLO c", "MAIL FROM:<a@a.test> SIZE=52428801"], [250, 552]),
        (["EHLO c", "MAIL FROM:<a@a.test> BODY=BINARYMIME"], [250, 555]),
        (["EHLO c", "MAIL FROM:<a@a.test> RET=FULL"], [250, 555]),
        (["EHLO c", "MAIL FROM:<a@a.test> SMTPUTF8=1"], [250, 501]),
        (
            ["EHLO c", "MAIL FROM:<ö@a.test>", "MAIL FROM:<ö@a.test> SMTPUTF8", "RCPT TO:<ü@b.test>"],
            [250, 553, 250, 250],
        ),
        (
            ["EHLO c", "MAIL FROM:<a@a.test>", "RCPT TO:<ü@b.test>", "RCPT TO:<b@b.test> NOTIFY=NEVER"],
            [250, 250, 553, 555],
        ),
        (["EHLO c", "MAIL FROM:<a@a.test>", "RCPT TO:<no@b.test>", "DATA"], [250, 250, 550, 554]),
        (["EHLO c", "MAIL FROM:<no@a.test>", "RCPT TO:<b@b.test>"], [250, 451, 503]),
    ],
)
async def test_sequences(stand: Stand, commands: list[str], codes: list[int]) -> None:
    stand.handler.recipients["no@b.test"] = Reply(550, "5.1.1", "Unknown")
    stand.handler.senders["no@a.test"] = Reply(451, "4.7.1", "Later")
    client = await stand.client()
    assert [int((await client.say(command))[:3]) for command in commands] == codes


async def test_a_command_that_is_not_utf8_is_refused(stand: Stand) -> None:
    client = await stand.client()
    assert (await client.say(b"EHLO \xff")).startswith(b"500 5.5.2")


async def test_parameters_reach_the_handler_byte_for_byte(stand: Stand) -> None:
    seen: list[tuple[str, Parameters]] = []

    class Handler(type(stand.handler)):  # type: ignore[misc]  # the recorder of this folder
        async def on_mail(self, session: object, sender: str, params: Parameters) -> Reply | None:
            seen.append((sender, params))
            return None

        async def on_rcpt(self, session: object, recipient: str, params: Parameters) -> Reply | None:
            seen.append((recipient, params))
            return None

    stand.handler = Handler()
    await stand.start(mail_parameters=frozenset({"ENVID"}), rcpt_parameters=frozenset({"ORCPT"}))
    client = await stand.client()
    client.write(
        b"EHLO c\r\nMAIL FROM:<a@a.test> EnvId=QQ+2Bx SIZE=5 body=8bitmime SMTPUTF8\r\nRCPT TO:<b@b.test> ORCPT=rfc822;B@b.test\r\nDATA\r\n"
    )
    assert await client.codes(4) == [250, 250, 250, 354]
    client.write(b".\r\n")
    assert await client.codes(1) == [250]
    mail = {"ENVID": "QQ+2Bx", "SIZE": "5", "BODY": "8bitmime", "SMTPUTF8": None}
    assert seen == [("a@a.test", mail), ("b@b.test", {"ORCPT": "rfc822;B@b.test"})]
    (envelope,) = stand.handler.envelopes
    assert (envelope.mail_params, envelope.rcpt_params) == (mail, ({"ORCPT": "rfc822;B@b.test"},))
    assert envelope.smtputf8
    assert envelope.body8bit


async def test_a_failing_handler_is_451_and_the_session_goes_on(stand: Stand) -> None:
    stand.handler.message = RuntimeError("secret detail")
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    reply = await client.say("x\r\n.")
    assert reply == b"451 4.3.0 Something failed here, try again later"
    stand.handler.message = Reply(250, "2.0.0", "Taken")
    client.write(b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nx\r\n.\r\n")
    assert await client.codes(4) == [250, 250, 354, 250]


async def test_a_handler_may_refuse_the_connection(stand: Stand) -> None:
    stand.handler.connect = Reply(554, "5.7.1", "Not you")
    client = await stand.client(greeted=False)
    assert await client.rest() == b"554 5.7.1 Not you\r\n"


@pytest.mark.parametrize("code", [421, 521])
async def test_closing_codes_of_a_handler_close(stand: Stand, code: int) -> None:
    stand.handler.recipients["b@b.test"] = Reply(code, "", "Go away")
    client = await stand.client()
    client.write(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\n")
    assert await client.codes(3) == [250, 250, code]
    assert await client.rest() == b""


async def test_what_was_asked_before_a_half_close_is_answered(stand: Stand) -> None:
    client = await stand.client()
    client.write(b"EHLO c\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n")
    client.writer.write_eof()
    assert [line[:3] for line in (await client.rest()).split(b"\r\n")][-6:] == [
        b"250",
        b"250",
        b"354",
        b"250",
        b"221",
        b"",
    ]


@pytest.mark.parametrize("reset", [True, False])
async def test_a_peer_that_leaves_cancels_what_runs_for_it(stand: Stand, reset: bool) -> None:
    await stand.start(half_close_timeout=60.0 if reset else 0.01)
    stand.handler.hold = asyncio.Event()
    client = await stand.client()
    await client.envelope()
    await client.say("DATA")
    client.write(b"x\r\n.\r\n")
    await stand.handler.holding.wait()
    if reset:  # closing without lingering sends RST instead of FIN
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()
    await eventually(lambda: stand.listener.sessions == 0)
    assert stand.handler.cancelled == 1
    assert stand.handler.envelopes == []


async def test_recipients_so_far_are_shown_and_forgotten(stand: Stand) -> None:
    client = await stand.client()
    await client.envelope("b@b.test", "c@c.test")
    (session,) = stand.handler.sessions
    assert (session.mail_from, session.recipients) == ("a@a.test", ["b@b.test", "c@c.test"])
    await client.say("RSET")
    assert (session.mail_from, session.recipients) == (None, [])

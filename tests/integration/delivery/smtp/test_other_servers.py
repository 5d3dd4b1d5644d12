"""The client against servers that are not the scripted one: aiosmtpd, and our own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope
from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.smtp import Mail, Stage, Target, Timeouts, connect
from shared.smtpd import Envelope as OurEnvelope
from shared.smtpd import Reply, Session, SmtpdConfig, serve
from shared.smtpd.grammar import Parameters

CONTENT = b"From: a@a.test\r\nSubject: dots\r\n\r\n.\r\n..\r\n\r\nlast\r\n"


class Sink:
    """Handler for aiosmtpd."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]) -> str:  # noqa: N802 - aiosmtpd's name
        if address.startswith("no"):
            return "550 5.1.1 Unknown"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self.envelopes.append(envelope)
        return "250 OK"


@pytest.fixture
async def aiosmtpd_server() -> AsyncIterator[tuple[Sink, int]]:
    sink = Sink()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(sink, loop=loop, enable_SMTPUTF8=True), "127.0.0.1", 0)
    yield sink, server.sockets[0].getsockname()[1]
    server.close()


async def test_aiosmtpd(aiosmtpd_server: tuple[Sink, int]) -> None:
    sink, port = aiosmtpd_server
    session = await connect(Target("localhost", "127.0.0.1", port), ehlo_name="client.test", timeouts=Timeouts.all(20))
    assert not session.extensions.pipelining
    first = await session.send(Mail.of("a@a.test", ["b@b.test", "no@b.test"], CONTENT))
    second = await session.send(Mail.of("", ["no@b.test"], CONTENT))
    third = await session.send(Mail.of("jörg@a.test", ["b@b.test"], CONTENT, smtputf8=True))
    await session.quit()
    assert [(result.accepted, result.stage, result.code) for result in first.results] == [
        (True, Stage.MESSAGE, 250),
        (False, Stage.RCPT, 550),
    ]
    assert [result.code for result in second.results] == [550]
    assert third.results[0].accepted
    assert [(envelope.mail_from, envelope.rcpt_tos, envelope.original_content) for envelope in sink.envelopes] == [
        ("a@a.test", ["b@b.test"], CONTENT),
        ("jörg@a.test", ["b@b.test"], CONTENT),
    ]


class OurSink:
    """Handler for our server."""

    def __init__(self) -> None:
        self.envelopes: list[OurEnvelope] = []

    async def on_connect(self, session: Session) -> Reply | None:
        return None

    async def on_mail(self, session: Session, sender: str, params: Parameters) -> Reply | None:
        return None

    async def on_rcpt(self, session: Session, recipient: str, params: Parameters) -> Reply | None:
        return Reply(550, "5.1.1", "Unknown") if recipient.startswith("no") else None

    async def on_message(self, session: Session, envelope: OurEnvelope) -> Reply:
        self.envelopes.append(envelope)
        return Reply(250, "2.0.0", "Taken")


LINE = st.binary(max_size=20).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")) | st.sampled_from(
    [b".", b"..", b""]
)
CHUNKS = st.lists(st.lists(LINE, max_size=5).map(lambda lines: b"".join(line + b"\r\n" for line in lines)), max_size=4)


@settings(deadline=None, max_examples=30)
@given(st.lists(CHUNKS, min_size=1, max_size=5))
def test_any_contents_in_one_session_reach_our_server_as_they_were(mails: list[list[bytes]]) -> None:
    async def run() -> None:
        sink = OurSink()
        listener = await serve(SmtpdConfig(hostname="mx.test"), sink, "127.0.0.1", 0)
        session = await connect(
            Target("localhost", "127.0.0.1", listener.port), ehlo_name="client.test", timeouts=Timeouts.all(20)
        )
        for number, chunks in enumerate(mails):
            recipients = ("no@b.test", f"{number}@b.test")
            sent = await session.send(Mail("a@a.test", recipients, tuple(chunks), sum(map(len, chunks))))
            assert [result.code for result in sent.results] == [550, 250]
        await session.quit()
        await listener.close(5)
        assert [envelope.content for envelope in sink.envelopes] == [b"".join(chunks) for chunks in mails]

    asyncio.run(run())


async def test_our_server_announces_what_our_client_uses() -> None:
    listener = await serve(SmtpdConfig(hostname="mx.test", max_recipients=7, max_size=1000), OurSink(), "127.0.0.1", 0)
    session = await connect(
        Target("localhost", "127.0.0.1", listener.port), ehlo_name="client.test", timeouts=Timeouts.all(20)
    )
    offered = session.extensions
    await session.quit()
    await listener.close(5)
    assert (offered.pipelining, offered.size, offered.rcpt_max) == (True, 1000, 7)
    assert offered.eight_bit_mime
    assert offered.smtputf8
    assert offered.enhanced_status_codes
    assert offered.chunking

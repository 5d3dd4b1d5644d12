"""Clients of other people work against the server."""

import asyncio
import smtplib
from typing import Any

import aiosmtplib
import pytest

from fakes.certificates import server_context, trusting_context
from shared.smtpd import Reply

Stand = Any

CONTENT = b"From: a@a.test\r\nSubject: dots\r\n\r\n.\r\n..\r\nlast\r\n"


async def test_smtplib(stand: Stand) -> None:
    listener = await stand.start()
    stand.handler.recipients["no@b.test"] = Reply(550, "5.1.1", "Unknown")

    def send() -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("127.0.0.1", listener.port, timeout=20) as client:
            refused = client.sendmail("a@a.test", ["b@b.test", "no@b.test"], CONTENT, mail_options=["BODY=8BITMIME"])
            client.sendmail("a@a.test", ["b@b.test"], CONTENT)
            assert client.verify("x")[0] == 252
            assert client.noop()[0] == 250
            assert client.help()
            return refused

    assert await asyncio.to_thread(send) == {"no@b.test": (550, b"5.1.1 Unknown")}
    assert [envelope.content for envelope in stand.handler.envelopes] == [CONTENT, CONTENT]
    assert stand.handler.envelopes[0].body8bit


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
async def test_aiosmtplib(stand: Stand, tls: str) -> None:
    listener = await stand.start(tls=None if tls == "none" else server_context(), implicit_tls=tls == "implicit")
    async with aiosmtplib.SMTP(
        hostname="localhost",
        port=listener.port,
        use_tls=tls == "implicit",
        start_tls=tls == "starttls",
        tls_context=None if tls == "none" else trusting_context(),
        timeout=20,
    ) as client:
        errors, text = await client.sendmail("jörg@a.test", ["b@b.test"], CONTENT, mail_options=["SMTPUTF8"])
        await client.sendmail("a@a.test", ["b@b.test", "c@c.test"], CONTENT)
    assert (errors, text) == ({}, "2.0.0 Taken")
    first, second = stand.handler.envelopes
    assert (first.mail_from, first.smtputf8, first.content) == ("jörg@a.test", True, CONTENT)
    assert second.recipients == ("b@b.test", "c@c.test")
    assert (first.tls is None) == (tls == "none")

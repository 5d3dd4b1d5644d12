"""STARTTLS and implicit TLS."""

import asyncio
import smtplib
from typing import Any

import pytest

from fakes.certificates import server_context, trusting_context
from shared.smtpd import SmtpdConfig

Stand = Any


async def start_tls(client: Any) -> None:
    # asyncio's streams of Python 3.11 upgrade a client in place.
    await client.writer.start_tls(trusting_context(), server_hostname="localhost")


async def test_starttls_is_offered_and_forgets_what_was_said_before(stand: Stand) -> None:
    await stand.start(tls=server_context())
    client = await stand.client()
    await client.envelope()
    assert b"STARTTLS" in await client.say("EHLO plain.test")
    assert await client.say("STARTTLS") == b"220 2.0.0 Ready to start TLS"
    await start_tls(client)
    assert (await client.say("MAIL FROM:<>")).startswith(b"503")
    assert b"STARTTLS" not in await client.say("EHLO secret.test")
    assert (await client.say("STARTTLS")).startswith(b"503")
    client.write(b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n")
    assert await client.codes(5) == [250, 250, 354, 250, 221]
    (envelope,) = stand.handler.envelopes
    assert envelope.ehlo_name == "secret.test"
    assert envelope.tls.version == "TLSv1.3"
    assert envelope.tls.cipher.startswith("TLS_")


async def test_plaintext_behind_starttls_is_never_a_command(stand: Stand) -> None:
    await stand.start(tls=server_context())
    client = await stand.client()
    client.write(b"EHLO c\r\nSTARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@a.test>\r\n")
    assert await client.codes(2) == [250, 220]
    await start_tls(client)
    assert (await client.say("RCPT TO:<b@b.test>")).startswith(b"503")
    assert (await client.say("MAIL FROM:<>")).startswith(b"503")


async def test_a_handshake_that_fails_ends_the_connection(stand: Stand) -> None:
    await stand.start(tls=server_context())
    client = await stand.client()
    await client.say("STARTTLS")
    client.write(b"EHLO this is no handshake\r\n")
    await client.rest()
    other = await stand.client()
    assert (await other.say("NOOP")).startswith(b"250")


async def test_implicit_tls(stand: Stand) -> None:
    await stand.start(tls=server_context(), implicit_tls=True)
    client = await stand.client(ssl=trusting_context(), server_hostname="localhost")
    assert b"STARTTLS" not in await client.say("EHLO c")
    client.write(b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n" + b"x" * 300_000 + b"\r\n.\r\nQUIT\r\n")
    assert await client.codes(5) == [250, 250, 354, 250, 221]
    (envelope,) = stand.handler.envelopes
    assert envelope.tls.version == "TLSv1.3"
    assert len(envelope.content) == 300_002


async def test_a_big_message_over_starttls_by_smtplib(stand: Stand) -> None:
    listener = await stand.start(tls=server_context())
    content = b"Subject: big\r\n\r\n" + b"0123456789\r\n" * 100_000

    def send() -> None:
        with smtplib.SMTP("localhost", listener.port, timeout=20) as client:
            client.starttls(context=trusting_context())
            client.sendmail("a@a.test", ["b@b.test"], content)

    await asyncio.to_thread(send)
    assert stand.handler.envelopes[0].content == content


def test_implicit_tls_needs_a_context() -> None:
    with pytest.raises(ValueError):
        SmtpdConfig(hostname="mx.test", implicit_tls=True)

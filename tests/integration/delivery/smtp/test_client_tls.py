"""TLS of the client: opportunistic hides, required insists, a verifying context verifies."""

import ssl
from typing import Any

import pytest

from delivery.smtp import Mail, Stage, TlsMode, opportunistic_context
from delivery.smtp.errors import SmtpTlsError
from fakes.certificates import expired_context, self_signed_context, server_context, trusting_context
from fakes.smtp_server import Script

Stand = Any

MAIL = Mail.of("a@a.test", ["b@b.test"], b"x\r\n")


@pytest.mark.parametrize("make", [server_context, self_signed_context, expired_context])
async def test_opportunistic_takes_any_certificate(stand: Stand, make: Any) -> None:
    session = await stand.session(Script(tls=make()), tls=TlsMode.OPPORTUNISTIC, context=opportunistic_context())
    assert session.tls.version == "TLSv1.3"
    assert session.tls.cipher
    assert not session.tls.verified
    assert session.tls.certificate.startswith(b"\x30")
    assert not session.extensions.starttls
    assert (await session.send(MAIL)).results[0].accepted
    assert stand.server.messages[0].tls
    assert stand.server.sessions[0].commands[:3] == ["EHLO client.test", "STARTTLS", "EHLO client.test"]


async def test_opportunistic_goes_on_without_where_it_is_not_offered(stand: Stand) -> None:
    session = await stand.session(tls=TlsMode.OPPORTUNISTIC, context=opportunistic_context())
    assert session.tls is None
    assert (await session.send(MAIL)).results[0].accepted


async def test_a_good_certificate_is_verified(stand: Stand) -> None:
    session = await stand.session(Script(tls=server_context()), tls=TlsMode.REQUIRED, context=trusting_context())
    assert session.tls.verified


@pytest.mark.parametrize("make", [self_signed_context, expired_context, lambda: server_context("other.test")])
async def test_a_bad_certificate_fails_where_it_is_verified(stand: Stand, make: Any) -> None:
    with pytest.raises(SmtpTlsError) as failed:
        await stand.session(Script(tls=make()), tls=TlsMode.REQUIRED, context=trusting_context())
    assert (failed.value.stage, failed.value.reply_code) == (Stage.STARTTLS, 0)
    assert isinstance(failed.value.__cause__, ssl.SSLCertVerificationError)


async def test_required_but_not_offered(stand: Stand) -> None:
    with pytest.raises(SmtpTlsError) as failed:
        await stand.session(tls=TlsMode.REQUIRED, context=opportunistic_context())
    assert failed.value.stage is Stage.STARTTLS


@pytest.mark.parametrize("reply", ["454 4.7.0 Not now", "502 5.5.1 No"])
async def test_offered_but_refused(stand: Stand, reply: str) -> None:
    with pytest.raises(SmtpTlsError) as failed:
        await stand.session(
            Script(tls=server_context(), starttls=reply), tls=TlsMode.OPPORTUNISTIC, context=opportunistic_context()
        )
    assert (failed.value.reply_code, failed.value.enhanced) == (int(reply[:3]), reply[4:9])


async def test_a_handshake_that_the_server_drops(stand: Stand) -> None:
    with pytest.raises(SmtpTlsError):
        await stand.session(
            Script(tls=server_context(), drop_after="starttls"),
            tls=TlsMode.OPPORTUNISTIC,
            context=opportunistic_context(),
        )


async def test_plaintext_behind_starttls_is_never_a_reply(stand: Stand) -> None:
    script = Script(tls=server_context(), inject=b"250-evil.test\r\n250 SIZE 1\r\n")
    session = await stand.session(script, tls=TlsMode.OPPORTUNISTIC, context=opportunistic_context())
    assert session.extensions.size == 50_000_000
    assert (await session.send(MAIL)).results[0].accepted


async def test_implicit_tls(stand: Stand) -> None:
    session = await stand.session(
        Script(tls=server_context(), implicit_tls=True), tls=TlsMode.IMPLICIT, context=trusting_context()
    )
    assert session.tls.verified
    assert (await session.send(MAIL)).results[0].accepted


async def test_implicit_tls_with_a_bad_certificate(stand: Stand) -> None:
    with pytest.raises(SmtpTlsError):
        await stand.session(
            Script(tls=self_signed_context(), implicit_tls=True), tls=TlsMode.IMPLICIT, context=trusting_context()
        )


async def test_tls_needs_a_context(stand: Stand) -> None:
    with pytest.raises(ValueError):
        await stand.session(tls=TlsMode.REQUIRED)

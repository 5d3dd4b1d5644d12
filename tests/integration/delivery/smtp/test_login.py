"""Logging in to a relay: only over TLS, the strongest mechanism that both know, and no mail where the server refuses us."""

import asyncio
import base64
import hmac
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from delivery.smtp import Login, Mail, Stage, Target, Timeouts, TlsMode, connect, opportunistic_context
from delivery.smtp.errors import SmtpAuthError, SmtpConnectionLostError, SmtpTimeoutError
from fakes.certificates import server_context, trusting_context
from fakes.smtp_server import Script
from shared.security.credentials import scram_verifier
from shared.security.scram import ScramFailed, ScramServer, parse_verifier
from shared.smtpd import Envelope, Reply, Session, SmtpdConfig, serve
from shared.smtpd.grammar import Parameters

Stand = Any

LOGIN = Login("us@a.test", "pass word")
OVER_TLS: dict[str, Any] = {"tls": TlsMode.REQUIRED, "context": trusting_context()}
MAIL = Mail.of("a@a.test", ["b@b.test"], b"x\r\n")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def offering(mechanisms: str, *replies: str, **more: Any) -> Script:
    return Script(
        extensions=[f"AUTH {mechanisms}", "ENHANCEDSTATUSCODES"], auth=list(replies), tls=server_context(), **more
    )


async def test_plain(stand: Stand) -> None:
    session = await stand.session(offering("LOGIN PLAIN", "235 2.7.0 Welcome"), login=LOGIN, **OVER_TLS)
    assert (await session.send(MAIL)).results[0].accepted
    commands = stand.server.sessions[0].commands
    assert commands[3] == f"AUTH PLAIN {b64(chr(0) + 'us@a.test' + chr(0) + 'pass word')}"
    assert commands.index("STARTTLS") < 3


async def test_a_long_response_waits_for_a_challenge(stand: Stand) -> None:
    long = Login("u" * 500, "p" * 500)
    await stand.session(offering("PLAIN", "334 ", "235 2.7.0 Welcome"), login=long, **OVER_TLS)
    assert stand.server.sessions[0].commands[3:] == ["AUTH PLAIN", b64("\0" + "u" * 500 + "\0" + "p" * 500)]


async def test_login(stand: Stand) -> None:
    script = offering("LOGIN", "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 2.7.0 Welcome")
    await stand.session(script, login=LOGIN, **OVER_TLS)
    assert stand.server.sessions[0].commands[3:] == ["AUTH LOGIN", b64("us@a.test"), b64("pass word")]


async def test_cram_md5(stand: Stand) -> None:
    script = offering("PLAIN CRAM-MD5", f"334 {b64('<1.2@x>')}", "235 2.7.0 Welcome")
    await stand.session(script, login=LOGIN, **OVER_TLS)
    proof = hmac.new(b"pass word", b"<1.2@x>", "md5").hexdigest()
    assert stand.server.sessions[0].commands[3:] == ["AUTH CRAM-MD5", b64(f"us@a.test {proof}")]


@pytest.mark.parametrize("tls", [TlsMode.NONE, TlsMode.OPPORTUNISTIC])
async def test_a_login_is_not_shown_without_tls(stand: Stand, tls: TlsMode) -> None:
    script = Script(extensions=["AUTH PLAIN"], auth=["235 OK"])
    with pytest.raises(SmtpAuthError, match="TLS") as failed:
        await stand.session(script, login=LOGIN, tls=tls, context=opportunistic_context())
    assert (failed.value.stage, failed.value.reply_code) == (Stage.AUTH, 0)
    await stand.server.wait_for_sessions(1, closed=True)
    assert not [command for command in stand.server.sessions[0].commands if command.startswith("AUTH")]


async def test_a_login_may_allow_it(stand: Stand) -> None:
    await stand.session(Script(extensions=["AUTH PLAIN"], auth=["235 OK"]), login=Login("u", "p", without_tls=True))
    assert stand.server.sessions[0].commands[1].startswith("AUTH PLAIN")


async def test_what_was_offered_before_tls_does_not_count(stand: Stand) -> None:
    script = Script(ehlo=["250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN", "250-x\r\n250 8BITMIME"], tls=server_context())
    with pytest.raises(SmtpAuthError, match="none"):
        await stand.session(script, login=LOGIN, **OVER_TLS)


async def test_no_mechanism_in_common(stand: Stand) -> None:
    with pytest.raises(SmtpAuthError, match="GSSAPI XOAUTH2"):
        await stand.session(offering("GSSAPI XOAUTH2"), login=LOGIN, **OVER_TLS)


@pytest.mark.parametrize("reply", ["535 5.7.8 Wrong", "454 4.7.0 Not now", "530 5.7.0 What"])
async def test_a_refusal_is_reported_and_not_tried_again(stand: Stand, reply: str) -> None:
    with pytest.raises(SmtpAuthError) as failed:
        await stand.session(offering("PLAIN LOGIN", reply), login=LOGIN, **OVER_TLS)
    error = failed.value
    assert (error.stage, error.reply_code, error.enhanced) == (Stage.AUTH, int(reply[:3]), reply[4:9])
    assert "pass word" not in str(error)
    (session,) = await stand.server.wait_for_sessions(1, closed=True)
    assert session.commands[-1] == "QUIT"
    assert len([command for command in session.commands if command.startswith("AUTH")]) == 1


async def test_a_mechanism_that_is_offered_but_unknown_makes_way_for_the_next(stand: Stand) -> None:
    script = offering("CRAM-MD5 LOGIN", "504 5.5.4 Unknown")
    with pytest.raises(SmtpAuthError, match="LOGIN"):
        await stand.session(script, login=LOGIN, **OVER_TLS)
    commands = stand.server.sessions[0].commands
    assert [command for command in commands if command.startswith("AUTH")] == ["AUTH CRAM-MD5", "AUTH LOGIN"]


@pytest.mark.parametrize(
    "script",
    [
        offering("PLAIN", "334 more", "235 OK"),
        offering("LOGIN", "334 %%%"),
        offering("LOGIN", *["334 VXNlcm5hbWU6"] * 9),
        offering("SCRAM-SHA-256", "235 2.7.0 Welcome"),
        offering("SCRAM-SHA-256", "334 cj1ldmlsLHM9QUFBQSxpPTQwOTY=", "235 2.7.0 Welcome"),
    ],
)
async def test_a_server_that_does_not_follow_the_mechanism_is_left(stand: Stand, script: Script) -> None:
    with pytest.raises(SmtpAuthError) as failed:
        await stand.session(script, login=LOGIN, **OVER_TLS)
    assert failed.value.reply_code == 0
    (session,) = await stand.server.wait_for_sessions(1, closed=True)
    assert "QUIT" not in session.commands


@pytest.mark.parametrize(("how", "kind"), [("drop", SmtpConnectionLostError), ("stall", SmtpTimeoutError)])
async def test_a_connection_that_fails(stand: Stand, how: str, kind: type[Exception]) -> None:
    timeouts = Timeouts(auth=0.3) if how == "stall" else None
    with pytest.raises(kind) as failed:
        await stand.session(offering("PLAIN", "235 OK", **{how: "auth"}), login=LOGIN, timeouts=timeouts, **OVER_TLS)
    assert failed.value.stage is Stage.AUTH  # type: ignore[attr-defined]  # both kinds are SmtpErrors


# Servers that are not the scripted one.


@pytest.fixture
async def aiosmtpd_port() -> AsyncIterator[int]:
    def known(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = (data.login, data.password) == (b"us@a.test", b"pass word")
        return AuthResult(success=right, handled=False)  # so that aiosmtpd itself answers

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(object(), loop=loop, tls_context=server_context(), auth_required=True, authenticator=known),
        "127.0.0.1",
        0,
    )
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_aiosmtpd_knows_us(aiosmtpd_port: int, mechanism: str) -> None:
    target = Target("localhost", "127.0.0.1", aiosmtpd_port)
    for password, welcome in (("pass word", True), ("other", False)):
        login = Login("us@a.test", password, mechanisms=(mechanism,))
        opening = connect(target, ehlo_name="c", timeouts=Timeouts.all(20), login=login, **OVER_TLS)
        if welcome:
            session = await opening
            await session.quit()
        else:
            with pytest.raises(SmtpAuthError) as failed:
                await opening
            assert failed.value.reply_code == 535


class Scram:
    """One SCRAM-SHA-256 exchange of our own server."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.server = ScramServer()
        self.steps = 0

    async def step(self, response: bytes | None) -> bytes | Reply:
        self.steps += 1
        try:
            match self.steps:
                case 1:
                    self.server.first(response or b"")
                    return self.server.challenge(parse_verifier(scram_verifier("pass word")))
                case 2:
                    return self.server.final(response or b"")
                case _:
                    self.session.login = "us"
                    return Reply(235, "2.7.0", "Welcome")
        except ScramFailed as failed:
            return Reply(535, "5.7.8", failed.message)


class ScramOnly:
    """A handler that takes mail from who is logged in."""

    def offered(self, session: Session) -> Sequence[str]:
        return ("SCRAM-SHA-256",)

    def begin(self, session: Session, mechanism: str) -> Scram:
        return Scram(session)

    async def on_connect(self, session: Session) -> Reply | None:
        return None

    async def on_mail(self, session: Session, sender: str, params: Parameters) -> Reply | None:
        return None if session.login else Reply(530, "5.7.0", "Log in first")

    async def on_rcpt(self, session: Session, recipient: str, params: Parameters) -> Reply | None:
        return None

    async def on_message(self, session: Session, envelope: Envelope) -> Reply:
        return Reply(250, "2.0.0", "Taken")


async def test_our_own_door_knows_us_by_scram() -> None:
    handler = ScramOnly()
    listener = await serve(SmtpdConfig(hostname="mx.test", tls=server_context(), auth=handler), handler, "127.0.0.1", 0)
    target = Target("localhost", "127.0.0.1", listener.port)
    session = await connect(target, ehlo_name="c", timeouts=Timeouts.all(20), login=LOGIN, **OVER_TLS)
    assert (await session.send(MAIL)).results[0].accepted
    await session.quit()
    with pytest.raises(SmtpAuthError) as failed:
        await connect(target, ehlo_name="c", timeouts=Timeouts.all(20), login=Login("us@a.test", "x"), **OVER_TLS)
    assert failed.value.reply_code == 535
    await listener.close(5)

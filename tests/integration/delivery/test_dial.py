"""A line to a site: which session a mail goes over, and what the protocol's facts become."""

from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest

from delivery.dial import Dialer, DialSettings
from delivery.prepare import Mail
from delivery.route import Own, Router
from delivery.smtp import Timeouts
from delivery.way import Ways
from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.waiting import eventually
from shared.db.lanes import SiteName
from shared.db.queue import Claimed
from shared.db.routing import Routing
from shared.db.starts import Candidate
from shared.dns.resolver import Resolver
from shared.security.keys import KeyRing
from shared.worker.backoff import DELIVERY_MOX

CONTENT = b"Subject: x\r\n\r\nhi\r\n"

Open = Callable[..., Awaitable[tuple[Dialer, SiteName, ScriptedSmtpServer]]]


def mail(*, recipient: str = "b@b.test", smtputf8: bool = False) -> Mail:
    candidate = Candidate(1, 1, recipient, "b.test", recipient, recipient, "a@a.test", "a.test")
    return Mail(
        claimed=Claimed(1, 0, 1, 1, 1),
        candidate=candidate,
        message_id=1,
        mail_from="a@a.test",
        has_from_id=False,
        recipient=recipient,
        due_at=None,
        tried_since=None,
        expires_at=None,
        size=len(CONTENT),
        header_size=12,
        smtputf8=smtputf8,
        require_tls=False,
        schedule=DELIVERY_MOX,
        content=None,
    )


@pytest.fixture
async def open_dialer() -> AsyncIterator[Open]:
    servers: list[ScriptedSmtpServer] = []
    dialers: list[Dialer] = []

    async def make(script: Script | None = None, *, idle: float = 60.0) -> tuple[Dialer, SiteName, ScriptedSmtpServer]:
        server = await ScriptedSmtpServer(script).__aenter__()
        servers.append(server)
        router = Router(Resolver(), Random(3), own=Own("us.test"), smtp_port=25, allow_private=True)
        dialers.append(
            Dialer(
                router,
                Ways(Routing(), KeyRing(["s" * 32]), "us.test"),
                DialSettings(Timeouts.all(20), idle_seconds=idle),
            )
        )
        return dialers[-1], SiteName("relay", f"127.0.0.1:{server.port}"), server

    yield make
    for dialer in dialers:
        await dialer.close()
    for server in servers:
        await server.__aexit__()


async def test_the_next_line_goes_on_with_the_session_of_the_last(open_dialer: Open) -> None:
    dialer, site, server = await open_dialer()
    for _ in range(3):
        line = await dialer.dial(site)
        assert (await line.send([mail()], CONTENT))[0].accepted
        await line.close()
    assert len(server.messages) == 3
    assert len(server.sessions) == 1
    await dialer.close()
    (session,) = await server.wait_for_sessions(1, closed=True)
    assert session.commands[-1] == "QUIT"


async def test_without_an_idle_time_each_line_says_goodbye(open_dialer: Open) -> None:
    dialer, site, server = await open_dialer(idle=0)
    for _ in range(2):
        line = await dialer.dial(site)
        assert (await line.send([mail()], CONTENT))[0].accepted
        await line.close()
    sessions = await server.wait_for_sessions(2, closed=True)
    assert [session.commands[-1] for session in sessions] == ["QUIT", "QUIT"]


async def test_a_session_that_the_server_ended_while_idle_is_replaced(open_dialer: Open) -> None:
    dialer, site, server = await open_dialer(Script(drop_after="message"))
    line = await dialer.dial(site)
    assert (await line.send([mail()], CONTENT))[0].accepted
    await eventually(lambda: not line.usable)
    await line.close()
    again = await dialer.dial(site)
    assert (await again.send([mail()], CONTENT))[0].accepted
    await again.close()
    assert len(server.sessions) == 2


async def test_a_goodbye_to_the_next_mail_is_not_its_failure(open_dialer: Open) -> None:
    answers = [None, "421 4.4.2 Idle too long", None]
    dialer, site, server = await open_dialer(Script(mail=lambda _: answers.pop(0)))
    line = await dialer.dial(site)
    assert (await line.send([mail()], CONTENT))[0].accepted
    assert (await line.send([mail()], CONTENT))[0].accepted
    assert len(server.sessions) == 2
    await line.close()


async def test_a_mail_that_may_have_been_taken_is_not_sent_again_at_once(open_dialer: Open) -> None:
    script = Script(extensions=["CHUNKING"])
    dialer, site, server = await open_dialer(script)
    line = await dialer.dial(site)
    assert (await line.send([mail()], CONTENT))[0].accepted
    script.drop = "mail"
    (result,) = await line.send([mail()], CONTENT)
    assert (result.accepted, result.code, result.permanent) == (False, 0, False)
    assert len(server.sessions) == 1
    await line.close()


@pytest.mark.parametrize(
    ("extensions", "flagged", "recipient", "permanent", "said"),
    [
        (["SIZE 5"], False, "b@b.test", True, "octets"),
        (["8BITMIME"], False, "jörg@b.test", False, "SMTPUTF8"),
    ],
)
async def test_what_cannot_go_there_is_for_good_or_for_now(
    open_dialer: Open, extensions: list[str], flagged: bool, recipient: str, permanent: bool, said: str
) -> None:
    dialer, site, _ = await open_dialer(Script(extensions=extensions))
    line = await dialer.dial(site)
    (result,) = await line.send([mail(recipient=recipient, smtputf8=flagged)], CONTENT)
    assert (result.accepted, result.code, result.permanent) == (False, 0, permanent)
    assert said in result.text
    assert line.usable
    await line.close()


async def test_a_flag_that_means_nothing_keeps_no_mail_back(open_dialer: Open) -> None:
    dialer, site, server = await open_dialer(Script(extensions=[]))
    line = await dialer.dial(site)
    assert (await line.send([mail(smtputf8=True)], CONTENT))[0].accepted
    assert server.messages[0].mail_params == []
    await line.close()


async def test_an_address_that_cannot_be_written_is_the_failure_of_nobody_else(open_dialer: Open) -> None:
    dialer, site, server = await open_dialer()
    line = await dialer.dial(site)
    results = await line.send([mail(), mail(recipient="a b@b.test"), mail(recipient="c@b.test")], CONTENT)
    assert [(result.accepted, result.permanent) for result in results] == [(True, False), (False, True), (True, False)]
    assert [message.recipients for message in server.messages] == [["b@b.test"], ["c@b.test"]]
    await line.close()


async def test_where_no_new_session_can_be_had_whoever_is_left_shares_that_failure(open_dialer: Open) -> None:
    script = Script(extensions=["LIMITS MAILMAX=1 RCPTMAX=1"])
    dialer, site, server = await open_dialer(script)
    line = await dialer.dial(site)
    script.greeting = "421 4.3.2 not now"
    results = await line.send([mail(), mail(recipient="c@b.test"), mail(recipient="d@b.test")], CONTENT)
    assert [(result.code, result.facts.stage) for result in results] == [
        (250, "message"),
        (421, "greeting"),
        (421, "greeting"),
    ]
    assert len(server.sessions) == 2
    await line.close()

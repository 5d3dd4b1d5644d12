"""Postgres goes away for longer than a worker may be silent, and comes back: whoever lived sends nothing twice."""

import asyncio
import json
import signal
from collections.abc import Iterator, Mapping, Sequence

import aiosmtplib
import pytest
from standardwebhooks.webhooks import Webhook

from e2e.conftest import OpenStack
from fakes.smtp_server import Message
from fakes.stack import SERVICES, HoldingSmtpServer, Service, Stack
from fakes.waiting import eventually
from fakes.webhook_receiver import Behaviour, Received, WebhookReceiver
from posthouse.embedded.postgres import EmbeddedPostgres, PostgresOptions
from shared.db.migrate import upgrade
from shared.db.workers import DEAD_AFTER_BEATS

MAILS, PER_MESSAGE = 150, 10


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory, postgres_options: PostgresOptions) -> Iterator[EmbeddedPostgres]:
    """A server to be stopped; in a folder short enough for its socket to be in it, so that its URL stays."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("pg"), postgres_options)
    server.start()
    yield server
    server.stop()


def stop(postgres: EmbeddedPostgres, how: signal.Signals) -> None:
    assert postgres.child is not None
    postgres.child.stop((how, 20))
    assert postgres.child.exit_code is not None


async def missed_beats(processes: Sequence[Service], already: Mapping[int, int]) -> None:
    """Wait until every process has missed more beats than it takes to be declared dead."""

    def silent() -> bool:
        missed = {process.pid: len(process.logged("heartbeat_missed")) for process in processes}
        return all(missed[pid] - already[pid] > DEAD_AFTER_BEATS for pid in missed)

    await eventually(silent, 30, what="enough missed heartbeats")


async def turned_away(stack: Stack) -> None:
    """The api must say that it cannot take mail now, and when to come again."""
    mail = {"from": "demo@posthouse.test", "to": ["late@receiver.example"], "subject": "Now", "text": "Now.\n"}
    answer = await stack.http.post(stack.api_url + "/v1/messages", json=mail)
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"] == "application/problem+json"


async def outage(stack: Stack, postgres: EmbeddedPostgres, how: signal.Signals, server: HoldingSmtpServer) -> None:
    """Take Postgres away while mail is in flight, let that mail be answered, and bring Postgres back."""
    already = {process.pid: len(process.logged("heartbeat_missed")) for process in stack.services}
    stop(postgres, how)
    server.release()  # the replies come when they cannot be written
    await turned_away(stack)
    for process in stack.services:
        assert (await stack.http.get(process.health_url + "/livez")).status_code == 200
        assert (await stack.http.get(process.health_url + "/readyz")).status_code == 503
    await missed_beats(stack.services, already)
    postgres.start()


async def receive(stack: Stack, name: str) -> set[str]:
    """Hand in mail for the account until that is refused for now; return the Message-IDs of what was taken."""
    host, _, port = stack.newest("dsn-ingest").addresses["smtp"].rpartition(":")
    taken: set[str] = set()
    refusals: list[int] = []
    async with aiosmtplib.SMTP(hostname=host, port=int(port), start_tls=False, timeout=30) as client:
        while not refusals:
            message_id = f"<{len(taken)}.{name}@sender.example>"
            mail = f"From: ada@sender.example\r\nSubject: Hello\r\nMessage-ID: {message_id}\r\n\r\nHello.\r\n"
            try:
                await client.sendmail("ada@sender.example", ["demo@posthouse.test"], mail)
                taken.add(message_id)
            except aiosmtplib.SMTPRecipientsRefused as error:
                refusals += [refusal.code for refusal in error.recipients]
            except aiosmtplib.SMTPResponseException as error:
                refusals.append(error.code)
    assert refusals == [451]
    return taken


async def filed(stack: Stack) -> set[str]:
    """Return the Message-IDs of the received mail that has been read."""
    rows = await stack.pool.fetch("SELECT message_id FROM inbound_message WHERE state = 'filed'")
    return {row["message_id"] for row in rows}


class Round:
    """Mails that are under way when Postgres goes."""

    def __init__(self, number: int, server: HoldingSmtpServer, receiver: WebhookReceiver) -> None:
        self.recipients = [f"r{mail}@round{number}.example" for mail in range(MAILS)]
        self.slow: set[int] = set()
        self._server, self._mails = server, len(server.messages)
        self._calls = len(receiver.requests)
        server.on_message, receiver.script = self.stall, self.behave

    async def hand_in(self, stack: Stack) -> None:
        """Have all of it accepted."""
        some = [self.recipients[start : start + PER_MESSAGE] for start in range(0, MAILS, PER_MESSAGE)]
        await asyncio.gather(*(stack.send(*recipients) for recipients in some))

    def stall(self, message: Message) -> None:
        """Some contents are taken and not answered; the rest goes on, so that every step is met by what happens."""
        if len(self._server.messages) in (self._mails + 5, self._mails + 15):
            self._server.hold.update(message.recipients)

    def behave(self, request: Received) -> Behaviour:
        """The first webhooks are answered when Postgres is away."""
        if request.number <= self._calls + 6:
            self.slow.add(request.number)
            return Behaviour(delay=2)
        return Behaviour()

    def under_way(self) -> bool:
        return bool(self._server.held and self.slow and len(self._server.messages) >= self._mails + MAILS // 5)


def assert_all_was_told(requests: list[Received], secret: str, recipients: list[str]) -> None:
    """Each delivery was told, at least once, and always in the same words under the same id."""
    words: dict[str, set[bytes]] = {}
    for request in requests:
        Webhook(secret).verify(request.body, request.headers)
        words.setdefault(request.headers["webhook-id"], set()).add(request.body)
    assert all(len(bodies) == 1 for bodies in words.values())
    told = [json.loads(body) for (body,) in words.values()]
    assert sorted((event["type"], event["data"]["recipient"]) for event in told) == sorted(
        ("delivered", recipient) for recipient in recipients
    )


async def test_workers_that_live_through_an_outage_of_postgres_send_nothing_twice(
    open_stack: OpenStack, postgres: EmbeddedPostgres, server: HoldingSmtpServer, receiver: WebhookReceiver
) -> None:
    await upgrade(postgres.url)
    stack = await open_stack(postgres.url, relay=server.address)
    await stack.start_all(*SERVICES, "delivery")  # two, of which neither may bury the other
    secret = await stack.hook(receiver.url)
    recipients: list[str] = []

    # A fast shutdown first, then an immediate one, after which Postgres has to recover.
    for number, how in enumerate((signal.SIGINT, signal.SIGQUIT)):
        round_ = Round(number, server, receiver)
        recipients += round_.recipients
        incoming = asyncio.create_task(receive(stack, f"round{number}"))
        await round_.hand_in(stack)
        await eventually(round_.under_way, 20, what="mail and webhooks under way")
        await outage(stack, postgres, how, server)
        await stack.quiet(60)
        assert await stack.states() == dict.fromkeys(recipients, "delivered")
        assert server.received() == dict.fromkeys(recipients, 1)
        assert_all_was_told(receiver.requests, secret, recipients)
        promised = await incoming
        assert promised
        assert promised <= await filed(stack)

    for process in stack.services:
        assert process.exit_code is None
        assert (await stack.http.get(process.health_url + "/readyz")).status_code == 200
        assert not process.logged("worker_reaped")

"""The first journey of a mail: in by HTTP, out by SMTP, told by webhooks, back as a report, and not sent again."""

from e2e.conftest import OpenStack
from e2e.journey import travel
from fakes.stack import HoldingSmtpServer
from fakes.webhook_receiver import WebhookReceiver


async def test_a_mail_makes_its_whole_journey_though_nobody_polls_because_every_bell_is_rung(
    open_stack: OpenStack, database_url: str, nats_url: str, server: HoldingSmtpServer, receiver: WebhookReceiver
) -> None:
    stack = await open_stack(database_url, relay=server.address, nats_url=nats_url, poll_seconds=60)
    await stack.start_all()
    await travel(stack, server, receiver, await stack.hook(receiver.url))

"""Without NATS everything works, only slower; it comes and goes, and nobody has to be told."""

from typing import Any

import nats

from e2e.conftest import OpenStack
from e2e.journey import travel
from fakes.stack import HoldingSmtpServer, Service, Stack
from fakes.waiting import eventually
from fakes.webhook_receiver import WebhookReceiver
from posthouse.embedded.nats import EmbeddedNats
from shared.events import Subject


async def readiness(stack: Stack, service: Service) -> tuple[int, dict[str, Any]]:
    """Return the status of a service's ``/readyz`` and what it says of NATS."""
    answer = await stack.http.get(service.health_url + "/readyz")
    (check,) = [check for check in answer.json()["checks"] if check["name"] == "nats"]
    return answer.status_code, check


async def hears_nats(stack: Stack, expected: str) -> None:
    """Wait until every service says this of NATS; ready they are in any case."""

    async def all_say_so() -> bool:
        found = {service.name: await readiness(stack, service) for service in stack.services}
        assert {status for status, _ in found.values()} == {200}
        assert {check["status"] for _, check in found.values()} == {expected}
        return True

    await eventually(all_say_so, 20, what=f"NATS: {expected}")


async def test_a_mail_makes_its_whole_journey_without_nats_because_everybody_polls(
    stack: Stack, server: HoldingSmtpServer, receiver: WebhookReceiver
) -> None:
    await stack.start_all()
    await travel(stack, server, receiver, await stack.hook(receiver.url))
    assert not any(service.logged("bus_connected") for service in stack.services)


async def test_mail_travels_on_while_nats_dies_and_every_bell_rings_again_when_it_is_back(
    open_stack: OpenStack,
    database_url: str,
    private_nats: EmbeddedNats,
    server: HoldingSmtpServer,
    receiver: WebhookReceiver,
) -> None:
    stack = await open_stack(database_url, relay=server.address, nats_url=private_nats.url)
    await stack.start_all()
    secret = await stack.hook(receiver.url)
    await hears_nats(stack, "ok")
    server.hold.add("slow@receiver.example")
    await stack.send("slow@receiver.example")
    await eventually(lambda: server.held, 20, what="mail under way")

    assert private_nats.child is not None
    private_nats.child.kill()
    await hears_nats(stack, "warning")
    server.release()
    await receiver.wait_for(1, timeout=20)
    await travel(stack, server, receiver, secret, "while-down@receiver.example")

    private_nats.start()
    await hears_nats(stack, "ok")
    listener = await nats.connect(private_nats.url)
    rung: list[str] = []

    async def hear(message: nats.aio.msg.Msg) -> None:
        rung.append(message.subject)

    await listener.subscribe("posthouse.>", cb=hear)
    await listener.flush()
    await travel(stack, server, receiver, secret, "back@receiver.example")
    wanted = {Subject.DELIVERY_DUE, Subject.EVENT_RECORDED, Subject.INBOUND_STORED, Subject.SUPPRESSION_CHANGED}
    await eventually(lambda: wanted <= set(rung), 10, what="every bell")
    await listener.close()
    assert all(service.exit_code is None for service in stack.services)

"""SIGTERM: what is in hand is finished, the rest is given back, and the process ends with 0."""

import asyncio
import json

from fakes.stack import HoldingSmtpServer, Service, Stack
from fakes.waiting import eventually
from fakes.webhook_receiver import Behaviour, WebhookReceiver

HELD = "r3@receiver.example"


class HalfRequest:
    """A message that is being handed in: the api has read its head and waits for the rest."""

    async def begin(self, stack: Stack) -> "HalfRequest":
        mail = {"from": "demo@posthouse.test", "to": ["half@receiver.example"], "subject": "Hello", "text": "Hello.\n"}
        self._body = json.dumps(mail).encode()
        host, _, port = stack.newest("api").addresses["http"].rpartition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {stack.demo.account_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(self._body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self._writer.write(head.encode())
        assert (await self._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        self._writer.write(self._body[:20])
        await self._writer.drain()
        return self

    async def finish(self) -> int:
        """Send the rest; return the status of the answer."""
        self._writer.write(self._body[20:])
        answer = await self._reader.read()
        self._writer.close()
        await self._writer.wait_closed()
        return int(answer.split(b" ", 2)[1])


class HalfMail:
    """Mail that is being received: its content has begun."""

    async def begin(self, stack: Stack) -> "HalfMail":
        host, _, port = stack.newest("dsn-ingest").addresses["smtp"].rpartition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        await self._reader.readline()
        for command in ("HELO sender.example", "MAIL FROM:<>", "RCPT TO:<demo@posthouse.test>", "DATA"):
            self._writer.write(command.encode() + b"\r\n")
            assert (await self._reader.readline())[:1] in {b"2", b"3"}
        self._writer.write(b"Subject: Hello\r\n\r\n")
        await self._writer.drain()
        return self

    async def finish(self) -> int:
        """Send the rest; return the code of the reply."""
        self._writer.write(b"Hello.\r\n.\r\n")
        reply = await self._reader.readline()
        self._writer.close()
        await self._writer.wait_closed()
        return int(reply[:3])


async def is_stopping(stack: Stack, service: Service) -> bool:
    """Whether a service has heard the signal, and says that it is not ready any more."""
    answer = await stack.http.get(service.health_url + "/readyz")
    return answer.status_code == 503 and "stopping" in {check["name"] for check in answer.json()["checks"]}


async def test_every_service_finishes_what_it_has_in_hand_gives_back_the_rest_and_ends_with_0(
    stack: Stack, server: HoldingSmtpServer, receiver: WebhookReceiver
) -> None:
    processes = await stack.start_all("api", "hooks", "dsn-ingest")
    receiver.script = [Behaviour(delay=2)]
    await stack.hook(receiver.url)
    recipients = [f"r{number}@receiver.example" for number in range(20)]
    await stack.send(*recipients)
    server.hold.add(HELD)
    processes["delivery"] = await stack.start("delivery", delivery_sessions=1)
    await eventually(lambda: server.held and receiver.requests, 20, what="mail and a webhook under way")
    request, mail = await HalfRequest().begin(stack), await HalfMail().begin(stack)
    sent = len(server.messages)

    for process in processes.values():
        process.terminate()
        process.terminate()  # a second one changes nothing
    await eventually(lambda: is_stopping(stack, processes["delivery"]), 10, what="the signal being heard")
    assert await request.finish() == 202
    assert await mail.finish() == 250
    server.release()
    assert {name: await process.ended() for name, process in processes.items()} == dict.fromkeys(processes, 0)

    assert len(server.messages) == sent, "nothing new is begun after the signal"
    states = await stack.states()
    done = set(server.received())
    assert HELD in done
    assert {recipient for recipient, state in states.items() if state == "delivered"} == done
    assert {recipient for recipient, state in states.items() if state == "queued"} == {
        *recipients,
        "half@receiver.example",
    } - done
    assert await stack.pool.fetchval("SELECT count(*) FROM worker") == 0
    assert await stack.pool.fetchval("SELECT count(*) FROM site_slot") == 0
    for queue in ("delivery_queue", "call_queue", "inbound_queue"):
        assert await stack.pool.fetchval(f"SELECT count(*) FROM {queue} WHERE worker_id IS NOT NULL") == 0
    assert await stack.pool.fetchval("SELECT count(*) FROM attempt WHERE finished_at IS NULL") == 0
    assert await stack.pool.fetchval("SELECT count(*) FROM call_attempt WHERE finished_at IS NULL") == 0
    assert await stack.pool.fetchval("SELECT count(*) FROM inbound_message") == 1
    calls = len(receiver.requests)
    assert await stack.pool.fetchval("SELECT count(*) FROM call WHERE state = 'delivered'") == calls

    await stack.start("delivery")
    await eventually(lambda: len(server.received()) == len(recipients) + 1, 20)
    assert set(server.received().values()) == {1}

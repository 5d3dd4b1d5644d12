"""A listener with a handler that records, and a client of plain octets; every test runs on asyncio and on uvloop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvloop

from shared.smtpd import Envelope, Listener, Reply, Session, SmtpdConfig, serve
from shared.smtpd.grammar import Parameters


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass
class Recorder:
    """Says yes unless told otherwise, and remembers."""

    connect: Reply | None = None
    senders: dict[str, Reply] = field(default_factory=dict)
    recipients: dict[str, Reply] = field(default_factory=dict)
    message: Reply | Exception = field(default_factory=lambda: Reply(250, "2.0.0", "Taken"))
    hold: asyncio.Event | None = None
    """on_message waits for it."""
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    envelopes: list[Envelope] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    cancelled: int = 0

    async def on_connect(self, session: Session) -> Reply | None:
        self.sessions.append(session)
        return self.connect

    async def on_mail(self, session: Session, sender: str, params: Parameters) -> Reply | None:
        return self.senders.get(sender)

    async def on_rcpt(self, session: Session, recipient: str, params: Parameters) -> Reply | None:
        return self.recipients.get(recipient)

    async def on_message(self, session: Session, envelope: Envelope) -> Reply:
        self.holding.set()
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if isinstance(self.message, Exception):
            raise self.message
        self.envelopes.append(envelope)
        return self.message


class RawClient:
    """Writes octets, reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> bytes:
        """Return one reply, all lines, without the last CRLF; empty at the end of the connection."""
        lines = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 20)
            lines.append(line)
            if line[3:4] != b"-":
                return b"".join(lines).removesuffix(b"\r\n")

    async def codes(self, count: int) -> list[int]:
        return [int((await self.reply())[:3]) for _ in range(count)]

    async def say(self, line: str | bytes) -> bytes:
        self.write((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return await self.reply()

    async def rest(self) -> bytes:
        """Return what comes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 20)

    async def envelope(self, *recipients: str) -> None:
        """Go as far as the reply to RCPT."""
        assert (await self.say("EHLO client.test")).startswith(b"250")
        assert (await self.say("MAIL FROM:<a@a.test>")).startswith(b"250")
        for recipient in recipients or ("b@b.test",):
            assert (await self.say(f"RCPT TO:<{recipient}>")).startswith(b"250")


class Stand:
    """Everything a test needs."""

    def __init__(self) -> None:
        self.config = SmtpdConfig(hostname="mx.test")
        self.handler = Recorder()
        self.listeners: list[Listener] = []
        self.clients: list[RawClient] = []

    @property
    def listener(self) -> Listener:
        return self.listeners[-1]

    async def start(self, **settings: Any) -> Listener:
        self.config = replace(self.config, **settings)
        listener = await serve(self.config, self.handler, "127.0.0.1", 0)
        self.listeners.append(listener)
        return listener

    async def client(self, *, greeted: bool = True, **options: Any) -> RawClient:
        if not self.listeners:
            await self.start()
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.listener.port, **options))
        self.clients.append(client)
        if greeted:
            assert (await client.reply()).startswith(b"220 mx.test ESMTP")
        return client

    async def stop(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()
        for listener in self.listeners:
            await listener.close(5)
        for client in self.clients:
            await asyncio.gather(client.writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand()
    yield stand
    await stand.stop()

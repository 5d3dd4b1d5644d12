"""Every test of the client runs on asyncio and on uvloop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop

from delivery.smtp import Session, Target, Timeouts, connect
from fakes.smtp_server import Script, ScriptedSmtpServer


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Stand:
    """Starts scripted servers and sessions with them, and ends both."""

    def __init__(self) -> None:
        self.servers: list[ScriptedSmtpServer] = []
        self.sessions: list[Session] = []

    @property
    def server(self) -> ScriptedSmtpServer:
        return self.servers[-1]

    async def serve(self, script: Script | None = None) -> ScriptedSmtpServer:
        self.servers.append(await ScriptedSmtpServer(script).__aenter__())
        return self.server

    async def session(
        self, script: Script | None = None, *, timeouts: Timeouts | None = None, **options: Any
    ) -> Session:
        """Connect to a new server with the script."""
        await self.serve(script)
        return await self.connect(timeouts=timeouts, **options)

    async def connect(self, *, timeouts: Timeouts | None = None, **options: Any) -> Session:
        """Connect to the newest server."""
        target = Target("localhost", "127.0.0.1", self.server.port)
        session = await connect(target, ehlo_name="client.test", timeouts=timeouts or Timeouts.all(20), **options)
        self.sessions.append(session)
        return session

    async def stop(self) -> None:
        for session in self.sessions:
            await session.quit()
        for server in self.servers:
            await server.__aexit__()


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand()
    yield stand
    await stand.stop()

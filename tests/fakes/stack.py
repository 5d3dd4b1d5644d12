"""The four services as processes of their own, as production runs them, to be killed, stopped and started at will.

::

    stack = Stack(folder, database_url, relay="127.0.0.1:2525")
    await stack.open()
    api = await stack.start("api")
    await stack.send("grace@example.org")
    api.kill()

Everything is read where an operator would read it: over HTTP, in the database, in the log. Nothing of the services is
imported, except what makes the demo account.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from fakes.smtp_server import Message, Script, ScriptedSmtpServer
from fakes.waiting import eventually
from posthouse.embedded.process import Child, Command, tail, without_libpq
from shared.db.demo import Demo, DemoSecrets, seed_demo
from shared.db.engine import Pool, create_engine, create_pool, session_factory
from shared.security.keys import KeyRing

SERVICES = ("api", "delivery", "hooks", "dsn-ingest")
QUEUES = {
    "delivery": ("delivery_queue",),
    "hooks": ("event_pending", "call_queue"),
    "dsn-ingest": ("inbound_queue",),
}
"""What waits for a service."""
SECRET = "s" * 32
BEAT_SECONDS = 0.5
START_SECONDS = 60
USUAL: Mapping[str, str] = {
    "env": "local",
    "secret_key": SECRET,
    "hostname": "mail.posthouse.test",
    "health_host": "127.0.0.1",
    "health_port": "0",
    "api_host": "127.0.0.1",
    "api_port": "0",
    "dsn_ingest_host": "127.0.0.1",
    "dsn_ingest_port": "0",
    "heartbeat_seconds": str(BEAT_SECONDS),
    "poll_seconds": "0.2",
    "grace_seconds": "10",
    "delivery_loss_delay_seconds": "1",
    "delivery_timeout_seconds": "60",
    "hooks_loss_delay_seconds": "1",
    "hooks_allow_private": "true",
}


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Return a service's environment: these settings and nothing of Posthouse's from outside; None leaves one out."""
    inherited = {name: value for name, value in without_libpq(os.environ).items() if not name.startswith("POSTHOUSE_")}
    given = {f"POSTHOUSE_{name.upper()}": str(value) for name, value in settings.items() if value is not None}
    return {**inherited, **given}


def command(service: str) -> list[str]:
    """Return the command that runs a service."""
    return [sys.executable, "-m", service.replace("-", "_")]


class Service:
    """One running process of a service."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, object]) -> None:
        folder.mkdir()
        self.name = name
        self.log = folder / "log"
        self._address_file = folder / "addresses"
        given = environment({**settings, "address_file": self._address_file})
        self._child = Child(Command(command(name), log=self.log, environment=given))
        self.pid = self._child.pid

    async def listening(self) -> "Service":
        """Wait until it listens; an end instead is a failure."""

        def written() -> bool:
            assert self.exit_code is None, f"{self.name} {self._child.describe_end()}:\n{tail(self.log)}"
            return self._address_file.exists()

        # What has ended will not listen any more: no need to wait for the deadline.
        await eventually(lambda: self.exit_code is not None or written(), START_SECONDS, what=f"{self.name} listening")
        assert written()
        return self

    @property
    def addresses(self) -> dict[str, str]:
        """Where it listens, by what."""
        found: dict[str, str] = json.loads(self._address_file.read_text())
        return found

    @property
    def health_url(self) -> str:
        """Base of ``/readyz`` and the like."""
        return "http://" + self.addresses.get("health", self.addresses["http"])

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.exit_code

    def kill(self) -> None:
        """SIGKILL; it has ended when this returns."""
        self._child.kill()

    def freeze(self) -> None:
        """SIGSTOP; not an instruction of it runs after this has returned (Linux)."""
        self._child.send(signal.SIGSTOP)
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            pass  # a matter of microseconds: the signal is pending, its processor has to notice

    def terminate(self) -> None:
        """SIGTERM."""
        self._child.send(signal.SIGTERM)

    async def ended(self, timeout: float = 15) -> int:
        """Wait until it has ended and return its exit code."""
        await eventually(lambda: self.exit_code is not None, timeout, what=f"the end of {self.name}")
        assert self.exit_code is not None
        return self.exit_code

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log about an event."""
        lines = []
        for line in self.log.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("event") == event:
                    lines.append(entry)
        return lines


class Stack:
    """Services over one database, with the demo account in it.

    Args:
        folder: for logs; short, and of the test's own.
        database_url: a migrated database.
        settings: for every service, beyond :data:`USUAL`.
    """

    def __init__(self, folder: Path, database_url: str, **settings: object) -> None:
        self.services: list[Service] = []
        self._folder = folder
        self._settings = {**USUAL, "database_url": database_url, **settings}
        self._database_url = database_url

    async def open(self) -> "Stack":
        """Make the demo account; nothing runs yet."""
        engine = create_engine(self._database_url, size=1, service="test")
        try:
            async with session_factory(engine)() as session, session.begin():
                self.demo: Demo = await seed_demo(session, KeyRing([SECRET]), DemoSecrets())
        finally:
            await engine.dispose()
        self.pool: Pool = await create_pool(self._database_url, size=2, service="test")
        self.http = httpx.AsyncClient(
            headers=self.as_account, timeout=60, trust_env=False, limits=httpx.Limits(max_connections=None)
        )
        return self

    async def close(self) -> None:
        """Kill everything that still runs."""
        for service in self.services:
            service.kill()
        await self.http.aclose()
        self.pool.terminate()

    async def start(self, name: str, **settings: object) -> Service:
        """Start one more process and wait until it listens."""
        return await self._launch(name, settings).listening()

    async def start_all(self, *names: str) -> dict[str, Service]:
        """Start a process of each service, all of them where none is named, at the same time."""
        launched = [self._launch(name, {}) for name in names or SERVICES]
        return {service.name: await service.listening() for service in launched}

    def _launch(self, name: str, settings: Mapping[str, object]) -> Service:
        folder = self._folder / f"{name}-{len(self.services) + 1}"
        service = Service(name, folder, {**self._settings, **settings})
        self.services.append(service)
        return service

    @property
    def as_account(self) -> dict[str, str]:
        """The header of a request for the demo account."""
        return {"Authorization": f"Bearer {self.demo.account_key}"}

    @property
    def as_operator(self) -> dict[str, str]:
        """The header of a request of the operator."""
        return {"Authorization": f"Bearer {self.demo.admin_key}"}

    def newest(self, name: str) -> Service:
        """Return the process of a service that was started last."""
        return next(service for service in reversed(self.services) if service.name == name)

    @property
    def api_url(self) -> str:
        """Base of the newest api."""
        return "http://" + self.newest("api").addresses["http"]

    async def send(self, *to: str, **more: object) -> dict[str, Any]:
        """Hand in a message that must be accepted; return the answer."""
        mail = {"from": "demo@posthouse.test", "to": list(to), "subject": "Hello", "text": "Hello.\n", **more}
        answer = await self.http.post(self.api_url + "/v1/messages", json=mail)
        assert answer.status_code == 202, answer.text
        sent: dict[str, Any] = answer.json()
        return sent

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return what the demo account is shown at a path."""
        answer = await self.http.get(self.api_url + path, params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def hook(self, url: str) -> str:
        """Register a URL for the account's webhooks; return its secret."""
        answer = await self.http.post(self.api_url + "/v1/endpoints", json={"url": url})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["secret"])

    async def states(self) -> dict[str, str]:
        """Return the state of every delivery, by recipient."""
        rows = await self.pool.fetch("SELECT recipient, state FROM delivery ORDER BY id")
        return {row["recipient"]: row["state"] for row in rows}

    async def started(self) -> set[str]:
        """Return the recipients whose mail is in flight, as the database has it."""
        rows = await self.pool.fetch(
            "SELECT d.recipient FROM delivery_queue q JOIN delivery d ON d.id = q.delivery_id WHERE q.started_at IS NOT NULL"
        )
        return {row["recipient"] for row in rows}

    async def quiet(self, timeout: float = 30) -> None:
        """Wait until nothing waits for any of the services that were started."""
        tables = [table for name in {service.name for service in self.services} for table in QUEUES.get(name, ())]

        async def nothing() -> int:
            left = {table: await self.pool.fetchval(f"SELECT count(*) FROM {table}") for table in tables}
            assert not any(left.values()), f"left: {left}"
            return 1

        await eventually(nothing, timeout)


class HoldingSmtpServer(ScriptedSmtpServer):
    """Takes messages, and keeps its reply to those for chosen recipients back until it is told otherwise."""

    def __init__(self, script: Script | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(script, host, port)
        self.hold: set[str] = set()
        """Recipients whose mail gets no answer."""
        self.held: list[str] = []
        """Recipients whose mail was taken and not answered, in order."""
        self._released = asyncio.Event()

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    def release(self) -> None:
        """Answer what is held, and hold nothing any more until ``hold`` is filled again."""
        self.hold.clear()
        self.held.clear()
        self._released.set()
        self._released = asyncio.Event()

    async def take(self, message: Message) -> None:
        await super().take(message)
        if self.hold.intersection(message.recipients):
            self.held.extend(message.recipients)
            await self._released.wait()

    def received(self) -> dict[str, int]:
        """Return how often each recipient got a mail."""
        counts: dict[str, int] = {}
        for message in self.messages:
            for recipient in message.recipients:
                counts[recipient] = counts.get(recipient, 0) + 1
        return counts

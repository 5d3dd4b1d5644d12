"""The real api, wired by its own ``main``, on loopback; no NATS unless a test brings one."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.main import run
from fakes.waiting import eventually
from shared.db.demo import Demo, DemoSecrets, seed_demo
from shared.db.engine import Pool, create_engine, create_pool, session_factory
from shared.security.keys import KeyRing

SECRET = "s" * 32
HELLO: dict[str, Any] = {
    "from": "Demo <demo@posthouse.test>",
    "to": ["grace@example.org"],
    "subject": "Hello",
    "text": "Hello, Grace.\n",
}


@dataclass
class RunningApi:
    url: str
    health_url: str
    task: "asyncio.Task[None]"
    stop: asyncio.Event
    addresses: dict[str, str]
    """Where it listens, by what."""

    def client(self, key: str | None = None, **options: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30, trust_env=False, **options)

    async def finish(self) -> None:
        self.stop.set()
        await self.task


StartApi = Callable[..., Awaitable[RunningApi]]


@pytest.fixture
async def demo(database_url: str) -> Demo:
    """The demo account, and an operator's key."""
    engine = create_engine(database_url, size=2, service="test")
    try:
        async with session_factory(engine)() as session, session.begin():
            return await seed_demo(session, KeyRing([SECRET]), DemoSecrets())
    finally:
        await engine.dispose()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = await create_pool(database_url, size=3, service="test")
    yield pool
    await pool.close()


@pytest.fixture
async def start_api(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartApi]:
    """Starts an api with these settings beyond the usual ones, and stops it in the end."""
    running: list[RunningApi] = []

    async def start(**settings: object) -> RunningApi:
        async with started(database_url, tmp_path / f"address-{len(running)}", monkeypatch, settings) as api:
            running.append(api)
        return running[-1]

    yield start
    for api in running:
        await api.finish()


@asynccontextmanager
async def started(
    database_url: str, address_file: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> AsyncIterator[RunningApi]:
    """Start an api and lend it; what stops it is up to the caller."""
    wanted = {
        "database_url": database_url,
        "secret_key": SECRET,
        "hostname": "mail.posthouse.test",
        "api_host": "127.0.0.1",
        "api_port": 0,
        "health_host": "127.0.0.1",
        "health_port": 0,
        "address_file": address_file,
        "grace_seconds": 5,
        "heartbeat_seconds": 0.2,
        **settings,
    }
    for name, value in wanted.items():
        monkeypatch.setenv(f"POSTHOUSE_{name.upper()}", str(value))
    stop = asyncio.Event()
    task = asyncio.create_task(run(stop))

    def listening() -> bool:
        if task.done():
            task.result()
        return address_file.exists()

    await eventually(listening, 30, what="the api listens")
    addresses = json.loads(address_file.read_text())
    yield RunningApi(f"http://{addresses['http']}", f"http://{addresses['health']}", task, stop, addresses)


@pytest.fixture
async def api(start_api: StartApi) -> RunningApi:
    return await start_api()


@pytest.fixture
async def client(api: RunningApi, demo: Demo) -> AsyncIterator[httpx.AsyncClient]:
    """Acts for the demo account, by its API key."""
    async with api.client(demo.account_key) as client:
        yield client


@pytest.fixture
async def operator(api: RunningApi, demo: Demo) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client(demo.admin_key) as client:
        yield client


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the problem document of an answer, which must be one, of this status and code."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["code"] == code, document
    assert document["status"] == status
    assert document["detail"]
    return document

"""The hooks service in this process, and as a process of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson

from fakes.waiting import eventually
from hooks.config import Settings
from hooks.main import run_with

SECRET = "a secret of the tests that is long enough"


def settings(database_url: str, **more: object) -> Settings:
    given: dict[str, object] = {
        "database_url": database_url,
        "env": "local",
        "secret_key": (SECRET,),
        "health_host": "127.0.0.1",
        "health_port": 0,
        "poll_seconds": 0.05,
        "heartbeat_seconds": 0.2,
        "hooks_allow_private": True,
        "hooks_loss_delay_seconds": 0.05,
    }
    return Settings.model_validate(given | more)


@asynccontextmanager
async def hooks_service(database_url: str, **more: object) -> AsyncIterator[asyncio.Event]:
    """Run the service; yields its stop event. It must end in order."""
    stop = asyncio.Event()
    task = asyncio.create_task(run_with(settings(database_url, **more), stop))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(30):
            await task


async def ask(address_file: Path, path: str) -> httpx.Response:
    """Fetch a page from the service that wrote this file."""
    address = orjson.loads(address_file.read_bytes())["http"]
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://{address}{path}")


@dataclass
class HooksProcess:
    """``python -m hooks``."""

    process: asyncio.subprocess.Process
    address_file: Path

    async def get(self, path: str) -> httpx.Response:
        return await ask(self.address_file, path)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(30):
            return await self.process.wait()


@asynccontextmanager
async def hooks_process(database_url: str, folder: Path, **more: str) -> AsyncIterator[HooksProcess]:
    """Start the service as a process and wait until it listens; killed at the end."""
    address_file = folder / f"hooks-{os.urandom(4).hex()}.json"
    environment = {
        "PATH": os.environ["PATH"],
        "POSTHOUSE_DATABASE_URL": database_url,
        "POSTHOUSE_ENV": "local",
        "POSTHOUSE_SECRET_KEY": SECRET,
        "POSTHOUSE_HEALTH_HOST": "127.0.0.1",
        "POSTHOUSE_HEALTH_PORT": "0",
        "POSTHOUSE_POLL_SECONDS": "0.05",
        "POSTHOUSE_HEARTBEAT_SECONDS": "0.2",
        "POSTHOUSE_HOOKS_ALLOW_PRIVATE": "true",
        "POSTHOUSE_HOOKS_LOSS_DELAY_SECONDS": "0.05",
        "POSTHOUSE_ADDRESS_FILE": str(address_file),
        **more,
    }
    with address_file.with_suffix(".log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "hooks", env=environment, stderr=log)
    try:
        await eventually(address_file.exists, timeout=30, what="the hooks service listens")
        yield HooksProcess(process, address_file)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

"""The service as a process: how it starts, fails to start, says that it is ready, and stops."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from fakes.waiting import eventually
from integration.api.conftest import HELLO, SECRET, StartApi
from shared.db.demo import Demo
from shared.db.engine import Pool


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    return {
        **inherited,
        "POSTHOUSE_DATABASE_URL": database_url,
        "POSTHOUSE_SECRET_KEY": SECRET,
        "POSTHOUSE_API_HOST": "127.0.0.1",
        "POSTHOUSE_API_PORT": "0",
        "POSTHOUSE_HEALTH_HOST": "127.0.0.1",
        "POSTHOUSE_HEALTH_PORT": "0",
        "POSTHOUSE_ADDRESS_FILE": str(tmp_path / "address"),
        "POSTHOUSE_GRACE_SECONDS": "10",
        "POSTHOUSE_STARTUP_WAIT_SECONDS": "0",
    }


async def start(environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", env=environment, stderr=asyncio.subprocess.PIPE
    )


async def failure(environment: dict[str, str]) -> str:
    """Start a process that must not come up, and return the last line it says."""
    process = await start(environment)
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2, stderr.decode()
    assert b"Traceback" not in stderr
    return stderr.decode().splitlines()[-1]


async def test_a_process_that_cannot_run_says_why_in_one_line(
    environment: dict[str, str], empty_database_url: str
) -> None:
    without_key = {name: value for name, value in environment.items() if name != "POSTHOUSE_SECRET_KEY"}
    assert "POSTHOUSE_SECRET_KEY" in await failure(without_key)
    unreachable = {**environment, "POSTHOUSE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    assert "Postgres does not answer" in await failure(unreachable)
    assert "posthouse migrate" in await failure({**environment, "POSTHOUSE_DATABASE_URL": empty_database_url})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = await failure({**environment, "POSTHOUSE_API_PORT": port})
    assert f"127.0.0.1:{port}" in line
    assert "POSTHOUSE_API_PORT" in line


async def test_sigterm_lets_what_is_in_hand_finish(
    environment: dict[str, str], demo: Demo, pool: Pool, tmp_path: Path
) -> None:
    process = await start(environment)
    address = tmp_path / "address"
    await eventually(address.exists, 60)
    url = f"http://{json.loads(address.read_text())['http']}"
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        body = json.dumps(HELLO).encode()
        yield body[:10]
        await go_on.wait()
        yield body[10:]

    headers = {"Authorization": f"Bearer {demo.account_key}", "Content-Type": "application/json"}
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client,
        httpx.AsyncClient(base_url=url, trust_env=False) as other,
    ):
        sending = asyncio.create_task(client.post("/v1/messages", content=slowly(), headers=headers))

        async def in_hand() -> bool:
            return "posthouse_api_request_bytes 10.0" in (await other.get("/metrics")).text

        await eventually(in_hand)
        process.send_signal(signal.SIGTERM)

        async def refused() -> bool:
            try:
                async with httpx.AsyncClient(base_url=url, trust_env=False) as late:
                    await late.get("/livez")
            except httpx.ConnectError:
                return True
            return False

        await eventually(refused)
        process.send_signal(signal.SIGTERM)  # a second one changes nothing
        go_on.set()
        assert (await sending).status_code == 202
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, stderr.decode()
    assert await pool.fetchval("SELECT count(*) FROM message") == 1
    assert await pool.fetchval("SELECT count(*) FROM worker") == 0
    assert HELLO["to"][0] not in stderr.decode()
    assert HELLO["subject"] not in stderr.decode()


async def test_the_api_of_the_local_stack_is_ready_when_all_services_are(start_api: StartApi, pool: Pool) -> None:
    api = await start_api(env="local")
    async with api.client() as client:

        async def stack() -> dict[str, str]:
            response = await client.get("/readyz")
            checks = {check["name"]: check for check in response.json()["checks"]}
            assert (response.status_code == 200) == (checks["stack"]["status"] == "ok")
            found: dict[str, str] = checks["stack"]
            return found

        assert "delivery, hooks, dsn-ingest" in (await stack())["detail"]
        assert (await client.get(f"{api.health_url}/readyz")).status_code == 200
        for service in ("delivery", "hooks", "dsn_ingest"):
            await pool.execute("INSERT INTO worker (service, version, host, pid) VALUES ($1, '', '', 1)", service)
        assert (await stack())["status"] == "ok"
        await pool.execute("UPDATE worker SET heartbeat_at = now() - interval '1 hour' WHERE service = 'hooks'")
        assert "hooks" in (await stack())["detail"]


async def test_health_metrics_and_pages(start_api: StartApi) -> None:
    api = await start_api()
    async with api.client() as client:
        for base in (api.url, api.health_url):
            assert (await client.get(f"{base}/livez")).status_code == 200
            assert (await client.get(f"{base}/readyz")).json()["status"] == "ready"
            assert "posthouse_api_" in (await client.get(f"{base}/metrics")).text
        root = await client.get("/")
        assert root.headers["content-type"].startswith("text/html")
        for path in ("/docs", "/openapi.json", "/livez", "/readyz", "/metrics"):
            assert f'href="{path}"' in root.text
            assert (await client.get(path)).status_code == 200
        docs = (await client.get("/docs")).text
        for operation in ("messages_send", "webhooks_event", "operator_keys_revoke"):
            assert f'id="{operation}"' in docs
        assert "http://" not in docs.replace("https://", "")
        assert "<script" not in docs
        assert "src=" not in docs
        assert 'operation="messages_send"' not in (await client.get("/metrics")).text
        await client.post("/v1/messages", json={})
        metrics = (await client.get("/metrics")).text
        assert 'posthouse_api_request_seconds_count{operation="messages_send",status="401"} 1.0' in metrics
        assert 'posthouse_api_authentications_total{door="rest",mechanism="none",result="missing"} 1.0' in metrics

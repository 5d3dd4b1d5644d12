import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.types import ASGIApp

from shared.errors import ConfigurationError
from shared.metrics import Metrics
from shared.web import problems
from shared.web.health import Check, Readiness, health_app
from shared.web.protocol import BoundedProtocol
from shared.web.serve import RunningServer, serve

LIMIT = 1000


def application(*, body_idle: float = 30.0) -> FastAPI:
    app = FastAPI()
    problems.install(app, body_limit=LIMIT, body_idle=body_idle)
    app.state.release = asyncio.Event()
    app.state.entered = asyncio.Event()

    @app.post("/count")
    async def count(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.get("/wait")
    async def wait() -> dict[str, str]:
        app.state.entered.set()
        await app.state.release.wait()
        return {"status": "done"}

    return app


@asynccontextmanager
async def running(app: ASGIApp, protocol: type[BoundedProtocol] = BoundedProtocol) -> AsyncIterator[RunningServer]:
    server = await serve(app, "127.0.0.1", 0, setting="POSTHOUSE_HEALTH_PORT", protocol=protocol)
    try:
        yield server
    finally:
        await server.stop(1)


async def converse(server: RunningServer, *pieces: bytes) -> bytes:
    """Send pieces on a bare connection and return what comes back until the server closes it."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_a_server_answers_on_the_port_it_names() -> None:
    async with running(application()) as server, httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        assert (await client.post("/count", content=b"x" * 17)).json() == {"bytes": 17}
        assert (await client.post("/count", content=b"x" * LIMIT)).json() == {"bytes": LIMIT}
        response = await client.get("/nowhere")
        assert response.json()["code"] == "not_found"
        assert "server" not in response.headers


async def test_a_declared_body_over_the_limit_is_refused() -> None:
    async with running(application()) as server, httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        for length in (LIMIT + 1, 3_000_000):
            response = await client.post("/count", content=b"x" * length)
            assert (response.status_code, response.json()["code"]) == (413, "too_large")
            assert "1000 bytes" in response.json()["detail"]
        assert (await client.post("/count", content=b"x")).status_code == 200


async def test_a_chunked_body_over_the_limit_is_refused() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"x" * 10_000

    async with running(application()) as server, httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        response = await client.post("/count", content=chunks())
        assert (response.status_code, response.json()["code"]) == (413, "too_large")


async def test_who_asks_first_is_refused_before_the_body() -> None:
    async with running(application()) as server:
        answer = await converse(
            server, b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_body_that_stops_coming_is_given_up() -> None:
    async with running(application(body_idle=0.2)) as server:
        answer = await converse(server, b"POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"request_timeout"' in answer


class Impatient(BoundedProtocol):
    head_seconds = 0.2


@pytest.mark.parametrize(
    "start", [b"", b"G", b"GET /count HTTP/1.1\r\nHost: a\r\n", b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\nGET /half"]
)
async def test_a_head_that_does_not_come_is_given_up(start: bytes) -> None:
    async with running(application(), Impatient) as server:
        assert b"HTTP/1.1 408 " in await converse(server, start)


async def test_half_a_request_sent_ahead_does_not_cut_off_the_answer_before_it() -> None:
    app = application()
    async with running(app, Impatient) as server:
        talk = asyncio.create_task(converse(server, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /half"))
        await app.state.entered.wait()
        # Longer than the head may take: the timer has had to find the first answer unfinished.
        done, _ = await asyncio.wait([talk], timeout=0.5)
        assert not done
        app.state.release.set()
        assert b'{"status":"done"}' in await talk


@pytest.mark.parametrize("piece", [b"X-Many: y\r\n" * 100, b"z" * 1000], ids=["many fields", "one endless field"])
async def test_a_head_without_end_is_refused(piece: bytes) -> None:
    async with running(application()) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Start: ")
        answer = asyncio.create_task(reader.read())
        sent = 0
        try:
            while not answer.done() and sent < 5_000_000:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
        except ConnectionError:
            pass
        assert sent < 5_000_000
        writer.close()
        answer.cancel()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\n\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ],
)
async def test_garbage_gets_a_400_and_hurts_nobody(garbage: bytes) -> None:
    async with running(application(), Impatient) as server:
        answer = await converse(server, garbage)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        async with httpx.AsyncClient(base_url=f"http://{server.address}") as client:
            assert (await client.post("/count", content=b"x")).status_code == 200


async def test_a_port_in_use_is_named_with_its_setting() -> None:
    async with running(application()) as server:
        with pytest.raises(
            ConfigurationError, match=rf"127\.0\.0\.1:{server.port}.*another process.*POSTHOUSE_API_PORT"
        ):
            await serve(application(), "127.0.0.1", server.port, setting="POSTHOUSE_API_PORT")


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a" * 300])
async def test_an_address_that_is_not_ours_is_named_with_its_setting(host: str) -> None:
    with pytest.raises(ConfigurationError, match="POSTHOUSE_API_HOST"):
        await serve(application(), host, 0, setting="POSTHOUSE_API_HOST")


async def test_several_servers_share_a_port_where_they_agree_to() -> None:
    first = await serve(application(), "127.0.0.1", 0, setting="X", reuse_port=True)
    second = await serve(application(), "127.0.0.1", first.port, setting="X", reuse_port=True)
    assert first.port == second.port
    await first.stop(1)
    async with httpx.AsyncClient(base_url=f"http://{second.address}") as client:
        assert (await client.post("/count", content=b"x")).status_code == 200
    await second.stop(1)


async def test_stopping_lets_requests_finish_and_takes_no_new_ones() -> None:
    app = application()
    server = await serve(app, "127.0.0.1", 0, setting="X")
    async with httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        request = asyncio.create_task(client.get("/wait"))
        await app.state.entered.wait()
        stopping = asyncio.create_task(server.stop(10))
        async with asyncio.timeout(5):
            while True:
                try:
                    _, writer = await asyncio.open_connection(server.host, server.port)
                except ConnectionError:
                    break
                writer.close()
                await asyncio.sleep(0.01)
        app.state.release.set()
        assert (await request).json() == {"status": "done"}
        await stopping
        await server.stop(10)


async def test_stopping_does_not_wait_for_ever() -> None:
    app = application()
    server = await serve(app, "127.0.0.1", 0, setting="X")
    async with httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        request = asyncio.create_task(client.get("/wait"))
        await app.state.entered.wait()
        await asyncio.wait_for(server.stop(0), 10)
        with pytest.raises(httpx.HTTPError):
            (await request).raise_for_status()


async def test_health_says_what_is_wrong_and_what_only_warns() -> None:
    down: set[str] = set()

    def check(name: str, required: bool) -> Check:
        async def run() -> None:
            if name in down:
                raise RuntimeError("password in the text")

        return Check(name, run, required=required)

    async def hang() -> None:
        if "slow" in down:
            await asyncio.Event().wait()

    stopping = asyncio.Event()
    readiness = Readiness(
        [check("postgres", True), check("nats", False), Check("slow", hang)], stopping=stopping, seconds=0.2
    )
    metrics = Metrics("hooks")
    metrics.gauge("in_flight", "Calls in flight.").set(2)
    async with (
        running(health_app("hooks", readiness, metrics)) as server,
        httpx.AsyncClient(base_url=f"http://{server.address}") as client,
    ):

        async def ready() -> tuple[int, dict[str, str]]:
            response = await client.get("/readyz")
            assert "password" not in response.text
            return response.status_code, {item["name"]: item["status"] for item in response.json()["checks"]}

        assert await ready() == (200, {"postgres": "ok", "nats": "ok", "slow": "ok"})
        down.add("nats")
        assert await ready() == (200, {"postgres": "ok", "nats": "warning", "slow": "ok"})
        down.add("postgres")
        assert await ready() == (503, {"postgres": "failed", "nats": "warning", "slow": "ok"})
        down.clear()
        down.add("slow")
        assert await ready() == (503, {"postgres": "ok", "nats": "ok", "slow": "failed"})
        down.clear()
        assert (await ready())[0] == 200
        stopping.set()
        assert await ready() == (503, {"postgres": "ok", "nats": "ok", "slow": "ok", "stopping": "failed"})
        assert (await client.get("/livez")).json() == {"status": "ok", "service": "hooks"}
        exposition = await client.get("/metrics")
        assert "posthouse_hooks_in_flight 2.0" in exposition.text
        assert exposition.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert (await client.get("/openapi.json")).status_code == 404


SERVICE = """
import asyncio, sys
from shared import log
from shared.errors import ConfigurationError
from shared.web.serve import run_service

async def main(stop):
    if sys.argv[1] == "misconfigured":
        raise ConfigurationError("POSTHOUSE_SECRET_KEY is missing")
    if sys.argv[1] == "broken":
        raise ZeroDivisionError("unexpected")
    print("ready", flush=True)
    await stop.wait()
    await asyncio.sleep(0.1)
    print("cleaned up", flush=True)

sys.exit(run_service("demo", main))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_ends_in_order_when_told_to_even_twice(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE, "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "cleaned up\n", "")


def test_a_wrong_setting_ends_a_service_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, "misconfigured"], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "demo: POSTHOUSE_SECRET_KEY is missing\n")


def test_an_unexpected_error_ends_a_service_with_a_logged_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, "broken"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert line["event"] == "service_failed"
    assert "ZeroDivisionError: unexpected" in line["exception"]

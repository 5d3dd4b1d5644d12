"""The hooks service as a process among others: death, lost connections, silence of the doorbell, stopping."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from fakes.waiting import eventually
from fakes.webhook_receiver import Behaviour, WebhookReceiver
from integration.hooks.call_data import Customer
from integration.hooks.service import ask, hooks_process, hooks_service
from posthouse.embedded.postgres import EmbeddedPostgres
from shared.bus import Bus
from shared.db.fanout import fan_out
from shared.db.migrate import upgrade
from shared.events import Subject


async def settled(customer: Customer, count: int = 1) -> list[tuple[str, int]]:
    async def look() -> list[tuple[str, int]]:
        rows = [row for row in await customer.calls() if row["settled_at"] is not None]
        return [(row["state"], row["attempts"]) for row in rows] if len(rows) >= count else []

    return await eventually(look, timeout=20, what=f"{count} settled calls")


async def test_what_a_killed_process_had_in_flight_is_made_again_by_another(database_url: str, tmp_path: Path) -> None:
    answers = [Behaviour(delay=3600), Behaviour()]
    async with Customer(database_url) as customer, WebhookReceiver(answers) as receiver:
        await customer.endpoint(receiver.url)
        delivery_id = await customer.delivery()
        await customer.event(delivery_id, "delayed")
        await customer.event(delivery_id, "delivered")
        async with hooks_process(database_url, tmp_path) as doomed:
            await receiver.wait_for(1)
            assert await doomed.stop(signal.SIGKILL) == -signal.SIGKILL
        async with hooks_process(database_url, tmp_path):
            assert await settled(customer, 2) == [("delivered", 2), ("delivered", 1)]
        outcomes = await customer.connection.fetch("SELECT outcome FROM call_attempt ORDER BY call_id, n")
        assert [row["outcome"] for row in outcomes] == ["lost", "delivered", "delivered"]
        first, again, _ = receiver.requests
        assert first.body == again.body
        assert await customer.connection.fetchval("SELECT count(*) FROM site_slot") == 0


async def test_a_call_that_was_lost_too_often_fails_with_its_reason(database_url: str) -> None:
    async with Customer(database_url) as customer, WebhookReceiver() as receiver:
        await customer.endpoint(receiver.url)
        await customer.event(await customer.delivery())
        await fan_out(customer.connection)
        dead = await customer.worker()
        await customer.claim(dead)
        await customer.connection.execute(
            "UPDATE call_queue SET losses = 2, attempt = 3, started_at = now() - interval '1 hour'"
        )
        await customer.connection.execute("UPDATE worker SET heartbeat_at = now() - interval '1 hour'")
        async with hooks_service(database_url):
            assert await settled(customer) == [("failed", 3)]
        [call] = await customer.calls()
        assert "workers died" in call["text"]
        assert receiver.requests == []


async def test_connections_that_end_in_mid_call_do_not_double_it(database_url: str) -> None:
    ready = asyncio.Event()
    async with Customer(database_url) as customer, WebhookReceiver([Behaviour(delay=1.0), Behaviour()]) as receiver:
        receiver.on_request = lambda _: ready.set()
        await customer.endpoint(receiver.url)
        delivery_id = await customer.delivery()
        await customer.event(delivery_id, "delivered")
        async with hooks_service(database_url):
            await ready.wait()
            for _ in range(5):  # whatever it opens again is cut as well
                await customer.connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'posthouse-hooks%' AND datname = current_database()"
                )
            assert await settled(customer) == [("delivered", 1)]
            # The service goes on: the next event is told too.
            await customer.event(delivery_id, "bounced")
            assert await settled(customer, 2) == [("delivered", 1), ("delivered", 1)]
        assert len(receiver.requests) == 2


async def test_results_are_kept_while_the_database_is_away(private_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    await upgrade(private_postgres.url)
    asked, may_answer = asyncio.Event(), asyncio.Event()
    requests = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                requests += 1
                asked.set()
                await may_answer.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                break
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with Customer(private_postgres.url) as customer:
        await customer.endpoint(url)
        await customer.event(await customer.delivery())
    address_file = tmp_path / "hooks.json"
    async with server, hooks_service(private_postgres.url, address_file=address_file):
        await asked.wait()
        await asyncio.to_thread(private_postgres.stop)
        may_answer.set()

        async def answered() -> bool:  # so its result can only be kept
            return "posthouse_hooks_in_flight 0.0" in (await ask(address_file, "/metrics")).text

        await eventually(answered, what="the answer is read while the database is away")
        private_postgres.start()  # by the main thread, with which it would die
        async with Customer(private_postgres.url, "somebody who looks on") as onlooker:
            assert await settled(onlooker) == [("delivered", 1)]
    assert requests == 1


async def test_without_a_doorbell_events_are_found_by_polling(database_url: str) -> None:
    async with Customer(database_url) as customer, WebhookReceiver() as receiver:
        await customer.endpoint(receiver.url)
        async with hooks_service(database_url, nats_url="nats://127.0.0.1:1"):
            await customer.event(await customer.delivery())
            assert await settled(customer) == [("delivered", 1)]


async def test_within_a_process_the_fan_out_wakes_the_calls_without_any_bus(database_url: str) -> None:
    async with Customer(database_url) as customer, WebhookReceiver() as receiver:
        await customer.endpoint(receiver.url)
        delivery_id = await customer.delivery()
        await customer.event(delivery_id, "delayed")
        await customer.event(delivery_id, "delivered")
        async with hooks_service(database_url, poll_seconds=60):
            assert await settled(customer, 2) == [("delivered", 1), ("delivered", 1)]


async def test_the_doorbell_is_answered_long_before_the_poll(database_url: str, nats_url: str) -> None:
    bus = Bus(nats_url, name="test")
    bus.start()
    async with Customer(database_url) as customer, WebhookReceiver() as receiver:
        await customer.endpoint(receiver.url)
        await eventually(lambda: bus.connected)
        async with hooks_service(database_url, nats_url=nats_url, poll_seconds=60):
            await eventually(lambda: _workers(customer))
            for n in range(3):  # each wakes the whole chain: fan-out, claim, and the next of the same delivery
                await customer.event(await customer.delivery(f"r{n}@theirs.test"))

                async def rung(count: int = n + 1) -> bool:
                    bus.ring(Subject.EVENT_RECORDED, str(customer.account_id))
                    rows = await customer.calls()
                    return len(rows) == count and all(row["settled_at"] is not None for row in rows)

                await eventually(rung, what="a call settled within one poll interval")
    await bus.close()


async def _workers(customer: Customer) -> bool:
    return bool(await customer.connection.fetchval("SELECT count(*) FROM worker WHERE service = 'hooks'"))


async def test_sigterm_finishes_what_is_in_flight_and_releases_the_rest(database_url: str, tmp_path: Path) -> None:
    async with Customer(database_url) as customer, WebhookReceiver([Behaviour(delay=1.0)]) as receiver:
        await customer.endpoint(receiver.url)
        for delivery_id in await customer.mailroom.accept([f"r{n}@theirs.test" for n in range(20)]):
            await customer.event(delivery_id)
        async with hooks_process(database_url, tmp_path) as process:
            await receiver.wait_for(1)
            assert await process.stop() == 0
        started = await customer.connection.fetchval("SELECT count(*) FROM call_attempt")
        assert {state for state, _ in await settled(customer, started)} == {"delivered"}
        assert len(receiver.requests) == started < 20
        rows = await customer.queued()
        assert {(row["worker_id"], row["attempt"]) for row in rows} == {(None, 0)}
        assert await customer.connection.fetchval("SELECT count(*) FROM worker") == 0
        assert await customer.connection.fetchval("SELECT count(*) FROM site_slot") == 0


async def test_what_does_not_end_within_the_grace_period_is_tried_again_later(
    database_url: str, tmp_path: Path
) -> None:
    async with Customer(database_url) as customer, WebhookReceiver([Behaviour(delay=3600)]) as receiver:
        await customer.endpoint(receiver.url)
        await customer.event(await customer.delivery())
        async with hooks_process(database_url, tmp_path, POSTHOUSE_GRACE_SECONDS="0.1") as process:
            await receiver.wait_for(1)
            assert await process.stop() == 0
        [row] = await customer.queued()
        assert (row["worker_id"], row["started_at"], row["attempt"], row["losses"]) == (None, None, 1, 0)
        [attempt] = await customer.connection.fetch("SELECT outcome, text FROM call_attempt")
        assert attempt["outcome"] == "retry"
        assert "service was stopped" in attempt["text"]
        assert await customer.connection.fetchval("SELECT count(*) FROM worker") == 0


async def test_after_the_signal_nothing_starts_even_where_places_become_free(database_url: str) -> None:
    async with Customer(database_url) as customer, WebhookReceiver([Behaviour(delay=3600)]) as receiver:
        for _ in range(8):
            await customer.endpoint(receiver.url)
        for delivery_id in await customer.mailroom.accept([f"r{n}@theirs.test" for n in range(4)]):
            await customer.event(delivery_id)
        async with hooks_service(database_url, hooks_in_flight=8, grace_seconds=0.2):
            await receiver.wait_for(8)  # every place is taken, and more calls wait for one
        assert len(receiver.requests) == 8
        assert await customer.connection.fetchval("SELECT count(*) FROM call_attempt") == 8
        assert {row["worker_id"] for row in await customer.queued()} == {None}


async def test_a_process_says_that_it_lives_and_what_it_has_done(
    database_url: str, nats_url: str, tmp_path: Path
) -> None:
    async with Customer(database_url) as customer, WebhookReceiver([Behaviour(), Behaviour(500)]) as receiver:
        await customer.endpoint(receiver.url)
        delivery_id = await customer.delivery()
        await customer.event(delivery_id, "delivered")
        await customer.event(delivery_id, "bounced")
        async with hooks_process(database_url, tmp_path, POSTHOUSE_NATS_URL=nats_url) as process:
            await settled(customer)

            async def counted() -> bool:
                text = (await process.get("/metrics")).text
                return all(
                    line in text
                    for line in (
                        'posthouse_hooks_calls_total{result="delivered"} 1.0',
                        'posthouse_hooks_calls_total{result="retry"} 1.0',
                        "posthouse_hooks_events_total 2.0",
                        "posthouse_hooks_calls_made_total 2.0",
                        "posthouse_hooks_in_flight 0.0",
                        "posthouse_hooks_oldest_call_seconds 0.0",
                    )
                )

            await eventually(counted)
            assert (await process.get("/livez")).status_code == 200

            async def ready() -> bool:
                response = await process.get("/readyz")
                return response.status_code == 200 and {c["status"] for c in response.json()["checks"]} == {"ok"}

            await eventually(ready)
            assert await process.stop() == 0
            log = process.address_file.with_suffix(".log").read_text()
        assert '"event":"call"' in log
        assert "them@theirs.test" not in log


async def test_a_wrong_setting_stops_the_process_with_one_line() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hooks", env={"PATH": "/usr/bin"}, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert said.decode().count("\n") == 1
    assert "POSTHOUSE_DATABASE_URL" in said.decode()

"""The hooks service against real receivers: what arrives, in which order, and what becomes of a call."""

from collections.abc import Callable
from datetime import timedelta

import orjson
import pytest
from standardwebhooks.webhooks import Webhook

from fakes.waiting import eventually
from fakes.webhook_receiver import Behaviour, Received, WebhookReceiver
from hooks.call import USER_AGENT
from integration.hooks.call_data import RING, Customer
from integration.hooks.service import hooks_service
from shared.db.endpoints import rotate_secret
from shared.db.engine import create_engine, session_factory


async def settled(customer: Customer, count: int = 1) -> list[tuple[str, int, int | None]]:
    """Wait until so many calls are settled; returns state, attempts and code of each."""

    async def look() -> list[tuple[str, int, int | None]]:
        rows = [row for row in await customer.calls() if row["settled_at"] is not None]
        return [(row["state"], row["attempts"], row["code"]) for row in rows] if len(rows) >= count else []

    return await eventually(look, what=f"{count} settled calls")


async def waiting(customer: Customer, attempt: int) -> timedelta:
    """Wait until the only live call has so many attempts behind it; returns how long it will wait."""

    async def look() -> timedelta | None:
        rows = [row for row in await customer.queued() if row["attempt"] == attempt and row["worker_id"] is None]
        return rows[0]["due_in"] if rows else None

    return await eventually(look, what=f"a call waiting after attempt {attempt}")


async def attempt_texts(customer: Customer) -> list[str]:
    return [row["text"] for row in await customer.connection.fetch("SELECT text FROM call_attempt ORDER BY call_id, n")]


async def test_an_event_arrives_signed_at_its_endpoint(database_url: str) -> None:
    async with Customer(database_url) as customer, WebhookReceiver([Behaviour(202, body=b"ok")]) as receiver:
        _, secret = await customer.endpoint(receiver.url, authorization="Bearer abc")
        delivery_id = await customer.delivery("them@theirs.test")
        event_id = await customer.event(delivery_id, "delivered", attempt=1, code=250, enhanced="2.0.0", text="queued")
        async with hooks_service(database_url):
            assert await settled(customer) == [("delivered", 1, 202)]

        [request] = receiver.requests
        assert (request.method, request.path) == ("POST", "/hook")
        assert Webhook(secret).verify(request.body, request.headers) is not None
        [call] = await customer.calls()
        assert request.headers["webhook-id"] == f"msg_{call['id']}"
        assert request.headers["user-agent"] == USER_AGENT
        assert request.headers["content-type"] == "application/json"
        assert request.headers["authorization"] == "Bearer abc"
        payload = orjson.loads(request.body)
        assert (payload["type"], payload["id"]) == ("delivered", str(event_id))
        assert payload["data"]["delivery"] == str(delivery_id)
        assert payload["data"]["recipient"] == "them@theirs.test"
        [attempt] = await customer.connection.fetch("SELECT outcome, code, response FROM call_attempt")
        assert tuple(attempt) == ("delivered", 202, "ok")


async def test_a_failed_call_is_tried_again_with_the_same_body_and_id(database_url: str) -> None:
    script = [Behaviour(500, body=b"not now"), Behaviour(drop="head"), Behaviour(204)]
    async with Customer(database_url) as customer, WebhookReceiver(script) as receiver:
        _, secret = await customer.endpoint(receiver.url)
        await customer.event(await customer.delivery())
        async with hooks_service(database_url):
            for attempt in (1, 2):
                assert timedelta(seconds=30) < await waiting(customer, attempt) < timedelta(minutes=3)
                await customer.due_now()
            assert await settled(customer) == [("delivered", 3, 204)]
        assert len({request.body for request in receiver.requests}) == 1
        assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
        for request in receiver.requests:
            Webhook(secret).verify(request.body, request.headers)
        attempts = await customer.connection.fetch("SELECT n, outcome, code, response FROM call_attempt ORDER BY n")
        assert [tuple(row) for row in attempts] == [
            (1, "retry", 500, "not now"),
            (2, "retry", 0, ""),
            (3, "delivered", 204, ""),
        ]


async def test_events_of_one_delivery_arrive_in_order_while_the_first_waits_for_its_retry(database_url: str) -> None:
    first_failed: list[int] = []

    def fail_once(request: Received) -> Behaviour:
        if orjson.loads(request.body)["type"] == "delayed" and not first_failed:
            first_failed.append(request.number)
            return Behaviour(503)
        return Behaviour()

    async with Customer(database_url) as customer, WebhookReceiver(fail_once) as receiver:
        await customer.endpoint(receiver.url)
        troubled, other = await customer.delivery(), await customer.delivery("other@theirs.test")
        await customer.event(troubled, "delayed")
        await customer.event(troubled, "delivered")
        await customer.event(troubled, "bounced")
        await customer.event(other, "delivered")
        async with hooks_service(database_url):
            await waiting(customer, 1)
            assert await settled(customer) == [("delivered", 1, 200)]  # the other delivery's
            await customer.connection.execute("UPDATE call_queue SET due_at = now() WHERE attempt = 1")
            await customer.connection.execute("INSERT INTO call_wake SELECT lane_id FROM call_queue LIMIT 1")
            assert len(await settled(customer, 4)) == 4
        arrived = [orjson.loads(r.body) for r in receiver.requests]
        assert [p["type"] for p in arrived if p["data"]["delivery"] == str(troubled)] == [
            "delayed",
            "delayed",
            "delivered",
            "bounced",
        ]


async def test_gone_ends_the_call_and_stops_the_endpoint(database_url: str) -> None:
    async with Customer(database_url) as customer, WebhookReceiver([Behaviour(410)]) as receiver:
        await customer.endpoint(receiver.url)
        delivery_id = await customer.delivery()
        await customer.event(delivery_id, "delayed")
        await customer.event(delivery_id, "delivered")
        async with hooks_service(database_url):
            assert await settled(customer) == [("failed", 1, 410)]
            await customer.event(delivery_id, "bounced")
            notes = "SELECT count(*) FROM event_pending"
            await eventually(lambda: _is_zero(customer, notes))

            async def set_aside() -> bool:
                return [row["due_in"] > timedelta(minutes=5) for row in await customer.queued()] == [True]

            await eventually(set_aside, what="the second event waits for the endpoint to be enabled")
        assert len(receiver.requests) == 1


async def _is_zero(customer: Customer, sql: str) -> bool:
    return bool(await customer.connection.fetchval(sql) == 0)


async def test_retry_after_is_honoured(database_url: str) -> None:
    script = [Behaviour(429, headers=(("Retry-After", "7200"),))]
    async with Customer(database_url) as customer, WebhookReceiver(script) as receiver:
        await customer.endpoint(receiver.url)
        await customer.event(await customer.delivery())
        async with hooks_service(database_url):
            assert timedelta(minutes=119) < await waiting(customer, 1) <= timedelta(minutes=120)


async def test_while_one_secret_replaces_another_both_sign(database_url: str) -> None:
    async with Customer(database_url) as customer, WebhookReceiver() as receiver:
        endpoint_id, old = await customer.endpoint(receiver.url)
        engine = create_engine(database_url, size=1, service="test")
        async with session_factory(engine)() as session, session.begin():
            _, new = await rotate_secret(session, RING, customer.account_id, endpoint_id)
        await engine.dispose()
        await customer.event(await customer.delivery())
        async with hooks_service(database_url):
            await settled(customer)
        [request] = receiver.requests
        for secret in (old, new):
            Webhook(secret).verify(request.body, request.headers)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://127.0.0.1:1/", "no connection"),
        ("http://nowhere.invalid/", "cannot be resolved"),
    ],
)
async def test_what_cannot_or_may_not_be_reached_is_tried_again_with_its_reason(
    database_url: str, url: str, reason: str
) -> None:
    async with Customer(database_url) as customer:
        await customer.endpoint(url)
        await customer.event(await customer.delivery())
        async with hooks_service(database_url):
            await waiting(customer, 1)
        [text] = await attempt_texts(customer)
        assert reason in text


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(302, headers=(("Location", "http://127.0.0.1:1/"),)), "redirects are not followed"),
        (Behaviour(raw=b"SSH-2.0-OpenSSH_9.6\r\n"), "no valid HTTP"),
        (Behaviour(500, body=b"x" * 100_000), "answered 500"),
        (Behaviour(404, endless=True), "answered 404"),
    ],
)
async def test_a_receiver_that_misbehaves_costs_an_attempt_and_nothing_else(
    database_url: str, behaviour: Behaviour, reason: str
) -> None:
    async with Customer(database_url) as customer, WebhookReceiver([behaviour]) as receiver:
        await customer.endpoint(receiver.url)
        await customer.event(await customer.delivery())
        async with hooks_service(database_url):
            await waiting(customer, 1)
        [text] = await attempt_texts(customer)
        assert reason in text
        assert len(await customer.connection.fetchval("SELECT response FROM call_attempt")) <= 512


async def test_a_secret_that_no_key_opens_is_said_and_tried_again(database_url: str) -> None:
    async with Customer(database_url) as customer, WebhookReceiver() as receiver:
        await customer.endpoint(receiver.url)
        await customer.event(await customer.delivery())
        async with hooks_service(database_url, secret_key=("another secret, with which nothing was sealed",)):
            await waiting(customer, 1)
        [text] = await attempt_texts(customer)
        assert "POSTHOUSE_SECRET_KEY" in text
        assert receiver.requests == []


@pytest.mark.parametrize(
    ("removed", "reason"), [("message", "message was removed"), ("event", "event was removed"), ("call", None)]
)
async def test_what_retention_removed_ends_its_call_without_a_request(
    database_url: str, removed: str, reason: str | None
) -> None:
    async with Customer(database_url) as customer, WebhookReceiver() as receiver:
        await customer.endpoint(receiver.url)
        await customer.event(await customer.delivery())
        # Fanned out by hand, so that the row can go before the service looks.
        from shared.db.fanout import fan_out

        await fan_out(customer.connection)
        await customer.connection.execute(f"DELETE FROM {removed}")
        async with hooks_service(database_url):
            await eventually(lambda: _is_zero(customer, "SELECT count(*) FROM call_queue"))
        assert receiver.requests == []
        if reason is not None:
            [call] = await customer.calls()
            assert call["state"] == "failed"
            assert reason in call["text"]


@pytest.mark.parametrize("in_flight", [4, 64])
async def test_an_endpoint_that_does_not_answer_holds_up_no_other(database_url: str, in_flight: int) -> None:
    async with (
        Customer(database_url) as customer,
        WebhookReceiver([Behaviour(delay=3600)]) as silent,
        WebhookReceiver() as quick,
    ):
        await customer.endpoint(silent.url, events=("failed",))
        await customer.endpoint(quick.url, events=("delivered",))
        deliveries = await customer.mailroom.accept([f"r{n}@theirs.test" for n in range(40)])
        for delivery_id in deliveries:
            await customer.event(delivery_id, "failed")
        async with hooks_service(database_url, hooks_in_flight=in_flight, grace_seconds=0):
            await silent.wait_for(1)
            for delivery_id in deliveries:
                await customer.event(delivery_id, "delivered")
            assert await settled(customer, 40) == [("delivered", 1, 200)] * 40
            assert len(quick.requests) == 40
            assert len(silent.requests) <= 4  # two slots, each with the window that a stranger gets


def _by_type(answers: dict[str, int]) -> Callable[[Received], Behaviour]:
    return lambda request: Behaviour(answers[orjson.loads(request.body)["type"]])


async def test_many_calls_of_many_endpoints_each_arrive_once_from_two_services(database_url: str) -> None:
    answers = _by_type({"delivered": 200, "bounced": 204})
    async with Customer(database_url) as customer, WebhookReceiver(answers) as one, WebhookReceiver(answers) as two:
        for receiver in (one, two):
            await customer.endpoint(receiver.url)
        deliveries = await customer.mailroom.accept([f"r{n}@theirs.test" for n in range(60)])
        for event_type in ("delivered", "bounced"):
            for delivery_id in deliveries:
                await customer.event(delivery_id, event_type)
        async with hooks_service(database_url), hooks_service(database_url):
            assert {state for state, _, _ in await settled(customer, 240)} == {"delivered"}
        for receiver in (one, two):
            arrived = [orjson.loads(request.body) for request in receiver.requests]
            assert len(arrived) == 120
            for delivery_id in deliveries:
                of_it = [p["type"] for p in arrived if p["data"]["delivery"] == str(delivery_id)]
                assert of_it == ["delivered", "bounced"]
        assert await customer.connection.fetchval("SELECT count(*) FROM site_slot") == 0
        assert await customer.connection.fetchval("SELECT sum(in_use) FROM site WHERE queue = 'call'") == 0


async def test_no_transaction_is_open_while_a_receiver_is_waited_for(database_url: str) -> None:
    async with Customer(database_url) as customer, WebhookReceiver([Behaviour(delay=30)]) as receiver:
        await customer.endpoint(receiver.url)
        await customer.event(await customer.delivery("them@theirs.test"), "delivered")
        async with hooks_service(database_url, grace_seconds=0.1):
            await eventually(lambda: receiver.requests, what="a request that is not answered")
            # Heartbeats and claims come and go; a transaction around the network would stay as long as the answer does.
            first = await _open_transactions(customer)
            await eventually(lambda: _ended(customer, first), what="the end of every transaction that was open")


async def _ended(customer: Customer, transactions: set[tuple[int, object]]) -> bool:
    return not transactions & await _open_transactions(customer)


async def _open_transactions(customer: Customer) -> set[tuple[int, object]]:
    rows = await customer.connection.fetch(
        "SELECT pid, xact_start FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
    )
    return {(row["pid"], row["xact_start"]) for row in rows}

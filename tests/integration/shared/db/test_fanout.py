import asyncio
from collections import Counter

import pytest

from integration.hooks.call_data import Customer
from shared.db.fanout import fan_out, oldest_pending_seconds


async def test_an_event_becomes_one_call_for_each_endpoint_that_wants_it(database_url: str) -> None:
    async with Customer(database_url) as customer:
        everything, _ = await customer.endpoint()
        failures, _ = await customer.endpoint(events=("failed", "bounced"))
        delivery_id = await customer.delivery()
        delivered = await customer.event(delivery_id, "delivered")
        bounced = await customer.event(delivery_id, "bounced")

        done = await fan_out(customer.connection)

        assert (done.events, done.calls, done.endpoints) == (2, 3, {everything, failures})
        calls = await customer.calls()
        assert [(c["event_id"], c["endpoint_id"]) for c in calls] == [
            (delivered, everything),
            (bounced, everything),
            (bounced, failures),
        ]
        assert {(c["account_id"], c["delivery_id"], c["state"]) for c in calls} == {
            (customer.account_id, delivery_id, "queued")
        }
        assert [(q["call_id"], q["order_key"]) for q in await customer.queued()] == [
            (c["id"], delivery_id) for c in calls
        ]
        assert await fan_out(customer.connection) == type(done)(0, 0, frozenset())


@pytest.mark.parametrize("change", ["disabled_at = now()", "deleted_at = now()", "kind = 'inbound'"])
async def test_an_endpoint_that_is_off_or_for_other_things_gets_nothing(database_url: str, change: str) -> None:
    async with Customer(database_url) as customer:
        endpoint_id, _ = await customer.endpoint()
        await customer.connection.execute(f"UPDATE endpoint SET {change} WHERE id = $1", endpoint_id)
        await customer.event(await customer.delivery())
        done = await fan_out(customer.connection)
        assert (done.events, done.calls) == (1, 0)
        assert await customer.queued() == []


async def test_an_endpoint_hears_of_the_delays_it_chose(database_url: str) -> None:
    async with Customer(database_url) as customer:
        chosen = {(await customer.endpoint(delayed=which))[0]: which for which in ("every", "first", "last")}
        delivery_id = await customer.delivery()
        reported = await customer.event(delivery_id, "delayed", report_id=7)
        events = [
            await customer.event(delivery_id, kind, attempt=attempt, final_attempt_next=final)
            for kind, attempt, final in (
                ("delayed", 1, False),
                ("delayed", 2, False),
                ("delayed", 3, True),
                ("failed", 4, False),
            )
        ]

        assert (await fan_out(customer.connection)).events == 5

        told: dict[str, list[int]] = {"every": [], "first": [], "last": []}
        for call in await customer.calls():
            told[chosen[call["endpoint_id"]]].append(call["event_id"])
        assert told == {
            "every": [reported, *events],
            "first": [reported, events[0], events[3]],
            "last": [reported, events[2], events[3]],
        }


async def test_received_mail_goes_to_endpoints_for_inbound_only(database_url: str) -> None:
    async with Customer(database_url) as customer:
        await customer.endpoint()
        inbound, _ = await customer.endpoint(kind="inbound")
        await customer.event(None, "received", inbound_message_id=77)
        assert (await fan_out(customer.connection)).endpoints == {inbound}
        assert [q["order_key"] for q in await customer.queued()] == [-77]


async def test_another_account_hears_nothing(database_url: str) -> None:
    async with Customer(database_url) as customer:
        await customer.endpoint()
        other = await customer.connection.fetchval("INSERT INTO account (name) VALUES ('other') RETURNING id")
        delivery_id = await customer.delivery()
        await customer.connection.execute(
            "WITH e AS (INSERT INTO event (id, account_id, delivery_id, type) VALUES (nextval('event_id'), $1, $2, 'failed') RETURNING id) "
            "INSERT INTO event_pending SELECT id FROM e",
            other,
            delivery_id,
        )
        done = await fan_out(customer.connection)
        assert (done.events, done.calls) == (1, 0)


async def test_four_at_once_expand_each_event_exactly_once(database_url: str) -> None:
    async with Customer(database_url) as customer:
        endpoints = [(await customer.endpoint())[0] for _ in range(3)]
        deliveries = await customer.mailroom.accept([f"r{n}@theirs.test" for n in range(40)])
        events = [await customer.event(d, t) for t in ("delayed", "delivered") for d in deliveries]

        async def drain() -> int:
            connection, taken = await customer.connect(), 0
            while await connection.fetchval("SELECT EXISTS (SELECT FROM event_pending)"):
                taken += (await fan_out(connection, limit=7)).events
            return taken

        taken = await asyncio.gather(*(drain() for _ in range(4)))

        assert sum(taken) == len(events)
        pairs = Counter((c["event_id"], c["endpoint_id"]) for c in await customer.calls())
        assert pairs == {(event, endpoint): 1 for event in events for endpoint in endpoints}
        assert len(await customer.queued()) == len(pairs)


async def test_an_event_whose_call_is_live_is_not_called_again(database_url: str) -> None:
    async with Customer(database_url) as customer:
        await customer.endpoint()
        event_id = await customer.event(await customer.delivery())
        await fan_out(customer.connection)
        await customer.connection.execute("INSERT INTO event_pending VALUES ($1)", event_id)
        assert (await fan_out(customer.connection)).calls == 0
        assert len(await customer.calls()) == 1


async def test_a_fan_out_that_is_rolled_back_leaves_the_event_for_others(database_url: str) -> None:
    async with Customer(database_url) as customer:
        await customer.endpoint()
        await customer.event(await customer.delivery())
        transaction = customer.connection.transaction()
        await transaction.start()
        assert (await fan_out(customer.connection)).calls == 1
        assert (await fan_out(await customer.connect())).events == 0  # taken, not committed
        await transaction.rollback()
        assert (await fan_out(customer.connection)).calls == 1


async def test_the_age_of_the_oldest_waiting_event_is_known(database_url: str) -> None:
    async with Customer(database_url) as customer:
        assert await oldest_pending_seconds(customer.connection) == 0
        event_id = await customer.event(await customer.delivery())
        await customer.connection.execute(
            "UPDATE event SET created_at = now() - interval '90 seconds' WHERE id = $1", event_id
        )
        assert 90 <= await oldest_pending_seconds(customer.connection) < 150

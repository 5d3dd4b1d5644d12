import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from integration.hooks.call_data import Customer
from shared.db.calls import CallGate, CallResult, CallVerdict, load_calls, oldest_due_seconds, settle_calls, start_calls
from shared.db.fanout import fan_out
from shared.lifecycle import CallState


async def claimed(customer: Customer, *types: str) -> tuple[int, list[int]]:
    """One delivery with these events, fanned out and claimed by a new worker; returns the worker and the calls in order."""
    await customer.endpoint()
    delivery_id = await customer.delivery()
    for event_type in types:
        await customer.event(delivery_id, event_type)
    await fan_out(customer.connection)
    worker_id = await customer.worker()
    calls = [row.id for row in await customer.claim(worker_id)]
    await customer.return_slots(worker_id)
    return worker_id, calls


async def start(customer: Customer, worker_id: int, *call_ids: int) -> list[tuple[str, int]]:
    gates = await start_calls(customer.connection, worker_id, call_ids)
    return [(gates[call_id].verdict.value, gates[call_id].attempt) for call_id in call_ids]


async def attempts(customer: Customer) -> list[tuple[Any, ...]]:
    rows = await customer.connection.fetch("SELECT * FROM call_attempt ORDER BY call_id, n")
    return [(r["call_id"], r["n"], r["outcome"], r["code"], r["finished_at"] is not None) for r in rows]


async def test_a_call_is_started_once_and_its_attempt_is_on_record(database_url: str) -> None:
    async with Customer(database_url) as customer:
        worker_id, [call_id] = await claimed(customer, "delivered")
        assert await start(customer, worker_id, call_id) == [("start", 1)]
        assert await attempts(customer) == [(call_id, 1, None, None, False)]
        assert (await start(customer, worker_id, call_id))[0][0] == "not_ours"  # somebody else has it
        gates = await start_calls(customer.connection, worker_id, [call_id], repeated=[call_id])
        assert gates[call_id].attempt == 1  # the first answer was lost
        assert len(await attempts(customer)) == 1


async def test_only_the_first_event_of_a_delivery_starts(database_url: str) -> None:
    async with Customer(database_url) as customer:
        worker_id, [first, second, third] = await claimed(customer, "delayed", "delivered", "bounced")
        assert await start(customer, worker_id, first, second, third) == [("start", 1), ("blocked", 0), ("blocked", 0)]
        rows = await customer.queued()
        assert [r["worker_id"] for r in rows] == [worker_id, None, None]
        assert all(timedelta(0) < r["due_in"] <= timedelta(seconds=1) for r in rows[1:])


async def test_the_next_waits_as_long_as_the_one_ahead_and_comes_when_it_is_settled(database_url: str) -> None:
    async with Customer(database_url) as customer:
        worker_id, [first, second] = await claimed(customer, "delayed", "delivered")
        await start(customer, worker_id, first)
        retry = CallResult(first, None, worker_id, 1, timedelta(hours=4), 500)
        assert (await settle_calls(customer.connection, [retry])).endpoints == frozenset()
        assert await start(customer, worker_id, second) == [("blocked", 0)]
        ahead, behind = await customer.queued()
        assert behind["due_at"] == ahead["due_at"]

        await customer.connection.execute("UPDATE call_queue SET due_at = now() WHERE call_id = $1", first)
        await customer.connection.execute("INSERT INTO call_wake SELECT lane_id FROM call_queue LIMIT 1")
        assert [row.id for row in await customer.claim(worker_id)] == [first]
        await customer.return_slots(worker_id)
        assert await start(customer, worker_id, first) == [("start", 2)]
        assert await customer.claim(worker_id) == []  # now the lane sleeps until something wakes it
        settled = await settle_calls(
            customer.connection, [CallResult(first, CallState.DELIVERED, worker_id, 2, code=200)]
        )
        assert settled.endpoints == {ahead["endpoint_id"]}
        assert [row.id for row in await customer.claim(worker_id)] == [second]
        assert await start(customer, worker_id, second) == [("start", 1)]


async def test_other_deliveries_and_other_endpoints_do_not_wait(database_url: str) -> None:
    async with Customer(database_url) as customer:
        await customer.endpoint()
        await customer.endpoint()
        for delivery_id in (await customer.delivery(), await customer.delivery("other@theirs.test")):
            await customer.event(delivery_id)
        await fan_out(customer.connection)
        worker_id = await customer.worker()
        calls = [row.id for row in await customer.claim(worker_id)]
        assert await start(customer, worker_id, *calls) == [("start", 1)] * 4


async def test_an_earlier_event_that_another_fan_out_still_holds_blocks(database_url: str) -> None:
    async with Customer(database_url) as customer:
        await customer.endpoint()
        delivery_id = await customer.delivery()
        await customer.event(delivery_id, "delayed")
        other = await customer.connect()
        uncommitted = other.transaction()
        await uncommitted.start()
        await fan_out(other)
        later = await customer.event(delivery_id, "delivered")
        await fan_out(customer.connection)
        worker_id = await customer.worker()
        [call] = await customer.claim(worker_id)
        assert await start(customer, worker_id, call.id) == [("blocked", 0)]
        await uncommitted.commit()
        await customer.due_now()
        calls = [row.id for row in await customer.claim(worker_id)]
        gates = await start_calls(customer.connection, worker_id, calls)
        assert gates[call.id].verdict is CallVerdict.BLOCKED
        assert [g.verdict for c, g in gates.items() if c != call.id] == [CallVerdict.START]
        assert (await customer.queued())[1]["event_id"] == later


async def test_a_call_of_another_worker_is_not_ours(database_url: str) -> None:
    async with Customer(database_url) as customer:
        _, [call_id] = await claimed(customer, "delivered")
        assert await start(customer, await customer.worker(), call_id, 404) == [("not_ours", 0), ("not_ours", 0)]
        assert await attempts(customer) == []


async def test_a_disabled_endpoint_keeps_its_calls_waiting_without_attempts(database_url: str) -> None:
    async with Customer(database_url) as customer:
        worker_id, [call_id] = await claimed(customer, "delivered")
        await customer.connection.execute("UPDATE endpoint SET disabled_at = now()")
        assert await start(customer, worker_id, call_id) == [("disabled", 0)]
        [row] = await customer.queued()
        assert (row["worker_id"], row["attempt"]) == (None, 0)
        assert timedelta(minutes=9) < row["due_in"] <= timedelta(minutes=10)
        await customer.connection.execute("UPDATE endpoint SET disabled_at = NULL")
        await customer.due_now()
        assert [c.id for c in await customer.claim(worker_id)] == [call_id]
        assert await start(customer, worker_id, call_id) == [("start", 1)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("UPDATE endpoint SET deleted_at = now()", "the endpoint was deleted"),
        ("DELETE FROM endpoint", "the endpoint was deleted"),
        (
            "WITH old AS (UPDATE call SET created_at = now() - interval '73 hours') UPDATE endpoint SET disabled_at = now()",
            "the endpoint was disabled for more than 72 hours",
        ),
    ],
)
async def test_calls_of_an_endpoint_that_will_not_come_back_are_canceled(
    database_url: str, change: str, text: str
) -> None:
    async with Customer(database_url) as customer:
        worker_id, [call_id] = await claimed(customer, "delivered")
        await customer.connection.execute(change)
        gates = await start_calls(customer.connection, worker_id, [call_id])
        assert gates[call_id] in (CallGate(CallVerdict.DELETED, 0), CallGate(CallVerdict.EXPIRED, 0))
        [call] = await customer.calls()
        assert (call["state"], call["text"], call["attempts"]) == ("canceled", text, 0)
        assert call["settled_at"] is not None
        assert await customer.queued() == []
        assert await attempts(customer) == []


async def test_a_success_settles_the_call_and_says_how_long_it_is_kept(database_url: str) -> None:
    async with Customer(database_url) as customer:
        await customer.connection.execute("UPDATE account SET keep_calls_seconds = 3600")
        worker_id, [call_id] = await claimed(customer, "delivered")
        await start(customer, worker_id, call_id)
        result = CallResult(call_id, CallState.DELIVERED, worker_id, 1, code=204, response="thanks\0\ud800")
        await settle_calls(customer.connection, [result])
        await settle_calls(
            customer.connection, [replace(result, code=500, state=CallState.FAILED)]
        )  # repeated: settled stays settled
        [call] = await customer.calls()
        assert (call["state"], call["attempts"], call["code"]) == ("delivered", 1, 204)
        assert call["keep_until"] - call["settled_at"] == timedelta(hours=1)
        assert await customer.queued() == []
        assert await attempts(customer) == [(call_id, 1, "delivered", 204, True)]
        assert await customer.connection.fetchval("SELECT response FROM call_attempt") == "thanks\ufffd"


async def test_a_retry_comes_due_later_and_repeating_it_changes_nothing(database_url: str) -> None:
    async with Customer(database_url) as customer:
        worker_id, [call_id] = await claimed(customer, "delivered")
        await start(customer, worker_id, call_id)
        result = CallResult(call_id, None, worker_id, 1, timedelta(minutes=2), 503, "busy")
        await settle_calls(customer.connection, [result])
        [row] = await customer.queued()
        assert (row["worker_id"], row["started_at"], row["attempt"]) == (None, None, 1)
        await customer.due_now()
        assert [c.id for c in await customer.claim(worker_id)] == [call_id]
        await settle_calls(customer.connection, [result])  # its first answer was lost; the row is ours again, unstarted
        assert (await customer.queued())[0]["worker_id"] == worker_id
        assert await attempts(customer) == [(call_id, 1, "retry", 503, True)]
        assert (await customer.calls())[0]["state"] == "queued"


async def test_after_a_lost_lease_only_a_success_counts(database_url: str) -> None:
    async with Customer(database_url) as customer:
        dead, [call_id] = await claimed(customer, "delivered")
        await start(customer, dead, call_id)
        heir = await customer.worker()
        await customer.connection.execute("UPDATE call_queue SET worker_id = $1", heir)
        await settle_calls(customer.connection, [CallResult(call_id, CallState.FAILED, dead, 1, code=500)])
        assert (await customer.calls())[0]["state"] == "queued"
        assert (await customer.queued())[0]["worker_id"] == heir
        await customer.connection.execute("UPDATE call_attempt SET outcome = 'lost'")
        await settle_calls(customer.connection, [CallResult(call_id, CallState.DELIVERED, dead, 1, code=200)])
        assert (await customer.calls())[0]["state"] == "delivered"
        assert await customer.queued() == []
        assert await attempts(customer) == [(call_id, 1, "delivered", 200, True)]


async def test_two_results_of_one_call_in_a_batch_are_written_in_turn(database_url: str) -> None:
    async with Customer(database_url) as customer:
        worker_id, [call_id] = await claimed(customer, "delivered")
        await start(customer, worker_id, call_id)
        retry = CallResult(call_id, None, worker_id, 1, timedelta(minutes=1), 500)
        await settle_calls(customer.connection, [retry, replace(retry, state=CallState.DELIVERED, code=200)])
        assert (await customer.calls())[0]["state"] == "delivered"
        assert await customer.queued() == []


async def test_gone_disables_the_endpoint(database_url: str) -> None:
    async with Customer(database_url) as customer:
        worker_id, [call_id] = await claimed(customer, "delivered")
        await start(customer, worker_id, call_id)
        gone = CallResult(call_id, CallState.FAILED, worker_id, 1, code=410, disable_endpoint=True)
        await settle_calls(customer.connection, [gone])
        first = await customer.connection.fetchval("SELECT disabled_at FROM endpoint")
        assert first is not None
        await settle_calls(customer.connection, [gone])
        assert await customer.connection.fetchval("SELECT disabled_at FROM endpoint") == first


async def test_what_a_payload_needs_is_read_in_one_go(database_url: str) -> None:
    async with Customer(database_url) as customer:
        endpoint_id, _ = await customer.endpoint()
        delivery_id = await customer.delivery("them@theirs.test")
        facts = {
            "attempt": 2,
            "code": 550,
            "enhanced": "5.1.1",
            "text": "no",
            "category": "recipient",
            "suppressing": True,
            "final_attempt_next": True,
        }
        event_id = await customer.event(delivery_id, "failed", **facts)
        await customer.connection.execute("UPDATE message SET extra = '{\"a\": \"b\"}', tags = '{x,y}'")
        await fan_out(customer.connection)
        [record] = await customer.calls()
        call = (await load_calls(customer.connection, [record["id"], 404]))[record["id"]]
        assert (call.id, call.endpoint_id, call.account_id) == (record["id"], endpoint_id, customer.account_id)
        assert call.event is not None
        assert call.mail is not None
        assert (call.event.id, call.event.type, call.event.delivery_id) == (event_id, "failed", delivery_id)
        assert {name: getattr(call.event, name) for name in facts} == facts
        assert (call.mail.recipient, call.mail.subject, call.mail.tags) == ("them@theirs.test", "hi", ("x", "y"))
        assert call.mail.extra == '{"a": "b"}'

        await customer.connection.execute("DELETE FROM message")
        gone = (await load_calls(customer.connection, [record["id"]]))[record["id"]]
        assert gone.mail is None
        await customer.connection.execute("DELETE FROM event")
        assert (await load_calls(customer.connection, [record["id"]]))[record["id"]].event is None
        await customer.connection.execute("DELETE FROM call")
        assert await load_calls(customer.connection, [record["id"]]) == {}


async def test_how_overdue_the_oldest_call_is(database_url: str) -> None:
    async with Customer(database_url) as customer:
        assert await oldest_due_seconds(customer.connection) == 0
        worker_id, calls = await claimed(customer, "delivered")
        assert await oldest_due_seconds(customer.connection) == 0  # claimed is not waiting
        await customer.connection.execute(
            "WITH r AS (UPDATE call_queue SET worker_id = NULL, due_at = now() - interval '5 minutes') UPDATE lane SET next_at = now() - interval '5 minutes'"
        )
        assert 300 <= await oldest_due_seconds(customer.connection) < 360
        assert calls
        assert worker_id


async def test_settlement_and_gate_at_once_never_leave_the_next_call_waiting(database_url: str) -> None:
    async with Customer(database_url) as customer:
        worker_id, calls = await claimed(customer, *["delayed"] * 2)
        first, second = calls
        await start(customer, worker_id, first)
        other = await customer.connect()
        settlement, gate = await asyncio.gather(
            settle_calls(other, [CallResult(first, CallState.DELIVERED, worker_id, 1, code=200)]),
            start_calls(customer.connection, worker_id, [second]),
        )
        [row] = await customer.queued()
        if gate[second].verdict is CallVerdict.START:
            assert row["started_at"] is not None
        else:
            assert row["worker_id"] is None
            assert row["due_in"] <= timedelta(seconds=1)
        assert settlement.endpoints <= {row["endpoint_id"]}


async def test_a_result_for_nothing_is_no_error(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert (await settle_calls(connection, [CallResult(404, CallState.FAILED, 1, 1)])).endpoints == frozenset()
    finally:
        await connection.close()

"""Cases 84 to 91 of mox's behaviour: the suppression list, and what it does to Send. The numbers are theirs.

What a refusal adds to the list (92 to 98) is tested where it is decided: ``test_immediate_block.py`` and ``test_outcomes.py``.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from integration.api.mox import HELLO, World, world
from integration.shared.db.queue_data import new_worker
from posthouse.embedded.postgres import EmbeddedPostgres
from shared.db import starts
from shared.db.queue import DELIVERIES

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(
    postgres_server: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("webapi")
    async with world(postgres_server, template_database, "webapi_suppressions", folder) as made:
        yield made


def of(address: str, **fields: Any) -> dict[str, Any]:
    return {"EmailAddress": address, **fields}


async def states(there: World, sent: Any) -> list[str]:
    return [
        await there.pool.fetchval("SELECT state FROM delivery WHERE id = $1", one["QueueMsgID"])
        for one in sent["Submissions"]
    ]


async def test_cases_84_to_87_an_address_is_one_in_all_its_spellings(there: World) -> None:
    mox = there.mox
    await mox.call("SuppressionAdd", of("Remote.Last-catchall@xn--74h.localhost", Manual=True, Reason="asked"))
    (entry,) = (await mox.call("SuppressionList", {}))["Suppressions"]
    assert entry["BaseAddress"] == "remotelast@☺.localhost"
    assert entry["OriginalAddress"] == "Remote.Last-catchall@☺.localhost"
    assert (entry["Manual"], entry["Reason"], entry["Account"]) == (True, "asked", "demo")
    assert isinstance(entry["ID"], int)
    assert datetime.fromisoformat(entry["Created"]).utcoffset() == timedelta()

    for again in ("Remote.Last-catchall@xn--74h.localhost", "remotelast@☺.localhost"):
        assert await mox.fault("SuppressionAdd", of(again)) == "error"
    for variant in ("remotelast@☺.localhost", "r.e.m.o.t.e.last+x@☺.LOCALHOST", "REMOTELAST-y@xn--74h.localhost"):
        assert await mox.call("SuppressionPresent", of(variant)) == {"Present": True}
        assert await there.other.call("SuppressionPresent", of(variant)) == {"Present": False}

    gone = of("remote.LAST+more@☺.LocalHost")
    assert await there.other.fault("SuppressionRemove", gone) == "error"
    assert await mox.call("SuppressionRemove", gone) == {}
    assert await mox.fault("SuppressionRemove", gone) == "error"
    assert await mox.call("SuppressionPresent", gone) == {"Present": False}
    assert await mox.call("SuppressionList", {}) == {"Suppressions": []}


async def test_the_list_is_in_the_order_of_base_addresses_and_not_of_this_door_alone(there: World) -> None:
    for address in ("c@list.example", "a.b@list.example"):
        await there.other.call("SuppressionAdd", of(address))
    await there.pool.execute(
        "INSERT INTO suppression (account_id, key, mox_key, address, manual, reason)"
        " SELECT id, 'b@list.example', 'b@list.example', 'b@list.example', false, 'bounced' FROM account WHERE name = 'other'"
    )
    found = (await there.other.call("SuppressionList", {}))["Suppressions"]
    assert [one["BaseAddress"] for one in found] == ["ab@list.example", "b@list.example", "c@list.example"]
    assert [one["Manual"] for one in found] == [False, False, False]


@pytest.mark.parametrize("method", ["SuppressionAdd", "SuppressionRemove", "SuppressionPresent"])
@pytest.mark.parametrize("address", ["bad", "", "x@", "<a@b.example>"])
async def test_case_88_what_is_no_address(there: World, method: str, address: str) -> None:
    assert await there.mox.fault(method, of(address)) == "badAddress"


async def test_case_89_a_suppressed_recipient_is_settled_at_once(there: World) -> None:
    await there.mox.call("SuppressionAdd", of("gone@example.com"))
    sent = await there.mox.call("Send", {**HELLO, "To": [{"Address": "g.one+x@example.com"}]})

    assert await states(there, sent) == ["suppressed"]
    delivery = sent["Submissions"][0]["QueueMsgID"]
    event = await there.pool.fetchrow("SELECT type, code, suppressing FROM event WHERE delivery_id = $1", delivery)
    assert event is not None
    assert (event["type"], event["code"], event["suppressing"]) == ("suppressed", 0, False)
    assert await there.pool.fetchval("SELECT count(*) FROM delivery_queue WHERE delivery_id = $1", delivery) == 0


async def test_case_90_what_is_not_due_yet_is_settled_at_its_start(there: World) -> None:
    await there.mox.call("SuppressionAdd", of("later@example.com"))
    release = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    sent = await there.mox.call("Send", {**HELLO, "To": [{"Address": "later@example.com"}], "FutureRelease": release})
    assert await states(there, sent) == ["queued"]

    delivery = sent["Submissions"][0]["QueueMsgID"]
    async with there.pool.acquire() as connection:
        await connection.execute("UPDATE delivery_queue SET due_at = now() WHERE delivery_id = $1", delivery)
        await connection.execute(
            "INSERT INTO delivery_wake (lane_id) SELECT lane_id FROM delivery_queue WHERE delivery_id = $1", delivery
        )
        worker = await new_worker(connection)
        await DELIVERIES.drain(connection)
        await DELIVERIES.claim(connection, worker, sites=20, lanes=5, rows=100)
        row = await connection.fetchrow("SELECT * FROM delivery WHERE id = $1", delivery)
        assert row is not None
        gates = await starts.start(connection, worker, [candidate(row)])
    assert gates[delivery].verdict is starts.Verdict.SUPPRESSED


def candidate(row: Any) -> starts.Candidate:
    return starts.Candidate(
        row["id"],
        row["account_id"],
        row["recipient"],
        row["recipient_domain"],
        row["recipient_key"],
        row["recipient"],
        "demo@posthouse.test",
        "posthouse.test",
    )


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
async def test_case_91_one_suppressed_recipient_of_two(there: World, order: tuple[str, str]) -> None:
    if not (await there.mox.call("SuppressionPresent", of("b@two.example")))["Present"]:
        await there.mox.call("SuppressionAdd", of("b@two.example"))
    sent = await there.mox.as_("plain@posthouse.test").call(
        "Send",
        {
            **HELLO,
            "From": [{"Address": "demo@posthouse.test"}],
            "To": [{"Address": f"{name}@two.example"} for name in order],
        },
    )
    assert await states(there, sent) == ["suppressed" if name == "b" else "queued" for name in order]

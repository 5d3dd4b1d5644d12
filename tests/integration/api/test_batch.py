"""Many messages in one call: each is accepted or refused for itself, and the whole may be sent again."""

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest

from api.routes.batch import AT_ONCE
from api.schemas.batch import MOST, BatchResult
from fakes.waiting import eventually
from integration.api.conftest import HELLO, StartApi, problem
from integration.api.test_bad_input import WRONG
from shared.db.demo import Demo
from shared.db.engine import Pool

RAW = base64.b64encode(b"From: demo@posthouse.test\r\nTo: grace@example.org\r\n\r\nHello.\r\n").decode()
KEY = {"Idempotency-Key": "batch-1"}


def hello(number: int, **change: object) -> dict[str, Any]:
    return {**HELLO, "to": [f"r{number}@example.org"], **change}


async def send(client: httpx.AsyncClient, *messages: object, headers: dict[str, str] | None = None) -> list[Any]:
    """Return the results of a batch, which must be one for each message, and as they are documented."""
    # As ASCII: half of a surrogate pair has no UTF-8.
    content = json.dumps({"messages": messages}).encode("ascii")
    answer = await client.post(
        "/v1/messages/batch", content=content, headers={"Content-Type": "application/json", **(headers or {})}
    )
    assert answer.status_code == 200, answer.text
    BatchResult.model_validate_json(answer.content)
    results: list[Any] = answer.json()["results"]
    assert len(results) == len(messages)
    return results


async def count(pool: Pool) -> int:
    found: int = await pool.fetchval("SELECT count(*) FROM message")
    return found


async def test_every_message_is_answered_in_its_place(client: httpx.AsyncClient, pool: Pool) -> None:
    results = await send(client, *(hello(number) for number in range(MOST)))

    assert {result["status"] for result in results} == {"accepted"}
    recipients = [result["message"]["deliveries"][0]["recipient"] for result in results]
    assert recipients == [f"r{number}@example.org" for number in range(MOST)]
    stored = {str(row["message_id"]): row["recipient"] for row in await pool.fetch("SELECT * FROM delivery")}
    assert stored == {result["message"]["id"]: result["message"]["deliveries"][0]["recipient"] for result in results}
    lines = (await client.get("/metrics")).text.splitlines()
    [commits] = [float(line.split()[1]) for line in lines if line.startswith("posthouse_api_accept_seconds_count")]
    assert commits < MOST / 2


async def test_parts_and_whole_messages_go_together(client: httpx.AsyncClient, pool: Pool) -> None:
    results = await send(client, HELLO, {"raw": RAW}, {"raw": RAW, "recipients": ["ada@example.org"]})

    assert [result["message"]["deliveries"][0]["recipient"] for result in results] == [
        "grace@example.org",
        "grace@example.org",
        "ada@example.org",
    ]
    alone = await client.get(f"/v1/messages/{results[1]['message']['id']}")
    assert alone.json()["message_id"] == results[1]["message"]["message_id"]
    assert await count(pool) == 3


async def test_each_bad_message_fails_alone_and_as_if_it_had_come_alone(client: httpx.AsyncClient, pool: Pool) -> None:
    wrong: list[Any] = [
        {name: value for name, value in {**HELLO, **change}.items() if value is not None} for _, change, *_ in WRONG
    ]
    wrong += [7, None, "text", [], ["a"], {}, {"raw": 7}, {"raw": "###"}, {"messages": [HELLO]}]
    wrong += [{**HELLO, "from": "a@elsewhere.example"}, {"raw": base64.b64encode(b"no message").decode()}]
    mixed = [one for number, bad in enumerate(wrong) for one in (hello(number), bad)]

    results = await send(client, *mixed)

    assert [result["status"] for result in results] == ["accepted", "refused"] * len(wrong)
    assert await count(pool) == len(wrong)
    for bad, result in zip(wrong, results[1::2], strict=True):
        content = json.dumps(bad).encode("ascii")
        alone = await client.post("/v1/messages", content=content, headers={"Content-Type": "application/json"})
        document = alone.json()
        del document["request_id"]
        assert result == {"status": "refused", "problem": document}, bad
        assert result["problem"]["status"] == alone.status_code


async def test_the_list_as_such_may_be_wrong(client: httpx.AsyncClient, pool: Pool) -> None:
    for body, field in (
        ({"messages": []}, "messages"),
        ({"messages": [HELLO] * (MOST + 1)}, "messages"),
        ({"messages": HELLO}, "messages"),
        ({}, "messages"),
        ([HELLO], ""),
        ({"messages": [HELLO], "more": 1}, "more"),
    ):
        document = problem(await client.post("/v1/messages/batch", json=body), 422, "validation_failed")
        assert [error["field"] for error in document["errors"]] == [field], body
    as_json = {"Content-Type": "application/json"}
    problem(await client.post("/v1/messages/batch", content=b'{"messages":[', headers=as_json), 400, "malformed_json")
    as_mail = {"Content-Type": "message/rfc822"}
    problem(await client.post("/v1/messages/batch", content=b"x", headers=as_mail), 415, "unsupported_media_type")
    bad_key = {"Idempotency-Key": "a b"}
    answer = await client.post("/v1/messages/batch", json={"messages": [HELLO]}, headers=bad_key)
    assert problem(answer, 422, "validation_failed")["errors"][0]["location"] == "header"
    problem(
        await client.post("/v1/messages/batch", json={"messages": [HELLO]}, headers={"Authorization": ""}),
        401,
        "unauthenticated",
    )
    assert await count(pool) == 0


async def test_a_batch_is_no_way_around_the_limit_of_a_request(start_api: StartApi, demo: Demo, pool: Pool) -> None:
    small = await start_api(max_request_bytes=20_000)
    async with small.client(demo.account_key) as client:
        batch = {"messages": [hello(number, text="x" * 1_000) for number in range(30)]}
        problem(await client.post("/v1/messages/batch", json=batch), 413, "too_large")
        assert {r["status"] for r in await send(client, *batch["messages"][:10])} == {"accepted"}
    assert await count(pool) == 10


async def test_a_batch_sent_again_with_its_key_changes_nothing(client: httpx.AsyncClient, pool: Pool) -> None:
    batch = [hello(0), {**HELLO, "to": []}, hello(0), {"raw": RAW}]
    first = await client.post("/v1/messages/batch", json={"messages": batch}, headers=KEY)
    again = await client.post("/v1/messages/batch", json={"messages": batch}, headers=KEY)

    assert again.content == first.content
    assert (first.headers.get("idempotency-replayed"), again.headers.get("idempotency-replayed")) == (None, "true")
    assert [result["status"] for result in first.json()["results"]] == ["accepted", "refused", "accepted", "accepted"]
    assert await count(pool) == 3  # of two equal messages in two places, both are meant

    # What was refused may be mended; what was accepted may not be exchanged.
    results = await send(client, hello(0), hello(1), hello(9), {"raw": RAW}, headers=KEY)
    assert [result["status"] for result in results] == ["accepted", "accepted", "refused", "accepted"]
    assert results[2]["problem"]["code"] == "idempotency_conflict"
    assert await count(pool) == 4


async def test_a_batch_that_is_partly_new_is_no_repeat(client: httpx.AsyncClient) -> None:
    await send(client, hello(0), headers=KEY)
    longer = {"messages": [hello(0), hello(1)]}
    assert "idempotency-replayed" not in (await client.post("/v1/messages/batch", json=longer, headers=KEY)).headers
    none_accepted = {"messages": [{**HELLO, "to": []}]}
    answer = await client.post("/v1/messages/batch", json=none_accepted, headers={"Idempotency-Key": "other"})
    assert "idempotency-replayed" not in answer.headers


async def test_the_key_of_a_message_is_the_same_in_a_batch_and_alone(client: httpx.AsyncClient, pool: Pool) -> None:
    own = hello(0, idempotency_key="order-1")
    [first, repeated, unkeyed] = await send(client, own, own, hello(0), headers=KEY)
    alone = await client.post("/v1/messages", json=hello(0), headers={"Idempotency-Key": "order-1"})

    assert first == repeated == {"status": "accepted", "message": alone.json()}
    assert alone.headers["idempotency-replayed"] == "true"
    assert unkeyed["message"]["id"] != first["message"]["id"]
    [elsewhere] = await send(client, own, headers={"Idempotency-Key": "another"})
    assert elsewhere == first
    assert await count(pool) == 2


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "\u00fc", 7, ["a"]])
async def test_a_bad_key_of_a_message_is_its_own_matter(client: httpx.AsyncClient, pool: Pool, key: object) -> None:
    results = await send(client, hello(0, idempotency_key=key), hello(1))
    assert [result["status"] for result in results] == ["refused", "accepted"]
    assert results[0]["problem"]["errors"][0]["field"] == "idempotency_key"
    assert await count(pool) == 1
    problem(await client.post("/v1/messages", json=hello(0, idempotency_key="a")), 422, "validation_failed")


async def test_a_limit_is_reached_within_a_batch(client: httpx.AsyncClient, pool: Pool) -> None:
    await pool.execute("UPDATE account SET messages_per_day = 30 WHERE name <> 'posthouse'")
    results = await send(client, *(hello(number) for number in range(100)))
    refused = [result["problem"] for result in results if result["status"] == "refused"]
    assert len(refused) == 70
    assert {(one["code"], one["status"]) for one in refused} == {("message_limit_reached", 429)}
    assert all(one["retry_after"] > 0 for one in refused)
    assert await count(pool) == 30


async def test_each_message_is_counted_once(client: httpx.AsyncClient) -> None:
    batch = [hello(0), 7, {**HELLO, "to": []}, hello(1, idempotency_key="a b"), hello(2)]
    await send(client, *batch, headers=KEY)
    await send(client, *batch, headers=KEY)
    problem(await client.post("/v1/messages/batch", json={"messages": []}), 422, "validation_failed")

    lines = (await client.get("/metrics")).text.splitlines()
    counted = [line.removeprefix("posthouse_api_submissions_total") for line in lines if "submissions_total{" in line]
    assert sorted(counted) == [
        '{door="rest",result="accepted"} 2.0',
        '{door="rest",result="no_recipients"} 2.0',
        '{door="rest",result="repeated"} 2.0',
        '{door="rest",result="validation_failed"} 4.0',
    ]


async def test_others_get_their_turn_while_a_batch_runs(client: httpx.AsyncClient, pool: Pool) -> None:
    batch = {"messages": [hello(number) for number in range(MOST)]}

    async def waiting() -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        [value] = [float(line.split()[1]) for line in lines if line.startswith("posthouse_api_writer_waiting ")]
        return value

    async def waits(wanted: int) -> bool:
        return await waiting() == wanted

    locked = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'posthouse-api' AND wait_event_type = 'Lock'"
    )
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE message IN SHARE MODE")
        first = asyncio.create_task(client.post("/v1/messages", json=HELLO))
        await eventually(lambda: pool.fetchval(locked), 20, what="the first message at the lock")
        many = asyncio.create_task(client.post("/v1/messages/batch", json=batch))
        await eventually(lambda: waits(AT_ONCE), 20, what="as many of the batch as may be under way")
        other = asyncio.create_task(client.post("/v1/messages", json=HELLO))
        await eventually(lambda: waits(AT_ONCE + 1), 20, what="a message of somebody else")

    answers = await asyncio.gather(first, many, other)
    assert [answer.status_code for answer in answers] == [202, 200, 202]
    # Those of one commit share its moment.
    before = await pool.fetchval(
        "SELECT count(*) FROM message WHERE created_at <= (SELECT created_at FROM message WHERE id = $1)",
        int(answers[2].json()["id"]),
    )
    assert before == 1 + AT_ONCE + 1
    assert await count(pool) == MOST + 2

"""A submission that comes again with its idempotency key, by every door: it is there once, and answered as the first time."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.caller import AccountCaller
from api.metrics import ApiMetrics
from api.submission import Limits, Party, Submission
from api.submit import Rules, Submitter
from api.writer import Writer
from fakes.waiting import eventually
from integration.api.conftest import HELLO, RunningApi, StartApi, problem
from integration.api.cut import CuttablePostgres
from integration.api.mox import HELLO as MOX_HELLO
from integration.api.mox import Mox, code_of
from integration.api.submission_client import FROM, MAIL, Lines
from integration.api.submission_door import door, lines, sender, tls_files
from integration.api.test_submission_outage import Silent
from shared.db.demo import Demo
from shared.db.engine import Pool, create_pool
from shared.db.routing import Routing
from shared.errors import DatabaseUnavailable, IdempotencyConflict
from shared.mail.from_id import FromIds
from shared.metrics import Metrics

__all__ = ["door", "lines", "sender", "tls_files"]

KEY = {"Idempotency-Key": "order-4711"}


async def messages(pool: Pool) -> int:
    found: int = await pool.fetchval("SELECT count(*) FROM message")
    return found


async def keys(pool: Pool) -> int:
    found: int = await pool.fetchval("SELECT count(*) FROM idempotency")
    return found


async def test_a_hundred_at_once_to_two_processes_are_one_message_and_a_hundred_equal_answers(
    start_api: StartApi, demo: Demo, pool: Pool
) -> None:
    apis = [await start_api(), await start_api()]
    clients = [api.client(demo.account_key) for api in apis]

    answers = await asyncio.gather(
        *(clients[number % 2].post("/v1/messages", json=HELLO, headers=KEY) for number in range(100))
    )

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    replayed = [answer.headers.get("idempotency-replayed") for answer in answers]
    assert (replayed.count(None), replayed.count("true")) == (1, 99)
    assert await messages(pool) == 1
    assert await pool.fetchval("SELECT count(*) FROM delivery_queue") == 1
    for client in clients:
        await client.aclose()


async def test_another_message_with_the_key_is_a_conflict(client: httpx.AsyncClient, pool: Pool) -> None:
    first = await client.post("/v1/messages", json=HELLO, headers=KEY)

    for change in ({"text": "Another.\n"}, {"to": ["ada@example.org"]}, {"cc": ["ada@example.org"]}, {"tags": ["a"]}):
        problem(await client.post("/v1/messages", json={**HELLO, **change}, headers=KEY), 409, "idempotency_conflict")
    # A conflict takes nothing from the first.
    assert (await client.post("/v1/messages", json=HELLO, headers=KEY)).content == first.content
    assert (await client.post("/v1/messages", json=HELLO, headers={"Idempotency-Key": "4712"})).json() != first.json()
    assert (await client.post("/v1/messages", json=HELLO)).status_code == 202
    assert await messages(pool) == 3


async def test_it_is_the_same_message_however_it_is_written(client: httpx.AsyncClient, pool: Pool) -> None:
    first = await client.post("/v1/messages", json={**HELLO, "extra": {"a": "1", "b": "2"}}, headers=KEY)
    backwards = {**HELLO, "to": [{"address": "grace@example.org"}], "extra": {"b": "2", "a": "1"}}
    document = json.dumps(dict(reversed(backwards.items())), indent=4)
    forms = [
        await client.post(
            "/v1/messages", files={"message": (None, document, "application/json")}, headers={"Idempotency-Key": key}
        )
        for key in ("order-4711", '"order-4711"')
    ]

    # httpx makes a new boundary for each form.
    assert len({form.request.headers["content-type"] for form in forms}) == 2
    assert {form.content for form in forms} == {first.content}
    assert {form.headers["idempotency-replayed"] for form in forms} == {"true"}
    assert await messages(pool) == 1


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, '"a', "\u00fc", '""'])
async def test_what_is_no_key_is_told_so(client: httpx.AsyncClient, pool: Pool, key: str) -> None:
    headers = [("Idempotency-Key", key.encode())]
    document = problem(await client.post("/v1/messages", json=HELLO, headers=headers), 422, "validation_failed")
    [error] = document["errors"]
    assert (error["field"], error["location"]) == ("Idempotency-Key", "header")
    assert await messages(pool) == 0


async def test_two_keys_are_too_many(client: httpx.AsyncClient, pool: Pool) -> None:
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    document = problem(await client.post("/v1/messages", json=HELLO, headers=twice), 422, "validation_failed")
    assert "2 Idempotency-Key" in document["detail"]
    assert await messages(pool) == 0


async def test_what_was_refused_leaves_no_key(client: httpx.AsyncClient, pool: Pool) -> None:
    await pool.execute("UPDATE account SET messages_per_day = 1 WHERE name <> 'posthouse'")
    problem(await client.post("/v1/messages", json={**HELLO, "to": []}, headers=KEY), 422, "no_recipients")
    stranger = {**HELLO, "from": "a@elsewhere.example"}
    problem(await client.post("/v1/messages", json=stranger, headers=KEY), 403, "from_not_allowed")
    two = {**HELLO, "to": ["a@example.org", "b@example.org"]}
    problem(await client.post("/v1/messages", json=two, headers=KEY), 429, "message_limit_reached")
    assert await keys(pool) == 0

    first = await client.post("/v1/messages", json=HELLO, headers=KEY)
    assert first.status_code == 202
    # A repeat takes nothing of what the account may send, and so passes its limit.
    assert (await client.post("/v1/messages", json=HELLO, headers=KEY)).content == first.content
    problem(await client.post("/v1/messages", json=HELLO), 429, "message_limit_reached")
    metrics = (await client.get("/metrics")).text.splitlines()
    assert 'posthouse_api_submissions_total{door="rest",result="repeated"} 1.0' in metrics


async def test_a_key_is_its_accounts_own(
    api: RunningApi, operator: httpx.AsyncClient, client: httpx.AsyncClient, pool: Pool
) -> None:
    account = (await operator.post("/v1/accounts", json={"name": "stranger"})).json()["id"]
    key = (await operator.post(f"/v1/accounts/{account}/keys", json={})).json()["key"]
    await client.post("/v1/messages", json=HELLO, headers=KEY)
    async with api.client(key) as stranger:
        problem(await stranger.post("/v1/messages", json=HELLO, headers=KEY), 403, "from_not_allowed")
    await pool.execute("UPDATE domain SET account_id = $1", int(account))
    async with api.client(key) as stranger:
        assert (
            "idempotency-replayed"
            not in (answer := await stranger.post("/v1/messages", json=HELLO, headers=KEY)).headers
        )
        assert answer.status_code == 202
    assert await messages(pool) == 2


async def test_a_key_is_kept_for_a_day(client: httpx.AsyncClient, pool: Pool) -> None:
    first = await client.post("/v1/messages", json=HELLO, headers=KEY)
    await pool.execute("UPDATE idempotency SET created_at = now() - interval '23 hours 59 minutes'")
    assert (await client.post("/v1/messages", json=HELLO, headers=KEY)).content == first.content
    await pool.execute("UPDATE idempotency SET created_at = now() - interval '24 hours 1 minute'")
    assert (await client.post("/v1/messages", json=HELLO, headers=KEY)).json()["id"] != first.json()["id"]
    assert await messages(pool) == 2


# By the webapi.


@pytest.fixture
async def mox(api: RunningApi, demo: Demo) -> AsyncIterator[Mox]:
    async with api.client() as http:
        yield Mox(http, demo.login, demo.password)


async def mox_send(mox: Mox, key: str, **change: Any) -> httpx.Response:
    request = json.dumps({**MOX_HELLO, **change})
    return await mox.post("Send", data={"request": request}, headers={"Idempotency-Key": key})


async def test_by_the_webapi(mox: Mox, pool: Pool) -> None:
    first, again = [await mox_send(mox, "k") for _ in range(2)]

    assert (first.status_code, first.headers.get("idempotency-replayed")) == (200, None)
    assert (again.status_code, again.headers.get("idempotency-replayed")) == (200, "true")
    assert again.content == first.content
    assert code_of(await mox_send(mox, "k", Text="Another.\n")) == "error"
    assert code_of(await mox_send(mox, "a b")) == "user"
    assert code_of(await mox_send(mox, "")) == "user"
    assert await messages(pool) == 1


async def test_by_the_webapi_a_moment_that_has_passed_in_between_changes_nothing(mox: Mox, pool: Pool) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=1)
    first = await mox_send(mox, "k", FutureRelease=moment.isoformat())
    await eventually(lambda: datetime.now(UTC) > moment, 10, what="the moment")
    again = await mox_send(mox, "k", FutureRelease=moment.isoformat())

    assert again.content == first.content
    assert code_of(await mox_send(mox, "k", FutureRelease=(moment + timedelta(hours=1)).isoformat())) == "error"
    assert await messages(pool) == 1


# By SMTP.


def keyed(key: str, content: str = MAIL) -> str:
    return f"X-Posthouse-Idempotency-Key: {key}\r\n{content}"


async def test_by_smtp(sender: Lines, pool: Pool) -> None:
    first = await sender.send(keyed("k"))
    again = await sender.send(keyed("k"))

    assert first.startswith("250 2.2.0 Accepted as message ")
    assert again == first
    assert (await sender.send(keyed("k", MAIL.replace("Hello, Grace.", "Another.")))).startswith("554 5.6.0")
    assert (await sender.send(keyed("k"), to=["ada@example.org"])).startswith("554 5.6.0")
    assert await messages(pool) == 1
    stored = await pool.fetchval("SELECT string_agg(bytes, '' ORDER BY seq) FROM message_body")
    assert b"idempotency" not in stored.lower()
    assert await sender.send() != await sender.send()
    assert await messages(pool) == 3


@pytest.mark.parametrize(
    "content",
    [keyed(""), keyed("a b"), keyed("k" * 256), keyed("a", keyed("a")), keyed("a", keyed("b")), keyed('"a')],
    ids=["empty", "space", "long", "twice", "two", "half a quote"],
)
async def test_by_smtp_what_is_no_key_is_told_so(sender: Lines, pool: Pool, content: str) -> None:
    reply = await sender.send(content)
    assert reply.startswith("554 5.6.0")
    assert "idempotency" in reply.lower()
    assert (await messages(pool), await keys(pool)) == (0, 0)


async def test_by_smtp_a_wait_counts_as_it_was_asked_for(sender: Lines, pool: Pool) -> None:
    hour = f"MAIL FROM:<{FROM}> HOLDFOR=3600"
    first = await sender.send(keyed("k"), mail=hour)
    due = await pool.fetchval("SELECT due_at FROM delivery_queue")

    assert await sender.send(keyed("k"), mail=hour) == first  # some moments later: its own due time would be another
    assert (await sender.send(keyed("k"), mail=f"MAIL FROM:<{FROM}> HOLDFOR=3601")).startswith("554 5.6.0")
    assert (await sender.send(keyed("k"))).startswith("554 5.6.0")
    assert await pool.fetch("SELECT due_at FROM delivery_queue") == [(due,)]


# Below the doors.


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[CuttablePostgres]:
    async with CuttablePostgres(database_url) as postgres:
        yield postgres


@pytest.fixture
async def submitter(postgres: CuttablePostgres) -> AsyncIterator[Submitter]:
    """One whose connections may be cut, and who has little patience."""
    uncertain = await create_pool(postgres.url, size=2, service="test-submitter")
    metrics = ApiMetrics(Metrics("api"))
    rules = Rules(
        "mail.posthouse.test", None, Routing(), unverified_domains=True, limits=Limits(), from_ids=FromIds([b"k" * 16])
    )
    yield Submitter(uncertain, Writer(uncertain, Silent(), metrics, patience=0.3), rules, metrics)
    uncertain.terminate()


def submission(demo: Demo, *, is_test: bool = False, key: str | None = "k") -> Submission:
    return Submission(
        door="rest",
        caller=AccountCaller(0, demo.account_id, "api_key", uses_from_ids=True, is_test=is_test),
        sender=Party("", "demo@posthouse.test", "from.address"),
        to=(Party("", "grace@example.org", "to[0].address"),),
        text="Hello\n",
        idempotency_key=key,
    )


@pytest.mark.parametrize("cut", ["before commit", "after commit"])
async def test_what_nobody_can_tell_may_be_sent_again_with_its_key(
    postgres: CuttablePostgres, submitter: Submitter, demo: Demo, pool: Pool, cut: str
) -> None:
    postgres.cut, postgres.then_down = "before commit" if cut == "before commit" else "after commit", True
    with pytest.raises(DatabaseUnavailable, match=r"not known.*send it again with the same idempotency key"):
        await submitter.submit(submission(demo))
    stored = await pool.fetch("SELECT id FROM message")
    assert len(stored) == (cut == "after commit")
    postgres.down = False

    again = await submitter.submit(submission(demo))

    assert again.replayed == (cut == "after commit")
    assert [(again.id,)] == (stored or await pool.fetch("SELECT id FROM message"))
    assert await pool.fetchval("SELECT count(*) FROM delivery_queue") == 1
    assert (await submitter.submit(submission(demo))).id == again.id


async def test_without_a_key_one_is_told_to_look_first(
    postgres: CuttablePostgres, submitter: Submitter, demo: Demo
) -> None:
    postgres.cut, postgres.then_down = "after commit", True
    with pytest.raises(DatabaseUnavailable, match="look for it"):
        await submitter.submit(submission(demo, key=None))


async def test_the_keys_of_a_sandbox_are_its_own(submitter: Submitter, demo: Demo, pool: Pool) -> None:
    tried = [await submitter.submit(submission(demo, is_test=True)) for _ in range(2)]
    meant = [await submitter.submit(submission(demo)) for _ in range(2)]

    assert [one.replayed for one in (*tried, *meant)] == [False, True, False, True]
    assert tried[0].id == tried[1].id != meant[0].id == meant[1].id
    assert await pool.fetch("SELECT is_test FROM message ORDER BY id") == [(True,), (False,)]


async def test_a_large_message_is_known_again_by_all_of_it(submitter: Submitter, demo: Demo, pool: Pool) -> None:
    text = "x" * 3_000_000
    large = replace(submission(demo), text=text + "a")
    first = await submitter.submit(large)

    assert (await submitter.submit(large)).id == first.id
    with pytest.raises(IdempotencyConflict):
        await submitter.submit(replace(large, text=text + "b"))
    assert await messages(pool) == 1

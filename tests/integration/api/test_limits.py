"""What an account may send is counted whichever door it comes by, and every door says so in its own words."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from integration.api.conftest import HELLO, RunningApi, problem
from integration.api.mox import Mox, code_of
from integration.api.submission_client import MAIL, Lines
from integration.api.submission_door import door, lines, operator_of_door, sender, tls_files
from shared.db.demo import Demo
from shared.db.engine import Pool

__all__ = ["door", "lines", "operator_of_door", "sender", "tls_files"]

RAW = base64.b64encode(MAIL.encode()).decode()


async def limit(operator: httpx.AsyncClient, account_id: int, **limits: int | None) -> dict[str, Any]:
    changed = await operator.patch(f"/v1/accounts/{account_id}", json=limits)
    assert changed.status_code == 200, changed.text
    document: dict[str, Any] = changed.json()
    return document


async def of_doors(door: RunningApi, demo: Demo, sender: Lines) -> dict[str, tuple[str, str | None]]:
    """Hand one mail in at each door; return its answer: code (or reply) and Retry-After."""
    found: dict[str, tuple[str, str | None]] = {}
    async with door.client(demo.account_key) as client, door.client() as plain:
        whole = {"content": MAIL.encode(), "headers": {"Content-Type": "message/rfc822"}}
        for name, options in {"parts": {"json": HELLO}, "raw": {"json": {"raw": RAW}}, "whole": whole}.items():
            response = await client.post("/v1/messages", **options)  # type: ignore[arg-type]  # of three forms
            code = "accepted" if response.status_code == 202 else response.json()["code"]
            assert response.status_code in {202, 429}, response.text
            found[name] = code, response.headers.get("retry-after")
        mox = Mox(plain, demo.login, demo.password)
        answer = await mox.raw("Send", {"To": [{"Address": "grace@example.org"}], "Text": "x"})
        code = "accepted" if answer.status_code == 200 else code_of(answer)
        found["webapi"] = code, answer.headers.get("retry-after")
    found["smtp"] = (await sender.send())[:9], None
    return found


@pytest.mark.parametrize(
    ("limits", "rest", "webapi"),
    [
        ({"messages_per_day": 0}, "message_limit_reached", "messageLimitReached"),
        ({"first_time_recipients_per_day": 0}, "recipient_limit_reached", "recipientLimitReached"),
    ],
)
async def test_a_limit_of_nothing_closes_every_door_and_no_wait_is_promised(
    door: RunningApi,
    operator_of_door: httpx.AsyncClient,
    demo: Demo,
    sender: Lines,
    pool: Pool,
    limits: dict[str, int],
    rest: str,
    webapi: str,
) -> None:
    await limit(operator_of_door, demo.account_id, **limits)

    found = await of_doors(door, demo, sender)

    refused = rest, None
    assert found == {
        "parts": refused,
        "raw": refused,
        "whole": refused,
        "webapi": (webapi, None),
        "smtp": ("451 4.7.1", None),
    }
    assert await pool.fetchval("SELECT count(*) FROM message") == 0
    metrics = (await operator_of_door.get("/metrics")).text
    assert f'posthouse_api_submissions_total{{door="rest",result="{rest}"}} 3.0' in metrics
    assert f'posthouse_api_submissions_total{{door="smtp",result="{rest}"}} 1.0' in metrics


async def test_a_rate_is_told_with_a_time_to_wait(
    door: RunningApi, operator_of_door: httpx.AsyncClient, demo: Demo, sender: Lines
) -> None:
    await limit(operator_of_door, demo.account_id, messages_per_second=1)
    async with door.client(demo.account_key) as client:
        hundred = {**HELLO, "to": [f"r{n}@example.org" for n in range(100)]}
        assert (await client.post("/v1/messages", json=hundred)).status_code == 202

        limited = problem(await client.post("/v1/messages", json=HELLO), 429, "rate_limited")

    assert 60 < limited["retry_after"] <= 100
    found = await of_doors(door, demo, sender)
    assert {name: code for name, (code, _) in found.items()} == {
        "parts": "rate_limited",
        "raw": "rate_limited",
        "whole": "rate_limited",
        "webapi": "messageLimitReached",
        "smtp": "451 4.7.1",
    }
    for name, (_, wait) in found.items():
        assert name == "smtp" or 60 < int(wait or 0) <= 100


async def test_every_door_counts_in_one_sum(
    door: RunningApi, operator_of_door: httpx.AsyncClient, demo: Demo, sender: Lines, pool: Pool
) -> None:
    await limit(operator_of_door, demo.account_id, messages_per_day=5)

    assert {code for code, _ in (await of_doors(door, demo, sender)).values()} == {"accepted", "250 2.2.0"}
    found = await of_doors(door, demo, sender)

    assert {name: code for name, (code, _) in found.items()} == {
        "parts": "message_limit_reached",
        "raw": "message_limit_reached",
        "whole": "message_limit_reached",
        "webapi": "messageLimitReached",
        "smtp": "451 4.7.1",
    }
    day = timedelta(hours=24).total_seconds()
    assert all(day - 60 < int(wait or 0) <= day + 600 for name, (_, wait) in found.items() if name != "smtp")
    assert await pool.fetchval("SELECT count(*) FROM delivery") == 5


async def test_case_48_what_came_by_smtp_counts_on_the_webapi(
    door: RunningApi, operator_of_door: httpx.AsyncClient, demo: Demo, sender: Lines
) -> None:
    await limit(operator_of_door, demo.account_id, messages_per_day=1000)
    assert (await sender.send(to=[f"s{n}@example.org" for n in range(13)])).startswith("250")
    async with door.client() as plain:
        mox = Mox(plain, demo.login, demo.password)
        many = [{"Address": f"w{n}@example.org"} for n in range(1000)]
        assert await mox.fault("Send", {"To": many, "Text": "x"}) == "messageLimitReached"
        await mox.call("Send", {"To": many[:987], "Text": "x"})
        assert await mox.fault("Send", {"To": many[:1], "Text": "x"}) == "messageLimitReached"


async def test_limits_are_changed_one_by_one_and_hold_at_once(
    operator: httpx.AsyncClient, client: httpx.AsyncClient, demo: Demo
) -> None:
    path = f"/v1/accounts/{demo.account_id}"
    before = (await operator.get(path)).json()
    assert {before[name] for name in ("messages_per_day", "first_time_recipients_per_day", "messages_per_second")} == {
        None
    }

    changed = await limit(operator, demo.account_id, messages_per_day=1)
    assert changed == {**before, "messages_per_day": 1}
    assert (await client.post("/v1/messages", json=HELLO)).status_code == 202
    problem(await client.post("/v1/messages", json=HELLO), 429, "message_limit_reached")
    assert await limit(operator, demo.account_id, messages_per_day=None) == before
    assert (await client.post("/v1/messages", json=HELLO)).status_code == 202

    everything = {
        "name": "renamed",
        "keep_deliveries_seconds": 0,
        "keep_calls_seconds": 60,
        "messages_per_day": 2**31 - 1,
        "first_time_recipients_per_day": 0,
        "messages_per_second": 1,
        "retry_schedule": "default",
        "dsn_to_sender": False,
    }
    assert (await operator.patch(path, json=everything)).json() == {**before, **everything}
    assert (await operator.patch(path, json={})).json() == {**before, **everything}


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"name": ""}, 422, "validation_failed"),
        ({"name": None}, 422, "validation_failed"),
        ({"name": "a\0"}, 422, "validation_failed"),
        ({"name": "other"}, 409, "conflict"),
        ({"messages_per_day": -1}, 422, "validation_failed"),
        ({"messages_per_day": 2**31}, 422, "validation_failed"),
        ({"messages_per_day": "1"}, 422, "validation_failed"),
        ({"first_time_recipients_per_day": -1}, 422, "validation_failed"),
        ({"messages_per_second": 0}, 422, "validation_failed"),
        ({"keep_deliveries_seconds": None}, 422, "validation_failed"),
        ({"keep_calls_seconds": 10**12}, 422, "validation_failed"),
        ({"retry_schedule": "never"}, 422, "validation_failed"),
        ({"retry_schedule": None}, 422, "validation_failed"),
        ({"dsn_to_sender": None}, 422, "validation_failed"),
        ({"disabled_at": None}, 422, "validation_failed"),
    ],
)
async def test_a_change_that_will_not_do_changes_nothing(
    operator: httpx.AsyncClient, demo: Demo, change: dict[str, object], status: int, code: str
) -> None:
    await operator.post("/v1/accounts", json={"name": "other"})
    path = f"/v1/accounts/{demo.account_id}"
    before = (await operator.get(path)).json()
    document = problem(await operator.patch(path, json={"retry_schedule": "default", **change}), status, code)
    assert [error["field"] for error in document["errors"]] == [*change]
    assert (await operator.get(path)).json() == before


async def test_the_installation_itself_and_what_is_not_there_cannot_be_changed(operator: httpx.AsyncClient) -> None:
    for account in (0, 999):
        problem(await operator.patch(f"/v1/accounts/{account}", json={"messages_per_day": 1}), 404, "not_found")
    problem(await operator.get("/v1/accounts/999/usage"), 404, "not_found")


async def test_what_is_used_is_shown_to_the_account_and_the_operator(
    api: RunningApi, operator: httpx.AsyncClient, client: httpx.AsyncClient, demo: Demo
) -> None:
    nothing = {"limit": None, "used": None, "left": None, "room_at": None}
    assert (await client.get("/v1/usage")).json() == {
        "messages_per_day": nothing,
        "first_time_recipients_per_day": nothing,
        "messages_per_second": {"limit": None, "room_at": None},
    }
    await limit(operator, demo.account_id, messages_per_day=101, first_time_recipients_per_day=2, messages_per_second=1)
    hundred = {**HELLO, "to": ["grace@example.org", "Grace@example.org"] * 50}
    assert (await client.post("/v1/messages", json=hundred)).status_code == 202

    used = (await client.get("/v1/usage")).json()

    assert used == (await operator.get(f"/v1/accounts/{demo.account_id}/usage")).json()
    assert used["messages_per_day"] == {"limit": 101, "used": 100, "left": 1, "room_at": None}
    assert used["first_time_recipients_per_day"] == {"limit": 2, "used": 1, "left": 1, "room_at": None}
    assert used["messages_per_second"]["limit"] == 1
    now = datetime.now(UTC)
    rate_room = datetime.fromisoformat(used["messages_per_second"]["room_at"])
    assert timedelta(seconds=30) < rate_room - now <= timedelta(seconds=99)
    await limit(operator, demo.account_id, messages_per_day=100, messages_per_second=None)
    full = (await client.get("/v1/usage")).json()
    assert full["messages_per_day"]["left"] == 0
    room = datetime.fromisoformat(full["messages_per_day"]["room_at"])
    assert timedelta(hours=23, minutes=59) < room - now <= timedelta(hours=24, minutes=11)
    assert full["messages_per_second"] == {"limit": None, "room_at": None}
    # Another account's use is its own.
    other = (await operator.post("/v1/accounts", json={"name": "other", "messages_per_day": 7})).json()
    key = (await operator.post(f"/v1/accounts/{other['id']}/keys", json={})).json()["key"]
    async with api.client(key) as stranger:
        of_other = (await stranger.get("/v1/usage")).json()
    assert of_other["messages_per_day"] == {"limit": 7, "used": 0, "left": 7, "room_at": None}
    problem(await operator.get("/v1/usage"), 403, "forbidden")


async def test_a_limit_that_is_set_late_knows_what_was_sent_before(
    operator: httpx.AsyncClient, client: httpx.AsyncClient, demo: Demo, pool: Pool
) -> None:
    old, new = {**HELLO, "to": ["old@example.org"]}, {**HELLO, "to": ["new@example.org"]}
    assert (await client.post("/v1/messages", json=old)).status_code == 202
    await pool.execute("UPDATE delivery SET created_at = created_at - interval '3 days'")
    for message in (old, {**HELLO, "to": ["today@example.org"]}):
        assert (await client.post("/v1/messages", json=message)).status_code == 202

    await limit(operator, demo.account_id, messages_per_day=100, first_time_recipients_per_day=1)

    used = (await client.get("/v1/usage")).json()
    assert used["messages_per_day"]["used"] == 2
    assert used["first_time_recipients_per_day"]["used"] == 1
    assert (await client.post("/v1/messages", json=old)).status_code == 202
    problem(await client.post("/v1/messages", json=new), 429, "recipient_limit_reached")
    # Taken away and set again, it has counted what was sent in between.
    await limit(operator, demo.account_id, messages_per_day=None, first_time_recipients_per_day=None)
    assert (await client.post("/v1/messages", json=new)).status_code == 202
    await limit(operator, demo.account_id, first_time_recipients_per_day=2)
    assert (await client.get("/v1/usage")).json()["first_time_recipients_per_day"]["used"] == 2
    assert (await client.post("/v1/messages", json=new)).status_code == 202


async def test_another_rate_forgets_what_the_old_one_was_ahead(
    operator: httpx.AsyncClient, client: httpx.AsyncClient, demo: Demo
) -> None:
    await limit(operator, demo.account_id, messages_per_second=1)
    hundred = {**HELLO, "to": [f"r{n}@example.org" for n in range(100)]}
    assert (await client.post("/v1/messages", json=hundred)).status_code == 202
    problem(await client.post("/v1/messages", json=HELLO), 429, "rate_limited")
    await limit(operator, demo.account_id, messages_per_second=1, messages_per_day=1000)
    problem(await client.post("/v1/messages", json=HELLO), 429, "rate_limited")

    await limit(operator, demo.account_id, messages_per_second=2)

    assert (await client.post("/v1/messages", json=HELLO)).status_code == 202

"""What operators set and see of failures: retry schedules, operator events; and which delays an endpoint hears of."""

from typing import Any

import httpx
import pytest

from integration.api.conftest import problem
from shared.db.demo import Demo
from shared.db.engine import Pool
from shared.db.operator_events import Notice, count
from shared.events import OperatorEventKind

OWN = {"waits": [60, 600], "give_up_seconds": 86_400}


async def test_retry_schedules_are_made_used_and_removed(operator: httpx.AsyncClient, demo: Demo) -> None:
    made = await operator.put("/v1/retry-schedules/own", json=OWN)
    assert made.status_code == 200, made.text
    assert made.json() | OWN == made.json()
    assert (await operator.get("/v1/retry-schedules/own")).json() == made.json()
    listed = (await operator.get("/v1/retry-schedules", params={"limit": 2})).json()
    assert [(one["name"], one["built_in"]) for one in listed["data"]] == [("default", True), ("mox", True)]
    rest = (await operator.get("/v1/retry-schedules", params={"cursor": listed["next_cursor"]})).json()
    assert [one["name"] for one in rest["data"]] == ["own"]

    changed = await operator.put("/v1/retry-schedules/own", json={"waits": [30], "max_attempts": 3})
    assert (changed.json()["waits"], changed.json()["max_attempts"], changed.json()["give_up_seconds"]) == (
        [30],
        3,
        None,
    )
    used = await operator.put(f"/v1/accounts/{demo.account_id}/retry-schedule", json={"name": "own"})
    assert used.json()["retry_schedule"] == "own"
    assert (await operator.get(f"/v1/accounts/{demo.account_id}")).json()["retry_schedule"] == "own"
    problem(await operator.delete("/v1/retry-schedules/own"), 409, "conflict")
    new = await operator.post("/v1/accounts", json={"name": "born with it", "retry_schedule": "own"})
    assert new.json()["retry_schedule"] == "own"
    for account in (demo.account_id, new.json()["id"]):
        await operator.put(f"/v1/accounts/{account}/retry-schedule", json={"name": "default"})
    assert (await operator.delete("/v1/retry-schedules/own")).status_code == 204
    problem(await operator.delete("/v1/retry-schedules/own"), 404, "not_found")
    problem(await operator.get("/v1/retry-schedules/own"), 404, "not_found")


@pytest.mark.parametrize(
    ("name", "body", "status", "code", "field"),
    [
        ("mox", OWN, 409, "conflict", "name"),
        ("-", OWN, 422, "validation_failed", "name"),
        ("Own", OWN, 422, "validation_failed", "schedule"),
        ("own", {"waits": [60]}, 422, "validation_failed", "max_attempts"),
        ("own", {**OWN, "waits": []}, 422, "validation_failed", "waits"),
        ("own", {**OWN, "waits": [9]}, 422, "validation_failed", "waits[0]"),
        ("own", {**OWN, "waits": ["60"]}, 422, "validation_failed", "waits[0]"),
        ("own", {**OWN, "waits": [10**30]}, 422, "validation_failed", "waits[0]"),
        ("own", {**OWN, "waits": [60] * 101}, 422, "validation_failed", "waits"),
        ("own", {**OWN, "give_up_seconds": 2_592_001}, 422, "validation_failed", "give_up_seconds"),
        ("own", {**OWN, "jitter": 3}, 422, "validation_failed", "jitter"),
    ],
)
async def test_schedules_that_will_not_do(
    operator: httpx.AsyncClient, name: str, body: dict[str, object], status: int, code: str, field: str
) -> None:
    document = problem(await operator.put(f"/v1/retry-schedules/{name}", json=body), status, code)
    assert document["errors"][0]["field"] == field
    assert len((await operator.get("/v1/retry-schedules")).json()["data"]) == 2


async def test_an_account_gets_no_schedule_that_is_not_there(operator: httpx.AsyncClient, demo: Demo) -> None:
    base = f"/v1/accounts/{demo.account_id}/retry-schedule"
    problem(await operator.put(base, json={"name": "own"}), 422, "validation_failed")
    problem(await operator.put("/v1/accounts/404/retry-schedule", json={"name": "mox"}), 404, "not_found")
    problem(await operator.put("/v1/accounts/0/retry-schedule", json={"name": "mox"}), 404, "not_found")


async def test_operator_events_are_listed_and_resolved(operator: httpx.AsyncClient, pool: Pool) -> None:
    async with pool.acquire() as connection:
        told = [Notice(OperatorEventKind.SOURCE_BLOCKED, f"{name}.test", "blocked", {"code": 550}) for name in "abc"]
        await count(connection, [(notice, times) for times, notice in enumerate(told, 1)])
    path = "/v1/operator-events"
    first = (await operator.get(path, params={"limit": 2})).json()
    second = (await operator.get(path, params={"cursor": first["next_cursor"]})).json()
    everything: list[dict[str, Any]] = first["data"] + second["data"]
    assert [(one["subject"], one["count"], one["facts"]) for one in everything] == [
        ("c.test", 3, {"code": 550}),
        ("b.test", 2, {"code": 550}),
        ("a.test", 1, {"code": 550}),
    ]
    done = await operator.post(f"{path}/{everything[0]['id']}/resolve")
    assert done.json()["resolved_at"] is not None
    assert (await operator.post(f"{path}/{everything[0]['id']}/resolve")).json() == done.json()
    subjects = {}
    for which in ("true", "false"):
        page = (await operator.get(path, params={"open": which, "kind": "source_blocked"})).json()
        subjects[which] = [one["subject"] for one in page["data"]]
    assert subjects == {"true": ["b.test", "a.test"], "false": ["c.test"]}
    problem(await operator.post(f"{path}/404/resolve"), 404, "not_found")
    problem(await operator.get(path, params={"kind": "lost"}), 422, "validation_failed")


async def test_an_endpoint_says_which_delays_it_hears_of(client: httpx.AsyncClient) -> None:
    url = {"url": "https://app.example.com/hook"}
    assert (await client.post("/v1/endpoints", json=url)).json()["delayed"] == "every"
    made = (await client.post("/v1/endpoints", json={**url, "delayed": "last"})).json()
    assert made["delayed"] == "last"
    assert (await client.get(f"/v1/endpoints/{made['id']}")).json()["delayed"] == "last"
    document = problem(await client.post("/v1/endpoints", json={**url, "delayed": "never"}), 422, "validation_failed")
    assert document["errors"][0]["field"] == "delayed"

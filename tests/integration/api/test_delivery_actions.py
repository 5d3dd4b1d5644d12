"""Hold, release and cancel of deliveries: which ones are meant (cases 196 and 197 of part 11, the better way), and whose."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from integration.api.backlog import fill, held, states
from integration.api.conftest import RunningApi, problem
from integration.api.test_hold_rules import make, send
from shared.db.demo import Demo
from shared.db.engine import Pool

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def stranger(api: RunningApi, operator: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    account = (await operator.post("/v1/accounts", json={"name": "stranger"})).json()["id"]
    key = (await operator.post(f"/v1/accounts/{account}/keys", json={})).json()["key"]
    async with api.client(key) as client:
        yield client


async def act(client: httpx.AsyncClient, kind: str, **which: object) -> dict[str, Any]:
    response = await client.post(f"/v1/deliveries/{kind}", json=which)
    assert response.status_code == 200, response.text
    job: dict[str, Any] = response.json()
    assert job["finished_at"]
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    return job


def moment(value: datetime) -> str:
    return value.isoformat()


@pytest.mark.parametrize(
    ("which", "meant"),
    [
        ({"all": True}, "abc"),
        ({"ids": ["{a}", "{c}", "4711"]}, "ac"),
        ({"message": "{message_of_b}"}, "b"),
        ({"message": "4711"}, ""),
        ({"tag": "news"}, "a"),
        ({"sender": "Demo@posthouse.test"}, "abc"),
        ({"sender": "other@posthouse.test"}, ""),
        ({"sender_domain": "POSTHOUSE.test"}, "abc"),
        ({"recipient": "ADA@example.org"}, "a"),
        ({"recipient_domain": "example.org"}, "ab"),
        ({"recipient_domain": "bücher.example"}, "c"),
        # Both From and To: what fulfils both, not what fulfils either (197).
        ({"sender": "demo@posthouse.test", "recipient": "ada@example.org"}, "a"),
        ({"sender": "other@posthouse.test", "recipient": "ada@example.org"}, ""),
        ({"tag": "news", "recipient_domain": "bücher.example"}, ""),
        ({"ids": ["{a}", "{c}"], "recipient_domain": "example.org"}, "a"),
        ({"ids": ["{a}"], "message": "{message_of_b}"}, ""),
        ({"accepted_before": moment(NOW + HOUR)}, "abc"),
        ({"accepted_after": moment(NOW + HOUR)}, ""),
        ({"accepted_after": moment(NOW - HOUR), "due_before": moment(NOW + HOUR)}, "ab"),
        ({"due_after": moment(NOW + HOUR)}, "c"),
        ({"state": "queued"}, "abc"),
        ({"state": "held"}, ""),
    ],
)
async def test_196_197_conditions_mean_what_fulfils_all_of_them(
    client: httpx.AsyncClient, pool: Pool, which: dict[str, Any], meant: str
) -> None:
    sent = {
        "a": (await send(client, "ada@example.org", tags=["news", "x"]))[0]["id"],
        "b": (await send(client, "bob@example.org", tags=["other"]))[0]["id"],
        "c": (await send(client, "cora@bücher.example"))[0]["id"],
    }
    await pool.execute(
        "UPDATE delivery_queue SET due_at = now() + interval '1 day' WHERE delivery_id = $1", int(sent["c"])
    )
    message = (await client.get(f"/v1/deliveries/{sent['b']}")).json()["message"]

    def fill_in(value: object) -> object:
        if isinstance(value, list):
            return [fill_in(part) for part in value]
        return value.format(**sent, message_of_b=message) if isinstance(value, str) and "{" in value else value

    given = {name: fill_in(value) for name, value in which.items()}
    job = await act(client, "hold", **given)
    assert job["changed"] == len(meant)
    found = dict(zip(sent, await states(pool, *map(int, sent.values())), strict=True))
    assert "".join(name for name, state in found.items() if state == "held") == meant

    assert (await act(client, "hold", **given))["changed"] == 0
    assert (await act(client, "release", all=True))["changed"] == len(meant)
    assert await held(pool) == 0
    assert (await act(client, "cancel", **given))["changed"] == len(meant)
    assert await pool.fetchval("SELECT count(*) FROM event WHERE type = 'canceled'") == len(meant)
    assert await pool.fetchval("SELECT count(*) FROM delivery_queue") == 3 - len(meant)


async def test_a_selection_by_state_releases_and_cancels_only_what_is_held(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    first, second = await send(client, "a@example.org", "b@example.org")
    await client.post(f"/v1/deliveries/{first['id']}/hold")
    assert (await act(client, "cancel", state="held"))["changed"] == 1
    assert await states(pool, int(first["id"]), int(second["id"])) == ["canceled", "queued"]


async def test_nothing_is_done_to_everything_by_mistake(client: httpx.AsyncClient, pool: Pool) -> None:
    await send(client, "a@example.org")
    for which in (
        {},
        {"all": False},
        {"ids": []},
        {"tag": None},
        {"all": True, "tag": "x"},
        {"ids": ["x"]},
        {"ids": ["1"] * 501},
        {"state": "delivered"},
        {"recipients": "a@example.org"},
        {"accepted_before": "yesterday"},
        {"tag": "x\x00"},
    ):
        for kind in ("hold", "release", "cancel"):
            problem(await client.post(f"/v1/deliveries/{kind}", json=which), 422, "validation_failed")
    problem(await client.post("/v1/deliveries/cancel", json={"ids": ["9" * 19]}), 404, "not_found")
    for which in ({"recipient": "example.org"}, {"sender_domain": "-"}):
        problem(await client.post("/v1/deliveries/cancel", json=which), 422, "address_invalid")
    problem(await client.post("/v1/deliveries/cancel"), 422, "validation_failed")
    assert await pool.fetchval("SELECT count(*) FROM delivery_queue") == 1
    assert await pool.fetchval("SELECT count(*) FROM job") == 0


async def test_one_delivery_is_canceled_once_and_what_is_settled_stays(client: httpx.AsyncClient, pool: Pool) -> None:
    [one] = await send(client, "a@example.org")
    done = (await client.post(f"/v1/deliveries/{one['id']}/cancel")).json()
    assert (done["result"], done["delivery"]["state"]) == ("done", "canceled")
    assert (await client.post(f"/v1/deliveries/{one['id']}/cancel")).json()["result"] == "unchanged"
    for kind in ("hold", "release"):
        problem(await client.post(f"/v1/deliveries/{one['id']}/{kind}"), 409, "conflict")
    [event] = (await client.get(f"/v1/events?delivery_id={one['id']}")).json()["data"]
    assert event["type"] == "canceled"
    assert await pool.fetchval("SELECT count(*) FROM event_pending") == 1
    problem(await client.post("/v1/deliveries/4711/cancel"), 404, "not_found")
    problem(await client.post(f"/v1/deliveries/{'9' * 19}/cancel"), 404, "not_found")


async def test_a_filter_of_one_account_touches_no_other(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, operator: httpx.AsyncClient, demo: Demo, pool: Pool
) -> None:
    mine = await fill(pool, demo.account_id, 3, tags=["news"])
    message = await pool.fetchval("SELECT message_id FROM delivery WHERE id = $1", mine[0])
    for which in (
        {"all": True},
        {"ids": [str(one) for one in mine]},
        {"message": str(message)},
        {"tag": "news"},
        {"sender": "demo@posthouse.test"},
    ):
        for kind in ("hold", "cancel"):
            assert (await act(stranger, kind, **which))["changed"] == 0
    await client.post(f"/v1/deliveries/{mine[0]}/hold")
    assert (await act(stranger, "release", all=True))["changed"] == 0
    assert await states(pool, *mine) == ["held", "queued", "queued"]
    problem(
        await stranger.post("/v1/deliveries/cancel", json={"all": True, "account": str(demo.account_id)}),
        403,
        "forbidden",
    )
    # Whose, an operator says; and everybody's only without that.
    other = (await operator.post("/v1/accounts", json={"name": "third"})).json()["id"]
    assert (await act(operator, "cancel", all=True, account=other))["changed"] == 0
    assert (await act(operator, "hold", all=True, account=str(demo.account_id)))["changed"] == 3
    problem(await operator.post("/v1/deliveries/hold", json={"all": True, "account": "4711"}), 404, "not_found")
    assert (await act(operator, "cancel", all=True))["changed"] == 3


async def test_an_operators_release_lifts_every_hold(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, pool: Pool
) -> None:
    one, two = await send(client, "a@example.org", "b@example.org")
    await act(client, "hold", all=True)
    await operator.post(f"/v1/deliveries/{one['id']}/hold")
    job = await act(client, "release", all=True)
    assert (job["changed"], job["kept_held"]) == (1, 1)
    await client.post(f"/v1/deliveries/{two['id']}/hold")
    assert (await act(operator, "release", all=True))["changed"] == 2
    assert await held(pool) == 0


async def test_a_release_wakes_its_lane_and_a_rule_of_the_operator_keeps_what_it_matches(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, pool: Pool
) -> None:
    [one] = await send(client, "a@example.org")
    await client.post(f"/v1/deliveries/{one['id']}/hold")
    await make(operator, recipient_domain="example.org", reason="blocked there")
    # It was held by its account when the rule came; the account's release finds the rule.
    problem(await client.post(f"/v1/deliveries/{one['id']}/release"), 403, "forbidden")
    shown = (await operator.post(f"/v1/deliveries/{one['id']}/hold")).json()["delivery"]["held"]
    assert shown["by"] == "operator"
    await pool.execute("DELETE FROM delivery_wake")
    assert (await operator.post(f"/v1/deliveries/{one['id']}/release")).json()["delivery"]["state"] == "queued"
    assert await pool.fetchval("SELECT count(*) FROM delivery_wake") == 1


async def test_a_key_of_the_sandbox_acts_on_its_own_mail_only(
    client: httpx.AsyncClient, api: RunningApi, operator: httpx.AsyncClient, demo: Demo, pool: Pool
) -> None:
    key = (await operator.post(f"/v1/accounts/{demo.account_id}/keys", json={"test": True})).json()
    [real] = await send(client, "a@example.org")
    async with api.client(key["key"]) as sandbox:
        [test] = await send(sandbox, "b@example.org")
        assert (await act(sandbox, "hold", all=True))["changed"] == 1
        problem(await sandbox.post(f"/v1/deliveries/{real['id']}/cancel"), 404, "not_found")
        assert len((await sandbox.get("/v1/jobs")).json()["data"]) == 1
        problem(await sandbox.post("/v1/hold-rules", json={}), 403, "forbidden")
    assert await states(pool, int(real["id"]), int(test["id"])) == ["queued", "held"]
    assert (await client.get("/v1/jobs")).json()["data"] == []
    problem(await client.post(f"/v1/deliveries/{test['id']}/release"), 404, "not_found")
    assert (await act(client, "cancel", all=True))["changed"] == 1
    assert (await operator.post(f"/v1/deliveries/{test['id']}/release")).json()["result"] == "done"
    assert await states(pool, int(real["id"]), int(test["id"])) == ["canceled", "queued"]

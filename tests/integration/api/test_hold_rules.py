"""Hold rules over REST: cases 192 to 195 of part 11, the better way."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from fakes.waiting import eventually
from integration.api.backlog import fill, held, states
from integration.api.conftest import HELLO, RunningApi, problem
from shared.db.demo import Demo
from shared.db.engine import Pool


@pytest.fixture
async def other(operator: httpx.AsyncClient) -> int:
    """Another account."""
    return int((await operator.post("/v1/accounts", json={"name": "other"})).json()["id"])


@pytest.fixture
async def stranger(api: RunningApi, operator: httpx.AsyncClient, other: int) -> AsyncIterator[httpx.AsyncClient]:
    key = (await operator.post(f"/v1/accounts/{other}/keys", json={})).json()["key"]
    async with api.client(key) as client:
        yield client


async def send(client: httpx.AsyncClient, *recipients: str, **more: object) -> list[dict[str, Any]]:
    response = await client.post("/v1/messages", json={**HELLO, "to": list(recipients), **more})
    assert response.status_code == 202, response.text
    deliveries: list[dict[str, Any]] = response.json()["deliveries"]
    return deliveries


async def make(client: httpx.AsyncClient, **rule: object) -> dict[str, Any]:
    response = await client.post("/v1/hold-rules", json=rule)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    assert made["job"]["finished_at"], made
    assert made["job"]["progress"] == 1
    return made


async def state(client: httpx.AsyncClient, delivery: str) -> str:
    found: str = (await client.get(f"/v1/deliveries/{delivery}")).json()["state"]
    return found


async def test_192_an_empty_rule_holds_everything_and_its_removal_releases_nothing(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, pool: Pool
) -> None:
    [before] = await send(client, "a@example.org")
    rule = await make(operator, reason="maintenance")
    [after] = await send(client, "b@example.org")
    assert after["state"] == "held"
    assert rule["job"]["changed"] == 1
    assert [await state(client, one["id"]) for one in (before, after)] == ["held", "held"]

    released = (await operator.post(f"/v1/deliveries/{before['id']}/release")).json()
    assert (released["result"], released["delivery"]["state"]) == ("done", "queued")
    assert (await operator.delete(f"/v1/hold-rules/{rule['id']}")).status_code == 204
    problem(await operator.get(f"/v1/hold-rules/{rule['id']}"), 404, "not_found")
    problem(await operator.delete(f"/v1/hold-rules/{rule['id']}"), 404, "not_found")
    assert await state(client, after["id"]) == "held"
    assert (await send(client, "c@example.org"))[0]["state"] == "queued"
    assert await held(pool) == 1


async def test_193_a_rule_of_an_account_holds_its_mail_and_no_other(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, other: int, demo: Demo, pool: Pool
) -> None:
    [mine] = await send(client, "a@example.org")
    [theirs] = await fill(pool, other, 1)
    await make(operator, account=str(demo.account_id))
    [new] = await send(client, "b@example.org")
    assert await states(pool, int(mine["id"]), int(new["id"]), theirs) == ["held", "held", "queued"]


async def test_194_all_conditions_must_hold_for_new_mail_and_for_old(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, other: int, pool: Pool
) -> None:
    [mine] = await send(client, "a@example.org")
    [theirs] = await fill(pool, other, 1)
    await make(operator, account=str(other), sender_domain="posthouse.test")
    [new] = await send(client, "b@example.org")
    assert await states(pool, int(mine["id"]), int(new["id"]), theirs) == ["queued", "queued", "held"]
    # Two conditions on one mail of which one does not hold, either way round.
    for rule in (
        {"sender_domain": "elsewhere.example", "recipient_domain": "example.org"},
        {"sender_domain": "posthouse.test", "recipient_domain": "elsewhere.example"},
        {"sender": "nobody@posthouse.test", "recipient": "a@example.org"},
        {"sender": "demo@posthouse.test", "recipient": "nobody@example.org"},
    ):
        assert (await make(client, **rule))["job"]["changed"] == 0
        [again] = await send(client, "a@example.org")
        assert again["state"] == "queued"


@pytest.mark.parametrize(
    "rule",
    [
        {"sender": "DEMO@Posthouse.TEST"},
        {"sender_domain": "Posthouse.Test"},
        {"recipient": "GRACE@bücher.example"},
        {"recipient_domain": "BÜCHER.example"},
        {"recipient_domain": "xn--bcher-kva.example"},
        {"sender": "demo@posthouse.test", "recipient_domain": "bücher.example"},
    ],
)
async def test_each_condition_holds_what_it_names_whatever_its_spelling(
    client: httpx.AsyncClient, pool: Pool, rule: dict[str, str]
) -> None:
    sent = await send(client, "Grace@bücher.example", "ada@example.org")
    made = await make(client, **rule)
    again = await send(client, "grace@xn--bcher-kva.example", "ada@example.org")
    all_of_it = "recipient" not in "".join(rule)
    wanted = ["held", "held" if all_of_it else "queued"]
    assert await states(pool, *(int(one["id"]) for one in sent)) == wanted
    assert [one["state"] for one in again] == wanted
    held_by = (await client.get(f"/v1/deliveries/{sent[0]['id']}")).json()["held"]
    assert held_by == {"by": "account", "rule": made["id"], "reason": ""}
    stays = await make(
        client,
        **{
            name: "nobody." + value.rpartition("@")[2] if "domain" in name else "x" + value
            for name, value in rule.items()
        },
    )
    assert stays["job"]["changed"] == 0


async def test_195_what_is_held_is_not_claimed_and_goes_when_it_was_due(
    client: httpx.AsyncClient, pool: Pool, api: RunningApi
) -> None:
    [due], [later] = await send(client, "a@example.org"), await send(client, "b@example.org")
    await pool.execute(
        "UPDATE delivery_queue SET due_at = '2100-01-01T00:00:00Z' WHERE delivery_id = $1", int(later["id"])
    )
    for one in (due, later):
        assert (await client.post(f"/v1/deliveries/{one['id']}/hold")).json()["result"] == "done"
        assert (await client.post(f"/v1/deliveries/{one['id']}/hold")).json()["result"] == "unchanged"
    assert [await state(client, one["id"]) for one in (due, later)] == ["held", "held"]

    async def gauge(expected: int) -> bool:
        async with api.client() as anybody:
            return f"posthouse_api_held_deliveries {expected}.0" in (await anybody.get("/metrics")).text

    await eventually(lambda: gauge(2), what="the gauge says what is held")
    await pool.execute("DELETE FROM delivery_wake")
    before = await pool.fetch("SELECT due_at FROM delivery_queue ORDER BY delivery_id")
    for one in (due, later):
        assert (await client.post(f"/v1/deliveries/{one['id']}/release")).json()["result"] == "done"
    assert await pool.fetch("SELECT due_at FROM delivery_queue ORDER BY delivery_id") == before
    assert await pool.fetchval("SELECT count(*) FROM delivery_wake") == 2
    await eventually(lambda: gauge(0), what="the gauge falls")


async def test_what_was_released_goes_though_the_rule_still_matches(client: httpx.AsyncClient, pool: Pool) -> None:
    rule = await make(client, recipient_domain="example.org", reason="wrong price")
    [one] = await send(client, "a@example.org")
    shown = (await client.get(f"/v1/deliveries/{one['id']}")).json()
    assert shown["held"] == {"by": "account", "rule": rule["id"], "reason": "wrong price"}
    released = (await client.post(f"/v1/deliveries/{one['id']}/release")).json()
    assert (released["result"], released["delivery"]["held"]) == ("done", None)
    again = await make(client, recipient="A@example.org")
    assert again["job"]["changed"] == 1  # a rule that is made later holds it again
    assert await states(pool, int(one["id"])) == ["held"]


async def test_a_removal_that_releases_leaves_what_others_hold(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, pool: Pool
) -> None:
    rule = await make(client, recipient_domain="example.org")
    plain, by_hand, by_other, by_operator = await send(client, *(f"{n}@example.org" for n in "abcd"))
    await client.post(f"/v1/deliveries/{by_hand['id']}/hold")
    second = await make(client, recipient="c@example.org")
    await operator.post(f"/v1/deliveries/{by_operator['id']}/hold")

    removed = await client.delete(f"/v1/hold-rules/{rule['id']}?release=true")
    assert removed.status_code == 200
    job = removed.json()
    assert (job["kind"], job["hold_rule"], job["changed"], job["kept_held"]) == ("release", rule["id"], 1, 1)
    ids = [int(one["id"]) for one in (plain, by_hand, by_other, by_operator)]
    assert await states(pool, *ids) == ["queued", "held", "held", "held"]
    assert (await client.get(f"/v1/deliveries/{by_other['id']}")).json()["held"]["rule"] == second["id"]
    assert (await client.get(f"/v1/deliveries/{by_operator['id']}")).json()["held"] == {
        "by": "operator",
        "rule": None,
        "reason": "",
    }


async def test_an_operators_pause_that_ends_does_not_release_what_the_account_holds(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, pool: Pool
) -> None:
    earlier, later, plain = await send(client, "a@example.org", "b@example.org", "c@example.org")
    await client.post(f"/v1/deliveries/{earlier['id']}/hold")
    pause = await make(operator)
    await client.post(f"/v1/deliveries/{later['id']}/hold")
    job = (await operator.delete(f"/v1/hold-rules/{pause['id']}?release=true")).json()
    assert (job["changed"], job["kept_held"]) == (1, 1)
    ids = [int(one["id"]) for one in (earlier, later, plain)]
    assert await states(pool, *ids) == ["held", "held", "queued"]
    for one in (earlier, later):
        assert (await client.get(f"/v1/deliveries/{one['id']}")).json()["held"]["by"] == "account"
        assert (await client.post(f"/v1/deliveries/{one['id']}/release")).json()["result"] == "done"
    assert await held(pool) == 0


async def test_an_account_neither_sees_nor_ends_what_an_operator_holds(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, demo: Demo, pool: Pool
) -> None:
    [one] = await send(client, "a@example.org")
    rule = await make(operator, account=str(demo.account_id), reason="abuse desk")
    assert (await client.get("/v1/hold-rules")).json()["data"] == []
    problem(await client.get(f"/v1/hold-rules/{rule['id']}"), 404, "not_found")
    problem(await client.delete(f"/v1/hold-rules/{rule['id']}?release=true"), 404, "not_found")
    problem(await client.get(f"/v1/jobs/{rule['job']['id']}"), 404, "not_found")
    shown = (await client.get(f"/v1/deliveries/{one['id']}")).json()
    assert shown["held"] == {"by": "operator", "rule": None, "reason": ""}

    problem(await client.post(f"/v1/deliveries/{one['id']}/release"), 403, "forbidden")
    job = (await client.post("/v1/deliveries/release", json={"all": True})).json()
    assert (job["changed"], job["kept_held"]) == (0, 1)
    assert await held(pool) == 1
    told = (await operator.post(f"/v1/deliveries/{one['id']}/release")).json()
    assert told["result"] == "done"
    assert await held(pool) == 0
    for wrong in ({"account": "1"}, {"account": str(demo.account_id), "sender": "demo@posthouse.test"}):
        problem(await client.post("/v1/hold-rules", json=wrong), 403, "forbidden")
    problem(await client.get(f"/v1/hold-rules?account={demo.account_id}"), 403, "forbidden")


async def test_an_account_holds_only_its_own_mail(
    stranger: httpx.AsyncClient, client: httpx.AsyncClient, pool: Pool
) -> None:
    [mine] = await send(client, "a@example.org")
    rule = await make(stranger, sender="demo@posthouse.test")
    assert rule["job"]["changed"] == 0
    [new] = await send(client, "b@example.org")
    assert await states(pool, int(mine["id"]), int(new["id"])) == ["queued", "queued"]
    problem(await client.get(f"/v1/hold-rules/{rule['id']}"), 404, "not_found")
    assert (await client.get("/v1/hold-rules")).json()["data"] == []


async def test_an_end_by_itself_releases_where_that_was_asked_for(
    client: httpx.AsyncClient, pool: Pool, demo: Demo
) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    releasing = await make(client, recipient="a@example.org", expires_at=soon, release_on_expiry=True)
    keeping = await make(client, recipient="b@example.org", expires_at=soon)
    going, staying = await send(client, "a@example.org", "b@example.org")
    await pool.execute("UPDATE hold_rule SET expires_at = now() - interval '1 second'")

    async def released() -> bool:
        return await states(pool, int(going["id"])) == ["queued"]

    await eventually(released, what="the sweep releases what the rule held")
    assert await states(pool, int(staying["id"])) == ["held"]
    assert [one["state"] for one in await send(client, "a@example.org", "b@example.org")] == ["queued", "queued"]
    # Old ends are forgotten, but not while they hold something.
    await pool.execute("UPDATE hold_rule SET expires_at = now() - interval '2 days'")

    async def forgotten() -> bool:
        left = await pool.fetch("SELECT id FROM hold_rule")
        return [row["id"] for row in left] == [int(keeping["id"])]

    await eventually(forgotten, what="old rules are forgotten")
    assert releasing["id"] != keeping["id"]
    assert demo.account_id


async def test_held_mail_whose_time_is_over_fails_as_expired(client: httpx.AsyncClient, pool: Pool) -> None:
    late, patient = await send(client, "a@example.org", "b@example.org")
    await client.post("/v1/deliveries/hold", json={"all": True})
    await pool.execute("UPDATE delivery_queue SET expires_at = now() WHERE delivery_id = $1", int(late["id"]))

    async def failed() -> bool:
        return await state(client, late["id"]) == "failed"

    await eventually(failed, what="the sweep ends it")
    shown = (await client.get(f"/v1/deliveries/{late['id']}")).json()
    assert "expired" in shown["text"]
    events = (await client.get(f"/v1/events?delivery_id={late['id']}")).json()["data"]
    assert [event["type"] for event in events] == ["failed"]
    assert await state(client, patient["id"]) == "held"


async def test_rules_are_listed_in_pages_and_bad_ones_refused(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, demo: Demo
) -> None:
    mine = [(await make(client, reason=str(n)))["id"] for n in range(3)]
    theirs = await make(operator, account=str(demo.account_id))
    first = (await client.get("/v1/hold-rules?limit=2")).json()
    second = (await client.get(f"/v1/hold-rules?limit=2&cursor={first['next_cursor']}")).json()
    assert [rule["id"] for rule in first["data"] + second["data"]] == mine[::-1]
    assert second["next_cursor"] is None
    seen = (await operator.get("/v1/hold-rules")).json()["data"]
    assert [rule["id"] for rule in seen] == [theirs["id"], *mine[::-1]]
    assert (await operator.get("/v1/hold-rules?account=0")).json()["data"] == []

    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    for wrong, code in (
        ({"expires_at": past}, "validation_failed"),
        ({"sender_domain": "no domain"}, "address_invalid"),
        ({"recipient": "example.org"}, "address_invalid"),
        ({"reason": "x" * 1001}, "validation_failed"),
        ({"unknown": 1}, "validation_failed"),
    ):
        problem(await client.post("/v1/hold-rules", json=wrong), 422, code)
    problem(await operator.post("/v1/hold-rules", json={"account": "4711"}), 404, "not_found")
    problem(await operator.post("/v1/hold-rules", json={"account": "9" * 19}), 404, "not_found")
    problem(await operator.get(f"/v1/hold-rules/{'9' * 19}"), 404, "not_found")

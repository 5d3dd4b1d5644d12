"""No account sees, changes or even learns of what belongs to another, on any route."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from integration.api.conftest import HELLO, RunningApi, problem
from shared.db.demo import Demo
from shared.db.engine import Pool

OF_OPERATORS = (
    "/v1/accounts",
    "/v1/operator-keys",
    "/v1/operator-events",
    "/v1/retry-schedules",
    "/v1/traffic-rules",
    "/v1/transports",
    "/v1/routes",
)
ACTIONS = ("hold", "hold_all", "release", "release_all", "cancel", "cancel_all")


@dataclass
class Belongings:
    message: str
    delivery: str
    suppression: str
    endpoint: str
    rule: str
    job: str


@pytest.fixture
async def belongings(client: httpx.AsyncClient) -> Belongings:
    """What the demo account has."""
    suppression = (await client.post("/v1/suppressions", json={"address": "gone@example.org"})).json()
    sent = (await client.post("/v1/messages", json={**HELLO, "to": ["gone@example.org"], "tags": ["ours"]})).json()
    endpoint = (await client.post("/v1/endpoints", json={"url": "https://app.example.com/hook"})).json()
    rule = (await client.post("/v1/hold-rules", json={"recipient": "gone@example.org"})).json()
    return Belongings(
        sent["id"], sent["deliveries"][0]["id"], suppression["id"], endpoint["id"], rule["id"], rule["job"]["id"]
    )


@pytest.fixture
async def stranger(api: RunningApi, operator: httpx.AsyncClient, demo: Demo) -> AsyncIterator[httpx.AsyncClient]:
    """Acts for another account."""
    account = (await operator.post("/v1/accounts", json={"name": "stranger"})).json()
    key = (await operator.post(f"/v1/accounts/{account['id']}/keys", json={})).json()["key"]
    async with api.client(key) as client:
        yield client


async def test_another_accounts_things_are_not_there(
    stranger: httpx.AsyncClient, client: httpx.AsyncClient, belongings: Belongings
) -> None:
    requests = {
        "messages_get": ("GET", f"/v1/messages/{belongings.message}"),
        "deliveries_get": ("GET", f"/v1/deliveries/{belongings.delivery}"),
        "suppressions_get": ("GET", f"/v1/suppressions/{belongings.suppression}"),
        "suppressions_remove": ("DELETE", f"/v1/suppressions/{belongings.suppression}"),
        "endpoints_get": ("GET", f"/v1/endpoints/{belongings.endpoint}"),
        "endpoints_delete": ("DELETE", f"/v1/endpoints/{belongings.endpoint}"),
        "endpoints_rotate_secret": ("POST", f"/v1/endpoints/{belongings.endpoint}/rotate-secret"),
        "hold_rules_get": ("GET", f"/v1/hold-rules/{belongings.rule}"),
        "hold_rules_remove": ("DELETE", f"/v1/hold-rules/{belongings.rule}"),
        "jobs_get": ("GET", f"/v1/jobs/{belongings.job}"),
    }
    lists = {
        "messages_list": ["/v1/messages", "/v1/messages?tag=ours"],
        "deliveries_list": [
            "/v1/deliveries",
            "/v1/deliveries?tag=ours",
            f"/v1/deliveries?message_id={belongings.message}",
            "/v1/deliveries?recipient=gone@example.org",
        ],
        "suppressions_list": ["/v1/suppressions", "/v1/suppressions?address=gone@example.org"],
        "endpoints_list": ["/v1/endpoints"],
        "hold_rules_list": ["/v1/hold-rules"],
        "jobs_list": ["/v1/jobs"],
        "events_list": ["/v1/events", f"/v1/events?delivery_id={belongings.delivery}"],
    }
    numbers = {"usage_get"}
    creations = {"messages_send", "messages_send_batch", "suppressions_add", "endpoints_create", "hold_rules_create"}

    for operation, (method, path) in requests.items():
        problem(await stranger.request(method, path), 404, "not_found")
        assert method == "DELETE" or (await client.request(method, path)).status_code == 200, operation
    for paths in lists.values():
        for path in paths:
            assert (await stranger.get(path)).json()["data"] == [], path
            assert len((await client.get(path)).json()["data"]) == 1, path
    # What belongs to the demo account stands in nobody's way.
    assert (await stranger.post("/v1/suppressions", json={"address": "gone@example.org"})).status_code == 201
    problem(await stranger.post("/v1/messages", json=HELLO), 403, "from_not_allowed")
    assert (await client.get(f"/v1/suppressions/{belongings.suppression}")).status_code == 200

    document = (await client.get("/openapi.json")).json()
    of_accounts = {
        operation["operationId"]
        for path, item in document["paths"].items()
        for operation in item.values()
        if not path.startswith(OF_OPERATORS)
    }
    known = requests.keys() | lists.keys() | creations | numbers | {f"deliveries_{action}" for action in ACTIONS}
    assert of_accounts == known, "a route that this test does not know"


async def test_nobody_acts_on_another_accounts_deliveries(
    stranger: httpx.AsyncClient, client: httpx.AsyncClient, belongings: Belongings, pool: Pool
) -> None:
    live = (await client.post("/v1/messages", json=HELLO)).json()["deliveries"][0]["id"]
    await client.post(f"/v1/deliveries/{live}/hold")
    for action in ACTIONS:
        kind, _, of_many = action.partition("_")
        if of_many:
            for which in ({"all": True}, {"ids": [live]}, {"message": belongings.message}):
                job = (await stranger.post(f"/v1/deliveries/{kind}", json=which)).json()
                assert (job["changed"], job["in_flight"]) == (0, 0)
            other = await stranger.post(f"/v1/deliveries/{kind}", json={"all": True, "account": "1"})
            problem(other, 403, "forbidden")
            continue
        problem(await stranger.post(f"/v1/deliveries/{live}/{kind}"), 404, "not_found")
        # What is settled cannot be acted on by its own account; a stranger is not even told that much.
        problem(await stranger.post(f"/v1/deliveries/{belongings.delivery}/{kind}"), 404, "not_found")
        problem(await client.post(f"/v1/deliveries/{belongings.delivery}/{kind}"), 409, "conflict")
    assert (await client.get(f"/v1/deliveries/{live}")).json()["state"] == "held"
    assert await pool.fetchval("SELECT count(*) FROM event WHERE type = 'canceled'") == 0


async def test_no_route_for_operators_lets_an_account_in(client: httpx.AsyncClient, pool: Pool) -> None:
    document = (await client.get("/openapi.json")).json()
    asked = 0
    for path, item in document["paths"].items():
        if path.startswith(OF_OPERATORS):
            for method, operation in item.items():
                for name in ("account", "domain", "address", "key", "login", "schedule", "event", "transport", "route"):
                    path = path.replace(f"{{{name}}}", "1")  # noqa: PLW2901 - the template, filled in
                body = {
                    "json": {"name": "x", "algorithm": "rsa-sha256", "address": "a@b.example", "login": "a@b.example"}
                }
                options = body if "requestBody" in operation else {}
                response = await client.request(method, path, **options)
                assert response.status_code in {403, 422}, (method, path, response.text)
                asked += response.status_code == 403
    assert asked >= 20
    assert await pool.fetchval("SELECT count(*) FROM account") == 2


async def test_an_accounts_things_are_not_another_accounts_for_operators_either(
    operator: httpx.AsyncClient, demo: Demo
) -> None:
    account = (await operator.post("/v1/accounts", json={"name": "other"})).json()["id"]
    of_demo = f"/v1/accounts/{demo.account_id}"
    domain = (await operator.get(f"{of_demo}/domains")).json()["data"][0]["id"]
    dkim_key = (await operator.get(f"{of_demo}/domains/{domain}")).json()["dkim_keys"][0]["id"]
    address = (await operator.get(f"{of_demo}/addresses")).json()["data"][0]["id"]
    key = (await operator.get(f"{of_demo}/keys")).json()["data"][0]["id"]
    login = (await operator.get(f"{of_demo}/logins")).json()["data"][0]["id"]

    for method, path in (
        ("GET", f"domains/{domain}"),
        ("PATCH", f"domains/{domain}"),
        ("POST", f"domains/{domain}/verify"),
        ("POST", f"domains/{domain}/dkim-keys/{dkim_key}/activate"),
        ("POST", f"domains/{domain}/dkim-keys/{dkim_key}/deactivate"),
        ("DELETE", f"domains/{domain}/dkim-keys/{dkim_key}"),
        ("POST", f"domains/{domain}/disable"),
        ("POST", f"domains/{domain}/enable"),
        ("DELETE", f"addresses/{address}"),
        ("DELETE", f"keys/{key}"),
        ("DELETE", f"logins/{login}"),
    ):
        body = {} if method == "PATCH" else None
        problem(await operator.request(method, f"/v1/accounts/{account}/{path}", json=body), 404, "not_found")
    problem(await operator.delete(f"{of_demo}/keys/{login}"), 404, "not_found")
    problem(await operator.delete(f"{of_demo}/logins/{key}"), 404, "not_found")
    problem(await operator.delete(f"/v1/operator-keys/{key}"), 404, "not_found")
    assert (await operator.get(f"{of_demo}/keys")).json()["data"][0]["revoked_at"] is None
    assert (await operator.get(f"{of_demo}/logins")).json()["data"][0]["revoked_at"] is None

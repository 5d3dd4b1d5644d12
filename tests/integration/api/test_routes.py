"""Operators make transports and routes; mail handed in afterwards waits for the right next hop."""

import httpx
import pytest

from integration.api.conftest import HELLO, problem
from shared.db.demo import Demo
from shared.db.engine import Pool

RELAY = {"name": "smarthost", "kind": "submission", "host": "smtp.example.net", "username": "us", "password": "sesame"}


async def _site(client: httpx.AsyncClient, pool: Pool, recipient: str) -> str:
    sent = (await client.post("/v1/messages", json={**HELLO, "to": [recipient]})).json()
    query = "SELECT s.name FROM delivery_queue q JOIN lane l ON l.id = q.lane_id JOIN site s ON s.id = l.site_id WHERE q.delivery_id = $1"
    name: str = await pool.fetchval(query, int(sent["deliveries"][0]["id"]))
    return name


async def test_transports(operator: httpx.AsyncClient) -> None:
    made = await operator.post("/v1/transports", json=RELAY)
    assert made.status_code == 201, made.text
    assert "sesame" not in made.text
    transport = made.json()
    shown = {"host": "smtp.example.net", "port": 587, "tls": "verified", "username": "us", "has_password": True}
    assert transport.items() >= shown.items()
    path = f"/v1/transports/{transport['id']}"
    assert (await operator.get(path)).json() == transport
    assert (await operator.get("/v1/transports")).json()["data"] == [transport]
    changed = await operator.patch(path, json={"port": 26, "mechanisms": ["PLAIN"]})
    assert changed.json() == {**transport, "port": 26, "mechanisms": ["PLAIN"]}
    without = await operator.patch(path, json={"username": None})
    assert (without.json()["username"], without.json()["has_password"]) == (None, False)
    problem(await operator.post("/v1/transports", json=RELAY), 409, "conflict")
    for wrong in ({"name": "x", "kind": "pigeon"}, {"name": "x", "kind": "smtp"}, {**RELAY, "name": "x", "colour": 1}):
        problem(await operator.post("/v1/transports", json=wrong), 422, "validation_failed")
    problem(await operator.patch(path, json={"kind": "fail"}), 422, "validation_failed")
    assert (await operator.delete(path)).status_code == 204
    problem(await operator.get(path), 404, "not_found")
    problem(await operator.patch(path, json={}), 404, "not_found")


async def test_routes(operator: httpx.AsyncClient, demo: Demo) -> None:
    transport = (await operator.post("/v1/transports", json=RELAY)).json()
    problem(await operator.post("/v1/routes", json={"transport": "other"}), 422, "validation_failed")
    given = {"transport": "smarthost", "account_id": str(demo.account_id), "recipient_domains": ["Example.ORG"]}
    made = await operator.post("/v1/routes", json=given)
    assert made.status_code == 201, made.text
    route = made.json()
    assert route.items() >= {**given, "recipient_domains": ["example.org"], "position": 0, "min_attempts": 0}.items()
    path = f"/v1/routes/{route['id']}"
    assert (await operator.get(path)).json() == route
    changed = (await operator.patch(path, json={"min_attempts": 3})).json()
    assert changed == {**route, "min_attempts": 3}
    assert (await operator.get("/v1/routes")).json()["data"] == [changed]
    for wrong in ({"account_id": None}, {"transport": "other"}, {"recipient_domains": ["a@b"]}, {"min_attempts": 101}):
        assert (await operator.patch(path, json=wrong)).status_code == 422
    named = problem(await operator.delete(f"/v1/transports/{transport['id']}"), 409, "conflict")
    assert route["id"] in named["detail"]
    assert (await operator.delete(path)).status_code == 204
    problem(await operator.get(path), 404, "not_found")
    assert (await operator.delete(f"/v1/transports/{transport['id']}")).status_code == 204


@pytest.mark.parametrize("of_domain", [True, False])
async def test_mail_waits_where_its_route_leads_at_once(
    operator: httpx.AsyncClient, client: httpx.AsyncClient, pool: Pool, demo: Demo, of_domain: bool
) -> None:
    assert await _site(client, pool, "a@b.example") == "domain:b.example"
    await operator.post("/v1/transports", json=RELAY)
    domain = (await operator.get(f"/v1/accounts/{demo.account_id}/domains")).json()["data"][0]["id"]
    scope = {"domain_id": domain} if of_domain else {"account_id": str(demo.account_id)}
    made = await operator.post(
        "/v1/routes", json={"transport": "smarthost", "recipient_domains": [".b.example"], **scope}
    )
    assert made.status_code == 201, made.text
    # The process that made the change knows of it without a ring.
    assert await _site(client, pool, "a@x.b.example") == "transport:smarthost"
    assert await _site(client, pool, "a@c.example") == "domain:c.example"
    await operator.delete(f"/v1/routes/{made.json()['id']}")
    assert await _site(client, pool, "a@b.example") == "domain:b.example"

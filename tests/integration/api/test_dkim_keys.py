"""DKIM keys and what a domain demands of its signatures, over REST, and how each door refuses what would go out unsigned."""

from typing import Any

import httpx

from integration.api.conftest import HELLO, problem
from shared.db.demo import Demo
from shared.db.engine import Pool


async def _domain(operator: httpx.AsyncClient, demo: Demo) -> tuple[str, dict[str, Any]]:
    base = f"/v1/accounts/{demo.account_id}/domains"
    found = (await operator.get(base)).json()["data"][0]
    path = f"{base}/{found['id']}"
    return path, (await operator.get(path)).json()


async def test_a_key_takes_over_from_another(operator: httpx.AsyncClient, demo: Demo) -> None:
    path, domain = await _domain(operator, demo)
    assert domain["warnings"] == []
    old = next(key for key in domain["dkim_keys"] if key["algorithm"] == "rsa-sha256")
    new = {"algorithm": "rsa-sha256", "selector": "december", "active": False}
    made = (await operator.post(f"{path}/dkim-keys", json=new)).json()
    assert made["active"] is False
    published = {record["name"] for record in (await operator.get(path)).json()["dns_records"]}
    assert "december._domainkey.posthouse.test" in published
    assert (await operator.post(f"{path}/dkim-keys/{made['id']}/activate")).json()["active"] is True
    problem(await operator.delete(f"{path}/dkim-keys/{old['id']}"), 409, "conflict")
    assert (await operator.post(f"{path}/dkim-keys/{old['id']}/deactivate")).json()["active"] is False
    assert (await operator.delete(f"{path}/dkim-keys/{old['id']}")).status_code == 204
    problem(await operator.delete(f"{path}/dkim-keys/{old['id']}"), 404, "not_found")
    problem(await operator.post(f"{path}/dkim-keys/{old['id']}/activate"), 404, "not_found")
    problem(await operator.post(f"{path}/dkim-keys/9999999999999999999/activate"), 404, "not_found")
    left = (await operator.get(path)).json()
    assert {key["selector"] for key in left["dkim_keys"]} == {"posthouse-ed25519", "december"}


async def test_what_is_given_of_a_domain_is_changed(operator: httpx.AsyncClient, demo: Demo) -> None:
    path, domain = await _domain(operator, demo)
    assert (domain["dkim_required"], domain["dkim_expires_after_seconds"]) == (False, 604_800)
    changed = (await operator.patch(path, json={"dkim_required": True})).json()
    assert (changed["dkim_required"], changed["dkim_expires_after_seconds"]) == (True, 604_800)
    changed = (await operator.patch(path, json={"dkim_expires_after_seconds": None})).json()
    assert (changed["dkim_required"], changed["dkim_expires_after_seconds"]) == (True, None)
    assert (await operator.patch(path, json={})).json() == changed
    for wrong in ({"dkim_expires_after_seconds": 60}, {"dkim_required": None}, {"name": "other.example"}):
        problem(await operator.patch(path, json=wrong), 422, "validation_failed")
    assert (await operator.get(path)).json() == changed


async def test_a_domain_without_a_key_says_so_and_sends_unsigned_unless_it_must_not(
    operator: httpx.AsyncClient, client: httpx.AsyncClient, demo: Demo, pool: Pool
) -> None:
    path, domain = await _domain(operator, demo)
    one, two = domain["dkim_keys"]
    assert (await operator.post(f"{path}/dkim-keys/{one['id']}/deactivate")).status_code == 200
    assert (await operator.patch(path, json={"dkim_required": True})).status_code == 200
    problem(await operator.post(f"{path}/dkim-keys/{two['id']}/deactivate"), 409, "conflict")
    assert (await client.post("/v1/messages", json=HELLO)).status_code == 202

    await pool.execute("UPDATE dkim_key SET active = false")  # as a restored backup, or a hand in the database, may
    refused = problem(await client.post("/v1/messages", json=HELLO), 403, "from_not_allowed")
    assert "requires DKIM signatures" in refused["detail"]
    (warning,) = (await operator.get(path)).json()["warnings"]
    assert warning["code"] == "unsigned"
    assert "is not sent" in warning["text"]

    unsigned = (await operator.patch(path, json={"dkim_required": False})).json()
    (warning,) = unsigned["warnings"]
    assert (warning["code"], "goes out unsigned" in warning["text"]) == ("unsigned", True)
    assert (await client.post("/v1/messages", json=HELLO)).status_code == 202
    problem(await operator.patch(path, json={"dkim_required": True}), 409, "conflict")

"""Sandbox keys at every door: what they may do, what they see, and where their mail goes."""

from collections.abc import AsyncIterator

import httpx
import pytest

from integration.api.conftest import HELLO, RunningApi, problem
from integration.api.mox import Mox
from integration.api.submission_client import FROM, MAIL, TO, Lines
from integration.api.submission_door import door, lines, tls_files
from shared.db.demo import Demo
from shared.db.engine import Pool
from shared.security.credentials import split_api_key

__all__ = ["door", "lines", "tls_files"]


async def new_key(api: RunningApi, demo: Demo, **options: object) -> str:
    async with api.client(demo.admin_key) as operator:
        answer = await operator.post(f"/v1/accounts/{demo.account_id}/keys", json={"test": True, **options})
    assert answer.status_code == 201, answer.text
    key: str = answer.json()["key"]
    return key


@pytest.fixture
async def sandbox(api: RunningApi, demo: Demo) -> AsyncIterator[httpx.AsyncClient]:
    """Acts for the demo account, by a sandbox key."""
    async with api.client(await new_key(api, demo)) as client:
        yield client


async def site_of(pool: Pool, delivery: str) -> str:
    site: str = await pool.fetchval(
        "SELECT s.name FROM delivery_queue q JOIN lane l ON l.id = q.lane_id JOIN site s ON s.id = l.site_id WHERE delivery_id = $1",
        int(delivery),
    )
    return site


async def test_a_key_says_that_it_is_one_of_the_sandbox(operator: httpx.AsyncClient, demo: Demo) -> None:
    keys = f"/v1/accounts/{demo.account_id}/keys"
    made = (await operator.post(keys, json={"name": "ci", "test": True})).json()
    assert made["key"].startswith(f"ph_test_{made['key_id']}_")
    listed = {key["name"]: key["test"] for key in (await operator.get(keys)).json()["data"]}
    assert listed.pop("ci") is True
    assert set(listed.values()) == {False}


async def test_a_key_whose_text_says_otherwise_is_none(api: RunningApi, demo: Demo, sandbox: httpx.AsyncClient) -> None:
    key = sandbox.headers["authorization"].removeprefix("Bearer ")
    assert demo.account_key is not None
    for wrong in (key.replace("ph_test_", "ph_", 1), demo.account_key.replace("ph_", "ph_test_", 1)):
        async with api.client(wrong) as client:
            problem(await client.get("/v1/events"), 401, "unauthenticated")
        parts = split_api_key(wrong)
        assert parts is not None
        async with api.client() as client:
            problem(await client.get("/v1/events", auth=(parts.key_id, wrong)), 401, "unauthenticated")


async def test_what_is_handed_in_is_checked_as_ever_and_goes_to_the_sandbox(
    sandbox: httpx.AsyncClient, client: httpx.AsyncClient, pool: Pool
) -> None:
    problem(await sandbox.post("/v1/messages", json={**HELLO, "from": "a@elsewhere.example"}), 403, "from_not_allowed")
    problem(await sandbox.post("/v1/messages", json={**HELLO, "to": ["nobody"]}), 422, "address_invalid")
    sent = await sandbox.post("/v1/messages", json={**HELLO, "tags": ["ci"]})
    assert sent.status_code == 202
    real = (await client.post("/v1/messages", json=HELLO)).json()
    assert await site_of(pool, sent.json()["deliveries"][0]["id"]) == "sandbox:test"
    assert await site_of(pool, real["deliveries"][0]["id"]) == "domain:example.org"
    detail = (await sandbox.get(f"/v1/messages/{sent.json()['id']}")).json()
    assert (detail["test"], detail["tags"]) == (True, ["ci"])
    assert (await client.get(f"/v1/messages/{real['id']}")).json()["test"] is False


async def test_each_kind_of_key_sees_its_own_stream_only(sandbox: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    seen = {}
    for who in (sandbox, client):
        await who.post("/v1/suppressions", json={"address": "gone@example.org"})
        sent = (await who.post("/v1/messages", json={**HELLO, "to": ["gone@example.org"]})).json()
        assert sent["deliveries"][0]["state"] == "suppressed"
        seen[who] = (sent["id"], sent["deliveries"][0]["id"])
    for who, other in ((sandbox, client), (client, sandbox)):
        message, delivery = seen[who]
        assert [d["id"] for d in (await who.get("/v1/deliveries")).json()["data"]] == [delivery]
        events = (await who.get("/v1/events")).json()["data"]
        assert [(e["data"]["delivery"], e["test"]) for e in events] == [(delivery, who is sandbox)]
        for path in (f"/v1/messages/{message}", f"/v1/deliveries/{delivery}"):
            assert (await who.get(path)).status_code == 200
            problem(await other.get(path), 404, "not_found")
        for query in (f"/v1/deliveries?message_id={message}", f"/v1/events?delivery_id={delivery}"):
            assert len((await who.get(query)).json()["data"]) == 1
            assert (await other.get(query)).json()["data"] == []


async def test_each_kind_of_key_keeps_a_suppression_list_of_its_own(
    sandbox: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    for one, other in ((sandbox, client), (client, sandbox)):
        made = (await one.post("/v1/suppressions", json={"address": "gone@example.org"})).json()
        problem(await one.post("/v1/suppressions", json={"address": "gone@example.org"}), 409, "conflict")
        entry = f"/v1/suppressions/{made['id']}"
        assert (await one.get(entry)).status_code == 200
        problem(await other.get(entry), 404, "not_found")
        problem(await other.delete(entry), 404, "not_found")
        for path in ("/v1/suppressions", "/v1/suppressions?address=gone@example.org"):
            assert [row["id"] for row in (await one.get(path)).json()["data"]] == [made["id"]]
            assert (await other.get(path)).json()["data"] == []
        sent = (await other.post("/v1/messages", json={**HELLO, "to": ["gone@example.org"]})).json()
        assert sent["deliveries"][0]["state"] == "queued"
        assert (await one.delete(entry)).status_code == 204


async def test_what_mail_in_earnest_depends_on_can_be_read_and_not_changed(
    sandbox: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    made = (await client.post("/v1/endpoints", json={"url": "https://app.example.com/hook"})).json()
    endpoint = f"/v1/endpoints/{made['id']}"
    assert (await sandbox.get("/v1/endpoints")).json()["data"][0]["id"] == made["id"]
    assert (await sandbox.get(endpoint)).status_code == 200
    for method, path in (("POST", "/v1/endpoints"), ("DELETE", endpoint), ("POST", f"{endpoint}/rotate-secret")):
        body = {"json": {"url": "https://thief.example.com/"}} if path == "/v1/endpoints" else {}
        problem(await sandbox.request(method, path, **body), 403, "forbidden")
    assert len((await client.get("/v1/endpoints")).json()["data"]) == 1


async def test_the_webapi_takes_the_key_as_a_password(sandbox: httpx.AsyncClient, api: RunningApi, pool: Pool) -> None:
    key = sandbox.headers["authorization"].removeprefix("Bearer ")
    async with api.client() as http:
        mox = Mox(http, key.split("_")[2], key)
        sent = await mox.call("Send", {"From": [{"Address": FROM}], "To": [{"Address": TO}], "Text": "hi"})
        assert await site_of(pool, str(sent["Submissions"][0]["QueueMsgID"])) == "sandbox:test"
        gone = {"EmailAddress": "gone@example.org"}
        await mox.call("SuppressionAdd", gone)
        assert await pool.fetch("SELECT stream FROM suppression") == [("test",)]
        assert await mox.call("SuppressionPresent", gone) == {"Present": True}
        assert len((await mox.call("SuppressionList", {}))["Suppressions"]) == 1
        await pool.execute("UPDATE suppression SET stream = ''")
        assert await mox.call("SuppressionPresent", gone) == {"Present": False}
        assert await mox.call("SuppressionList", {}) == {"Suppressions": []}
        assert await mox.fault("SuppressionRemove", gone) == "error"
        assert await pool.fetchval("SELECT count(*) FROM suppression") == 1


@pytest.mark.parametrize("password", ["key", "secret"])
async def test_smtp_takes_the_key_as_a_password(
    door: RunningApi, lines: Lines, demo: Demo, pool: Pool, password: str
) -> None:
    key = await new_key(door, demo, uses_from_ids=False)
    _, _, key_id, secret = key.split("_", 3)
    await lines.login(key_id, key if password == "key" else secret)
    assert (await lines.send(MAIL)).startswith("250 2.2.0")
    row = await pool.fetchrow(
        "SELECT d.id, d.stream, m.is_test, m.door FROM delivery d JOIN message m ON m.id = d.message_id"
    )
    assert row is not None
    assert (row["stream"], row["is_test"], row["door"]) == ("test", True, "smtp")
    assert await site_of(pool, row["id"]) == "sandbox:test"
    assert (await lines.envelope("MAIL FROM:<a@elsewhere.example>")).startswith("550 5.7.1")

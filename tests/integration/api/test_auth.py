import asyncio
import base64
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from api.auth import Authenticator
from api.metrics import ApiMetrics
from fakes.waiting import eventually
from integration.api.conftest import SECRET, RunningApi, StartApi, problem
from shared.db.demo import Demo
from shared.db.engine import Pool, create_pool
from shared.errors import DatabaseUnavailable, Overloaded, Unauthenticated
from shared.metrics import Metrics
from shared.security.credentials import hash_password, new_api_key
from shared.security.keys import KeyRing


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_who_may_come_in_and_who_may_not(api: RunningApi, demo: Demo) -> None:
    key_id, secret = demo.account_key.split("_", 2)[1:]
    welcome = [
        f"Bearer {demo.account_key}",
        f"bearer  {demo.account_key}",
        basic(demo.login, demo.password),
        basic(demo.login.upper(), demo.password),
        basic("demo+anything@posthouse.test", demo.password),
        basic(key_id, secret),
        basic(key_id, demo.account_key),
    ]
    unwelcome = [
        None,
        "",
        "Bearer",
        "Bearer nonsense",
        f"Bearer {new_api_key().text}",
        f"Bearer ph_{key_id}_{new_api_key().secret}",
        f"Digest {demo.account_key}",
        "Basic",
        "Basic ###",
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic " + base64.b64encode(b"no colon").decode(),
        basic(demo.login, "wrong"),
        basic(demo.login, ""),
        basic("nobody@posthouse.test", demo.password),
        basic("demo-x@posthouse.test", demo.password),
        basic("dem+o@posthouse.test", demo.password),
        basic("not an address@", demo.password),
        basic(key_id, "wrong"),
        basic("\0", "x"),
        basic(demo.login, demo.account_key),
    ]
    async with api.client() as client:
        for value in welcome:
            response = await client.get("/v1/deliveries", headers={"Authorization": value})
            assert response.status_code == 200, (value, response.text)
        for value in unwelcome:
            headers = {"Authorization": value} if value is not None else {}
            refused = await client.get("/v1/deliveries", headers=headers)
            problem(refused, 401, "unauthenticated")
            assert "Bearer" in refused.headers["www-authenticate"]
            assert "Basic" in refused.headers["www-authenticate"]


async def test_a_body_is_not_read_before_the_credentials_are_checked(api: RunningApi) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    # The body is announced and never comes: only a server that does not wait for it can answer.
    writer.write(
        b"POST /v1/messages HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    )
    status = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    assert b" 401 " in status


async def test_each_role_has_its_routes(client: httpx.AsyncClient, operator: httpx.AsyncClient) -> None:
    problem(await client.get("/v1/accounts"), 403, "forbidden")
    problem(await client.post("/v1/operator-keys", json={}), 403, "forbidden")
    problem(await operator.get("/v1/deliveries"), 403, "forbidden")
    problem(await operator.post("/v1/messages", json={}), 403, "forbidden")


async def test_a_revoked_key_is_refused_at_once_by_the_process_that_revoked_it(
    api: RunningApi, operator: httpx.AsyncClient, demo: Demo
) -> None:
    made = (await operator.post(f"/v1/accounts/{demo.account_id}/keys", json={"name": "short-lived"})).json()
    async with api.client(made["key"]) as client:
        assert (await client.get("/v1/deliveries")).status_code == 200
        assert (await operator.delete(f"/v1/accounts/{demo.account_id}/keys/{made['id']}")).status_code == 204
        assert "revoked" in problem(await client.get("/v1/deliveries"), 401, "unauthenticated")["detail"]


async def test_a_key_revoked_elsewhere_is_refused_within_the_poll_interval(
    start_api: StartApi, demo: Demo, pool: Pool
) -> None:
    api = await start_api(poll_seconds=0.2)
    async with api.client(demo.account_key) as client:
        assert (await client.get("/v1/deliveries")).status_code == 200
        await pool.execute("UPDATE credential SET revoked_at = now() WHERE account_id = $1", demo.account_id)

        async def refused() -> bool:
            return (await client.get("/v1/deliveries")).status_code == 401

        await eventually(refused)


async def test_a_key_revoked_elsewhere_is_dropped_when_the_doorbell_rings(
    start_api: StartApi, demo: Demo, nats_url: str
) -> None:
    # Nothing is forgotten by itself here: only the ring can make the second process look again.
    first = await start_api(nats_url=nats_url, poll_seconds=30)
    second = await start_api(nats_url=nats_url, poll_seconds=30)
    async with first.client(demo.admin_key) as operator, second.client() as client:

        async def connected() -> bool:
            report = (await client.get(f"{second.url}/readyz")).json()
            return all(check["status"] == "ok" for check in report["checks"])

        await eventually(connected)
        made = (await operator.post(f"/v1/accounts/{demo.account_id}/keys", json={})).json()
        client.headers["Authorization"] = f"Bearer {made['key']}"
        assert (await client.get("/v1/deliveries")).status_code == 200
        await operator.delete(f"/v1/accounts/{demo.account_id}/keys/{made['id']}")

        async def refused() -> bool:
            return (await client.get("/v1/deliveries")).status_code == 401

        await eventually(refused)


async def test_an_expired_key_and_a_disabled_account(
    api: RunningApi, operator: httpx.AsyncClient, client: httpx.AsyncClient, demo: Demo, pool: Pool
) -> None:
    soon = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    made = (await operator.post(f"/v1/accounts/{demo.account_id}/keys", json={"expires_at": soon})).json()
    async with api.client(made["key"]) as expired:
        assert "expired" in problem(await expired.get("/v1/deliveries"), 401, "unauthenticated")["detail"]

    await pool.execute("UPDATE account SET disabled_at = now() WHERE id = $1", demo.account_id)
    problem(await client.get("/v1/deliveries"), 403, "forbidden")
    async with api.client(auth=(demo.login, "wrong")) as stranger:  # who does not know the secret learns nothing
        problem(await stranger.get("/v1/deliveries"), 401, "unauthenticated")


async def test_a_password_is_hashed_once_however_many_requests_come_with_it(demo: Demo, pool: Pool) -> None:
    metrics = ApiMetrics(Metrics("api"))
    authenticator = Authenticator(pool, KeyRing([SECRET]), metrics, seconds=30)
    header = basic(demo.login, demo.password)

    # More than may wait for argon2 at a time: they are let in all the same, because one check serves all.
    callers = await asyncio.gather(*(authenticator.identify(header) for _ in range(200)))

    assert {caller.account_id for caller in callers} == {demo.account_id}
    wrong = [authenticator.identify(basic(demo.login, f"wrong {n}")) for n in range(200)]
    answers = await asyncio.gather(*wrong, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unauthenticated, Overloaded}
    assert (await authenticator.identify(header)).account_id == demo.account_id


async def test_a_changed_password_ends_the_old_one(demo: Demo, pool: Pool) -> None:
    authenticator = Authenticator(pool, KeyRing([SECRET]), ApiMetrics(Metrics("api")), seconds=30)
    await authenticator.identify(basic(demo.login, demo.password))

    await pool.execute(
        "UPDATE credential SET password_hash = $2 WHERE public_id = $1", demo.login, hash_password("another")
    )
    authenticator.forget()
    with pytest.raises(Unauthenticated):
        await authenticator.identify(basic(demo.login, demo.password))
    assert (await authenticator.identify(basic(demo.login, "another"))).kind == "login"


async def test_without_a_database_nobody_is_called_unknown(demo: Demo, database_url: str) -> None:
    pool = await create_pool(database_url, size=1, service="test")
    authenticator = Authenticator(pool, KeyRing([SECRET]), ApiMetrics(Metrics("api")), seconds=30)
    await pool.close()

    with pytest.raises(DatabaseUnavailable):
        await authenticator.identify(f"Bearer {demo.account_key}")

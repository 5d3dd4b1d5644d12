import httpx
import pytest

from fakes.dns_server import DnsServer
from integration.api.conftest import HELLO, RunningApi, StartApi, problem
from shared.db.demo import Demo


async def test_from_an_empty_account_to_the_first_mail(start_api: StartApi, demo: Demo) -> None:
    async with DnsServer({}, negative_ttl=0) as dns:
        api = await start_api(dns_servers=dns.address)
        async with api.client(demo.admin_key) as operator:
            account = (await operator.post("/v1/accounts", json={"name": "Engines", "retry_schedule": "mox"})).json()
            assert account["dsn_to_sender"] is False
            base = f"/v1/accounts/{account['id']}"
            made = await operator.post(
                f"{base}/domains", json={"name": "Engines.Example", "bounce_domain": "b.engines.example"}
            )
            assert made.status_code == 201, made.text
            domain = made.json()
            assert domain["name"] == "engines.example"
            assert {key["algorithm"] for key in domain["dkim_keys"]} == {"rsa-sha256", "ed25519-sha256"}
            key = (await operator.post(f"{base}/keys", json={"name": "shop"})).json()
            mail = {**HELLO, "from": "ada@engines.example"}
            async with api.client(key["key"]) as client:
                problem(await client.post("/v1/messages", json=mail), 403, "from_not_allowed")
                not_yet = problem(await operator.post(f"{base}/domains/{domain['id']}/verify"), 409, "conflict")
                record = next(r for r in domain["dns_records"] if r["name"] == "_posthouse.engines.example")
                assert record["value"] in not_yet["detail"]

                dns.zone[record["name"]] = {"TXT": [f'"{record["value"]}"']}
                verified = await operator.post(f"{base}/domains/{domain['id']}/verify")

                assert verified.status_code == 200, verified.text
                assert verified.json()["verified_at"] is not None
                sent = await client.post("/v1/messages", json=mail)
                assert sent.status_code == 202, sent.text
                shown = (await client.get(f"/v1/deliveries/{sent.json()['deliveries'][0]['id']}")).json()
                assert shown["mail_from"] == f"b+{shown['from_id']}@b.engines.example"


async def test_accounts_are_listed_in_pages(operator: httpx.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        made = await operator.post("/v1/accounts", json={"name": name, "messages_per_day": 1000})
        assert made.status_code == 201
        assert made.json()["messages_per_day"] == 1000
    problem(await operator.post("/v1/accounts", json={"name": "a"}), 409, "conflict")
    problem(
        await operator.post("/v1/accounts", json={"name": "d", "retry_schedule": "never"}), 422, "validation_failed"
    )
    problem(await operator.post("/v1/accounts", json={"name": "d", "keep_calls_seconds": -1}), 422, "validation_failed")

    names: list[str] = []
    cursor = None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await operator.get("/v1/accounts", params=params)).json()
        names += [account["name"] for account in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == ["demo", "a", "b", "c"]


async def test_addresses_and_logins(api: RunningApi, operator: httpx.AsyncClient, demo: Demo) -> None:
    base = f"/v1/accounts/{demo.account_id}"
    address = await operator.post(f"{base}/addresses", json={"address": "ada@posthouse.test"})
    assert address.status_code == 201, address.text
    problem(await operator.post(f"{base}/addresses", json={"address": "ada@posthouse.test"}), 409, "conflict")
    problem(await operator.post(f"{base}/addresses", json={"address": "ada@elsewhere.test"}), 422, "validation_failed")
    login = (await operator.post(f"{base}/logins", json={"login": "ada@posthouse.test"})).json()
    async with api.client(auth=("ada@posthouse.test", login["password"])) as client:
        assert (await client.post("/v1/messages", json={**HELLO, "from": "ada@posthouse.test"})).status_code == 202
        assert (await operator.delete(f"{base}/addresses/{address.json()['id']}")).status_code == 204
        refused = await client.post("/v1/messages", json={**HELLO, "from": "ada@posthouse.test"})
        problem(refused, 403, "from_not_allowed")
        catch_all = await operator.post(f"{base}/addresses", json={"address": "@posthouse.test"})
        assert catch_all.json()["address"] == "@posthouse.test"
        assert (await client.post("/v1/messages", json={**HELLO, "from": "any@posthouse.test"})).status_code == 202
        assert (await operator.delete(f"{base}/logins/{login['id']}")).status_code == 204
        problem(await client.get("/v1/deliveries"), 401, "unauthenticated")
    chosen = await operator.post(f"{base}/logins", json={"login": "bob@posthouse.test", "password": "correct horse"})
    assert chosen.json()["password"] == "correct horse"
    listed = (await operator.get(f"{base}/logins")).json()["data"]
    assert [entry["login"] for entry in listed] == [demo.login, "ada@posthouse.test", "bob@posthouse.test"]
    assert not any("password" in entry for entry in listed)


async def test_a_secret_is_shown_once(operator: httpx.AsyncClient, client: httpx.AsyncClient, demo: Demo) -> None:
    key = (await operator.post(f"/v1/accounts/{demo.account_id}/keys", json={"name": "shop"})).json()
    assert key["key"].startswith(f"ph_{key['key_id']}_")
    listed = (await operator.get(f"/v1/accounts/{demo.account_id}/keys")).text
    # Not what follows the last underscore: a secret may have one near its end.
    assert key["key"].removeprefix(f"ph_{key['key_id']}_") not in listed

    endpoint = (
        await client.post("/v1/endpoints", json={"url": "https://app.example.com/", "authorization": "Bearer 1"})
    ).json()
    shown = (await client.get(f"/v1/endpoints/{endpoint['id']}")).json()
    assert shown == {name: value for name, value in endpoint.items() if name != "secret"}
    assert shown["has_authorization"] is True
    rotated = (await client.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret")).json()
    assert rotated["secret"] != endpoint["secret"]
    assert rotated["previous_secret_until"] is not None
    at_once = await client.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret", json={"overlap_seconds": 0})
    assert at_once.json()["previous_secret_until"] is None


async def test_operators_keys(api: RunningApi, operator: httpx.AsyncClient, demo: Demo) -> None:
    made = (await operator.post("/v1/operator-keys", json={"name": "Charles"})).json()
    async with api.client(made["key"]) as second:
        own = problem(await second.delete(f"/v1/operator-keys/{made['id']}"), 409, "conflict")
        assert "using" in own["detail"]
        first = (await second.get("/v1/operator-keys")).json()["data"][0]
        assert (await second.delete(f"/v1/operator-keys/{first['id']}")).status_code == 204
        problem(await operator.get("/v1/accounts"), 401, "unauthenticated")
        assert (await second.get("/v1/accounts")).status_code == 200


async def test_dkim_keys(operator: httpx.AsyncClient, demo: Demo) -> None:
    base = f"/v1/accounts/{demo.account_id}/domains"
    domain = (await operator.get(base)).json()["data"][0]
    new = {"algorithm": "ed25519-sha256", "selector": "december"}
    assert (await operator.post(f"{base}/{domain['id']}/dkim-keys", json=new)).status_code == 201
    problem(await operator.post(f"{base}/{domain['id']}/dkim-keys", json=new), 409, "conflict")
    shown = (await operator.get(f"{base}/{domain['id']}")).json()
    assert "december" in {key["selector"] for key in shown["dkim_keys"]}
    assert "december._domainkey.posthouse.test" in {record["name"] for record in shown["dns_records"]}
    assert "PRIVATE" not in str(shown)


async def test_suppressions(client: httpx.AsyncClient) -> None:
    added = await client.post("/v1/suppressions", json={"address": "Grace+news@Example.org", "reason": "by phone"})
    assert added.status_code == 201, added.text
    entry = added.json()
    assert entry["manual"] is True
    problem(await client.post("/v1/suppressions", json={"address": "grace@example.org"}), 409, "conflict")
    problem(await client.post("/v1/suppressions", json={"address": "grace"}), 422, "address_invalid")
    found = (await client.get("/v1/suppressions", params={"address": "GRACE@example.org"})).json()
    assert found["data"] == [entry]
    assert (await client.get(f"/v1/suppressions/{entry['id']}")).json() == entry
    assert (await client.delete(f"/v1/suppressions/{entry['id']}")).status_code == 204
    problem(await client.delete(f"/v1/suppressions/{entry['id']}"), 404, "not_found")
    assert (await client.get("/v1/suppressions")).json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("new", "status", "code", "field"),
    [
        ({"url": "ftp://app.example.com/"}, 422, "validation_failed", "url"),
        ({"url": "http://127.0.0.1/"}, 422, "validation_failed", "url"),
        ({"url": "http://169.254.169.254/latest"}, 422, "validation_failed", "url"),
        ({"url": "https://app.example.com:22/"}, 422, "validation_failed", "url"),
        ({"url": "https://app.example.com/", "events": ["opened"]}, 422, "validation_failed", "events[0]"),
        ({"url": "https://app.example.com/", "format": "mox"}, 501, "not_available_yet", "format"),
        ({"url": "https://app.example.com/", "kind": "inbound"}, 501, "not_available_yet", "kind"),
        ({"url": "https://app.example.com/", "authorization": "a\r\nb"}, 422, "validation_failed", "authorization"),
    ],
)
async def test_endpoints_that_will_not_do(
    client: httpx.AsyncClient, new: dict[str, object], status: int, code: str, field: str
) -> None:
    document = problem(await client.post("/v1/endpoints", json=new), status, code)
    assert document["errors"][0]["field"] == field
    assert (await client.get("/v1/endpoints")).json()["data"] == []


async def test_the_local_stack_takes_private_webhook_targets(start_api: StartApi, demo: Demo) -> None:
    api = await start_api(env="local", hooks_allow_private="true")
    async with api.client(demo.account_key) as client:
        made = await client.post("/v1/endpoints", json={"url": "http://127.0.0.1:5001/hook", "events": ["bounced"]})
        assert made.status_code == 201, made.text
        assert (await client.delete(f"/v1/endpoints/{made.json()['id']}")).status_code == 204
        assert (await client.get("/v1/endpoints")).json()["data"] == []
    closed = await start_api(env="local", hooks_allow_private="false")
    async with closed.client(demo.account_key) as client:
        problem(await client.post("/v1/endpoints", json={"url": "http://127.0.0.1:5001/"}), 422, "validation_failed")


async def test_events_are_read_page_by_page_each_once(client: httpx.AsyncClient) -> None:
    await client.post("/v1/suppressions", json={"address": "gone@example.org"})
    sent = [await client.post("/v1/messages", json={**HELLO, "to": ["gone@example.org"]}) for _ in range(5)]
    wanted = [response.json()["deliveries"][0]["id"] for response in sent]

    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 2, "type": ["suppressed", "bounced"]} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/events", params=params)).json()
        seen += [event["data"]["delivery"] for event in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == wanted
    assert (await client.get("/v1/events", params={"type": "bounced"})).json()["data"] == []
    later = (await client.post("/v1/messages", json={**HELLO, "to": ["gone@example.org"]})).json()
    news = (await client.get("/v1/events", params={"cursor": page["cursor"]})).json()
    assert [event["data"]["delivery"] for event in news["data"]] == [later["deliveries"][0]["id"]]

"""Cases 1 to 28 of mox's behaviour: HTTP, credentials, the form, JSON. The numbers are theirs."""

import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from integration.api.conftest import RunningApi, StartApi
from integration.api.mox import HELLO, TO, Mox, World, code_of, world
from posthouse.embedded.postgres import EmbeddedPostgres
from shared.db.demo import Demo
from shared.db.engine import Pool

pytestmark = pytest.mark.asyncio(loop_scope="module")

METHODS = (
    *("Send", "SuppressionList", "SuppressionAdd", "SuppressionRemove", "SuppressionPresent"),
    *("MessageGet", "MessageRawGet", "MessagePartGet", "MessageDelete"),
    *("MessageFlagsAdd", "MessageFlagsRemove", "MessageMove"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(
    postgres_server: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("webapi")
    async with world(postgres_server, template_database, "webapi_transport", folder) as made:
        yield made


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        pytest.param("GET", "/webapi", 303, "/webapi/", id="1-without-slash"),
        pytest.param("GET", "/webapi/", 303, "/webapi/v0/", id="1"),
        pytest.param("POST", "/webapi/", 405, None, id="2"),
        pytest.param("GET", "/webapi/v0/", 200, None, id="3"),
        pytest.param("DELETE", "/webapi/v0/", 200, None, id="3-any-verb"),
        pytest.param("GET", "/webapi/v0/Bogus", 404, None, id="4-get"),
        pytest.param("POST", "/webapi/v0/Bogus", 404, None, id="4-post"),
        pytest.param("POST", "/webapi/v0/send", 404, None, id="4-letter-case"),
        pytest.param("GET", "/webapi/v0/Send", 200, None, id="5-send"),
        pytest.param("GET", "/webapi/v0/MessageRawGet", 200, None, id="5-raw"),
        pytest.param("PUT", "/webapi/v0/Send", 405, None, id="6-put"),
        pytest.param("HEAD", "/webapi/v0/Send", 405, None, id="6-head"),
        pytest.param("OPTIONS", "/webapi/v0/Send", 405, None, id="6-options"),
        pytest.param("GET", "/webapi/other/", 404, None, id="7"),
    ],
)
async def test_paths_and_verbs(there: World, method: str, path: str, status: int, location: str | None) -> None:
    response = await there.mox.http.request(method, path)

    assert response.status_code == status
    assert response.headers.get("location") == location
    assert response.headers["x-frame-options"] == "deny"
    assert response.headers["content-security-policy"] == "default-src 'self' 'unsafe-inline' data:"
    if status == 200:
        assert response.headers["content-type"] == "text/html; charset=utf-8"


async def test_case_3_the_index_names_every_method(there: World) -> None:
    page = (await there.mox.http.get("/webapi/v0/")).text
    assert [name for name in METHODS if f">{name}<" not in page] == []
    for name in METHODS:
        assert (await there.mox.http.get(f"/webapi/v0/{name}")).status_code == 200


async def test_case_8_no_credentials_are_never_too_many(there: World) -> None:
    for headers in [{}] * 20 + [{"Authorization": value} for value in ("Basic", "Basic ###", "Bearer x", "Digest y")]:
        response = await there.mox.http.post("/webapi/v0/Send", headers=headers, data={"request": "{}"})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Basic realm=webapi"
        assert response.headers["content-type"].startswith("text/plain")


@pytest.mark.asyncio(loop_scope="function")
async def test_case_9_too_many_failures_stop_even_the_right_password(api: RunningApi, demo: Demo) -> None:
    async with api.client() as http:
        mox = Mox(http, demo.login, demo.password)
        for _ in range(10):
            assert (await mox.as_(demo.login, "wrong").raw("SuppressionList", {})).status_code == 401
        assert (await mox.as_(demo.login, "wrong").raw("SuppressionList", {})).status_code == 429
        assert (await mox.raw("SuppressionList", {})).status_code == 429
        assert (await http.post("/webapi/v0/SuppressionList")).status_code == 401


async def test_case_10_a_success_clears_the_failures(there: World) -> None:
    for _ in range(2):
        for _ in range(9):
            assert (await there.mox.as_("demo@posthouse.test", "wrong").raw("Send", {})).status_code == 401
        await there.mox.call("SuppressionList", {})


@pytest.mark.asyncio(loop_scope="function")
async def test_case_11_a_disabled_account(api: RunningApi, demo: Demo, pool: Pool) -> None:
    await pool.execute("UPDATE account SET disabled_at = now() WHERE id = $1", demo.account_id)
    async with api.client() as http:
        right = await Mox(http, demo.login, demo.password).raw("SuppressionList", {})
        wrong = await Mox(http, demo.login, "wrong").raw("SuppressionList", {})
    assert (right.status_code, wrong.status_code) == (401, 401)
    assert "disabled" in right.text
    assert "disabled" not in wrong.text


@pytest.mark.asyncio(loop_scope="function")
async def test_case_12_behind_a_proxy_the_client_has_to_be_named(start_api: StartApi, demo: Demo) -> None:
    api = await start_api(trusted_proxies="127.0.0.0/8")
    async with api.client() as http:
        mox = Mox(http, demo.login, demo.password)
        assert (await mox.raw("SuppressionList", {})).status_code == 500
        for _ in range(11):
            refused = await mox.as_(demo.login, "wrong").post("Send", headers={"X-Forwarded-For": "192.0.2.1"})
        assert refused.status_code == 429
        other = await mox.post("SuppressionList", data={"request": "{}"}, headers={"X-Forwarded-For": "192.0.2.200"})
        assert other.status_code == 200


async def test_case_13_a_password_in_any_normal_form(there: World) -> None:
    async with there.api.client(there.demo.admin_key) as operator:
        made = await operator.post(
            f"/v1/accounts/{there.demo.account_id}/logins",
            json={"login": "nfd@posthouse.test", "password": unicodedata.normalize("NFD", "grün\u2003wie gras")},
        )
        assert made.status_code == 201, made.text
    await there.mox.as_("nfd@posthouse.test", "grün wie gras").call("SuppressionList", {})
    await there.mox.as_("nfd@posthouse.test", unicodedata.normalize("NFD", "grün wie\u00a0gras")).call(
        "SuppressionList", {}
    )


@pytest.mark.parametrize("login", ["demo@nowhere.example", "nobody@posthouse.test", "demo", "@", "a b@posthouse.test"])
async def test_case_14_unknown_logins(there: World, login: str) -> None:
    response = await there.mox.as_(login).raw("SuppressionList", {})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Basic realm=webapi"
    await there.mox.call("SuppressionList", {})  # so that these failures do not add up


async def test_case_15_a_suffix_is_the_same_login_and_stands_in_from(there: World) -> None:
    sent = await there.mox.as_("Demo+anything@posthouse.test").call("Send", HELLO)
    row = await there.pool.fetchrow(
        "SELECT m.sender, d.mail_from FROM delivery d JOIN message m ON m.id = d.message_id WHERE d.id = $1",
        sent["Submissions"][0]["QueueMsgID"],
    )
    assert row is not None
    assert row["sender"] == "Demo+anything@posthouse.test"


async def test_an_api_key_is_a_login_too_but_has_no_address(there: World) -> None:
    key_id, secret = there.demo.account_key.split("_", 2)[1:]
    by_key = there.mox.as_(key_id, secret)
    assert await by_key.fault("Send", HELLO) == "badFrom"
    await by_key.call("Send", {**HELLO, "From": [{"Address": "anyone@posthouse.test"}]})
    operator_id, operator_secret = there.demo.admin_key.split("_", 2)[1:]
    assert (await there.mox.as_(operator_id, operator_secret).raw("Send", HELLO)).status_code == 401


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        pytest.param("application/json", "{}", id="16"),
        pytest.param(None, "request={}", id="17"),
        pytest.param("///", "request={}", id="17-garbage"),
        pytest.param("multipart/form-data", "request={}", id="18"),
        pytest.param("multipart/form-data; boundary=x", "--x\r\ncut off", id="18-cut-off"),
        pytest.param(FORM, "other=1", id="19"),
        pytest.param(FORM, "request=", id="19-empty"),
        pytest.param(FORM, "request=%zz", id="19-escape"),
        pytest.param(FORM, "request=notjson", id="20"),
        pytest.param(FORM, "request=[]", id="20-array"),
        pytest.param(FORM, "request=%22x%22", id="20-string"),
        pytest.param(FORM, "request=%ff", id="20-octets"),
        pytest.param(FORM, "request=" + "[" * 100_000, id="20-depth"),
        pytest.param(FORM, "request={%22Bogus%22:1}", id="21"),
        pytest.param(FORM, "request={%22To%22:[{%22Bogus%22:1}]}", id="21-nested"),
        pytest.param(FORM, "request={%22Text%22:1}", id="21-type"),
        pytest.param(FORM, "request={%22To%22:{}}", id="21-no-array"),
        pytest.param(FORM, "request={%22SaveSent%22:0}", id="21-no-boolean"),
        pytest.param(FORM, "request={%22Extra%22:{%22a%22:1}}", id="21-no-string"),
        pytest.param(FORM, "request={%22Text%22:NaN}", id="21-no-json"),
        pytest.param(FORM, "request=" + "x" * (11 << 20), id="25"),
    ],
)
async def test_what_is_no_request(there: World, content_type: str | None, body: str) -> None:
    headers = {"Content-Type": content_type} if content_type is not None else {}
    assert code_of(await there.mox.post("Send", content=body, headers=headers)) == "protocol"


async def test_case_22_keys_in_any_letter_case(there: World) -> None:
    await there.mox.call("Send", {"tO": [{"ADDRESS": "a@example.org", "nAme": "A"}], "TEXT": "x", "html": "y"})


async def test_case_23_null_is_the_empty_request(there: World) -> None:
    assert await there.mox.fault("Send", None) == "missingBody"
    nulls: dict[str, Any] = dict.fromkeys(("From", "CC", "Subject", "Extra", "Headers", "RequireTLS", "Date"))
    await there.mox.call("Send", {**HELLO, **nulls})


async def test_case_24_what_follows_the_json_is_ignored(there: World) -> None:
    await there.mox.call("SuppressionList", "{} and more")


async def test_the_first_of_two_fields_counts(there: World) -> None:
    response = await there.mox.post("SuppressionList", data={"request": ["{}", "notjson"]})
    assert response.status_code == 200
    assert code_of(await there.mox.post("SuppressionList", data={"request": ["notjson", "{}"]})) == "protocol"


async def test_case_26_a_request_in_the_url_is_none(there: World) -> None:
    response = await there.mox.post("SuppressionList?request={}", content="", headers={"Content-Type": FORM})
    assert code_of(response) == "protocol"


async def test_case_27_lists_are_never_null_and_nothing_is_escaped(there: World) -> None:
    response = await there.other.raw("SuppressionList", {})
    assert response.text == '{"Suppressions":[]}\n'
    await there.other.call("SuppressionAdd", {"EmailAddress": "x@example.org", "Reason": "<&>"})
    assert '"Reason":"<&>"' in (await there.other.raw("SuppressionList", {})).text
    await there.other.call("SuppressionRemove", {"EmailAddress": "x@example.org"})


@pytest.mark.asyncio(loop_scope="function")
async def test_case_28_an_internal_failure_is_400_server(api: RunningApi, demo: Demo, pool: Pool) -> None:
    async with api.client() as http:
        mox = Mox(http, demo.login, demo.password)
        await mox.call("Send", HELLO)
        await pool.execute("ALTER TABLE message RENAME TO message_gone")
        await pool.execute("ALTER TABLE suppression RENAME TO suppression_gone")
        assert await mox.fault("SuppressionList", {}) == "server"
        assert await mox.fault("Send", HELLO) == "server"


async def test_calls_are_counted_by_method_and_messages_by_door(there: World) -> None:
    await there.mox.call("Send", HELLO)
    metrics = (await there.mox.http.get("/metrics")).text
    assert 'posthouse_api_submissions_total{door="webapi",result="accepted"}' in metrics
    assert 'posthouse_api_request_seconds_count{operation="webapi_Send",status="200"}' in metrics


async def test_methods_of_a_later_version_say_so(there: World) -> None:
    response = await there.mox.raw("MessageGet", {"MsgID": 1})
    assert response.status_code == 404
    assert response.json()["Code"] == "protocol"
    assert "not available" in response.json()["Message"]


async def test_a_page_of_another_site_cannot_use_the_password_that_a_browser_remembers(there: World) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    response = await there.mox.post("Send", data={"request": "{}"}, headers=headers)
    assert response.status_code == 403


@pytest.mark.asyncio(loop_scope="function")
async def test_a_body_over_every_limit_is_too_large(start_api: StartApi, demo: Demo) -> None:
    api = await start_api(max_request_bytes=100_000)
    async with api.client() as http:
        mox = Mox(http, demo.login, demo.password)
        file = ("attachedfile", ("a.bin", b"x" * 200_000, "application/octet-stream"))
        assert await mox.fault("Send", HELLO, [file]) == "messageTooLarge"
        await mox.call("Send", HELLO)


async def test_text_that_cannot_be_stored_is_the_callers_mistake(there: World) -> None:
    for text in ("\0", "\ud800"):
        assert await there.mox.fault("Send", {**HELLO, "Subject": text}) == "user"
        assert await there.mox.fault("Send", {**TO, "Extra": {text: "x"}}) == "user"

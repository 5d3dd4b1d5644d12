"""What ``/metrics`` says of the three doors: whatever comes in moves just what it should, by one."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from integration.api.conftest import HELLO as REST_HELLO
from integration.api.counted import DOORS, Moved, moved, one, series
from integration.api.mox import HELLO, TO, World, basic, world
from integration.api.submission_client import FROM, MAIL, Lines, b64, challenge, plain, scram_final
from integration.api.submission_client import TO as GRACE
from integration.api.submission_door import issue
from posthouse.embedded.postgres import EmbeddedPostgres
from shared.security.credentials import new_api_key

pytestmark = pytest.mark.asyncio(loop_scope="module")

Act = Callable[[World], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(
    postgres_server: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """As the local stack: a password may be said without TLS."""
    folder = tmp_path_factory.mktemp("metrics")
    settings = {"env": "local", "submission_host": "127.0.0.1", "submission_port": 0, "submissions_port": 0}
    limits = {"max_message_bytes": 20_000}
    async with world(
        postgres_server, template_database, "metrics", folder, **settings, **limits, **issue(folder)
    ) as made:
        yield made


def submitted(door: str, result: str) -> Moved:
    return one(f"submissions_total{{{door},{result}}}")


def authenticated(door: str, mechanism: str, result: str = "ok") -> Moved:
    return one(f"authentications_total{{{door},{mechanism},{result}}}")


@dataclass(frozen=True)
class Case:
    name: str
    act: Act
    moves: Moved


async def check(there: World, case: Case) -> None:
    before = await series(there.mox.http, DOORS)
    await case.act(there)
    assert await moved(there.mox.http, before) == case.moves


# REST


def posts(body: Any = REST_HELLO, *, key: str | None = None, status: int = 202, **headers: str) -> Act:
    """Hand in by REST."""

    async def act(there: World) -> None:
        given = {"Authorization": f"Bearer {key or there.demo.account_key}", "Content-Type": "application/json"}
        content = body if isinstance(body, str) else json.dumps(body)
        wanted = {**given, **{name.replace("_", "-"): value for name, value in headers.items()}}
        sent = {name: value for name, value in wanted.items() if value}
        answer = await there.mox.http.post("/v1/messages", content=content, headers=sent)
        assert answer.status_code == status, answer.text

    return act


async def posts_as_operator(there: World) -> None:
    await posts(key=there.demo.admin_key, status=403)(there)


async def posts_with_a_login(there: World) -> None:
    await posts(**basic(there.demo.login, there.demo.password))(there)


async def posts_with_two_keys(there: World) -> None:
    headers = [("Authorization", f"Bearer {there.demo.account_key}")] * 2
    answer = await there.mox.http.post("/v1/messages", json=REST_HELLO, headers=headers)
    assert answer.status_code == 400


async def looks_up(there: World) -> None:
    headers = {"Authorization": f"Bearer {there.demo.account_key}"}
    assert (await there.mox.http.get("/v1/messages/1", headers=headers)).status_code == 404


BEARER = authenticated("rest", "bearer")
REST = [
    Case("accepted", posts(), BEARER | submitted("rest", "accepted")),
    Case("with a login", posts_with_a_login, authenticated("rest", "basic") | submitted("rest", "accepted")),
    Case("not JSON", posts("{", status=400), BEARER | submitted("rest", "malformed_json")),
    Case("not a message", posts({}, status=422), BEARER | submitted("rest", "validation_failed")),
    Case("a type", posts("x", status=415, Content_Type="text/x"), BEARER | submitted("rest", "unsupported_media_type")),
    Case("nobody", posts({**REST_HELLO, "to": []}, status=422), BEARER | submitted("rest", "no_recipients")),
    Case("no address", posts({**REST_HELLO, "to": ["x"]}, status=422), BEARER | submitted("rest", "address_invalid")),
    Case(
        "too large", posts({**REST_HELLO, "text": "x\n" * 15_000}, status=413), BEARER | submitted("rest", "too_large")
    ),
    Case(
        "another's From",
        posts({**REST_HELLO, "from": "a@other.example"}, status=403),
        BEARER | submitted("rest", "from_not_allowed"),
    ),
    Case(
        "a From that is off",
        posts({**REST_HELLO, "from": "demo@off.example"}, status=403),
        BEARER | submitted("rest", "domain_disabled"),
    ),
    Case(
        "no key",
        posts(status=401, Authorization=""),
        authenticated("rest", "none", "missing") | submitted("rest", "unauthenticated"),
    ),
    Case(
        "an unknown key",
        posts(key=new_api_key().text, status=401),
        authenticated("rest", "bearer", "unknown_key") | submitted("rest", "unauthenticated"),
    ),
    Case(
        "a key that is none",
        posts(key="nonsense", status=401),
        authenticated("rest", "bearer", "malformed") | submitted("rest", "unauthenticated"),
    ),
    Case(
        "another scheme",
        posts(status=401, Authorization="Digest x"),
        authenticated("rest", "other", "malformed") | submitted("rest", "unauthenticated"),
    ),
    Case("an operator", posts_as_operator, BEARER | submitted("rest", "forbidden")),
    Case("two headers", posts_with_two_keys, submitted("rest", "bad_input")),
    Case("a look-up is no submission", looks_up, BEARER),
]


@pytest.mark.parametrize("case", REST, ids=lambda case: case.name)
async def test_rest_moves(there: World, case: Case) -> None:
    await check(there, case)


# The webapi


def calls(method: str, request: object, status: int = 200, **options: Any) -> Act:
    """Call a method as the demo account."""

    async def act(there: World) -> None:
        document = request if isinstance(request, str) else json.dumps(request)
        answer = await there.mox.post(method, data={"request": document}, **options)
        assert answer.status_code == status, answer.text

    return act


def calls_with(headers: Mapping[str, str], status: int) -> Act:
    """Call Send with other headers."""

    async def act(there: World) -> None:
        data = {"request": json.dumps(HELLO)}
        answer = await there.mox.http.post("/webapi/v0/Send", data=data, headers=dict(headers))
        assert answer.status_code == status, answer.text

    return act


async def calls_as_operator(there: World) -> None:
    _, key_id, _ = there.demo.admin_key.split("_", 2)
    await calls_with(basic(key_id, there.demo.admin_key), 401)(there)


async def reads_pages(there: World) -> None:
    for path in ("", "Send"):
        assert (await there.mox.http.get(f"/webapi/v0/{path}")).status_code == 200
    assert (await there.mox.http.put("/webapi/v0/Send")).status_code == 405
    assert (await there.mox.raw("MessageGet", {})).status_code == 404


BASIC = authenticated("webapi", "basic")


def called(method: str, result: str) -> Moved:
    """A call that came as far as the check of its credentials."""
    return one(f"webapi_results_total{{{method},{result}}}", f"webapi_seconds_count{{{method}}}")


def refused(result: str, code: str) -> Moved:
    """A Send that was refused for what it says."""
    return BASIC | called("Send", result) | submitted("webapi", code)


def not_let_in(mechanism: str, reason: str, *, checked: bool = True) -> Moved:
    results = called("Send", "badauth") if checked else one("webapi_results_total{Send,badauth}")
    return authenticated("webapi", mechanism, reason) | results | submitted("webapi", "unauthenticated")


def without_basic(authorization: str) -> Act:
    return calls_with({"Authorization": authorization} if authorization else {}, 401)


WEBAPI = [
    Case("accepted", calls("Send", HELLO), refused("ok", "accepted")),
    Case("another method", calls("SuppressionList", {}), BASIC | called("SuppressionList", "ok")),
    Case(
        "another method's fault",
        calls("SuppressionAdd", {"EmailAddress": "x"}, 400),
        BASIC | called("SuppressionAdd", "badAddress"),
    ),
    Case("not JSON", calls("Send", "{", 400), refused("protocol", "validation_failed")),
    Case("no body", calls("Send", TO, 400), refused("missingBody", "validation_failed")),
    Case("no recipient", calls("Send", {"Text": "x"}, 400), refused("noRecipients", "no_recipients")),
    Case(
        "no address", calls("Send", {**HELLO, "To": [{"Address": "x"}]}, 400), refused("badAddress", "address_invalid")
    ),
    Case(
        "two From",
        calls("Send", {**HELLO, "From": [{"Address": FROM}] * 2}, 400),
        refused("multipleFrom", "validation_failed"),
    ),
    Case(
        "another's From",
        calls("Send", {**HELLO, "From": [{"Address": "ada@other.example"}]}, 400),
        refused("badFrom", "from_not_allowed"),
    ),
    Case(
        "a From that is off",
        calls("Send", {**HELLO, "From": [{"Address": "demo@off.example"}]}, 400),
        refused("domainDisabled", "domain_disabled"),
    ),
    Case(
        "another's From, and more is wrong",
        calls("Send", {**HELLO, "From": [{"Address": "ada@other.example"}], "MessageID": "x"}, 400),
        refused("badFrom", "from_not_allowed"),
    ),
    Case(
        "a Message-ID",
        calls("Send", {**HELLO, "MessageID": "x"}, 400),
        refused("malformedMessageID", "validation_failed"),
    ),
    Case("too large", calls("Send", {**HELLO, "Text": "x\n" * 15_000}, 400), refused("messageTooLarge", "too_large")),
    Case(
        "too late",
        calls("Send", {**HELLO, "FutureRelease": "2999-01-01T00:00:00Z"}, 400),
        refused("user", "validation_failed"),
    ),
    Case("a wrong password", calls_with(basic(FROM, "wrong"), 401), not_let_in("basic", "wrong_password")),
    Case("a stranger", calls_with(basic("x@y.example", "wrong"), 401), not_let_in("basic", "unknown_login")),
    Case("nobody", without_basic(""), not_let_in("none", "missing", checked=False)),
    Case("a key as bearer", without_basic("Bearer x"), not_let_in("bearer", "malformed", checked=False)),
    Case("no colon", without_basic("Basic eA=="), not_let_in("basic", "malformed", checked=False)),
    Case("an operator", calls_as_operator, not_let_in("basic", "operator")),
    Case(
        "another site's page",
        calls("Send", HELLO, 403, headers={"Sec-Fetch-Site": "cross-site"}),
        one("webapi_results_total{Send,forbidden}") | submitted("webapi", "forbidden"),
    ),
    Case("pages, and methods of a later version", reads_pages, {}),
]


@pytest.mark.parametrize("case", WEBAPI, ids=lambda case: case.name)
async def test_webapi_moves(there: World, case: Case) -> None:
    await check(there, case)


# SMTP


def says(*commands: str, last: str, login: bool = True, tls: bool = True) -> Act:
    """Run a session, whose last reply begins so."""

    async def act(there: World) -> None:
        address = there.api.addresses["submissions" if tls else "submission"]
        lines = await Lines.connect(address, implicit=tls)
        await lines.say("EHLO c.test")
        reply = await lines.say(plain(there.demo.login, there.demo.password)) if login else ""
        for command in commands:
            reply = await lines.say(command)
        assert reply.startswith(last), reply
        lines.close()

    return act


async def logs_in_as_operator(there: World) -> None:
    _, key_id, _ = there.demo.admin_key.split("_", 2)
    await says(plain(key_id, there.demo.admin_key), last="535", login=False)(there)


def proves(password: str | None, last: str) -> Act:
    """Log in by SCRAM, with the right password where it is None."""

    async def act(there: World) -> None:
        lines = await Lines.connect(there.api.addresses["submissions"])
        await lines.say("EHLO c.test")
        bare = f"n={FROM},r=abcdefghijkl"
        first = challenge(await lines.say(f"AUTH SCRAM-SHA-256 {b64('n,,' + bare)}"))
        final, _ = scram_final(password or there.demo.password, bare, first)
        reply = await lines.say(b64(final))
        if reply.startswith("334"):
            reply = await lines.say("")
        assert reply.startswith(last)
        lines.close()

    return act


async def says_login(there: World) -> None:
    await says("AUTH LOGIN", b64(there.demo.login), b64(there.demo.password), last="235", login=False)(there)


PLAIN = authenticated("smtp", "plain")
GOOD, RCPT = f"MAIL FROM:<{FROM}>", f"RCPT TO:<{GRACE}>"
ENVELOPE = (GOOD, RCPT, "DATA")
LARGE = MAIL + "x" * 70 + "\r\n" + ("x" * 70 + "\r\n") * 300 + "."


def refused_by_smtp(code: str) -> Moved:
    return PLAIN | submitted("smtp", code)


SUBMISSION = [
    Case("accepted", says(*ENVELOPE, MAIL + ".", last="250"), refused_by_smtp("accepted")),
    Case("given up", says(GOOD, RCPT, "RSET", "QUIT", last="221"), PLAIN),
    Case("nobody", says(GOOD, last="530", login=False), submitted("smtp", "unauthenticated")),
    Case("another's sender", says("MAIL FROM:<a@other.example>", last="550 5.7.1"), refused_by_smtp("from_not_allowed")),
    Case("a sender that is off", says("MAIL FROM:<demo@off.example>", last="451"), refused_by_smtp("domain_disabled")),
    Case("a sender that is none", says("MAIL FROM:<a@b_c>", last="550 5.7.1"), refused_by_smtp("address_invalid")),
    Case("REQUIRETLS=x", says(f"{GOOD} REQUIRETLS=x", last="501"), refused_by_smtp("validation_failed")),
    Case("REQUIRETLS without TLS", says(f"{GOOD} REQUIRETLS", last="523", tls=False), refused_by_smtp("needs_tls")),
    Case("HOLDFOR=x", says(f"{GOOD} HOLDFOR=x", last="501"), refused_by_smtp("validation_failed")),
    Case("an unknown parameter", says(f"{GOOD} X=y", last="555"), refused_by_smtp("validation_failed")),
    Case("SIZE", says(f"{GOOD} SIZE=99999999", last="552"), refused_by_smtp("too_large")),
    Case("too large", says(*ENVELOPE, LARGE, last="552"), refused_by_smtp("too_large")),
    Case("a bare line end", says(*ENVELOPE, MAIL + "x\ny\r\n.", last="500"), refused_by_smtp("validation_failed")),
    Case(
        "chunks too large",
        says(GOOD, RCPT, "BDAT 30000\r\n" + "x" * 29_998, "BDAT 3\r\nx", last="503"),
        refused_by_smtp("too_large"),
    ),
    Case("no empty line", says(*ENVELOPE, "Subject: x\r\n.", last="554 5.6.0"), refused_by_smtp("validation_failed")),
    Case(
        "another's From",
        says(*ENVELOPE, MAIL.replace(FROM, "a@other.example") + ".", last="550 5.7.1"),
        refused_by_smtp("from_not_allowed"),
    ),
    Case(
        "a key twice",
        says(*ENVELOPE, "X-Mox-Extra-A: 1\r\nX-Mox-Extra-a: 2\r\n" + MAIL + ".", last="554"),
        refused_by_smtp("validation_failed"),
    ),
    Case("LOGIN", says_login, authenticated("smtp", "login")),
    Case("a wrong password", says(plain(FROM, "x"), last="535", login=False), authenticated("smtp", "plain", "wrong_password")),
    Case("a stranger", says(plain("a@b.example", "x"), last="535", login=False), authenticated("smtp", "plain", "unknown_login")),
    Case("an unknown key", says(plain("aaaaaaaaaaaa", "x"), last="535", login=False), authenticated("smtp", "plain", "unknown_key")),
    Case("no words", says(f"AUTH PLAIN {b64('x')}", last="501", login=False), authenticated("smtp", "plain", "malformed")),
    Case(
        "another identity",
        says(f"AUTH PLAIN {b64(chr(0).join(('x@y.example', FROM, 'x')))}", last="535", login=False),
        authenticated("smtp", "plain", "another_identity"),
    ),
    Case("no SCRAM", says(f"AUTH SCRAM-SHA-256 {b64('x')}", last="501", login=False), authenticated("smtp", "scram-sha-256", "malformed")),
    Case("SCRAM", proves(None, "235"), authenticated("smtp", "scram-sha-256")),
    Case("a wrong proof", proves("x", "535"), authenticated("smtp", "scram-sha-256", "wrong_proof")),
    Case("an operator", logs_in_as_operator, authenticated("smtp", "plain", "operator")),
]  # fmt: skip


@pytest.mark.parametrize("case", SUBMISSION, ids=lambda case: case.name)
async def test_smtp_moves(there: World, case: Case) -> None:
    await check(there, case)

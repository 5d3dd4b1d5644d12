"""Who may write as whom: one table for every door, with a login and with an API key."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

import httpx
import pytest

from integration.api.conftest import HELLO, RunningApi, StartApi, problem
from integration.api.mox import Mox
from integration.api.submission_client import MAIL, TO, Lines
from integration.api.submission_door import tls_files
from shared.db.accounts import add_address, create_account
from shared.db.demo import Demo
from shared.db.domains import create_domain, mark_verified, set_domain_disabled
from shared.db.engine import Pool, create_engine, session_factory

__all__ = ["tls_files"]

Verdict = Literal["yes", "no", "off"]

# From, what becomes of it with the account's login, and with its API key.
ALWAYS: list[tuple[str, Verdict, Verdict]] = [
    ("demo@posthouse.test", "yes", "yes"),
    ("Demo@PostHouse.Test", "yes", "yes"),
    ("demo+suffix@posthouse.test", "yes", "yes"),
    ("demo+a+b@posthouse.test", "yes", "yes"),
    ("demo+@posthouse.test", "yes", "yes"),
    # The demo account has this one address: that local mode takes mail for any recipient gives it no other.
    ("other@posthouse.test", "no", "yes"),
    ("demonstration@posthouse.test", "no", "yes"),
    ("demo-suffix@posthouse.test", "no", "yes"),
    ("+demo@posthouse.test", "no", "yes"),
    ("demo@sub.posthouse.test", "no", "no"),
    # A domain with a separator of its own.
    ("box@second.test", "yes", "yes"),
    ("box-suffix@second.test", "yes", "yes"),
    ("box+suffix@second.test", "no", "yes"),
    # A catch-all.
    ("any@all.test", "yes", "yes"),
    ("any+suffix@all.test", "yes", "yes"),
    # Switched off: told as such only to who might use it otherwise.
    ("me@off.test", "off", "off"),
    ("me+suffix@off.test", "off", "off"),
    ("another@off.test", "no", "off"),
    # Another account has proven it; that this one has added it too gives no right to it.
    ("me@theirs.test", "no", "no"),
    ("ada@theirs-alone.test", "no", "no"),
    ("me@nowhere.test", "no", "no"),
]
UNPROVEN: list[tuple[str, Verdict, Verdict]] = [("me@unproven.test", "no", "no"), ("you@unproven.test", "no", "no")]
UNPROVEN_IN_LOCAL_MODE: list[tuple[str, Verdict, Verdict]] = [
    ("me@unproven.test", "yes", "yes"),
    ("you@unproven.test", "no", "yes"),
]

Door = Callable[[str], Awaitable[Verdict]]


@pytest.fixture
async def domains(database_url: str, demo: Demo) -> None:
    engine = create_engine(database_url, size=1, service="test")
    async with session_factory(engine)() as session, session.begin():
        other = await create_account(session, "other")
        for account, name, proven, address in (
            (demo.account_id, "second.test", True, "box@second.test"),
            (demo.account_id, "all.test", True, "@all.test"),
            (demo.account_id, "off.test", True, "me@off.test"),
            (demo.account_id, "unproven.test", False, "me@unproven.test"),
            (demo.account_id, "theirs.test", False, "me@theirs.test"),
            (other.id, "theirs.test", True, "me@theirs.test"),
            (other.id, "theirs-alone.test", True, "ada@theirs-alone.test"),
            (other.id, "posthouse.test", False, "demo@posthouse.test"),
        ):
            separators = ("-",) if name == "second.test" else ("+",)
            domain = await create_domain(session, account, name, separators=separators)
            await add_address(session, account, address)
            if proven:
                await mark_verified(session, account, domain.id)
            if name == "off.test":
                await set_domain_disabled(session, account, domain.id, disabled=True)
    await engine.dispose()


class Doors:
    """Every way in, for one credential."""

    def __init__(self, http: httpx.AsyncClient, mox: Mox, lines: Lines) -> None:
        self.http, self.mox, self.lines = http, mox, lines

    def all(self) -> dict[str, Door]:
        return {
            "parts": self.parts,
            "raw": self.raw,
            "whole": self.whole,
            "webapi": self.webapi,
            "MAIL FROM": self.mail_from,
            "From by SMTP": self.header,
        }

    async def parts(self, sender: str) -> Verdict:
        return self._of_rest(await self.http.post("/v1/messages", json={**HELLO, "from": sender}), "from.address")

    async def raw(self, sender: str) -> Verdict:
        raw = base64.b64encode(mail(sender)).decode()
        return self._of_rest(await self.http.post("/v1/messages", json={"raw": raw}), "raw.from")

    async def whole(self, sender: str) -> Verdict:
        options = {"content": mail(sender), "headers": {"Content-Type": "message/rfc822"}}
        return self._of_rest(await self.http.post("/v1/messages", **options), "raw.from")  # type: ignore[arg-type]  # of two types

    async def webapi(self, sender: str) -> Verdict:
        request = {"From": [{"Address": sender}], "To": [{"Address": TO}], "Text": "x"}
        answer = await self.mox.raw("Send", request)
        if answer.status_code == 200:
            return "yes"
        assert answer.status_code == 400
        return {"badFrom": "no", "domainDisabled": "off"}[answer.json()["Code"]]  # type: ignore[return-value]  # of Verdict

    async def mail_from(self, sender: str) -> Verdict:
        verdict = self._of_smtp(await self.lines.say(f"MAIL FROM:<{sender}>"))
        assert (await self.lines.say("RSET")).startswith("250")
        return verdict

    async def header(self, sender: str) -> Verdict:
        return self._of_smtp(await self.lines.send(mail(sender).decode(), mail="MAIL FROM:<>"))

    def _of_smtp(self, reply: str) -> Verdict:
        found: dict[str, Verdict] = {"250": "yes", "550 5.7.1": "no", "451 4.3.0": "off"}
        return next(verdict for start, verdict in found.items() if reply.startswith(start))

    def _of_rest(self, response: httpx.Response, field: str) -> Verdict:
        if response.status_code == 202:
            return "yes"
        document = problem(response, 403, "from_not_allowed")
        assert [error["field"] for error in document["errors"]] == [field]
        return "off" if document.get("domain_disabled") is True else "no"


def mail(sender: str) -> bytes:
    return MAIL.replace("demo@posthouse.test", sender).encode()


async def doors_of(api: RunningApi, demo: Demo, credential: str) -> AsyncIterator[Doors]:
    user, password = demo.login, demo.password
    if credential == "key":
        user, password = demo.account_key.split("_")[1], demo.account_key
    lines = await Lines.connect(api.addresses["submissions"])
    await lines.login(user, password)
    async with api.client(auth=(user, password)) as http, api.client() as plain:
        yield Doors(http, Mox(plain, user, password), lines)
    lines.close()


@pytest.mark.parametrize("env", ["production", "local"])
@pytest.mark.parametrize("credential", ["login", "key"])
async def test_every_door_has_the_same_rules(
    start_api: StartApi,
    demo: Demo,
    domains: None,
    tls_files: dict[str, Path],
    pool: Pool,
    env: str,
    credential: str,
) -> None:
    api = await start_api(env=env, submission_host="127.0.0.1", submissions_port=0, **tls_files)
    rows = [*ALWAYS, *(UNPROVEN_IN_LOCAL_MODE if env == "local" else UNPROVEN)]
    wanted = {sender: login if credential == "login" else key for sender, login, key in rows}
    async for doors in doors_of(api, demo, credential):
        for name, door in doors.all().items():
            assert {sender: await door(sender) for sender in wanted} == wanted, name
    allowed = [*wanted.values()].count("yes")
    # Each of them once at each door that takes a message.
    assert await pool.fetchval("SELECT count(*) FROM message") == allowed * 5


NO_FROM = "Subject: x\r\n\r\nx\r\n"
TWO_FIELDS = "From: demo@posthouse.test\r\n" + MAIL
TWO_ADDRESSES = "From: demo@posthouse.test, demo+b@posthouse.test\r\n\r\nx\r\n"
GROUP = "From: us: demo@posthouse.test, demo+b@posthouse.test;\r\n\r\nx\r\n"


@pytest.mark.parametrize("content", [NO_FROM, TWO_FIELDS, TWO_ADDRESSES, GROUP, "From: \r\n\r\nx\r\n"])
async def test_a_message_is_from_exactly_one(
    start_api: StartApi, demo: Demo, tls_files: dict[str, Path], pool: Pool, content: str
) -> None:
    api = await start_api(submission_host="127.0.0.1", submissions_port=0, **tls_files)
    async for doors in doors_of(api, demo, "login"):
        assert (await doors.lines.send(content)).startswith("550 5.6.0")
        raw = base64.b64encode(content.encode()).decode()
        options = {"json": {"raw": raw, "recipients": [TO]}}
        refused = await doors.http.post("/v1/messages", **options)  # type: ignore[arg-type]  # of two types
        assert refused.status_code == 422, refused.text
        assert refused.json()["errors"][0]["field"].startswith("raw.from")
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


async def test_parts_name_exactly_one_sender(start_api: StartApi, demo: Demo, tls_files: dict[str, Path]) -> None:
    api = await start_api(submission_host="127.0.0.1", submissions_port=0, **tls_files)
    two = ["demo@posthouse.test", "demo+b@posthouse.test"]
    async for doors in doors_of(api, demo, "login"):
        for wrong in (two, ", ".join(two), None, [], ""):
            response = await doors.http.post("/v1/messages", json={**HELLO, "from": wrong})
            assert response.status_code == 422, (wrong, response.text)
        request = {"From": [{"Address": address} for address in two], "To": [{"Address": TO}], "Text": "x"}
        assert await doors.mox.fault("Send", request) == "multipleFrom"


async def test_a_domain_is_switched_off_and_on_again(
    client: httpx.AsyncClient, operator: httpx.AsyncClient, demo: Demo
) -> None:
    base = f"/v1/accounts/{demo.account_id}/domains"
    domain = (await operator.get(base)).json()["data"][0]
    assert (await client.post("/v1/messages", json=HELLO)).status_code == 202

    off = (await operator.post(f"{base}/{domain['id']}/disable")).json()

    assert off["disabled_at"] is not None
    assert problem(await client.post("/v1/messages", json=HELLO), 403, "from_not_allowed")["domain_disabled"] is True
    assert (await operator.post(f"{base}/{domain['id']}/disable")).json() == off
    on = (await operator.post(f"{base}/{domain['id']}/enable")).json()
    assert on == {**off, "disabled_at": None}
    assert (await client.post("/v1/messages", json=HELLO)).status_code == 202
    problem(await operator.post(f"{base}/999/disable"), 404, "not_found")

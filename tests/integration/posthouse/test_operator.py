"""The operator's commands over the REST interface: from an empty installation to a credential that works."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

from fakes.dns_server import DnsServer
from fakes.webhook_receiver import Behaviour, WebhookReceiver
from integration.api.conftest import SECRET, started
from integration.posthouse.operator_commands import Done, posthouse
from shared.db.credentials import bootstrap_operator
from shared.db.engine import create_engine, session_factory
from shared.db.operator_events import Notice, count
from shared.events import OperatorEventKind
from shared.security.keys import KeyRing


@dataclass(frozen=True)
class Installation:
    url: str
    key: str
    dns: DnsServer

    async def run(self, *arguments: str, stdin: str = "") -> Done:
        return await posthouse(*arguments, stdin=stdin, POSTHOUSE_URL=self.url, POSTHOUSE_KEY=self.key)

    async def status(self, path: str, key: str) -> int:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=30) as client:
            return (await client.get(path, headers={"Authorization": f"Bearer {key}"})).status_code


@pytest.fixture
async def installation(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Installation]:
    """A running api on an empty database, and the first operator's key."""
    engine = create_engine(database_url, size=1, service="test")
    async with session_factory(engine)() as session, session.begin():
        key = await bootstrap_operator(session, KeyRing([SECRET]))
    await engine.dispose()
    assert key is not None
    async with DnsServer({}, negative_ttl=0) as dns:
        settings: dict[str, object] = {"dns_servers": dns.address}
        async with started(database_url, tmp_path / "address", monkeypatch, settings) as api:
            yield Installation(api.url, key, dns)
            await api.finish()


async def test_from_nothing_to_a_login(installation: Installation) -> None:
    run = installation.run
    assert "no accounts yet" in (await run("account", "list")).out
    options = ("--messages-per-day", "1000", "--dsn-to-sender")
    account = (await run("account", "create", "Engines", *options, "--json")).json()
    assert (account["messages_per_day"], account["dsn_to_sender"]) == (1000, True)
    shown = (await run("account", "show", account["id"])).out
    assert re.search(r"Name +Engines\n", shown)

    made = await run("domain", "create", "Engines", "engines.example", "--bounce-domain", "b.engines.example")
    assert made.code == 0, made.err
    domain = (await run("domain", "show", "engines", "engines.example", "--json")).json()
    for record in domain["dns_records"]:
        assert re.search(rf"{record['type']} +{re.escape(record['name'])} +{re.escape(record['value'])}", made.out)
    zone = (await run("domain", "show", "Engines", "engines.example", "--zone")).out
    assert len(zone.splitlines()) == len(domain["dns_records"])

    early = await run("domain", "verify", "Engines", "engines.example")
    assert (early.code, early.out) == (1, "")
    assert early.err.count("\n") == 1
    assert "conflict: " in early.err
    token = domain["dns_records"][0]
    assert token["value"] in early.err
    installation.dns.zone[token["name"]] = {"TXT": [f'"{token["value"]}"']}
    assert "engines.example is verified" in (await run("domain", "verify", "Engines", "engines.example")).out

    login = await run("login", "create", "Engines", "ada@engines.example")
    password = re.search(r"^  (\S+)$", login.out, re.MULTILINE)
    assert password is not None
    assert "cannot be read again" in login.err
    async with httpx.AsyncClient(base_url=installation.url, trust_env=False) as client:
        answer = await client.get("/v1/deliveries", auth=("ada@engines.example", password[1]))
    assert answer.status_code == 200
    assert (await run("login", "revoke", "Engines", "ada@engines.example")).code == 0
    listed = (await run("login", "list", "Engines", "--json")).json()
    assert [(entry["login"], entry["revoked_at"] is not None) for entry in listed] == [("ada@engines.example", True)]


async def test_limits_are_changed_and_their_use_is_shown(installation: Installation) -> None:
    run = installation.run
    await run("account", "create", "Engines", "--messages-per-second", "5")
    changed = await run(
        "account", "update", "engines", "--name", "Difference", "--messages-per-day", "7", "--keep-calls", "60"
    )
    assert changed.code == 0, changed.err
    for line in (r"Name +Difference", r"Messages a day +7", r"Messages a second +5", r"Keeps settled calls \(s\) +60"):
        assert re.search(rf"^{line}$", changed.out, re.MULTILINE), changed.out
    used = await run("account", "usage", "Difference")
    assert re.search(r"^limit +allowed +used +left +room again$", used.out, re.MULTILINE)
    assert re.search(r"^messages a day +7 +0 +7 +-$", used.out, re.MULTILINE), used.out
    assert re.search(r"^new recipients a day +- +- +- +-$", used.out, re.MULTILINE), used.out
    assert re.search(r"^messages a second +5 +- +- +-$", used.out, re.MULTILINE), used.out
    as_json = (await run("account", "usage", "1", "--json")).json()
    assert as_json["messages_per_day"] == {"limit": 7, "used": 0, "left": 7, "room_at": None}

    freed = (await run("account", "update", "1", "--messages-per-day", "none", "--json")).json()
    assert (freed["messages_per_day"], freed["messages_per_second"]) == (None, 5)
    for wrong in (["--messages-per-day", "many"], ["--messages-per-day", "-1"], []):
        refused = await run("account", "update", "1", *wrong)
        assert (refused.code, refused.out) == (2, ""), wrong
    zero = await run("account", "update", "1", "--messages-per-second", "0")
    assert zero.code == 1
    assert "validation_failed: " in zero.err


async def test_a_domain_is_disabled_and_enabled(installation: Installation) -> None:
    run = installation.run
    await run("account", "create", "Engines")
    await run("domain", "create", "Engines", "engines.example")
    assert (
        "nothing more is accepted from engines.example"
        in (await run("domain", "disable", "Engines", "engines.example")).out
    )
    assert (await run("domain", "show", "1", "engines.example", "--json")).json()["disabled_at"] is not None
    assert "from engines.example again" in (await run("domain", "enable", "Engines", "engines.example")).out
    assert (await run("domain", "show", "1", "engines.example", "--json")).json()["disabled_at"] is None


async def test_a_password_can_be_brought_along(installation: Installation) -> None:
    run = installation.run
    await run("account", "create", "Engines")
    domain = (await run("domain", "create", "Engines", "engines.example", "--json")).json()
    token = domain["dns_records"][0]
    installation.dns.zone[token["name"]] = {"TXT": [f'"{token["value"]}"']}
    await run("domain", "verify", "Engines", "engines.example")
    made = await run("login", "create", "1", "bob@engines.example", "--password-stdin", stdin="correct horse\nmore\n")
    assert made.code == 0, made.err
    assert "correct horse" not in made.out + made.err
    async with httpx.AsyncClient(base_url=installation.url, trust_env=False) as client:
        answer = await client.get("/v1/deliveries", auth=("bob@engines.example", "correct horse"))
    assert answer.status_code == 200
    nothing = await run("login", "create", "1", "eve@engines.example", "--password-stdin", stdin="")
    assert nothing.code == 2
    assert "no password" in nothing.err


async def test_addresses_and_dkim_keys(installation: Installation) -> None:
    run = installation.run
    await run("account", "create", "Engines")
    await run("domain", "create", "Engines", "engines.example", "--separator", "+", "--separator", "-")
    refused = await run("address", "add", "Engines", "ada@elsewhere.example")
    assert refused.code == 1
    assert "validation_failed: " in refused.err
    # An address needs a domain of the account, proven or not: what may be sent is decided when it is sent.
    added = await run("address", "add", "Engines", "@engines.example")
    assert added.code == 0, added.err
    assert "@engines.example" in (await run("address", "list", "Engines")).out
    assert (await run("address", "remove", "Engines", "@engines.example")).code == 0
    assert "no addresses yet" in (await run("address", "list", "Engines")).out
    gone = await run("address", "remove", "Engines", "@engines.example")
    assert gone.code == 2
    assert "there is no address" in gone.err

    key = await run("domain", "dkim-key", "Engines", "engines.example", "--selector", "december")
    assert 'december._domainkey.engines.example. 3600 IN TXT "v=DKIM1; k=ed25519; p=' in key.out
    again = await run("domain", "dkim-key", "Engines", "engines.example", "--selector", "december")
    assert again.code == 1
    assert "conflict: " in again.err


async def test_dkim_keys_are_rotated(installation: Installation) -> None:
    run = installation.run
    where = ("Engines", "engines.example")
    await run("account", "create", "Engines")
    await run("domain", "create", *where)
    made = await run("domain", "dkim-key", *where, "--selector", "s2", "--inactive", "--json")
    assert made.json()["active"] is False
    assert (await run("domain", "dkim-activate", *where, "s2")).out == "s2 signs from now on\n"
    early = await run("domain", "dkim-remove", *where, "posthouse-ed25519")
    assert early.code == 1
    assert "conflict: " in early.err
    assert (await run("domain", "dkim-deactivate", *where, "posthouse-ed25519")).code == 0
    assert (await run("domain", "dkim-remove", *where, "posthouse-ed25519")).code == 0
    gone = await run("domain", "dkim-remove", *where, "posthouse-ed25519")
    assert (gone.code, "there is no DKIM key" in gone.err) == (2, True)

    changed = await run("domain", "update", *where, "--dkim-required", "--dkim-expires-after", "none")
    assert re.search(r"Must be signed +yes\nSignatures hold \(s\) +-\n", changed.out)
    assert (await run("domain", "dkim-deactivate", *where, "posthouse-rsa")).code == 0
    last = await run("domain", "dkim-deactivate", *where, "s2")
    assert "conflict: " in last.err
    assert "Warning: only Ed25519 signs" in (await run("domain", "show", *where)).out
    assert (await run("domain", "update", *where, "--dkim-expires-after", "soon")).code == 2


async def test_keys_are_shown_once_and_can_be_revoked(installation: Installation) -> None:
    run = installation.run
    await run("account", "create", "Engines")
    made = await run("key", "create", "Engines", "--name", "shop", "--no-from-ids")
    assert "cannot be read again" in made.err
    found = re.search(r"^  (ph_([a-z2-7]+)_(\S+))$", made.out, re.MULTILINE)
    assert found is not None
    key, key_id, secret = found.groups()
    assert await installation.status("/v1/deliveries", key) == 200
    listed = await run("key", "list", "Engines")
    assert re.search(rf"{key_id} +shop +no ", listed.out)
    assert secret not in listed.out
    assert (await run("key", "revoke", "Engines", key_id)).code == 0
    assert await installation.status("/v1/deliveries", key) == 401

    sandbox = (await run("key", "create", "Engines", "--name", "ci", "--test", "--json")).json()
    assert sandbox["key"].startswith(f"ph_test_{sandbox['key_id']}_")
    assert re.search(rf"{sandbox['key_id']} +ci +yes +yes ", (await run("key", "list", "Engines")).out)

    bad = await run("key", "create", "Engines", "--expires-at", "tomorrow")
    assert bad.code == 1
    assert "validation_failed: expires_at: " in bad.err
    assert bad.err.count("\n") == 1


async def test_retry_schedules_and_operator_events(installation: Installation, database_url: str) -> None:
    run = installation.run
    assert re.search(r"^mox +yes +450 900 ", (await run("retry-schedule", "list")).out, re.MULTILINE)
    made = await run("retry-schedule", "set", "own", "60", "600", "--give-up", "86400")
    assert made.code == 0, made.err
    assert re.search(r"Waits \(s\) +60 600\n", (await run("retry-schedule", "show", "own")).out)
    created = (await run("account", "create", "Engines", "--retry-schedule", "own", "--json")).json()
    assert created["retry_schedule"] == "own"
    assert "conflict: " in (await run("retry-schedule", "remove", "own")).err
    assert "account Engines retries by mox" in (await run("retry-schedule", "use", "Engines", "mox")).out
    assert (await run("retry-schedule", "remove", "own")).code == 0
    endless = await run("retry-schedule", "set", "own", "60")
    assert endless.code == 1
    assert "validation_failed: " in endless.err
    assert (await run("retry-schedule", "show", "../accounts/1")).code == 2

    assert "nothing to look at" in (await run("operator-events", "list")).out
    connection = await asyncpg.connect(database_url)
    notice = Notice(OperatorEventKind.SOURCE_BLOCKED, "b.test from 192.0.2.1", "blocked")
    await count(connection, [(notice, 7)])
    await connection.close()
    (event,) = (await run("operator-events", "list", "--kind", "source_blocked", "--json")).json()
    assert (event["subject"], event["count"]) == ("b.test from 192.0.2.1", 7)
    assert f"operator event {event['id']} is resolved" in (await run("operator-events", "resolve", event["id"])).out
    assert "nothing to look at" in (await run("operator-events", "list")).out
    assert "b.test from 192.0.2.1" in (await run("operator-events", "list", "--all")).out
    assert (await run("operator-events", "resolve", "b.test")).code == 2


async def test_operators_keys_replace_each_other(installation: Installation) -> None:
    run = installation.run
    second = (await run("operator-key", "create", "--name", "Charles", "--json")).json()
    own = (await run("operator-key", "list", "--json")).json()[0]
    assert own["name"] == "bootstrap"
    refused = await run("operator-key", "revoke", own["key_id"])
    assert refused.code == 1
    assert "conflict: " in refused.err
    done = await posthouse("operator-key", "revoke", own["key_id"], "--url", installation.url, "--key", second["key"])
    assert done.code == 0, done.err
    late = await run("account", "list")
    assert late.code == 1
    assert "unauthenticated: " in late.err


async def test_a_long_list_is_read_in_pages_up_to_the_limit(installation: Installation) -> None:
    names = [f"account {number:03d}" for number in range(205)]
    async with httpx.AsyncClient(base_url=installation.url, trust_env=False, timeout=30) as client:
        for name in names:
            header = {"Authorization": f"Bearer {installation.key}"}
            assert (await client.post("/v1/accounts", json={"name": name}, headers=header)).status_code == 201
    everything = await installation.run("account", "list", "--json")
    assert [account["name"] for account in everything.json()] == names
    some = await installation.run("account", "list", "--limit", "203", "--json")
    assert [account["name"] for account in some.json()] == names[:203]
    assert "--limit" in some.err
    assert "--limit" not in everything.err


async def test_a_key_of_an_account_is_no_operators_key(installation: Installation) -> None:
    await installation.run("account", "create", "Engines")
    key = (await installation.run("key", "create", "Engines", "--json")).json()["key"]
    refused = await posthouse("account", "list", "--url", installation.url, "--key", key)
    assert refused.code == 1
    assert "forbidden: " in refused.err


async def test_a_local_stack_is_found_by_its_data_folder(installation: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    folder.mkdir()
    nothing = await posthouse("account", "list", "--local", str(folder))
    assert nothing.code == 2
    assert str(folder) in nothing.err
    (folder / "local.json").write_text(json.dumps({"http_url": installation.url, "admin_key": installation.key}))
    assert (await posthouse("account", "list", "--local", str(folder))).code == 0


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(body=b"<html>hello</html>"),
        Behaviour(body=b"[1]"),
        Behaviour(body=b'{"data": 1, "next_cursor": null}'),
        Behaviour(body=b'{"data": [1], "next_cursor": null}'),
        Behaviour(body=b'{"data": [], "next_cursor": "the same again"}'),
        Behaviour(body=b"[" * 100_000),
        Behaviour(status=502, body=b"bad gateway"),
        Behaviour(status=302, headers=(("Location", "https://example.com/"),)),
        Behaviour(drop="head"),
        Behaviour(raw=b"220 mail.example ESMTP\r\n"),
    ],
)
async def test_what_is_no_posthouse_is_said_in_one_line(behaviour: Behaviour) -> None:
    async with WebhookReceiver([behaviour]) as other:
        done = await posthouse("account", "list", "--url", other.url, "--key", "ph_a_b")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert other.url in done.err
    assert "ph_a_b" not in done.err


async def test_an_installation_that_is_not_there() -> None:
    done = await posthouse("account", "list", "--url", "http://127.0.0.1:1", "--key", "ph_a_b")
    assert done.code == 1
    assert "cannot reach http://127.0.0.1:1" in done.err


async def test_traffic_rules(installation: Installation) -> None:
    run = installation.run
    assert "no rules but those" in (await run("traffic-rule", "list")).out
    made = await run("traffic-rule", "set", "big.test", "--connections", "20", "--per-second", "2.5")
    assert made.code == 0, made.err
    assert re.search(r"^big\.test +20 +2\.5 ", (await run("traffic-rule", "list")).out, re.MULTILINE)
    assert (await run("traffic-rule", "set", "*", "--recipients", "10")).code == 0
    assert re.search(r"Recipients per transaction +10\n", (await run("traffic-rule", "show", "*")).out)
    nothing = await run("traffic-rule", "set", "big.test")
    assert nothing.code == 1
    assert "validation_failed: " in nothing.err
    assert "is removed" in (await run("traffic-rule", "remove", "big.test")).out
    assert (await run("traffic-rule", "show", "big.test")).code == 1
    assert (await run("traffic-rule", "show", "../accounts")).code == 2


async def test_transports_and_routes(installation: Installation) -> None:
    run = installation.run
    assert "no transports yet" in (await run("transport", "list")).out
    made = await run(
        "transport", "create", "smarthost", "submission", "--host", "smtp.example.net", "--username", "us",
        "--mechanism", "PLAIN", "--password-stdin", stdin="sesame\n",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert "sesame" not in made.out + made.err
    assert re.search(r"Has a password +(yes|true)", made.out, re.IGNORECASE)
    changed = (await run("transport", "update", "smarthost", "--port", "26", "--json")).json()
    assert (changed["port"], changed["username"], changed["mechanisms"]) == (26, "us", ["PLAIN"])
    families = (await run("transport", "create", "six", "direct", "--no-ipv4", "--json")).json()
    assert (families["ipv4"], families["ipv6"]) == (False, True)

    await run("account", "create", "Engines")
    domain = (await run("domain", "create", "Engines", "engines.example", "--json")).json()
    first = (await run("route", "create", "smarthost", "--to", ".example.org", "--min-attempts", "3", "--json")).json()
    assert (first["recipient_domains"], first["min_attempts"], first["account_id"]) == ([".example.org"], 3, None)
    second = await run("route", "create", "six", "--account", "Engines", "--domain", "engines.example", "--json")
    assert second.json()["domain_id"] == domain["id"]
    assert second.json()["account_id"] is None
    nobodys = await run("route", "create", "six", "--domain", "engines.example")
    assert nobodys.code == 2
    assert "--account" in nobodys.err
    assert ".example.org" in (await run("route", "list")).out
    moved = (await run("route", "update", first["id"], "--transport", "six", "--position", "9", "--json")).json()
    assert (moved["transport"], moved["position"], moved["recipient_domains"]) == ("six", 9, [".example.org"])
    assert (await run("transport", "remove", "six")).code == 1
    for route in (first["id"], second.json()["id"]):
        assert (await run("route", "remove", route)).code == 0
    assert (await run("transport", "remove", "six")).code == 0
    assert (await run("route", "show", first["id"])).code == 1

import base64
import email
import email.policy
from email.message import EmailMessage
from typing import Any

import httpx
import pytest

from integration.api.conftest import HELLO, RunningApi, StartApi, problem
from shared.db.demo import Demo
from shared.db.engine import Pool
from shared.mail.from_id import FromIds
from shared.security.keys import KeyRing

FULL: dict[str, Any] = {
    "from": {"name": "Ada Lovelace", "address": "demo+notes@posthouse.test"},
    "to": ["Grace Hopper <grace@example.org>", {"address": "jürgen@exämple.org"}],
    "cc": ['"Doe, J." <j.doe@example.net>'],
    "bcc": ["hidden@example.com", "grace@example.org"],
    "reply_to": ["answers@posthouse.test"],
    "subject": "Grüße aus Göttingen",
    "text": "Hallo, Welt.\nZweite Zeile: ß\n",
    "html": '<p>Hallo <img src="cid:logo"></p>',
    "attachments": [
        {"filename": "rechnung.pdf", "content": base64.b64encode(b"%PDF-1.7 \x00\xff").decode()},
        {
            "filename": "logo.png",
            "content": base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(),
            "content_id": "logo",
            "disposition": "inline",
        },
    ],
    "headers": [{"name": "X-Campaign", "value": "autumn"}],
    "date": "2026-11-20T13:00:00+01:00",
    "references": ["<first@example.org>", "<second@example.org>"],
    "extra": {"order": "4711", "": "empty key"},
    "tags": ["welcome", "grüße"],
}


async def stored_message(pool: Pool, message_id: str) -> EmailMessage:
    chunks = await pool.fetch("SELECT bytes FROM message_body WHERE message_id = $1 ORDER BY seq", int(message_id))
    raw = b"".join(chunk["bytes"] for chunk in chunks)
    return email.message_from_bytes(raw, policy=email.policy.default)


async def test_a_full_message_is_stored_as_one_message_and_one_delivery_per_recipient(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    response = await client.post("/v1/messages", json=FULL)

    assert response.status_code == 202, response.text
    sent = response.json()
    assert response.headers["location"] == f"/v1/messages/{sent['id']}"
    assert [d["recipient"] for d in sent["deliveries"]] == [
        "grace@example.org",
        "jürgen@xn--exmple-cua.org",
        "j.doe@example.net",
        "hidden@example.com",
        "grace@example.org",
    ]
    assert {d["state"] for d in sent["deliveries"]} == {"queued"}
    queued = await pool.fetch(
        "SELECT q.delivery_id, s.name FROM delivery_queue q JOIN lane l ON l.id = q.lane_id JOIN site s ON s.id = l.site_id ORDER BY 1"
    )
    assert [str(row["delivery_id"]) for row in queued] == [d["id"] for d in sent["deliveries"]]
    assert [row["name"] for row in queued] == [
        "domain:example.org",
        "domain:xn--exmple-cua.org",
        "domain:example.net",
        "domain:example.com",
        "domain:example.org",
    ]
    message = await stored_message(pool, sent["id"])
    assert message["From"] == "Ada Lovelace <demo+notes@posthouse.test>"
    assert message["Subject"] == "Grüße aus Göttingen"
    assert message["Message-Id"] == sent["message_id"]
    assert message["Date"] == "Fri, 20 Nov 2026 13:00:00 +0100"
    assert message["X-Campaign"] == "autumn"
    assert message["In-Reply-To"] == "<second@example.org>"
    assert message["Bcc"] is None
    parts = {part.get_filename() or part.get_content_type(): part for part in message.walk() if not part.is_multipart()}
    assert parts["text/plain"].get_content().replace("\r\n", "\n") == FULL["text"]
    assert parts["rechnung.pdf"].get_content() == b"%PDF-1.7 \x00\xff"
    assert parts["logo.png"]["Content-ID"] == "<logo>"


async def test_received_names_us_and_the_recipient_where_it_is_the_only_one(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    sent = (await client.post("/v1/messages", json=HELLO)).json()
    two = (await client.post("/v1/messages", json={**HELLO, "bcc": ["hidden@example.com"]})).json()

    message = await stored_message(pool, sent["id"])
    assert message.keys()[0] == "Received"
    received = " ".join(str(message["Received"]).split())
    assert received.startswith(f"by mail.posthouse.test id {sent['id']} for <grace@example.org>;")
    assert "127.0.0.1" not in received
    received = str((await stored_message(pool, two["id"]))["Received"])
    assert received.startswith(f"by mail.posthouse.test id {two['id']};")
    assert "@" not in received


async def test_a_hidden_recipient_whose_address_is_not_ascii_makes_the_mail_an_internationalised_one(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    sent = (await client.post("/v1/messages", json={**HELLO, "bcc": ["jürgen@example.org"], "subject": "Grüße"})).json()

    assert (await client.get(f"/v1/messages/{sent['id']}")).json()["smtputf8"]
    raw = b"".join(
        row["bytes"]
        for row in await pool.fetch("SELECT bytes FROM message_body WHERE message_id = $1", int(sent["id"]))
    )
    assert "Subject: Grüße\r\n".encode() in raw
    assert "jürgen".encode() not in raw


async def test_each_delivery_has_its_own_from_id_in_its_return_path(client: httpx.AsyncClient, pool: Pool) -> None:
    sent = (await client.post("/v1/messages", json={**HELLO, "to": ["a@example.org", "b@example.org"]})).json()

    keys = [key.key[:16] for key in KeyRing(["s" * 32]).reading("from_id")]
    for delivery in sent["deliveries"]:
        assert FromIds(keys).read(delivery["from_id"]) == int(delivery["id"])
        mail_from = await pool.fetchval("SELECT mail_from FROM delivery WHERE id = $1", int(delivery["id"]))
        assert mail_from == f"demo+{delivery['from_id']}@posthouse.test"


async def test_a_key_without_from_ids_sends_from_the_plain_sender(
    api: RunningApi, operator: httpx.AsyncClient, demo: Demo
) -> None:
    made = await operator.post(f"/v1/accounts/{demo.account_id}/keys", json={"uses_from_ids": False})

    async with api.client(made.json()["key"]) as client:
        sent = (await client.post("/v1/messages", json=HELLO)).json()
        [delivery] = sent["deliveries"]
        assert delivery["from_id"] is None
        shown = (await client.get(f"/v1/deliveries/{delivery['id']}")).json()
    assert shown["mail_from"] == "demo@posthouse.test"


async def test_with_a_relay_all_mail_waits_for_the_one_site(start_api: StartApi, demo: Demo, pool: Pool) -> None:
    api = await start_api(relay="127.0.0.1:2525")

    async with api.client(demo.account_key) as client:
        await client.post("/v1/messages", json={**HELLO, "to": ["a@example.org", "b@example.net"]})

    assert [row["name"] for row in await pool.fetch("SELECT name FROM site WHERE queue = 'delivery'")] == [
        "relay:127.0.0.1:2525"
    ]


async def test_mail_waits_for_the_site_of_the_provider_that_its_domain_is_known_to_be_behind(
    start_api: StartApi, demo: Demo, pool: Pool
) -> None:
    await pool.execute("INSERT INTO domain_provider (domain, provider) VALUES ('example.org', 'big.test')")
    api = await start_api()

    async with api.client(demo.account_key) as client:
        await client.post("/v1/messages", json={**HELLO, "to": ["a@example.org", "b@example.net"]})

    assert {row["name"] for row in await pool.fetch("SELECT name FROM site WHERE queue = 'delivery'")} == {
        "mx:big.test",
        "domain:example.net",
    }


async def test_a_suppressed_recipient_is_settled_at_once_with_its_event(client: httpx.AsyncClient) -> None:
    await client.post("/v1/suppressions", json={"address": "Grace+lists@example.org", "reason": "asked us"})

    sent = (await client.post("/v1/messages", json={**HELLO, "to": ["grace@example.org", "other@example.org"]})).json()

    assert [d["state"] for d in sent["deliveries"]] == ["suppressed", "queued"]
    events = (await client.get("/v1/events", params={"delivery_id": sent["deliveries"][0]["id"]})).json()
    [event] = events["data"]
    assert event["type"] == "suppressed"
    assert event["data"]["recipient"] == "grace@example.org"
    assert event["data"]["message_id"] == sent["message_id"]
    assert events["next_cursor"] is None


async def test_what_was_sent_can_be_looked_up(client: httpx.AsyncClient) -> None:
    sent = (await client.post("/v1/messages", json=FULL)).json()

    message = (await client.get(f"/v1/messages/{sent['id']}")).json()
    assert message["message_id"] == sent["message_id"]
    assert message["subject"] == FULL["subject"]
    assert message["extra"] == FULL["extra"]
    assert message["tags"] == FULL["tags"]
    assert [d["id"] for d in message["deliveries"]] == [d["id"] for d in sent["deliveries"]]
    assert all(d["attempts"] == [] for d in message["deliveries"])

    page = (await client.get("/v1/deliveries", params={"message_id": sent["id"], "limit": 2})).json()
    rest = (await client.get("/v1/deliveries", params={"message_id": sent["id"], "cursor": page["next_cursor"]})).json()
    listed = [d["id"] for d in page["data"] + rest["data"]]
    assert listed == [d["id"] for d in reversed(sent["deliveries"])]
    assert rest["next_cursor"] is None
    by_recipient = (await client.get("/v1/deliveries", params={"recipient": "j.doe@example.net"})).json()
    assert [d["id"] for d in by_recipient["data"]] == [sent["deliveries"][2]["id"]]
    assert (await client.get("/v1/deliveries", params={"state": "delivered"})).json()["data"] == []


async def test_a_login_sends_from_the_addresses_of_its_account_only(api: RunningApi, demo: Demo) -> None:
    async with api.client(auth=(demo.login, demo.password)) as client:
        assert (await client.post("/v1/messages", json=HELLO)).status_code == 202
        suffixed = {**HELLO, "from": "demo+news@posthouse.test"}
        assert (await client.post("/v1/messages", json=suffixed)).status_code == 202
        refused = await client.post("/v1/messages", json={**HELLO, "from": "other@posthouse.test"})
    assert problem(refused, 403, "from_not_allowed")["errors"][0]["field"] == "from.address"


async def test_an_unknown_domain_in_from_is_refused(client: httpx.AsyncClient, pool: Pool) -> None:
    refused = await client.post("/v1/messages", json={**HELLO, "from": "ada@example.com"})

    document = problem(refused, 403, "from_not_allowed")
    assert "example.com" in document["detail"]
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


@pytest.mark.parametrize(("env", "status"), [("production", 403), ("local", 202)])
async def test_an_unverified_domain_sends_in_local_mode_only(
    start_api: StartApi, demo: Demo, env: str, status: int
) -> None:
    api = await start_api(env=env)
    async with api.client(demo.admin_key) as operator:
        await operator.post(f"/v1/accounts/{demo.account_id}/domains", json={"name": "new.test"})
    async with api.client(demo.account_key) as client:
        sent = await client.post("/v1/messages", json={**HELLO, "from": "ada@new.test"})
    assert sent.status_code == status, sent.text


async def test_a_sender_too_long_for_a_from_id_is_told_so(client: httpx.AsyncClient) -> None:
    refused = await client.post("/v1/messages", json={**HELLO, "from": f"{'x' * 50}@posthouse.test"})

    assert problem(refused, 422, "validation_failed")["errors"][0]["field"] == "from.address"

"""Options of one message, by REST and in the header of a message; and lists by tag."""

import base64
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from fakes.waiting import eventually
from integration.api.conftest import HELLO, problem
from integration.api.submission_client import FROM, MAIL, Lines
from integration.api.submission_door import door, lines, sender, tls_files
from shared.db.engine import Pool

__all__ = ["door", "lines", "sender", "tls_files"]

RAW = "From: demo@posthouse.test\r\nTo: grace@example.org\r\nBcc: ada@example.org\r\nSubject: Hello\r\n\r\nHello.\r\n"
Post = Callable[[httpx.AsyncClient, dict[str, Any]], Awaitable[httpx.Response]]


def at(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def post_parts(client: httpx.AsyncClient, options: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/messages", json={**HELLO, **options})


async def post_raw(client: httpx.AsyncClient, options: dict[str, Any]) -> httpx.Response:
    raw = base64.b64encode(RAW.encode()).decode()
    return await client.post("/v1/messages", json={"raw": raw, "recipients": ["grace@example.org"], **options})


async def post_form(client: httpx.AsyncClient, options: dict[str, Any]) -> httpx.Response:
    message = ("message", (None, json.dumps({**HELLO, **options}).encode(), "application/json"))
    return await client.post("/v1/messages", files=[message, ("attachment", ("a.txt", b"a", "text/plain"))])


FORMS = pytest.mark.parametrize("post", [post_parts, post_raw, post_form])


async def accepted(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


@FORMS
async def test_options_are_kept_and_shown(client: httpx.AsyncClient, post: Post) -> None:
    options = {
        "send_at": at(days=59),
        "expires_at": at(days=89),
        "require_tls": True,
        "save_sent": True,
        "tags": ["welcome", "de"],
        "extra": {"a-b": "1", "UPPER": "2"},
    }
    sent = await accepted(await post(client, options))
    shown = (await client.get(f"/v1/messages/{sent['id']}")).json()
    assert {name: shown[name] for name in options} == options
    (delivery,) = shown["deliveries"]
    assert (delivery["state"], delivery["due_at"], delivery["attempts_made"]) == ("queued", options["send_at"], 0)


@FORMS
async def test_without_options_there_are_none(client: httpx.AsyncClient, post: Post) -> None:
    sent = await accepted(await post(client, {}))
    shown = (await client.get(f"/v1/messages/{sent['id']}")).json()
    names = ("send_at", "expires_at", "require_tls", "save_sent", "tags", "extra")
    assert [shown[name] for name in names] == [None, None, None, False, [], {}]


@FORMS
@pytest.mark.parametrize("value", [True, False, None])
async def test_require_tls_has_three_values(client: httpx.AsyncClient, post: Post, value: object) -> None:
    sent = await accepted(await post(client, {"require_tls": value}))
    assert (await client.get(f"/v1/messages/{sent['id']}")).json()["require_tls"] is value


@FORMS
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"send_at": at(seconds=-1)}, "send_at"),
        ({"send_at": at(days=60, hours=1)}, "send_at"),
        ({"send_at": "2099-01-01T00:00:00"}, "send_at"),
        ({"send_at": 1}, "send_at"),
        ({"expires_at": at(seconds=-1)}, "expires_at"),
        ({"expires_at": at(days=90, hours=1)}, "expires_at"),
        ({"expires_at": at(days=2), "send_at": at(days=3)}, "expires_at"),
        ({"require_tls": "yes"}, "require_tls"),
        ({"save_sent": 1}, "save_sent"),
        ({"tags": [""]}, "tags[0]"),
    ],
)
async def test_options_that_are_refused(
    client: httpx.AsyncClient, pool: Pool, post: Post, options: dict[str, Any], field: str
) -> None:
    document = problem(await post(client, options), 422, "validation_failed")
    assert [error["field"] for error in document["errors"]] == [field]
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


@FORMS
async def test_an_expiry_that_is_the_moment_of_sending_leaves_nothing_to_send(
    client: httpx.AsyncClient, post: Post
) -> None:
    moment = at(days=2)
    document = problem(await post(client, {"send_at": moment, "expires_at": moment}), 422, "validation_failed")
    assert document["errors"][0]["field"] == "expires_at"


async def test_send_at_may_lie_sixty_days_ahead_to_the_second(client: httpx.AsyncClient) -> None:
    await accepted(await post_parts(client, {"send_at": at(days=60)}))


async def test_what_comes_again_under_its_key_may_have_passed_its_times_meanwhile(client: httpx.AsyncClient) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=1)
    message = {**HELLO, "send_at": moment.isoformat()}
    first = await accepted(await client.post("/v1/messages", json=message, headers={"Idempotency-Key": "one"}))
    await eventually(lambda: datetime.now(UTC) > moment)
    again = await accepted(await client.post("/v1/messages", json=message, headers={"Idempotency-Key": "one"}))
    assert again == first
    for headers in ({"Idempotency-Key": "two"}, {}):
        problem(await client.post("/v1/messages", json=message, headers=headers), 422, "validation_failed")
    other = {**message, "subject": "Another"}
    refused = await client.post("/v1/messages", json=other, headers={"Idempotency-Key": "one"})
    problem(refused, 409, "idempotency_conflict")


async def test_the_answer_says_who_is_suppressed(client: httpx.AsyncClient, pool: Pool) -> None:
    await client.post("/v1/suppressions", json={"address": "gone@example.org"})
    message = {**HELLO, "to": ["grace@example.org", "Gone+news@example.org"]}
    now = await accepted(await client.post("/v1/messages", json=message))
    later = await accepted(await client.post("/v1/messages", json={**message, "send_at": at(hours=1)}))
    assert [(d["state"], d["suppressed"]) for d in now["deliveries"]] == [("queued", False), ("suppressed", True)]
    assert [(d["state"], d["suppressed"]) for d in later["deliveries"]] == [("queued", False), ("queued", True)]
    # Only what is due has its outcome, and the event that tells it.
    rows = await pool.fetch("SELECT delivery_id, type, code, suppressing FROM event")
    assert [tuple(row) for row in rows] == [(int(now["deliveries"][1]["id"]), "suppressed", 0, False)]


async def test_a_held_recipient_is_told_so(client: httpx.AsyncClient, pool: Pool) -> None:
    await client.post("/v1/suppressions", json={"address": "gone@example.org"})
    await pool.execute("INSERT INTO hold_rule (recipient_domain) VALUES ('example.org')")
    sent = await accepted(await client.post("/v1/messages", json={**HELLO, "to": ["gone@example.org", "a@b.test"]}))
    assert [(d["state"], d["suppressed"]) for d in sent["deliveries"]] == [("held", True), ("queued", False)]


HEADER = (
    "X-Posthouse-Tag: welcome, de\r\nx-posthouse-tag: =?utf-8?q?gr=C3=BCn?=,welcome,\r\n"
    "X-Posthouse-Save-Sent: Yes\r\nX-Posthouse-Extra-Order: 4711\r\nX-Mox-Extra-Test: x\r\n"
)


async def test_a_header_asks_for_options_and_they_leave_the_mail(client: httpx.AsyncClient, pool: Pool) -> None:
    expires = at(days=1)
    content = f"{HEADER}X-Posthouse-Expires-At: {expires}\r\n{RAW}"
    sent = await accepted(
        await client.post("/v1/messages", content=content.encode(), headers={"Content-Type": "message/rfc822"})
    )
    shown = (await client.get(f"/v1/messages/{sent['id']}")).json()
    assert shown["tags"] == ["welcome", "de", "grün"]
    assert (shown["save_sent"], shown["expires_at"]) == (True, expires)
    assert shown["extra"] == {"Order": "4711", "Test": "x"}
    assert await pool.fetchval("SELECT bcc FROM message") == "Bcc: ada@example.org\r\n"
    body = await pool.fetchval("SELECT bytes FROM message_body")
    assert b"x-posthouse" not in body.lower()
    assert b"X-Mox-Extra-Test: x\r\n" in body


async def test_what_the_request_says_counts_before_the_header(client: httpx.AsyncClient) -> None:
    expires = at(days=3)
    content = f"X-Posthouse-Expires-At: {at(days=1)}\r\nX-Posthouse-Tag: b, c\r\n{RAW}"
    raw = base64.b64encode(content.encode()).decode()
    sent = await accepted(
        await client.post("/v1/messages", json={"raw": raw, "expires_at": expires, "tags": ["a", "b"]})
    )
    shown = (await client.get(f"/v1/messages/{sent['id']}")).json()
    assert (shown["expires_at"], shown["tags"]) == (expires, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("fields", "reply"),
    [
        ("X-Posthouse-Tag: a, b", "250"),
        ("X-Posthouse-Save-Sent: no", "250"),
        ("X-Posthouse-Save-Sent: maybe", "554 5.6.0"),
        ("X-Posthouse-Save-Sent: yes\r\nX-Posthouse-Save-Sent: yes", "554 5.6.0"),
        ("X-Posthouse-Expires-At: tomorrow", "554 5.6.0"),
        ("X-Posthouse-Expires-At: 2026-02-31T00:00:00Z", "554 5.6.0"),
        ("X-Posthouse-Expires-At: 2020-01-01T00:00:00Z", "554 5.6.0"),
        ("X-Posthouse-Expires-At: 2099-01-01T00:00:00Z", "554 5.6.0"),
        (f"X-Posthouse-Tag: {'x' * 65}", "552 5.3.4"),
        ("X-Posthouse-Tag: " + ",".join(str(n) for n in range(21)), "552 5.3.4"),
    ],
)
async def test_options_by_smtp(sender: Lines, pool: Pool, fields: str, reply: str) -> None:
    assert (await sender.send(f"{fields}\r\n{MAIL}")).startswith(reply)
    assert await pool.fetchval("SELECT count(*) FROM message") == (1 if reply == "250" else 0)


async def test_an_expiry_before_the_hold_is_refused_by_smtp_too(sender: Lines, pool: Pool) -> None:
    content = f"X-Posthouse-Expires-At: {at(hours=1)}\r\n{MAIL}"
    assert (await sender.send(content, mail=f"MAIL FROM:<{FROM}> HOLDFOR=7200")).startswith("554 5.6.0")
    assert (await sender.send(content, mail=f"MAIL FROM:<{FROM}> HOLDFOR=1800")).startswith("250")
    row = await pool.fetchrow("SELECT m.expires_at, q.expires_at AS queued FROM message m, delivery_queue q")
    assert row is not None
    assert row["expires_at"] == row["queued"]


async def test_lists_by_tag(client: httpx.AsyncClient) -> None:
    first = await accepted(await post_parts(client, {"tags": ["autumn", "de"]}))
    second = await accepted(await post_raw(client, {"tags": ["autumn"]}))
    await accepted(await post_parts(client, {}))

    async def listed(path: str, *tags: str, **more: str) -> list[str]:
        params = [*(("tag", tag) for tag in tags), *more.items()]
        return [item["id"] for item in (await client.get(path, params=params)).json()["data"]]

    def deliveries(sent: dict[str, Any]) -> list[str]:
        return [delivery["id"] for delivery in reversed(sent["deliveries"])]

    assert await listed("/v1/messages", "autumn") == [second["id"], first["id"]]
    assert await listed("/v1/messages", "de", "autumn") == [first["id"]]
    assert len(await listed("/v1/messages")) == 3
    assert await listed("/v1/deliveries", "autumn") == [*deliveries(second), *deliveries(first)]
    assert await listed("/v1/deliveries", "de", "autumn") == deliveries(first)
    assert await listed("/v1/deliveries", "autumn", state="delivered") == []
    assert await listed("/v1/deliveries", "winter") == []
    page = (await client.get("/v1/messages", params={"tag": "autumn", "limit": 1})).json()
    assert page["data"][0]["tags"] == ["autumn"]
    rest = await client.get("/v1/messages", params={"tag": "autumn", "cursor": page["next_cursor"]})
    assert [item["id"] for item in rest.json()["data"]] == [first["id"]]
    too_many = await client.get("/v1/deliveries", params=[("tag", str(n)) for n in range(21)])
    problem(too_many, 422, "validation_failed")

"""Cases 57-74 of the behaviour specification, part 11.3, as far as they are about composing: over REST, on the stored bytes.

Where ours is the better way (7-bit safe bodies for 8bit, a Content-Type for every file) the table says so.
"""

import base64
import email
import json
from collections.abc import Callable
from email.message import Message
from typing import Any

import httpx
import pytest

from integration.api.conftest import HELLO, RunningApi
from shared.db.demo import Demo
from shared.db.engine import Pool

Check = Callable[[Message], object]


def file(filename: str, content: bytes, **more: str) -> dict[str, str]:
    return {"filename": filename, "content": base64.b64encode(content).decode(), **more}


def shape(message: Message) -> object:
    parts = message.get_payload()
    if isinstance(parts, list):
        return [message.get_content_subtype(), *(shape(part) for part in parts if isinstance(part, Message))]
    return message.get_filename() or message.get_content_type()


def body(message: Message) -> tuple[str, str | None, str, bytes]:
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return message.get_content_type(), message.get_content_charset(), message["Content-Transfer-Encoding"], payload


def last(message: Message) -> Message:
    return list(message.walk())[-1]


PDF, PNG, ICS = file("a", b"%PDF-1.7\n"), file("b", b"\x89PNG\r\n\x1a\n"), file("i.ics", b"BEGIN:VCALENDAR\n")
INLINE, ALTERNATIVE = {**PNG, "disposition": "inline"}, {**ICS, "disposition": "alternative"}

CASES: list[tuple[str, dict[str, Any], Check, object]] = [
    ("57", {"text": "Hi"}, body, ("text/plain", "us-ascii", "7bit", b"Hi\r\n")),
    ("57 with its newline", {"text": "Hi\n"}, body, ("text/plain", "us-ascii", "7bit", b"Hi\r\n")),
    ("57 as HTML", {"text": None, "html": "<p>"}, body, ("text/html", "us-ascii", "7bit", b"<p>\r\n")),
    # 8bit in mox; ours is safe on seven bits whatever hop it meets.
    ("58", {"text": "hi ☺"}, body, ("text/plain", "utf-8", "base64", "hi ☺\r\n".encode())),
    ("58 more text", {"text": "x" * 30 + "☺"}, body, ("text/plain", "utf-8", "quoted-printable", ("x" * 30 + "☺\r\n").encode())),
    ("58 long line", {"text": "x" * 77}, body, ("text/plain", "us-ascii", "quoted-printable", b"x" * 77 + b"\r\n")),
    ("58 just fits", {"text": "x" * 76}, body, ("text/plain", "us-ascii", "7bit", b"x" * 76 + b"\r\n")),
    ("1.8 line ends, once each", {"text": "a\r\nb\nc"}, body, ("text/plain", "us-ascii", "7bit", b"a\r\nb\r\nc\r\n")),
    ("59", {"html": "<p>"}, shape, ["alternative", "text/plain", "text/html"]),
    ("60 inline", {"attachments": [INLINE]}, shape, ["related", "text/plain", "b"]),
    ("60 both", {"attachments": [PDF, INLINE]}, shape, ["mixed", ["related", "text/plain", "b"], "a"]),
    (
        "61",
        {"html": "<p>", "attachments": [PDF, INLINE, ALTERNATIVE]},
        shape,
        ["mixed", ["related", ["alternative", "text/plain", "text/html", "i.ics"], "b"], "a"],
    ),
    (
        "62",
        {"attachments": [file("nameless", b"%PDF-1.7")]},
        lambda m: (last(m).get_content_type(), last(m).get_content_disposition()),
        ("application/pdf", "attachment"),
    ),
    ("63", {"attachments": [file("", b"\0\1")]}, lambda m: last(m)["Content-Type"], "application/octet-stream"),
    (
        "64",
        {"attachments": [{**INLINE, "content_type": "image/x-own", "content_id": "c1"}]},
        lambda m: (last(m)["Content-Type"], last(m)["Content-ID"], last(m).get_content_disposition()),
        ("image/x-own", "<c1>", "inline"),
    ),
    ("66", {"bcc": ["hidden@example.net"]}, lambda m: "hidden" in m.as_string() or m["Bcc"], None),
    ("69 x-mailer", {"headers": [{"name": "x-mailer", "value": "S/1"}]}, lambda m: (m["User-Agent"], m["X-Mailer"]), (None, "S/1")),
    ("69 User-Agent", {"headers": [{"name": "user-agent", "value": "S/1"}]}, lambda m: m.get_all("User-Agent"), ["S/1"]),
    ("69 neither", {}, lambda m: m.get_all("User-Agent"), ["Posthouse"]),
    (
        "70",
        {"references": ["<a@d>", "<b@d>"]},
        lambda m: ([str(m["References"]).split()], m["In-Reply-To"]),
        ([["<a@d>", "<b@d>"]], "<b@d>"),
    ),
    ("71 only the domain", {"to": ["x@ö.example"]}, lambda m: m["To"], "x@xn--nda.example"),
    (
        "1.8 order",
        {"reply_to": ["r@d.example"], "cc": ["c@d.example"], "references": ["<a@d>"], "headers": [{"name": "X-A", "value": "1"}]},
        lambda m: m.keys(),
        [
            *("Received", "From", "Reply-To", "To", "Cc", "Subject", "Date", "Message-Id", "References", "In-Reply-To"),
            *("MIME-Version", "X-A", "User-Agent", "Content-Type", "Content-Transfer-Encoding"),
        ],
    ),
    ("1.8 no subject", {"subject": ""}, lambda m: m["Subject"], None),
    ("1.8 date keeps its zone", {"date": "2026-11-02T03:04:05+02:00"}, lambda m: m["Date"], "Mon, 2 Nov 2026 03:04:05 +0200"),
    (
        "74 subject",
        {"subject": "word " * 40 + "Grüße"},
        lambda m: (
            max(map(len, m.as_string().splitlines())) <= 78,
            str(m["Subject"]).count("=?utf-8?q?"),
            "Gr=C3=BC=C3=9Fe" in str(m["Subject"]),
        ),
        (True, 1, True),
    ),
    (
        "74 addresses",
        {"cc": [f"Person Number {n} <person{n}@example.net>" for n in range(10)]},
        lambda m: all(line.startswith("\t") and len(line) <= 78 for line in str(m["Cc"]).splitlines()[1:]),
        True,
    ),
    ("1.8 RFC 2231", {"attachments": [file("Größe.bin", b"\0")]}, lambda m: last(m).get_filename(), "Größe.bin"),
]  # fmt: skip


async def stored(pool: Pool, message_id: str) -> bytes:
    rows = await pool.fetch("SELECT bytes FROM message_body WHERE message_id = $1 ORDER BY seq", int(message_id))
    return b"".join(row["bytes"] for row in rows)


async def test_every_case_of_composing(client: httpx.AsyncClient, pool: Pool) -> None:
    for number, change, check, expected in CASES:
        request = {key: value for key, value in {**HELLO, **change}.items() if value is not None}
        response = await client.post("/v1/messages", json=request)
        assert response.status_code == 202, (number, response.text)
        raw = await stored(pool, response.json()["id"])
        message = email.message_from_bytes(raw)
        found = check(message)
        assert (found or None) == expected if expected is None else found == expected, (number, found)
        assert raw.isascii(), number
        assert not [part.defects for part in message.walk() if part.defects], number
        shown = (await client.get(f"/v1/messages/{response.json()['id']}")).json()
        assert shown["smtputf8"] is False, number


async def test_case_71_an_address_that_is_not_ascii_makes_the_whole_header_utf8(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    sent = (await client.post("/v1/messages", json={**HELLO, "to": ["ü@ö.example"], "subject": "Grüße"})).json()

    assert (await client.get(f"/v1/messages/{sent['id']}")).json()["smtputf8"]
    raw = await stored(pool, sent["id"])
    assert "\r\nTo: ü@ö.example\r\nSubject: Grüße\r\n".encode() in raw


async def test_case_61_files_of_the_json_come_before_those_of_the_form(client: httpx.AsyncClient, pool: Pool) -> None:
    request = {**HELLO, "attachments": [file("json.bin", b"\0"), {**file("json.png", b"\0"), "disposition": "inline"}]}
    parts: list[tuple[str, Any]] = [
        ("inline", ("form.png", b"\0")),
        ("attachment", ("form.bin", b"\0")),
        ("message", (None, json.dumps(request))),
    ]

    sent = (await client.post("/v1/messages", files=parts)).json()

    assert shape(email.message_from_bytes(await stored(pool, sent["id"]))) == [
        *("mixed", ["related", "text/plain", "json.png", "form.png"]),
        *("json.bin", "form.bin"),
    ]


@pytest.mark.parametrize("uses_from_ids", [True, False])
async def test_cases_52_to_56_ids_in_order_and_from_ids_only_where_they_are_wanted(
    api: RunningApi, operator: httpx.AsyncClient, demo: Demo, uses_from_ids: bool
) -> None:
    made = await operator.post(f"/v1/accounts/{demo.account_id}/keys", json={"uses_from_ids": uses_from_ids})
    to = {"to": ["a@d.example", "b@d.example"], "cc": ["c@d.example"], "bcc": ["d@d.example"], "message_id": "<same@d>"}
    async with api.client(made.json()["key"]) as client:
        for _ in range(2):  # 56: a Message-ID may be used again
            sent = (await client.post("/v1/messages", json={**HELLO, **to})).json()
            deliveries = sent["deliveries"]
            assert sent["message_id"] == "<same@d>"
            assert [d["recipient"][0] for d in deliveries] == ["a", "b", "c", "d"]
            first = int(deliveries[0]["id"])
            assert [int(d["id"]) - first for d in deliveries] == [0, 1, 2, 3]
            assert len({d["from_id"] for d in deliveries} - {None}) == (4 if uses_from_ids else 0)

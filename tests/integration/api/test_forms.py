"""Messages as forms with files, and whole messages, over the real API."""

import base64
import json
from email.message import EmailMessage, Message
from typing import Any

import httpx
import pytest

from integration.api.conftest import HELLO, RunningApi, StartApi, problem
from integration.api.test_send import stored_message
from shared.db.demo import Demo
from shared.db.engine import Pool

PNG = b"\x89PNG\r\n\x1a\n\0"
WHOLE = (
    b"From: Demo <demo@posthouse.test>\r\nTo: Grace <grace@example.org>\r\nCc: ada@example.org\r\nBcc: hidden@example.org\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Posthouse-Anything: x\r\nX-Posthouse-Extra-order: 47\r\nX-Posthouse-Extra-a: of the header\r\n\r\nHello\r\n"
)

Files = list[
    tuple[str, tuple[str | None, bytes] | tuple[str | None, bytes, str] | tuple[str | None, bytes, str, dict[str, str]]]
]


def form(message: object, *files: Any) -> Files:
    return [("message", (None, json.dumps(message).encode(), "application/json")), *files]


def tree(message: Message) -> object:
    if message.is_multipart():
        return message.get_content_subtype(), [tree(part) for part in message.get_payload()]  # type: ignore[arg-type]  # of parts
    return message.get_filename() or message.get_content_type()


async def test_a_form_brings_files_of_every_disposition(client: httpx.AsyncClient, pool: Pool) -> None:
    body = {
        **HELLO,
        "html": '<img src="cid:logo.png">',
        "attachments": [{"filename": "json.txt", "content": base64.b64encode(b"in the JSON").decode()}],
    }
    files = form(
        body,
        ("attachment", ("scan.pdf", b"%PDF-1.7\n\r\n--x", "application/octet-stream")),
        ("inline", ("logo.png", PNG)),
        ("inline", ("other.png", PNG, "image/png", {"Content-ID": "<other@posthouse.test>"})),
        ("alternative", ("invite.ics", b"BEGIN:VCALENDAR\n", "text/calendar; method=REQUEST")),
        ("attachment", ("größe.bin", bytes(range(256)), "application/x-own")),
        ("attachment", ("", b"")),
    )

    response = await client.post("/v1/messages", files=files)

    assert response.status_code == 202, response.text
    message: Message = await stored_message(pool, response.json()["id"])
    assert tree(message) == (
        "mixed",
        [
            (
                "related",
                [("alternative", ["text/plain", "text/html", "invite.ics"]), "logo.png", "other.png"],
            ),
            *("json.txt", "scan.pdf", "größe.bin"),
            "text/plain",
        ],
    )
    parts = {part.get_filename(): part for part in message.walk()}
    assert parts["scan.pdf"].get_content_type() == "application/pdf"
    assert parts["größe.bin"].get_content_type() == "application/x-own"
    assert parts["größe.bin"].get_payload(decode=True) == bytes(range(256))
    assert parts["invite.ics"].get_param("method") == "REQUEST"
    assert parts["logo.png"]["Content-ID"] == "<logo.png>"
    assert parts["other.png"]["Content-ID"] == "<other@posthouse.test>"
    assert parts["scan.pdf"].get_payload(decode=True) == b"%PDF-1.7\n\r\n--x"


@pytest.mark.parametrize(
    ("files", "status", "code", "field"),
    [
        ([("attachment", ("a", b"x"))], 422, "validation_failed", "message"),
        ([("message", (None, b"{"))], 422, "validation_failed", "message"),
        ([("message", (None, b'"\xff"'))], 422, "validation_failed", "message"),
        (form({**HELLO, "to": ["nobody"]}), 422, "address_invalid", "to[0].address"),
        (form({**HELLO, "subjekt": "x"}), 422, "validation_failed", "subjekt"),
        (form(HELLO, ("file", ("a", b"x"))), 422, "validation_failed", "file"),
        ([*form(HELLO), *form(HELLO)], 422, "validation_failed", "message"),
        (
            form(HELLO, ("attachment", ("a", b"x")), ("attachment", ("b", b"x", "no type"))),
            *(422, "validation_failed", "attachment[1].content_type"),
        ),
        (form(HELLO, *[("attachment", ("a", b"x"))] * 101), 413, "too_large", "attachments"),
    ],
)  # fmt: skip
async def test_a_wrong_form_gets_its_answer(
    client: httpx.AsyncClient, files: Files, status: int, code: str, field: str
) -> None:
    document = problem(await client.post("/v1/messages", files=files), status, code)
    assert document["errors"][0]["field"] == field


async def test_a_form_that_is_none_is_told_so(client: httpx.AsyncClient) -> None:
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=b"):
        cut = await client.post("/v1/messages", content=b"--b\r\nhello", headers={"Content-Type": content_type})
        problem(cut, 422, "validation_failed")


async def test_a_whole_message_goes_to_whom_it_names(client: httpx.AsyncClient, pool: Pool) -> None:
    in_json = await client.post(
        "/v1/messages", json={"raw": base64.b64encode(WHOLE).decode(), "tags": ["t"], "extra": {"A": "b"}}
    )
    as_body = await client.post("/v1/messages", content=WHOLE, headers={"Content-Type": "message/rfc822"})

    for response in (in_json, as_body):
        assert response.status_code == 202, response.text
        sent = response.json()
        assert [d["recipient"] for d in sent["deliveries"]] == [
            "grace@example.org",
            "ada@example.org",
            "hidden@example.org",
        ]
        message = await stored_message(pool, sent["id"])
        assert message.keys() == ["Received", "Message-Id", "Date", "From", "To", "Cc", "Subject"]
        assert message["Message-Id"] == sent["message_id"]
        assert message.get_content() == "Hello\r\n"
    shown = (await client.get(f"/v1/messages/{in_json.json()['id']}")).json()
    assert (shown["subject"], shown["sender"], shown["tags"]) == ("Grüße", "demo@posthouse.test", ["t"])
    assert shown["extra"] == {"Order": "47", "A": "b"}


async def test_a_whole_message_goes_to_the_recipients_of_the_request_whatever_its_header_says(
    client: httpx.AsyncClient, pool: Pool
) -> None:
    built = EmailMessage()
    built["From"], built["To"], built["Message-ID"] = (
        "demo@posthouse.test",
        "undisclosed-recipients:;",
        "<own@posthouse.test>",
    )
    built.set_content("Grüße\n", cte="8bit")
    built.add_attachment(PNG, "image", "png", filename="a.png")

    raw = base64.b64encode(built.as_bytes()).decode()
    sent = (await client.post("/v1/messages", json={"raw": raw, "recipients": ["Grace <grace@example.org>"]})).json()

    assert [d["recipient"] for d in sent["deliveries"]] == ["grace@example.org"]
    assert sent["message_id"] == "<own@posthouse.test>"
    message = await stored_message(pool, sent["id"])
    assert [part.get_content() for part in message.iter_parts()] == ["Grüße\r\n", PNG]
    stored = b"".join(
        row["bytes"]
        for row in await pool.fetch("SELECT bytes FROM message_body WHERE message_id = $1", int(sent["id"]))
    )
    assert stored.isascii()


@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        ({"raw": "###"}, 422, "validation_failed", "raw"),
        ({"raw": ""}, 422, "validation_failed", "raw.from"),
        ({"raw": WHOLE.replace(b"Hello\r\n", b"Hello\n")}, 422, "validation_failed", "raw"),
        ({"raw": WHOLE.replace(b"demo@posthouse.test", b"demo@elsewhere.example")}, 403, "from_not_allowed", "raw.from"),
        ({"raw": WHOLE.replace(b"<demo@posthouse.test>", b"<a@b.example>, c@d.example")}, 422, "validation_failed", "raw.from"),
        ({"raw": b"From: demo@posthouse.test\r\n\r\nHello\r\n"}, 422, "no_recipients", "to"),
        ({"raw": WHOLE.replace(b"ada@example.org", b"ada")}, 422, "address_invalid", "raw.cc"),
        ({"recipients": ["ada"]}, 422, "address_invalid", "recipients[0].address"),
        ({"recipients": ["a@example.org"] * 1001}, 413, "too_large", "to"),
        ({"raw": WHOLE.replace(b"ada@example.org", b"a@example.org," * 1001)}, 413, "too_large", "to"),
        ({"subject": "x"}, 422, "validation_failed", "subject"),
        ({"tags": [""]}, 422, "validation_failed", "tags[0]"),
    ],
)  # fmt: skip
async def test_a_whole_message_that_cannot_be_sent_is_refused(
    client: httpx.AsyncClient, pool: Pool, change: dict[str, Any], status: int, code: str, field: str
) -> None:
    body = {"raw": WHOLE, **change}
    if isinstance(body["raw"], bytes):
        body["raw"] = base64.b64encode(body["raw"]).decode()
    document = problem(await client.post("/v1/messages", json=body), status, code)
    assert document["errors"][0]["field"] == field
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


async def test_what_is_too_large_as_a_whole_is_refused(start_api: StartApi, demo: Demo) -> None:
    api: RunningApi = await start_api(max_message_bytes=4096)
    async with api.client(demo.account_key) as client:
        headers = {"Content-Type": "message/rfc822"}
        problem(
            await client.post("/v1/messages", content=WHOLE + b"Hello\r\n" * 1000, headers=headers), 413, "too_large"
        )
        files = form(HELLO, ("attachment", ("a", b"x" * 5000)))
        problem(await client.post("/v1/messages", files=files), 413, "too_large")

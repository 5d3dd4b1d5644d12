"""The journey of a mail, as several stories make it: in by HTTP, out by SMTP, told by webhooks, back as a report, not sent again."""

import base64
import email
import email.policy
import json
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtplib
import dkim
import pytest
from standardwebhooks.webhooks import Webhook

from fakes.smtp_server import Message
from fakes.stack import HoldingSmtpServer, Stack
from fakes.webhook_receiver import WebhookReceiver

POSTFIX_REPORT = Path(__file__).parent.parent / "data" / "dsn" / "postfix.eml"
SUBJECT = "Grüße aus Göttingen – Ihre Bestellung №4711 ✓"
TEXT = "Liebe Kundin,\nIhre Rechnung liegt bei. Schöne Grüße!\n.\nEnde\n"
HTML = "<p>Ihre <b>Rechnung</b> liegt bei. Schöne Grüße!</p>"
INVOICE = b"%PDF-1.7\r\n" + bytes(range(256)) * 400
MAIL: dict[str, Any] = {
    "from": "Müllers Laden <demo@posthouse.test>",
    "subject": SUBJECT,
    "text": TEXT,
    "html": HTML,
    "attachments": [{"filename": "Rechnung März.pdf", "content": base64.b64encode(INVOICE).decode()}],
    "extra": {"order": "4711"},
    "tags": ["invoice"],
}


async def told(receiver: WebhookReceiver, secret: str, number: int) -> dict[str, Any]:
    """Return what the webhook of this number (from 1) says, once it has come; its signature must be good."""
    request = (await receiver.wait_for(number, timeout=20))[number - 1]
    verified = Webhook(secret).verify(request.body, request.headers)
    assert verified == json.loads(request.body)
    told: dict[str, Any] = verified
    return told


async def dkim_records(stack: Stack) -> dict[bytes, bytes]:
    """Return the TXT records that the operator is told to publish."""
    base = f"{stack.api_url}/v1/accounts/{stack.demo.account_id}/domains"
    (domain,) = (await stack.http.get(base, headers=stack.as_operator)).json()["data"]
    detail = (await stack.http.get(f"{base}/{domain['id']}", headers=stack.as_operator)).json()
    records = {r["name"]: r["value"] for r in detail["dns_records"] if r["type"] == "TXT"}
    return {name.encode(): value.encode() for name, value in records.items()}


def assert_is_what_was_handed_in(message: Message) -> None:
    """The mail reads as it was handed in, whatever was done for its way."""
    assert b"\n" not in message.content.replace(b"\r\n", b"")
    parsed = email.message_from_bytes(message.content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert parsed["Subject"] == SUBJECT
    assert parsed["From"].addresses[0].display_name == "Müllers Laden"
    text, html = parsed.get_body(("plain",)), parsed.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().replace("\r\n", "\n") == TEXT
    assert html.get_content().strip() == HTML
    (invoice,) = parsed.iter_attachments()
    assert isinstance(invoice, EmailMessage)
    assert invoice.get_filename() == "Rechnung März.pdf"
    assert invoice.get_content() == INVOICE


def assert_is_signed(message: Message, records: Mapping[bytes, bytes]) -> None:
    """Both signatures are good by the published keys, and say so no more when a word is added."""

    def published(name: bytes, timeout: int = 5) -> bytes | None:
        return records.get(name.rstrip(b"."))

    signatures = message.content.partition(b"\r\n\r\n")[0].lower().count(b"dkim-signature:")
    assert signatures == 2
    for index in range(signatures):
        assert dkim.DKIM(message.content).verify(idx=index, dnsfunc=published)
        with pytest.raises(dkim.ValidationError):
            dkim.DKIM(message.content + b"tampered\r\n").verify(idx=index, dnsfunc=published)


def postfix_report(message: Message) -> bytes:
    """Return what Postfix would send back about a message that its user's mailbox host refused."""
    headers, _, _ = message.content.partition(b"\r\n\r\n")
    report = POSTFIX_REPORT.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    returned = report.index(b"Return-Path: <shop")
    report = report[:returned] + headers + b"\r\n\r\n" + report[report.index(b"--4F1A2B3C4D", returned) :]
    return report.replace(b"shop+abcdefghijklmnopqrstuvwxyz@sender.example", message.mail_from.encode()).replace(
        b"kim@receiver.example", message.recipients[0].encode()
    )


async def report_back(stack: Stack, message: Message) -> None:
    """Send a message back to its return path, as the host does that had taken it."""
    host, _, port = stack.newest("dsn-ingest").addresses["smtp"].rpartition(":")
    client = aiosmtplib.SMTP(hostname=host, port=int(port), start_tls=False, timeout=20)
    async with client:
        await client.sendmail("", [message.mail_from], postfix_report(message))


async def travel(
    stack: Stack,
    server: HoldingSmtpServer,
    receiver: WebhookReceiver,
    secret: str,
    recipient: str = "kim@receiver.example",
) -> None:
    """Make the whole journey, checking every stop; all four services run, and nothing else is under way."""
    mails, calls = len(server.messages), len(receiver.requests)
    sent = await stack.send(f"Kim <{recipient}>", **MAIL)
    message = (await server.wait_for(mails + 1))[mails]
    from_id = sent["deliveries"][0]["from_id"]
    assert message.mail_from == f"demo+{from_id}@posthouse.test"
    assert message.recipients == [recipient]
    assert_is_what_was_handed_in(message)
    assert_is_signed(message, await dkim_records(stack))

    delivered = await told(receiver, secret, calls + 1)
    assert delivered["type"] == "delivered"
    facts = delivered["data"]
    assert (facts["message"], facts["from_id"], facts["subject"]) == (sent["id"], from_id, SUBJECT)
    assert (facts["code"], facts["enhanced_code"], facts["attempt"]) == (250, "2.0.0", 1)
    assert (facts["extra"], facts["tags"]) == ({"order": "4711"}, ["invoice"])

    await report_back(stack, message)
    bounced = await told(receiver, secret, calls + 2)
    assert bounced["type"] == "bounced"
    facts = bounced["data"]
    assert (facts["delivery"], facts["recipient"]) == (sent["deliveries"][0]["id"], recipient)
    assert (facts["code"], facts["enhanced_code"], facts["category"]) == (550, "5.1.1", "recipient")
    assert (facts["dsn"], facts["suppressing"]) == (True, True)
    delivery = await stack.get(f"/v1/deliveries/{sent['deliveries'][0]['id']}")
    assert (delivery["state"], bool(delivery["bounced_at"])) == ("delivered", True)
    suppression = (await stack.get("/v1/suppressions"))["data"][0]
    assert (suppression["address"], suppression["delivery"], suppression["manual"]) == (
        recipient,
        delivery["id"],
        False,
    )

    sessions = len(server.sessions)
    again = await stack.send(recipient.replace("@", "+news@").upper(), subject="Once more")
    assert again["deliveries"][0]["state"] == "suppressed"
    suppressed = await told(receiver, secret, calls + 3)
    assert (suppressed["type"], suppressed["data"]["message"]) == ("suppressed", again["id"])
    await stack.quiet()
    assert len(server.sessions) == sessions
    assert len(server.messages) == mails + 1
    assert len(receiver.requests) == calls + 3

    events = (await stack.get("/v1/events"))["data"][-3:]
    assert [event["id"] for event in events] == [delivered["id"], bounced["id"], suppressed["id"]]

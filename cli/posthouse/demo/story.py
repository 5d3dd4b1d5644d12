"""The journey of a mail, step by step. Each step waits for what the others saw, compares it, and only then is told."""

import base64
import email
import email.policy
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, TypeVar

from posthouse.demo.dkim_check import verified
from posthouse.demo.receiver import Receiver, Webhook
from posthouse.demo.remote import HOSTNAME, Mail, Remote
from posthouse.demo.report import DIAGNOSTIC, return_report
from posthouse.demo.timeline import Timeline
from posthouse.operator.client import Client, Document

T = TypeVar("T")

SENDER, DOMAIN = "demo@posthouse.test", "posthouse.test"
GRACE, ADA, NOBODY = (f"{name}@customer.example" for name in ("grace", "ada", "nobody"))
SUBJECT = "Grüße aus dem Posthaus: 郵便 ✉"
TEXT = "Liebe Grace,\n\nhier ist die Briefmarke.\n\nViele Grüße\n"
HTML = "<p>Liebe Grace,</p><p>hier ist die <b>Briefmarke</b>.</p><p>Viele Grüße</p>"
FILENAME = "stamp.png"

_PAGE = 100


class Missing(Exception):
    """Something that should have been seen was not, or was not as it should be."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Who is there."""

    client: Client
    """The application, with its API key."""
    operator: Client
    smtp: str
    """Where the stack takes mail, ``host:port``."""
    remote: Remote
    receiver: Receiver
    wait: Callable[[Callable[[], Any], str], Any]
    """Waits until a look returns something true, and returns that; raises :class:`Missing` with what was to be seen."""


class Story:
    """The whole journey."""

    def __init__(self, stage: Stage, timeline: Timeline) -> None:
        """Take who is there, and where to tell it."""
        self._stage, self._line = stage, timeline
        self._stamp = stamp()

    def tell(self) -> None:
        """Go through all of it.

        Raises:
            Missing: a step was not seen; says which.
            Refused: the REST interface refused something.
        """
        message = self._hand_in()
        grace = delivery_to(message, GRACE)
        mail = self._arrive(message, grace)
        self._come_back(mail, grace)
        self._be_refused()
        self._be_spared()

    def _hand_in(self) -> Document:
        self._line.chapter("1. The application hands in a mail to two people")
        body: Document = {
            "from": f"Posthouse Demo <{SENDER}>",
            "to": [f"Grace Hopper <{GRACE}>"],
            "cc": [ADA],
            "subject": SUBJECT,
            "text": TEXT,
            "html": HTML,
            "attachments": [{"filename": FILENAME, "content": base64.b64encode(self._stamp).decode()}],
            "tags": ["demo"],
            "extra": {"order": "4711"},
        }
        what = f"text, HTML and {FILENAME} ({len(self._stamp)} bytes)"
        self._line.step("request", f"POST /v1/messages: “{SUBJECT}” with {what}, to {GRACE} and {ADA}")
        message = self._accept(body)
        tokens = {delivery.get("from_id") for delivery in message["deliveries"]}
        _check(None not in tokens and len(tokens) == 2, "a from_id of its own for each of the two deliveries")
        return message

    def _accept(self, body: Document) -> Document:
        message = self._stage.client.post("/v1/messages", body)
        self._line.step("accepted", f"message {message['id']}, committed; Message-ID {message['message_id']}")
        for delivery in message["deliveries"]:
            token = f", from_id {delivery['from_id']}" if delivery["from_id"] else ""
            self._line.details(f"delivery {delivery['id']} to {delivery['recipient']}: {delivery['state']}{token}")
        return message

    def _arrive(self, message: Document, grace: Document) -> Mail:
        stage = self._stage
        self._line.chapter("2. It goes out over SMTP")
        mails = [self._taken(delivery) for delivery in message["deliveries"]]
        for delivery, mail in zip(message["deliveries"], mails, strict=True):
            record = self._settled(delivery, "delivered")
            attempt = record["attempts"][-1]
            _check(attempt["code"] == 250, f"the reply 250 on record for delivery {delivery['id']}")
            self._line.step("delivered", f"delivery {delivery['id']}: {HOSTNAME} said {mail.reply}")
            self._line.details(f"MAIL FROM:<{mail.mail_from}>", f"RCPT TO:<{mail.recipient}>")
        signatures, parts = self._read(mails[0])
        self._line.step("compared", "what the remote has is what the application sent")
        self._line.details(
            f"DKIM signatures, verified with the keys the domain publishes: {'; '.join(signatures)}",
            f"Subject, decoded: {parts['Subject']}",
            f"text and HTML as handed in; {FILENAME}: {len(self._stamp)} bytes, equal",
        )
        for delivery in message["deliveries"]:
            told = self._webhook("delivered", delivery)
            data = told.body["data"]
            _check(data["extra"] == {"order": "4711"} and data["tags"] == ["demo"], "extra and tags in the webhook")
            self._tell_webhook(told, whole=delivery is grace)
        _check(not stage.remote.seen.refusals, "no refusal")
        return mails[0]

    def _come_back(self, mail: Mail, grace: Document) -> None:
        stage = self._stage
        self._line.chapter("3. Later the remote finds that Grace's mailbox is closed, and says so by mail")
        reply = return_report(stage.smtp, mail)
        self._line.step("report", f"multipart/report (RFC 3464) over SMTP, from <> to <{mail.mail_from}>")
        self._line.details(
            f"Final-Recipient: rfc822; {GRACE}, Status: 5.1.1, Diagnostic-Code: smtp; {DIAGNOSTIC}",
            f"the stack said {reply}",
        )
        event = stage.wait(
            lambda: next(iter(self._events("bounced", grace)), None), f"the event bounced of delivery {grace['id']}"
        )
        _check(event["data"]["dsn"] is True, "that the event bounced comes from a report")
        record = stage.client.get(f"/v1/deliveries/{grace['id']}")
        _check(record["bounced_at"] is not None, f"a bounce time on delivery {grace['id']}")
        self._line.step(
            "bounced", f"delivery {grace['id']}, found by the from_id in its return path; event {event['id']}"
        )
        self._tell_webhook(self._webhook("bounced", grace))
        entries = stage.client.get("/v1/suppressions", address=GRACE)["data"]
        _check(len(entries) == 1 and entries[0]["delivery"] == grace["id"], f"{GRACE} in GET /v1/suppressions")
        self._line.step("listed", f"GET /v1/suppressions has {GRACE}: {entries[0]['reason']}, {entries[0]['text']}")

    def _be_refused(self) -> None:
        self._line.chapter("4. A mail to somebody who is not there")
        delivery = self._accept(_note_to(NOBODY))["deliveries"][0]
        record = self._settled(delivery, "failed")
        reply = self._stage.remote.seen.refusals.get(NOBODY)
        _check(reply is not None, f"that the remote refused RCPT TO:<{NOBODY}>")
        attempt = record["attempts"][-1]
        _check(attempt["code"] == 550 and attempt["enhanced_code"] == "5.1.1", "the reply 550 5.1.1 on record")
        self._line.step("failed", f"delivery {delivery['id']}: {HOSTNAME} answered RCPT TO:<{NOBODY}> with {reply}")
        self._tell_webhook(self._webhook("failed", delivery))

    def _be_spared(self) -> None:
        stage = self._stage
        self._line.chapter("5. The next mail to Grace is not even tried")
        before = (stage.remote.seen.connections, stage.remote.seen.transactions)
        delivery = self._accept(_note_to(GRACE))["deliveries"][0]
        record = self._settled(delivery, "suppressed")
        told = self._webhook("suppressed", delivery)
        after = (stage.remote.seen.connections, stage.remote.seen.transactions)
        _check(after == before and not record["attempts"], "that nothing was tried over SMTP")
        self._line.step(
            "suppressed", f"delivery {delivery['id']}: no attempt, no new SMTP connection, no new MAIL FROM"
        )
        self._tell_webhook(told)

    def _taken(self, delivery: Document) -> Mail:
        recipient = delivery["recipient"]

        def look() -> Mail | None:
            return next((mail for mail in self._stage.remote.seen.mails if mail.recipient == recipient), None)

        mail: Mail = self._stage.wait(look, f"the mail to {recipient} at the remote")
        _check(delivery["from_id"] in mail.mail_from, f"the from_id of delivery {delivery['id']} in its MAIL FROM")
        return mail

    def _settled(self, delivery: Document, state: str) -> Document:
        def look() -> Document | None:
            record = self._stage.client.get(f"/v1/deliveries/{delivery['id']}")
            return record if record["settled_at"] is not None else None

        record: Document = self._stage.wait(look, f"that delivery {delivery['id']} is {state}")
        _check(record["state"] == state, f"that delivery {delivery['id']} is {state}; it is {record['state']}")
        return record

    def _events(self, kind: str, delivery: Document) -> list[Document]:
        page = self._stage.client.get("/v1/events", type=kind, delivery_id=delivery["id"], limit=_PAGE)
        return list(page["data"])

    def _webhook(self, kind: str, delivery: Document) -> Webhook:
        wanted = (kind, delivery["id"])

        def look() -> Webhook | None:
            return next((webhook for webhook in self._stage.receiver.webhooks if webhook.about == wanted), None)

        webhook: Webhook = self._stage.wait(look, f"the webhook {kind} of delivery {delivery['id']}")
        _check(webhook.fault is None, f"a good signature on the webhook {kind}: {webhook.fault}")
        recorded = {event["id"] for event in self._events(kind, delivery)}
        _check(
            recorded == {webhook.body["id"]}, f"one event {kind} of delivery {delivery['id']}, the one in its webhook"
        )
        return webhook

    def _tell_webhook(self, webhook: Webhook, *, whole: bool = True) -> None:
        kind, delivery = webhook.about
        self._line.step(
            "webhook", f"{kind}, of delivery {delivery}: {webhook.webhook_id}, signature verified (Standard Webhooks)"
        )
        if whole:
            self._line.document(webhook.body)

    def _read(self, mail: Mail) -> tuple[list[str], EmailMessage]:
        """Compare a mail with what was handed in; return its signatures and the mail as the standard library reads it."""
        try:
            signatures = verified(mail.content, self._published())
        except ValueError as error:
            raise Missing(f"good DKIM signatures: {error}") from None
        _check({who.rpartition(" ")[2] for who in signatures} == {DOMAIN}, f"DKIM signatures by {DOMAIN}")
        message = email.message_from_bytes(mail.content, policy=email.policy.default)
        _check(message["Subject"] == SUBJECT, f"the subject “{SUBJECT}”; it is “{message['Subject']}”")
        for kind, wanted in (("plain", TEXT), ("html", HTML)):
            part = message.get_body((kind,))
            found = part.get_content() if part is not None else ""
            _check(found.replace("\r\n", "\n").strip() == wanted.strip(), f"the {kind} part as it was handed in")
        files = {part.get_filename(): part.get_payload(decode=True) for part in message.iter_attachments()}
        _check(files == {FILENAME: self._stamp}, f"the attachment {FILENAME}, octet for octet")
        return signatures, message

    def _published(self) -> dict[str, str]:
        """Return the TXT records that the domain publishes, as an operator is told them."""
        operator = self._stage.operator
        for account in operator.listed("/v1/accounts", _PAGE).items:
            base = f"/v1/accounts/{account['id']}/domains"
            for domain in operator.listed(base, _PAGE).items:
                if domain["name"] == DOMAIN:
                    records = operator.get(f"{base}/{domain['id']}")["dns_records"]
                    return {record["name"]: record["value"] for record in records if record["type"] == "TXT"}
        raise Missing(f"the domain {DOMAIN} among the accounts")


def delivery_to(message: Document, recipient: str) -> Document:
    """Return the delivery of an accepted message to one of its recipients."""
    found: Document = next(delivery for delivery in message["deliveries"] if delivery["recipient"] == recipient)
    return found


def stamp() -> bytes:
    """Return a picture, 48 by 48: PNG with 8-bit greyscale (RFC 2083)."""
    side = 48
    rows = b"".join(bytes([0, *((x * y * 5) % 256 for x in range(side))]) for y in range(side))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _note_to(recipient: str) -> Document:
    return {"from": SENDER, "to": [recipient], "subject": "Noch eine Frage", "text": "Ist die Briefmarke angekommen?\n"}


def _check(seen: bool, what: str) -> None:  # noqa: FBT001 - the one thing it is about
    if not seen:
        raise Missing(what)

"""Messages, their deliveries, and the attempts at these."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from api.schemas.base import Base64, Input, Moment, Output, PageOf, Text, Time, example
from api.schemas.mailbox import split_mailbox
from api.schemas.options import SendOptions
from api.schemas.summaries import MESSAGE, MessageSummary, message_fields
from shared.db.accept import AcceptedMessage
from shared.db.messages import AttemptView, DeliveryDetail, DeliveryView, HoldView, MessageDetail
from shared.lifecycle import DeliveryState

_SENT_DELIVERY: dict[str, object] = {
    "id": "771",
    "recipient": "grace@example.org",
    "from_id": "mzxw6ytboi2gk3tunbuw4zzanf",
    "state": "queued",
    "suppressed": False,
}
_ATTEMPT: dict[str, object] = {
    "number": 1,
    "started_at": "2026-11-20T13:00:00.120000Z",
    "finished_at": "2026-11-20T13:00:00.480000Z",
    "outcome": "delivered",
    "stage": "data",
    "code": 250,
    "enhanced_code": "2.0.0",
    "text": "2.0.0 Ok: queued as 4F1A2",
    "host": "mx.example.org",
    "ip": "192.0.2.25",
    "tls": "TLSv1.3",
}
_DELIVERY: dict[str, object] = {
    "id": "771",
    "message": "770",
    "recipient": "grace@example.org",
    "mail_from": "ada+mzxw6ytboi2gk3tunbuw4zzanf@example.com",
    "from_id": "mzxw6ytboi2gk3tunbuw4zzanf",
    "state": "delivered",
    "held": None,
    "attempts_made": 1,
    "created_at": "2026-11-20T13:00:00.000000Z",
    "due_at": None,
    "settled_at": "2026-11-20T13:00:00.480000Z",
    "bounced_at": None,
    "complained_at": None,
    "keep_until": "2026-11-23T13:00:00.480000Z",
    "code": 250,
    "enhanced_code": "2.0.0",
    "text": "2.0.0 Ok: queued as 4F1A2",
}
DELIVERY_WITH_ATTEMPTS: dict[str, object] = {**_DELIVERY, "attempts": [_ATTEMPT]}
_MESSAGE_ID = "<0Zk3v9hVqLk1W2x3Y4z5Aw@mail.example.com>"


class Mailbox(Input):
    """An address with or without a name: `"Ada <ada@example.com>"`, `"ada@example.com"`, or an object."""

    model_config = example({"name": "Ada Lovelace", "address": "ada@example.com"})

    address: Text = Field(description="A bare address.", examples=["ada@example.com"])
    name: Text = Field(default="", description="The display name.", examples=["Ada Lovelace"])

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if isinstance(value, str):
            name, address = split_mailbox(value)
            return {"name": name, "address": address}
        if isinstance(value, Mapping):
            return value
        raise PydanticCustomError(
            "mailbox_type", 'An address is text such as "Ada <ada@example.com>", or an object with address and name'
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Show both forms."""
        reference = handler(schema)
        made = handler.resolve_ref_schema(reference)
        fields = {key: made.pop(key) for key in ("type", "properties", "required", "additionalProperties")}
        made["anyOf"] = [{"type": "string", "examples": ["Ada Lovelace <ada@example.com>"]}, fields]
        return reference


class Header(Input):
    """A further header field."""

    model_config = example({"name": "X-Campaign", "value": "autumn"})

    name: Text = Field(description="One that Posthouse does not write itself.")
    value: Text = Field(description="One line.")


class Attachment(Input):
    """A file that goes with the message."""

    model_config = example({"filename": "hello.txt", "content": "SGVsbG8sIHdvcmxkIQo="})

    filename: Text
    content: Base64 = Field(description="The file in base64.")
    content_type: Text | None = Field(
        default=None,
        description="Told from the file's first bytes, and its name where these leave it open, if it is missing.",
        examples=["text/plain"],
    )
    content_id: Text | None = Field(default=None, description="What the HTML names it by, as `cid:...`.")
    disposition: Literal["attachment", "inline", "alternative"] = Field(
        default="attachment",
        description="`inline` for files that the HTML shows, `alternative` for another form of the whole text, such as a calendar entry.",
    )


class SendMessage(SendOptions):
    """A message to send: at least one recipient, and text or HTML."""

    model_config = example(
        {
            "from": "Ada Lovelace <ada@example.com>",
            "to": [{"name": "Grace Hopper", "address": "grace@example.org"}],
            "subject": "Grüße",
            "text": "Hello, Grace.\n",
            "html": "<p>Hello, Grace.</p>",
            "attachments": [{"filename": "hello.txt", "content": "SGVsbG8sIHdvcmxkIQo="}],
            "tags": ["welcome"],
            "extra": {"order": "4711"},
        }
    )

    sender: Mailbox = Field(alias="from", description="An address that this credential may use.")
    to: list[Mailbox] = Field(default=[])
    cc: list[Mailbox] = Field(default=[])
    bcc: list[Mailbox] = Field(default=[], description="They get the message and are not named in it.")
    reply_to: list[Mailbox] = Field(default=[], description="Where answers shall go, if not to the sender.")
    subject: Text = Field(default="", max_length=2000)
    text: Text | None = None
    html: Text | None = None
    attachments: list[Attachment] = Field(default=[], description="Files, and what the HTML shows of them.")
    headers: list[Header] = Field(default=[], description="Further header fields, in this order.")
    message_id: Text | None = Field(
        default=None,
        description="The Message-ID with its angle brackets; without it a new one is made.",
        examples=[_MESSAGE_ID],
    )
    date: Moment | None = Field(default=None, description="The Date field; now, without it.")
    references: list[Text] = Field(
        default=[], description="Message-IDs of the conversation, the oldest first; the last becomes In-Reply-To."
    )


class SendRawMessage(SendOptions):
    """A whole message to send: what its header says, nothing else, decides about From, Message-ID, Date and the rest."""

    model_config = example(
        {
            "raw": "RnJvbTogYWRhQGV4YW1wbGUuY29tDQpUbzogZ3JhY2VAZXhhbXBsZS5vcmcNCg0KSGVsbG8sIEdyYWNlLg0K",
            "recipients": ["grace@example.org"],
            "tags": ["welcome"],
        }
    )

    raw: Base64 = Field(
        description="The message (RFC 5322) in base64. Bcc, Return-Path and X-Posthouse- fields are taken out; Message-ID and Date are added where they are missing."
    )
    recipients: list[Mailbox] = Field(
        default=[],
        description="Whom it goes to, whatever its header says; without them, to all that To, Cc and Bcc name.",
    )


class SentDelivery(Output):
    """The delivery of a new message to one recipient."""

    model_config = example(_SENT_DELIVERY)

    id: str
    recipient: str
    from_id: str | None = Field(description="The token in its return path; null where the credential uses none.")
    state: DeliveryState = Field(
        description="`queued`; `suppressed`, where the recipient is on the suppression list and it was due; `held`, where a hold rule matches it."
    )
    suppressed: bool = Field(
        description="Whether the recipient is on the suppression list. What is not due yet, or held, is asked again at its start."
    )


class SentMessage(Output):
    """An accepted message."""

    model_config = example({"id": "770", "message_id": _MESSAGE_ID, "deliveries": [_SENT_DELIVERY]})

    id: str
    message_id: str = Field(description="The Message-ID header, with its angle brackets.")
    deliveries: list[SentDelivery] = Field(description="One for each of to, cc and bcc (or recipients), in this order.")

    @classmethod
    def of(cls, message: AcceptedMessage) -> "SentMessage":
        """Show an accepted message."""
        return cls(
            id=str(message.id),
            message_id=message.message_id,
            deliveries=[
                SentDelivery(
                    id=str(d.id), recipient=d.recipient, from_id=d.from_id, state=d.state, suppressed=d.suppressed
                )
                for d in message.deliveries
            ],
        )


class Attempt(Output):
    """One SMTP try."""

    model_config = example(_ATTEMPT)

    number: int
    started_at: Time
    finished_at: Time | None = Field(description="Null while it runs.")
    outcome: str | None
    stage: str | None = Field(description="How far it came.")
    code: int | None = Field(description="The SMTP reply code.")
    enhanced_code: str | None = Field(description="RFC 3463, such as `5.1.1`.")
    text: str | None
    host: str | None
    ip: str | None
    tls: str | None

    @classmethod
    def of(cls, view: AttemptView) -> "Attempt":
        """Show an attempt."""
        return cls(
            number=view.n,
            started_at=view.started_at,
            finished_at=view.finished_at,
            outcome=view.outcome,
            stage=view.stage,
            code=view.code,
            enhanced_code=view.enhanced,
            text=view.text,
            host=view.host,
            ip=view.ip,
            tls=view.tls,
        )


class Held(Output):
    """That a delivery waits until somebody releases it."""

    model_config = example({"by": "account", "rule": "5", "reason": "the price list is wrong"})

    by: Literal["account", "operator"]
    rule: str | None = Field(description="The id of the hold rule; null: by hand, or by an operator's rule.")
    reason: str = Field(description="That of the rule.")

    @classmethod
    def of(cls, view: HoldView, *, to_operator: bool) -> "Held":
        """Show a hold; what operators wrote is not for accounts."""
        shown = to_operator or not view.by_operator
        rule = str(view.rule_id) if shown and view.rule_id is not None else None
        return cls(
            by="operator" if view.by_operator else "account", rule=rule, reason=view.reason if rule is not None else ""
        )


class Delivery(Output):
    """One message to one recipient, as it stands."""

    model_config = example(_DELIVERY)

    id: str
    message: str = Field(description="The id of its message.")
    recipient: str
    mail_from: str = Field(description="Its return path.")
    from_id: str | None
    state: DeliveryState
    held: Held | None = Field(description="By whom it is held, also while it is in flight; null when it is not.")
    attempts_made: int
    created_at: Time
    due_at: Time | None = Field(description="When it is tried next; null when settled.")
    settled_at: Time | None
    bounced_at: Time | None = Field(description="When a report said that the delivered mail came back.")
    complained_at: Time | None
    keep_until: Time | None
    code: int | None = Field(description="Of the last reply; null where nobody was asked.")
    enhanced_code: str | None
    text: str | None

    @classmethod
    def of(cls, view: DeliveryView) -> "Delivery":
        """Show a delivery."""
        return cls(**_delivery_fields(view))


class DeliveryWithAttempts(Delivery):
    """A delivery and every try at it, the first one first."""

    model_config = example(DELIVERY_WITH_ATTEMPTS)

    attempts: list[Attempt]

    @classmethod
    def detail(cls, detail: DeliveryDetail, *, to_operator: bool = False) -> "DeliveryWithAttempts":
        """Show a delivery with its attempts."""
        attempts = [Attempt.of(attempt) for attempt in detail.attempts]
        return cls(**_delivery_fields(detail.delivery, to_operator=to_operator), attempts=attempts)


def _delivery_fields(view: DeliveryView, *, to_operator: bool = False) -> dict[str, Any]:
    return {
        "id": str(view.id),
        "message": str(view.message_id),
        "recipient": view.recipient,
        "mail_from": view.mail_from,
        "from_id": view.from_id,
        "state": view.state,
        "held": Held.of(view.hold, to_operator=to_operator) if view.hold is not None else None,
        "attempts_made": view.attempts,
        "created_at": view.created_at,
        "due_at": view.due_at,
        "settled_at": view.settled_at,
        "bounced_at": view.bounced_at,
        "complained_at": view.complained_at,
        "keep_until": view.keep_until,
        "code": view.code or None,
        "enhanced_code": view.enhanced or None,
        "text": view.text,
    }


class DeliveryPage(PageOf[Delivery]):
    """Deliveries, the newest first."""

    model_config = example({"data": [_DELIVERY], "next_cursor": None})


class Message(MessageSummary):
    """A submission and what became of it so far."""

    model_config = example({**MESSAGE, "deliveries": [DELIVERY_WITH_ATTEMPTS]})

    deliveries: list[DeliveryWithAttempts]

    @classmethod
    def of(cls, detail: MessageDetail) -> "Message":
        """Show a message."""
        deliveries = [DeliveryWithAttempts.detail(delivery) for delivery in detail.deliveries]
        return cls(**message_fields(detail.message), deliveries=deliveries)

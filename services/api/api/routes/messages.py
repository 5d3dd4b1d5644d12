"""``/v1/messages``: hand in, and look up."""

import asyncio

from fastapi import APIRouter, Request, Response

from api.caller import AccountCaller
from api.context import InContext
from api.routes.guard import AccountAuth, GuardedRoute, read_json
from api.routes.parameters import Id
from api.schemas.messages import Mailbox, Message, SendMessage, SentDelivery, SentMessage
from api.submission import File, Party, Submission
from shared.db.messages import get_message
from shared.errors import (
    AddressInvalid,
    DatabaseUnavailable,
    Forbidden,
    FromNotAllowed,
    NoRecipients,
    NotFound,
    Overloaded,
    TooLarge,
    Unauthenticated,
    ValidationFailed,
)
from shared.web.problems import responses

router = APIRouter(prefix="/v1/messages", tags=["messages"], route_class=GuardedRoute)

_LOOP_MAY_READ = 64 * 1024


@router.post(
    "",
    operation_id="messages_send",
    summary="Send a message",
    status_code=202,
    responses=responses(
        Unauthenticated,
        Forbidden,
        FromNotAllowed,
        TooLarge,
        ValidationFailed,
        AddressInvalid,
        NoRecipients,
        Overloaded,
        DatabaseUnavailable,
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SendMessage"}}},
        }
    },
)
async def send(request: Request, response: Response, context: InContext, caller: AccountAuth) -> SentMessage:
    """Hand in a message. The answer comes once it is safely stored; what becomes of it is told by events.

    A recipient on the suppression list gets a delivery in state `suppressed` and no mail.
    """
    raw = await request.body()
    large = len(raw) > _LOOP_MAY_READ
    message = await asyncio.to_thread(read_json, SendMessage, raw) if large else read_json(SendMessage, raw)
    submitted = await context.submitter.submit(_submission(caller, message))
    response.headers["Location"] = f"/v1/messages/{submitted.id}"
    return SentMessage(
        id=str(submitted.id),
        message_id=submitted.message_id,
        deliveries=[
            SentDelivery(id=str(d.id), recipient=d.recipient, from_id=d.from_id, state=d.state)
            for d in submitted.deliveries
        ],
    )


@router.get(
    "/{message}",
    operation_id="messages_get",
    summary="Get a message",
    responses=responses(Unauthenticated, Forbidden, NotFound, DatabaseUnavailable),
)
async def get(message: Id, context: InContext, caller: AccountAuth) -> Message:
    """Return a message with its deliveries and every attempt at them."""
    async with context.read() as connection:
        detail = await get_message(connection, caller.account_id, int(message))
    if detail is None:
        raise NotFound(f"there is no message {message} in this account")
    return Message.of(detail)


def _submission(caller: AccountCaller, message: SendMessage) -> Submission:
    return Submission(
        door="rest",
        account_id=caller.account_id,
        credential_id=caller.credential_id,
        credential_kind=caller.kind,
        uses_from_ids=caller.uses_from_ids,
        sender=Party(message.sender.name, message.sender.address, "from.address"),
        to=_parties("to", message.to),
        cc=_parties("cc", message.cc),
        bcc=_parties("bcc", message.bcc),
        reply_to=_parties("reply_to", message.reply_to),
        subject=message.subject,
        text=message.text,
        html=message.html,
        files=tuple(
            File(a.filename, a.content, a.content_type, a.content_id, a.disposition) for a in message.attachments
        ),
        headers=tuple((header.name, header.value) for header in message.headers),
        message_id=message.message_id,
        date=message.date,
        references=tuple(message.references),
        extra=message.extra,
        tags=tuple(message.tags),
    )


def _parties(field: str, mailboxes: list[Mailbox]) -> tuple[Party, ...]:
    return tuple(Party(box.name, box.address, f"{field}[{index}].address") for index, box in enumerate(mailboxes))

"""``/v1/messages``: hand in, and look up."""

import asyncio
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from api.context import InContext
from api.routes import answers
from api.routes.guard import AccountAuth
from api.routes.parameters import Id, Paging
from api.routes.submissions import (
    BODY,
    KEY,
    REPLAYED,
    SubmissionRoute,
    header_key,
    read_submission,
    replayed_header,
)
from api.schemas.base import Text
from api.schemas.messages import Message, SentMessage
from api.schemas.summaries import MessagePage, MessageSummary
from shared.db.message_list import MessageFilter, list_messages
from shared.db.messages import get_message
from shared.db.tags import MOST_TAGS
from shared.errors import (
    AddressInvalid,
    DatabaseUnavailable,
    Forbidden,
    FromNotAllowed,
    IdempotencyConflict,
    MessageLimitReached,
    NoRecipients,
    NotFound,
    Overloaded,
    RateLimited,
    RecipientLimitReached,
    TooLarge,
    Unauthenticated,
    ValidationFailed,
)
from shared.web.problems import responses

router = APIRouter(prefix="/v1/messages", tags=["messages"], route_class=SubmissionRoute)

_LOOP_MAY_READ = 64 * 1024
_KEY = (
    "Makes it safe to send the message again: for 24 hours the same message with the same key is answered as the first was,"
    " and not sent twice. Another message with the same key is refused with `idempotency_conflict`. Keys belong to the account."
)


@router.post(
    "",
    operation_id="messages_send",
    summary="Send a message",
    status_code=202,
    responses={
        202: {"headers": replayed_header("The message was there already, and this is what was answered then.")},
        **responses(
            Unauthenticated,
            Forbidden,
            FromNotAllowed,
            IdempotencyConflict,
            TooLarge,
            ValidationFailed,
            AddressInvalid,
            NoRecipients,
            MessageLimitReached,
            RecipientLimitReached,
            RateLimited,
            Overloaded,
            DatabaseUnavailable,
        ),
    },
    openapi_extra={**BODY, "parameters": [{**KEY, "description": _KEY}]},
)
async def send(request: Request, response: Response, context: InContext, caller: AccountAuth) -> SentMessage:
    """Hand in a message. The answer comes once it is safely stored; what becomes of it is told by events.

    It comes as JSON; as a form, whose part `message` is that JSON and whose parts `attachment`, `inline` and `alternative` are
    files, an inline one named by its Content-ID or else its file name; or as a whole message, in JSON or as `message/rfc822`.

    A recipient on the suppression list gets a delivery in state `suppressed` and no mail; where `send_at` lies ahead, once it is due.
    What a sandbox key hands in is taken in the same way, and goes nowhere.
    """
    key = header_key(request)
    body, content_type = await request.body(), request.headers.get("content-type", "")
    large = len(body) > _LOOP_MAY_READ
    submission = (
        await asyncio.to_thread(read_submission, caller, content_type, body)
        if large
        else read_submission(caller, content_type, body)
    )
    submitted = await context.submitter.submit(replace(submission, idempotency_key=key))
    response.headers["Location"] = f"/v1/messages/{submitted.id}"
    if submitted.replayed:
        response.headers[REPLAYED] = "true"
    return SentMessage.of(submitted)


class MessageQuery(Paging):
    """Which messages."""

    tag: list[Text] = Field(default=[], max_length=MOST_TAGS, description="With this tag; repeated, with all of them.")


@router.get("", operation_id="messages_list", summary="List messages", responses=answers.LIST)
async def list_(context: InContext, caller: AccountAuth, query: Annotated[MessageQuery, Query()]) -> MessagePage:
    """Return messages, the newest first, without what became of them."""
    wanted = MessageFilter(tags=tuple(query.tag), stream=caller.stream)
    async with context.read() as connection:
        page = await list_messages(connection, caller.account_id, wanted, cursor=query.cursor, limit=query.limit)
    return MessagePage(data=[MessageSummary.summary(view) for view in page.items], next_cursor=page.next_cursor)


@router.get(
    "/{message}",
    operation_id="messages_get",
    summary="Get a message",
    responses=responses(Unauthenticated, Forbidden, NotFound, DatabaseUnavailable),
)
async def get(message: Id, context: InContext, caller: AccountAuth) -> Message:
    """Return a message with its deliveries and every attempt at them."""
    async with context.read() as connection:
        detail = await get_message(connection, caller.account_id, int(message), stream=caller.stream)
    if detail is None:
        raise NotFound(f"there is no message {message} in this account")
    return Message.of(detail)

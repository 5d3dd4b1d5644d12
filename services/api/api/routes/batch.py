"""``/v1/messages/batch``: many messages in one call, each accepted or refused for itself."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from api.caller import AccountCaller
from api.context import Context, InContext
from api.idempotency import check_key, of_batch
from api.routes.guard import AccountAuth, GuardedRoute, read_json
from api.routes.submissions import KEY, REPLAYED, header_key, replayed_header, result_of, submission_of
from api.schemas.batch import BatchResult, SendBatch
from api.schemas.messages import SentMessage
from api.submission import Submission
from shared.errors import DatabaseUnavailable, Forbidden, Overloaded, TooLarge, Unauthenticated, ValidationFailed
from shared.web import problems
from shared.web.problems import responses

router = APIRouter(prefix="/v1/messages", tags=["messages"], route_class=GuardedRoute)

AT_ONCE: Final = 64
"""Messages of one batch that are under way together: enough to share commits, and other callers get their turn between them."""
_KEY: Final = (
    "Stands for a key of each message that has none of its own, by its place in the list. So the same batch with the same key may"
    " be sent again: what was accepted is answered as before and not sent twice, what was refused is tried again."
)

Read = Submission | Exception
"""A message as it was understood, or why it was not."""


@router.post(
    "/batch",
    operation_id="messages_send_batch",
    summary="Send many messages",
    response_model=BatchResult,
    responses={
        200: {"headers": replayed_header("Every message that was accepted was there already; nothing new is sent.")},
        **responses(Unauthenticated, Forbidden, TooLarge, ValidationFailed, Overloaded, DatabaseUnavailable),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SendBatch"}}},
        },
        "parameters": [{**KEY, "description": _KEY}],
    },
)
async def send_batch(request: Request, context: InContext, caller: AccountAuth) -> Response:
    """Hand in up to 500 messages. Each is accepted or refused for itself, as if it had come alone; the results are in the same order.

    The status is 200 as soon as the list as such is right, also where every message of it was refused: look at each `status`.
    """
    key = header_key(request)
    # In a thread whatever its size: five hundred small messages take as long to read as one large one.
    messages = await asyncio.to_thread(_read, caller, await request.body(), key)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(read: Read) -> tuple[bytes, bool | None]:
        async with room:
            return await _handed_in(context, read, request.scope)

    results = await asyncio.gather(*(one(message) for message in messages))
    accepted = [replayed for _, replayed in results if replayed is not None]
    headers = {REPLAYED: "true"} if accepted and all(accepted) else {}
    content = b'{"results":[' + b",".join(result for result, _ in results) + b"]}"
    return Response(content, media_type="application/json", headers=headers)


def _read(caller: AccountCaller, body: bytes, key: str | None) -> Sequence[Read]:
    """Return the messages of a batch.

    Raises:
        HTTPException, RequestValidationError: the body as such is none.
    """
    batch = read_json(SendBatch, body)
    return [_read_one(caller, value, place, key) for place, value in enumerate(batch.messages)]


def _read_one(caller: AccountCaller, value: object, place: int, key: str | None) -> Read:
    try:
        own: object = None
        if isinstance(value, dict):
            own, value = value.get("idempotency_key"), {n: v for n, v in value.items() if n != "idempotency_key"}
        submission = submission_of(caller, value)
        if own is not None:
            return replace(submission, idempotency_key=check_key(own, field="idempotency_key"))
    except Exception as error:  # noqa: BLE001 - told in the result of this message, and logged there where it is our fault
        return error
    return replace(submission, idempotency_key=of_batch(key, place)) if key is not None else submission


async def _handed_in(context: Context, read: Read, scope: Mapping[str, Any]) -> tuple[bytes, bool | None]:
    """Hand in a message; return its result as JSON, and whether it was a repeat, None where it was refused.

    JSON at once: models of all results, made into JSON at the end, would hold up everybody else in this process.
    """
    try:
        with context.metrics.refusals("rest", result_of):
            accepted = await context.submitter.submit(_understood(read))
    except Exception as error:  # noqa: BLE001 - told in the result of this message, and logged where it is our fault
        return b'{"status":"refused","problem":%b}' % problems.partial(error, scope), None
    message = SentMessage.of(accepted).model_dump_json().encode()
    return b'{"status":"accepted","message":%b}' % message, accepted.replayed


def _understood(read: Read) -> Submission:
    if isinstance(read, Exception):
        raise read
    return read

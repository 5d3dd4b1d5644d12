"""What ``POST /v1/messages`` takes: parts as JSON, parts as a form with files, a whole message."""

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, ClassVar, Final

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect

from api.caller import AccountCaller
from api.context import context_of
from api.formdata import FormPart, boundary_of, read_form
from api.idempotency import LONGEST, read_key
from api.routes.guard import GuardedRoute, parse_json, read_json, validated
from api.schemas.messages import Mailbox, SendMessage, SendRawMessage
from api.schemas.options import SendOptions
from api.submission import Disposition, File, Party, Submission
from shared.errors import ValidationFailed
from shared.web.problems import answer_to

_FORM: Final = "multipart/form-data"
_WHOLE: Final = "message/rfc822"
_FILE_PARTS: Final[dict[str, Disposition]] = {
    "attachment": "attachment",
    "inline": "inline",
    "alternative": "alternative",
}
_UNKNOWN_TYPE: Final = "application/octet-stream"
"""What clients write where they do not know (RFC 7578 section 4.4): then we look."""

_FILES: Final[dict[str, Any]] = {"type": "array", "items": {"type": "string", "contentMediaType": _UNKNOWN_TYPE}}
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/SendMessage"},
                        {"$ref": "#/components/schemas/SendRawMessage"},
                    ]
                }
            },
            _FORM: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "message": {"$ref": "#/components/schemas/SendMessage"},
                        **dict.fromkeys(_FILE_PARTS, _FILES),
                    },
                    "required": ["message"],
                    "additionalProperties": False,
                },
                "encoding": {"message": {"contentType": "application/json"}},
            },
            _WHOLE: {"schema": {"type": "string", "contentMediaType": _WHOLE}},
        },
    }
}
"""The request body in the OpenAPI document."""


KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": "^[!-~]+$"},
    "example": "order-4711-confirmation",
}
"""The header in the OpenAPI document, but for its description."""
REPLAYED: Final = "Idempotency-Replayed"


class SubmissionRoute(GuardedRoute):
    """A route that takes mail in each of its forms."""

    media_types: ClassVar[frozenset[str]] = frozenset({"application/json", _FORM, _WHOLE})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler; where it takes mail, refusals are counted from the guard on."""
        handle = super().get_route_handler()
        if "POST" not in (self.methods or ()):
            return handle

        async def counted(request: Request) -> Response:
            with context_of(request).metrics.refusals("rest", result_of):
                return await handle(request)

        return counted


def result_of(error: Exception) -> str:
    """Return what a refused submission counts as: the code that its caller is told."""
    return "incomplete" if isinstance(error, ClientDisconnect) else answer_to(error).code


def header_key(request: Request) -> str | None:
    """Return the idempotency key of a request.

    Raises:
        RequestValidationError: it is none, or there are several.
    """
    try:
        return read_key(request.headers.getlist(KEY["name"]), field=KEY["name"])
    except ValidationFailed as error:
        found = {"type": error.code, "loc": ("header", KEY["name"]), "msg": error.message}
        raise RequestValidationError([found]) from None


def replayed_header(text: str) -> dict[str, Any]:
    """Return the answer's header in the OpenAPI document."""
    return {REPLAYED: {"description": text, "schema": {"type": "string", "const": "true"}}}


def read_submission(caller: AccountCaller, content_type: str, body: bytes) -> Submission:
    """Return a request's body as a submission; for a large one in a thread.

    Raises:
        HTTPException, RequestValidationError: it does not have the form of its media type.
        TooLarge: a form of too many parts.
        ValidationFailed: the form is none, or has a part that it should not have.
    """
    match content_type.partition(";")[0].strip().lower():
        case "multipart/form-data":
            return _of_form(caller, body, content_type)
        case "message/rfc822":
            return _raw(caller, SendRawMessage.model_construct(raw=body))
    return submission_of(caller, parse_json(body))


def submission_of(caller: AccountCaller, value: object) -> Submission:
    """Return the JSON of a message, in parts or whole, as a submission.

    Raises:
        RequestValidationError: it does not have the form.
    """
    if isinstance(value, dict) and "raw" in value:
        return _raw(caller, validated(SendRawMessage, value))
    return _of_parts(caller, validated(SendMessage, value))


def _of_form(caller: AccountCaller, body: bytes, content_type: str) -> Submission:
    message: SendMessage | None = None
    files: list[File] = []
    counts: Counter[str] = Counter()
    for part in read_form(body, boundary_of(content_type)):
        counts[part.name] += 1
        if part.name in _FILE_PARTS:
            files.append(_file(part, f"{part.name}[{counts[part.name] - 1}]"))
        elif part.name == "message" and message is None:
            message = _document(part)
        else:
            raise ValidationFailed(
                "a form has one part message and files named attachment, inline or alternative; this part is another",
                field=part.name,
            )
    if message is None:
        raise ValidationFailed("the form has no part message with the JSON of the message", field="message")
    return _of_parts(caller, message, files)


def _document(part: FormPart) -> SendMessage:
    try:
        return read_json(SendMessage, part.content)
    except RequestValidationError as error:
        found = error.errors()
        if any(item["type"] == "json_invalid" for item in found):
            raise ValidationFailed(
                f"the part message is not JSON: {found[0]['msg']} at character {found[0]['loc'][-1]}", field="message"
            ) from None
        raise
    except HTTPException:
        raise ValidationFailed("the part message is not JSON in UTF-8", field="message") from None


def _file(part: FormPart, field: str) -> File:
    content_id = part.content_id
    if part.name == "inline" and content_id is None and part.filename.isascii() and " " not in part.filename:
        content_id = part.filename.strip("<>") or None  # few HTTP clients can give a part a Content-ID
    content_type = part.content_type
    if content_type is not None and content_type.strip().lower() == _UNKNOWN_TYPE:
        content_type = None
    return File(part.filename, bytes(part.content), content_type, content_id, _FILE_PARTS[part.name], field)


def _raw(caller: AccountCaller, message: SendRawMessage) -> Submission:
    return replace(_with_options(caller, message), raw=message.raw, to=_parties("recipients", message.recipients))


def _of_parts(caller: AccountCaller, message: SendMessage, files: Iterable[File] = ()) -> Submission:
    return replace(
        _with_options(caller, message),
        sender=Party(message.sender.name, message.sender.address, "from.address"),
        to=_parties("to", message.to),
        cc=_parties("cc", message.cc),
        bcc=_parties("bcc", message.bcc),
        reply_to=_parties("reply_to", message.reply_to),
        subject=message.subject,
        text=message.text,
        html=message.html,
        files=(
            *(
                File(a.filename, a.content, a.content_type, a.content_id, a.disposition, f"attachments[{index}]")
                for index, a in enumerate(message.attachments)
            ),
            *files,
        ),
        headers=tuple((header.name, header.value) for header in message.headers),
        message_id=message.message_id,
        date=message.date,
        references=tuple(message.references),
    )


def _with_options(caller: AccountCaller, options: SendOptions) -> Submission:
    return Submission(
        door="rest",
        caller=caller,
        send_at=options.send_at,
        require_tls=options.require_tls,
        expires_at=options.expires_at,
        save_sent=options.save_sent,
        extra=options.extra,
        tags=tuple(options.tags),
    )


def _parties(field: str, mailboxes: list[Mailbox]) -> tuple[Party, ...]:
    return tuple(Party(box.name, box.address, f"{field}[{index}].address") for index, box in enumerate(mailboxes))

"""The method Send: mox's request becomes the submission that every door hands in."""

import asyncio
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from starlette.responses import Response

from api.caller import AccountCaller
from api.context import Context
from api.idempotency import read_key
from api.schemas.base import decode_base64
from api.submission import FURTHEST_SEND, Disposition, File, Party, Submission
from api.webapi import values
from api.webapi.faults import Fault, json_response
from api.webapi.form import Call, FileField, Upload
from shared.clock import utc_now
from shared.errors import BadInput, NoRecipients
from shared.mail import headers
from shared.mail.address import parse

_LOOP_MAY_DECODE = 64 * 1024
_MESSAGE_ID: Final = re.compile(r"<[^<>\s]+>")
_DISPOSITIONS: Final[dict[FileField, Disposition]] = {
    "alternativefile": "alternative",
    "inlinefile": "inline",
    "attachedfile": "attachment",
}


@dataclass(frozen=True, slots=True)
class NameAddress:
    """A mailbox of a request."""

    name: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class JsonFile:
    """A file within the JSON."""

    name: str = ""
    content_type: str = ""
    content_id: str = ""
    data: str = ""
    """Base64."""


@dataclass(frozen=True, slots=True)
class SendRequest:
    """The JSON of Send, by mox's names."""

    sender: tuple[NameAddress, ...] = ()
    to: tuple[NameAddress, ...] = ()
    cc: tuple[NameAddress, ...] = ()
    bcc: tuple[NameAddress, ...] = ()
    reply_to: tuple[NameAddress, ...] = ()
    message_id: str = ""
    references: tuple[str, ...] = ()
    date: datetime | None = None
    subject: str = ""
    text: str = ""
    html: str = ""
    extra: dict[str, str] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    alternative_files: tuple[JsonFile, ...] = ()
    inline_files: tuple[JsonFile, ...] = ()
    attached_files: tuple[JsonFile, ...] = ()
    require_tls: bool | None = None
    future_release: datetime | None = None
    save_sent: bool = False


_MAILBOXES: Final = values.array(
    values.record(NameAddress, {"Name": ("name", values.text), "Address": ("address", values.text)})
)
_FILES: Final = values.array(
    values.record(
        JsonFile,
        {
            "Name": ("name", values.text),
            "ContentType": ("content_type", values.text),
            "ContentID": ("content_id", values.text),
            "Data": ("data", values.text),
        },
    )
)
read_send: Final = values.record(
    SendRequest,
    {
        "From": ("sender", _MAILBOXES),
        "To": ("to", _MAILBOXES),
        "CC": ("cc", _MAILBOXES),
        "BCC": ("bcc", _MAILBOXES),
        "ReplyTo": ("reply_to", _MAILBOXES),
        "MessageID": ("message_id", values.text),
        "References": ("references", values.array(values.text)),
        "Date": ("date", values.moment),
        "Subject": ("subject", values.text),
        "Text": ("text", values.text),
        "HTML": ("html", values.text),
        "Extra": ("extra", values.mapping),
        "Headers": ("headers", values.array(values.pair)),
        "AlternativeFiles": ("alternative_files", _FILES),
        "InlineFiles": ("inline_files", _FILES),
        "AttachedFiles": ("attached_files", _FILES),
        "RequireTLS": ("require_tls", values.flag_or_none),
        "FutureRelease": ("future_release", values.moment),
        "SaveSent": ("save_sent", values.flag),
    },
)


async def send(context: Context, caller: AccountCaller, request: SendRequest, call: Call) -> Response:
    """Hand in a message; answer with mox's result, the first one where it comes again with its idempotency key.

    What is wrong is told in mox's order: body, From and recipients, whether From may be used, and then the rest.

    Raises:
        Fault, BadInput: what is wrong.
        Unavailable: it was not stored.
    """
    plain = _addressed(caller, request)
    large = len(call.document) + sum(len(upload.part.content) for upload in call.uploads) > _LOOP_MAY_DECODE
    try:
        submission = (
            await asyncio.to_thread(_completed, plain, request, call.uploads)
            if large
            else _completed(plain, request, call.uploads)
        )
    except (Fault, BadInput):
        await context.submitter.check_sender(plain)
        raise
    key = read_key(call.idempotency_keys, field="Idempotency-Key")
    submitted = await context.submitter.submit(replace(submission, idempotency_key=key))
    result = {
        "MessageID": submitted.message_id,
        "Submissions": [
            {"Address": party.address, "QueueMsgID": delivery.id, "FromID": delivery.from_id or ""}
            for party, delivery in zip(submission.recipients, submitted.deliveries, strict=True)
        ],
    }
    return json_response(result, headers={"Idempotency-Replayed": "true"} if submitted.replayed else None)


def _addressed(caller: AccountCaller, request: SendRequest) -> Submission:
    """Return the submission as far as it can be checked before it is asked whether From may be used."""
    if not request.text and not request.html:
        raise Fault("missingBody", "a message needs Text or HTML")
    if len(request.sender) > 1:
        raise Fault("multipleFrom", f"From has {len(request.sender)} addresses; a message has one")
    sender = _parties("From", request.sender)[0] if request.sender else _own_address(caller)
    to, cc, bcc = (
        _parties(field, boxes) for field, boxes in (("To", request.to), ("CC", request.cc), ("BCC", request.bcc))
    )
    return Submission(
        door="webapi",
        caller=caller,
        sender=sender,
        to=to,
        cc=cc,
        bcc=bcc,
    )


def _own_address(caller: AccountCaller) -> Party:
    if caller.login is None:
        raise Fault("badFrom", "From is missing; an API key has no address of its own that could stand in for it")
    return Party("", caller.login, "From[0].Address")


def _parties(field: str, boxes: Sequence[NameAddress]) -> tuple[Party, ...]:
    found = []
    for index, box in enumerate(boxes):
        path = f"{field}[{index}]"
        headers.check_text(box.name, what="the display name", field=f"{path}.Name")
        parse(box.address, field=f"{path}.Address")
        found.append(Party(box.name, box.address, f"{path}.Address"))
    return tuple(found)


def _completed(plain: Submission, request: SendRequest, uploads: Sequence[Upload]) -> Submission:
    if not plain.recipients:
        raise NoRecipients("a message needs at least one recipient in To, CC or BCC")
    reply_to = _parties("ReplyTo", request.reply_to)
    headers.check_text(request.subject, what="the subject", field="Subject")
    _check_message_id(request.message_id)
    given: tuple[tuple[str, Disposition, tuple[JsonFile, ...]], ...] = (
        ("AlternativeFiles", "alternative", request.alternative_files),
        ("InlineFiles", "inline", request.inline_files),
        ("AttachedFiles", "attachment", request.attached_files),
    )
    files = [
        _json_file(file, f"{field}[{index}]", disposition)
        for field, disposition, of_field in given
        for index, file in enumerate(of_field)
    ]
    files += [_uploaded(upload) for upload in uploads]
    return replace(
        plain,
        reply_to=reply_to,
        subject=request.subject,
        text=request.text,
        html=request.html,
        files=tuple(files),
        headers=request.headers,
        message_id=request.message_id or None,
        date=request.date,
        references=request.references,
        extra=request.extra,
        send_at=_send_at(request),
        as_said={"send_at": request.future_release} if request.future_release is not None else None,
        require_tls=request.require_tls,
        save_sent=request.save_sent,
    )


def _check_message_id(message_id: str) -> None:
    headers.check_text(message_id, what="the Message-ID", field="MessageID")
    if message_id and not _MESSAGE_ID.fullmatch(message_id):
        raise Fault("malformedMessageID", "MessageID has the form <unique@example.com>, with the angle brackets")


def _json_file(file: JsonFile, path: str, disposition: Disposition) -> File:
    try:
        content = decode_base64(file.data)
    except (binascii.Error, UnicodeEncodeError):
        raise Fault("user", f"{path}.Data is not base64 (RFC 4648 section 4, with padding)") from None
    return File(file.name, content, file.content_type or None, file.content_id or None, disposition, path)


def _uploaded(upload: Upload) -> File:
    part = upload.part
    disposition = _DISPOSITIONS[upload.field]
    return File(part.filename, bytes(part.content), part.content_type, part.content_id, disposition, upload.field)


def _send_at(request: SendRequest) -> datetime | None:
    """Return when to send, None for now; and refuse what cannot be promised."""
    now = utc_now()
    moment = request.future_release
    if moment is not None and moment > now + FURTHEST_SEND:
        raise Fault("user", "FutureRelease is more than 60 days ahead")
    return moment if moment is not None and moment > now else None

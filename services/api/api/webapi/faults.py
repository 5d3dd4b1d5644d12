"""What mox's clients are told when something goes wrong: status 400 and one of mox's codes."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from shared.errors import (
    AddressInvalid,
    BadInput,
    Conflict,
    FromNotAllowed,
    LimitReached,
    NoRecipients,
    NotFound,
    RecipientLimitReached,
    TooLarge,
)
from shared.web import problems

Code = Literal[
    "protocol",
    "user",
    "server",
    "error",
    "badAddress",
    "missingBody",
    "multipleFrom",
    "badFrom",
    "domainDisabled",
    "noRecipients",
    "messageTooLarge",
    "messageLimitReached",
    "recipientLimitReached",
    "malformedMessageID",
]

Result = Code | Literal["badauth", "ratelimited", "forbidden", "incomplete", "internal"]
"""What a call that failed counts as, in mox's words and some of ours."""

_CODE_OF: Final[Mapping[Result, str]] = {
    "protocol": "validation_failed",
    "user": "validation_failed",
    "badAddress": "address_invalid",
    "missingBody": "validation_failed",
    "multipleFrom": "validation_failed",
    "badFrom": "from_not_allowed",
    "domainDisabled": "domain_disabled",
    "noRecipients": "no_recipients",
    "messageTooLarge": "too_large",
    "malformedMessageID": "validation_failed",
    "badauth": "unauthenticated",
    "ratelimited": "too_many_failures",
}
"""Results in the words that the other doors count submissions by."""

MOUNT: Final = "/webapi/v0/"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data:",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",
}
JSON_TYPE: Final = "application/json; charset=utf-8"


class Fault(Exception):
    """An error that has a code of mox's."""

    def __init__(
        self, code: Code, message: str, *, status: int = 400, headers: Mapping[str, str] | None = None
    ) -> None:
        """Take the code, a text for a person, the status where it is not the usual one, and further header fields."""
        super().__init__(code)
        self.code, self.message, self.status = code, message, status
        self.headers = headers or {}

    def response(self) -> Response:
        """Return it as mox answers it."""
        return json_response({"Code": self.code, "Message": problems.clean(self.message)}, self.status, self.headers)


class Turned(Exception):
    """Turned away before the method is looked at, with an answer about HTTP itself; counted as ``result``."""

    def __init__(self, result: Result, answer: Response) -> None:
        """Take what it counts as, and the answer."""
        super().__init__(result)
        self.result, self._answer = result, answer

    def response(self) -> Response:
        """Return the answer."""
        return self._answer


def json_response(document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a document as one line of JSON."""
    content = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
    return Response(content, status, {**HEADERS, **(headers or {}), "Content-Type": JSON_TYPE})


def plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer about HTTP itself, which mox gives as text."""
    return PlainTextResponse(f"{text}\n", status, {**HEADERS, **(headers or {})})


def fault_of(error: BadInput | LimitReached) -> Fault:
    """Return the fault that tells of an error that the caller can mend, or wait for the end of."""
    return _of_limit(error) if isinstance(error, LimitReached) else _of_input(error)


def _of_input(error: BadInput) -> Fault:
    message = f"{error.field}: {error.message}" if error.field else error.message
    match error:
        case AddressInvalid():
            return Fault("badAddress", message)
        case NoRecipients():
            return Fault("noRecipients", message)
        case FromNotAllowed():
            return Fault("domainDisabled" if error.facts.get("domain_disabled") else "badFrom", message)
        case TooLarge():
            return Fault("messageTooLarge", message)
        case Conflict() | NotFound():
            return Fault("error", message)
        case _:
            return Fault("user", message)


def _of_limit(error: LimitReached) -> Fault:
    # mox has no code for a rate.
    code: Code = "recipientLimitReached" if isinstance(error, RecipientLimitReached) else "messageLimitReached"
    wait = error.facts.get("retry_after")
    return Fault(code, error.message, headers={} if wait is None else {"Retry-After": str(wait)})


def result_of(error: Exception) -> Result:
    """Return what a call counts as that ended with an error: the code that its caller is told, where it is told one."""
    match error:
        case Turned():
            return error.result
        case Fault():
            return error.code
        case HTTPException() if error.status_code == 413:
            return "messageTooLarge"
        case HTTPException():  # the body does not come
            return "protocol"
        case BadInput() | LimitReached():
            return fault_of(error).code
        case _:
            return "server" if problems.answer_to(error).expected else "internal"


def submission_result_of(error: Exception) -> str:
    """Return what a submission counts as that ended with an error: the code of the error, as by every door."""
    match error:
        case Turned() | Fault():
            result = result_of(error)
            return _CODE_OF.get(result, result)
        case _:
            return problems.answer_to(error).code


def respond(error: Exception, scope: Mapping[str, Any]) -> Response:
    """Turn any error into the response for its request: in mox's form below its mount, else as a problem document."""
    if not str(scope.get("path", "")).startswith(MOUNT):
        return problems.respond(error, scope)
    if isinstance(error, Fault | Turned):
        return error.response()
    if isinstance(error, HTTPException):  # of the frame around all requests: the body is too long, or does not come
        if error.status_code == 413:
            return Fault("messageTooLarge", str(error.detail)).response()
        return plain(error.status_code, str(error.detail), error.headers)
    if isinstance(error, BadInput | LimitReached):
        return fault_of(error).response()
    problems.respond(error, scope)  # for its line in the log; the rest of it is for REST
    return Fault("server", problems.answer_to(error).detail).response()


def operation(request: Request, name: str) -> None:
    """Name the operation of a request, for the metrics and for the log."""
    request.scope["route"] = _Operation(f"webapi_{name}", f"{MOUNT}{name}")


class _Operation:
    """What the clock and the log around every request want to know of its route."""

    __slots__ = ("operation_id", "path")

    def __init__(self, operation_id: str, path: str) -> None:
        self.operation_id, self.path = operation_id, path

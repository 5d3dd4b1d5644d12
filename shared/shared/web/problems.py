"""What an error looks like to a caller: one JSON document for all of them (RFC 9457), and one table of HTTP statuses.

A problem names what was wrong, where, and what to do. Nothing of the inside gets out: an unexpected error is ``internal``
to the caller, and a line with its traceback and the same request id in the log. Input is not quoted back but for names of
fields, and those are cleaned and cut, because they too come from outside.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import asyncpg
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from shared import log
from shared.errors import ConfigurationError, DatabaseUnavailable, PosthouseError, SecretUnreadable
from shared.web.frame import RequestFrame, Respond

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:posthouse:problem:"
DEFAULT_BODY_LIMIT: Final = 64 * 1024 * 1024
DEFAULT_BODY_IDLE: Final = 30.0
_LONGEST_TEXT, _LONGEST_FIELD, _MOST_FIELDS = 2000, 200, 50

STATUS: Final[Mapping[str, tuple[int, str]]] = {
    "bad_input": (400, "The request cannot be carried out"),
    "malformed_json": (400, "The body is not JSON"),
    "unauthenticated": (401, "Not authenticated"),
    "forbidden": (403, "Not allowed"),
    "from_not_allowed": (403, "Sender not allowed"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "request_timeout": (408, "The request took too long"),
    "conflict": (409, "Conflict"),
    "idempotency_conflict": (409, "Idempotency key used before"),
    "from_id_taken": (409, "from_id used before"),
    "too_large": (413, "Too large"),
    "unsupported_media_type": (415, "Media type not supported"),
    "validation_failed": (422, "Validation failed"),
    "address_invalid": (422, "Address not valid"),
    "no_recipients": (422, "No recipients"),
    "limit_reached": (429, "Limit reached"),
    "message_limit_reached": (429, "Limit reached"),
    "recipient_limit_reached": (429, "Limit reached"),
    "rate_limited": (429, "Too fast"),
    "internal": (500, "Internal error"),
    "configuration": (500, "Internal error"),
    "secret_unreadable": (500, "Internal error"),
    "not_available_yet": (501, "Not available yet"),
    "unavailable": (503, "Not available right now"),
    "overloaded": (503, "Overloaded"),
    "database_unavailable": (503, "Not available right now"),
}
"""Code to HTTP status and title: every code of ``shared.errors``, and those that only HTTP has."""

_CODE_OF_STATUS: Final = {
    400: "bad_input",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "validation_failed",
    500: "internal",
    501: "not_available_yet",
    503: "unavailable",
}
_RETRY_AFTER_HEADER: Final = {
    "description": "In how many seconds to try again. Missing where waiting does not help.",
    "schema": {"type": "integer", "minimum": 1},
}
_RETRY_AFTER: Final = {"overloaded": 1, "database_unavailable": 5, "unavailable": 5}
# RFC 9110 11.6.1: one field may hold several challenges; RFC 7617 2.1: passwords are UTF-8.
_CHALLENGES: Final = 'Bearer realm="posthouse", Basic realm="posthouse", charset="UTF-8"'


class ProblemField(BaseModel):
    """One thing that is wrong with the input."""

    field: str = Field(description="Where, as a path.", examples=["to[1].address"])
    location: str = Field(
        description="Which part of the request: `body`, `query`, `path` or `header`.", examples=["body"]
    )
    code: str = Field(description="What, stable.", examples=["missing"])
    message: str = Field(description="What, for a person.", examples=["Field required"])


_EXAMPLE: Final[dict[str, Any]] = {
    "type": "urn:posthouse:problem:address_invalid",
    "title": "Address not valid",
    "status": 422,
    "detail": "There is no @ in this address; an address looks like name@example.org.",
    "code": "address_invalid",
    "errors": [
        {
            "field": "to[1].address",
            "location": "body",
            "code": "address_invalid",
            "message": "There is no @ in this address.",
        }
    ],
}


class PartialProblem(BaseModel):
    """An error in one part of a request: what a problem says, but for the request's id."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [_EXAMPLE]})

    type: str = Field(description="The code as a URN.")
    title: str = Field(description="The kind of problem, for a person.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="This very problem, for a person: what was wrong and what to do.")
    code: str = Field(description="The kind of problem, stable.")
    errors: list[ProblemField] = Field(default_factory=list, description="Each field that is wrong, at most 50.")


class Problem(PartialProblem):
    """An error (RFC 9457). Decide by `code`; the texts are for people and may change."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{**_EXAMPLE, "request_id": "req_5f2b7c1e9a3d4f6081b2c3d4"}]}
    )

    request_id: str = Field(description="Names this request in our log; also in the header `X-Request-Id`.")


@dataclass(frozen=True, slots=True)
class Answer:
    """What will be told to the caller, before it has a request id; ``expected`` is False for our own faults."""

    code: str
    detail: str
    errors: tuple[ProblemField, ...] = ()
    status: int | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    expected: bool = True


def install(
    app: FastAPI,
    *,
    body_limit: int = DEFAULT_BODY_LIMIT,
    body_idle: float = DEFAULT_BODY_IDLE,
    answer: Respond | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> None:
    """Make an application answer every error as a problem, limit its bodies, and name its requests.

    Args:
        app: nothing else of it changes.
        body_limit: bytes; a longer body is answered with 413 ``too_large`` and never held as a whole.
        body_idle: seconds; a body that pauses longer is answered with 408 ``request_timeout``.
        answer: turns an error into a response, where some paths speak another language than :func:`respond`.
        random: for request ids.
    """
    to_response = answer or respond

    async def handle(request: Request, error: Exception) -> Response:
        return to_response(error, request.scope)

    for kind in (PosthouseError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
    # The outermost of ours: it also answers what no handler knows, before the server's own handler would log it again.
    app.add_middleware(RequestFrame, body_limit=body_limit, body_idle=body_idle, respond=to_response, random=random)


def respond(error: Exception, scope: Mapping[str, Any]) -> Response:
    """Turn any error into the response for its request, and log it where it is our fault."""
    answer = answer_to(error)
    document = {**_told(error, answer, scope), "request_id": _request_id(scope)}
    return Response(_encode(document), document["status"], dict(answer.headers), media_type=MEDIA_TYPE)


def partial(error: Exception, scope: Mapping[str, Any]) -> bytes:
    """Turn any error that concerns one part of a request into its :class:`PartialProblem` as JSON, and log it as :func:`respond` does."""
    return _encode(_told(error, answer_to(error), scope))


def _told(error: Exception, answer: Answer, scope: Mapping[str, Any]) -> dict[str, Any]:
    status, title = STATUS.get(answer.code, (500, "Error"))
    status = answer.status if answer.status is not None else status
    request_id = _request_id(scope)
    if not answer.expected:
        # The template of the path, not the path: that may hold an address.
        route = getattr(scope.get("route"), "path", None)
        log.get(__name__).error(
            "request_failed", request_id=request_id, method=scope.get("method"), route=route, exc_info=error
        )
    elif status == 503:
        log.get(__name__).warning(
            "request_turned_away", request_id=request_id, code=answer.code, cause=type(error).__name__
        )
    return {
        **{name: clean(value) if isinstance(value, str) else value for name, value in answer.facts.items()},
        "type": TYPE_PREFIX + answer.code,
        "title": title,
        "status": status,
        "detail": clean(answer.detail),
        "code": answer.code,
        "errors": [item.model_dump() for item in answer.errors],
    }


def _request_id(scope: Mapping[str, Any]) -> str:
    return str(scope.get("state", {}).get("request_id", ""))


def answer_to(error: Exception) -> Answer:
    """Decide what the caller is told about an error."""
    if database_lost(error):
        error = DatabaseUnavailable()
    match error:
        case ConfigurationError() | SecretUnreadable():
            return Answer("internal", _INTERNAL, expected=False)
        case PosthouseError():
            return _answer_to_ours(error)
        case RequestValidationError():
            return _answer_to_validation(error.errors())
        case HTTPException():
            return _answer_to_http(error)
        case _:
            return Answer("internal", _INTERNAL, expected=False)


_INTERNAL: Final = "Something went wrong on our side. Try again; if it stays, give the operator the request id."


def _answer_to_ours(error: PosthouseError) -> Answer:
    status = STATUS.get(error.code, (500, ""))[0]
    if status == 500:
        return Answer("internal", _INTERNAL, expected=False)
    errors: tuple[ProblemField, ...] = ()
    if error.field is not None:
        errors = (
            ProblemField(
                field=_field_text(error.field), location="body", code=error.code, message=clean(error.message)
            ),
        )
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = _CHALLENGES
    if status == 503:
        # RFC 9110 10.2.3
        headers["Retry-After"] = str(error.facts.get("retry_after", _RETRY_AFTER.get(error.code, 5)))
    if status == 429 and "retry_after" in error.facts:
        headers["Retry-After"] = str(error.facts["retry_after"])
    return Answer(error.code, error.message, errors, facts=error.facts, headers=headers)


def _answer_to_http(error: HTTPException) -> Answer:
    if error.status_code == 400 and error.detail == _UNREADABLE_BODY:
        return Answer("malformed_json", "The body is not JSON in UTF-8.")
    code = _CODE_OF_STATUS.get(error.status_code, f"http_{error.status_code}")
    detail = str(error.detail)
    if error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = "There is nothing at this path."
    if error.status_code == 405:
        detail = "This path does not take this method."
    return Answer(code, detail, status=error.status_code, headers=error.headers or {})


_UNREADABLE_BODY: Final = (
    "There was an error parsing the body"  # fastapi.routing says it for what is no UTF-8 or too deep
)


def _answer_to_validation(found: Sequence[Any]) -> Answer:
    for item in found:
        if item.get("type") == "json_invalid":
            where = item["loc"][-1]
            reason = str(item.get("ctx", {}).get("error", "invalid"))
            return Answer("malformed_json", f"The body is not JSON: {reason} at character {where}.")
    errors = tuple(_problem_field(item) for item in found[:_MOST_FIELDS])
    named = "; ".join(f"{item.field or item.location}: {item.message}" for item in errors[:3])
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return Answer("validation_failed", f"{named}{more}", errors)


def _problem_field(item: Mapping[str, Any]) -> ProblemField:
    location, *path = item["loc"] or ("body",)
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    message = str(item["msg"]).removeprefix("Value error, ")
    return ProblemField(
        field=_field_text(name), location=clean(str(location)), code=str(item["type"]), message=clean(message)
    )


_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """Return a text that any reader of JSON takes: no controls, no lone surrogates, at most 2,000 characters."""
    return _UNFIT.sub("\ufffd", text[:_LONGEST_TEXT])


def _field_text(path: str) -> str:
    return clean(path[:_LONGEST_FIELD])


def _encode(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document, default=str)
    except TypeError:  # something unfit deep inside a fact; escaped it is still JSON
        return json.dumps(document, default=str).encode()


_LOST: Final = (
    ConnectionError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
)


def database_lost(error: BaseException) -> bool:
    """Say whether an error means that the connection to Postgres failed, not the statement."""
    if isinstance(error, DBAPIError):
        origin = error.orig
        return error.connection_invalidated or any(
            isinstance(e, _LOST) for e in (origin, origin.__cause__ if origin else None)
        )
    if isinstance(error, asyncpg.InterfaceError):
        return "clos" in str(error)  # "connection is closed", "pool is closing"; its other texts are mistakes of ours
    # The socket of a Postgres that is down is a missing file without a name; a missing file of ours has one.
    return isinstance(error, _LOST) or (isinstance(error, FileNotFoundError) and error.filename is None)


def responses(*errors: type[PosthouseError]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that may raise these errors, for the OpenAPI document."""
    by_status: dict[int | str, list[str]] = {}
    for error in errors:
        by_status.setdefault(STATUS[error.code][0], []).append(error.code)
    return {
        status: {
            "model": Problem,
            "description": " or ".join(f"`{code}`" for code in codes),
            **({"headers": {"Retry-After": _RETRY_AFTER_HEADER}} if status in {429, 503} else {}),
        }
        for status, codes in by_status.items()
    }


def describe(document: dict[str, Any]) -> None:
    """Correct an OpenAPI document that FastAPI made: errors are problems, in their own media type."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    for operation in _operations(document):
        for response in operation.get("responses", {}).values():
            content = response.get("content", {})
            reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
            if reference.endswith(("/Problem", "/HTTPValidationError")):
                response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
                if reference.endswith("/HTTPValidationError"):
                    response["description"] = "`validation_failed`"
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)


def _operations(document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for group in ("paths", "webhooks"):
        for item in document.get(group, {}).values():
            yield from (operation for operation in item.values() if isinstance(operation, dict))

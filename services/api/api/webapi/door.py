"""Who may call which method, in mox's order of refusals; and what each method is."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.auth import Attempt, mechanism_of
from api.budget import Share
from api.caller import AccountCaller
from api.context import Context, context_of
from api.routes.guard import is_within, remote_address
from api.webapi import pages, send, suppressions, values
from api.webapi.faults import (
    HEADERS,
    MOUNT,
    Fault,
    Turned,
    json_response,
    operation,
    plain,
    result_of,
    submission_result_of,
)
from api.webapi.form import URLENCODED_BYTES, Call, is_multipart, read_call
from shared.clock import monotonic
from shared.errors import Forbidden, Unauthenticated

_LOOP_MAY_READ = 64 * 1024
_CHALLENGE: Final = {"WWW-Authenticate": "Basic realm=webapi"}

Result = dict[str, Any] | Response


@dataclass(frozen=True, slots=True)
class _Method:
    """How a method is read and run."""

    read: values.Reader[Any]
    run: Callable[[Context, AccountCaller, Any, Call], Awaitable[Result]]


_METHODS: Final[Mapping[str, _Method]] = {
    "Send": _Method(send.read_send, send.send),
    "SuppressionList": _Method(
        suppressions.read_list, lambda context, caller, _request, _call: suppressions.list_(context, caller)
    ),
    "SuppressionAdd": _Method(
        suppressions.read_add, lambda context, caller, request, _: suppressions.add(context, caller, request)
    ),
    "SuppressionRemove": _Method(
        suppressions.read_address, lambda context, caller, request, _: suppressions.remove(context, caller, request)
    ),
    "SuppressionPresent": _Method(
        suppressions.read_address, lambda context, caller, request, _: suppressions.present(context, caller, request)
    ),
}


class Webapi:
    """ASGI application for everything at and below ``/webapi``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        response = await _answer(request)
        await response(scope, receive, send)


def routes() -> list[Route]:
    """Return the routes of the webapi; they take every HTTP method, because what is refused first depends on it."""
    door = Webapi()
    return [Route(path, door, include_in_schema=False) for path in ("/webapi", "/webapi/{rest:path}")]


async def _answer(request: Request) -> Response:
    path = request.url.path
    name = path.removeprefix(MOUNT)
    if path.startswith(MOUNT) and (name in _METHODS or name in pages.LATER):
        operation(request, name)
        return await _method(request, name)
    if path == MOUNT:
        return pages.index()
    if path not in ("/webapi", "/webapi/"):
        return plain(404, f"there is no such method; they are listed at {MOUNT}")
    if request.method != "GET":
        return plain(405, "this page takes GET only", {"Allow": "GET"})
    return RedirectResponse("/webapi/" if path == "/webapi" else MOUNT, 303, HEADERS)


async def _method(request: Request, name: str) -> Response:
    match request.method:
        case "GET":
            return pages.method(name)
        case "POST":
            return await _posted(request, name)
        case _:
            return plain(405, "a method is called with POST", {"Allow": "GET, POST"})


async def _posted(request: Request, name: str) -> Response:
    if name in pages.LATER:
        return Fault("protocol", f"{name} is not available in this version", status=404).response()
    context = context_of(request)
    counted = context.metrics
    # Only Send hands in mail.
    submissions = counted.refusals("webapi", submission_result_of) if name == "Send" else nullcontext()
    try:
        with submissions:
            response = await _called(request, context, name)
    except Exception as error:
        counted.webapi_results.labels(name, result_of(error)).inc()
        if isinstance(error, Fault | Turned):
            return error.response()
        raise  # the frame around all requests answers, and logs where it is our fault
    counted.webapi_results.labels(name, "ok").inc()
    return response


async def _called(request: Request, context: Context, name: str) -> Response:
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A browser sends the password it remembers with a form of any other site.
        raise Turned("forbidden", plain(403, "a browser may call this only from its own pages"))
    authorization, remote = _credentials(request, context)
    begun = monotonic()
    try:
        caller = await _authenticated(context, authorization, remote)
        with context.budget.share() as share:
            body = await _body(request, share)
            content_type = request.headers.get("content-type", "")
            method = _METHODS[name]

            def understood() -> tuple[Any, Call]:
                call = read_call(content_type, body)
                return method.read(values.parse(call.document), ""), call

            value, call = await asyncio.to_thread(understood) if len(body) > _LOOP_MAY_READ else understood()
            call = replace(call, idempotency_keys=tuple(request.headers.getlist("idempotency-key")))
            result = await method.run(context, caller, value, call)
            return result if isinstance(result, Response) else json_response(result)
    finally:
        context.metrics.webapi.labels(name).observe(monotonic() - begun)


async def _body(request: Request, share: Share) -> bytes:
    try:
        return await _read_body(request, share)
    except ClientDisconnect:  # nobody is there to read the answer
        raise Turned("incomplete", plain(400, "the request ended before its body did")) from None


async def _read_body(request: Request, share: Share) -> bytes:
    """Return the body; what is longer than a form may be is read to its end, and forgotten as it comes."""
    most = request.app.state.context.settings.max_request_bytes
    if not is_multipart(request.headers.get("content-type", "")):
        most = min(most, URLENCODED_BYTES)
    pieces: list[bytes] = []
    seen = 0
    async for piece in request.stream():
        seen += len(piece)
        if seen > most:
            pieces.clear()
            continue
        share.reach(seen)
        pieces.append(piece)
    if seen > most:
        raise Fault("protocol", f"this form has at most {most} bytes; send files as multipart/form-data")
    return b"".join(pieces)


def _credentials(request: Request, context: Context) -> tuple[str, str]:
    """Return the Authorization header and the client's address.

    Raises:
        Turned: there are no credentials to check, or they may not be tried now.
    """
    authorization = request.headers.get("authorization", "")
    trusted = context.settings.trusted_proxies
    remote = remote_address(request, trusted)
    if len(request.headers.getlist("authorization")) > 1 or not _is_basic(authorization):
        reason = "malformed" if authorization else "missing"
        context.authenticator.note_failure(reason, Attempt("webapi", mechanism_of(authorization), remote))
        raise Turned("badauth", plain(401, "send a login and its password as HTTP Basic", _CHALLENGE))
    if is_within(remote, trusted):
        text = "the proxy in front of this server does not say who is calling: X-Forwarded-For is missing"
        raise Turned("internal", plain(500, text))
    if not context.login_failures.may_try(remote):
        context.metrics.ratelimited.labels("webapi").inc()
        text = "too many failed logins from your network; try again later"
        raise Turned("ratelimited", plain(429, text, {"Retry-After": "60"}))
    return authorization, remote


async def _authenticated(context: Context, authorization: str, remote: str) -> AccountCaller:
    """Return who calls.

    Raises:
        Turned: who may not.
    """
    try:
        caller = await context.authenticator.identify(authorization, remote=remote, door="webapi")
    except (Unauthenticated, Forbidden) as error:
        context.login_failures.failed(remote)
        raise Turned("badauth", plain(401, error.message, _CHALLENGE)) from None
    if caller.account_id is None:
        text = "an operator's key belongs to no account; use a login of the account"
        raise Turned("badauth", plain(401, text, _CHALLENGE))
    context.login_failures.succeeded(remote)
    known = AccountCaller.of(caller, caller.account_id)
    return replace(known, uses_from_ids=known.uses_from_ids and _is_exact(known.login))


def _is_exact(login: str | None) -> bool:
    """Say whether a login is spelled as it is stored, which mox asks for before it makes from_ids; only the domain's case is free."""
    local = (login or "").rpartition("@")[0]
    return local == local.lower()


def _is_basic(authorization: str) -> bool:
    scheme, _, encoded = authorization.partition(" ")
    try:
        return scheme.lower() == "basic" and ":" in base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return False

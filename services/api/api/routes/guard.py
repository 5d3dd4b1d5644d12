"""In front of every route of ``/v1``: who asks is settled before a byte of the body is read, and the body is read within the budget."""

import ipaddress
import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, ClassVar, TypeVar

from fastapi import Depends, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Message

from api.budget import Share
from api.caller import AccountCaller, Caller
from api.context import context_of
from shared.errors import Forbidden
from shared.security.outbound import Network

M = TypeVar("M", bound=BaseModel)

_HEADERS_OF_ONE = ("authorization", "content-type")


class GuardedRoute(APIRoute):
    """A route that only a valid credential reaches."""

    media_types: ClassVar[frozenset[str]] = frozenset({"application/json"})
    """What a body may be."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the guard in front."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            context = context_of(request)
            for name in _HEADERS_OF_ONE:
                if len(request.headers.getlist(name)) > 1:
                    # RFC 9110 5.3: these are no lists; two of them are read differently by different readers.
                    raise HTTPException(400, f"The request has more than one {name} header.")
            remote = remote_address(request, context.settings.trusted_proxies)
            request.state.caller = await context.authenticator.identify(
                request.headers.get("authorization"), remote=remote
            )
            with context.budget.share() as share:
                body = await _read_body(request, share)
                if body and media_type(request) not in self.media_types:
                    raise HTTPException(
                        415, f"Send the body as {' or '.join(sorted(self.media_types))}, and say so in Content-Type."
                    )
                return await handle(request)

        return guarded


async def _read_body(request: Request, share: Share) -> bytes:
    """Read the body into the request, where FastAPI finds it, and return it."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit():
        share.reach(int(declared))
    receive, seen = request._receive, 0  # noqa: SLF001 - the one place to count a body that does not say how long it is

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            share.reach(seen)
        return message

    request._receive = counted  # noqa: SLF001 - as above
    return await request.body()


def media_type(request: Request) -> str:
    """Return the type of the body without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def remote_address(request: Request, trusted: tuple[Network, ...]) -> str:
    """Return the client's address: the last one in X-Forwarded-For that no trusted proxy wrote of itself, else the peer's."""
    remote = request.client.host if request.client is not None else ""
    forwarded = [part.strip() for part in ",".join(request.headers.getlist("x-forwarded-for")).split(",")]
    while forwarded and is_within(remote, trusted):
        nearer = forwarded.pop()
        if not _is_address(nearer):
            break
        remote = nearer
    return remote


def is_within(address: str, networks: tuple[Network, ...]) -> bool:
    """Say whether an address belongs to one of the networks; what is no address does not."""
    if not networks or not _is_address(address):
        return False
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# Async though they wait for nothing: FastAPI runs other dependencies in a thread each, which costs more than all they do.
async def _account_caller(request: Request) -> AccountCaller:
    caller: Caller = request.state.caller
    if caller.account_id is None:
        raise Forbidden("an operator's key belongs to no account; use a key or login of the account")
    return AccountCaller.of(caller, caller.account_id)


async def _live_caller(request: Request) -> AccountCaller:
    caller = await _account_caller(request)
    if caller.is_test:
        raise Forbidden("a sandbox key may not change what mail in earnest depends on; use another key of the account")
    return caller


async def _any_caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _operator_caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    if caller.account_id is not None:
        raise Forbidden("only an operator may do that; this credential belongs to an account")
    return caller


AccountAuth = Annotated[AccountCaller, Depends(_account_caller)]
"""The caller, who acts for an account; a sandbox key for the stream of its own only."""
LiveAuth = Annotated[AccountCaller, Depends(_live_caller)]
"""The same, but no sandbox key: for what both streams of an account share."""
AnyAuth = Annotated[Caller, Depends(_any_caller)]
"""The caller: an account, or an operator where ``account_id`` is None."""
OperatorAuth = Annotated[Caller, Depends(_operator_caller)]
"""The caller, who is an operator."""


def read_json(model: type[M], raw: bytes | memoryview) -> M:
    """Return a body as its model; for large ones outside the event loop, where FastAPI would do it inside.

    Raises:
        RequestValidationError: as FastAPI would have raised it.
        HTTPException: 400, the body is not JSON.
    """
    return validated(model, parse_json(raw))


def parse_json(raw: bytes | memoryview) -> object:
    """Return what a body holds.

    Raises:
        RequestValidationError: it is not JSON, as FastAPI would have raised it.
        HTTPException: 400, it is not even text.
    """
    try:
        return json.loads(bytes(raw))
    except json.JSONDecodeError as error:
        found = {"type": "json_invalid", "loc": ("body", error.pos), "msg": error.msg, "ctx": {"error": error.msg}}
        raise RequestValidationError([found]) from None
    except (ValueError, RecursionError):  # not UTF-8, a number of thousands of digits, thousands of brackets
        raise HTTPException(400, "There was an error parsing the body") from None


def validated(model: type[M], value: object) -> M:
    """Return a value as a model.

    Raises:
        RequestValidationError: it is none, as FastAPI would have raised it.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in errors]) from None

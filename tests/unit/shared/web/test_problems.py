import json
from collections.abc import Iterator
from typing import Annotated, Any

import asyncpg
import httpx
import orjson
import pytest
import sqlalchemy.exc
from fastapi import FastAPI, Query, Response
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from structlog.testing import capture_logs

from shared import errors
from shared.web import problems
from shared.web.frame import RequestFrame


def every_error(of: type[errors.PosthouseError]) -> Iterator[type[errors.PosthouseError]]:
    yield of
    for below in of.__subclasses__():
        yield from every_error(below)


class Mailbox(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    address: str


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    to: list[Mailbox] = Field(min_length=1)


def make(raised: BaseException | None = None, *, limit: int = 1000) -> FastAPI:
    app = FastAPI()
    problems.install(app, body_limit=limit, random=lambda n: b"\x07" * n)

    @app.post("/send", responses=problems.responses(errors.AddressInvalid, errors.NoRecipients, errors.FromNotAllowed))
    async def send(body: Body, page: Annotated[int, Query()] = 1) -> dict[str, int]:
        return {"recipients": len(body.to), "page": page}

    @app.get("/raise/{secret}")
    async def fail(secret: str) -> Response:
        assert raised is not None, secret
        raise raised

    return app


async def ask(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.request(method, path, **options)


async def problem(raised: BaseException) -> httpx.Response:
    return await ask(make(raised), "GET", "/raise/someone@example.org")


# Those of the tree itself: protocol errors of services never reach HTTP, and make their own with more than a message.
OF_THE_TREE = [kind for kind in every_error(errors.PosthouseError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", OF_THE_TREE, ids=lambda kind: kind.__name__)
async def test_every_error_has_a_status_and_a_problem(kind: type[errors.PosthouseError]) -> None:
    response = await problem(kind())
    status = problems.STATUS[kind.code][0]
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["type"] == f"urn:posthouse:problem:{document['code']}"
    assert document["code"] == ("internal" if status == 500 else kind.code)
    assert document["request_id"] == response.headers["x-request-id"] == "req_" + "07" * 12
    problems.Problem.model_validate(document)


async def test_a_problem_tells_what_where_and_the_facts() -> None:
    response = await problem(
        errors.AddressInvalid(
            "There is no @ in this address.", field="to[1].address", facts={"given": 3, "status": 200}
        )
    )
    document = response.json()
    assert document["detail"] == "There is no @ in this address."
    assert document["errors"] == [
        {
            "field": "to[1].address",
            "location": "body",
            "code": "address_invalid",
            "message": "There is no @ in this address.",
        }
    ]
    assert document["given"] == 3
    assert document["status"] == 422


async def test_who_is_not_authenticated_is_told_how() -> None:
    challenges = (await problem(errors.Unauthenticated())).headers["www-authenticate"]
    assert challenges.startswith("Bearer")
    assert "Basic" in challenges


async def test_who_should_come_again_is_told_when() -> None:
    assert (await problem(errors.Overloaded())).headers["retry-after"] == "1"
    assert (await problem(errors.Overloaded(facts={"retry_after": 17}))).headers["retry-after"] == "17"


@pytest.mark.parametrize(
    "raised",
    [
        asyncpg.ConnectionDoesNotExistError("x"),
        asyncpg.CannotConnectNowError("x"),
        asyncpg.AdminShutdownError("x"),
        asyncpg.InterfaceError("pool is closing"),
        ConnectionRefusedError(),
        FileNotFoundError(2, "No such file or directory"),
        TimeoutError(),
        sqlalchemy.exc.OperationalError("select 1", {}, ConnectionResetError()),
    ],
    ids=lambda raised: type(raised).__name__,
)
async def test_a_lost_database_is_a_503_with_a_time_to_come_again(raised: Exception) -> None:
    response = await problem(raised)
    assert response.status_code == 503
    assert response.json()["code"] == "database_unavailable"
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "raised",
    [
        ZeroDivisionError("secret detail"),
        asyncpg.UniqueViolationError("secret detail"),
        asyncpg.InterfaceError("the server expects 2 arguments: secret detail"),
        FileNotFoundError(2, "No such file", "/secret detail"),
        sqlalchemy.exc.IntegrityError("secret detail", {}, ValueError()),
        errors.ConfigurationError("secret detail"),
        errors.SecretUnreadable("secret detail"),
        errors.PosthouseError("secret detail"),
    ],
    ids=lambda raised: type(raised).__name__,
)
async def test_our_own_faults_are_logged_once_and_not_told(raised: Exception) -> None:
    with capture_logs() as logged:
        response = await problem(raised)
    assert response.status_code == 500
    assert response.json()["code"] == "internal"
    assert "secret detail" not in response.text
    (line,) = logged
    assert line["exc_info"] is raised
    assert line["route"] == "/raise/{secret}"
    assert line["request_id"] == response.json()["request_id"]
    assert "someone@example.org" not in repr({**line, "exc_info": None})


async def test_a_path_that_is_not_there() -> None:
    response = await ask(make(), "GET", "/nowhere")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_a_method_that_is_not_there() -> None:
    response = await ask(make(), "GET", "/send")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in response.headers["allow"]


async def test_a_status_without_a_code_of_ours_keeps_its_number() -> None:
    response = await problem(HTTPException(418, "short and stout", {"X-Tea": "yes"}))
    assert (response.status_code, response.json()["code"], response.json()["status"]) == (418, "http_418", 418)
    assert response.headers["x-tea"] == "yes"


async def test_every_wrong_field_is_named_with_its_path() -> None:
    response = await ask(make(), "POST", "/send?page=x", json={"to": [{"address": "a"}, {"address": 3}], "cc": []})
    document = response.json()
    assert (response.status_code, document["code"]) == (422, "validation_failed")
    found = {(item["location"], item["field"], item["code"]) for item in document["errors"]}
    assert found == {
        ("query", "page", "int_parsing"),
        ("body", "to[1].address", "string_type"),
        ("body", "cc", "extra_forbidden"),
    }
    assert "to[1].address" in document["detail"]


@pytest.mark.parametrize("body", [b"{", b"", b"[1,", b'{"to": \xff}', b"\x00", b"[" * 100_000, b"nul", b"{'to': 1}"])
async def test_what_is_no_json_is_told_apart(body: bytes) -> None:
    response = await ask(
        make(limit=1_000_000), "POST", "/send", content=body, headers={"content-type": "application/json"}
    )
    assert (response.status_code, response.json()["code"]) in {(400, "malformed_json"), (422, "validation_failed")}
    if body:
        assert response.json()["code"] == "malformed_json"


@given(name=st.text(min_size=1, max_size=300).filter(lambda name: name != "to"))
async def test_names_of_fields_come_back_clean(name: str) -> None:
    # json.dumps escapes lone surrogates and controls, as a client may
    content = json.dumps({"to": [{"address": "a"}], name: 1}).encode()
    response = await ask(
        make(limit=100_000), "POST", "/send", content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code == 422
    (item,) = orjson.loads(response.content)["errors"]
    assert len(item["field"]) <= 200
    assert not set(item["field"]) & set(map(chr, range(32)))


async def test_the_list_of_wrong_fields_is_bounded() -> None:
    response = await ask(make(limit=100_000), "POST", "/send", json={"to": [{"x": 1}] * 500})
    assert len(response.json()["errors"]) == 50
    assert len(response.json()["detail"]) <= 2000


async def test_a_text_that_is_unfit_for_json_is_still_told() -> None:
    response = await problem(
        errors.ValidationFailed("bad \ud800\x00 text", field="a\x00", facts={"odd": "\udfff", "deep": ["\ud800"]})
    )
    assert response.status_code == 422
    assert response.json()["detail"] == "bad \ufffd\ufffd text"


async def test_a_problem_in_a_websocket_or_lifespan_is_not_ours() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    frame = RequestFrame(app, body_limit=1, body_idle=1, respond=problems.respond, random=bytes)
    await frame({"type": "lifespan"}, None, None)  # type: ignore[arg-type] # neither is called
    assert seen == ["lifespan"]


def test_the_openapi_document_has_problems_and_nothing_of_fastapis_own_errors() -> None:
    document = make().openapi()
    problems.describe(document)
    answers = document["paths"]["/send"]["post"]["responses"]
    assert set(answers) == {"200", "403", "422"}
    assert answers["422"]["content"] == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }
    assert answers["403"]["description"] == "`from_not_allowed`"
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert {"Problem", "ProblemField"} <= set(schemas)

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fakes.waiting import eventually
from integration.api.conftest import HELLO, RunningApi, StartApi, problem
from shared.db.demo import Demo
from shared.db.engine import Pool

MALFORMED = [
    b"{",
    b"",
    b"[1,]",
    b'{"from": "\xff"}',
    b"[" * 100_000,
    b'{"date": ' + b"9" * 10_000 + b"}",
]

# What is wrong, the answer's status and code, and the field it names.
WRONG: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("no recipients", {"to": []}, 422, "no_recipients", "to"),
    ("no @", {"to": ["a@example.org", "grace"]}, 422, "address_invalid", "to[1].address"),
    ("as an object", {"cc": [{"address": "a..b@example.org"}]}, 422, "address_invalid", "cc[0].address"),
    ("with a name", {"bcc": ["Grace <grace@>"]}, 422, "address_invalid", "bcc[0].address"),
    ("an address literal", {"to": ["grace@[192.0.2.1]"]}, 422, "address_invalid", "to[0].address"),
    ("in reply_to", {"reply_to": [" "]}, 422, "address_invalid", "reply_to[0].address"),
    ("From without domain", {"from": "demo"}, 422, "address_invalid", "from.address"),
    ("From missing", {"from": None}, 422, "validation_failed", "from"),
    ("a number as address", {"to": [7]}, 422, "validation_failed", "to[0]"),
    ("no address in the object", {"to": [{"name": "Grace"}]}, 422, "validation_failed", "to[0].address"),
    ("to is no list", {"to": "grace@example.org"}, 422, "validation_failed", "to"),
    ("an unknown field", {"subjekt": "x"}, 422, "validation_failed", "subjekt"),
    ("an unknown field inside", {"to": [{"address": "a@b.example", "x": 1}]}, 422, "validation_failed", "to[0].x"),
    ("a number as subject", {"subject": 7}, 422, "validation_failed", "subject"),
    ("U+0000 in the subject", {"subject": "a\0b"}, 422, "validation_failed", "subject"),
    ("U+0000 in extra", {"extra": {"a": "\0"}}, 422, "validation_failed", "extra.a"),
    ("U+0000 in a tag", {"tags": ["\0"]}, 422, "validation_failed", "tags[0]"),
    ("half a surrogate pair", {"text": "\ud800"}, 422, "validation_failed", "text"),
    ("half a surrogate pair in a name", {"to": ["\udfff <a@example.org>"]}, 422, "validation_failed", "to[0].name"),
    ("a line break in the subject", {"subject": "a\r\nBcc: x@example.org"}, 422, "validation_failed", "subject"),
    ("a line break in a name", {"to": ["a\nb <a@example.org>"]}, 422, "validation_failed", "to[0].name"),
    ("neither text nor HTML", {"text": None}, 422, "validation_failed", "text"),
    ("a header of ours", {"headers": [{"name": "Bcc", "value": "x"}]}, 422, "validation_failed", "headers[0]"),
    (
        "a header's line break",
        {"headers": [{"name": "X-A", "value": "a\r\nb"}]},
        422,
        "validation_failed",
        "headers[0]",
    ),
    (
        "no base64",
        {"attachments": [{"filename": "a", "content": "###"}]},
        422,
        "validation_failed",
        "attachments[0].content",
    ),
    ("a date without zone", {"date": "2026-11-20T13:00:00"}, 422, "validation_failed", "date"),
    ("a date that is a number", {"date": 1}, 422, "validation_failed", "date"),
    ("no such date", {"date": "2026-02-30T13:00:00Z"}, 422, "validation_failed", "date"),
    ("a Message-ID without brackets", {"message_id": "a@example.org"}, 422, "validation_failed", "message_id"),
    ("too many recipients", {"to": ["a@example.org"] * 1001}, 413, "too_large", "to"),
    ("too many headers", {"headers": [{"name": "X-A", "value": "a"}] * 101}, 413, "too_large", "headers"),
    ("headers too long", {"headers": [{"name": "X-A", "value": "a" * 70_000}]}, 413, "too_large", "headers"),
    ("too many files", {"attachments": [{"filename": "a", "content": ""}] * 101}, 413, "too_large", "attachments"),
    ("too much extra", {"extra": {"a": "b" * 70_000}}, 413, "too_large", "extra"),
    ("too many tags", {"tags": ["a"] * 21}, 413, "too_large", "tags"),
    ("a tag too long", {"tags": ["a" * 65]}, 413, "too_large", "tags[0]"),
    ("an empty tag", {"tags": [""]}, 422, "validation_failed", "tags[0]"),
]


async def test_every_wrong_message_gets_its_answer_and_changes_nothing(client: httpx.AsyncClient, pool: Pool) -> None:
    for what, change, status, code, field in WRONG:
        body = {key: value for key, value in {**HELLO, **change}.items() if value is not None}
        # As ASCII: half of a surrogate pair has no UTF-8.
        response = await client.post(
            "/v1/messages", content=json.dumps(body).encode("ascii"), headers={"Content-Type": "application/json"}
        )
        document = problem(response, status, code)
        assert [error["field"] for error in document["errors"]][:1] == [field], (what, document)
    assert await pool.fetchval("SELECT count(*) FROM message") == 0


async def test_what_is_no_json_is_told_so(client: httpx.AsyncClient) -> None:
    for raw in MALFORMED:
        response = await client.post("/v1/messages", content=raw, headers={"Content-Type": "application/json"})
        problem(response, 400, "malformed_json")
    await_json = await client.post("/v1/suppressions", content=b"{", headers={"Content-Type": "application/json"})
    problem(await_json, 400, "malformed_json")
    form = await client.post("/v1/messages", data={"from": "demo@posthouse.test"})
    problem(form, 415, "unsupported_media_type")
    problem(await client.post("/v1/messages", json=["a"]), 422, "validation_failed")


async def test_a_file_of_the_second_kind_is_named_by_its_place_in_the_one_list(client: httpx.AsyncClient) -> None:
    files = [
        {"filename": "a.txt", "content": ""},
        {"filename": "b.png", "content": "", "disposition": "inline"},
        {"filename": "c\n.png", "content": "", "disposition": "inline"},
    ]

    refused = await client.post("/v1/messages", json={**HELLO, "attachments": files})

    [error] = problem(refused, 422, "validation_failed")["errors"]
    assert error["field"].startswith("attachments[2]")


async def test_a_message_over_the_limit_is_refused_once_composed(start_api: StartApi, demo: Demo, pool: Pool) -> None:
    api = await start_api(max_message_bytes=4096)
    async with api.client(demo.account_key) as client:
        problem(await client.post("/v1/messages", json={**HELLO, "text": "a" * 5000}), 413, "too_large")
        # Three octets that quoted-printable needs nine for: small as text, large as mail.
        problem(await client.post("/v1/messages", json={**HELLO, "text": "ü" * 3000}), 413, "too_large")
        assert (await client.post("/v1/messages", json={**HELLO, "text": "a" * 1000})).status_code == 202
    assert await pool.fetchval("SELECT count(*) FROM message") == 1


async def test_a_body_over_the_limit_is_refused_while_it_comes(start_api: StartApi, demo: Demo) -> None:
    api = await start_api(max_request_bytes=100_000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"text": "'
        while sent < 50_000_000:
            sent += 10_000
            yield b"a" * 10_000

    async with api.client(demo.account_key) as client:
        declared = await client.post("/v1/messages", json={**HELLO, "text": "a" * 200_000})
        problem(declared, 413, "too_large")
        chunked = await client.post("/v1/messages", content=endless(), headers={"Content-Type": "application/json"})
        problem(chunked, 413, "too_large")
        assert (await client.post("/v1/messages", json=HELLO)).status_code == 202


async def test_a_process_holds_no_more_request_bytes_than_its_budget(start_api: StartApi, demo: Demo) -> None:
    api = await start_api(request_budget_bytes=50_000)
    go_on = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"text": "' + b"a" * 40_000
        await go_on.wait()
        yield b'"}'

    json_type = {"Content-Type": "application/json"}
    async with api.client(demo.account_key) as client:
        first = asyncio.create_task(client.post("/v1/messages", content=slowly(), headers=json_type))

        async def in_hand() -> bool:
            return "posthouse_api_request_bytes 0.0" not in (await client.get("/metrics")).text

        await eventually(in_hand)
        turned_away = await client.post("/v1/messages", json={**HELLO, "text": "a" * 20_000})
        problem(turned_away, 503, "overloaded")
        assert turned_away.headers["retry-after"] == "1"
        go_on.set()
        problem(await first, 422, "validation_failed")
        assert (await client.post("/v1/messages", json={**HELLO, "text": "a" * 20_000})).status_code == 202


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/messages/999999", 404, "not_found"),
        ("/v1/messages/9999999999999999999", 404, "not_found"),
        ("/v1/messages/abc", 422, "validation_failed"),
        ("/v1/deliveries/-1", 422, "validation_failed"),
        ("/v1/deliveries?limit=0", 422, "validation_failed"),
        ("/v1/deliveries?limit=201", 422, "validation_failed"),
        ("/v1/deliveries?state=lost", 422, "validation_failed"),
        ("/v1/deliveries?cursor=nonsense", 422, "validation_failed"),
        ("/v1/deliveries?recipient=grace", 422, "address_invalid"),
        ("/v1/deliveries?recipient=%00", 422, "validation_failed"),
        ("/v1/deliveries?unknown=1", 422, "validation_failed"),
        ("/v1/events?type=lost", 422, "validation_failed"),
        ("/v1/events?delivery_id=9999999999999999999", 404, "not_found"),
        ("/v1/suppressions?cursor=%00", 422, "validation_failed"),
        ("/v1/nothing", 404, "not_found"),
        ("/v2/messages", 404, "not_found"),
    ],
)
async def test_wrong_ids_parameters_and_paths(client: httpx.AsyncClient, path: str, status: int, code: str) -> None:
    problem(await client.get(path), status, code)


async def test_a_wrong_method(client: httpx.AsyncClient) -> None:
    problem(await client.put("/v1/messages", json={}), 405, "method_not_allowed")


async def test_two_authorization_headers_are_refused(api: RunningApi, demo: Demo) -> None:
    async with api.client() as client:
        headers = [("Authorization", f"Bearer {demo.account_key}"), ("Authorization", "Bearer x")]
        problem(await client.get("/v1/deliveries", headers=headers), 400, "bad_input")

"""U+0000 and halves of surrogate pairs are refused in every string, wherever it stands."""

import base64
import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest

from integration.api.conftest import HELLO, RunningApi, problem
from integration.api.mox import Mox
from integration.api.submission_client import MAIL
from integration.api.submission_door import door, lines, sender, tls_files
from shared.db.demo import Demo
from shared.db.engine import Pool

__all__ = ["door", "lines", "sender", "tls_files"]

UNFIT = ["\0", "\ud800", "\udfff"]
FILE = {"filename": "a.txt", "content": "YQ==", "content_type": "text/plain", "content_id": "a@b"}
BOX = {"name": "Grace", "address": "grace@example.org"}
COMMON = {"extra": {"key": "value"}, "tags": ["tag"]}
PARTS: dict[str, Any] = {
    **COMMON,
    "from": {"name": "Demo", "address": "demo@posthouse.test"},
    **{field: [BOX] for field in ("to", "cc", "bcc", "reply_to")},
    "subject": "Hello",
    "text": "Hello",
    "html": "<p>Hello",
    "attachments": [FILE],
    "headers": [{"name": "X-A", "value": "a"}],
    "message_id": "<a@b.example>",
    "references": ["<c@d.example>"],
}
WHOLE: dict[str, Any] = {
    **COMMON,
    "raw": base64.b64encode(MAIL.encode()).decode(),
    "recipients": ["Grace <grace@example.org>", BOX],
}
MOX_BOX = [{"Name": "Grace", "Address": "grace@example.org"}]
MOX_FILE = [{"Name": "a.txt", "ContentType": "text/plain", "ContentID": "a@b", "Data": "YQ=="}]
MOX: dict[str, Any] = {
    "From": [{"Name": "Demo", "Address": "demo@posthouse.test"}],
    **dict.fromkeys(("To", "CC", "BCC", "ReplyTo"), MOX_BOX),
    "MessageID": "<a@b.example>",
    "References": ["<c@d.example>"],
    "Subject": "Hello",
    "Text": "Hello",
    "HTML": "<p>Hello",
    "Extra": {"key": "value"},
    "Headers": [["X-A", "a"]],
    "AlternativeFiles": MOX_FILE,
    "InlineFiles": MOX_FILE,
    "AttachedFiles": MOX_FILE,
}


def spoiled(value: Any, unfit: str) -> Iterator[tuple[str, Any]]:
    """Yield a document once for each string in it, keys of metadata included, with something unfit in this one; and where."""
    if isinstance(value, str):
        yield "", value[:1] + unfit + value[1:]
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for where, other in spoiled(item, unfit):
                yield f"[{index}]{where}", [*value[:index], other, *value[index + 1 :]]
    else:
        for key, item in value.items():
            for where, other in spoiled(item, unfit):
                yield f".{key}{where}", {**value, key: other}
        if "key" in value:
            yield ".(key)", {"k" + unfit: "value"}


@pytest.mark.parametrize("document", [PARTS, WHOLE], ids=["parts", "whole"])
async def test_rest(client: httpx.AsyncClient, pool: Pool, document: dict[str, Any]) -> None:
    json_type = {"Content-Type": "application/json"}
    accepted = await client.post("/v1/messages", json=document)
    assert accepted.status_code == 202, accepted.text
    for unfit in UNFIT:
        for where, wrong in spoiled(deepcopy(document), unfit):
            # As ASCII: half of a surrogate pair has no UTF-8.
            response = await client.post("/v1/messages", content=json.dumps(wrong).encode("ascii"), headers=json_type)
            assert response.status_code == 422, (where, response.text)
            assert response.json()["code"] in {"validation_failed", "address_invalid"}, (where, response.text)
    assert await pool.fetchval("SELECT count(*) FROM message") == 1


async def test_the_webapi(api: RunningApi, demo: Demo, pool: Pool) -> None:
    async with api.client() as http:
        mox = Mox(http, demo.login, demo.password)
        await mox.call("Send", MOX)
        for unfit in UNFIT:
            for where, wrong in spoiled(deepcopy(MOX), unfit):
                assert await mox.fault("Send", wrong) == "user", where
    assert await pool.fetchval("SELECT count(*) FROM message") == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/accounts", {"name": "other", "retry_schedule": "mox"}),
        ("PATCH", "/v1/accounts/1", {"name": "renamed", "retry_schedule": "mox"}),
        ("POST", "/v1/accounts/1/domains", {"name": "a.example", "separators": ["+"], "bounce_domain": "b.a.example"}),
        ("POST", "/v1/accounts/1/addresses", {"address": "ada@posthouse.test"}),
        ("POST", "/v1/accounts/1/keys", {"name": "shop"}),
        ("POST", "/v1/accounts/1/logins", {"login": "ada@posthouse.test", "password": "correct horse"}),
        ("POST", "/v1/operator-keys", {"name": "Charles"}),
    ],
)
async def test_what_operators_send(operator: httpx.AsyncClient, method: str, path: str, body: dict[str, Any]) -> None:
    for unfit in UNFIT:
        for where, wrong in spoiled(body, unfit):
            content = json.dumps(wrong).encode("ascii")
            response = await operator.request(
                method, path, content=content, headers={"Content-Type": "application/json"}
            )
            assert response.status_code == 422, (where, response.text)


async def test_names_in_a_form(client: httpx.AsyncClient, pool: Pool) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="message"\r\n\r\n{json.dumps(HELLO)}\r\n--b\r\n'.encode()
    for name in (b'filename="a\0b.txt"', b"filename*=utf-8''a%00b.txt"):
        part = b'Content-Disposition: form-data; name="attachment"; ' + name + b"\r\n\r\nx\r\n--b--\r\n"
        response = await client.post(
            "/v1/messages", content=head + part, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        problem(response, 422, "validation_failed")
    assert await pool.fetchval("SELECT count(*) FROM message") == 0

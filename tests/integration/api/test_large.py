"""Large messages arrive whole, and nobody waits for them: told by the order in which things end, not by time."""

import asyncio
import base64
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator

import httpx
import pytest

from api.caller import AccountCaller
from api.metrics import ApiMetrics
from api.submission import File, Limits, Party, Submission
from api.submit import Rules, Submitter
from api.writer import Writer
from fakes.waiting import eventually
from integration.api.conftest import HELLO
from integration.api.test_send import stored_message
from integration.api.test_writer import Heard
from shared.db.demo import Demo
from shared.db.engine import Pool
from shared.db.routing import Routing
from shared.mail.from_id import FromIds
from shared.metrics import Metrics

LARGE = 25 * 1024 * 1024


class Gate:
    """A source of randomness at which whoever composes a multipart, and so asks for a boundary, waits for its opening."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, count: int) -> bytes:
        if count == 30:
            self.reached.set()
            assert self.open.wait(30), "nobody opened the gate: the event loop is standing still"
        return os.urandom(count)


def submitter_with(pool: Pool, random: Gate) -> Submitter:
    metrics = ApiMetrics(Metrics("api"))
    rules = Rules(
        "mail.posthouse.test", None, Routing(), unverified_domains=True, limits=Limits(), from_ids=FromIds([b"k" * 16])
    )
    return Submitter(pool, Writer(pool, Heard(), metrics), rules, metrics, random=random)


def submission(demo: Demo, *files: File) -> Submission:
    return Submission(
        door="rest",
        caller=AccountCaller(0, demo.account_id, "api_key", uses_from_ids=True, is_test=False),
        sender=Party("", "demo@posthouse.test", "from.address"),
        to=(Party("", "grace@example.org", "to[0].address"),),
        text="Hello\n",
        files=files,
    )


async def test_a_small_message_is_answered_while_a_large_one_is_composed(pool: Pool, demo: Demo) -> None:
    gate = Gate()
    submitter = submitter_with(pool, gate)
    large = asyncio.create_task(submitter.submit(submission(demo, File("large.bin", os.urandom(1024 * 1024)))))
    await eventually(gate.reached.is_set, what="the large message is being composed")

    small = await submitter.submit(submission(demo))

    assert not large.done()
    gate.open.set()
    assert small.id != (await large).id
    assert await pool.fetchval("SELECT count(*) FROM message") == 2


async def test_a_small_request_is_answered_while_a_large_one_arrives(client: httpx.AsyncClient, demo: Demo) -> None:
    content = json.dumps(
        {**HELLO, "attachments": [{"filename": "a", "content": base64.b64encode(bytes(LARGE // 8)).decode()}]}
    ).encode()
    half = len(content) // 2
    arriving, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield content[:half]
        arriving.set()
        await go_on.wait()
        yield content[half:]

    large = asyncio.create_task(
        client.post("/v1/messages", content=slowly(), headers={"Content-Type": "application/json"})
    )
    await arriving.wait()

    assert (await client.post("/v1/messages", json=HELLO)).status_code == 202

    assert not large.done()
    go_on.set()
    assert (await large).status_code == 202


@pytest.mark.parametrize("how", ["json", "form", "whole"])
async def test_a_file_of_25_mb_arrives_whole(client: httpx.AsyncClient, pool: Pool, how: str) -> None:
    content = os.urandom(LARGE)
    encoded = base64.encodebytes(content)
    match how:
        case "json":
            files = [{"filename": "a.bin", "content": encoded.decode()}]
            response = await client.post("/v1/messages", json={**HELLO, "attachments": files})
        case "form":
            parts = [("message", (None, json.dumps(HELLO))), ("attachment", ("a.bin", content))]
            response = await client.post("/v1/messages", files=parts)  # type: ignore[arg-type]  # parts of two forms
        case _:
            head = b'From: demo@posthouse.test\nTo: a@example.org\nContent-Disposition: attachment; filename="a.bin"\n'
            whole = head + b"Content-Transfer-Encoding: base64\n\n" + encoded
            response = await client.post("/v1/messages", content=whole, headers={"Content-Type": "message/rfc822"})

    assert response.status_code == 202, response.text
    message = await stored_message(pool, response.json()["id"])
    [file] = [part for part in message.walk() if part.get_filename() == "a.bin"]
    payload = file.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert hashlib.sha256(payload).digest() == hashlib.sha256(content).digest()

"""How much one message may bring along: at each limit it is taken, and one over it is refused, at every door where it applies."""

import asyncio
import base64
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.api.conftest import HELLO, RunningApi, StartApi, problem
from integration.api.mox import Mox, basic
from integration.api.submission_client import FROM, MAIL, TO, Lines
from integration.api.submission_door import door, lines, sender, tls_files
from shared.db.demo import Demo
from shared.db.engine import Pool

__all__ = ["door", "lines", "sender", "tls_files"]

KIB = 1024
RAW = base64.b64encode(MAIL.encode()).decode()


def addresses(count: int) -> list[str]:
    return [f"r{number}@example.org" for number in range(count)]


def headers(octets: int, count: int = 64) -> list[tuple[str, str]]:
    """Return header fields that have so many octets together."""
    names = [f"X-{number:02}" for number in range(count)]
    room = octets - sum(map(len, names))
    sizes = [room // count + (place < room % count) for place in range(count)]
    return [(name, ("word " * size)[: size - 1] + "x") for name, size in zip(names, sizes, strict=True)]


def extra(count: int, octets: int | None = None) -> dict[str, str]:
    """Return metadata with so many keys, one of them empty, and so many octets together."""
    found = {"": "", **{f"k{number}": "" for number in range(count - 1)}}
    if octets is not None:
        found[""] = "x" * (octets - sum(map(len, found)))
    return found


def spread(count: int) -> dict[str, list[str]]:
    every = addresses(count)
    return {"to": every[:1], "cc": every[1:500], "bcc": every[500:]}


def files(count: int) -> list[dict[str, str]]:
    return [{"filename": f"{number}.txt", "content": ""} for number in range(count)]


# What, at the limit, one over it, and the field that is named.
OF_PARTS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("recipients", spread(1000), spread(1001), "to"),
    ("reply_to", {"reply_to": addresses(1000)}, {"reply_to": addresses(1001)}, "reply_to"),
    (
        "headers",
        {"headers": [{"name": "X-A", "value": ""}] * 100},
        {"headers": [{"name": "X-A", "value": ""}] * 101},
        "headers",
    ),
    (
        "octets of headers",
        {"headers": [{"name": n, "value": v} for n, v in headers(64 * KIB)]},
        {"headers": [{"name": n, "value": v} for n, v in headers(64 * KIB + 1)]},
        "headers",
    ),
    (
        "octets of references",
        {"references": [f"<{'x' * 250}@a.b>" for _ in range(256)]},
        {"references": [*(f"<{'x' * 250}@a.b>" for _ in range(255)), f"<{'x' * 251}@a.b>"]},
        "references",
    ),
    ("files", {"attachments": files(100)}, {"attachments": files(101)}, "attachments"),
    ("keys of extra", {"extra": extra(100)}, {"extra": extra(101)}, "extra"),
    ("octets of extra", {"extra": extra(3, 64 * KIB)}, {"extra": extra(3, 64 * KIB + 1)}, "extra"),
    ("octets of one key", {"extra": {"ü" * 32 * KIB: ""}}, {"extra": {"ü" * 32 * KIB: "x"}}, "extra"),
    ("tags", {"tags": [f"t{n}" for n in range(20)]}, {"tags": [f"t{n}" for n in range(21)]}, "tags"),
    ("characters of a tag", {"tags": ["ü" * 64]}, {"tags": ["ü" * 65]}, "tags[0]"),
]
OF_WHOLE: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("recipients", {"recipients": addresses(1000)}, {"recipients": addresses(1001)}, "to"),
    *(row for row in OF_PARTS if row[0].endswith(("extra", "key", "tags", "tag"))),
]
OF_WEBAPI: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("recipients", *({"BCC": [{"Address": a} for a in addresses(count)]} for count in (999, 1000))),
    ("reply-to", *({"ReplyTo": [{"Address": a} for a in addresses(count)]} for count in (1000, 1001))),
    ("headers", *({"Headers": [["X-A"]] * count} for count in (100, 101))),
    ("octets of headers", *({"Headers": headers(octets)} for octets in (64 * KIB, 64 * KIB + 1))),
    ("files", *({"AttachedFiles": [{"Name": "a", "Data": "YQ=="}] * count} for count in (100, 101))),
    (
        "files of every kind",
        *(
            {
                "AttachedFiles": [{"Name": "a", "Data": "YQ=="}] * count,
                "InlineFiles": [{"Name": "a", "Data": "YQ==", "ContentID": "<x>"}],
                "AlternativeFiles": [{"Name": "a", "Data": "YQ=="}],
            }
            for count in (98, 99)
        ),
    ),
    ("keys of extra", {"Extra": extra(100)}, {"Extra": extra(101)}),
    ("octets of extra", {"Extra": extra(3, 64 * KIB)}, {"Extra": extra(3, 64 * KIB + 1)}),
]
OF_SMTP: list[tuple[str, str, str]] = [
    ("keys of extra", *("".join(f"X-Mox-Extra-k{n}: x\r\n" for n in range(count)) + MAIL for count in (100, 101))),
    (
        "octets of extra",
        *(
            # A key of two octets and a line of 938 each; 65,536 is what 69 lines and the last one have.
            "".join(f"X-Posthouse-Extra-{n:02}: {'x' * 936}\r\n" for n in range(69))
            + f"X-Posthouse-Extra-Zz: {'x' * (64 * KIB - 69 * 938 - 2 + over)}\r\n"
            + MAIL
            for over in (0, 1)
        ),
    ),
]


async def test_a_message_in_parts(client: httpx.AsyncClient, pool: Pool) -> None:
    for what, at, over, field in OF_PARTS:
        accepted = await client.post("/v1/messages", json={**HELLO, **at})
        assert accepted.status_code == 202, (what, accepted.text)
        document = problem(await client.post("/v1/messages", json={**HELLO, **over}), 413, "too_large")
        assert [error["field"] for error in document["errors"]] == [field], what
        assert document["detail"], what
    assert await pool.fetchval("SELECT count(*) FROM message") == len(OF_PARTS)


async def test_a_whole_message(client: httpx.AsyncClient, pool: Pool) -> None:
    for what, at, over, field in OF_WHOLE:
        accepted = await client.post("/v1/messages", json={"raw": RAW, **at})
        assert accepted.status_code == 202, (what, accepted.text)
        document = problem(await client.post("/v1/messages", json={"raw": RAW, **over}), 413, "too_large")
        assert [error["field"] for error in document["errors"]] == [field], what
    assert await pool.fetchval("SELECT count(*) FROM message") == len(OF_WHOLE)


async def test_files_of_a_form(client: httpx.AsyncClient, pool: Pool) -> None:
    def form(count: int) -> list[Any]:
        kinds = ("attachment", "inline", "alternative")
        parts = [(kinds[number % 3], (f"{number}.txt", b"x")) for number in range(count)]
        return [("message", (None, json.dumps(HELLO))), *parts]

    assert (await client.post("/v1/messages", files=form(100))).status_code == 202
    problem(await client.post("/v1/messages", files=form(101)), 413, "too_large")
    assert await pool.fetchval("SELECT count(*) FROM message") == 1


async def test_the_webapi(api: RunningApi, demo: Demo, pool: Pool) -> None:
    base = {"To": [{"Address": TO}], "Text": "x"}
    async with api.client() as http:
        mox = Mox(http, demo.login, demo.password)
        for what, at, over in OF_WEBAPI:
            accepted = await mox.raw("Send", {**base, **at})
            assert accepted.status_code == 200, (what, accepted.text)
            assert await mox.fault("Send", {**base, **over}) == "messageTooLarge", what
        uploads = [("attachedfile", (f"{number}.txt", b"x", "text/plain")) for number in range(101)]
        await mox.call("Send", base, uploads[:100])
        assert await mox.fault("Send", base, uploads) == "messageTooLarge"
    assert await pool.fetchval("SELECT count(*) FROM message") == len(OF_WEBAPI) + 1


async def test_smtp(sender: Lines, pool: Pool) -> None:
    for what, at, over in OF_SMTP:
        assert (await sender.send(at)).startswith("250"), what
        assert (await sender.send(over)).startswith("552 5.3.4"), what
    assert (await sender.say(f"MAIL FROM:<{FROM}>")).startswith("250")
    for recipient in addresses(1000):
        assert (await sender.say(f"RCPT TO:<{recipient}>")).startswith("250")
    assert (await sender.say("RCPT TO:<more@example.org>")).startswith("452 4.5.3")
    assert (await sender.say("DATA")).startswith("354")
    assert (await sender.say(MAIL + ".")).startswith("250")
    assert await pool.fetchval("SELECT count(*) FROM delivery") == len(OF_SMTP) + 1000


MOST = 20_000


def body(octets: int) -> str:
    lines = "".join("x" * 70 + "\r\n" for _ in range(octets // 72))
    rest = octets - len(lines)
    return lines + "x" * max(0, rest - 2) + "\r\n"


class Sizes:
    """Hands in mail with bodies of a given length."""

    def __init__(self, client: httpx.AsyncClient, mox: Mox, lines: Lines) -> None:
        self.client, self.mox, self.lines = client, mox, lines

    async def parts(self, octets: int) -> bool:
        answer = await self.client.post("/v1/messages", json={**HELLO, "text": body(octets).replace("\r\n", "\n")})
        return answer.status_code == 202 or bool(problem(answer, 413, "too_large")) is False

    async def whole(self, octets: int) -> bool:
        whole = {"content": (MAIL + body(octets)).encode(), "headers": {"Content-Type": "message/rfc822"}}
        answer = await self.client.post("/v1/messages", **whole)  # type: ignore[arg-type]  # of two types
        return answer.status_code == 202 or bool(problem(answer, 413, "too_large")) is False

    async def webapi(self, octets: int) -> bool:
        request = {"To": [{"Address": TO}], "Text": body(octets).replace("\r\n", "\n")}
        answer = await self.mox.raw("Send", request)
        assert answer.status_code == 200 or answer.json()["Code"] == "messageTooLarge"
        return answer.status_code == 200

    async def smtp(self, octets: int) -> bool:
        reply = await self.lines.send(MAIL + body(octets))
        assert reply.startswith(("250", "552 5.3.4"))
        return reply.startswith("250")


@pytest.mark.parametrize("way", ["parts", "whole", "webapi", "smtp"])
async def test_the_composed_message(
    start_api: StartApi, demo: Demo, tls_files: dict[str, Path], pool: Pool, way: str
) -> None:
    # Ids of one length: each stands in its message.
    await pool.execute("SELECT setval('record_id', 1000000)")
    api = await start_api(submission_host="127.0.0.1", submissions_port=0, max_message_bytes=MOST, **tls_files)
    lines = await Lines.connect(api.addresses["submissions"])
    await lines.login(demo.login, demo.password)
    async with api.client(demo.account_key) as client, api.client() as plain:
        send = getattr(Sizes(client, Mox(plain, demo.login, demo.password), lines), way)
        assert await send(10_000)
        rest = MOST - await pool.fetchval("SELECT size FROM message")

        assert await send(10_000 + rest)
        assert not await send(10_000 + rest + 1)
    lines.close()
    assert await pool.fetchval("SELECT array_agg(size ORDER BY id) FROM message") == [MOST - rest, MOST]


@pytest.mark.parametrize(
    ("setting", "message", "field"),
    [
        ("max_recipients", {"to": addresses(2)}, "to"),
        ("max_headers", {"headers": [{"name": "X-A", "value": ""}] * 2}, "headers"),
        ("max_header_bytes", {"headers": [{"name": "XA", "value": ""}]}, "headers"),
        ("max_files", {"attachments": files(2)}, "attachments"),
        ("max_extra_keys", {"extra": {"a": "", "b": ""}}, "extra"),
        ("max_extra_bytes", {"extra": {"a": "b"}}, "extra"),
        ("max_tags", {"tags": ["a", "b"]}, "tags"),
        ("max_tag_characters", {"tags": ["ab"]}, "tags[0]"),
    ],
)
async def test_each_limit_is_a_setting(
    start_api: StartApi, demo: Demo, setting: str, message: dict[str, Any], field: str
) -> None:
    one = await start_api(**{setting: 1})
    two = await start_api(**{setting: 2})
    async with one.client(demo.account_key) as client:
        document = problem(await client.post("/v1/messages", json={**HELLO, **message}), 413, "too_large")
        assert document["errors"][0]["field"] == field
        assert " 1 " in document["detail"] or document["detail"].endswith(" 1")
    async with two.client(demo.account_key) as client:
        assert (await client.post("/v1/messages", json={**HELLO, **message})).status_code == 202


LIMIT = 1024 * KIB
CHUNK = b"x" * 70 + b"\r\n"
CHUNKS = [CHUNK * 910] * 740
"""About 46 MiB of text, of one object: what sends it holds no memory."""


class Uploads:
    """Sends far more than the limit, and returns the answer."""

    def __init__(self, api: RunningApi, demo: Demo) -> None:
        self.api, self.demo = api, demo

    async def rest(self) -> str:
        return await self._post("/v1/messages", b'{"text": "', "application/json", self.demo.account_key)

    async def whole(self) -> str:
        return await self._post("/v1/messages", MAIL.encode(), "message/rfc822", self.demo.account_key)

    async def form(self) -> str:
        head = b'--b\r\nContent-Disposition: form-data; name="attachment"; filename="a"\r\n\r\n'
        return await self._post("/v1/messages", head, "multipart/form-data; boundary=b", self.demo.account_key)

    async def webapi(self) -> str:
        head = b'--b\r\nContent-Disposition: form-data; name="attachedfile"; filename="a"\r\n\r\n'
        return await self._post("/webapi/v0/Send", head, "multipart/form-data; boundary=b", None)

    async def smtp(self) -> str:
        lines = await Lines.connect(self.api.addresses["submissions"])
        await lines.login(self.demo.login, self.demo.password)
        assert (await lines.envelope()).startswith("354")
        lines.writer.write(MAIL.encode())
        reply = asyncio.create_task(lines.reply())
        # Far beyond the limit the server answers and hangs up before the end.
        with contextlib.suppress(ConnectionError):
            for chunk in CHUNKS:
                lines.writer.write(chunk)
                await lines.writer.drain()
        answer = await reply
        lines.close()
        return answer

    async def _post(self, path: str, head: bytes, content_type: str, key: str | None) -> str:
        async def content() -> AsyncIterator[bytes]:
            yield head
            for chunk in CHUNKS:
                yield chunk
                await asyncio.sleep(0)

        login = {} if key else basic(self.demo.login, self.demo.password)
        async with self.api.client(key) as client:
            answer = await client.post(path, content=content(), headers={"Content-Type": content_type, **login})
        return answer.text


@pytest.mark.parametrize(
    ("way", "answer"),
    [
        ("rest", "too_large"),
        ("whole", "too_large"),
        ("form", "too_large"),
        ("webapi", "messageTooLarge"),
        ("smtp", "552 5.3.4"),
    ],
)
async def test_of_a_huge_upload_no_more_than_the_limit_is_held(
    start_api: StartApi, demo: Demo, tls_files: dict[str, Path], pool: Pool, way: str, answer: str
) -> None:
    settings = {"max_message_bytes": LIMIT, "max_request_bytes": LIMIT, "submissions_port": 0}
    api = await start_api(submission_host="127.0.0.1", **settings, **tls_files)
    async with api.client(demo.account_key) as client:
        assert (await client.post("/v1/messages", json=HELLO)).status_code == 202
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        reply = await getattr(Uploads(api, demo), way)()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert answer in reply
    # The limit, the pieces that are on their way in client and server, and what a request costs anyway; the upload is 46 times the limit.
    assert peak - before < 8 * LIMIT
    assert await pool.fetchval("SELECT count(*) FROM message") == 1

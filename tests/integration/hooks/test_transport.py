import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.webhook_receiver import Behaviour, WebhookReceiver
from hooks.transport import Limits, Resolve, WebhookTransport
from shared.errors import Unavailable
from shared.security.outbound import OutboundPolicy

LOCAL = OutboundPolicy(allow_private=True, allowed_ports=None)


def zone(*addresses: str) -> Resolve:
    async def resolve(host: str) -> Sequence[str]:
        return addresses

    return resolve


@asynccontextmanager
async def calling(
    resolve: Resolve | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, WebhookTransport]]:
    transport = WebhookTransport(resolve or zone("127.0.0.1"), LOCAL, limits=limits)
    async with httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False) as client:
        yield client, transport


async def test_a_call_arrives_as_it_was_sent_and_the_answer_comes_back() -> None:
    answer = Behaviour(status=202, headers=(("X-Answer", "yes"),), body=b"thanks")
    async with WebhookReceiver([answer]) as receiver, calling() as (client, _):
        body = "{'text': 'grüße'}".encode()
        response = await client.post(
            f"http://hooks.example:{receiver.port}/a%20b?c=d", content=body, headers={"webhook-id": "evt_1"}
        )
        assert (response.status_code, response.headers["x-answer"], response.content) == (202, "yes", b"thanks")
        assert response.extensions["address"] == "127.0.0.1"
        (request,) = receiver.requests
        assert (request.method, request.path, request.body) == ("POST", "/a%20b?c=d", body)
        assert request.headers["host"] == f"hooks.example:{receiver.port}"
        assert request.headers["webhook-id"] == "evt_1"
        assert request.headers["content-length"] == str(len(body))
        assert request.headers["accept-encoding"] == "identity"


async def test_connections_are_used_again() -> None:
    async with WebhookReceiver() as receiver, calling() as (client, transport):
        reused = [(await client.post(receiver.url, content=b"x")).extensions["reused"] for _ in range(5)]
        assert reused == [False, True, True, True, True]
        assert receiver.connections == 1
        assert transport.idle == 1


async def test_concurrent_calls_take_connections_of_their_own_and_idle_ones_are_bounded() -> None:
    limits = Limits(idle_per_target=3)
    async with WebhookReceiver([Behaviour(delay=0.05)]) as receiver, calling(limits=limits) as (client, transport):
        responses = await asyncio.gather(*(client.post(receiver.url, content=bytes([n])) for n in range(20)))
        assert {response.status_code for response in responses} == {200}
        assert {request.body for request in receiver.requests} == {bytes([n]) for n in range(20)}
        assert receiver.connections == 20
        assert transport.idle == 3


async def test_closing_the_client_ends_idle_connections() -> None:
    async with WebhookReceiver() as receiver:
        async with calling() as (client, _):
            await client.post(receiver.url)
        await receiver.wait_until_closed()


async def test_a_connection_does_not_idle_longer_than_it_may() -> None:
    async with WebhookReceiver() as receiver, calling(limits=Limits(idle_seconds=0.1)) as (client, transport):
        await client.post(receiver.url)
        await receiver.wait_until_closed()
        assert transport.idle == 0


async def test_a_connection_that_the_peer_closed_while_idle_is_not_noticed_by_the_caller() -> None:
    async with WebhookReceiver() as receiver, calling() as (client, _):
        await client.post(receiver.url)
        receiver.drop_connections()
        await receiver.wait_until_closed()
        assert (await client.post(receiver.url)).status_code == 200
        assert receiver.connections == 2


async def test_a_call_whose_reused_connection_ends_without_an_answer_is_made_once_more() -> None:
    # The second request arrives and its connection ends: the peer closed it as idle while the request was on its way.
    async with (
        WebhookReceiver([Behaviour(), Behaviour(drop="before"), Behaviour()]) as receiver,
        calling() as (client, _),
    ):
        await client.post(receiver.url, content=b"1")
        response = await client.post(receiver.url, content=b"2")
        assert (response.status_code, response.extensions["reused"]) == (200, False)
        assert [(request.connection, request.body) for request in receiver.requests] == [
            (1, b"1"),
            (1, b"2"),
            (2, b"2"),
        ]


async def test_a_fresh_connection_that_ends_without_an_answer_is_not_tried_again() -> None:
    async with WebhookReceiver([Behaviour(drop="before")]) as receiver, calling() as (client, transport):
        with pytest.raises(httpx.RemoteProtocolError, match="without an answer"):
            await client.post(receiver.url)
        assert len(receiver.requests) == 1
        assert transport.idle == 0


@pytest.mark.parametrize(
    "behaviour", [Behaviour(close=True), Behaviour(silent_close=True)], ids=["announced", "silent"]
)
async def test_a_connection_that_ends_after_its_answer_is_not_used_again(behaviour: Behaviour) -> None:
    async with WebhookReceiver([behaviour]) as receiver, calling() as (client, _):
        for _ in range(3):
            assert (await client.post(receiver.url)).status_code == 200
        assert receiver.connections == 3


@pytest.mark.parametrize("drop", ["head", "body"])
async def test_half_an_answer_is_an_error(drop: Literal["head", "body"]) -> None:
    async with WebhookReceiver([Behaviour(body=b"12345", drop=drop)]) as receiver, calling() as (client, transport):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(receiver.url)
        assert transport.idle == 0


async def test_a_body_is_read_up_to_the_limit_and_not_further() -> None:
    script = [
        Behaviour(body=b"x" * 1000),
        Behaviour(body=b"x" * 1001),
        Behaviour(endless=True),
        Behaviour(body=b"y" * 50_000_000),
    ]
    async with WebhookReceiver(script) as receiver, calling(limits=Limits(body_bytes=1000)) as (client, transport):
        responses = [await client.post(receiver.url) for _ in range(4)]
        assert [len(response.content) for response in responses] == [1000] * 4
        assert [response.extensions["truncated"] for response in responses] == [False, True, True, True]
        assert transport.idle == 0
        await receiver.wait_until_closed()


async def test_a_compressed_answer_is_not_decompressed() -> None:
    behaviour = Behaviour(headers=(("Content-Encoding", "gzip"),), body=b"\x1f\x8bnot really")
    async with WebhookReceiver([behaviour]) as receiver, calling() as (client, _):
        assert (await client.post(receiver.url)).content == b"\x1f\x8bnot really"


GARBAGE = [
    b"",
    b"hello\r\n\r\n",
    b"\x00" * 100,
    b"HTTP/1.1 200\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000 + b"\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"220 mail.example ESMTP\r\n",
]


@pytest.mark.parametrize("raw", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_is_an_error_of_the_peer(raw: bytes) -> None:
    async with (
        WebhookReceiver([Behaviour(raw=raw)]) as receiver,
        calling(limits=Limits(total_seconds=5)) as (client, transport),
    ):
        with pytest.raises(httpx.TransportError):
            await client.post(receiver.url)
        assert transport.idle == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.one_of(st.binary(max_size=200), st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)))
async def test_no_bytes_raise_anything_but_an_error_of_httpx(raw: bytes) -> None:
    async with (
        WebhookReceiver([Behaviour(raw=raw)]) as receiver,
        calling(limits=Limits(total_seconds=5)) as (client, _),
    ):
        try:
            response = await client.post(receiver.url)
        except httpx.TransportError:
            return
        assert 200 <= response.status_code < 600


@pytest.mark.parametrize("late", [False, True], ids=["with the first", "after the first"])
async def test_an_answer_after_the_answer_is_never_taken_for_the_next(late: bool) -> None:
    answer = b"HTTP/1.1 %s Scripted\r\nContent-Length: 0\r\n\r\n"
    answered, ended = asyncio.Event(), asyncio.Event()
    served = 0

    async def stuff(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\r\n\r\n")
        if served > 1:
            writer.write(answer % b"201")
        elif late:
            writer.write(answer % b"200")
            await answered.wait()
            writer.write(answer % b"299")
        else:
            writer.write(answer % b"200" + answer % b"299")
        with contextlib.suppress(ConnectionError):
            await reader.read()  # until the client ends it
        ended.set()
        writer.transport.abort()

    async with await asyncio.start_server(stuff, "127.0.0.1", 0) as server:
        async with calling() as (client, _):
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            assert (await client.post(url)).status_code == 200
            answered.set()
            await asyncio.wait_for(ended.wait(), 10)
            ended.clear()
            assert (await client.post(url)).status_code == 201
        await asyncio.wait_for(ended.wait(), 10)


async def test_early_hints_are_passed_over() -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
    async with WebhookReceiver([Behaviour(raw=raw)]) as receiver, calling() as (client, _):
        assert (await client.post(receiver.url)).status_code == 204


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    behaviour = Behaviour(status=302, headers=(("Location", "http://169.254.169.254/"),))
    async with WebhookReceiver([behaviour]) as receiver, calling() as (client, _):
        assert (await client.post(receiver.url)).status_code == 302
        assert len(receiver.requests) == 1


async def test_the_deadline_counts_from_the_first_step_to_the_last_byte() -> None:
    async def never(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with calling(never, limits=Limits(total_seconds=0.1)) as (client, _):
        with pytest.raises(httpx.ConnectTimeout):
            await client.post("http://hooks.example/")
    async with (
        WebhookReceiver([Behaviour(delay=60)]) as receiver,
        calling(limits=Limits(total_seconds=0.2)) as (client, transport),
    ):
        with pytest.raises(httpx.ReadTimeout):
            await client.post(receiver.url)
        await receiver.wait_until_closed()
        assert transport.idle == 0


async def test_a_request_may_bring_its_own_deadline() -> None:
    async with WebhookReceiver([Behaviour(delay=60)]) as receiver, calling() as (client, _):
        with pytest.raises(httpx.ReadTimeout, match=r"0\.1 s"):
            await client.post(receiver.url, extensions={"deadline": 0.1})


async def test_a_cancelled_call_leaves_no_connection_behind() -> None:
    async with WebhookReceiver([Behaviour(delay=60)]) as receiver, calling() as (client, transport):
        call = asyncio.create_task(client.post(receiver.url))
        await receiver.wait_for(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await receiver.wait_until_closed()
        assert transport.idle == 0


async def test_nobody_there_is_a_connect_error() -> None:
    async with WebhookReceiver() as receiver:
        url = receiver.url
    async with calling() as (client, _):
        with pytest.raises(httpx.ConnectError, match="no connection"):
            await client.post(url)


async def test_the_next_address_is_tried_where_one_takes_no_connection() -> None:
    async with WebhookReceiver() as receiver, calling(zone("127.0.0.9", "127.0.0.1")) as (client, _):
        response = await client.post(f"http://hooks.example:{receiver.port}/")
        assert response.extensions["address"] == "127.0.0.1"


async def test_a_name_without_addresses_is_a_connect_error() -> None:
    async def fails(host: str) -> Sequence[str]:
        raise Unavailable("the resolver does not answer")

    for resolve, text in ((zone(), "has no address"), (fails, "cannot be resolved: the resolver does not answer")):
        async with calling(resolve) as (client, _):
            with pytest.raises(httpx.ConnectError, match=text):
                await client.post("http://hooks.example/")


async def test_large_bodies_go_out_whole_and_an_early_answer_is_heard() -> None:
    body = bytes(range(256)) * 80_000
    async with WebhookReceiver() as receiver, calling() as (client, _):
        await client.post(receiver.url, content=body)
        assert receiver.requests[0].body == body

    refused = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()  # the client aborts once it has its answer
        writer.transport.abort()
        refused.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, calling() as (client, transport):
        response = await client.post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", content=body)
        assert response.status_code == 413
        assert transport.idle == 0
        await asyncio.wait_for(refused.wait(), 10)

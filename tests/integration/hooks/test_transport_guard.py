"""Where a call may go, and whom it trusts there."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest
import trustme

from fakes.webhook_receiver import WebhookReceiver
from hooks.transport import TargetRefused, WebhookTransport
from shared.security.outbound import OutboundPolicy

LOCAL = OutboundPolicy(allow_private=True, allowed_ports=None)
STRICT = OutboundPolicy(allowed_ports=None)


class Zone:
    """A resolver that answers from a script: each list once, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


@asynccontextmanager
async def calling(
    zone: Zone, policy: OutboundPolicy = LOCAL, tls: ssl.SSLContext | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    transport = WebhookTransport(zone, policy, tls=tls)
    async with httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["169.254.169.254"],
        ["0.0.0.0"],
        ["not an address"],
    ],
)
async def test_a_name_that_leads_inside_is_refused_and_nothing_is_connected(answers: list[str]) -> None:
    async with WebhookReceiver() as receiver, calling(Zone(answers), STRICT) as client:
        with pytest.raises(TargetRefused, match="may not be called"):
            await client.post(f"http://hooks.example:{receiver.port}/")
        assert receiver.connections == 0


LITERALS = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "0", "0.0.0.0", "localhost", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021"]  # fmt: skip


@pytest.mark.parametrize("host", LITERALS)
async def test_every_spelling_of_our_own_address_is_refused(host: str) -> None:
    zone = Zone(["127.0.0.1"])
    async with WebhookReceiver() as receiver, calling(zone, STRICT) as client:
        with pytest.raises((TargetRefused, httpx.InvalidURL)):
            await client.post(f"http://{host}:{receiver.port}/")
        assert (receiver.connections, zone.asked) == (0, 0)


async def test_a_name_is_resolved_once_per_call_so_that_it_cannot_change_its_mind() -> None:
    zone = Zone(["127.0.0.1"], ["169.254.169.254"])
    async with WebhookReceiver() as receiver, calling(zone) as client:
        assert (await client.post(f"http://hooks.example:{receiver.port}/")).status_code == 200
        assert zone.asked == 1


async def test_a_name_that_changed_its_mind_gets_no_old_connection() -> None:
    zone = Zone(["127.0.0.1"], ["127.0.0.2"], ["169.254.169.254"])
    async with WebhookReceiver(host="0.0.0.0") as receiver, calling(zone) as client:
        url = f"http://hooks.example:{receiver.port}/"
        assert (await client.post(url)).extensions["address"] == "127.0.0.1"
        second = await client.post(url)
        assert (second.extensions["address"], second.extensions["reused"]) == ("127.0.0.2", False)
        with pytest.raises(TargetRefused, match="169"):
            await client.post(url)
        assert len(receiver.requests) == 2


async def test_ports_and_schemes_are_ruled_too() -> None:
    async with calling(Zone(["127.0.0.1"]), OutboundPolicy(allow_private=True)) as client:
        with pytest.raises(TargetRefused, match="port 25"):
            await client.post("http://hooks.example:25/")
        with pytest.raises((TargetRefused, httpx.UnsupportedProtocol)):
            await client.post("ftp://hooks.example/")


async def test_tls_is_verified_for_the_name_while_the_address_is_pinned(authority: trustme.CA) -> None:
    async with (
        WebhookReceiver(tls=server_tls(authority, "hooks.example")) as receiver,
        calling(Zone(["127.0.0.1"]), tls=client_tls(authority)) as client,
    ):
        for host in ("hooks.example", "hooks.example."):
            response = await client.post(f"https://{host}:{receiver.port}/", content=b"x")
            assert response.status_code == 200
            assert response.extensions["tls"] == "TLSv1.3"
            assert response.extensions["address"] == "127.0.0.1"
        assert (await client.post(f"https://hooks.example:{receiver.port}/")).extensions["reused"]
        with pytest.raises(httpx.ConnectError, match=r"certificate is not accepted.*other\.example"):
            await client.post(f"https://other.example:{receiver.port}/")
        with pytest.raises(httpx.ConnectError, match="certificate is not accepted"):
            await client.post(receiver.url)


async def test_tls_of_a_literal_address_is_verified_for_the_address(authority: trustme.CA) -> None:
    async with (
        WebhookReceiver(tls=server_tls(authority, "127.0.0.1")) as receiver,
        calling(Zone(["127.0.0.1"]), tls=client_tls(authority)) as client,
    ):
        assert (await client.post(receiver.url)).status_code == 200


async def test_an_unknown_authority_and_a_peer_without_tls_are_connect_errors(authority: trustme.CA) -> None:
    async with calling(Zone(["127.0.0.1"]), tls=client_tls(authority)) as client:
        async with WebhookReceiver(tls=server_tls(trustme.CA(), "127.0.0.1")) as receiver:
            with pytest.raises(httpx.ConnectError, match="certificate is not accepted"):
                await client.post(receiver.url)
            assert receiver.requests == []

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            with pytest.raises(httpx.ConnectError, match="TLS failed"):
                await client.post(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")


def test_a_context_that_does_not_verify_is_refused() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ValueError, match="verifies"):
        WebhookTransport(Zone(["127.0.0.1"]), LOCAL, tls=context)

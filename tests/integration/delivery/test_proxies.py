"""Mail through SOCKS5 proxies."""

from collections.abc import AsyncIterator

import pytest

from fakes.smtp_network import smtp_network
from fakes.smtp_server import Script, ScriptedSmtpServer
from fakes.socks_server import SocksServer
from integration.delivery.conftest import OpenSite
from integration.delivery.floor import Floor, sites

ONE, SIX = "127.0.0.2", "::1"


@pytest.fixture
async def floor(open_site: OpenSite) -> AsyncIterator[Floor]:
    async with smtp_network({ONE: Script(), SIX: Script()}) as network:
        network.zone["b.test"] = {"A": [ONE], "AAAA": [SIX]}
        yield Floor(await open_site(ScriptedSmtpServer()), network)


@pytest.mark.parametrize("login", [None, ("us", "wörd")])
@pytest.mark.parametrize("bound", [b"\x01\0\0\0\0\0\0", b"\x04" + bytes(18), b"\x03\x05proxy\0\0"])
async def test_mail_goes_through_a_proxy_under_its_name(
    floor: Floor, login: tuple[str, str] | None, bound: bytes
) -> None:
    async with SocksServer(login, bound=bound) as proxy:
        given = {"username": login[0], "password": login[1]} if login else {}
        await floor.operate(kind="socks", route={}, host="127.0.0.1", port=proxy.port, ehlo_name="out.test", **given)
        (attempt,) = await floor.send()
        assert (attempt["outcome"], attempt["ip"]) == ("delivered", ONE)
        assert proxy.requests == [(ONE, floor.network.port)]
        assert floor.network.servers[ONE].sessions[0].commands[0] == "EHLO out.test"
    assert "via:t:b.test" in await sites(floor)


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (SocksServer(status=2), "not allowed by its rules"),
        (SocksServer(status=77), "error 77"),
        (SocksServer(("us", "other")), "wants a login"),
        (SocksServer(greeting=b"HT"), "does not speak SOCKS5"),
        (SocksServer(greeting=b"\x05"), "closed the connection"),
        (SocksServer(silent=True), "no connection"),
    ],
)
async def test_a_proxy_that_does_not_connect_delays(floor: Floor, proxy: SocksServer, said: str) -> None:
    async with proxy:
        await floor.operate(kind="socks", route={}, host="127.0.0.1", port=proxy.port, ehlo_name="out.test")
        (attempt,) = await floor.send(timeout=0.5)
    assert (attempt["outcome"], attempt["stage"]) == ("delayed", "connect")
    assert said in attempt["text"]
    assert floor.network.visited == {}


async def test_a_proxy_that_refuses_our_login_delays(floor: Floor) -> None:
    async with SocksServer(("us", "other")) as proxy:
        given = {"username": "us", "password": "word", "ehlo_name": "out.test"}
        await floor.operate(kind="socks", route={}, host="127.0.0.1", port=proxy.port, **given)
        (attempt,) = await floor.send()
    assert "refuses our login" in attempt["text"]


async def test_a_proxys_own_host_is_ourselves(floor: Floor) -> None:
    floor.network.zone["b.test"] = {"MX": ["10 out.test."]}
    floor.network.zone["out.test"] = {"A": [ONE]}
    async with SocksServer() as proxy:
        await floor.operate(kind="socks", route={}, host="127.0.0.1", port=proxy.port, ehlo_name="out.test")
        (attempt,) = await floor.send()
    assert (attempt["outcome"], attempt["enhanced"], proxy.requests) == ("failed", "5.4.6", [])

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import dns.flags
import dns.rdatatype
import pytest

from fakes.dns_server import DnsServer, Zone
from shared.dns.cache import TtlCache
from shared.dns.errors import DnsNotFound, DnsTemporary
from shared.dns.resolver import Mx, MxHost, Resolver
from shared.errors import ConfigurationError

ZONE: Zone = {
    "example.com": {
        "MX": ["20 B.example.com.", "10 a.example.com.", "10 c.example.com."],
        "TXT": ['"v=spf1 " "-all"', '"other"'],
    },
    "a.example.com": {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": ["2001:db8::1"]},
    "b.example.com": {"AAAA": ["2001:db8::2"]},
    "alias.example.com": {"CNAME": ["A.Example.com."]},
    "dangling.example.com": {"CNAME": ["nowhere.example.com."]},
    "nomail.example": {"MX": ["0 ."]},
    "odd.example": {"MX": ["0 .", "5 a.example.com."]},
    "plain.example": {"A": ["192.0.2.9"]},
    "empty.example": {},
    "broken.example": "SERVFAIL",
    "refused.example": "REFUSED",
    "silent.example": "SILENT",
}


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer(dict(ZONE)) as running:
        yield running


@pytest.fixture
async def make_resolver(server: DnsServer) -> AsyncIterator[Callable[..., Resolver]]:
    async with AsyncExitStack() as stack:

        def make(**options: object) -> Resolver:
            resolver = Resolver([server.address], **{"timeout": 10.0, "lifetime": 60.0, **options})
            stack.push_async_callback(resolver.close)
            return resolver

        yield make


@pytest.fixture
def resolver(make_resolver: Callable[..., Resolver]) -> Resolver:
    return make_resolver()


async def test_texts_are_joined_from_their_strings(resolver: Resolver) -> None:
    assert sorted(await resolver.txt("example.com")) == ["other", "v=spf1 -all"]


async def test_mx_hosts_come_by_preference(resolver: Resolver) -> None:
    mx = await resolver.mx("Example.COM.")
    assert mx.hosts == (MxHost(10, "a.example.com"), MxHost(10, "c.example.com"), MxHost(20, "b.example.com"))
    assert not mx.null
    orders = {tuple(name for _, name in mx.in_order(random.Random(seed))) for seed in range(50)}
    last = "b.example.com"
    assert orders == {("a.example.com", "c.example.com", last), ("c.example.com", "a.example.com", last)}


async def test_a_null_mx_is_told_from_none_and_from_a_stray_dot(resolver: Resolver) -> None:
    assert await resolver.mx("nomail.example") == Mx((), null=True, authentic=False, name="nomail.example")
    assert await resolver.mx("plain.example") == Mx((), null=False, authentic=False, name="plain.example")
    assert (await resolver.mx("odd.example")).hosts == (MxHost(5, "a.example.com"),)


async def test_mx_records_that_name_no_host_are_left_out(server: DnsServer, resolver: Resolver) -> None:
    server.zone["part.example"] = {"MX": ["5 192.0.2.1.", "10 bad\\032name.example.", "20 a.example.com."]}
    assert (await resolver.mx("part.example")).hosts == (MxHost(20, "a.example.com"),)
    server.zone["all.example"] = {"MX": ["5 192.0.2.1."]}
    assert await resolver.mx("all.example") == Mx((), null=False, authentic=False, name="all.example", unusable=True)


@pytest.mark.parametrize(("chained", "first"), [(True, "c5.example"), (False, "c4.example")])
async def test_aliases_of_a_domain_are_followed_up_to_sixteen(
    server: DnsServer, resolver: Resolver, chained: bool, first: str
) -> None:
    server.chases = chained
    server.zone |= {f"c{n}.example": {"CNAME": [f"c{n + 1}.example."]} for n in range(20)}
    server.zone["c20.example"] = {"MX": ["10 a.example.com."]}
    mx = await resolver.mx(first)  # dnspython reads fifteen of them in one answer
    assert (mx.name, mx.hosts) == ("c20.example", (MxHost(10, "a.example.com"),))
    with pytest.raises(DnsTemporary):
        await resolver.mx("c3.example")


@pytest.mark.parametrize("chained", [True, False])
async def test_aliases_that_lead_back_are_temporary(server: DnsServer, resolver: Resolver, chained: bool) -> None:
    server.chases = chained
    server.zone |= {"x.example": {"CNAME": ["y.example."]}, "y.example": {"CNAME": ["x.example."]}}
    with pytest.raises(DnsTemporary):
        await resolver.mx("x.example")


async def test_an_alias_without_mx_is_the_host_that_it_leads_to(resolver: Resolver) -> None:
    mx = await resolver.mx("alias.example.com")
    assert (mx.name, mx.hosts, mx.null) == ("a.example.com", (), False)


async def test_no_more_than_a_hundred_mx_hosts_are_believed(server: DnsServer, resolver: Resolver) -> None:
    server.zone["many.example"] = {"MX": [f"{n} h{n}.example." for n in range(300)]}
    mx = await resolver.mx("many.example")
    assert [host.preference for host in mx.hosts] == list(range(100))
    assert ("tcp", "many.example", "MX") in server.queries


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("a.example.com", ["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        ("b.example.com", ["2001:db8::2"]),
        ("alias.example.com", ["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        ("192.0.2.7", ["192.0.2.7"]),
        ("2001:DB8::7", ["2001:db8::7"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("Some.LOCALHOST.", ["127.0.0.1", "::1"]),
    ],
)
async def test_addresses_of_a_host(resolver: Resolver, name: str, addresses: list[str]) -> None:
    found = await resolver.addresses(name)
    assert sorted(found) == addresses  # servers rotate the records of a type
    assert sorted(found, key=lambda address: ":" in address) == found


@pytest.mark.parametrize("name", ["nothing.example", "empty.example", "dangling.example.com"])
async def test_a_host_that_is_not_there_is_not_found(resolver: Resolver, name: str) -> None:
    with pytest.raises(DnsNotFound):
        await resolver.addresses(name)
    with pytest.raises(DnsNotFound):
        await resolver.txt(name)


@pytest.mark.parametrize(
    "name", ["", "a..b", "x" * 64 + ".example", ".".join(["abcdefgh"] * 40), "a\x00b", "\ud800.example"]
)
async def test_what_is_no_name_is_not_found(server: DnsServer, resolver: Resolver, name: str) -> None:
    with pytest.raises(DnsNotFound):
        await resolver.addresses(name)


@pytest.mark.parametrize("name", ["broken.example", "refused.example", "silent.example"])
async def test_no_usable_answer_is_temporary(make_resolver: Callable[..., Resolver], name: str) -> None:
    resolver = make_resolver(timeout=0.1, lifetime=0.3)
    for ask in (resolver.mx, resolver.txt, resolver.addresses):
        with pytest.raises(DnsTemporary):
            await ask(name)


async def test_a_server_that_is_down_is_temporary(server: DnsServer, make_resolver: Callable[..., Resolver]) -> None:
    resolver = make_resolver(timeout=0.1, lifetime=0.3)
    await server.__aexit__()
    with pytest.raises(DnsTemporary):
        await resolver.mx("example.com")


async def test_half_an_answer_is_no_proof_of_absence(server: DnsServer, resolver: Resolver) -> None:
    answer = server.answer

    def flaky(wire: bytes, transport: str) -> bytes | None:
        saved = server.zone
        if b"\x00\x1c\x00\x01" in wire:  # QTYPE AAAA, QCLASS IN
            server.zone = {"half.example": "SERVFAIL", "some.example": "SERVFAIL"}
        try:
            return answer(wire, transport)
        finally:
            server.zone = saved

    server.zone |= {"half.example": {}, "some.example": {"A": ["192.0.2.3"]}}
    server.answer = flaky
    with pytest.raises(DnsTemporary):
        await resolver.addresses("half.example")
    assert await resolver.addresses("some.example") == ["192.0.2.3"]


async def test_a_truncated_answer_is_asked_for_again_over_tcp(server: DnsServer, resolver: Resolver) -> None:
    server.truncated.add("example.com")
    assert len((await resolver.mx("example.com")).hosts) == 3
    assert server.queries == [("udp", "example.com", "MX"), ("tcp", "example.com", "MX")]


async def test_dnssec_is_asked_for_and_the_verdict_kept(
    server: DnsServer, make_resolver: Callable[..., Resolver]
) -> None:
    assert not (await make_resolver().query("example.com", dns.rdatatype.MX)).authentic
    server.authentic = True
    later = make_resolver()
    assert (await later.query("example.com", dns.rdatatype.MX)).authentic
    assert (await later.mx("example.com")).authentic  # from the cache
    request = server.requests[-1]
    assert request.ednsflags & dns.flags.DO
    assert request.flags & dns.flags.AD
    assert request.payload == 1232


async def test_the_canonical_name_is_known(resolver: Resolver) -> None:
    answer = await resolver.query("alias.example.com", dns.rdatatype.A)
    assert answer.name == "a.example.com"


async def test_answers_are_remembered_for_their_ttl(server: DnsServer, make_resolver: Callable[..., Resolver]) -> None:
    clock = FakeClock()
    resolver = make_resolver(clock=clock)
    for name in ("example.com", "EXAMPLE.com", "example.com."):
        await resolver.mx(name)
    assert len(server.queries) == 1
    clock.now += 59
    await resolver.mx("example.com")
    assert len(server.queries) == 1
    clock.now += 2
    await resolver.mx("example.com")
    assert len(server.queries) == 2


async def test_a_long_ttl_is_cut(server: DnsServer, make_resolver: Callable[..., Resolver]) -> None:
    clock = FakeClock()
    resolver = make_resolver(clock=clock)
    server.ttl = server.negative_ttl = 1_000_000
    await resolver.mx("example.com")
    with pytest.raises(DnsNotFound):
        await resolver.mx("nothing.example")
    clock.now += 301
    with pytest.raises(DnsNotFound):
        await resolver.mx("nothing.example")
    clock.now += 3300
    await resolver.mx("example.com")
    asked = [name for _, name, _ in server.queries]
    assert asked == ["example.com", "nothing.example", "nothing.example", "example.com"]


@pytest.mark.parametrize(
    ("name", "error", "seconds"),
    [("nothing.example", DnsNotFound, 30), ("empty.example", DnsNotFound, 30), ("broken.example", DnsTemporary, 5)],
)
async def test_absence_and_failure_are_remembered_too(
    server: DnsServer, make_resolver: Callable[..., Resolver], name: str, error: type[Exception], seconds: int
) -> None:
    clock = FakeClock()
    resolver = make_resolver(clock=clock)
    with pytest.raises(error):
        await resolver.txt(name)
    asked = len(server.queries)
    server.zone[name] = {"TXT": ['"now"']}
    clock.now += seconds - 1
    with pytest.raises(error):
        await resolver.txt(name)
    assert len(server.queries) == asked
    clock.now += 2
    assert await resolver.txt(name) == ["now"]


async def test_an_answer_without_ttl_is_not_remembered(server: DnsServer, resolver: Resolver) -> None:
    server.ttl = 0
    await resolver.mx("example.com")
    await resolver.mx("example.com")
    assert len(server.queries) == 2


async def test_a_huge_answer_is_given_but_not_kept(server: DnsServer, resolver: Resolver) -> None:
    server.zone["huge.example"] = {"TXT": [f'"{n:0>250}"' for n in range(100)]}
    for _ in range(2):
        assert len(await resolver.txt("huge.example")) == 100
    assert sum(transport == "tcp" for transport, _, _ in server.queries) == 2


async def test_one_question_is_asked_once_for_all_who_ask_at_the_same_time(
    server: DnsServer, resolver: Resolver
) -> None:
    asking = [asyncio.create_task(resolver.mx("example.com")) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(result, Mx) for result in results[1:])
    assert len(server.queries) == 1


async def test_closing_gives_up_what_is_still_open(resolver: Resolver) -> None:
    asking = asyncio.create_task(resolver.mx("silent.example"))
    await asyncio.sleep(0)
    await resolver.close()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.parametrize(
    "text", ["ns.example", "ns.example:53", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "", ":53", "::1:x"]
)
def test_a_nameserver_is_an_address(text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Resolver([text])
    assert "nameserver" in error.value.message


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "[::1]:5353", "127.0.0.1:5353"])
def test_nameservers_are_read_in_all_their_forms(text: str) -> None:
    Resolver([text])


def test_the_cache_is_bounded_and_drops_the_oldest() -> None:
    clock = FakeClock()
    cache: TtlCache[str, int] = TtlCache(2, clock)
    for number, key in enumerate("abca"):
        cache.put(key, number, 10)
    assert len(cache) == 2
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (3, None, 2)
    cache.put("a", 9, 0)
    assert cache.get("a") is None
    clock.now += 10
    assert cache.get("c") is None
    assert len(cache) == 0

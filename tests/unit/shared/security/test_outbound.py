import ipaddress

import pytest
import ssrfguard
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import ValidationFailed
from shared.security.outbound import OutboundPolicy, Target, check_address

STRICT = OutboundPolicy()
LOCAL = OutboundPolicy(allow_private=True, allowed_ports=None)

DENIED = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.9",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdff::1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
ALLOWED = [
    "1.1.1.1",
    "8.8.8.8",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "2a00::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]
NEVER = [
    "0.0.0.0",
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "fd00:ec2::254",
    "100.100.100.200",
    "224.0.0.1",
    "255.255.255.255",
    "fe80::1",
    "ff02::1",
    "2001:db8::1",
]
PRIVATE = ["127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "::ffff:127.0.0.1"]


@pytest.mark.parametrize("ip", DENIED)
def test_denied(ip: str) -> None:
    denied = check_address(ip)
    assert denied is not None
    assert denied.reason


@pytest.mark.parametrize("ip", ALLOWED)
def test_allowed(ip: str) -> None:
    assert check_address(ip) is None


@pytest.mark.parametrize(
    "ip",
    ["", "localhost", "127.1", "0x7f000001", "2130706433", "127.0.0.1.", "[::1]", "1.1.1.1/32", "01.1.1.1", "x" * 5000],
)
def test_what_is_no_address_is_denied(ip: str) -> None:
    denied = check_address(ip)
    assert denied is not None
    assert len(denied.address) <= 100


@pytest.mark.parametrize("ip", PRIVATE)
def test_a_local_stack_may_call_private_addresses(ip: str) -> None:
    assert LOCAL.check_address(ip) is None
    assert STRICT.check_address(ip) is not None


@pytest.mark.parametrize("ip", NEVER)
def test_a_local_stack_never_calls_metadata_multicast_or_reserved_addresses(ip: str) -> None:
    assert LOCAL.check_address(ip) is not None


def test_an_operator_opens_exactly_what_is_listed() -> None:
    policy = OutboundPolicy(allowed_networks=(ipaddress.ip_network("10.9.0.0/16"), ipaddress.ip_network("fd00:9::/32")))
    assert policy.check_address("10.9.1.1") is None
    assert policy.check_address("fd00:9::1") is None
    assert policy.check_address("::ffff:10.9.1.1") is None
    assert policy.check_address("10.8.1.1") is not None
    assert policy.check_address("127.0.0.1") is not None


def test_one_bad_answer_condemns_a_name() -> None:
    assert STRICT.first_denied(["8.8.8.8", "10.0.0.1", "1.1.1.1"]) == STRICT.check_address("10.0.0.1")
    assert STRICT.first_denied(["8.8.8.8", "1.1.1.1"]) is None


# Reachable by the registry, and still no place for a webhook: anycast of protocols, AS112, 6to4 relays, AMT, ORCHID, Teredo.
STRICTER = [
    ipaddress.ip_network(n)
    for n in ("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "192.88.99.0/24")
]
STRICTER6 = [ipaddress.ip_network(n) for n in ("2001::/23", "2620:4f:8000::/48")]
V6_PREFIXES = st.sampled_from(
    [0, 0x0064FF9B << 96, 0x2002 << 112, 0xFFFF << 32, 0x2001 << 112, 0xFE80 << 112, 0xFC00 << 112, 0x2606 << 112]
)


def ipv6(prefix: int, rest: int) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(prefix | rest)


@given(st.one_of(st.ip_addresses(), st.builds(ipv6, V6_PREFIXES, st.integers(min_value=0, max_value=2**32 - 1))))
@example(ipaddress.ip_address("64:ff9b::7f00:1"))
def test_we_agree_with_ssrfguard(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    theirs = ssrfguard.DEFAULT_DENIED.classify(address).blocked
    ours = check_address(str(address)) is not None
    inner = [address, *([address.ipv4_mapped] if address.version == 6 and address.ipv4_mapped else [])]
    if isinstance(address, ipaddress.IPv6Address):
        inner += [
            ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),
            ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF),
        ]
    if any(a in network for a in inner for network in (STRICTER if a.version == 4 else STRICTER6)):
        assert ours or not theirs
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com/a?b=c#d", Target("https", "example.com", 443)),
        ("http://Example.COM:8080", Target("http", "example.com", 8080)),
        ("HTTPS://bücher.example/", Target("https", "xn--bcher-kva.example", 443)),
        ("https://8.8.8.8/", Target("https", "8.8.8.8", 443)),
        ("https://[2606:4700:4700:0:0::1111]/", Target("https", "2606:4700:4700::1111", 443)),
        ("https://a_b.example.com./", Target("https", "a_b.example.com.", 443)),
    ],
)
def test_urls_that_we_call(url: str, target: Target) -> None:
    assert STRICT.check_url(url) == target


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "begins with https"),
        ("example.com", "begins with https"),
        ("ftp://example.com/", "begins with https"),
        ("file:///etc/passwd", "begins with https"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://user:pw@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com:22/", "port 22"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:99999/", "not a URL"),
        ("https://example.com:x/", "not a URL"),
        ("https://[::1", "not a URL"),
        ("https://example.com\\@127.0.0.1/", "backslashes"),
        ("https://exa mple.com/", "spaces"),
        ("https://exa\tmple.com/", "spaces"),
        ("https://example.com/\x00", "control"),
        ("https://example.com/\ud800", "control"),
        ("https://" + "a" * 3000 + ".example/", "at most 2048"),
        ("https://127.0.0.1/", "loopback"),
        ("https://127.0.0.1:8443/", "loopback"),
        ("https://127.1/", "ordinary form"),
        ("https://2130706433/", "ordinary form"),
        ("https://0x7f000001/", "ordinary form"),
        ("https://0x7f.1/", "ordinary form"),
        ("https://0177.0.0.1/", "ordinary form"),
        ("https://127.0.0.1./", "ordinary form"),
        ("https://0/", "ordinary form"),
        ("https://\u2460\u2461\u2466.\u2460.\u2460.\u2460/", "ordinary form|loopback|not a host|reserved"),
        ("https://\uff11\uff12\uff17.0.0.1/", "loopback"),
        ("https://127\u30020\u30020\u30021/", "loopback"),
        ("https://[::1]/", "loopback"),
        ("https://[::ffff:127.0.0.1]/", "loopback"),
        ("https://[64:ff9b::7f00:1]/", "NAT64"),
        ("https://[fe80::1%25eth0]/", "zone|not an IPv6|link-local"),
        ("https://169.254.169.254/latest/meta-data/", "metadata"),
        ("https://localhost/", "local name"),
        ("https://api.localhost/", "local name"),
        ("https://localhost./", "local name"),
        ("https://printer.local/", "local name"),
        ("https://metadata.google.internal/", "local name"),
        ("https://exa%6dple.com/", "not a host name"),
        ("https://-a.example/", "not a host name"),
        ("https://a..example/", "not a host name"),
        ("https://" + "a" * 64 + ".example/", "not a host name"),
        ("https://xn--\u00fc.example/", "not a host name"),
    ],
)
def test_urls_that_we_refuse(url: str, text: str) -> None:
    with pytest.raises(ValidationFailed, match=text) as error:
        STRICT.check_url(url)
    assert error.value.field == "url"


def test_a_local_stack_calls_local_names_on_any_port() -> None:
    assert LOCAL.check_url("http://localhost:12345/hook") == Target("http", "localhost", 12345)
    assert LOCAL.check_url("http://127.0.0.1:1/") == Target("http", "127.0.0.1", 1)
    with pytest.raises(ValidationFailed, match="metadata"):
        LOCAL.check_url("http://169.254.169.254/")


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(text: str) -> None:
    for url in (text, "https://" + text, "https://[" + text + "]/"):
        try:
            target = STRICT.check_url(url)
        except ValidationFailed:
            continue
        assert target.host.isascii()

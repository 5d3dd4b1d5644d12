"""May we connect to this address on somebody's behalf? The guard against server-side request forgery.

Names say nothing: a customer's DNS decides what they resolve to, and may change its mind between two questions. So the
caller resolves once, has every answer checked here, and connects to the address that was checked.

The list is ours and explicit. ``ipaddress.is_global`` of Python 3.11 takes NAT64, 6to4 and multicast for public.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import idna

from shared.errors import ValidationFailed

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL = 2048
DEFAULT_PORTS: Final = frozenset({80, 443, 8080, 8443})
_SCHEME_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Denied:
    """Why an address may not be called."""

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: the host is an ASCII name in lower case or a canonical address without brackets."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class _Block:
    network: Network
    name: str
    private: bool = False


def _block(network: str, name: str, *, private: bool = False) -> _Block:
    return _Block(ipaddress.ip_network(network), name, private)


# The IANA special-purpose registries for IPv4 and IPv6 (RFC 6890) and the multicast registries. `private` marks what an
# installation may open for itself with allow_private; link-local is not among it, because cloud metadata lives there.
_DENIED: Final = (
    _block("0.0.0.0/8", "this network (RFC 791)"),
    _block("10.0.0.0/8", "private (RFC 1918)", private=True),
    _block("100.64.0.0/10", "shared by carriers (RFC 6598)", private=True),
    _block("100.100.100.200/32", "cloud metadata"),
    _block("127.0.0.0/8", "loopback (RFC 1122)", private=True),
    _block("169.254.0.0/16", "link-local and cloud metadata (RFC 3927)"),
    _block("172.16.0.0/12", "private (RFC 1918)", private=True),
    _block("192.0.0.0/24", "protocol assignments (RFC 6890)"),
    _block("192.0.2.0/24", "documentation (RFC 5737)"),
    _block("192.31.196.0/24", "AS112 (RFC 7535)"),
    _block("192.52.193.0/24", "AMT (RFC 7450)"),
    _block("192.88.99.0/24", "6to4 relay (RFC 7526)"),
    _block("192.168.0.0/16", "private (RFC 1918)", private=True),
    _block("192.175.48.0/24", "AS112 (RFC 7534)"),
    _block("198.18.0.0/15", "benchmarking (RFC 2544)"),
    _block("198.51.100.0/24", "documentation (RFC 5737)"),
    _block("203.0.113.0/24", "documentation (RFC 5737)"),
    _block("224.0.0.0/4", "multicast (RFC 5771)"),
    _block("240.0.0.0/4", "reserved or broadcast (RFC 1112, RFC 919)"),
    _block("::/128", "unspecified (RFC 4291)"),
    _block("::1/128", "loopback (RFC 4291)", private=True),
    _block("64:ff9b:1::/48", "local translation (RFC 8215)"),
    _block("100::/64", "discard (RFC 6666)"),
    _block("100:0:0:1::/64", "dummy (RFC 9780)"),
    _block("2001::/23", "protocol assignments (RFC 2928)"),
    _block("2001:db8::/32", "documentation (RFC 3849)"),
    _block("2620:4f:8000::/48", "AS112 (RFC 7534)"),
    _block("3fff::/20", "documentation (RFC 9637)"),
    _block("5f00::/16", "segment routing (RFC 9602)"),
    _block("fc00::/7", "unique local (RFC 4193)", private=True),
    _block("fd00:ec2::254/128", "cloud metadata"),
    _block("fe80::/10", "link-local (RFC 4291)"),
    _block("fec0::/10", "site-local (RFC 3879)"),
    _block("ff00::/8", "multicast (RFC 4291)"),
)

# The longest match decides, as in the registry: metadata inside a private network stays closed when the network opens.
_BY_VERSION: Final = {
    version: tuple(sorted((b for b in _DENIED if b.network.version == version), key=lambda b: -b.network.prefixlen))
    for version in (4, 6)
}

# Where packets to these IPv6 addresses end up is written inside them: prefix, name, how far the IPv4 address is from the end.
_CARRIERS: Final = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), "IPv4-mapped (RFC 4291)", 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), "NAT64 (RFC 6052)", 0),
    (ipaddress.IPv6Network("::/96"), "IPv4-compatible (RFC 4291)", 0),
    (ipaddress.IPv6Network("2002::/16"), "6to4 (RFC 3056)", 80),
)
# Teredo (RFC 4380) is inside 2001::/23 and so denied as a whole: no server is reached through it.

_LOCAL_NAMES: Final = ("localhost", "local", "internal")  # RFC 6761 6.3, RFC 6762 3, ICANN's reserved private name


@dataclass(frozen=True, slots=True)
class OutboundPolicy:
    """What this installation may call.

    Attributes:
        allow_private: private, loopback, carrier-shared and unique-local addresses too; for the local stack. Never link-local,
            metadata, multicast or reserved ones.
        allowed_networks: networks that an operator opens, whatever they are.
        allowed_ports: None takes any port.
    """

    allow_private: bool = False
    allowed_networks: tuple[Network, ...] = ()
    allowed_ports: frozenset[int] | None = DEFAULT_PORTS

    def check_address(self, ip: str) -> Denied | None:
        """Say why this address may not be called, or None; what is no address is denied."""
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return Denied(ip[:100], "not an IP address")
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            return Denied(ip[:100], "has a zone and is local to a link (RFC 4007)")
        reason = self._reason(address)
        return None if reason is None else Denied(str(address), reason)

    def _reason(self, address: Address) -> str | None:
        if any(address in network for network in self.allowed_networks if network.version == address.version):
            return None
        for block in _BY_VERSION[address.version]:
            if address in block.network:
                return None if block.private and self.allow_private else block.name
        if isinstance(address, ipaddress.IPv6Address):
            for network, name, shift in _CARRIERS:
                if address in network:
                    inner = ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF)
                    reason = self._reason(inner)
                    return None if reason is None else f"{name}, carries {inner}: {reason}"
        return None

    def first_denied(self, addresses: Iterable[str]) -> Denied | None:
        """Return the first address that may not be called; one bad answer condemns a name."""
        return next((denied for ip in addresses if (denied := self.check_address(ip)) is not None), None)

    def check_url(self, url: str, *, field: str | None = "url") -> Target:
        """Take a URL apart and refuse what we would never call; the addresses of its name are checked when it is called.

        Raises:
            ValidationFailed: says what is wrong with the URL.
        """
        if len(url) > LONGEST_URL:
            raise ValidationFailed(f"a URL has at most {LONGEST_URL} characters", field=field)
        # urlsplit removes tabs and newlines silently and leaves the backslash, which browsers read as a slash.
        if re.search(r"[\x00-\x20\x7f\\\ud800-\udfff]", url):
            raise ValidationFailed("a URL holds no spaces, control characters or backslashes", field=field)
        try:
            parts = urlsplit(url)
            scheme, host, port, userinfo = parts.scheme.lower(), parts.hostname, parts.port, "@" in parts.netloc
        except ValueError as error:
            raise ValidationFailed(f"this is not a URL: {error}", field=field) from None
        if scheme not in _SCHEME_PORTS:
            raise ValidationFailed("a URL begins with https:// or http://", field=field)
        if userinfo:
            raise ValidationFailed(
                "a URL holds no user name or password; use the authorization header of the endpoint", field=field
            )
        if not host:
            raise ValidationFailed("the URL names no host", field=field)
        try:
            return self.check_target(scheme, host, _SCHEME_PORTS[scheme] if port is None else port)
        except ValidationFailed as error:
            raise ValidationFailed(error.message, field=field) from None

    def check_target(self, scheme: str, host: str, port: int) -> Target:
        """Check scheme, host and port that another parser took out of a URL; host without brackets.

        Raises:
            ValidationFailed: without a field.
        """
        if scheme not in _SCHEME_PORTS:
            raise ValidationFailed("only https and http are called")
        if port == 0 or (self.allowed_ports is not None and port not in self.allowed_ports):
            known = "any but 0" if self.allowed_ports is None else ", ".join(map(str, sorted(self.allowed_ports)))
            raise ValidationFailed(f"port {port} is not called; allowed: {known}")
        canonical = _canonical_host(host)
        if _is_literal(canonical):
            denied = self.check_address(canonical)
            if denied is not None:
                raise ValidationFailed(f"the address {denied.address} may not be called: {denied.reason}")
        elif not self.allow_private and canonical.rstrip(".").rpartition(".")[2] in _LOCAL_NAMES:
            raise ValidationFailed(f"the host {canonical} is a local name and may not be called")
        return Target(scheme, canonical, port)


def check_address(ip: str) -> Denied | None:
    """Say why this address may not be called, or None, by the strictest policy: nothing opened."""
    return _STRICT.check_address(ip)


_STRICT: Final = OutboundPolicy()
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _canonical_host(host: str) -> str:
    """Return an address in its canonical form or a name in ASCII lower case; every other spelling of an address is refused."""
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValidationFailed(f"{host[:100]!r} is not an IPv6 address") from None
    try:
        # UTS 46 first: it turns circled and full-width digits and dots into plain ones, and then they are seen below.
        name = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise ValidationFailed(f"{host[:100]!r} is not a host name") from None
    labels = name.removesuffix(".").split(".")
    # WHATWG URL, "ends in a number": such a host is an address, in one of inet_aton's spellings (octal, hexadecimal, short).
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise ValidationFailed(
                f"{host[:100]!r} is not an IPv4 address in its ordinary form, such as 192.0.2.1"
            ) from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValidationFailed(f"{host[:100]!r} is not a host name")
    return name

"""Where to: the hosts of a site in the order they are tried, and the addresses of each."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from random import Random

from delivery.provider import provider_of
from shared.db.lanes import SiteName
from shared.db.routing import Transport
from shared.dns.errors import DnsNotFound, DnsTemporary
from shared.dns.resolver import Mx, Resolver
from shared.events import Category
from shared.security.outbound import check_address

Dialed = Sequence[tuple[str, str]]
"""Hosts and addresses that earlier attempts of a mail were connected to, in their order."""

_MOST_ADDRESSES = 16
"""Of one host; they share its time."""
_LOOP = "5.4.6"  # RFC 3463 3.5: routing loop detected


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of a site, the preferred ones first."""

    names: tuple[str, ...]
    port: int
    ipv4: bool = True
    ipv6: bool = True
    ehlo_name: str = ""
    """What we are called there; empty: as everywhere."""
    provider: str | None = None
    """Who runs the preferred one of the MX hosts; None where there are none."""
    domain: str = ""
    """Whose hosts they are. Empty: an operator named them, so they may be anywhere, and are looked up as this machine does it."""


@dataclass(frozen=True, slots=True)
class Own:
    """What is ourselves, so that mail does not go in circles (RFC 5321 5.1)."""

    hostname: str
    addresses: frozenset[str] = frozenset()
    receives: Callable[[str], Awaitable[bool]] | None = None
    """Whether mail for a domain ends here; None: for none."""


class NoRoute(Exception):
    """There is no next hop to try.

    Args:
        text: why, for the event.
        permanent: whether no later attempt could find one.
        enhanced: what it is called (RFC 3463); empty where it has no name.
        code: the reply that an operator gives instead of a server; then it decides whether that is permanent.
        category: what it is about, where the text does not tell.
    """

    def __init__(
        self,
        text: str,
        *,
        permanent: bool = False,
        enhanced: str = "",
        code: int = 0,
        category: Category | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.permanent = permanent
        self.enhanced = enhanced
        self.code = code
        self.category = category


class OwnHost(NoRoute):
    """A host is ourselves: it and those that are no better are not tried (RFC 5321 5.1)."""

    def __init__(self, host: str) -> None:
        text = f"{host} is this server, which does not receive mail for this domain: it would come back"
        super().__init__(text, permanent=True, enhanced=_LOOP)


def split_relay(relay: str) -> tuple[str, int]:
    """Read ``host:port``; an IPv6 address stands in brackets.

    Raises:
        ValueError: it has another form.
    """
    host, separator, port = relay.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        message = f"a relay is written host:port, not {relay!r}"
        raise ValueError(message)
    return host.strip("[]"), int(port)


class Router:
    """Finds next hops.

    Args:
        resolver: for MX and address records.
        random: breaks ties between hosts of equal preference (RFC 5321 5.1).
        own: who we are.
        smtp_port: of MX hosts.
        allow_private: whether an MX host may live in a private network. A relay may: an operator named it.
    """

    def __init__(self, resolver: Resolver, random: Random, *, own: Own, smtp_port: int, allow_private: bool) -> None:
        self._resolver = resolver
        self._random = random
        self._own = own
        self._port = smtp_port
        self._allow_private = allow_private

    async def hosts(self, site: SiteName, transport: Transport | None = None) -> Hosts:
        """Return the hosts of ``site`` in order of preference (RFC 5321 5.1), over its transport if it has one.

        Raises:
            NoRoute: there are none, for good or for now.
        """
        if site.kind == "relay":
            name, port = split_relay(site.name)
            return Hosts((name,), port)
        if transport is None:
            return await self.hosts_of(site.name)
        if not transport.by_domain:
            return Hosts((transport.host,), transport.port)
        found = await self.hosts_of(site.name.partition(":")[2], transport.ehlo_name or "")
        return replace(found, ipv4=transport.ipv4, ipv6=transport.ipv6)

    async def hosts_of(self, domain: str, ehlo_name: str = "") -> Hosts:
        """Return the hosts that take the mail of a recipient domain.

        Raises:
            NoRoute: there are none, for good or for now.
        """
        if domain.startswith("["):
            return Hosts((_literal(domain),), self._port, domain=domain, ehlo_name=ehlo_name)
        hosts = await self._mx_hosts(domain, {self._own.hostname.lower(), ehlo_name} - {""})
        names = tuple(name for _, name in hosts)
        provider = provider_of(min(hosts)[1]) if hosts[0][0] is not None else None
        return Hosts(names, self._port, domain=domain, ehlo_name=ehlo_name, provider=provider)

    async def addresses(self, hosts: Hosts, host: str, dialed: Dialed = ()) -> list[str]:
        """Return where a host is, in the order to try: ``dialed`` before says which address comes first.

        Raises:
            OwnHost: we are that host.
            NoRoute: it has no address that may be dialed, for now.
        """
        try:
            found = await self._looked_up(host, chosen=not hosts.domain)
        except (DnsTemporary, DnsNotFound) as error:
            raise NoRoute(f"{host}: {error}") from None
        if hosts.domain and await self._is_us(hosts, host, found) and not await self._ends_here(hosts.domain):
            raise OwnHost(host)
        allowed = [address for address in found if not hosts.domain or self._may_dial(address)]
        if not allowed:
            raise NoRoute(f"{host} has the address {found[0]}, which is not on the public internet")
        allowed = [address for address in allowed if (hosts.ipv6 if is_ipv6(address) else hosts.ipv4)]
        if not allowed:
            raise NoRoute(f"{host} has no {'IPv4' if hosts.ipv4 else 'IPv6'} address, and this transport uses no other")
        return in_turn(allowed, [address for name, address in dialed if name == host])[:_MOST_ADDRESSES]

    def _may_dial(self, address: str) -> bool:
        return self._allow_private or check_address(address) is None

    async def _mx_hosts(self, domain: str, own: Collection[str]) -> list[tuple[int, str]] | list[tuple[None, str]]:
        """Return hosts with their preference; None: the domain itself is the host."""
        try:
            mx = await self._resolver.mx(domain)
        except DnsNotFound:
            return [(None, domain)]  # its address is not found either: for now
        except DnsTemporary as error:
            raise NoRoute(f"the MX records of {domain} cannot be looked up now: {error}") from None
        if mx.null:  # RFC 7505 3
            raise NoRoute(f"{domain} takes no mail: it has a null MX record", permanent=True)
        if mx.unusable:
            raise NoRoute(f"the MX records of {domain} name no host", permanent=True)
        if not mx.hosts:  # RFC 5321 5.1: without MX the domain itself is the host
            return [(None, mx.name)]
        return await self._without_us(domain, mx, own)

    async def _without_us(self, domain: str, mx: Mx, own: Collection[str]) -> list[tuple[int, str]]:
        """Leave out our own host, and all that are no better: they would bring the mail back (RFC 5321 5.1)."""
        ours = min((host.preference for host in mx.hosts if host.name in own), default=None)
        hosts = mx.in_order(self._random)
        if ours is not None and not await self._ends_here(domain):
            hosts = [(preference, name) for preference, name in hosts if preference < ours]
        if not hosts:
            raise OwnHost(self._own.hostname)
        return hosts

    async def _ends_here(self, domain: str) -> bool:
        return self._own.receives is not None and await self._own.receives(domain)

    async def _is_us(self, hosts: Hosts, host: str, addresses: Sequence[str]) -> bool:
        if host in {self._own.hostname.lower(), hosts.ehlo_name} or not self._own.addresses.isdisjoint(addresses):
            return True
        try:
            named = await self._resolver.addresses(self._own.hostname)
        except (DnsTemporary, DnsNotFound):
            return False  # then only the name tells
        # Loopback is nobody's public address, and dialed only where that is allowed for tests.
        return any(address in named and not ip_address(address).is_loopback for address in addresses)

    async def _looked_up(self, host: str, *, chosen: bool) -> list[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        if not chosen:
            return list(await self._resolver.addresses(host))
        try:  # a relay's name may come from /etc/hosts or the cluster's search list
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise DnsTemporary(str(error)) from None
        return list(dict.fromkeys(str(info[4][0]) for info in found))


def in_turn(addresses: Sequence[str], dialed: Sequence[str]) -> list[str]:
    """Return the addresses of a host in the order to try them, after those that were ``dialed`` before.

    The other family comes first, so that attempts take turns: a block of one of our addresses is none of the other. A host of
    one family sees its second attempt at the same address as the first, because greylisting may be kept at each; then DNS decides.
    """
    if not dialed:
        return list(addresses)
    last = dialed[-1]
    once = sum(is_ipv6(address) == is_ipv6(last) for address in dialed) == 1
    return sorted(addresses, key=lambda address: (is_ipv6(address) == is_ipv6(last), not (once and address == last)))


def is_ipv6(address: str) -> bool:
    """Say to which family an address belongs."""
    return ":" in address


def _literal(domain: str) -> str:
    """Return the address of an address literal (RFC 5321 4.1.3)."""
    try:
        return str(ip_address(domain[1:-1].removeprefix("IPv6:").removeprefix("ipv6:")))
    except ValueError:
        raise NoRoute(f"{domain} is no address literal", permanent=True) from None

"""Where to: the addresses of a site's next hops, in the order they are tried."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random

from delivery.provider import provider_of
from shared.db.lanes import SiteName
from shared.dns.errors import DnsNotFound, DnsTemporary
from shared.dns.resolver import Resolver
from shared.security.outbound import check_address


@dataclass(frozen=True, slots=True)
class Hop:
    """One address of a next hop."""

    host: str
    """Its name, for the record and for TLS."""
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Way:
    """Who takes the mail of a recipient domain."""

    hosts: tuple[str, ...]
    """In the order in which they are tried."""
    provider: str | None
    """Who runs the preferred one; None where the domain has no MX records and is its own host."""


class NoRoute(Exception):
    """There is no next hop to try.

    Args:
        text: why, for the event.
        permanent: whether a later attempt could find one.
    """

    def __init__(self, text: str, *, permanent: bool) -> None:
        super().__init__(text)
        self.text = text
        self.permanent = permanent


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
        smtp_port: of MX hosts.
        allow_private: whether an MX host may live in a private network. A relay may: an operator named it.
    """

    def __init__(self, resolver: Resolver, random: Random, *, smtp_port: int, allow_private: bool) -> None:
        self._resolver = resolver
        self._random = random
        self._port = smtp_port
        self._allow_private = allow_private

    async def way(self, domain: str) -> Way:
        """Return who takes the mail of a recipient domain.

        Raises:
            NoRoute: nobody does, or it cannot be found out now.
        """
        try:
            mx = await self._resolver.mx(domain)
        except DnsNotFound:
            return Way((domain,), None)
        except DnsTemporary as error:
            raise NoRoute(f"the MX records of {domain} cannot be looked up now: {error}", permanent=False) from None
        if mx.null:  # RFC 7505 3
            raise NoRoute(f"{domain} takes no mail: it has a null MX record", permanent=True)
        if not mx.hosts:
            return Way((domain,), None)  # RFC 5321 5.1: without MX the domain itself is the host
        return Way(tuple(mx.in_order(self._random)), provider_of(mx.hosts[0].name))

    async def hops(self, site: SiteName, way: Way | None = None) -> AsyncIterator[Hop]:
        """Yield the hops of ``site`` in order of preference (RFC 5321 5.1); names are resolved as they are reached.

        Args:
            site: the next hop that limits count for.
            way: whose mail hosts of it; None: it is a relay.

        Raises:
            NoRoute: none could be found, for good or for now.
        """
        found = False
        trouble = ""
        hosts = way.hosts if way is not None else (split_relay(site.name)[0],)
        port = split_relay(site.name)[1] if site.kind == "relay" else self._port
        for host in hosts:
            try:
                addresses = await self._addresses(host, relay=site.kind == "relay")
            except (DnsTemporary, DnsNotFound) as error:
                trouble = f"{host}: {error}"
                continue
            for address in addresses:
                denied = None if site.kind == "relay" or self._allow_private else check_address(address)
                if denied is not None:
                    trouble = f"{host} has the address {address}, which is not on the public internet"
                    continue
                found = True
                yield Hop(host, address, port)
        if not found:
            raise NoRoute(trouble or f"no host of {site.name} has an address", permanent=False)

    async def _addresses(self, host: str, *, relay: bool) -> list[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        if not relay:
            return list(await self._resolver.addresses(host))
        try:  # a relay's name may come from /etc/hosts or the cluster's search list
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise DnsTemporary(str(error)) from None
        return list(dict.fromkeys(str(info[4][0]) for info in found))

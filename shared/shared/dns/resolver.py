"""Ask DNS, remember the answer, tell "not now" from "not there".

dnspython speaks the protocol; caching, negative caching and the sharing of one question among all who ask it at the same
moment are ours: its cache costs 12 us a hit and forgets the AD bit. Names are absolute: no search list, no hosts file.
"""

import asyncio
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from shared.clock import Monotonic, monotonic
from shared.dns.cache import TtlCache
from shared.dns.errors import DnsNotFound, DnsTemporary
from shared.errors import ConfigurationError

_PAYLOAD = 1232  # octets; what passes without fragments (DNS flag day 2020, RFC 9715)
_LONGEST_TTL = 3600.0
_LONGEST_NEGATIVE_TTL = 300.0
_LARGEST_CACHED = 8192  # octets of an answer; bounds the cache together with the number of its entries
_MOST_HOSTS = 100  # of one MX answer; nobody needs more, and each may cost a connection
_MOST_ALIASES = 16
_IN_FLIGHT = 256
_HOST_NAME = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*(?![0-9]+\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of one type under a name, CNAMEs followed."""

    name: str
    """Where the records are, lower-case, without a trailing dot; not the name asked for where CNAMEs led on."""
    records: tuple[dns.rdata.Rdata, ...]
    """Empty where the name exists without records of this type."""
    authentic: bool
    """The nameserver says it validated the answer (AD, RFC 4035 3.2.3); worth as much as the way to the nameserver."""
    aliases: int = 0
    """How many CNAMEs led there."""


@dataclass(frozen=True, slots=True)
class MxHost:
    """A host that takes mail for a domain."""

    preference: int
    name: str


@dataclass(frozen=True, slots=True)
class Mx:
    """Who takes mail for a domain."""

    hosts: tuple[MxHost, ...]
    """Lowest preference first. Empty without ``null``: the domain itself takes its mail (RFC 5321 5.1)."""
    null: bool
    """The domain takes no mail at all (RFC 7505)."""
    authentic: bool
    name: str = ""
    """The domain, CNAMEs followed: without hosts it is the one (RFC 5321 5.1)."""
    unusable: bool = False
    """There are records, and none of them names a host."""

    def in_order(self, random: Random) -> list[tuple[int, str]]:
        """Return preferences and names in the order to try them, those of equal preference shuffled (RFC 5321 5.1)."""
        ordered = sorted(self.hosts, key=lambda host: (host.preference, random.random()))
        return [(host.preference, host.name) for host in ordered]


@dataclass(frozen=True, slots=True)
class _NotFound:
    text: str


@dataclass(frozen=True, slots=True)
class _Temporary:
    text: str


_Key = tuple[str, dns.rdatatype.RdataType]
_Found = Answer | _NotFound | _Temporary


class Resolver:
    """A caching stub resolver of one event loop.

    Args:
        nameservers: ``address``, ``address:port`` or ``[v6 address]:port``; none: those of the system.
        timeout: seconds to wait for one nameserver before the next is asked.
        lifetime: seconds after which a question counts as not answerable for now.
        capacity: answers kept.
        failure_seconds: how long a temporary failure is remembered (RFC 9520 3.2: 1 second to 5 minutes).
        clock: measures how long answers are kept.

    Raises:
        ConfigurationError: a nameserver is no address, or the system has none.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        timeout: float = 2.0,
        lifetime: float = 8.0,
        capacity: int = 10_000,
        failure_seconds: float = 5.0,
        clock: Monotonic = monotonic,
    ) -> None:
        self._resolver = _stub(nameservers)
        self._resolver.timeout, self._resolver.lifetime = timeout, lifetime
        self._failure_seconds = failure_seconds
        self._cache: TtlCache[_Key, _Found] = TtlCache(capacity, clock)
        self._asking: dict[_Key, asyncio.Task[_Found]] = {}
        self._room = asyncio.Semaphore(_IN_FLIGHT)

    async def query(self, name: str, rdtype: dns.rdatatype.RdataType) -> Answer:
        """Return the records of one type under an absolute name.

        Raises:
            DnsNotFound: the name does not exist, or cannot.
            DnsTemporary: no nameserver gave a usable answer in time.
        """
        key = (name.lower().removesuffix("."), rdtype)
        found = self._cache.get(key)
        if found is None:
            task = self._asking.get(key)
            if task is None:
                task = self._asking[key] = asyncio.create_task(self._ask(key), name=f"dns {rdtype.name}")
                task.add_done_callback(lambda _: self._asking.pop(key, None))
            # Shielded: one who gives up takes the answer from nobody else.
            found = await asyncio.shield(task)
        if isinstance(found, _NotFound):
            raise DnsNotFound(found.text)
        if isinstance(found, _Temporary):
            raise DnsTemporary(found.text)
        return found

    async def txt(self, name: str) -> list[str]:
        """Return the TXT records of a name, the strings of each joined (RFC 7208 3.3, RFC 6376 3.6.2.2).

        Raises:
            DnsNotFound: there are none.
            DnsTemporary: as :meth:`query`.
        """
        answer = await self.query(name, dns.rdatatype.TXT)
        if not answer.records:
            raise DnsNotFound(f"{name} has no TXT record")
        return [b"".join(r.strings).decode(errors="replace") for r in answer.records if isinstance(r, TXT)]

    async def mx(self, name: str) -> Mx:
        """Return who takes mail for a domain; a CNAME is followed (RFC 5321 5.1), records that name no host are left out.

        Raises:
            DnsNotFound: the domain does not exist.
            DnsTemporary: as :meth:`query`; or the CNAMEs do not end.
        """
        answer = await self.query(name, dns.rdatatype.MX)
        aliases = answer.aliases
        # A nameserver may leave it to us to ask for what an alias leads to.
        while not answer.records and answer.aliases and aliases <= _MOST_ALIASES:
            answer = await self.query(answer.name, dns.rdatatype.MX)
            aliases += answer.aliases
        if aliases > _MOST_ALIASES:
            raise DnsTemporary(f"{name} is an alias of an alias, more than {_MOST_ALIASES} times")
        records = [r for r in answer.records if isinstance(r, MX)]
        # RFC 7505 3: a null MX stands alone; a root name among real hosts means nothing.
        if records and all(r.exchange == dns.name.root for r in records):
            return Mx((), null=True, authentic=answer.authentic, name=answer.name)
        named = sorted((r.preference, _text(r.exchange)) for r in records)
        hosts = tuple(MxHost(*host) for host in named if _HOST_NAME.fullmatch(host[1]))[:_MOST_HOSTS]
        return Mx(hosts, null=False, authentic=answer.authentic, name=answer.name, unusable=bool(records) and not hosts)

    async def addresses(self, name: str) -> list[str]:
        """Return the IP addresses of a host, IPv4 first; an address is its own answer, ``localhost`` needs no DNS.

        Raises:
            DnsNotFound: the host does not exist or has no address.
            DnsTemporary: as :meth:`query`, and no address is known.
        """
        literal = _literal(name)
        if literal is not None:
            return [literal]
        host = name.lower().removesuffix(".")
        if host == "localhost" or host.endswith(".localhost"):
            return ["127.0.0.1", "::1"]  # RFC 6761 6.3: never asked of DNS
        both = await asyncio.gather(
            self.query(host, dns.rdatatype.A), self.query(host, dns.rdatatype.AAAA), return_exceptions=True
        )
        found = [
            r.address
            for answer in both
            if isinstance(answer, Answer)
            for r in answer.records
            if isinstance(r, (A, AAAA))
        ]
        if found:
            return found
        # "Not now" weighs more than "not there": half an answer must not make a host disappear.
        for error in sorted(
            (e for e in both if isinstance(e, BaseException)), key=lambda e: isinstance(e, DnsNotFound)
        ):
            raise error
        raise DnsNotFound(f"{name} has no address")

    async def close(self) -> None:
        """Give up every question that is still open."""
        open_tasks = list(self._asking.values())
        for task in open_tasks:
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)

    async def _ask(self, key: _Key) -> _Found:
        name, rdtype = key
        async with self._room:
            found, seconds = await self._exchange(name, rdtype)
        self._cache.put(key, found, seconds)
        return found

    async def _exchange(self, name: str, rdtype: dns.rdatatype.RdataType) -> tuple[_Found, float]:
        """Ask the nameservers; return what came of it and for how many seconds it counts."""
        try:
            qname = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError, ValueError) as error:
            return _NotFound(f"{name!r} is no DNS name: {error}"), 0
        try:
            answer = await self._resolver.resolve(qname, rdtype, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN as error:
            response = error.kwargs.get("responses", {}).get(qname)
            negative_ttl = (
                response.resolve_chaining().minimum_ttl if isinstance(response, dns.message.QueryMessage) else 0
            )
            # RFC 2308 5: as long as the SOA in the answer says; 4 and 7 leave the upper bound to us.
            return _NotFound(f"{name} does not exist"), min(negative_ttl, _LONGEST_NEGATIVE_TTL)
        except dns.resolver.LifetimeTimeout:
            return _Temporary(f"no nameserver answered for {rdtype.name} of {name} in time"), self._failure_seconds
        except (dns.exception.DNSException, OSError) as error:
            reason = type(error).__name__
            return _Temporary(
                f"no nameserver has a usable answer for {rdtype.name} of {name} ({reason})"
            ), self._failure_seconds
        records = tuple(answer.rrset or ())
        authentic = bool(answer.response.flags & dns.flags.AD)
        result = Answer(_text(answer.canonical_name), records, authentic, len(answer.chaining_result.cnames))
        seconds = min(answer.chaining_result.minimum_ttl, _LONGEST_TTL if records else _LONGEST_NEGATIVE_TTL)
        size = sum(len(record.to_wire() or b"") for record in records)
        return result, seconds if size <= _LARGEST_CACHED else 0


def _stub(nameservers: Sequence[str]) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=not nameservers)
    except (dns.resolver.NoResolverConfiguration, OSError) as error:
        raise ConfigurationError(f"the system has no nameserver ({error}); name one in the settings") from None
    if nameservers:
        resolver.nameservers = [_nameserver(text) for text in nameservers]
    # DO asks for signatures' verdict, AD says that we read it (RFC 6840 5.7).
    resolver.use_edns(0, dns.flags.DO, _PAYLOAD)
    resolver.set_flags(dns.flags.RD | dns.flags.AD)
    return resolver


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    literal = _literal(text)
    if literal is not None:
        return dns.nameserver.Do53Nameserver(literal, 53)
    host, _, port = text.rpartition(":")
    literal = _literal(host.removeprefix("[").removesuffix("]"))
    if literal is None or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigurationError(f"{text!r} is no nameserver: write an IP address, with :port where it is not 53")
    return dns.nameserver.Do53Nameserver(literal, int(port))


def _literal(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()

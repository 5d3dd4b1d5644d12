"""Which way mail takes: routes and transports as each process keeps them in memory, and how it sees that they have changed.

Both tables are small and change seldom. A copy is as good as the number of the last change, which is one row: whoever must be
sure reads that (:meth:`Routing.current`), whoever can be put right later uses the copy (:meth:`Routing.known`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from shared.clock import Monotonic, monotonic
from shared.db.engine import Connection
from shared.db.lanes import SANDBOX, SiteName
from shared.security.keys import KeyRing
from shared.security.sealing import unseal

Kind = Literal["direct", "smtp", "submission", "submissions", "socks", "fail"]
_Row = Mapping[str, Any]
RELAYS = frozenset({"smtp", "submission", "submissions"})

_VERSION = "SELECT version FROM routing"
_ALL = """
WITH transports AS (
    SELECT name, id, kind, host, port, tls, username, password_sealed, mechanisms, ehlo_name, ipv4, ipv6, code, text FROM transport
), routes AS (
    SELECT r.transport, r.sender_domains, r.recipient_domains, r.min_attempts,
        coalesce(r.account_id, d.account_id) AS account_id, coalesce(d.name, '') AS domain, r.position, r.id
    FROM route r LEFT JOIN domain d ON d.id = r.domain_id
)
SELECT version, (SELECT coalesce(json_agg(t), '[]')::text FROM transports t) AS transports,
    (SELECT coalesce(json_agg(r ORDER BY r.position, r.id), '[]')::text FROM routes r) AS routes
FROM routing
"""
"""One statement, so one snapshot: routes, transports and the number belong together."""


@dataclass(frozen=True, slots=True)
class Transport:
    """A way out."""

    id: int
    name: str
    kind: Kind
    host: str = ""
    port: int = 0
    tls: Literal["verified", "unverified", "none"] | None = None
    username: str | None = None
    password_sealed: str | None = field(default=None, repr=False)
    mechanisms: tuple[str, ...] = ()
    ehlo_name: str | None = None
    ipv4: bool = True
    ipv6: bool = True
    code: int = 554
    text: str = ""

    @property
    def by_domain(self) -> bool:
        """Whether it leads to the hosts of each recipient domain; else it is a next hop itself."""
        return self.kind in {"direct", "socks"}

    def password(self, ring: KeyRing) -> str | None:
        """Return the password, None where there is none.

        Raises:
            SecretUnreadable: it was sealed with a key that is no longer configured.
        """
        if self.password_sealed is None:
            return None
        return unseal(ring, self.password_sealed, context=password_context(self.id)).decode()


def password_context(transport_id: int) -> str:
    """Return what a password is sealed for."""
    return f"transport.password:{transport_id}"


@dataclass(frozen=True, slots=True)
class Route:
    """Mail from these domains to those, after so many attempts, takes a transport; no domains: from or to any."""

    transport: str
    sender_domains: frozenset[str] = frozenset()
    recipient_domains: frozenset[str] = frozenset()
    min_attempts: int = 0

    def matches(self, senders: frozenset[str], recipients: frozenset[str], attempts: int) -> bool:
        """Say whether it is about mail with these names (:func:`names`) that was tried so often before."""
        return (
            attempts >= self.min_attempts
            and not (self.sender_domains and self.sender_domains.isdisjoint(senders))
            and not (self.recipient_domains and self.recipient_domains.isdisjoint(recipients))
        )


@dataclass(frozen=True, slots=True)
class Parcel:
    """What decides which way a delivery takes."""

    account_id: int
    sender_domain: str
    recipient_domain: str
    attempts: int = 0
    """Made before."""
    transport: str | None = None
    """One that was asked for by name; None: as the routes say."""
    is_test: bool = False
    """Mail of a sandbox key takes no way."""


def names(domain: str) -> frozenset[str]:
    """Return what a route may say to mean a domain: itself, and with a leading dot itself and each domain above it."""
    labels = domain.split(".")
    return frozenset((domain, *("." + ".".join(labels[place:]) for place in range(len(labels)))))


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All routes and transports at one moment."""

    version: int = 0
    transports: Mapping[str, Transport] = field(default_factory=dict)
    routes: Mapping[tuple[int | None, str], Sequence[Route]] = field(default_factory=dict)
    """The lists, by account and domain: of an account (7, ""), of a sender domain (7, "a.test"), of all (None, "")."""

    def transport_for(self, parcel: Parcel) -> str | None:
        """Return the name of the transport of the first route that matches: account, then sender domain, then all; None: none does."""
        if parcel.transport is not None:
            return parcel.transport
        if not self.routes:
            return None
        senders, recipients = names(parcel.sender_domain), names(parcel.recipient_domain)
        for key in ((parcel.account_id, ""), (parcel.account_id, parcel.sender_domain), (None, "")):
            for route in self.routes.get(key, ()):
                if route.matches(senders, recipients, parcel.attempts):
                    return route.transport
        return None

    def site(self, parcel: Parcel, relay: str | None) -> SiteName:
        """Return the next hop of a delivery; ``relay`` is the way of mail that no route is about."""
        if parcel.is_test:
            return SANDBOX
        name = self.transport_for(parcel)
        if name is None:
            return SiteName("relay", relay) if relay else SiteName("domain", parcel.recipient_domain)
        transport = self.transports.get(name)
        if transport is None or not transport.by_domain:
            return SiteName("transport", name)
        if transport.kind == "direct" and transport.ipv4 and transport.ipv6:
            return SiteName("domain", parcel.recipient_domain)  # as without a route: its limits count together
        return SiteName("via", f"{name}:{parcel.recipient_domain}")


class Routing:
    """The copy of one process.

    Args:
        seconds: how old :meth:`known` may be where no ring came.
        clock: measures that.
    """

    def __init__(self, *, seconds: float = 1.0, clock: Monotonic = monotonic) -> None:
        self.table = RoutingTable()
        self._seconds, self._clock = seconds, clock
        self._until = float("-inf")
        self._reading = asyncio.Lock()

    @property
    def stale(self) -> bool:
        """Whether :meth:`known` would look."""
        return self._until <= self._clock()

    def forget(self) -> None:
        """Look again: somebody changed something."""
        self._until = float("-inf")

    async def known(self, connection: Connection) -> RoutingTable:
        """Return the copy as it is, unless it is old."""
        return await self.current(connection) if self.stale else self.table

    async def current(self, connection: Connection) -> RoutingTable:
        """Return what is committed now."""
        until = self._clock() + self._seconds
        if await connection.fetchval(_VERSION) != self.table.version:
            async with self._reading:  # one after the other: what was read first must not come last
                await self._read(connection)
        self._until = until
        return self.table

    async def _read(self, connection: Connection) -> None:
        (row,) = await connection.fetch(_ALL)
        if row["version"] != self.table.version:
            self.table = _table(row["version"], orjson.loads(row["transports"]), orjson.loads(row["routes"]))


def _table(version: int, transports: Sequence[_Row], routes: Sequence[_Row]) -> RoutingTable:
    lists: dict[tuple[int | None, str], list[Route]] = {}
    for row in routes:
        route = Route(
            row["transport"],
            frozenset(row["sender_domains"]),
            frozenset(row["recipient_domains"]),
            row["min_attempts"],
        )
        lists.setdefault((row["account_id"], row["domain"]), []).append(route)
    return RoutingTable(version, {row["name"]: _transport(row) for row in transports}, lists)


def _transport(row: _Row) -> Transport:
    known = {name: value for name, value in row.items() if value is not None}
    return Transport(**{**known, "mechanisms": tuple(row["mechanisms"])})

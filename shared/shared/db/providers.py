"""Behind whose mail hosts a recipient domain is: seen by delivery, used by acceptance to put mail in the right lane at once.

It is a shortcut: delivery looks at the MX records of each mail it claims, and moves what is in the wrong lane.
"""

from collections.abc import Collection, Mapping

from shared.clock import Monotonic, monotonic
from shared.db.engine import Connection

_KNOWN_SECONDS = 600.0
_UNKNOWN_SECONDS = 30.0
_CAPACITY = 100_000

_FIND = "SELECT domain, provider FROM domain_provider WHERE domain = ANY ($1::text[])"
_REMEMBER = """
INSERT INTO domain_provider (domain, provider) SELECT * FROM unnest($1::text[], $2::text[]) AS seen (domain, provider) ORDER BY domain
ON CONFLICT (domain) DO UPDATE SET provider = excluded.provider, seen_at = now()
WHERE domain_provider.provider <> excluded.provider OR domain_provider.seen_at < now() - interval '1 day'
"""
_FORGET = "DELETE FROM domain_provider WHERE domain = ANY ($1::text[])"
_SWEEP = """
DELETE FROM domain_provider WHERE domain = ANY (ARRAY(
    SELECT domain FROM domain_provider WHERE seen_at < now() - interval '30 days' ORDER BY seen_at LIMIT $1 FOR UPDATE SKIP LOCKED))
"""


class Providers:
    """What acceptance knows of providers; remembers some domains, and looks for them again after ten minutes."""

    def __init__(self, *, capacity: int = _CAPACITY, clock: Monotonic = monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._known: dict[str, tuple[str | None, float]] = {}

    async def find(self, connection: Connection, domains: Collection[str]) -> dict[str, str]:
        """Return the providers of those domains that one was seen of."""
        now = self._clock()
        known = {domain: self._known[domain] for domain in domains if domain in self._known}
        missing = [domain for domain in set(domains) if domain not in known or known[domain][1] <= now]
        if missing:
            found = {row["domain"]: row["provider"] for row in await connection.fetch(_FIND, missing)}
            if len(self._known) + len(missing) > self._capacity:
                self._known.clear()
            for domain in missing:
                provider = found.get(domain)
                entry = (provider, now + (_UNKNOWN_SECONDS if provider is None else _KNOWN_SECONDS))
                self._known[domain] = known[domain] = entry
        return {domain: provider for domain, (provider, _) in known.items() if provider is not None}


async def remember(connection: Connection, seen: Mapping[str, str | None]) -> None:
    """Note providers by domain; None forgets a domain, which takes its mail itself."""
    providers = {domain: provider for domain, provider in seen.items() if provider is not None}
    if providers:
        await connection.execute(_REMEMBER, list(providers), list(providers.values()))
    if gone := sorted(set(seen) - set(providers)):
        await connection.execute(_FORGET, gone)


async def sweep(connection: Connection, *, limit: int) -> int:
    """Forget at most ``limit`` domains that nothing was sent to for 30 days; return how many."""
    return int((await connection.execute(_SWEEP, limit)).rpartition(" ")[2])

"""Which site each mail belongs to: by the routes, and for mail that goes directly by whose mail hosts its domain is behind."""

import asyncio
from collections.abc import Sequence

from delivery.attempt import Tools
from delivery.dial import Undeliverable
from delivery.prepare import Mail
from delivery.route import Hosts
from shared.db.engine import CONNECTION_LOST
from shared.db.lanes import SiteName
from shared.db.routing import Parcel


class Sorting:
    """Sorts the mails of one slot, batch after batch."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._table = tools.routing.table
        self.hosts: dict[str, Hosts | Undeliverable] = {}
        """Whose hosts take the mail of the domains of this batch, or why that is not known."""

    async def sites(self, mails: Sequence[Mail], here: SiteName) -> dict[int, SiteName]:
        """Return the sites of mails that were claimed at one, by delivery."""
        async with self._tools.pool.acquire() as connection:
            self._table = await self._tools.routing.current(connection)
        sites = {mail.delivery_id: self._route(mail) for mail in mails}
        await self._look_up({site.name for site in sites.values() if site.kind == "domain"}, here)
        return {delivery_id: self._of_provider(site, here) for delivery_id, site in sites.items()}

    async def is_old(self) -> bool:
        """Say whether routes or transports changed since the mails were sorted."""
        routing = self._tools.routing
        if routing.stale:
            try:
                async with self._tools.pool.acquire() as connection:
                    await routing.known(connection)
            except CONNECTION_LOST:
                pass  # the gate waits until it is back, and whoever claims next looks again
        return routing.table.version != self._table.version

    def _route(self, mail: Mail) -> SiteName:
        candidate = mail.candidate
        parcel = Parcel(
            candidate.account_id,
            candidate.sender_domain,
            candidate.recipient_domain,
            mail.claimed.attempt,
            is_test=mail.is_test,
        )
        return self._table.site(parcel, self._tools.relay)

    def _of_provider(self, site: SiteName, here: SiteName) -> SiteName:
        if site.kind != "domain":
            return site
        hosts = self.hosts[site.name]
        if isinstance(hosts, Hosts):
            return SiteName("mx", hosts.provider) if hosts.provider else site
        return here if here.kind == "mx" else site  # where it is, it learns why

    async def _look_up(self, domains: set[str], here: SiteName) -> None:
        """Find out whose hosts take the mail of some domains, and tell acceptance."""
        found = await asyncio.gather(
            *(self._tools.dialer.hosts_of(domain) for domain in domains), return_exceptions=True
        )
        self.hosts = {}
        for domain, hosts in zip(domains, found, strict=True):
            if isinstance(hosts, BaseException) and not isinstance(hosts, Undeliverable):
                raise hosts
            self.hosts[domain] = hosts
        seen = {domain: hosts.provider for domain, hosts in self.hosts.items() if isinstance(hosts, Hosts)}
        await self._tools.seen.tell(here, seen)

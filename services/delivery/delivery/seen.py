"""Behind whose mail hosts domains are, told to acceptance when it is seen."""

from collections.abc import Mapping

from shared.clock import Monotonic, monotonic
from shared.db.engine import Pool
from shared.db.lanes import SiteName
from shared.db.providers import remember

_TELL_AGAIN_SECONDS = 86_400.0
_CAPACITY = 100_000


class ProvidersSeen:
    """Writes providers of domains where that is new, not what their lane says, or a day old."""

    def __init__(self, pool: Pool, clock: Monotonic = monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._told: dict[str, tuple[str | None, float]] = {}

    async def tell(self, site: SiteName, seen: Mapping[str, str | None]) -> None:
        """Tell what was seen of mail at a site; None: the domain has no provider."""
        now = self._clock()
        nothing = (site.name, now) if site.kind == "mx" else (None, now + 1.0)
        new = {
            domain: provider
            for domain, provider in seen.items()
            if (known := self._told.get(domain, nothing))[0] != provider or known[1] <= now
        }
        if not new:
            return
        async with self._pool.acquire() as connection:
            await remember(connection, new)
        if len(self._told) + len(new) > _CAPACITY:
            self._told.clear()
        self._told |= {domain: (provider, now + _TELL_AGAIN_SECONDS) for domain, provider in new.items()}

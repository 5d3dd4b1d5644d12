"""How much a site may be sent at once, as rules say; and the pace of one slot."""

import asyncio

from shared.clock import Monotonic, monotonic
from shared.db.engine import Pool
from shared.db.lanes import CONNECTIONS, SiteName
from shared.db.traffic_rules import all_rules
from shared.mail.traffic import Traffic, traffic_of

_REMEMBER_SECONDS = 60.0


class TrafficRules:
    """The rules, looked up again after a minute, or when somebody changed them."""

    def __init__(self, pool: Pool, clock: Monotonic = monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._own: dict[str, Traffic] = {}
        self._until = 0.0
        self._loading = asyncio.Lock()

    def forget(self) -> None:
        """Look them up again: somebody changed them."""
        self._until = 0.0

    async def of(self, site: SiteName) -> Traffic:
        """Return what holds for a site; the number of connections is always said."""
        async with self._loading:  # one of many sessions asks
            if self._until <= self._clock():
                until = self._clock() + _REMEMBER_SECONDS
                async with self._pool.acquire() as connection:
                    self._own = await all_rules(connection)
                self._until = until
        name = site.name.partition(":")[2] if site.kind == "via" else site.name
        if site.kind == "relay":
            name = name.rpartition(":")[0].strip("[]")
        return traffic_of(name, self._own).over(Traffic(CONNECTIONS[site.kind]))


class Pace:
    """Spaces the transactions of one slot.

    A slot's share of a site's rate is that of one of all the connections the site may have. It sends at once, then waits;
    and it is not given back before the wait is over. So the slots of a site together keep its rate, whoever holds them, and send
    at most one message each beyond it.
    """

    def __init__(self, clock: Monotonic = monotonic) -> None:
        self._clock = clock
        self._interval = 0.0
        self._next = 0.0

    def set(self, traffic: Traffic, pace: float) -> None:
        """Take the rule, and the share of its rate that the site takes at the moment."""
        rate = traffic.messages_per_second
        self._interval = 0.0 if rate is None else (traffic.connections or 1) / (rate * pace)

    @property
    def wait(self) -> float:
        """Seconds until the next message may go."""
        return max(0.0, self._next - self._clock())

    def spend(self, messages: int) -> None:
        """Note messages that begin now; more than one make the next wait longer."""
        self._next = max(self._next, self._clock()) + messages * self._interval

    async def turn(self, stop: asyncio.Event) -> bool:
        """Wait until the next message may go; False where ``stop`` came first."""
        if not stop.is_set() and (wait := self.wait) > 0:
            try:
                await asyncio.wait_for(stop.wait(), wait)
            except TimeoutError:
                return True
        return not stop.is_set()

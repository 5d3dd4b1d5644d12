"""What sessions of this process learn about sites, written at most once a second for each."""

import asyncio
from enum import IntEnum
from random import Random

import structlog

from shared.clock import Monotonic, monotonic
from shared.db import sites
from shared.db.engine import CONNECTION_LOST, Pool
from shared.db.sites import Backoff
from shared.mail.traffic import Traffic

PAUSE_SECONDS = 1.0
"""Between two changes of a site by this process."""
_ENOUGH_SECONDS = 60.0
"""A site that has all it may have is not asked about again for so long."""
_REMEMBERED = 10_000

_log = structlog.get_logger(__name__)


class Note(IntEnum):
    """What a reply says about the pace; the worse one counts."""

    SUCCESS = 0
    SLOW_DOWN = 1


class Sites:
    """Keeps the site rows true to what the servers say.

    Args:
        pool: where the rows are.
        backoff: how long a site that does not answer is left alone.
        random: jitter.
        clock: measures the pauses.
    """

    def __init__(self, pool: Pool, backoff: Backoff, random: Random, clock: Monotonic = monotonic) -> None:
        self._pool = pool
        self._backoff = backoff
        self._random = random
        self._clock = clock
        self._noted: dict[int, Note] = {}
        self._not_before: dict[int, float] = {}
        self._enough: dict[int, float] = {}
        self._alone: dict[int, float] = {}
        self._allowed: dict[int, int] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, site_id: int, note: Note) -> None:
        """Take what a reply says; it is written soon, together with what is said meanwhile."""
        if note is Note.SUCCESS and self._enough.get(site_id, 0.0) > self._clock():
            return
        waiting = self._noted.get(site_id)
        self._noted[site_id] = note if waiting is None else max(waiting, note)
        if waiting is None:
            task = asyncio.create_task(self._write(site_id))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    @property
    def left_alone(self) -> int:
        """How many sites this process has had left alone that still are; each is counted by one process only."""
        now = self._clock()
        self._alone = {site_id: until for site_id, until in self._alone.items() if until > now}
        return len(self._alone)

    def met(self, site_id: int) -> None:
        """Take note that a site is at its first contact, or comes back: its next success is worth writing."""
        self._enough.pop(site_id, None)

    async def allow(self, site_id: int, traffic: Traffic) -> float:
        """Have a site allowed what its rule says; return the share of its rate that it takes at the moment."""
        connections = traffic.connections or 1
        if traffic.messages_per_second is None and self._allowed.get(site_id) == connections:
            return 1.0
        async with self._pool.acquire() as connection:
            pace = await sites.allow(connection, site_id, connections)
        if len(self._allowed) >= _REMEMBERED:
            self._allowed.clear()
        if self._allowed.get(site_id) != connections:
            self._enough.pop(site_id, None)  # there may be more to raise
        self._allowed[site_id] = connections
        return pace

    async def failed(self, site_id: int, *, crowded: bool) -> None:
        """Have a site left alone that no connection could be had with; durable when this returns, unless the database is lost.

        Args:
            site_id: whom.
            crowded: it has too many of our connections, and may be spoken to over those it has.
        """
        self._enough.pop(site_id, None)
        jitter = self._random.uniform(0.75, 1.25)
        try:
            async with self._pool.acquire() as connection:
                if crowded and await sites.slowed(connection, site_id):
                    return
                failure = await sites.failed(connection, site_id, self._backoff, jitter)
        except CONNECTION_LOST as error:
            _log.warning("site_not_written", site_id=site_id, error=type(error).__name__)
            return
        if failure is not None:
            seconds = failure.pause.total_seconds()
            self._alone[site_id] = self._clock() + seconds
            _log.info("site_left_alone", site_id=site_id, failures=failure.failures, pause_seconds=round(seconds))

    async def close(self) -> None:
        """Drop what is not written yet: whoever sends next learns it again."""
        for task in list(self._writing):
            task.cancel()
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _write(self, site_id: int) -> None:
        pause = self._not_before.get(site_id, 0.0) - self._clock()
        if pause > 0:
            await asyncio.sleep(pause)
        note = self._noted.pop(site_id)
        if len(self._not_before) >= _REMEMBERED:
            self._not_before.clear()
            self._enough.clear()
        self._not_before[site_id] = self._clock() + PAUSE_SECONDS
        try:
            async with self._pool.acquire() as connection:
                if note is Note.SLOW_DOWN:
                    await sites.slowed(connection, site_id)
                    self._enough.pop(site_id, None)
                elif not await sites.succeeded(connection, site_id):
                    self._enough[site_id] = self._clock() + _ENOUGH_SECONDS
        except CONNECTION_LOST as error:
            _log.warning("site_not_written", site_id=site_id, error=type(error).__name__)

"""A worker's lease: its heartbeat, and the reaping of workers that stopped beating.

All by the database's clock. Two local checks keep a lapse of the database from doubling mail: a worker that could not beat
for :data:`~shared.db.workers.MAY_START_BEATS` starts nothing, and a worker reaps only after it has itself seen the database
up for as long as a worker may be silent, so that everyone who lives has had time to beat again.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from datetime import timedelta

import structlog

from shared.clock import Monotonic, monotonic
from shared.db import workers
from shared.db.engine import CONNECTION_LOST, Pool
from shared.db.transaction import Bell, transaction
from shared.events import Subject

_PARTITIONS_EVERY_SECONDS = 600.0
_GOODBYE_SECONDS = 3.0

_log = structlog.get_logger(__name__)


class Lease:
    """One process's place among the workers of its service.

    Args:
        pool: where the heartbeat goes.
        bell: rung for what reaping settles.
        service: workers reap only their own service's dead.
        beat_seconds: the same for all workers of a service.
        holding: the queue rows that this service's workers hold; None where they hold none.
        clock: measures silence.
    """

    def __init__(
        self,
        pool: Pool,
        bell: Bell,
        service: str,
        *,
        beat_seconds: float,
        holding: workers.Holding | None = None,
        clock: Monotonic = monotonic,
    ) -> None:
        self.worker_id = 0
        self._pool = pool
        self._bell = bell
        self._service = service
        self._holding = holding
        self._beat_seconds = beat_seconds
        self._clock = clock
        self._last_beat = 0.0
        self._up_since: float | None = None
        self._partitions_checked: float | None = None
        self._beaten = asyncio.Event()

    async def join(self, version: str) -> None:
        """Register; claims and starts may follow."""
        self._version = version
        async with self._pool.acquire() as connection:
            self.worker_id = await workers.register(
                connection, service=self._service, version=version, host=socket.gethostname(), pid=os.getpid()
            )
        self._last_beat = self._clock()
        self._up_since = self._last_beat
        _log.info("worker_joined", service=self._service, worker_id=self.worker_id)

    @property
    def may_start(self) -> bool:
        """Whether the last heartbeat is fresh enough to start work that must not be done twice."""
        return self._clock() - self._last_beat < self._beat_seconds * workers.MAY_START_BEATS

    async def wait_until_may_start(self) -> None:
        """Return once the heartbeat is fresh."""
        while not self.may_start:
            self._beaten.clear()
            await self._beaten.wait()

    async def run(self, stop: asyncio.Event, reaped: Callable[[workers.Reaped], None]) -> None:
        """Beat, and reap, until ``stop`` is set; ``reaped`` is told of each dead worker so that somebody looks for its rows."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(self._beat_seconds):
                    await self._beat()
            except CONNECTION_LOST as error:
                self._up_since = None
                _log.warning("heartbeat_missed", worker_id=self.worker_id, error=type(error).__name__)
            else:
                await self._upkeep(reaped)
            try:
                async with asyncio.timeout(self._beat_seconds):
                    await stop.wait()
            except TimeoutError:
                continue

    async def leave(self) -> None:
        """Give back what is still held and unregister; without a database the others find out by the silence."""
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS), transaction(self._pool, self._bell) as (connection, _):
                await workers.leave(connection, self.worker_id, self._holding)
        except CONNECTION_LOST as error:
            _log.warning("worker_left_unsaid", worker_id=self.worker_id, error=type(error).__name__)
            return
        _log.info("worker_left", service=self._service, worker_id=self.worker_id)

    async def _beat(self) -> None:
        begun = self._clock()
        async with self._pool.acquire() as connection:
            alive = await workers.beat(connection, self.worker_id)
            if not alive:
                dead = self.worker_id
                self.worker_id = await workers.register(
                    connection, service=self._service, version=self._version, host=socket.gethostname(), pid=os.getpid()
                )
                _log.error("worker_was_declared_dead", worker_id=dead, now=self.worker_id)
        self._last_beat = begun
        self._beaten.set()
        if self._up_since is None:
            self._up_since = begun

    async def _upkeep(self, reaped: Callable[[workers.Reaped], None]) -> None:
        now = self._clock()
        silence = self._beat_seconds * workers.DEAD_AFTER_BEATS
        try:
            if self._up_since is not None and now - self._up_since >= silence:
                await self._reap(timedelta(seconds=silence), reaped)
            if self._partitions_checked is None or now - self._partitions_checked >= _PARTITIONS_EVERY_SECONDS:
                async with self._pool.acquire() as connection:
                    made = await connection.fetchval("SELECT ensure_partitions()")
                self._partitions_checked = now
                if made:
                    _log.info("partitions_made", count=made)
        except CONNECTION_LOST as error:
            self._up_since = None
            _log.warning("upkeep_failed", worker_id=self.worker_id, error=type(error).__name__)

    async def _reap(self, silence: timedelta, reaped: Callable[[workers.Reaped], None]) -> None:
        while True:
            async with transaction(self._pool, self._bell) as (connection, rings):
                dead = await workers.reap_one(connection, self._service, self._holding, dead_after=silence)
                if dead is not None and dead.exhausted:
                    rings.add(Subject.EVENT_RECORDED)
            if dead is None:
                return
            _log.warning(
                "worker_reaped",
                dead_worker_id=dead.worker_id,
                by=self.worker_id,
                released=dead.released,
                lost=dead.lost,
                exhausted=dead.exhausted,
            )
            reaped(dead)

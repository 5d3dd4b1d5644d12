"""Claims sites as long as there is room for sessions, and has each served by a task of its own."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from random import Random

import structlog

from delivery.pipeline import Courier, Slot
from shared.db.engine import CONNECTION_LOST, Connection, Pool, with_fresh_plans
from shared.db.queue import DELIVERIES, Claimed
from shared.worker.lease import Lease
from shared.worker.loop import Loop

SITES_PER_CLAIM = 8
LANES_PER_SITE = 4
ROWS_PER_LANE = 25
UNPROVEN_SHARE = 4
"""Of a worker's sessions: the part that sites at first contact, and those that come back from a failure, may have."""
_WAKES = 1000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Sizes and times of a worker."""

    sessions: int
    poll_seconds: float
    grace_seconds: float


class Worker:
    """One process's delivery worker.

    Args:
        claims: pool for claims; they may be lost in a crash of the database, so it need not wait for the disk.
        courier: serves slots.
        lease: our place among the workers.
        settings: sizes and times.
        random: jitter.
    """

    def __init__(self, claims: Pool, courier: Courier, lease: Lease, settings: WorkerSettings, random: Random) -> None:
        self.heard = asyncio.Event()
        self._claims = claims
        self._courier = courier
        courier.places = settings.sessions
        self._lease = lease
        self._settings = settings
        self._random = random
        self._serving: dict[asyncio.Task[None], Slot] = {}
        self._stop = asyncio.Event()

    @property
    def serving(self) -> "frozenset[asyncio.Task[None]]":
        """The slots being served, one task each."""
        return frozenset(self._serving)

    async def run(self, stop: asyncio.Event) -> None:
        """Claim until ``stop``; then let what is in flight finish within the grace period and release the rest."""
        self._stop = stop
        loop = Loop(
            "delivery", self._turn, heard=self.heard, poll_seconds=self._settings.poll_seconds, random=self._random
        )
        try:
            await loop.run(stop)
        finally:
            await self._finish()

    async def _turn(self) -> bool:
        free = min(self._settings.sessions - len(self._serving), SITES_PER_CLAIM)
        if free <= 0 or not self._lease.may_start:
            return False
        worker_id = self._lease.worker_id
        woken, rows = await with_fresh_plans(lambda: self._claim(worker_id, free))
        by_slot: dict[int, list[Claimed]] = {}
        for row in rows:
            by_slot.setdefault(row.slot_id, []).append(row)
        for slot_id, claimed in by_slot.items():
            slot = Slot(slot_id, claimed[0].site_id, worker_id)
            work = self._courier.serve(slot, claimed, self._stop)
            task = asyncio.create_task(self._serve(slot, work), name=f"slot {slot_id}")
            self._serving[task] = slot
            task.add_done_callback(self._served)
        return bool(rows) or woken == _WAKES

    async def _claim(self, worker_id: int, free: int) -> tuple[int, list[Claimed]]:
        try:
            async with self._courier.claiming, self._claims.acquire() as connection:
                return await self._claim_on(connection, worker_id, free)
        except CONNECTION_LOST:
            # Also where the answer came and the connection broke as it went back to the pool: what was claimed is ours by then.
            self._courier.answer_lost = True
            raise

    async def _claim_on(self, connection: Connection, worker_id: int, free: int) -> tuple[int, list[Claimed]]:
        if self._courier.answer_lost:
            slots = [slot.id for slot in self._serving.values()]
            recovered = await DELIVERIES.recover(connection, worker_id, self._courier.held, slots)
            _log.warning("claims_recovered", worker_id=worker_id, rows=recovered)
            self._courier.answer_lost = False
        woken = await DELIVERIES.drain(connection, limit=_WAKES)
        # Sites that may not answer leave the most of the sessions to those that do.
        unproven = max(1, self._settings.sessions // UNPROVEN_SHARE) - self._courier.unproven
        rows = await DELIVERIES.claim(
            connection,
            worker_id,
            sites=min(free, unproven) if unproven > 0 else free,
            lanes=LANES_PER_SITE,
            rows=ROWS_PER_LANE,
            proven=unproven <= 0,
        )
        return woken, rows

    async def _serve(self, slot: Slot, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        finally:
            await self._return(slot)

    async def _return(self, slot: Slot) -> None:
        while not self._stop.is_set():  # who stops gives all its slots back at once, by leaving
            try:
                async with self._claims.acquire() as connection:
                    await DELIVERIES.return_slots(connection, slot.worker_id, [slot.id])
            except CONNECTION_LOST:
                await asyncio.sleep(1.0)  # the slot stays counted until it is back, or until we are declared dead
            else:
                return

    def _served(self, task: "asyncio.Task[None]") -> None:
        del self._serving[task]
        self.heard.set()  # there is room again, and perhaps more for that site
        if not task.cancelled() and task.exception() is not None:
            # What it held unstarted is released with our lease, what it had started is counted as lost.
            _log.error("slot_failed", slot=task.get_name(), exc_info=task.exception())

    async def _finish(self) -> None:
        if not self._serving:
            return
        _, late = await asyncio.wait(list(self._serving), timeout=self._settings.grace_seconds)
        for task in late:
            task.cancel()
        if late:
            _log.warning("grace_period_over", sessions_cut=len(late))
            await asyncio.gather(*late, return_exceptions=True)

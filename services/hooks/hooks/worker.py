"""Two loops: one turns events into calls, one claims calls and has each endpoint served by a task of its own."""

import asyncio

import structlog

from hooks.bell import LocalBell
from hooks.fanout import FanOut
from hooks.slot import Slot, Tools
from shared.db.calls import oldest_due_seconds
from shared.db.engine import CONNECTION_LOST, Connection, Pool, with_fresh_plans
from shared.db.fanout import oldest_pending_seconds
from shared.db.queue import CALLS, Claimed
from shared.worker.lease import Lease
from shared.worker.loop import Loop

SITES_PER_CLAIM = 16
BACKLOG_EVERY_SECONDS = 10.0
INTERRUPTED_SECONDS = 1.5
"""How long calls that were cut off at the end of the grace period may take to be written."""
_WAKES = 1000

_log = structlog.get_logger(__name__)


class Worker:
    """One process's hooks worker.

    Args:
        claims: pool for claims; they may be lost in a crash of the database, so it need not wait for the disk.
        fan_out: turns events into calls.
        tools: what slots use.
        bell: wakes the loops.
        lease: our place among the workers.
    """

    def __init__(self, claims: Pool, fan_out: FanOut, tools: Tools, bell: LocalBell, lease: Lease) -> None:
        self._claims = claims
        self._fan_out = fan_out
        self._tools = tools
        self._bell = bell
        self._lease = lease
        self._serving: dict[asyncio.Task[None], Slot] = {}
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event, *, grace_seconds: float) -> None:
        """Work until ``stop``; then let what is in flight finish within the grace period and release the rest."""
        self._stop = stop
        bell, poll, random = self._bell, self._tools.poll_seconds, self._tools.random
        fan_out = Loop("fan-out", self._fan_out.turn, heard=bell.events_heard, poll_seconds=poll, random=random)
        calls = Loop("calls", self._turn, heard=bell.calls_heard, poll_seconds=poll, random=random)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fan_out.run(stop))
                group.create_task(calls.run(stop))
                group.create_task(self._watch_backlog(stop))
        finally:
            await self._finish(grace_seconds)

    async def _turn(self) -> bool:
        tools = self._tools
        worker_id = self._lease.worker_id
        try:
            async with tools.ledger.claiming, self._claims.acquire() as connection:
                woken, rows = await self._claim(connection, worker_id)
        except CONNECTION_LOST:
            # Also where the answer came and the connection broke as it went back to the pool: what was claimed is ours by then.
            tools.ledger.answer_lost = True
            raise
        by_slot: dict[int, list[Claimed]] = {}
        for row in rows:
            by_slot.setdefault(row.slot_id, []).append(row)
        for claimed in by_slot.values():
            slot = Slot(tools, worker_id, claimed)
            task = asyncio.create_task(slot.serve(self._stop), name=f"slot {claimed[0].slot_id}")
            self._serving[task] = slot
            task.add_done_callback(self._served)
        tools.metrics.slots.set(len(self._serving))
        return bool(rows) or woken == _WAKES

    async def _claim(self, connection: Connection, worker_id: int) -> tuple[int, list[Claimed]]:
        tools = self._tools
        sites = min(tools.room.free, tools.room.size - len(self._serving), SITES_PER_CLAIM)
        if tools.ledger.answer_lost:
            await self._recover(connection, worker_id)
        woken = await CALLS.drain(connection, limit=_WAKES)
        if sites <= 0 or not self._lease.may_start:
            return woken, []
        rows = await with_fresh_plans(
            lambda: CALLS.claim(connection, worker_id, sites=sites, lanes=1, rows=tools.per_endpoint)
        )
        return woken, rows

    async def _recover(self, connection: Connection, worker_id: int) -> None:
        held = {call_id for slot in self._serving.values() for call_id in slot.unstarted}
        recovered = await CALLS.recover(connection, worker_id, held, [slot.id for slot in self._serving.values()])
        _log.warning("claims_recovered", worker_id=worker_id, rows=recovered)
        self._tools.ledger.answer_lost = False

    def _served(self, task: "asyncio.Task[None]") -> None:
        del self._serving[task]
        self._tools.metrics.slots.set(len(self._serving))
        self._bell.calls_heard.set()  # there is room again, and perhaps more for that endpoint
        if not task.cancelled() and (error := task.exception()) is not None:
            # What it held unstarted is released with our lease, what it had started is counted as lost.
            _log.error("slot_failed", slot=task.get_name(), exc_info=error)

    async def _watch_backlog(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with self._claims.acquire() as connection:
                    self._tools.metrics.oldest_event.set(await oldest_pending_seconds(connection))
                    self._tools.metrics.oldest_call.set(await oldest_due_seconds(connection))
            except CONNECTION_LOST as error:
                _log.debug("backlog_unknown", error=type(error).__name__)
            try:
                async with asyncio.timeout(BACKLOG_EVERY_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue

    async def _finish(self, grace_seconds: float) -> None:
        if not await self._wait(grace_seconds):
            _log.warning("grace_period_over", slots_cut=len(self._serving))
            for slot in self._serving.values():
                slot.interrupt()
            await self._wait(INTERRUPTED_SECONDS)
        late = list(self._serving)  # their database is away; the next worker finds what they held
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _wait(self, seconds: float) -> bool:
        if self._serving:
            await asyncio.wait(list(self._serving), timeout=seconds)
        return not self._serving

"""What is written of calls: the start of an attempt and its result, both coalesced over all endpoints.

Postgres may go away at either. A start waits until it is back and the heartbeat is fresh again; a result is kept and written
when it is back, so that a worker that lives never makes a call twice because of it. How many results can wait is bounded by
the calls in flight: without the database nothing new starts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import asyncpg
import structlog

from shared.db.calls import CallResult, CallVerdict, LoadedCall, load_calls, settle_calls, start_calls
from shared.db.endpoints import CallTarget, for_calls
from shared.db.engine import CONNECTION_LOST, Pool, with_fresh_plans
from shared.db.queue import CALLS, Claimed
from shared.db.transaction import Bell, transaction
from shared.events import Subject
from shared.worker.coalesce import Coalescer, Limits
from shared.worker.lease import Lease

_PAUSE_SECONDS = 0.25
_PASSING = (asyncpg.PostgresError, asyncpg.InternalClientError)
"""A deadlock, a standby that became read-only, a full disk; or asyncpg, surprised by a connection that ends while it begins a
query. Each passes, and what is to be written stays right."""
_UNSTORABLE = "the text of this result could not be stored"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """A call whose attempt is on record: it must be made now, and settled."""

    call_id: int
    worker_id: int
    attempt: int
    call: LoadedCall | None
    """None where its record is gone."""
    target: CallTarget | None
    """None where its endpoint went in the meantime."""


class Ledger:
    """Claims more, starts and settles for all slots of a process.

    Args:
        pool: for starts and results, which must survive a crash of the database.
        claims: for what may be lost in one: claims and slots.
        bell: rung when another call became due.
        lease: our place among the workers.
    """

    def __init__(self, pool: Pool, claims: Pool, bell: Bell, lease: Lease) -> None:
        self._pool = pool
        self._claims = claims
        self._bell = bell
        self._lease = lease
        self._starts = Coalescer[tuple[int, int, bool], Started | None](
            self._start_batch, whole=CONNECTION_LOST, limits=Limits(items=128)
        )
        self._results = Coalescer[CallResult, None](
            self._settle_batch, whole=CONNECTION_LOST, limits=Limits(items=256, waiting=100_000)
        )
        self._slots = Coalescer[tuple[int, int], None](self._return_batch, whole=CONNECTION_LOST)

        self.claiming = asyncio.Lock()
        """Held by whoever claims until it has noted what it holds: recovering must not mistake an answer on its way for a lost one."""
        self.answer_lost = False
        """A claim may have been made whose answer never came; whoever recovers from it clears this."""

    async def start(self, worker_id: int, call_id: int) -> Started | None:
        """Pass the gate just before the request; None where the call may not be made, which is written already."""
        repeated = False
        while True:
            await self._lease.wait_until_may_start()
            try:
                return await self._starts.submit((worker_id, call_id, repeated))
            except CONNECTION_LOST:
                await asyncio.sleep(_PAUSE_SECONDS)
            except _PASSING as error:
                _log.warning("start_not_written_yet", call_id=call_id, error=type(error).__name__)
                await asyncio.sleep(_PAUSE_SECONDS)
            repeated = True

    async def settle(self, result: CallResult) -> None:
        """Write a result. Returns when it is durable; never gives up on a lost database."""
        while True:
            try:
                await self._results.submit(result)
            # ValueError: the driver cannot send a value; it is an InterfaceError as well, so it comes before those.
            except (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
                if result.text == _UNSTORABLE:
                    raise
                _log.exception("result_refused_by_database", call_id=result.call_id)
                result = replace(result, text=_UNSTORABLE, response="")
            except CONNECTION_LOST:
                await asyncio.sleep(_PAUSE_SECONDS)
            except _PASSING as error:
                _log.warning("result_not_written_yet", call_id=result.call_id, error=type(error).__name__)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    async def refill(self, worker_id: int, slot_id: int, rows: int) -> list[Claimed]:
        """Claim more calls for a slot; none where the database is away."""
        try:
            async with self.claiming, self._claims.acquire() as connection:
                return await with_fresh_plans(lambda: CALLS.refill(connection, worker_id, slot_id, lanes=1, rows=rows))
        except (*CONNECTION_LOST, *_PASSING):
            self.answer_lost = True
            return []  # the slot goes back; whoever claims next finds the rest

    async def release(self, worker_id: int, call_ids: Sequence[int]) -> None:
        """Give back calls that were not started."""

        async def give_back() -> None:
            async with self._claims.acquire() as connection:
                await CALLS.release(connection, worker_id, call_ids)

        if call_ids:
            await self._insist(give_back)

    async def return_slot(self, worker_id: int, slot_id: int) -> None:
        """Give a slot back."""
        await self._insist(lambda: self._slots.submit((worker_id, slot_id)))

    async def _insist(self, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except (*CONNECTION_LOST, *_PASSING) as error:
                _log.debug("not_given_back_yet", error=type(error).__name__)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return

    async def _start_batch(self, items: Sequence[tuple[int, int, bool]]) -> list[Started | None]:
        started = await with_fresh_plans(lambda: self._start_once(items))
        return [started.get((worker_id, call_id)) for worker_id, call_id, _ in items]

    async def _start_once(self, items: Sequence[tuple[int, int, bool]]) -> dict[tuple[int, int], Started]:
        attempts: dict[tuple[int, int], int] = {}
        repeated = [call_id for _, call_id, repeated in items if repeated]
        async with self._pool.acquire() as connection:
            for worker_id in {owner for owner, _, _ in items}:  # more than one only after we were declared dead
                mine = [call_id for owner, call_id, _ in items if owner == worker_id]
                gates = await start_calls(connection, worker_id, mine, repeated=repeated)
                attempts |= {
                    (worker_id, call_id): gate.attempt
                    for call_id, gate in gates.items()
                    if gate.verdict is CallVerdict.START
                }
            if not attempts:
                return {}
            calls = await load_calls(connection, [call_id for _, call_id in attempts])
            targets = await for_calls(connection, [call.endpoint_id for call in calls.values()])
        return {
            (worker_id, call_id): Started(
                call_id, worker_id, attempt, call := calls.get(call_id), targets.get(call.endpoint_id) if call else None
            )
            for (worker_id, call_id), attempt in attempts.items()
        }

    async def _settle_batch(self, results: Sequence[CallResult]) -> list[None]:
        async def settle() -> None:
            async with transaction(self._pool, self._bell) as (connection, rings):
                settled = await settle_calls(connection, results)
                if settled.endpoints:
                    rings.add(Subject.CALL_DUE, *map(str, settled.endpoints))

        await with_fresh_plans(settle)
        return [None] * len(results)

    async def _return_batch(self, items: Sequence[tuple[int, int]]) -> list[None]:
        async with self._claims.acquire() as connection:
            for worker_id in {worker_id for worker_id, _ in items}:
                slots = [slot_id for owner, slot_id in items if owner == worker_id]
                await CALLS.return_slots(connection, worker_id, slots)
        return [None] * len(items)

"""The two moments that are written: the start of an attempt and its result, both coalesced over all sessions.

Postgres may go away at either. A start waits until it is back and the heartbeat is fresh again; a result is kept and written
when it is back, so that a worker that lives never sends a mail twice because of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import asyncpg
import structlog

from shared.db import outcomes, starts
from shared.db.engine import CONNECTION_LOST, Connection, Pool, with_fresh_plans
from shared.db.outcomes import Outcome
from shared.db.queue import DELIVERIES
from shared.db.starts import Candidate, Gate
from shared.db.transaction import Bell, transaction
from shared.events import Subject
from shared.worker.coalesce import Coalescer, Limits
from shared.worker.lease import Lease

_PAUSE_SECONDS = 0.25
_DISABLED_PAUSE = timedelta(minutes=15)

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class Ledger:
    """Starts and settles deliveries for all sessions of a process."""

    def __init__(self, pool: Pool, bell: Bell, lease: Lease) -> None:
        self._pool = pool
        self._bell = bell
        self._lease = lease
        self._starts = Coalescer[tuple[int, Candidate, bool], Gate](
            self._start_batch, whole=CONNECTION_LOST, limits=Limits(items=128)
        )
        self._results = Coalescer[Outcome, None](
            self._settle_batch, whole=CONNECTION_LOST, limits=Limits(items=256, waiting=100_000)
        )

    async def judge(self, worker_id: int, candidates: Sequence[Candidate]) -> dict[int, Gate]:
        """Ask the gate without starting."""

        async def ask(connection: Connection) -> dict[int, Gate]:
            return await starts.judge(connection, worker_id, candidates)

        return await self._insist(ask)

    async def start(self, worker_id: int, candidate: Candidate) -> Gate:
        """Pass the gate just before MAIL FROM; the attempt is on record when this returns START."""
        repeated = False
        while True:
            await self._lease.wait_until_may_start()
            try:
                return await self._starts.submit((worker_id, candidate, repeated))
            except CONNECTION_LOST:
                repeated = True
                await asyncio.sleep(_PAUSE_SECONDS)

    async def settle(self, outcome: Outcome) -> None:
        """Write a result. Returns when it is durable; never gives up on a lost database."""
        while True:
            try:
                await self._results.submit(outcome)
            except ValueError as error:
                outcome = _storable(outcome, error)
            except CONNECTION_LOST:
                await asyncio.sleep(_PAUSE_SECONDS)
            except asyncpg.PostgresError as error:
                outcome = _storable(outcome, error)
            else:
                return

    async def release(
        self, worker_id: int, delivery_ids: Sequence[int], *, hold: bool = False, disabled: bool = False
    ) -> None:
        """Give back rows that were not started."""

        async def give_back(connection: Connection) -> None:
            await DELIVERIES.release(
                connection, worker_id, delivery_ids, hold=hold, due_in=_DISABLED_PAUSE if disabled else None
            )

        await self._insist(give_back)

    async def hold(self, worker_id: int, candidate: Candidate) -> None:
        """Give back a row that the gate found held, with the rule that holds it."""

        async def give_back(connection: Connection) -> None:
            await starts.hold(connection, worker_id, [candidate])

        await self._insist(give_back)

    async def drain(self) -> None:
        """Wait until everything that was submitted is written."""
        await self._results.drain()

    async def _insist(self, run: Callable[[Connection], Awaitable[T]]) -> T:
        while True:
            try:
                async with self._pool.acquire() as connection:
                    return await with_fresh_plans(lambda: run(connection))
            except CONNECTION_LOST:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _start_batch(self, items: Sequence[tuple[int, Candidate, bool]]) -> list[Gate]:
        gates = await with_fresh_plans(lambda: self._start_once(items))
        return [gates[candidate.delivery_id] for _, candidate, _ in items]

    async def _start_once(self, items: Sequence[tuple[int, Candidate, bool]]) -> dict[int, Gate]:
        gates: dict[int, Gate] = {}
        repeated = {candidate.delivery_id for _, candidate, repeated in items if repeated}
        async with self._pool.acquire() as connection:
            for worker_id in {owner for owner, _, _ in items}:  # more than one only after we were declared dead
                mine = [candidate for owner, candidate, _ in items if owner == worker_id]
                gates |= await starts.start(connection, worker_id, mine, repeated=repeated)
        return gates

    async def _settle_batch(self, batch: Sequence[Outcome]) -> list[None]:
        await with_fresh_plans(lambda: self._settle_once(batch))
        return [None] * len(batch)

    async def _settle_once(self, batch: Sequence[Outcome]) -> None:
        async with transaction(self._pool, self._bell) as (connection, rings):
            recorded = await outcomes.record(connection, batch)
            if recorded.accounts:
                rings.add(Subject.EVENT_RECORDED, *(str(account_id) for account_id in recorded.accounts))
            if recorded.suppressing:
                rings.add(Subject.SUPPRESSION_CHANGED, *(str(account_id) for account_id in recorded.suppressing))


_UNSTORABLE = "the text of this result could not be stored"


def _storable(outcome: Outcome, error: Exception) -> Outcome:
    """Return the outcome without what came from the network; raises where that was not the reason."""
    if outcome.text == _UNSTORABLE:
        raise error
    _log.error("result_refused_by_database", delivery_id=outcome.delivery_id, exc_info=error)
    return replace(outcome, text=_UNSTORABLE, enhanced="", facts=outcomes.AttemptFacts())

"""The one writer of a process: messages that arrive while a commit runs share the next one.

A connection that is lost during a commit says nothing about the commit. Then the ids, which were taken beforehand, are looked
up: what was stored is answered as accepted, what was not is stored again, and only what stays unknown is turned away.
"""

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from api.metrics import ApiMetrics
from shared import log
from shared.clock import Monotonic, monotonic
from shared.db.accept import AcceptedMessage, NewMessage, Result, accept, stored
from shared.db.engine import CONNECTION_LOST, Pool, with_fresh_plans
from shared.db.transaction import Bell, Rings, transaction
from shared.errors import DatabaseUnavailable, PosthouseError
from shared.events import Subject
from shared.lifecycle import DeliveryState
from shared.worker.coalesce import Coalescer, Limits

_LOOK_AGAIN_SECONDS = 0.1
_UNKNOWN = "the database went away while this was being stored, and whether it was accepted is not known: "
_LOOK_FOR_IT = _UNKNOWN + "look for it in the list of deliveries before you send it again"
_SEND_AGAIN = _UNKNOWN + "send it again with the same idempotency key, it will not be there twice"


@dataclass(frozen=True, slots=True)
class Item:
    """A message and whom to ring for it."""

    message: NewMessage
    sites: frozenset[str]
    """Keys of the sites its deliveries wait for."""


class Writer:
    """Stores messages, many at a time.

    Args:
        pool: with ``synchronous_commit`` on: an answer promises that the message is safe.
        bell: rung after each commit.
        metrics: sizes and times of batches.
        limits: of a batch and of the queue before it.
        patience: seconds for which a lost database is waited for before those who wait are turned away.
        clock: for these.
    """

    def __init__(
        self,
        pool: Pool,
        bell: Bell,
        metrics: ApiMetrics,
        *,
        limits: Limits | None = None,
        patience: float = 10.0,
        clock: Monotonic = monotonic,
    ) -> None:
        self._pool, self._bell, self._metrics = pool, bell, metrics
        self._patience, self._clock = patience, clock
        self._batches: Coalescer[Item, Result] = Coalescer(
            self._write_batch, limits=limits, weigh=lambda item: len(item.message.content)
        )
        metrics.waiting.set_function(lambda: float(self._batches.waiting))

    async def write(self, item: Item) -> AcceptedMessage:
        """Store a message, or find that it was stored before.

        Raises:
            IdempotencyConflict: its key was used for another message.
            FromIdTaken: the from_id that its client chose names another delivery.
            LimitReached: its account may not send it now.
            Overloaded: too many messages wait already.
            DatabaseUnavailable: it was not stored, or nobody can tell; the text says which.
        """
        result = await self._batches.submit(item)
        if isinstance(result, PosthouseError):
            raise result
        return result

    async def drain(self) -> None:
        """Wait until everything handed in so far is stored or turned away."""
        await self._batches.drain()

    async def _write_batch(self, items: Sequence[Item]) -> Sequence[Result]:
        deadline = self._clock() + self._patience
        left = {item.message.id: item for item in items}
        results: dict[int, Result] = {}
        doubtful = False
        while left:
            try:
                results |= await with_fresh_plans(functools.partial(self._store, list(left.values())))
                break
            except _Lost as lost:
                doubtful = doubtful or lost.committing
            except asyncpg.UniqueViolationError:
                if not doubtful:
                    raise
                # The transaction that was lost was still committing when it was looked for, and has now ended.
            if doubtful:
                results |= await self._look_up(left, deadline)
            if left and not await self._pause(deadline):
                results |= {message_id: DatabaseUnavailable() for message_id in left}
                break
        return [results[item.message.id] for item in items]

    async def _store(self, batch: Sequence[Item]) -> dict[int, Result]:
        begun = self._clock()
        committing = False
        try:
            async with transaction(self._pool, self._bell) as (connection, rings):
                results = await accept(connection, [item.message for item in batch])
                _add_rings(rings, batch, results)
                committing = True
        except CONNECTION_LOST as error:
            log.get(__name__).warning(
                "accept_lost_connection", messages=len(batch), committing=committing, error=type(error).__name__
            )
            raise _Lost(committing=committing) from error
        self._metrics.accept.observe(self._clock() - begun)
        self._metrics.batch.observe(len(batch))
        return {item.message.id: result for item, result in zip(batch, results, strict=True)}

    async def _look_up(self, left: dict[int, Item], deadline: float) -> dict[int, Result]:
        """Find out which messages are stored after all, and take them out of ``left``; all of it where nobody can tell."""
        self._metrics.doubtful.inc()
        while True:
            try:
                async with self._pool.acquire() as connection:
                    present = await stored(connection, [item.message for item in left.values()])
            except CONNECTION_LOST:
                if not await self._pause(deadline):
                    unknown: dict[int, Result] = {message_id: _unknown(item) for message_id, item in left.items()}
                    left.clear()
                    return unknown
            else:
                found = [left.pop(message_id) for message_id in present]
                rings = Rings()
                _add_rings(rings, found, list(present.values()))
                rings.ring(self._bell)
                return dict(present)

    async def _pause(self, deadline: float) -> bool:
        """Wait a moment; False where there is no time left."""
        if self._clock() >= deadline:
            return False
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        return True


def _unknown(item: Item) -> DatabaseUnavailable:
    return DatabaseUnavailable(_LOOK_FOR_IT if item.message.idempotency is None else _SEND_AGAIN)


class _Lost(Exception):
    """The connection was lost."""

    def __init__(self, *, committing: bool) -> None:
        super().__init__(committing)
        self.committing = committing
        """Whether COMMIT may have been on its way; before it, nothing can have been stored."""


def _add_rings(rings: Rings, batch: Sequence[Item], results: Sequence[Result]) -> None:
    for item, result in zip(batch, results, strict=True):
        if isinstance(result, PosthouseError) or result.replayed:
            continue
        states = {delivery.state for delivery in result.deliveries}
        if DeliveryState.QUEUED in states:
            rings.add(Subject.DELIVERY_DUE, *item.sites)
        if DeliveryState.SUPPRESSED in states:
            rings.add(Subject.EVENT_RECORDED)

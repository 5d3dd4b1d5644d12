"""Rows whose time is over are deleted, a few at a time, by every api process: whoever comes first does it, the others pass over."""

import asyncio
import functools
from collections.abc import Mapping
from random import Random
from typing import Final, Protocol

from shared import log
from shared.db import budgets, idempotency
from shared.db.engine import Connection, Pool, with_fresh_plans
from shared.db.transaction import Bell, transaction
from shared.worker.loop import Loop

EVERY_SECONDS: Final = 60.0
"""Between two rounds that find little; the loop varies it by a tenth, so that replicas do not march in step."""
AT_ONCE: Final = 1_000
"""Rows that one transaction of a sweep deletes at most."""


class Sweep(Protocol):
    """Deals with rows whose time is over; takes none that another process has in hand."""

    async def __call__(self, connection: Connection, *, limit: int) -> int:
        """Deal with at most ``limit``; return how many there were."""


SWEEPS: Final[Mapping[str, Sweep]] = {
    "idempotency": idempotency.sweep,
    "account_usage": budgets.sweep,
}
"""What is swept, by a name for the log."""


class Housekeeping:
    """Sweeps until it is told to stop.

    Args:
        pool: one connection of it is used, and only while a sweep runs.
        bell: rung after each commit.
        sweeps: what is done in each round; each in a transaction of its own.
        every_seconds: between two rounds.
        limit: rows of a sweep at once.
    """

    def __init__(
        self,
        pool: Pool,
        bell: Bell,
        *,
        sweeps: Mapping[str, Sweep] = SWEEPS,
        every_seconds: float = EVERY_SECONDS,
        limit: int = AT_ONCE,
    ) -> None:
        self._pool, self._bell = pool, bell
        self._sweeps, self._every_seconds, self._limit = sweeps, every_seconds, limit
        self._woken = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until ``stop`` is set; a lost database is waited for."""
        jitter = Random()  # noqa: S311 - jitter, not a secret
        loop = Loop("housekeeping", self._round, heard=self._woken, poll_seconds=self._every_seconds, random=jitter)
        await loop.run(stop)

    async def _round(self) -> bool:
        """Sweep everything once; return whether there may be more right now."""
        more = False
        for name, sweep in self._sweeps.items():
            swept = await with_fresh_plans(functools.partial(self._sweep, sweep))
            if swept:
                log.get(__name__).info("swept", what=name, rows=swept)
            more = more or swept >= self._limit
        return more

    async def _sweep(self, sweep: Sweep) -> int:
        async with transaction(self._pool, self._bell) as (connection, _):
            return await sweep(connection, limit=self._limit)

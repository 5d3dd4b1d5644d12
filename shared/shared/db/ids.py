"""Ids before transactions: blocks of 256 from one sequence, so that a writer knows its rows before it commits them.

A block left over for more than a minute is dropped, so that ids follow time (partitions and cursors rely on it).
"""

import asyncio
from collections import deque

from shared.clock import Monotonic, monotonic
from shared.db.engine import Connection

BLOCK = 256
_MAX_AGE_SECONDS = 60.0


class IdBlocks:
    """Hands out record ids to one process, to as many tasks of one event loop as ask."""

    def __init__(self, clock: Monotonic = monotonic) -> None:
        self._clock = clock
        self._ids: deque[int] = deque()
        self._taken_at = 0.0
        self._asking = asyncio.Lock()  # what is missing is counted before the database is asked: one at a time

    async def take(self, connection: Connection, count: int) -> list[int]:
        """Return ``count`` unused ids in rising order, asking the database only when the block runs out."""
        async with self._asking:
            if self._clock() - self._taken_at > _MAX_AGE_SECONDS:
                self._ids.clear()
            missing = count - len(self._ids)
            if missing > 0:
                blocks = -(-missing // BLOCK)
                starts = await connection.fetch(
                    "SELECT nextval('record_id') AS start FROM generate_series(1, $1)", blocks
                )
                self._taken_at = self._clock()
                for row in starts:
                    self._ids.extend(range(row["start"], row["start"] + BLOCK))
            return [self._ids.popleft() for _ in range(count)]

"""Counts what operators should look at, and writes the counts every few seconds: a notice costs its teller no I/O.

Nothing that was counted is lost while the process lives or when it stops in order. A write whose answer was lost with the connection
is repeated and may then count twice: operators are told that something happens and how much, not kept books for.
"""

import asyncio
from dataclasses import replace

import asyncpg
import structlog

from shared.db.engine import CONNECTION_LOST, Pool, with_fresh_plans
from shared.db.operator_events import Notice, count
from shared.metrics import Metrics

EVERY_SECONDS = 3.0
SUBJECTS = 10_000
"""Subjects counted apart between two writes; what is beyond them is counted as one."""
BEYOND = "(further subjects)"

_AT_ONCE = 500
_LOGGED = 20
_GOODBYE_SECONDS = 3.0

_log = structlog.get_logger(__name__)


class OperatorEvents:
    """The notices of one process.

    Args:
        pool: where they are written.
        metrics: counts them by kind.
        seconds: how often they are written.
    """

    def __init__(self, pool: Pool, metrics: Metrics, *, seconds: float = EVERY_SECONDS) -> None:
        self._pool = pool
        self._seconds = seconds
        self._told = metrics.counter(
            "operator_events", "What operators should look at, by kind: GET /v1/operator-events has it.", ("kind",)
        )
        self._waiting: dict[tuple[str, str], tuple[Notice, int]] = {}

    def tell(self, notice: Notice) -> None:
        """Count a notice; the newest of a kind and subject speaks for all of them."""
        self._told.labels(notice.kind.value).inc()
        self._add(notice, 1)

    async def run(self, stop: asyncio.Event) -> None:
        """Write what was counted until ``stop``, and the rest then; the tellers must be done by that time."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(self._seconds):
                    await stop.wait()
            except TimeoutError:
                await self._flush()
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                while self._waiting:
                    if not await self._flush():
                        await asyncio.sleep(0.1)
        except TimeoutError:
            _log.error("operator_events_not_written", events=_said(list(self._waiting.values())))

    async def _flush(self) -> bool:
        """Write everything that was counted; False where the database is away, and it stays counted."""
        while self._waiting:
            batch = [self._waiting.pop(key) for key in list(self._waiting)[:_AT_ONCE]]
            written = False
            try:
                await self._write(batch)
                written = True
            except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
                _log.warning("operator_events_wait", error=type(error).__name__, now="kept for the next time")
            finally:
                if not written:
                    for notice, times in batch:
                        self._add(notice, times, older=True)
            if not written:
                return False
            _log.warning("operator_events", events=_said(batch))
        return True

    async def _write(self, batch: list[tuple[Notice, int]]) -> None:
        async with self._pool.acquire() as connection:
            await with_fresh_plans(lambda: count(connection, batch))

    def _add(self, notice: Notice, times: int, *, older: bool = False) -> None:
        key = (notice.kind, notice.subject)
        if key not in self._waiting and len(self._waiting) >= SUBJECTS:
            notice = replace(notice, subject=BEYOND)
            key = (notice.kind, BEYOND)
        known, before = self._waiting.get(key, (notice, 0))
        self._waiting[key] = (known if older else notice, before + times)


def _said(counted: list[tuple[Notice, int]]) -> list[str]:
    lines = [f"{notice.kind.value}: {notice.subject} x{times}" for notice, times in counted[:_LOGGED]]
    return lines if len(counted) <= _LOGGED else [*lines, f"and {len(counted) - _LOGGED} more"]

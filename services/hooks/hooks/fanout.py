"""One turn of the fan-out: some new events become calls, and their endpoints are rung."""

import structlog

from hooks.metrics import HooksMetrics
from shared.db.engine import Pool, with_fresh_plans
from shared.db.fanout import BATCH, FannedOut, fan_out
from shared.db.transaction import Bell, transaction
from shared.events import Subject

_log = structlog.get_logger(__name__)


class FanOut:
    """Turns events into calls; any number of processes may at once.

    Args:
        pool: may commit without waiting for the disk: a batch that is lost in a crash is an event that waits again.
        bell: rung for the endpoints that got calls.
        metrics: counts.
    """

    def __init__(self, pool: Pool, bell: Bell, metrics: HooksMetrics) -> None:
        self._pool = pool
        self._bell = bell
        self._metrics = metrics

    async def turn(self) -> bool:
        """Fan out one batch; returns whether more may wait."""
        done = await with_fresh_plans(self._batch)
        if done.events:
            self._metrics.events.inc(done.events)
            self._metrics.made.inc(done.calls)
            _log.debug("fanned_out", events=done.events, calls=done.calls, endpoints=len(done.endpoints))
        return done.events >= BATCH

    async def _batch(self) -> FannedOut:
        async with transaction(self._pool, self._bell) as (connection, rings):
            done = await fan_out(connection)
            if done.endpoints:
                rings.add(Subject.CALL_DUE, *map(str, sorted(done.endpoints)))
        return done

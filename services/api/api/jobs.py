"""Who steps jobs: the request that made one, for a moment, and then whichever api process looks first."""

import asyncio
from random import Random

from api.metrics import ApiMetrics
from shared.clock import Monotonic, monotonic
from shared.db import jobs
from shared.db.engine import CONNECTION_LOST, Pool, with_fresh_plans
from shared.db.jobs import Step
from shared.db.transaction import Bell
from shared.events import Subject
from shared.worker.loop import Loop

_PATIENCE_SECONDS = 1.0
"""How long a request steps its own job before it answers that the rest is done later."""
_REST = 0.5
"""Of the time that a step took: the requests of this process come first, and nobody waits for the rest of a job."""
_LOOK_AGAIN_SECONDS = 0.02


class Jobs:
    """Steps jobs for one process.

    Args:
        pool: one of its connections is used at a time.
        bell: tells the other processes of a job that is not done yet.
        metrics: counts steps.
        poll_seconds: how long to wait for work when nobody rings.
        random: jitter of that.
        clock: for the patience of requests.
    """

    def __init__(
        self,
        pool: Pool,
        bell: Bell,
        metrics: ApiMetrics,
        *,
        poll_seconds: float,
        random: Random,
        clock: Monotonic = monotonic,
    ) -> None:
        self._pool, self._bell, self._metrics, self._clock = pool, bell, metrics, clock
        self.heard = asyncio.Event()
        """Set by whoever knows of a job."""
        self._loop = Loop("jobs", self._turn, heard=self.heard, poll_seconds=poll_seconds, random=random)

    async def run(self, stop: asyncio.Event) -> None:
        """Step whatever job waits until ``stop`` is set."""
        await self._loop.run(stop)

    async def begin(self, job_id: int) -> None:
        """Step a job that was just made until it is finished or a request has waited long enough; the loops do the rest."""
        deadline = self._clock() + _PATIENCE_SECONDS
        try:
            while self._clock() < deadline:
                step = await self._step(job_id)
                if step is None and await self._is_finished(job_id):
                    return
                if step is not None and step.finished:
                    return
                if step is None:
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)  # another process has it, or an earlier job comes first
        except CONNECTION_LOST:
            pass  # it is safe in its row: the loop says what is wrong, and waits until it can go on
        self.heard.set()
        self._bell.ring(Subject.JOB_DUE)

    async def _turn(self) -> bool:
        begun = self._clock()
        if await self._step(None) is None:
            return False
        await asyncio.sleep(_REST * (self._clock() - begun))
        return True

    async def _step(self, job_id: int | None) -> Step | None:
        step = await with_fresh_plans(lambda: jobs.step(self._pool, self._bell, job_id))
        if step is not None:
            self._metrics.job_steps.inc()
        return step

    async def _is_finished(self, job_id: int) -> bool:
        async with self._pool.acquire() as connection:
            return (
                await connection.fetchval("SELECT finished_at IS NOT NULL FROM job WHERE id = $1", job_id) is not False
            )

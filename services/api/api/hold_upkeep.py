"""What holds need beside requests: ends are seen to, and what is held is counted. Any replica may make any sweep at any time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

import structlog

from api.context import Context
from shared.clock import monotonic
from shared.db import hold_rules, holds, jobs
from shared.db.engine import CONNECTION_LOST
from shared.db.transaction import session_transaction, transaction
from shared.events import Subject

_COUNT_SHARE = 50
"""Counting what is held may take a fiftieth of the time at most."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sweep:
    """One thing that is seen to."""

    name: str
    run: Callable[[], Awaitable[bool]]
    """Does some of it; returns True where there may be more right now."""


class HoldUpkeep:
    """Makes sweeps, one after the other, again and again.

    Args:
        sweeps: what to do.
        seconds: how long to wait between rounds; jittered by a tenth so that replicas do not march in step.
        random: source of the jitter.
    """

    def __init__(self, sweeps: Sequence[Sweep], *, seconds: float, random: Random) -> None:
        self._sweeps, self._seconds, self._random = sweeps, seconds, random

    async def run(self, stop: asyncio.Event) -> None:
        """Make rounds until ``stop`` is set. A sweep that fails says so and is made again in the next round."""
        while not stop.is_set():
            for sweep in self._sweeps:
                await self._make(sweep, stop)
            try:
                async with asyncio.timeout(self._seconds * self._random.uniform(0.9, 1.1)):
                    await stop.wait()
            except TimeoutError:
                continue

    async def _make(self, sweep: Sweep, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set() and await sweep.run():
                pass
        except CONNECTION_LOST as error:
            _log.warning("sweep_lost_database", sweep=sweep.name, error=type(error).__name__)
        except Exception:  # noqa: BLE001 - one sweep that trips must not stop the service, nor the other sweeps
            _log.exception("sweep_failed", sweep=sweep.name)


def sweeps(context: Context) -> list[Sweep]:
    """Return what is seen to."""
    return [
        Sweep("held_past_expiry", lambda: _fail_expired(context)),
        Sweep("ended_rules", lambda: _release_ended(context)),
        Sweep("old_rules", lambda: _forget_rules(context)),
        Sweep("old_jobs", lambda: _forget_jobs(context)),
        Sweep("held_deliveries", _Counting(context).run),
    ]


_MANY = 500


async def _fail_expired(context: Context) -> bool:
    async with transaction(context.pool, context.bell) as (connection, rings):
        ended, recorded = await holds.fail_expired(connection, limit=_MANY)
        if recorded.accounts:
            rings.add(Subject.EVENT_RECORDED, *(str(account_id) for account_id in recorded.accounts))
    return ended == _MANY


async def _release_ended(context: Context) -> bool:
    async with session_transaction(context.sessions, context.bell) as (session, rings):
        made = await hold_rules.release_ended(session)
        if made:
            rings.add(Subject.JOB_DUE)
    if made:
        context.jobs.heard.set()
    return False


async def _forget_rules(context: Context) -> bool:
    async with transaction(context.pool, context.bell) as (connection, _):
        return await hold_rules.forget_ended(connection, limit=_MANY) == _MANY


async def _forget_jobs(context: Context) -> bool:
    async with transaction(context.pool, context.bell) as (connection, _):
        return await jobs.forget_finished(connection, limit=_MANY) == _MANY


class _Counting:
    """Counts what is held, for the gauge; rarer the longer it takes, so that no backlog makes it dear."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._next = 0.0

    async def run(self) -> bool:
        begun = monotonic()
        if begun < self._next:
            return False
        async with self._context.read() as connection:
            self._context.metrics.held_deliveries.set(await holds.count_held(connection))
        self._next = monotonic() + _COUNT_SHARE * (monotonic() - begun)
        return False

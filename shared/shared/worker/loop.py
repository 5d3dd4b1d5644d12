"""The one loop: look for work, do it, then wait for the bell, the poll interval or the stop, whichever is first."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import structlog

from shared.db.engine import CONNECTION_LOST

Turn = Callable[[], Awaitable[bool]]
"""Looks for work once; returns True where there may be more right now."""

_LONGEST_PAUSE_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Loop:
    """Runs one worker's turns until it is told to stop.

    Args:
        name: for the log.
        turn: looks for work once and starts it.
        heard: set by whoever knows of new work (doorbell, a finished session); cleared before each turn.
        poll_seconds: how long to wait when nobody rings; jittered by a tenth so that replicas do not march in step.
        random: source of the jitter.
    """

    def __init__(self, name: str, turn: Turn, *, heard: asyncio.Event, poll_seconds: float, random: Random) -> None:
        self._name = name
        self._turn = turn
        self._heard = heard
        self._poll_seconds = poll_seconds
        self._random = random

    async def run(self, stop: asyncio.Event) -> None:
        """Take turns until ``stop`` is set. A lost database is waited for; any other error of a turn is a bug and ends the loop."""
        stopping = asyncio.ensure_future(stop.wait())
        failures = 0
        try:
            while not stop.is_set():
                self._heard.clear()
                try:
                    more = await self._turn()
                    failures = 0
                except CONNECTION_LOST as error:
                    failures += 1
                    pause = min(_LONGEST_PAUSE_SECONDS, 0.1 * 2**failures)
                    _log.warning("database_lost", loop=self._name, error=type(error).__name__, pause_seconds=pause)
                    await self._wait(stopping, pause, bell=False)
                    continue
                if not more:
                    await self._wait(stopping, self._poll_seconds * self._random.uniform(0.9, 1.1), bell=True)
        finally:
            stopping.cancel()

    async def _wait(self, stopping: "asyncio.Future[Any]", seconds: float, *, bell: bool) -> None:
        waits: set[asyncio.Future[Any]] = {stopping}
        hearing = asyncio.ensure_future(self._heard.wait()) if bell else None
        if hearing is not None:
            waits.add(hearing)
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if hearing is not None:
                hearing.cancel()

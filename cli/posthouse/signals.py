"""What SIGTERM and Ctrl-C mean to ``posthouse local``."""

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

from posthouse.embedded.process import Interrupted

T = TypeVar("T")

_LOOK_SECONDS = 0.1


class Signals:
    """Counts signals; everything that waits asks it.

    The first SIGTERM, SIGHUP or Ctrl-C asks for an orderly stop. A second SIGTERM changes nothing: `make` passes on what its
    group got already. A second Ctrl-C is a person who does not want to wait.
    """

    def __init__(self) -> None:
        """Count nothing yet; :meth:`install` begins."""
        self._stop = False
        self._interrupts = 0

    def install(self) -> None:
        """Catch the signals of this process from now on."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._caught)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self._stop = True
        if number == signal.SIGINT:
            self._interrupts += 1

    def stop_asked(self) -> bool:
        """Say whether to stop."""
        return self._stop

    def hurry_asked(self) -> bool:
        """Say whether to stop at once."""
        return self._interrupts > 1

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run async work to its end, or cancel it when a stop is asked for.

        Raises:
            Interrupted: it was cancelled.
        """

        async def watched() -> T:
            task = asyncio.ensure_future(work)
            while not task.done():
                if self._stop:
                    task.cancel()
                await asyncio.wait([task], timeout=_LOOK_SECONDS)
            if task.cancelled():
                raise Interrupted
            return task.result()

        return asyncio.run(watched())

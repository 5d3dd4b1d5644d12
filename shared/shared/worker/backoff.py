"""Retry schedules: data, plus a jitter from a random source that is passed in.

Those that a name stands for are here; an operator's own come from ``retry_schedule``, whose rows :func:`custom` reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from random import Random
from typing import Final


@dataclass(frozen=True, slots=True)
class Jitter:
    """A wait of ``of`` parts becomes one of ``of`` + j parts; j is a whole number, ``least`` to ``most``, drawn for each attempt."""

    of: int
    least: int
    most: int

    def vary(self, wait: timedelta, random: Random) -> timedelta:
        """Return the wait with its jitter."""
        return wait / self.of * (self.of + random.randint(self.least, self.most))


ONE_PERCENT: Final = Jitter(of=10_000, least=-100, most=100)

SHORTEST_ASKED: Final = timedelta(seconds=30)
LONGEST_ASKED: Final = timedelta(hours=1)
"""Who asks for a wait is heeded between these two; where the schedule itself would wait longer, up to that."""
SHORTENED_ATTEMPTS: Final = 20
"""After so many attempts nobody's wish makes a wait shorter any more: "in 30 seconds", for ever, would be thousands of attempts."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to wait after the n-th failed attempt, and when to stop trying."""

    name: str
    waits: tuple[timedelta, ...]
    """The wait after attempt 1, 2, ...; the last one repeats while ``give_up_after`` allows."""
    jitter: Jitter = ONE_PERCENT
    max_attempts: int | None = None
    give_up_after: timedelta | None = None
    """Age of the work at which no further attempt is planned."""

    def next_wait(
        self, attempt: int, age: timedelta, random: Random, *, asked: timedelta | None = None
    ) -> timedelta | None:
        """Return how long to wait after failed attempt ``attempt`` (from 1) of work that is ``age`` old; None to give up.

        ``asked`` is how long the other side wants us to wait. It is heeded within its bounds, and never beyond the end of
        the schedule; what comes back is then a little longer, so that we are not there a moment too early.
        """
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        own = self.plain_wait(attempt)
        if asked is not None and self._heeds(asked, own, attempt) and self._allows(age + asked):
            return asked * (1 + random.uniform(0.0, 0.02)) + timedelta(seconds=1)
        return self.jitter.vary(own, random) if self._allows(age + own) else None

    def is_last(self, attempt: int, age: timedelta) -> bool:
        """Say whether attempt ``attempt``, made when the work is ``age`` old, is the last one, unless somebody asks for a shorter wait."""
        ended = self.max_attempts is not None and attempt >= self.max_attempts
        return ended or not self._allows(age + self.plain_wait(attempt))

    def plain_wait(self, attempt: int) -> timedelta:
        """Return the wait after failed attempt ``attempt``, without jitter."""
        return self.waits[min(attempt, len(self.waits)) - 1]

    def _heeds(self, asked: timedelta, own: timedelta, attempt: int) -> bool:
        if asked < own and attempt > SHORTENED_ATTEMPTS:
            return False
        return SHORTEST_ASKED <= asked <= max(own, LONGEST_ASKED)

    def _allows(self, age: timedelta) -> bool:
        return self.give_up_after is None or age <= self.give_up_after


def _minutes(*values: float) -> tuple[timedelta, ...]:
    return tuple(timedelta(minutes=value) for value in values)


DELIVERY_DEFAULT = Schedule("default", _minutes(7.5, 15, 30, 60, 120, 240), give_up_after=timedelta(hours=72))
"""7.5 minutes doubling to 4 hours, then every 4 hours for three days."""
# mox-compatible: after attempt n it waits (450 s + j) * 2^(n-1), j from -5 to +4.
DELIVERY_MOX = Schedule(
    "mox", _minutes(7.5, 15, 30, 60, 120, 240, 480), Jitter(of=450, least=-5, most=4), max_attempts=8
)
CALLS = Schedule("calls", _minutes(1, 2, 4, 7.5, 15, 30, 60, 120, 240, 480, 960), max_attempts=12)

DELIVERY_SCHEDULES = {schedule.name: schedule for schedule in (DELIVERY_DEFAULT, DELIVERY_MOX)}


def custom(name: str, waits: Sequence[int], max_attempts: int | None, give_up_seconds: int | None) -> Schedule:
    """Return an operator's schedule; all times in seconds, as ``shared.db.retry_schedules`` has checked them."""
    return _custom(name, tuple(waits), max_attempts, give_up_seconds)


@lru_cache(maxsize=1000)
def _custom(name: str, waits: tuple[int, ...], max_attempts: int | None, give_up_seconds: int | None) -> Schedule:
    return Schedule(
        name,
        tuple(timedelta(seconds=seconds) for seconds in waits),
        max_attempts=max_attempts,
        give_up_after=None if give_up_seconds is None else timedelta(seconds=give_up_seconds),
    )

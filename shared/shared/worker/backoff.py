"""Retry schedules: data, plus a jitter from a random source that is passed in."""

from dataclasses import dataclass
from datetime import timedelta
from random import Random


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to wait after the n-th failed attempt, and when to stop trying."""

    name: str
    waits: tuple[timedelta, ...]
    """The wait after attempt 1, 2, ...; the last one repeats while ``give_up_after`` allows."""
    jitter: float
    """Each wait is varied by up to this share, both ways."""
    max_attempts: int | None = None
    give_up_after: timedelta | None = None
    """Age of the work at which no further attempt is planned."""

    def next_wait(self, attempt: int, age: timedelta, random: Random) -> timedelta | None:
        """Return how long to wait after failed attempt ``attempt`` (from 1) of work that is ``age`` old; None to give up."""
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        wait = self.waits[min(attempt, len(self.waits)) - 1]
        if self.give_up_after is not None and age + wait > self.give_up_after:
            return None
        return wait * (1 + random.uniform(-self.jitter, self.jitter))


def _minutes(*values: float) -> tuple[timedelta, ...]:
    return tuple(timedelta(minutes=value) for value in values)


DELIVERY_DEFAULT = Schedule(
    "default", _minutes(7.5, 15, 30, 60, 120, 240), jitter=0.01, give_up_after=timedelta(hours=72)
)
"""7.5 minutes doubling to 4 hours, then every 4 hours for three days."""
DELIVERY_MOX = Schedule("mox", _minutes(7.5, 15, 30, 60, 120, 240, 480), jitter=0.01, max_attempts=8)
CALLS = Schedule("calls", _minutes(1, 2, 4, 7.5, 15, 30, 60, 120, 240, 480, 960), jitter=0.01, max_attempts=12)

DELIVERY_SCHEDULES = {schedule.name: schedule for schedule in (DELIVERY_DEFAULT, DELIVERY_MOX)}

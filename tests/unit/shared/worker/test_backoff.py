"""Retry schedules as they are promised."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.worker.backoff import CALLS, DELIVERY_DEFAULT, DELIVERY_MOX, Schedule

NO_JITTER = Random(0)


def _waits(schedule: Schedule) -> list[float]:
    """The minutes waited after each attempt when every attempt fails, without jitter."""
    waits: list[float] = []
    age = timedelta()
    plain = Schedule(schedule.name, schedule.waits, 0.0, schedule.max_attempts, schedule.give_up_after)
    while (wait := plain.next_wait(len(waits) + 1, age, NO_JITTER)) is not None:
        waits.append(wait.total_seconds() / 60)
        age += wait
    return waits


def test_mox_makes_eight_attempts() -> None:
    assert _waits(DELIVERY_MOX) == [7.5, 15, 30, 60, 120, 240, 480]


def test_the_default_goes_on_every_four_hours_for_three_days() -> None:
    waits = _waits(DELIVERY_DEFAULT)
    assert waits[:7] == [7.5, 15, 30, 60, 120, 240, 240]
    assert sum(waits) <= 72 * 60 < sum(waits) + 240


def test_calls_use_all_eleven_steps() -> None:
    assert _waits(CALLS) == [1, 2, 4, 7.5, 15, 30, 60, 120, 240, 480, 960]


@pytest.mark.parametrize("schedule", [DELIVERY_DEFAULT, DELIVERY_MOX, CALLS])
@given(attempt=st.integers(1, 30), seed=st.integers())
def test_jitter_stays_within_its_share(schedule: Schedule, attempt: int, seed: int) -> None:
    wait = schedule.next_wait(attempt, timedelta(), Random(seed))
    if wait is not None:
        plain = schedule.waits[min(attempt, len(schedule.waits)) - 1]
        assert abs(wait - plain) <= plain * schedule.jitter + timedelta(microseconds=1)

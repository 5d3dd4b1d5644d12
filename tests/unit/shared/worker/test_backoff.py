"""Retry schedules as they are promised."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.worker.backoff import (
    CALLS,
    DELIVERY_DEFAULT,
    DELIVERY_MOX,
    LONGEST_ASKED,
    SHORTENED_ATTEMPTS,
    SHORTEST_ASKED,
    Jitter,
    Schedule,
    custom,
)

NO_JITTER = Random(0)


def _waits(schedule: Schedule) -> list[float]:
    """The minutes waited after each attempt when every attempt fails, without jitter."""
    waits: list[float] = []
    age = timedelta()
    plain = Schedule(schedule.name, schedule.waits, Jitter(1, 0, 0), schedule.max_attempts, schedule.give_up_after)
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


@pytest.mark.parametrize("schedule", [DELIVERY_DEFAULT, CALLS])
@given(attempt=st.integers(1, 30), seed=st.integers())
def test_jitter_is_one_percent(schedule: Schedule, attempt: int, seed: int) -> None:
    wait = schedule.next_wait(attempt, timedelta(), Random(seed))
    if wait is not None:
        plain = schedule.waits[min(attempt, len(schedule.waits)) - 1]
        assert abs(wait - plain) <= plain / 100


@given(attempt=st.integers(1, 9), seed=st.integers())
def test_mox_waits_as_mox_does(attempt: int, seed: int) -> None:
    wait = DELIVERY_MOX.next_wait(attempt, timedelta(days=300), Random(seed))
    possible = [timedelta(seconds=(450 + j) * 2 ** (attempt - 1)) for j in range(-5, 5)]
    assert wait in possible if attempt < 8 else wait is None


def test_mox_draws_each_of_its_ten_jitters() -> None:
    random = Random(1)
    drawn = {DELIVERY_MOX.next_wait(1, timedelta(), random) for _ in range(500)}
    assert drawn == {timedelta(seconds=450 + j) for j in range(-5, 5)}


SCHEDULES = st.one_of(
    st.sampled_from([DELIVERY_DEFAULT, DELIVERY_MOX, CALLS]),
    st.builds(
        lambda waits, attempts, end: custom("own", waits, attempts, end),
        st.lists(st.integers(10, 7 * 86_400), min_size=1, max_size=100),
        st.integers(1, 1000),
        st.none() | st.integers(10, 30 * 86_400),
    ),
)
ASKED = st.none() | st.timedeltas(timedelta(), timedelta(days=100_000)) | st.timedeltas(timedelta(), timedelta(hours=5))


@given(SCHEDULES, st.integers(1, 1001), st.timedeltas(timedelta(), timedelta(days=31)), ASKED, st.integers())
def test_a_wait_that_is_asked_for_is_taken_within_its_bounds_and_within_the_schedule(
    schedule: Schedule, attempt: int, age: timedelta, asked: timedelta | None, seed: int
) -> None:
    own = schedule.waits[min(attempt, len(schedule.waits)) - 1]
    wait = schedule.next_wait(attempt, age, Random(seed), asked=asked)
    fits = schedule.give_up_after is None or (asked is not None and age + asked <= schedule.give_up_after)
    heeded = (
        asked is not None
        and fits
        and SHORTEST_ASKED <= asked <= max(own, LONGEST_ASKED)
        and (attempt <= SHORTENED_ATTEMPTS or asked >= own)
    )
    if schedule.max_attempts is not None and attempt >= schedule.max_attempts:
        assert wait is None
    elif heeded and asked is not None:
        assert wait is not None
        assert asked + timedelta(seconds=1) <= wait <= asked * 1.02 + timedelta(seconds=2)
    else:
        assert wait == schedule.next_wait(attempt, age, Random(seed))


@given(SCHEDULES, st.integers())
def test_the_attempt_that_is_the_last_is_known_before(schedule: Schedule, seed: int) -> None:
    random, attempt, age = Random(seed), 1, timedelta()
    while (wait := schedule.next_wait(attempt, age, random)) is not None:
        assert not schedule.is_last(attempt, age)
        attempt, age = attempt + 1, age + wait
        if attempt > 1200:
            return
    assert schedule.is_last(attempt, age)


@pytest.mark.parametrize(
    ("age", "asked", "seconds"),
    [
        (timedelta(hours=69), timedelta(minutes=5), 300),  # the schedule's own wait would be too late, this one is not
        (timedelta(hours=71, minutes=50), timedelta(minutes=30), None),
        (timedelta(hours=67), timedelta(hours=4, minutes=1), 4 * 3600),  # longer than is heeded
    ],
)
def test_the_end_of_the_schedule_holds_for_what_is_asked(age: timedelta, asked: timedelta, seconds: int | None) -> None:
    wait = DELIVERY_DEFAULT.next_wait(6, age, Random(1), asked=asked)
    if seconds is None:
        assert wait is None
    else:
        assert wait is not None
        assert abs(wait.total_seconds() - seconds) <= seconds / 50 + 1


def test_a_server_that_always_asks_for_half_a_minute_does_not_get_a_thousand_attempts() -> None:
    random, attempt, age = Random(1), 1, timedelta()
    while (wait := DELIVERY_DEFAULT.next_wait(attempt, age, random, asked=timedelta(seconds=30))) is not None:
        attempt, age = attempt + 1, age + wait
    assert attempt < 50
    assert age > timedelta(hours=67)


def test_an_own_schedule_is_made_of_its_row() -> None:
    schedule = custom("own", [60, 120], 5, 600)
    assert schedule.waits == (timedelta(minutes=1), timedelta(minutes=2))
    assert _waits(schedule) == [1, 2, 2, 2]
    assert _waits(custom("own", [60, 120], None, 300)) == [1, 2, 2]

"""The pace of slots: together they never exceed the rate, whoever holds them."""

import asyncio
from random import Random

import pytest

from delivery.traffic import Pace
from shared.mail.traffic import Traffic


@pytest.mark.parametrize("pace", [1.0, 0.5])
def test_slots_together_keep_the_rate_and_one_message_each(pace: float) -> None:
    """Slots change hands whenever their holders like, which is when their wait is over."""
    random, now = Random(7), 0.0
    rate, connections = 20.0, 5
    sent: list[float] = []

    def slot() -> Pace:
        made = Pace(clock=lambda: now)
        made.set(Traffic(connections, rate), pace)
        return made

    slots = [slot() for _ in range(connections)]
    while now < 60:
        for place in range(connections):
            if slots[place].wait > 0:
                continue
            if random.random() < 0.3:
                slots[place] = slot()  # given back, and taken by somebody else
            if random.random() < 0.8:
                slots[place].spend(1)
                sent.append(now)
        now += 0.01
    for seconds in (1, 5, 20):
        for start in range(60 - seconds):
            count = sum(start <= moment < start + seconds for moment in sent)
            assert count <= rate * pace * seconds + connections
    assert len(sent) > rate * pace * 60 * 0.8


def test_messages_beyond_the_first_of_a_turn_are_waited_for_afterwards() -> None:
    made = Pace(clock=lambda: 100.0)
    made.set(Traffic(2, 4.0), 1.0)
    assert made.wait == 0
    made.spend(1)
    assert made.wait == 0.5
    made.spend(3)
    assert made.wait == 2.0


async def test_without_a_rate_nobody_waits_and_a_stop_ends_a_wait() -> None:
    free = Pace(clock=lambda: 100.0)
    free.set(Traffic(5), 1.0)
    free.spend(1000)
    stop = asyncio.Event()
    assert await free.turn(stop)
    slow = Pace(clock=lambda: 100.0)
    slow.set(Traffic(5, 0.01), 1.0)
    slow.spend(1)
    waiting = asyncio.ensure_future(slow.turn(stop))
    stop.set()
    assert not await asyncio.wait_for(waiting, 10)

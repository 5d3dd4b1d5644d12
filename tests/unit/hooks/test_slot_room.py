import asyncio

from hooks.slot import FIRST_WINDOW, Room, Windows


def test_a_stranger_gets_a_small_window_that_opens_with_each_answer() -> None:
    windows = Windows(8)
    assert windows.of(1) == FIRST_WINDOW
    for _ in range(20):
        windows.learn(1, answered=True)
    assert windows.of(1) == 8
    assert windows.of(2) == FIRST_WINDOW


def test_each_missing_answer_halves_the_window_down_to_one() -> None:
    windows = Windows(8)
    for _ in range(6):
        windows.learn(1, answered=True)
    sizes = []
    for _ in range(5):
        windows.learn(1, answered=False)
        sizes.append(windows.of(1))
    assert sizes == [4, 2, 1, 1, 1]


def test_no_window_is_larger_than_the_most() -> None:
    windows = Windows(1)
    windows.learn(1, answered=True)
    assert (windows.of(1), windows.of(2)) == (1, 1)


async def test_whoever_waited_longest_gets_the_next_place() -> None:
    room = Room(1)
    await room.enter()
    order: list[int] = []

    async def guest(number: int) -> None:
        await room.enter()
        order.append(number)
        room.leave()

    guests = [asyncio.create_task(guest(number)) for number in range(3)]
    await asyncio.sleep(0)
    guests[1].cancel()  # gave up waiting; its place goes to the next
    room.leave()
    await asyncio.gather(*guests, return_exceptions=True)
    assert order == [0, 2]
    assert room.free == 1

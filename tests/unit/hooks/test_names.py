import asyncio
import socket
import threading

import pytest

from hooks.names import REMEMBERED_SECONDS, Names


class Directory:
    """Stands for the system: counts what it is asked, and can keep an answer back."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()
        self.answer.set()

    def __call__(self, host: str) -> tuple[str, ...]:
        self.asked.append(host)
        self.answer.wait(10)
        if host == "nowhere.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ("192.0.2.1", "192.0.2.2")


async def test_an_answer_is_used_again_for_a_few_seconds() -> None:
    directory, now = Directory(), 100.0
    names = Names(directory, clock=lambda: now)
    assert await names.resolve("a.test") == ("192.0.2.1", "192.0.2.2")
    now += REMEMBERED_SECONDS - 1
    await names.resolve("a.test")
    assert directory.asked == ["a.test"]
    now += 1
    await names.resolve("a.test")
    assert directory.asked == ["a.test", "a.test"]


async def test_a_name_without_addresses_is_an_error_every_time() -> None:
    directory = Directory()
    names = Names(directory)
    for _ in range(2):
        with pytest.raises(OSError, match="not known"):
            await names.resolve("nowhere.test")
    assert len(directory.asked) == 2


async def test_a_name_that_hangs_is_asked_once_and_holds_up_nobody() -> None:
    directory = Directory()
    directory.answer.clear()
    names = Names(directory)
    hanging = [asyncio.create_task(names.resolve("slow.test")) for _ in range(5)]
    given_up = asyncio.create_task(names.resolve("slow.test"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert not any(task.done() for task in hanging)
    directory.answer.set()
    assert await asyncio.gather(*hanging) == [("192.0.2.1", "192.0.2.2")] * 5
    assert directory.asked == ["slow.test"]


async def test_the_system_knows_this_machine() -> None:
    assert "127.0.0.1" in await Names().resolve("localhost")


async def test_what_is_no_host_name_is_an_error_like_others() -> None:
    with pytest.raises(OSError):
        await Names().resolve("a" * 70 + ".test")

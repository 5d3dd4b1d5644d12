"""The doorbell: fast when it works, harmless when it does not."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from fakes.waiting import eventually
from posthouse.embedded.nats import EmbeddedNats
from shared.bus import Bus
from shared.events import Subject


@pytest.fixture
async def buses() -> AsyncIterator[list[Bus]]:
    opened: list[Bus] = []
    yield opened
    await asyncio.gather(*(bus.close() for bus in opened))


def _listener(url: str, heard: list[tuple[str, ...]], *, group: str | None = None) -> Bus:
    bus = Bus(url, name="test")
    bus.listen(Subject.DELIVERY_DUE, heard.append, group=group)
    bus.start()
    return bus


async def test_a_ring_reaches_one_of_a_group_and_everyone_without_a_group(nats_url: str, buses: list[Bus]) -> None:
    one: list[tuple[str, ...]] = []
    two: list[tuple[str, ...]] = []
    alone: list[tuple[str, ...]] = []
    buses += [
        _listener(nats_url, one, group="workers"),
        _listener(nats_url, two, group="workers"),
        _listener(nats_url, alone),
    ]
    await eventually(lambda: all(bus.connected for bus in buses) and one and two and alone)
    for heard in (one, two, alone):
        heard.clear()  # the ring that everyone gives itself on connecting
    ringer = Bus(nats_url, name="ringer")
    buses.append(ringer)
    ringer.start()
    await eventually(lambda: ringer.connected)
    ringer.ring(Subject.DELIVERY_DUE, "domain:b.test")
    await eventually(lambda: alone == [("domain:b.test",)])
    assert one + two == [("domain:b.test",)]


async def test_many_rings_are_few_messages_and_lose_no_name(nats_url: str, buses: list[Bus]) -> None:
    heard: list[tuple[str, ...]] = []
    listener = _listener(nats_url, heard)
    ringer = Bus(nats_url, name="ringer")
    buses += [listener, ringer]
    ringer.start()
    await eventually(lambda: ringer.connected and heard)
    heard.clear()
    for number in range(400):
        ringer.ring(Subject.DELIVERY_DUE, f"domain:d{number}")
    await eventually(lambda: len({name for names in heard for name in names}) == 400)
    assert len(heard) < 40


async def test_a_bus_without_a_server_takes_rings_and_reconnects_by_itself(
    private_nats: EmbeddedNats, buses: list[Bus]
) -> None:
    heard: list[tuple[str, ...]] = []
    bus = _listener(private_nats.url, heard)
    buses.append(bus)
    await eventually(lambda: bus.connected)
    private_nats.stop()
    await eventually(lambda: not bus.connected)
    bus.ring(Subject.DELIVERY_DUE, "lost")
    heard.clear()
    private_nats.start()
    await eventually(lambda: bus.connected, timeout=20)
    assert heard  # whoever was away looks everywhere once it is back
    assert ("lost",) not in heard


async def test_a_mute_bus_and_one_that_never_finds_its_server_change_nothing(buses: list[Bus]) -> None:
    mute, lonely = Bus(None, name="mute"), Bus("nats://127.0.0.1:1", name="lonely")
    buses += [mute, lonely]
    for bus in buses:
        bus.start()
        bus.ring(Subject.DELIVERY_DUE, "x")
        assert not bus.connected

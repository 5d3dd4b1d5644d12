"""Batches form while one runs; a bad item fails alone; a lost connection fails the batch."""

import asyncio
from collections.abc import Sequence

import pytest
import structlog

from shared.errors import Overloaded
from shared.worker.coalesce import Coalescer, Limits


class Recorder:
    """Doubles numbers; waits at the gate, so that a test decides when a batch ends."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await self.gate.wait()
        if any(item == 13 for item in items):
            raise ValueError("13")
        if any(item == 99 for item in items):
            raise ConnectionResetError
        return [2 * item for item in items]


async def _submit(coalescer: Coalescer[int, int], *items: int) -> list["asyncio.Task[int]"]:
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in items]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_a_lone_item_waits_for_nobody_and_later_ones_share_the_next_batch() -> None:
    run = Recorder()
    coalescer = Coalescer(run)
    tasks = await _submit(coalescer, 1)
    tasks += await _submit(coalescer, 2, 3, 4)
    run.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert run.batches == [[1], [2, 3, 4]]


async def test_batches_are_bounded_in_items_and_weight() -> None:
    run = Recorder()
    run.gate.set()
    by_items = Coalescer(run, limits=Limits(items=2))
    await asyncio.gather(*await _submit(by_items, 1, 2, 3, 4, 5))
    assert max(len(batch) for batch in run.batches) == 2
    run.batches.clear()
    by_weight = Coalescer(run, limits=Limits(weight=10), weigh=lambda item: item)
    await asyncio.gather(*await _submit(by_weight, 6, 6, 50, 1))
    assert [6, 6] not in run.batches
    assert [50] in run.batches


async def test_a_bad_item_fails_alone() -> None:
    run = Recorder()
    coalescer = Coalescer(run)
    first = await _submit(coalescer, 1)
    rest = await _submit(coalescer, 2, 13, 4)
    run.gate.set()
    results = await asyncio.gather(*first, *rest, return_exceptions=True)
    assert results[0:2] == [2, 4]
    assert isinstance(results[2], ValueError)
    assert results[3] == 8


async def test_a_lost_connection_fails_the_batch_and_is_not_repeated() -> None:
    run = Recorder()
    coalescer = Coalescer(run, whole=(ConnectionError,))
    first = await _submit(coalescer, 1)
    rest = await _submit(coalescer, 2, 99)
    run.gate.set()
    results = await asyncio.gather(*first, *rest, return_exceptions=True)
    assert results[0] == 2
    assert all(isinstance(result, ConnectionResetError) for result in results[1:])
    assert run.batches == [[1], [2, 99]]


async def test_a_full_queue_refuses() -> None:
    run = Recorder()
    coalescer = Coalescer(run, limits=Limits(waiting=2))
    tasks = await _submit(coalescer, 1)
    tasks += await _submit(coalescer, 2, 3)
    with pytest.raises(Overloaded):
        await coalescer.submit(4)
    run.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]


async def test_a_caller_that_went_away_is_not_run_for_and_harms_nobody() -> None:
    run = Recorder()
    coalescer = Coalescer(run)
    first = await _submit(coalescer, 1)
    gone, stays = await _submit(coalescer, 2, 3)
    gone.cancel()
    run.gate.set()
    assert await first[0] == 2
    assert await stays == 6
    assert run.batches == [[1], [3]]


async def test_drain_waits_for_everything_submitted() -> None:
    run = Recorder()
    coalescer = Coalescer(run)
    tasks = await _submit(coalescer, 1)
    tasks += await _submit(coalescer, 2)
    draining = asyncio.create_task(coalescer.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    run.gate.set()
    await draining
    assert all(task.done() for task in tasks)


async def test_the_log_does_not_quote_what_was_refused() -> None:
    async def refuse(items: Sequence[str]) -> list[str]:
        raise ValueError(f"Failing row contains ({items[0]})")

    coalescer = Coalescer(refuse)
    with structlog.testing.capture_logs() as lines:
        await asyncio.gather(
            *(coalescer.submit(address) for address in ("a@b.test", "c@d.test")), return_exceptions=True
        )

    assert [line["event"] for line in lines] == ["batch_failed"]
    assert "a@b.test" not in str(lines)

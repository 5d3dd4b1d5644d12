"""Batches that form by themselves: what is submitted while a batch runs goes into the next one.

No timer, so a lone item waits for nobody; under load the batches grow to what the database can take.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from shared.errors import Overloaded

T = TypeVar("T")
R = TypeVar("R")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a batch and the queue before it may get."""

    items: int = 256
    """Items in a batch at most."""
    weight: int = 4 * 1024 * 1024
    """Sum of the weights (bytes) in a batch at most; a heavier item goes alone."""
    waiting: int = 10_000
    """Items that may wait; beyond it :meth:`Coalescer.submit` raises Overloaded."""


class Coalescer(Generic[T, R]):
    """Runs one function over batches of what many callers submit.

    Args:
        run: takes a batch and returns as many results in the same order.
        whole: says whether an error concerns the batch as a whole (a lost connection); any other error makes the items run
            one by one, so that a bad one fails alone.
        limits: sizes.
        weigh: bytes of an item; 0 by default.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        whole: tuple[type[BaseException], ...] = (),
        limits: Limits | None = None,
        weigh: Callable[[T], int] | None = None,
    ) -> None:
        self._run = run
        self._whole = whole
        self._limits = limits or Limits()
        self._weigh = weigh or (lambda _: 0)
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Have ``item`` run in the next batch and return its result.

        Raises:
            Overloaded: too many items wait already.
            Exception: whatever the function raised for this item or its batch.
        """
        if len(self._waiting) >= self._limits.waiting:
            raise Overloaded
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await future

    @property
    def waiting(self) -> int:
        """How many items wait for a batch."""
        return len(self._waiting)

    async def drain(self) -> None:
        """Wait until everything submitted so far has run."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._run_batch(self._next_batch())
        finally:
            self._task = None

    def _next_batch(self) -> list[tuple[T, "asyncio.Future[R]"]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        weight = 0
        while self._waiting and len(batch) < self._limits.items:
            weight += self._weigh(self._waiting[0][0])
            if batch and weight > self._limits.weight:
                break
            item, future = self._waiting.popleft()
            if not future.done():  # its caller went away before it began
                batch.append((item, future))
        return batch

    async def _run_batch(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        if not batch:
            return
        try:
            results = await self._run([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - every error is handed to the callers, none is swallowed
            # A ValueError is about one item's values, even where it is a driver's InterfaceError as well.
            if len(batch) == 1 or (isinstance(error, self._whole) and not isinstance(error, ValueError)):
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                return
            # Not its text: Postgres quotes the row that it refused, recipient and all.
            sqlstate = getattr(error, "sqlstate", None)
            _log.warning(
                "batch_failed", items=len(batch), error=type(error).__name__, sqlstate=sqlstate, now="one by one"
            )
            for pair in batch:
                await self._run_batch([pair])
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

"""The life of a slot: one endpoint, some of its calls in flight, until it has no more.

How many are in flight follows the endpoint: each answer opens the window by one, each missing answer halves it, and the next
slot begins where the last one ended. So an endpoint that does not answer holds one place of the process, not its whole share.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import structlog

from hooks.call import Caller
from hooks.ledger import Ledger, Started
from hooks.metrics import HooksMetrics
from hooks.outcome import Answer, Tried, decide
from hooks.payload import FORMAT, PayloadImpossible, build
from shared.clock import Clock, monotonic
from shared.db.calls import CallResult
from shared.db.queue import Claimed

FIRST_WINDOW = 2
_REMEMBERED_WINDOWS = 10_000

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Room:
    """The calls that a process may have in flight.

    Attributes:
        size: all places.
        free: places that nobody has; negative never.
    """

    size: int
    free: int = field(init=False)
    _places: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.free = self.size
        self._places = asyncio.Semaphore(self.size)

    async def enter(self) -> None:
        """Take a place; whoever waited longest gets the next."""
        await self._places.acquire()
        self.free -= 1

    def leave(self) -> None:
        """Give the place back."""
        self.free += 1
        self._places.release()


class Windows:
    """How many calls the endpoints of this process may have in flight, as they have answered so far."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[int, int] = {}

    def of(self, site_id: int) -> int:
        """Return the window of an endpoint's slot."""
        return self._known.get(site_id, min(FIRST_WINDOW, self._most))

    def learn(self, site_id: int, *, answered: bool) -> None:
        """Open the window by one after an answer, halve it where none came."""
        if len(self._known) >= _REMEMBERED_WINDOWS:
            self._known.clear()
        now = self.of(site_id)
        self._known[site_id] = min(now + 1, self._most) if answered else max(1, now // 2)


@dataclass(frozen=True, slots=True)
class Tools:
    """What every slot uses."""

    ledger: Ledger
    caller: Caller
    room: Room
    windows: Windows
    metrics: HooksMetrics
    clock: Clock
    random: Random
    per_endpoint: int
    poll_seconds: float


class Slot:
    """One slot of an endpoint, held by this process.

    Args:
        tools: what every slot uses.
        worker_id: who claimed; ours, unless we have been declared dead since.
        claimed: the rows that came with it; at least one.
    """

    def __init__(self, tools: Tools, worker_id: int, claimed: Sequence[Claimed]) -> None:
        self._tools = tools
        self._id = claimed[0].slot_id
        self._worker_id = worker_id
        self._waiting = deque(row.id for row in claimed)
        self._more = len(claimed) >= tools.per_endpoint
        self._site_id = claimed[0].site_id
        self._flying: set[asyncio.Task[None]] = set()
        self._at_the_door: dict[asyncio.Task[None], int] = {}
        """Calls that wait for a place in the room: nothing is written of them yet."""
        self._posting: set[asyncio.Timeout] = set()
        self._interrupted = False

    @property
    def id(self) -> int:
        """The slot's id."""
        return self._id

    @property
    def unstarted(self) -> list[int]:
        """Calls that it holds and that have not passed the gate."""
        return [*self._waiting, *self._at_the_door.values()]

    async def serve(self, stop: asyncio.Event) -> None:
        """Make the endpoint's calls until it has no more, or until ``stop``; then finish what was started."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set() and await self._fill():
                waits: set[asyncio.Future[Any]] = {*self._flying, stopping}
                done, _ = await asyncio.wait(
                    waits, timeout=self._tools.poll_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                # After a while without an end of anything: perhaps more came for an endpoint that answers slowly.
                self._more = self._more or not done
                self._forget_finished()
            await self._finish()
        except Exception:
            await self._finish()  # what broke the slot does not cost the calls in flight their results
            raise
        finally:
            stopping.cancel()
            for task in self._flying:
                task.cancel()

    def interrupt(self) -> None:
        """Give up requests that have no answer yet; they count as attempts and are tried again."""
        self._interrupted = True
        for deadline in self._posting:
            deadline.reschedule(0)

    async def _fill(self) -> bool:
        """Start what the window has room for, claiming more where it runs out; False where there is nothing left to do."""
        tools, window = self._tools, self._tools.windows.of(self._site_id)
        if not self._waiting and self._more and len(self._flying) < window:
            rows = await tools.ledger.refill(self._worker_id, self._id, tools.per_endpoint)
            self._waiting.extend(row.id for row in rows)
            self._more = len(rows) >= tools.per_endpoint
        while self._waiting and len(self._flying) < window:
            call_id = self._waiting.popleft()
            task = asyncio.create_task(self._one(call_id), name=f"call {call_id}")
            self._flying.add(task)
            self._at_the_door[task] = call_id
        return bool(self._flying)

    async def _finish(self) -> None:
        for task in self._at_the_door:
            task.cancel()
        unstarted = self.unstarted
        while self._flying:
            await asyncio.wait(self._flying)
            self._forget_finished()
        await self._tools.ledger.release(self._worker_id, unstarted)
        await self._tools.ledger.return_slot(self._worker_id, self._id)

    def _forget_finished(self) -> None:
        for task in [task for task in self._flying if task.done()]:
            self._flying.discard(task)
            self._at_the_door.pop(task, None)
            if not task.cancelled() and (error := task.exception()) is not None:
                # Its row stays ours until we leave, and is then counted as lost.
                _log.error("call_not_settled", task=task.get_name(), exc_info=error)

    async def _one(self, call_id: int) -> None:
        tools = self._tools
        await tools.room.enter()
        try:
            task = asyncio.current_task()
            if task is not None:
                self._at_the_door.pop(task, None)
            started = await tools.ledger.start(self._worker_id, call_id)
            if started is None:
                return
            begun = monotonic()
            answer = await self._make(started)
            seconds = monotonic() - begun
        finally:
            tools.room.leave()
        tools.windows.learn(self._site_id, answered=answer.code != 0)
        created_at = started.call.created_at if started.call else tools.clock()
        tried = Tried(call_id, self._worker_id, started.attempt, created_at)
        result = decide(tried, answer, now=tools.clock(), random=tools.random)
        await tools.ledger.settle(result)
        self._record(started, result, seconds)

    async def _make(self, started: Started) -> Answer:
        tools = self._tools
        try:
            body = build(started.call, started.target.format if started.target else FORMAT)
        except PayloadImpossible as error:
            return Answer(0, str(error), permanent=True)
        if started.target is None:
            return Answer(0, "the endpoint was removed", permanent=True)
        tools.metrics.in_flight.inc()
        try:
            async with asyncio.timeout(0 if self._interrupted else None) as deadline:
                self._posting.add(deadline)
                try:
                    return await tools.caller.post(started.target, started.call_id, body)
                finally:
                    self._posting.discard(deadline)
        except TimeoutError:
            return Answer(0, "interrupted: the service was stopped before the endpoint had answered")
        except Exception as error:  # noqa: BLE001 - a call that trips us ends as others do, with its reason, not in a loop
            _log.exception("call_broke", call_id=started.call_id)
            return Answer(0, f"internal error ({type(error).__name__})")
        finally:
            tools.metrics.in_flight.dec()

    def _record(self, started: Started, result: CallResult, seconds: float) -> None:
        """Count and log one attempt: the one wide line of it. URLs may hold secrets, so only ids name the endpoint."""
        metrics = self._tools.metrics
        outcome = result.state.value if result.state else "retry"
        metrics.calls.labels(outcome).inc()
        metrics.seconds.labels(outcome).observe(seconds)
        call = started.call
        _log.info(
            "call",
            call_id=started.call_id,
            event_id=call.event.id if call and call.event else None,
            delivery_id=call.event.delivery_id if call and call.event else None,
            endpoint_id=call.endpoint_id if call else None,
            account_id=call.account_id if call else None,
            attempt=started.attempt,
            event_type=call.event.type if call and call.event else None,
            code=result.code,
            seconds=round(seconds, 4),
            retry_in_seconds=result.retry_in and round(result.retry_in.total_seconds()),
            problem=result.text,
            result=outcome,
        )

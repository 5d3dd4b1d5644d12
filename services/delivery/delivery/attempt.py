"""One attempt of a group of mails: the bytes, the start gate, one transaction, and what became of each recipient."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import structlog

from delivery.dial import NO_FACTS, Dialer, Line
from delivery.ledger import Ledger
from delivery.outcome import Result, Tried, decide, expired
from delivery.prepare import BodyBudget, Mail
from delivery.sandbox import with_report
from delivery.seen import ProvidersSeen
from delivery.signing import NoUsableKey, Signers, ToSign
from delivery.sites import Sites
from delivery.traffic import TrafficRules
from shared.clock import Clock
from shared.db.engine import CONNECTION_LOST, Pool
from shared.db.lanes import Lanes
from shared.db.outcomes import Outcome, Source
from shared.db.routing import Routing
from shared.db.starts import Verdict
from shared.events import EventType
from shared.worker.operator_events import OperatorEvents

UNSETTLED_AHEAD = 4
"""Results a session may run ahead of what is written: what a crash could double. A larger group goes when all else is written."""

_log = structlog.get_logger(__name__)

Record = Callable[[Mail, Outcome, float], None]
"""Told of each attempt: the mail, what became of it, seconds."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What every slot uses."""

    pool: Pool
    ledger: Ledger
    dialer: Dialer
    signers: Signers
    bodies: BodyBudget
    lanes: Lanes
    routing: Routing
    operator_events: OperatorEvents
    relay: str | None
    """The way of mail that no route is about."""
    clock: Clock
    random: Random
    sites: Sites
    seen: ProvidersSeen
    traffic: TrafficRules
    recipients: int
    """In one transaction, at most."""

    def forget(self) -> None:
        """Look up again what somebody may have changed."""
        self.signers.forget()
        self.traffic.forget()
        self.routing.forget()


class Attempts:
    """Makes the attempts of one slot.

    Args:
        tools: what every slot uses.
        worker_id: who holds the mails.
        record: told of each attempt.
    """

    def __init__(self, tools: Tools, worker_id: int, record: Record) -> None:
        self.unstarted: set[int] = set()
        """Deliveries that the slot holds and must give back whatever happens."""
        self._tools = tools
        self._worker_id = worker_id
        self._record = record
        self._ahead = Ahead(UNSETTLED_AHEAD)
        self._writing: set[asyncio.Task[None]] = set()

    async def make(self, group: Sequence[Mail], line: Line | None, known: Result | None = None) -> None:
        """Try to send a group over ``line``; where the result is known beforehand, the attempts are only recorded."""
        await self._ahead.take(len(group))
        handed_over = 0
        try:
            for outcome in await self._outcomes(group, line, known):
                self._later(self._settle(outcome))
                handed_over += 1
        finally:
            self._ahead.give(len(group) - handed_over)

    async def stopped(self, mail: Mail, verdict: Verdict) -> None:
        """Settle or release what the gate did not let through, as what it now is."""
        ledger, worker_id = self._tools.ledger, self._worker_id
        _log.info(
            "attempt_stopped", delivery_id=mail.delivery_id, account_id=mail.candidate.account_id, verdict=verdict.value
        )
        match verdict:
            case Verdict.HELD:
                await ledger.hold(worker_id, mail.candidate)
            case Verdict.DISABLED:
                await ledger.release(worker_id, [mail.delivery_id], disabled=True)
            case Verdict.SUPPRESSED:
                text = "the recipient is on the suppression list"
                await ledger.settle(
                    Outcome(mail.delivery_id, Source.GATE, EventType.SUPPRESSED, worker_id=worker_id, text=text)
                )
            case Verdict.EXPIRED:
                await ledger.settle(expired(mail.delivery_id, worker_id))
            case Verdict.CANCELED:
                await ledger.settle(Outcome(mail.delivery_id, Source.GATE, EventType.CANCELED, worker_id=worker_id))
            case Verdict.NOT_OURS | Verdict.START:
                pass
        self.unstarted.discard(mail.delivery_id)

    async def written(self) -> None:
        """Wait until the results of all attempts are durable."""
        if self._writing:
            await asyncio.wait(self._writing)

    async def _outcomes(self, group: Sequence[Mail], line: Line | None, known: Result | None) -> list[Outcome]:
        if line is None or known is not None:
            return await self._start_and_send(group, line, b"", known)
        # Everything slow comes before the gate, so that MAIL FROM follows it at once.
        async with self._tools.bodies.content(self._tools.pool, group[0]) as stored:
            content, trouble = await self._signed(group[0], stored)
            return await self._start_and_send(group, line, content, trouble)

    async def _signed(self, mail: Mail, stored: bytes) -> tuple[bytes, Result | None]:
        """Return the bytes to send; for a message that trips our own code, the result of its attempt instead."""
        candidate = mail.candidate
        try:
            signature = await self._tools.signers.signature(
                candidate.account_id,
                candidate.sender_domain,
                ToSign(mail.message_id, mail.header_size),
                stored,
                now=self._tools.clock(),
            )
        except CONNECTION_LOST:
            raise
        except NoUsableKey as error:  # an operator can mend it while the mail waits
            return b"", Result(accepted=False, code=0, enhanced="", text=error.message, facts=NO_FACTS)
        except Exception as error:  # noqa: BLE001 - one poisonous message ends by its own schedule and harms no other
            _log.exception("signing_failed", delivery_id=mail.delivery_id)
            text = f"internal error while signing ({type(error).__name__})"
            return b"", Result(accepted=False, code=0, enhanced="", text=text, facts=NO_FACTS)
        return signature + stored, None

    async def _start_and_send(
        self, group: Sequence[Mail], line: Line | None, content: bytes, known: Result | None
    ) -> list[Outcome]:
        gates = await self._tools.ledger.start(self._worker_id, [mail.candidate for mail in group])
        started = []
        for mail in group:
            verdict = gates[mail.delivery_id].verdict
            if verdict is Verdict.START:
                started.append(mail)
                self.unstarted.discard(mail.delivery_id)
            else:
                self._later(self._stop(mail, verdict))  # those who may go do not wait for it
        if not started:
            return []
        begun = asyncio.get_running_loop().time()
        if known is None and line is not None:
            results = await line.send(started, content)
        else:
            nothing = Result(accepted=False, code=0, enhanced="", text="there is no session", facts=NO_FACTS)
            results = [known or nothing] * len(started)
        seconds = asyncio.get_running_loop().time() - begun
        outcomes = [
            self._outcome(mail, gates[mail.delivery_id].attempt, result)
            for mail, result in zip(started, results, strict=True)
        ]
        for mail, outcome in zip(started, outcomes, strict=True):
            self._record(mail, outcome, seconds)
        return outcomes

    def _outcome(self, mail: Mail, attempt: int, result: Result) -> Outcome:
        now = self._tools.clock()
        tried = Tried(
            mail.delivery_id,
            self._worker_id,
            attempt,
            age=now - mail.tried_since if mail.tried_since else timedelta(),
            schedule=mail.schedule,
            time_left=mail.expires_at - now if mail.expires_at else None,
        )
        outcome = decide(tried, result, random=self._tools.random)
        return with_report(mail, outcome) if mail.is_test else outcome

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _settle(self, outcome: Outcome) -> None:
        try:
            await self._tools.ledger.settle(outcome)
        except Exception:  # noqa: BLE001 - said once, here; nobody awaits this task's result
            # Its row stays started and ours until we leave, and is then counted as lost.
            _log.exception("result_not_written", delivery_id=outcome.delivery_id)
        finally:
            self._ahead.give(1)

    async def _stop(self, mail: Mail, verdict: Verdict) -> None:
        try:
            await self.stopped(mail, verdict)
        except Exception:  # noqa: BLE001 - said once, here; nobody awaits this task's result
            # It stays among what was not started, and is given back with the slot.
            _log.exception("stop_not_written", delivery_id=mail.delivery_id)


class Ahead:
    """Counts the results that are not written yet, for one task that makes them and any that write them.

    Args:
        most: how many may be under way.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._fewer = asyncio.Event()

    async def take(self, count: int) -> None:
        """Wait until that many more may be under way; more than may ever be go alone."""
        while self._count and self._count + count > self._most:
            self._fewer.clear()
            await self._fewer.wait()
        self._count += count

    def give(self, count: int) -> None:
        """Say that so many are written, or will never be there."""
        self._count -= count
        self._fewer.set()

"""The life of a slot: one site, one session, mail after mail.

:meth:`Courier.serve` is the table of contents; each step is a method below it, in order.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import structlog

from delivery.dial import NO_FACTS, Dialer, Line, Undeliverable
from delivery.ledger import Ledger
from delivery.outcome import Result, Tried, decide, expired, notice
from delivery.prepare import BodyBudget, Mail, load
from delivery.sandbox import simulate, with_report
from delivery.signing import NoUsableKey, Signers, ToSign
from shared.clock import Clock
from shared.db.engine import CONNECTION_LOST, Pool, with_fresh_plans
from shared.db.lanes import SANDBOX, Lanes, SiteName, parse_site, relane
from shared.db.outcomes import Outcome, Source
from shared.db.queue import DELIVERIES, Claimed
from shared.db.routing import Parcel, Routing
from shared.db.starts import Verdict
from shared.events import EventType
from shared.metrics import Metrics
from shared.worker.operator_events import OperatorEvents

LANES_PER_REFILL = 4
ROWS_PER_REFILL = 25
UNSETTLED_AHEAD = 4
"""Results a session may run ahead of what is written: what a crash could double."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to one session with a site."""

    id: int
    site_id: int
    worker_id: int


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


class Courier:
    """Serves slots."""

    def __init__(self, tools: Tools, metrics: Metrics) -> None:
        self._tools = tools
        self._sites: dict[int, SiteName] = {}
        self._runs: set[_Run] = set()
        self.claiming = asyncio.Lock()
        """Held by whoever claims until it has noted what it holds: recovering must not mistake an answer on its way for a lost one."""
        self.answer_lost = False
        """A claim for more may have been made whose answer never came; whoever recovers from it clears this."""
        self._attempts = metrics.counter("attempts", "Attempts by what became of them.", ("result",))
        self._seconds = metrics.seconds("attempt", "From the start gate to the last reply.", ("result",))

    def serve(self, slot: Slot, claimed: list[Claimed], stop: asyncio.Event) -> Coroutine[None, None, None]:
        """Note what was claimed for the slot at once; the coroutine sends it, and what can be claimed after it, until the site has no more."""
        run = _Run(self, slot)
        run.hold(claimed)
        self._runs.add(run)
        return self._serve(run, slot, claimed, stop)

    async def _serve(self, run: "_Run", slot: Slot, claimed: list[Claimed], stop: asyncio.Event) -> None:
        try:
            while claimed:
                run.site = await self._site(slot.site_id)
                mails = await run.load(claimed)
                mails = await run.reroute(mails)
                if run.site != SANDBOX and (run.line is None or not run.line.usable):
                    mails = await run.judge(mails)  # nothing is dialed for what would be stopped
                if not await run.send_all(mails, stop) or stop.is_set():
                    break
                claimed = await self._refill(run, slot)
        except CONNECTION_LOST as error:
            _log.warning(
                "slot_lost_database",
                slot_id=slot.id,
                error=type(error).__name__,
                now="what had not started is given back",
            )
        finally:
            try:
                await run.close(stop)
            finally:
                self._runs.discard(run)

    @property
    def held(self) -> set[int]:
        """Deliveries that slots hold and have not started."""
        return {delivery_id for run in self._runs for delivery_id in run.unstarted}

    def record(self, site: SiteName, mail: Mail, outcome: Outcome, seconds: float) -> None:
        """Count and log one attempt: the one wide line of it."""
        if site != SANDBOX:  # whoever watches these watches the mail that goes somewhere
            self._attempts.labels(outcome.event.value).inc()
            self._seconds.labels(outcome.event.value).observe(seconds)
        _log.info(
            "attempt",
            delivery_id=mail.delivery_id,
            message_id=mail.message_id,
            account_id=mail.candidate.account_id,
            attempt=outcome.attempt,
            site=site.key,
            host=outcome.facts.host,
            ip=outcome.facts.ip,
            tls=outcome.facts.tls,
            stage=outcome.facts.stage,
            code=outcome.code,
            enhanced=outcome.enhanced,
            category=outcome.category and outcome.category.value,
            seconds=round(seconds, 4),
            retry_in_seconds=outcome.retry_in and round(outcome.retry_in.total_seconds()),
            event_type=outcome.event.value,
        )

    @property
    def tools(self) -> Tools:
        """What every slot uses."""
        return self._tools

    async def _site(self, site_id: int) -> SiteName:
        known = self._sites.get(site_id)
        if known is None:
            async with self._tools.pool.acquire() as connection:
                known = parse_site(await connection.fetchval("SELECT name FROM site WHERE id = $1", site_id))
            self._sites[site_id] = known
        return known

    async def _refill(self, run: "_Run", slot: Slot) -> list[Claimed]:
        try:
            async with self.claiming, self._tools.pool.acquire() as connection:
                claimed = await with_fresh_plans(
                    lambda: DELIVERIES.refill(
                        connection, slot.worker_id, slot.id, lanes=LANES_PER_REFILL, rows=ROWS_PER_REFILL
                    )
                )
                run.hold(claimed)
                return claimed
        except CONNECTION_LOST:
            self.answer_lost = True
            return []  # the slot goes back; whoever claims next finds the rest


class _Run:
    """One slot being served."""

    def __init__(self, courier: Courier, slot: Slot) -> None:
        self.line: Line | None = None
        self.site = SiteName("domain", "")  # until it has been looked up
        self._table = courier.tools.routing.table
        self._courier = courier
        self._tools = courier.tools
        self._slot = slot
        self.unstarted: set[int] = set()
        """What we hold and must give back whatever happens."""
        self._ahead = asyncio.Semaphore(UNSETTLED_AHEAD)
        self._settling: set[asyncio.Task[None]] = set()

    def hold(self, claimed: Sequence[Claimed]) -> None:
        """Remember what was claimed until it is started, stopped or given back."""
        self.unstarted.update(row.id for row in claimed)

    async def load(self, claimed: Sequence[Claimed]) -> list[Mail]:
        """Read the mails; a queue row without its record can go nowhere: it is held, with a line in the log."""
        mails = await load(self._tools.pool, claimed)
        missing = {row.id for row in claimed} - {mail.delivery_id for mail in mails}
        if missing:
            _log.error("queue_row_without_record", delivery_ids=sorted(missing), now="held")
            await self._tools.ledger.release(self._slot.worker_id, sorted(missing), hold=True)
            self.unstarted -= missing
        return mails

    async def reroute(self, mails: list[Mail]) -> list[Mail]:
        """Move mails whose route is another than that of their lane; return those that belong to this site.

        Whatever lane sandbox mail was in, it gets past this at the sandbox only, and no other mail does there.
        """
        async with self._tools.pool.acquire() as connection:
            self._table = await self._tools.routing.current(connection)
        here, moves = [], []
        for mail in mails:
            site = self._route(mail)
            if site == self.site:
                here.append(mail)
            else:
                moves.append((mail, site))
        if moves:
            async with self._tools.pool.acquire() as connection:
                lanes = [
                    (mail.delivery_id, await self._tools.lanes.find(connection, site, mail.candidate.account_id))
                    for mail, site in moves
                ]
                await relane(connection, self._slot.worker_id, lanes)
            self.unstarted.difference_update(delivery_id for delivery_id, _ in lanes)
        return here

    def _route(self, mail: Mail) -> SiteName:
        candidate = mail.candidate
        parcel = Parcel(
            candidate.account_id,
            candidate.sender_domain,
            candidate.recipient_domain,
            mail.claimed.attempt,
            is_test=mail.is_test,
        )
        return self._table.site(parcel, self._tools.relay)

    async def _has_other_routes(self) -> bool:
        """Say whether routes or transports changed since the mails were sorted."""
        routing = self._tools.routing
        if routing.stale:
            try:
                async with self._tools.pool.acquire() as connection:
                    await routing.known(connection)
            except CONNECTION_LOST:
                pass  # the gate waits until it is back, and whoever claims next looks again
        return routing.table.version != self._table.version

    async def judge(self, mails: list[Mail]) -> list[Mail]:
        """Ask the gate before dialing; return those that may still start."""
        if not mails:
            return []
        gates = await self._tools.ledger.judge(self._slot.worker_id, [mail.candidate for mail in mails])
        open_ = []
        for mail in mails:
            verdict = gates[mail.delivery_id].verdict
            if verdict is Verdict.START:
                open_.append(mail)
            else:
                await self._stopped(mail, verdict)
        return open_

    async def send_all(self, mails: list[Mail], stop: asyncio.Event) -> bool:
        """Send mails one after the other; False where the site does not answer, so that its slot goes back."""
        for place, mail in enumerate(mails):
            if await self._has_other_routes():
                return False  # what has not started is given back at the end, and sorted anew
            if stop.is_set():
                await self._tools.ledger.release(self._slot.worker_id, [late.delivery_id for late in mails[place:]])
                return False
            if self.site == SANDBOX:
                await self._attempt(mail, known=simulate(mail))
                continue
            try:
                if self.line is None or not self.line.usable or not self.line.suits(mail):
                    if self.line is not None:
                        await self.line.close()
                    self.line = await self._tools.dialer.dial(self.site, dialed=mail.dialed)
            except Undeliverable as trouble:
                # Each was due and has had its try: they share the one connection that failed.
                for late in mails[place:]:
                    await self._attempt(late, known=trouble.result)
                return False
            await self._attempt(mail)
        return True

    async def close(self, stop: asyncio.Event) -> None:
        """Wait for the results, give back what was not started, end the session; where the grace period is over, end it at once."""
        try:
            if self._settling and not _cut_off():
                await asyncio.wait(self._settling)
            if not stop.is_set():  # who stops gives everything back at once, by leaving
                await self._tools.ledger.release(self._slot.worker_id, sorted(self.unstarted))
        finally:
            if self.line is not None and _cut_off():
                self.line.abort()
            elif self.line is not None:
                await self.line.close()

    async def _attempt(self, mail: Mail, known: Result | None = None) -> None:
        """Try to send a mail; where the result is known beforehand, the attempt is only recorded."""
        await self._ahead.acquire()
        handed_over = False
        try:
            content = b""
            if self.line is not None and known is None:
                # Everything slow comes before the gate, so that MAIL FROM follows it at once.
                async with self._tools.bodies.content(self._tools.pool, mail) as stored:
                    content, known = await self._signed(mail, stored)
                    handed_over = await self._start_and_send(mail, content, known)
            else:
                handed_over = await self._start_and_send(mail, content, known)
        finally:
            if not handed_over:
                self._ahead.release()

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

    async def _start_and_send(self, mail: Mail, content: bytes, known: Result | None) -> bool:
        gate = await self._tools.ledger.start(self._slot.worker_id, mail.candidate)
        if gate.verdict is not Verdict.START:
            await self._stopped(mail, gate.verdict)
            return False
        self.unstarted.discard(mail.delivery_id)
        begun = asyncio.get_running_loop().time()
        if known is None and self.line is not None:
            result = await self.line.send(mail, content)
        else:
            result = known or Result(accepted=False, code=0, enhanced="", text="there is no session", facts=NO_FACTS)
        now = self._tools.clock()
        tried = Tried(
            mail.delivery_id,
            self._slot.worker_id,
            gate.attempt,
            age=now - mail.tried_since if mail.tried_since else timedelta(),
            schedule=mail.schedule,
            time_left=mail.expires_at - now if mail.expires_at else None,
        )
        outcome = decide(tried, result, random=self._tools.random)
        if mail.is_test:
            outcome = with_report(mail, outcome)
        self._courier.record(self.site, mail, outcome, asyncio.get_running_loop().time() - begun)
        if (told := notice(self.site, outcome, self._tools.dialer.source_ip)) is not None:
            self._tools.operator_events.tell(told)
        task = asyncio.create_task(self._settle(outcome))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return True

    async def _settle(self, outcome: Outcome) -> None:
        try:
            await self._tools.ledger.settle(outcome)
        except Exception:  # noqa: BLE001 - said once, here; nobody awaits this task's result
            # Its row stays started and ours until we leave, and is then counted as lost.
            _log.exception("result_not_written", delivery_id=outcome.delivery_id)
        finally:
            self._ahead.release()

    async def _stopped(self, mail: Mail, verdict: Verdict) -> None:
        """Settle or release what the gate did not let through, as what it now is."""
        ledger, worker_id = self._tools.ledger, self._slot.worker_id
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


def _cut_off() -> bool:
    """Whether the slot's task was cancelled: nothing may be waited for any more."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

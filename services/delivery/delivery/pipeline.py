"""The life of a slot: one site, one session, group after group of mails.

:meth:`Courier.serve` is the table of contents; each step is a method below it, in order.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from delivery.attempt import Attempts, Tools
from delivery.dial import Line, Undeliverable
from delivery.group import grouped
from delivery.outcome import Result, asks_to_slow_down, notice
from delivery.prepare import Mail, load
from delivery.provider import provider_of
from delivery.sandbox import simulate
from delivery.sites import Note
from delivery.sorting import Sorting
from delivery.traffic import Pace
from shared.db.engine import CONNECTION_LOST, with_fresh_plans
from shared.db.lanes import SANDBOX, SiteName, parse_site, relane
from shared.db.outcomes import Outcome
from shared.db.queue import DELIVERIES, Claimed
from shared.db.starts import Verdict
from shared.mail.traffic import Traffic
from shared.metrics import Metrics

LANES_PER_REFILL = 4
ROWS_PER_REFILL = 25

_log = structlog.get_logger(__name__)


class SessionState(StrEnum):
    """What the sessions of a process do."""

    MEETING = "meeting"
    """A site that has not answered yet, or not since it failed."""
    SENDING = "sending"
    WAITING = "waiting"
    """For the next message that the pace of their site allows."""
    IDLE = "idle"
    """For mail; without a slot."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to one session with a site."""

    id: int
    site_id: int
    worker_id: int


class Courier:
    """Serves slots."""

    def __init__(self, tools: Tools, metrics: Metrics) -> None:
        self._tools = tools
        self._sites: dict[int, SiteName] = {}
        self._runs: set[_Run] = set()
        self.places = 0
        """Slots that may be served at once; whoever claims says it. When all are taken, each goes back after what it has in hand."""
        self.claiming = asyncio.Lock()
        """Held by whoever claims until it has noted what it holds: recovering must not mistake an answer on its way for a lost one."""
        self.answer_lost = False
        """A claim for more may have been made whose answer never came; whoever recovers from it clears this."""
        self._attempts = metrics.counter("attempts", "Attempts by what became of them.", ("result",))
        self._seconds = metrics.seconds("attempt", "From the start gate to the last reply.", ("result",))

    def serve(self, slot: Slot, claimed: list[Claimed], stop: asyncio.Event) -> Coroutine[None, None, None]:
        """Note what was claimed for the slot at once; the coroutine sends it, and what can be claimed after it, until the site has no more."""
        run = _Run(self, slot)
        run.unproven = not claimed[0].proven
        if run.unproven:
            self._tools.sites.met(slot.site_id)
        run.hold(claimed)
        self._runs.add(run)
        return self._serve(run, slot, claimed, stop)

    async def _serve(self, run: "_Run", slot: Slot, claimed: list[Claimed], stop: asyncio.Event) -> None:
        try:
            while claimed:
                run.site = await self._site(slot.site_id)
                await run.take_rule()
                mails = await run.load(claimed)
                mails = await run.reroute(mails)
                if run.site != SANDBOX and run.trouble is None and (run.line is None or not run.line.usable):
                    mails = await run.judge(mails)  # nothing is dialed for what would be stopped
                if not await run.send_all(mails, stop) or stop.is_set():
                    break
                if not await run.pace.turn(stop) or len(self._runs) >= self.places:
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

    @property
    def unproven(self) -> int:
        """How many slots are at sites that have not answered yet, or not since they failed."""
        return sum(run.unproven for run in self._runs)

    @property
    def states(self) -> dict[SessionState, int]:
        """How many sessions are in each state."""
        counted = Counter(run.state for run in self._runs)
        counted[SessionState.IDLE] = self._tools.dialer.idle
        return {state: counted[state] for state in SessionState}

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
        self.trouble: Result | None = None
        """Why no session can be had with the site."""
        self.unproven = False
        self.pace = Pace()
        self._traffic = Traffic()
        self._courier = courier
        self._tools = courier.tools
        self._slot = slot
        self._sorting = Sorting(courier.tools)
        self._attempts = Attempts(courier.tools, slot.worker_id, self._record)
        self.unstarted = self._attempts.unstarted

    def hold(self, claimed: Sequence[Claimed]) -> None:
        """Remember what was claimed until it is started, stopped or given back."""
        self.unstarted.update(row.id for row in claimed)

    @property
    def state(self) -> SessionState:
        """What it does."""
        if self.unproven:
            return SessionState.MEETING
        return SessionState.WAITING if self.pace.wait > 0 else SessionState.SENDING

    async def take_rule(self) -> None:
        """Look up how much the site may be sent at once."""
        if self.site != SANDBOX:
            self._traffic = await self._tools.traffic.of(self.site)
            self.pace.set(self._traffic, await self._tools.sites.allow(self._slot.site_id, self._traffic))

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
        sites = await self._sorting.sites(mails, self.site)
        here, moves = [], []
        for mail in mails:
            site = sites[mail.delivery_id]
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
                await self._attempts.stopped(mail, verdict)
        return open_

    async def send_all(self, mails: list[Mail], stop: asyncio.Event) -> bool:
        """Send mails, group after group; False where the site does not answer for any of them, so that its slot goes back."""
        if self.site.kind == "mx":
            # A session for each domain, not for each mail.
            mails = sorted(mails, key=lambda mail: mail.candidate.recipient_domain)
        most = min(self._tools.recipients, self._traffic.recipients_per_transaction or self._tools.recipients)
        groups = grouped(mails, 1 if self.site == SANDBOX else most)
        if self.trouble is not None:
            return await self._share(groups, self.trouble)
        for place, group in enumerate(groups):
            if await self._sorting.is_old():
                return False  # what has not started is given back at the end, and sorted anew
            if not await self.pace.turn(stop):
                await self._tools.ledger.release(self._slot.worker_id, _ids(groups[place:]))
                return False
            if self.site == SANDBOX:
                await self._attempts.make(group, None, known=simulate(group[0]))
                continue
            try:
                line = await self._reach(group[0])
            except Undeliverable as trouble:
                if self._is_of_the_domain_only(trouble.result):
                    self._sorting.hosts[group[0].candidate.recipient_domain] = trouble
                    await self._attempts.make(group, None, known=trouble.result)
                    continue
                self.trouble = trouble.result
                if not trouble.result.for_all:
                    crowded = asks_to_slow_down(trouble.result.code, trouble.result.text)
                    await self._tools.sites.failed(self._slot.site_id, crowded=crowded)
                await self._attempts.make(group, None, known=trouble.result)
                return await self._share(groups[place + 1 :], trouble.result)
            before = line.transactions
            self.pace.spend(1)
            await self._attempts.make(group, line)
            self.pace.spend(
                max(0, line.transactions - before - 1)
            )  # more where the server takes few recipients at a time
        return True

    async def _reach(self, mail: Mail) -> Line:
        of_domains = self.site.kind in {"mx", "domain"}
        hosts = self._sorting.hosts.get(mail.candidate.recipient_domain) if of_domains else None
        if isinstance(hosts, Undeliverable):
            raise hosts
        line = self.line
        if line is not None and not (self._has_room(line) and line.takes(hosts) and line.suits(mail)):
            self.line = None
            await (line.close() if self._has_room(line) else line.end())
        if self.line is None:
            self.line = await self._tools.dialer.dial(self.site, hosts, dialed=mail.dialed)
            if not self._has_room(self.line):  # it had waited for mail, and has had its share
                await self.line.end()
                self.line = await self._tools.dialer.dial(self.site, hosts, dialed=mail.dialed, anew=True)
        return self.line

    def _has_room(self, line: Line) -> bool:
        most = self._traffic.messages_per_connection
        return line.usable and (most is None or line.transactions < most)

    def _is_of_the_domain_only(self, trouble: Result) -> bool:
        """Say whether a failure tells nothing of the provider: anybody may name its hosts, or others, in MX records."""
        host = trouble.facts.host
        return self.site.kind == "mx" and not (host and provider_of(host) == self.site.name)

    async def _share(self, groups: Sequence[Sequence[Mail]], trouble: Result) -> bool:
        """Have mails share a connection that failed, where they have waited long enough for it to be theirs; the others go back.

        A site that is dead costs a mail no more attempts than its schedule has, and none that it need not cost.
        """
        now = self._tools.clock()
        any_shared = False
        for group in groups:
            shared = [mail for mail in group if trouble.for_all or mail.is_overdue(now)]
            if shared:
                await self._attempts.make(shared, None, known=trouble)
                any_shared = True
        return any_shared

    async def close(self, stop: asyncio.Event) -> None:
        """Wait for the results, give back what was not started, end the session; where the grace period is over, end it at once."""
        try:
            if not _cut_off():
                await self._attempts.written()
            if not stop.is_set():  # who stops gives everything back at once, by leaving
                await self._tools.ledger.release(self._slot.worker_id, sorted(self.unstarted))
        finally:
            if self.line is not None and _cut_off():
                self.line.abort()
            elif self.line is not None:
                await self.line.close()

    def _record(self, mail: Mail, outcome: Outcome, seconds: float) -> None:
        self._courier.record(self.site, mail, outcome, seconds)
        of_site = self.site.kind != "mx" or provider_of(outcome.facts.host) == self.site.name
        if outcome.code and self.trouble is None and self.site != SANDBOX and of_site:
            self.unproven = False
            slow = asks_to_slow_down(outcome.code, outcome.text)
            self._tools.sites.note(self._slot.site_id, Note.SLOW_DOWN if slow else Note.SUCCESS)
        if (told := notice(self.site, outcome, self._tools.dialer.source_ip)) is not None:
            self._tools.operator_events.tell(told)


def _ids(groups: Sequence[Sequence[Mail]]) -> list[int]:
    return [mail.delivery_id for group in groups for mail in group]


def _cut_off() -> bool:
    """Whether the slot's task was cancelled: nothing may be waited for any more."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

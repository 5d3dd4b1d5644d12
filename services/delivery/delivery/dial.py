"""Open a line to a site: host by host until a session stands; and send mails over it, as facts for ``outcome``."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from delivery.outcome import Result
from delivery.prepare import Mail
from delivery.route import Dialed, Hosts, NoRoute, OwnHost, Router, is_ipv6
from delivery.smtp import (
    IdleSessions,
    RcptResult,
    Session,
    Stage,
    Target,
    Timeouts,
    TlsMode,
    connect,
)
from delivery.smtp import Mail as Transaction
from delivery.smtp.errors import (
    SmtpAddressError,
    SmtpAuthError,
    SmtpConnectError,
    SmtpConnectionLostError,
    SmtpError,
    SmtpTimeoutError,
    SmtpTlsError,
    SmtpUnsendableError,
)
from delivery.smtp.facts import body_start
from delivery.way import Opening, Way, Ways
from shared.db.lanes import SiteName
from shared.db.outcomes import AttemptFacts
from shared.events import Category

NO_FACTS = AttemptFacts()
_NO_REQUIRETLS = (
    "the message requires TLS on its whole way (REQUIRETLS), which cannot be promised for this host; it was not sent"
)


_log = structlog.get_logger(__name__)
_RECEIVED = re.compile(rb"^Received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_MOST_RECEIVED = 100  # RFC 5321 6.3
_LOOPS = f"the message has passed more than {_MOST_RECEIVED} hosts (Received fields): it goes in circles"


class Undeliverable(Exception):
    """No session could be had with any hop of a site; ``result`` says why, as it counts for each mail that was due."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.text)
        self.result = result


@dataclass(frozen=True, slots=True)
class DialSettings:
    """How sessions are opened."""

    timeouts: Timeouts
    source_ip: str | None = None
    idle_seconds: float = 0.0
    """How long a session without mail waits for the next one."""
    host_seconds: float = 30.0
    """For one host: to look its name up and to connect to one of its addresses."""
    session_seconds: float = 1800.0
    """For the way to a session, and again for each mail over it, whatever the single phases may take."""


class Dialer:
    """Opens lines."""

    def __init__(self, router: Router, ways: Ways, settings: DialSettings) -> None:
        self._router = router
        self._ways = ways
        self._settings = settings
        self._idle = IdleSessions(settings.idle_seconds)

    @property
    def source_ip(self) -> str | None:
        """Our address that sessions come from; None where the system chooses."""
        return self._settings.source_ip

    async def hosts_of(self, domain: str) -> Hosts:
        """Return the hosts that take the mail of a recipient domain.

        Raises:
            Undeliverable: there are none, for good or for now.
        """
        try:
            return await self._router.hosts_of(domain)
        except NoRoute as error:
            raise Undeliverable(_no_route(error)) from None

    @property
    def idle(self) -> int:
        """How many sessions wait for mail."""
        return len(self._idle)

    async def dial(
        self, site: SiteName, hosts: Hosts | None = None, *, dialed: Dialed = (), anew: bool = False
    ) -> "Line":
        """Return a line to the first host of ``site`` that takes us, over a session that waits for mail if there is one.

        A host that cannot be reached, or says "not now", makes way for the next; one that refuses for good ends the search
        (RFC 5321 4.2.1), as do all hosts together.

        Args:
            site: whom to reach.
            hosts: over which of its hosts; None: whatever its name or its transport says.
            dialed: where earlier attempts of the mail were connected to.
            anew: do not go on with a session that exists.

        Raises:
            Undeliverable: there is no line.
        """
        try:
            way = self._ways.to(site)
            kept = None if anew else self._idle.take(way, hosts.names if hosts is not None else None)
            if kept is not None and suits(kept, dialed):
                return Line(self, way, hosts, kept)
            if kept is not None:
                await self.leave(way, kept)
            async with asyncio.timeout(self._settings.session_seconds):
                return Line(self, way, hosts, await self._search(way, hosts, dialed))
        except NoRoute as error:
            raise Undeliverable(_no_route(error)) from None
        except SmtpError as error:
            if isinstance(error, SmtpAuthError):  # an operator has to do something about it
                _log.error("login_refused", site=site.key, host=error.host, ip=error.ip, code=error.reply_code)
            raise Undeliverable(_result_of(error)) from None
        except TimeoutError:
            raise Undeliverable(_no_route(NoRoute(f"no host of {site.name} took us in time"))) from None

    async def _search(self, way: Way, hosts: Hosts | None, dialed: Dialed) -> Session:
        hosts = hosts or await self._router.hosts(way.site, way.transport)
        opening = self._ways.opening(way)
        trouble: SmtpError | NoRoute | None = None
        for host in hosts.names:
            try:
                return await self._reach(opening, hosts, host, dialed)
            except OwnHost as error:
                trouble = trouble or error
                break  # the others are no better than we are
            except NoRoute as error:
                trouble = trouble if isinstance(trouble, SmtpError) else error
            except SmtpError as error:
                trouble = error
                if 500 <= error.reply_code < 600:
                    break
        raise trouble or NoRoute(f"{way.site.name} has no host to try")

    async def _reach(self, opening: Opening, hosts: Hosts, host: str, dialed: Dialed) -> Session:
        """Open a session with one host, at the first of its addresses that can be connected to; they share its time."""
        until = asyncio.get_running_loop().time() + self._settings.host_seconds
        try:
            async with asyncio.timeout_at(until):
                addresses = await self._router.addresses(hosts, host, dialed)
        except TimeoutError:
            raise NoRoute(f"{host}: its addresses could not be looked up in time") from None
        dual = bool(hosts.domain) and len({is_ipv6(address) for address in addresses}) > 1
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = max(until - asyncio.get_running_loop().time(), 0.0) / left
            target = Target(host, address, hosts.port, self._source(address), dual_stack=dual, proxy=opening.proxy)
            try:
                return await self._open(opening, target, share)
            except SmtpConnectError:
                if left == 1:
                    raise
        raise NoRoute(f"{host} has no address")

    @property
    def session_seconds(self) -> float:
        """How long one mail may take."""
        return self._settings.session_seconds

    async def leave(self, way: Way, session: Session) -> None:
        """Keep a session for the next mail that goes its way, or end it."""
        if not self._idle.keep(way, session):
            await session.quit()

    async def close(self) -> None:
        """End the sessions that wait for mail."""
        await self._idle.close()

    def _source(self, address: str) -> str | None:
        ours = self._settings.source_ip
        return ours if ours is not None and is_ipv6(ours) == is_ipv6(address) else None

    async def _open(self, opening: Opening, target: Target, seconds: float) -> Session:
        timeouts = replace(self._settings.timeouts, connect=min(seconds, self._settings.timeouts.connect))
        try:
            return await connect(
                target,
                ehlo_name=opening.ehlo_name,
                timeouts=timeouts,
                tls=opening.tls,
                context=opening.context,
                login=opening.login,
            )
        except SmtpTlsError:
            if opening.tls is not TlsMode.OPPORTUNISTIC:
                raise
            # Opportunistic: a broken STARTTLS hides no more than none at all (RFC 7435 3), and the mail has to go.
            return await connect(target, ehlo_name=opening.ehlo_name, timeouts=timeouts)


def suits(session: Session, dialed: Dialed) -> bool:
    """Say whether a session is as good as a new one for a mail that was tried before: with the family whose turn it is."""
    before = [address for host, address in dialed if host == session.host]
    return not before or not session.target.dual_stack or is_ipv6(before[-1]) != is_ipv6(session.ip)


class Line:
    """A session with a site. A server may close an idle session at any time, so the first mail refused that way is tried on a new one."""

    def __init__(self, dialer: Dialer, way: Way, hosts: Hosts | None, session: Session) -> None:
        self._dialer = dialer
        self._way = way
        self._hosts = hosts
        self._session = session

    @property
    def usable(self) -> bool:
        """Whether another mail may be tried over it."""
        return self._session.usable

    def suits(self, mail: Mail) -> bool:
        """Say whether this session is as good as a new one for a mail that was tried before."""
        return suits(self._session, mail.dialed)

    def takes(self, hosts: Hosts | None) -> bool:
        """Whether the mail of a domain may go over it: its host is one of theirs. If so, a new session would be for them, too."""
        if hosts is not None and self._session.host not in hosts.names:
            return False
        self._hosts = hosts
        return True

    @property
    def transactions(self) -> int:
        """How many the session has begun."""
        return self._session.transactions

    async def send(self, mails: Sequence[Mail], content: bytes) -> list[Result]:
        """Send a group of mails, which have one envelope but for the recipient; never raises for what the server does.

        Of whom the server took no notice before it left, as after its last transaction (RFC 9422 MAILMAX), it is told over a
        new session. Whoever may have been taken is not sent again.
        """
        session = self._session
        facts = AttemptFacts(stage=Stage.MAIL.value, host=session.host, ip=session.ip)
        if mails[0].require_tls and not (self._way.proves_tls and session.extensions.requiretls):
            # RFC 8689 4.2.1: only over TLS with a verified certificate, to a server that takes REQUIRETLS. What cannot be
            # promised is not sent.
            text, policy = _NO_REQUIRETLS, Category.POLICY
            refused = Result(accepted=False, code=554, enhanced="5.7.30", text=text, facts=facts, category=policy)
            return [refused] * len(mails)
        if _received(content) > _MOST_RECEIVED:
            loops = Result(accepted=False, code=0, enhanced="5.4.6", text=_LOOPS, facts=facts, permanent=True)
            return [loops] * len(mails)
        results: dict[int, Result] = {}
        waiting = list(range(len(mails)))
        while True:
            reused = self._session.transactions > 0
            tried = await self._try([mails[place] for place in waiting], content)
            results.update(zip(waiting, (one.result for one in tried), strict=True))
            untouched = [place for place, one in zip(waiting, tried, strict=True) if one.untouched]
            if not untouched or (len(untouched) == len(waiting) and not reused):
                break  # all have their answer; that of a new session that ends with nobody taken counts as one
            waiting = untouched
            await self._session.quit()
            try:
                self._session = (await self._dialer.dial(self._way.site, self._hosts, anew=True)).take()
            except Undeliverable as trouble:
                results.update(dict.fromkeys(waiting, trouble.result))
                break
        return [results[place] for place in range(len(mails))]

    def take(self) -> Session:
        """Hand the session over; the line is no longer to be used."""
        return self._session

    async def close(self) -> None:
        """Let go of the session."""
        await self._dialer.leave(self._way, self._session)

    async def end(self) -> None:
        """Take leave of the server: the session is not for another mail."""
        await self._session.quit()

    def abort(self) -> None:
        """Hang up."""
        self._session.abort()

    async def _try(self, mails: Sequence[Mail], content: bytes) -> list["_Tried"]:
        session, first = self._session, mails[0]
        recipients = [mail.recipient for mail in mails]
        # An address outside ASCII needs it too (RFC 6531 3.4), a Bcc for one, which the header does not show.
        smtputf8 = first.smtputf8 or not "".join((first.mail_from, *recipients)).isascii()
        transaction = replace(
            Transaction.of(first.mail_from, recipients, content, smtputf8=smtputf8), require_tls=first.require_tls
        )
        try:
            async with asyncio.timeout(self._dialer.session_seconds):
                sent = await session.send(transaction)
        except TimeoutError:  # the phases have limits of their own, but a server may be slow in all of them
            slow = f"not done after {self._dialer.session_seconds:g} s"
            late = SmtpTimeoutError(slow, host=session.host, ip=session.ip, stage=Stage.MESSAGE)
            return [_Tried(_result_of(late), untouched=False)] * len(mails)
        except SmtpConnectionLostError as error:
            return [_Tried(_result_of(error), untouched=True)] * len(mails)
        except SmtpAddressError as error:
            if len(mails) == 1:
                return [_Tried(_result_of(error), untouched=False)]
            # One address that cannot be written is the failure of nobody else.
            return [one for mail in mails for one in await self._try([mail], content)]
        except SmtpUnsendableError as error:
            return [_Tried(_result_of(error), untouched=False)] * len(mails)
        return [_Tried(_result(session, result), result.untouched) for result in sent.results]


@dataclass(frozen=True, slots=True)
class _Tried:
    """What became of a mail over one session."""

    result: Result
    untouched: bool
    """The session ended before the server took any notice of the mail."""


def _result(session: Session, result: RcptResult) -> Result:
    tls = f"{session.tls.version} {session.tls.cipher}" if session.tls is not None else ""
    facts = AttemptFacts(stage=result.stage.value, host=session.host, ip=session.ip, tls=tls)
    return Result(
        accepted=result.accepted,
        code=result.code,
        enhanced=result.enhanced,
        text=result.text,
        facts=facts,
        pipelined=session.extensions.pipelining,
        dual_stack=session.target.dual_stack,
    )


def _received(content: bytes) -> int:
    """Return how many hosts a message has passed already (RFC 5321 6.3)."""
    return len(_RECEIVED.findall(content, 0, body_start(content)))


def _no_route(error: NoRoute) -> Result:
    return Result(
        accepted=False,
        code=error.code,
        enhanced=error.enhanced,
        text=error.text,
        facts=NO_FACTS,
        permanent=error.permanent,
        category=error.category,
    )


def _result_of(error: SmtpError) -> Result:
    facts = AttemptFacts(stage=error.stage.value, host=error.host, ip=error.ip)
    return Result(
        accepted=False,
        code=error.reply_code,
        enhanced=error.enhanced,
        text=error.text,
        facts=facts,
        permanent=error.permanent,
        not_the_mail=isinstance(error, SmtpAuthError),
        category=Category.INFRASTRUCTURE if isinstance(error, SmtpAuthError) else None,
    )

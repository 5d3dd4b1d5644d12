"""Open a line to a site: hop by hop until a session stands; and send mails over it, as facts for ``outcome``."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from delivery.outcome import Result
from delivery.prepare import Mail
from delivery.route import Hop, NoRoute, Router, Way
from delivery.smtp import (
    IdleSessions,
    RcptResult,
    Session,
    Stage,
    Target,
    Timeouts,
    TlsMode,
    connect,
    opportunistic_context,
)
from delivery.smtp import Mail as Transaction
from delivery.smtp.errors import SmtpAddressError, SmtpConnectionLostError, SmtpError, SmtpTlsError, SmtpUnsendableError
from shared.db.lanes import SiteName
from shared.db.outcomes import AttemptFacts

NO_FACTS = AttemptFacts()
_NO_REQUIRETLS = (
    "the message requires TLS on its whole way (REQUIRETLS), which cannot be promised for this host; it was not sent"
)


class Undeliverable(Exception):
    """No session could be had with any hop of a site; ``result`` says why, as it counts for each mail that was due."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.text)
        self.result = result


@dataclass(frozen=True, slots=True)
class DialSettings:
    """How sessions are opened."""

    ehlo_name: str
    timeouts: Timeouts
    source_ip: str | None = None
    idle_seconds: float = 0.0
    """How long a session without mail waits for the next one."""


class Dialer:
    """Opens lines."""

    def __init__(self, router: Router, settings: DialSettings, context: ssl.SSLContext | None = None) -> None:
        self._router = router
        self._settings = settings
        self._context = context or opportunistic_context()
        self._idle = IdleSessions(settings.idle_seconds)

    @property
    def source_ip(self) -> str | None:
        """Our address that sessions come from; None where the system chooses."""
        return self._settings.source_ip

    async def way(self, domain: str) -> Way:
        """Return who takes the mail of a recipient domain.

        Raises:
            Undeliverable: nobody does, or it cannot be found out now.
        """
        try:
            return await self._router.way(domain)
        except NoRoute as error:
            raise Undeliverable(_no_route(error)) from None

    async def dial(self, site: SiteName, way: Way | None = None, *, anew: bool = False) -> "Line":
        """Return a line to the first hop of ``site`` that takes us, over a session that waits for mail if there is one.

        A hop that cannot be reached, or says "not now", makes way for the next; one that refuses for good ends the search
        (RFC 5321 4.2.1), as do all hops together.

        Args:
            site: whom to reach.
            way: over which of its hosts; None: it is a relay.
            anew: do not go on with a session that exists.

        Raises:
            Undeliverable: there is no line.
        """
        kept = None if anew else self._idle.take(site, way.hosts if way is not None else None)
        if kept is not None:
            return Line(self, site, way, kept)
        trouble: Result | None = None
        try:
            async for hop in self._router.hops(site, way):
                try:
                    return Line(self, site, way, await self._open(hop))
                except SmtpError as error:
                    trouble = _result_of(error)
                    if 500 <= error.reply_code < 600:
                        break
        except NoRoute as error:
            if trouble is None:
                trouble = _no_route(error)
        if trouble is None:
            trouble = Result(
                accepted=False, code=0, enhanced="", text=f"{site.name} has no host to try", facts=NO_FACTS
            )
        raise Undeliverable(trouble)

    async def leave(self, site: SiteName, session: Session) -> None:
        """Keep a session for the next mail to its site, or end it."""
        if not self._idle.keep(site, session):
            await session.quit()

    @property
    def idle(self) -> int:
        """How many sessions wait for mail."""
        return len(self._idle)

    async def close(self) -> None:
        """End the sessions that wait for mail."""
        await self._idle.close()

    async def _open(self, hop: Hop) -> Session:
        target = Target(hop.host, hop.ip, hop.port, self._settings.source_ip)
        try:
            return await self._connect(target, TlsMode.OPPORTUNISTIC)
        except SmtpTlsError:
            # Opportunistic: a broken STARTTLS hides no more than none at all (RFC 7435 3), and the mail has to go.
            return await self._connect(target, TlsMode.NONE)

    async def _connect(self, target: Target, tls: TlsMode) -> Session:
        context = self._context if tls is TlsMode.OPPORTUNISTIC else None
        return await connect(
            target, ehlo_name=self._settings.ehlo_name, timeouts=self._settings.timeouts, tls=tls, context=context
        )


class Line:
    """A session with a site. A server may close an idle session at any time, so the first mail refused that way is tried on a new one."""

    def __init__(self, dialer: Dialer, site: SiteName, way: Way | None, session: Session) -> None:
        self._dialer = dialer
        self._site = site
        self._way = way
        self._session = session

    @property
    def usable(self) -> bool:
        """Whether another mail may be tried over it."""
        return self._session.usable

    def takes(self, way: Way | None) -> bool:
        """Whether the mail of a domain may go over it: its host is one of theirs. If so, a new session would be for them, too."""
        if way is not None and self._session.host not in way.hosts:
            return False
        self._way = way
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
        if mails[0].require_tls:
            # RFC 8689 4.2.1: only over TLS with a verified certificate, to a server that takes REQUIRETLS. This version
            # verifies none, so it cannot keep the promise and must not break it.
            facts = AttemptFacts(stage=Stage.MAIL.value, host=self._session.host, ip=self._session.ip)
            text = _NO_REQUIRETLS
            return [Result(accepted=False, code=0, enhanced="5.7.30", text=text, facts=facts, permanent=True)] * len(
                mails
            )
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
                self._session = (await self._dialer.dial(self._site, self._way, anew=True)).take()
            except Undeliverable as trouble:
                results.update(dict.fromkeys(waiting, trouble.result))
                break
        return [results[place] for place in range(len(mails))]

    def take(self) -> Session:
        """Hand the session over; the line is no longer to be used."""
        return self._session

    async def close(self) -> None:
        """Let go of the session."""
        await self._dialer.leave(self._site, self._session)

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
        transaction = Transaction.of(first.mail_from, recipients, content, smtputf8=smtputf8)
        try:
            sent = await session.send(transaction)
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


def _no_route(error: NoRoute) -> Result:
    return Result(accepted=False, code=0, enhanced="", text=error.text, facts=NO_FACTS, permanent=error.permanent)


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
    )

"""Open a line to a site: hop by hop until a session stands; and send one mail over it, as facts for ``outcome``."""

import ssl
from dataclasses import dataclass

from delivery.outcome import Result
from delivery.prepare import Mail
from delivery.route import Hop, NoRoute, Router
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
from delivery.smtp.errors import SmtpConnectionLostError, SmtpError, SmtpTlsError, SmtpUnsendableError
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

    async def dial(self, site: SiteName, *, anew: bool = False) -> "Line":
        """Return a line to the first hop of ``site`` that takes us, over a session that waits for mail if there is one.

        A hop that cannot be reached, or says "not now", makes way for the next; one that refuses for good ends the search
        (RFC 5321 4.2.1), as do all hops together.

        Args:
            site: whom to reach.
            anew: do not go on with a session that exists.

        Raises:
            Undeliverable: there is no line.
        """
        kept = None if anew else self._idle.take(site)
        if kept is not None:
            return Line(self, site, kept)
        trouble: Result | None = None
        try:
            async for hop in self._router.hops(site):
                try:
                    return Line(self, site, await self._open(hop))
                except SmtpError as error:
                    trouble = _result_of(error)
                    if 500 <= error.reply_code < 600:
                        break
        except NoRoute as error:
            if trouble is None:
                trouble = Result(
                    accepted=False, code=0, enhanced="", text=error.text, facts=NO_FACTS, permanent=error.permanent
                )
        if trouble is None:
            trouble = Result(
                accepted=False, code=0, enhanced="", text=f"{site.name} has no host to try", facts=NO_FACTS
            )
        raise Undeliverable(trouble)

    async def leave(self, site: SiteName, session: Session) -> None:
        """Keep a session for the next mail to its site, or end it."""
        if not self._idle.keep(site, session):
            await session.quit()

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

    def __init__(self, dialer: Dialer, site: SiteName, session: Session) -> None:
        self._dialer = dialer
        self._site = site
        self._session = session

    @property
    def usable(self) -> bool:
        """Whether another mail may be tried over it."""
        return self._session.usable

    async def send(self, mail: Mail, content: bytes) -> Result:
        """Send one mail and report what became of it; never raises for what the server does."""
        if mail.require_tls:
            # RFC 8689 4.2.1: only over TLS with a verified certificate, to a server that takes REQUIRETLS. This version
            # verifies none, so it cannot keep the promise and must not break it.
            facts = AttemptFacts(stage=Stage.MAIL.value, host=self._session.host, ip=self._session.ip)
            return Result(accepted=False, code=0, enhanced="5.7.30", text=_NO_REQUIRETLS, facts=facts, permanent=True)
        reused = self._session.transactions > 0
        result, untouched = await self._try(mail, content)
        if reused and untouched:
            await self._session.quit()
            try:
                self._session = (await self._dialer.dial(self._site, anew=True)).take()
            except Undeliverable as trouble:
                return trouble.result
            result, _ = await self._try(mail, content)
        return result

    def take(self) -> Session:
        """Hand the session over; the line is no longer to be used."""
        return self._session

    async def close(self) -> None:
        """Let go of the session."""
        await self._dialer.leave(self._site, self._session)

    def abort(self) -> None:
        """Hang up."""
        self._session.abort()

    async def _try(self, mail: Mail, content: bytes) -> tuple[Result, bool]:
        """Return the result, and whether the session ended before the server took any notice of the mail."""
        session = self._session
        # An address outside ASCII needs it too (RFC 6531 3.4), a Bcc for one, which the header does not show.
        smtputf8 = mail.smtputf8 or not (mail.mail_from + mail.recipient).isascii()
        transaction = Transaction.of(mail.mail_from, (mail.recipient,), content, smtputf8=smtputf8)
        try:
            sent = await session.send(transaction)
        except SmtpConnectionLostError as error:
            return _result_of(error), True
        except SmtpUnsendableError as error:
            return _result_of(error), False
        result = sent.results[0]
        return _result(session, result), result.untouched


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

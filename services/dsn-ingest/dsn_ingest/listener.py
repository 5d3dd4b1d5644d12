"""The SMTP session: who may send what to whom, and the promise of a 250."""

import structlog

from dsn_ingest.addressing import Addressing, Owner
from dsn_ingest.ingest import Addressed, Ingest
from dsn_ingest.simulate import Bouncer, asked_for, reply_to
from shared.db.engine import Pool, reachable
from shared.errors import DatabaseUnavailable
from shared.metrics import Metrics
from shared.smtpd import Envelope, Reply, Session
from shared.smtpd.grammar import Parameters

_ACCEPTED = Reply(250, "2.0.0", "accepted")
_NOT_NOW = Reply(451, "4.3.0", "our storage does not answer, please try again")
_STRANGER = Reply(550, "5.1.1", "there is no such address here")

_log = structlog.get_logger(__name__)


class InboundHandler:
    """Decides about inbound mail for the SMTP server core.

    Args:
        pool: for looking recipients up.
        addressing: knows whose a recipient is.
        ingest: stores what came.
        bouncer: in local mode, answers simulated bounces; None in production, where nothing is simulated.
        metrics: counts messages by result.
    """

    def __init__(
        self, pool: Pool, addressing: Addressing, ingest: Ingest, bouncer: Bouncer | None, metrics: Metrics
    ) -> None:
        self._pool = pool
        self._addressing = addressing
        self._ingest = ingest
        self._bouncer = bouncer
        self._messages = metrics.counter("messages", "Messages received, by the answer to them.", ("result",))

    async def on_connect(self, session: Session) -> Reply | None:
        """Take every connection that the limits let through."""

    async def on_mail(self, session: Session, sender: str, params: Parameters) -> Reply | None:
        """Take every sender: reports have none."""

    async def on_rcpt(self, session: Session, recipient: str, params: Parameters) -> Reply | None:
        """Refuse what does not belong here."""
        try:
            owner = await self._owner(recipient, "")
        except DatabaseUnavailable:
            return _NOT_NOW
        if owner is not None:
            return None
        _log.debug("recipient_refused", peer_ip=session.peer_ip, recipient=recipient, parameters=sorted(params))
        return _STRANGER

    async def on_message(self, session: Session, envelope: Envelope) -> Reply:
        """Store the message; the reply is the promise."""
        try:
            reply = await self._take(envelope)
        except DatabaseUnavailable:
            reply = _NOT_NOW
        self._messages.labels("accepted" if reply.code == 250 else f"{reply.code // 100}xx").inc()
        _log.info(
            "inbound",
            peer_ip=session.peer_ip,
            helo=envelope.ehlo_name,
            recipients=len(envelope.recipients),
            size=len(envelope.content),
            code=reply.code,
        )
        return reply

    async def _take(self, envelope: Envelope) -> Reply:
        addressed: list[Addressed] = []
        for recipient in dict.fromkeys(envelope.recipients):  # each mailbox gets a message once
            owner = await self._owner(recipient, envelope.mail_from)
            if owner is None:
                return _STRANGER  # it was removed since RCPT
            addressed.append(Addressed(recipient, owner))
        if self._bouncer is not None:
            reply, addressed = await self._simulated(self._bouncer, envelope, addressed)
            if reply is not None:
                return reply
        if addressed:
            await self._ingest.store(envelope, addressed)
        return _ACCEPTED

    async def _simulated(
        self, bouncer: Bouncer, envelope: Envelope, addressed: list[Addressed]
    ) -> tuple[Reply | None, list[Addressed]]:
        """Return the reply that a local part asks for, or whom the message is really for; return paths are exempt."""
        really, bounced = [], []
        for one in addressed:
            wish = asked_for(one.recipient) if one.owner.delivery_id is None else None
            if wish is None:
                really.append(one)
                continue
            reply = reply_to(wish)
            if reply is not None:
                return reply, []
            bounced.append(one)
        for one in bounced:
            await bouncer.bounce(envelope, one.recipient)
        return None, really

    async def _owner(self, recipient: str, mail_from: str) -> Owner | None:
        async with reachable(), self._pool.acquire() as connection:
            owner = await self._addressing.owner(connection, recipient)
            return owner or await self._addressing.fallback(connection, mail_from)

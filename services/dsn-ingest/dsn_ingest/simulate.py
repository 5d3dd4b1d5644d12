"""Local mode: answer what a recipient's local part asks for, so that an application can see every outcome at its desk."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.clock import Clock
from shared.db import accept
from shared.db.engine import Pool, reachable
from shared.db.ids import IdBlocks
from shared.db.lanes import Lanes, SiteName
from shared.db.transaction import Bell, transaction
from shared.errors import AddressInvalid
from shared.events import Subject
from shared.mail.address import Address, mox_key, parse, suppression_key
from shared.mail.dsn import Action, DsnRecipient
from shared.mail.dsn_write import SUBJECTS, DsnSpec, write_dsn
from shared.mail.mime import read
from shared.mail.simulate import Simulated, simulate_recipient
from shared.smtpd import Envelope, Reply

SYSTEM_ACCOUNT = 0
_NO_SUCH_USER = "550 5.1.1 simulated: no such user"


def asked_for(recipient: str) -> Simulated | None:
    """Return what the local part of a recipient asks for."""
    local = recipient.rpartition("@")[0]
    return simulate_recipient(local)


def reply_to(simulated: Simulated) -> Reply | None:
    """Return the reply that is asked for; None where the mail is taken and a bounce follows."""
    if simulated.kind == "bounce":
        return None
    if simulated.kind == "reply" and simulated.stage == "data":
        return Reply(simulated.code, simulated.enhanced, "simulated, as the local part asked")
    what = simulated.kind if simulated.kind != "reply" else f"{simulated.stage} stage"
    return Reply(554, "5.3.3", f"this version does not simulate '{what}' yet")


@dataclass(frozen=True, slots=True)
class Bouncer:
    """Sends the report of a simulated bounce: a mail of the installation, in the ordinary queue."""

    pool: Pool
    bell: Bell
    ids: IdBlocks
    lanes: Lanes
    hostname: str
    clock: Clock
    random: Callable[[int], bytes]

    async def bounce(self, envelope: Envelope, recipient: str) -> None:
        """Queue a DSN about ``recipient`` to the sender; a null sender gets none (RFC 5321 4.5.5).

        Raises:
            DatabaseUnavailable: it is not queued; answer 451.
        """
        if not envelope.mail_from:
            return
        try:
            to = parse(envelope.mail_from)
        except AddressInvalid:
            return
        content = self._report(envelope, to, recipient)
        site = SiteName("domain", to.domain)
        async with reachable():
            async with self.pool.acquire() as connection:
                message_id, delivery_id = await self.ids.take(connection, 2)
                lane_id = await self.lanes.find(connection, site, SYSTEM_ACCOUNT)
            delivery = accept.NewDelivery(
                id=delivery_id,
                mail_from="",
                from_id=None,
                recipient=to.text,
                recipient_domain=to.domain,
                recipient_key=suppression_key(to),
                mox_key=mox_key(to),
                lane_id=lane_id,
            )
            message = accept.NewMessage(
                id=message_id,
                account_id=SYSTEM_ACCOUNT,
                door="system",
                credential_id=None,
                message_id=self._message_id(message_id),
                sender=f"postmaster@{self.hostname}",
                sender_domain=self.hostname,
                subject=SUBJECTS[Action.FAILED],
                header_size=content.index(b"\r\n\r\n") + 2,
                content=content,
                smtputf8=not to.is_ascii,
                extra=None,
                tags=None,
                deliveries=(delivery,),
            )
            async with transaction(self.pool, self.bell) as (connection, rings):
                await accept.accept(connection, [message])
                rings.add(Subject.DELIVERY_DUE, site.key)

    def _report(self, envelope: Envelope, to: Address, recipient: str) -> bytes:
        original = read(envelope.content)
        now = self.clock()
        reported = DsnRecipient(
            final_recipient=recipient,
            original_recipient="",
            action=Action.FAILED,
            status="5.1.1",
            reply_code=550,
            enhanced="5.1.1",
            diagnostic=_NO_SUCH_USER,
            remote_mta=self.hostname,
            last_attempt=now,
            will_retry_until=None,
        )
        return write_dsn(
            DsnSpec(
                reporting_mta=self.hostname,
                sender=parse(f"postmaster@{self.hostname}"),
                to=to,
                message_id=self._message_id(self.random(8).hex()),
                date=now,
                boundary=f"report-{self.random(16).hex()}",
                arrival_date=now,
                recipients=[reported],
                original_message_id=original.header("message-id") or "",
                original_headers=envelope.content.partition(b"\r\n\r\n")[0] + b"\r\n",
            )
        )

    def _message_id(self, unique: object) -> str:
        return f"<dsn.{unique}@{self.hostname}>"

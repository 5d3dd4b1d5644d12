"""The SMTP session of a submission: who may send as whom, what the envelope asks for, and the promise of a 250."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from api.caller import AccountCaller
from api.idempotency import read_key
from api.metadata import IDEMPOTENCY_KEY, idempotency_keys, waives_tls
from api.metrics import ApiMetrics
from api.smtp.logins import Logins
from api.submission import FURTHEST_SEND, Party, Submission
from api.submit import Submitter
from shared.clock import Clock, utc_now
from shared.errors import (
    AddressInvalid,
    BadInput,
    FromIdTaken,
    FromNotAllowed,
    LimitReached,
    PosthouseError,
    TooLarge,
    Unavailable,
    ValidationFailed,
)
from shared.mail.address import parse
from shared.mail.raw import read_raw
from shared.smtpd import Envelope, Reply, Session
from shared.smtpd.future_release import KEYWORDS, HoldRefused, held_until, offer
from shared.smtpd.grammar import Parameters

MAIL_PARAMETERS = KEYWORDS | {"AUTH", "REQUIRETLS"}

_NEEDS_TLS = Reply(523, "5.7.10", "REQUIRETLS needs TLS on this connection too")  # RFC 8689 4.1
_TLS_VALUE = Reply(501, "5.5.4", "REQUIRETLS takes no value")  # RFC 8689 2
_NO_BODY = Reply(554, "5.6.0", "The message has no empty line after its header")
_DISABLED = Reply(451, "4.3.0", "Sending from this domain is switched off, ask the operator")


class _Refused(Exception):
    """A message is refused with ``reply``, and counted as ``result``."""

    def __init__(self, result: str, reply: Reply) -> None:
        super().__init__(result)
        self.result, self.reply = result, reply


class SubmissionHandler:
    """Decides about submitted mail for the SMTP server core.

    Args:
        logins: who has authenticated.
        submitter: takes submissions.
        metrics: counts what becomes of them.
        now: for holds.
    """

    def __init__(self, logins: Logins, submitter: Submitter, metrics: ApiMetrics, *, now: Clock = utc_now) -> None:
        self._logins, self._submitter, self._metrics, self._now = logins, submitter, metrics, now
        self._log = structlog.get_logger(__name__)

    def ehlo_lines(self, session: Session) -> Sequence[str]:
        """Return what is offered beyond the core's own."""
        lines = [offer(self._now(), FURTHEST_SEND)]
        return [*lines, "REQUIRETLS"] if session.tls is not None else lines  # RFC 8689 2

    async def on_connect(self, session: Session) -> Reply | None:
        """Take every connection that the limits let through."""

    async def on_mail(self, session: Session, sender: str, params: Parameters) -> Reply | None:
        """Hold sender and parameters against what the credential may do."""
        try:
            with self._metrics.refusals("smtp", result_of):
                await self._check_mail(session, sender, params)
        except _Refused as refused:
            return refused.reply
        except PosthouseError as error:
            return reply_to(error)
        return None

    async def on_rcpt(self, session: Session, recipient: str, params: Parameters) -> Reply | None:
        """Refuse what is no address that mail can be sent to; the suppression list is asked later."""
        try:
            parse(recipient)
        except AddressInvalid as error:
            self._log.debug("recipient_refused", session=session.number, recipient=recipient, parameters=sorted(params))
            return Reply(501, "5.1.3", error.message)
        return None

    async def on_message(self, session: Session, envelope: Envelope) -> Reply:
        """Hand the message in; a 250 is the answer to its commit."""
        try:
            with self._metrics.refusals("smtp", result_of):
                return await self._submit(await self._caller(session), envelope)
        except _Refused as refused:
            return refused.reply
        except PosthouseError as error:
            return reply_to(error)

    def on_refusal(self, reply: Reply) -> None:
        """Count a message that the core refused."""
        result = {552: "too_large", 452: "overloaded"}.get(reply.code, "validation_failed")
        self._metrics.submissions.labels("smtp", result).inc()

    async def _caller(self, session: Session) -> AccountCaller:
        caller = await self._logins.still_good(session)
        if isinstance(caller, Reply):
            raise _Refused("unauthenticated", caller)
        return caller

    async def _check_mail(self, session: Session, sender: str, params: Parameters) -> None:
        caller = await self._caller(session)
        self._check_parameters(session, params)
        if not sender:  # the null reverse-path is anybody's (RFC 5321 4.5.5)
            return
        try:
            # What may stand in From may be the return path.
            await self._submitter.check_sender(replace(_of(caller), sender=Party("", sender, "mail_from")))
        except AddressInvalid as error:
            raise _Refused(error.code, Reply(550, "5.7.1", error.message)) from None

    async def _submit(self, caller: AccountCaller, envelope: Envelope) -> Reply:
        end = envelope.content.find(b"\r\n\r\n")
        if end < 0 and not envelope.content.startswith(b"\r\n"):
            raise _Refused("validation_failed", _NO_BODY)
        moment = self._now()
        # The header alone: what it says to us is needed before the message as a whole is read, and costs little to read twice.
        head = read_raw(envelope.content[: end + 4], new_message_id=lambda: "<unused@invalid>", date=moment)
        tls = True if "REQUIRETLS" in envelope.mail_params else None
        if tls is None and waives_tls(head.fields):  # RFC 8689 4.1: REQUIRETLS outranks the field
            tls = False
        submitted = await self._submitter.submit(
            replace(
                _of(caller),
                raw=envelope.content,
                to=tuple(Party("", address, f"to[{index}]") for index, address in enumerate(envelope.recipients)),
                mail_from=Party("", envelope.mail_from, "mail_from"),
                send_at=_held(envelope, moment),
                require_tls=tls,
                idempotency_key=read_key(idempotency_keys(head.fields), field=IDEMPOTENCY_KEY),
                as_said=_hold_as_said(envelope),
            )
        )
        return Reply(250, "2.2.0", f"Accepted as message {submitted.id}")

    def _check_parameters(self, session: Session, params: Parameters) -> None:
        if "REQUIRETLS" in params:
            if params["REQUIRETLS"] is not None:
                raise _Refused("validation_failed", _TLS_VALUE)
            if session.tls is None:
                raise _Refused("needs_tls", _NEEDS_TLS)
        try:
            held_until(params, self._now(), FURTHEST_SEND)
        except HoldRefused as refused:
            raise _Refused("validation_failed", refused.reply) from None


def result_of(error: Exception) -> str:
    """Return what a refused submission counts as: the code of its error, as by every door."""
    match error:
        case _Refused():
            return error.result
        case PosthouseError():
            return error.code
        case _:
            return "internal"


def reply_to(error: PosthouseError) -> Reply:
    """Return the reply to what is wrong with a submission."""
    match error:
        case FromNotAllowed():
            reply = _DISABLED if error.facts.get("domain_disabled") else Reply(550, "5.7.1", error.message)
        case AddressInvalid() | ValidationFailed() if (error.field or "").startswith("raw.from"):
            reply = Reply(550, "5.6.0", error.message)
        case ValidationFailed() if error.facts.get("one_recipient"):
            reply = Reply(554, "5.5.3", error.message)
        case FromIdTaken() | ValidationFailed() if error.field == "mail_from":
            reply = Reply(554, "5.1.7", error.message)  # RFC 3463 3.2, and as mox
        case TooLarge():
            reply = Reply(552, "5.3.4", error.message)
        case BadInput():
            reply = Reply(554, "5.6.0", error.message)
        case LimitReached():
            reply = Reply(451, "4.7.1", error.message)
        case Unavailable():
            reply = Reply(451, "4.3.0", error.message)
        case _:
            raise error
    return reply


def _of(caller: AccountCaller) -> Submission:
    return Submission(door="smtp", caller=caller)


def _hold_as_said(envelope: Envelope) -> dict[str, str]:
    """Return the hold that was asked for as it stood in MAIL: HOLDFOR counts from now, and comes to another moment each time."""
    asked = [f"{name}={value}" for name, value in envelope.mail_params.items() if name in KEYWORDS]
    return {"send_at": asked[0]} if asked else {}  # never both (RFC 4865 5)


def _held(envelope: Envelope, moment: datetime) -> datetime | None:
    try:
        return held_until(envelope.mail_params, moment, FURTHEST_SEND)
    except HoldRefused:  # it was right at MAIL, and that moment has passed since
        return None

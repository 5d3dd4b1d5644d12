"""Sandbox mail: what becomes of it is read from its addresses, and nobody is asked.

Nothing here, or below it, can look up a name or open a connection; an import contract holds that.
"""

from dataclasses import replace

from delivery.outcome import Result
from delivery.prepare import Mail
from shared.db.outcomes import AttemptFacts, Outcome, Source
from shared.events import Category, EventType
from shared.mail.classify import classify
from shared.mail.simulate import Simulated, simulate_recipient, simulate_sender

HOST = "sandbox"
"""The host that attempts name."""

_STAGES = {"mail": "mail", "rcpt": "rcpt", "data": "message"}
"""What the record of an attempt calls the stages of the simulation."""
_AS_ASKED = "simulated, as the local part asked"
_NO_SUCH_USER = "550 5.1.1 simulated: no such user"


def simulate(mail: Mail) -> Result:
    """Return the result of the next attempt at a sandbox mail, at once: nobody waits for a server that stays silent."""
    simulated = _asked_for(mail)
    if simulated is None:
        return _result("data", 250, "2.0.0", "simulated: accepted")
    match simulated.kind:
        case "timeout":
            return _result(simulated.stage, 0, "", "simulated: the server did not answer in time")
        case "reply":
            return _result(simulated.stage, simulated.code, simulated.enhanced, _AS_ASKED)
        case "greylist" if mail.claimed.attempt == 0:
            return _result(simulated.stage, simulated.code, simulated.enhanced, _AS_ASKED)
        case "greylist" | "bounce" | "complaint":
            return _result("data", 250, "2.0.0", "simulated: accepted")


def with_report(mail: Mail, outcome: Outcome) -> Outcome:
    """Return the outcome of an attempt, together with the report that the recipient's local part asks for."""
    simulated = _asked_for(mail)
    if simulated is None or outcome.event is not EventType.DELIVERED:
        return outcome
    match simulated.kind:
        case "bounce":
            return replace(outcome, report=_bounce(mail, simulated))
        case "complaint":
            return replace(outcome, report=_complaint(mail))
        case "reply" | "timeout" | "greylist":
            return outcome


def _asked_for(mail: Mail) -> Simulated | None:
    # A return path that carries a from_id of ours asks for nothing; who sends then is the address in From.
    sender = mail.candidate.sender if mail.has_from_id else mail.mail_from
    return simulate_sender(_local(sender)) or simulate_recipient(_local(mail.recipient))


def _local(address: str) -> str:
    return address.rpartition("@")[0]


def _result(stage: str, code: int, enhanced: str, text: str) -> Result:
    facts = AttemptFacts(stage=_STAGES[stage], host=HOST)
    return Result(
        accepted=code == 250, code=code, enhanced=enhanced, text=f"{enhanced} {text}" if enhanced else text, facts=facts
    )


def _bounce(mail: Mail, simulated: Simulated) -> Outcome:
    """Return what a DSN would say that comes back later (RFC 3464)."""
    classified = classify(simulated.code, simulated.enhanced, _NO_SUCH_USER)
    return Outcome(
        delivery_id=mail.delivery_id,
        source=Source.REPORT,
        event=EventType.FAILED,
        code=simulated.code,
        enhanced=simulated.enhanced,
        text=_NO_SUCH_USER,
        category=classified.category,
        immediate=classified.immediate,
        counted=classified.counted,
    )


def _complaint(mail: Mail) -> Outcome:
    """Return what a feedback report would say (RFC 5965), which has no reply code."""
    return Outcome(
        delivery_id=mail.delivery_id,
        source=Source.REPORT,
        event=EventType.COMPLAINED,
        category=Category.TRANSIENT,
        text="simulated: the recipient calls the mail unwanted",
    )

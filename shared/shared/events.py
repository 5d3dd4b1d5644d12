"""The public vocabulary: every event Posthouse reports, what it promises and what it does not.

An event is an append-only fact about a delivery or an inbound message. It is written in the transaction that changes the
state it speaks of, and is what webhooks, the event list and the doorbell carry.
"""

from enum import StrEnum

from shared.mail.classify import Category

__all__ = ["Category", "EventType", "OperatorEventKind", "Subject"]


class EventType(StrEnum):
    """What happened. The values are the public names."""

    DELIVERED = "delivered"
    """The next hop took the mail (250). It may still bounce later; nobody can promise an inbox."""
    DELAYED = "delayed"
    """An attempt failed for now; another will follow by itself."""
    FAILED = "failed"
    """The mail will not be delivered: refused, expired, or an operator said so. Nothing more is tried."""
    BOUNCED = "bounced"
    """A report says that a mail delivered before did not reach its mailbox after all."""
    SUPPRESSED = "suppressed"
    """Nothing was sent: the recipient is on the suppression list."""
    COMPLAINED = "complained"
    """The recipient called the mail unwanted, a feedback report (RFC 5965) says."""
    RELAYED = "relayed"
    """A report says the mail was passed on to a system that will not report further."""
    EXPANDED = "expanded"
    """A report says the mail was accepted for several further recipients, a list for example."""
    CANCELED = "canceled"
    """An operator withdrew the mail before it was delivered."""
    UNRECOGNIZED = "unrecognized"
    """Mail came to the return path of a delivery, and nothing in it says what became of that delivery."""
    RECEIVED = "received"
    """Mail for an address of the account arrived."""


class OperatorEventKind(StrEnum):
    """What only operators are told, because they alone can mend it. The values are public names; a further one is a line here."""

    SOURCE_BLOCKED = "source_blocked"
    """A site refuses our mail because of our address or our name; no recipient is suppressed for it."""
    LOGIN_REFUSED = "login_refused"
    """A relay refuses our login; the mail that goes over it waits."""


class Subject(StrEnum):
    """NATS subjects of the doorbell. A ring says "look now"; losing one costs a poll interval, never mail."""

    DELIVERY_DUE = "posthouse.delivery.due"
    EVENT_RECORDED = "posthouse.event.recorded"
    CALL_DUE = "posthouse.call.due"
    INBOUND_STORED = "posthouse.inbound.stored"
    SUPPRESSION_CHANGED = "posthouse.suppression.changed"
    JOB_DUE = "posthouse.job.due"
    CONFIG_CHANGED = "posthouse.config.changed"

"""Read a received message: what it is, and what it says of the delivery whose return path it came to."""

from dataclasses import dataclass

from shared.errors import AddressInvalid
from shared.mail.address import parse, suppression_key
from shared.mail.arf import read_feedback
from shared.mail.dsn import Dsn, DsnRecipient, read_dsn
from shared.mail.mime import read

_LONGEST_SUBJECT = 998
_LONGEST_MESSAGE_ID = 998


@dataclass(frozen=True, slots=True)
class Read:
    """A received message, read."""

    kind: str
    """``dsn``, ``arf`` or ``other``."""
    dsn: Dsn | None
    message_id: str | None
    subject: str | None


def identify(raw: bytes) -> Read:
    """Read a message; never raises for what is in it. Takes time in proportion to its size: give large ones a thread."""
    message = read(raw)
    dsn = read_dsn(message)
    kind = "dsn" if dsn is not None else "arf" if read_feedback(message) is not None else "other"
    message_id, subject = message.header("message-id"), message.header("subject")
    return Read(kind, dsn, message_id and message_id[:_LONGEST_MESSAGE_ID], subject and subject[:_LONGEST_SUBJECT])


def block_of(dsn: Dsn, recipient: str) -> DsnRecipient | None:
    """Return what a DSN says of ``recipient``: its own block, else the only one; None where others are meant, or nobody."""
    wanted = _key(recipient)
    for block in dsn.recipients:
        if wanted in (_key(block.final_recipient), _key(block.original_recipient)):
            return block
    return dsn.recipients[0] if len(dsn.recipients) == 1 else None


def _key(text: str) -> str:
    try:
        return suppression_key(parse(text))
    except AddressInvalid:
        return text.lower()

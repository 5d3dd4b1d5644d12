"""What a received message means for the delivery whose return path it came to."""

from dsn_ingest.identify import Read, block_of
from shared.db.inbound import NewReport
from shared.events import Category
from shared.mail.classify import classify
from shared.mail.dsn import Action


def decide(read: Read, report_id: int, account_id: int, delivery_id: int, recipient: str) -> NewReport:
    """Return what the message says of the delivery to ``recipient``.

    A DSN speaks by its action; a feedback report is a complaint; anything else, and a DSN that speaks of others only, is
    kept as unrecognized: it came to the return path and says nothing about what became of the mail.
    """
    block = block_of(read.dsn, recipient) if read.dsn is not None else None
    if block is None or block.action is None:
        kind = "arf" if read.kind == "arf" else "other"
        return NewReport(report_id, account_id, delivery_id, kind, "", 0, "", "", Category.TRANSIENT)
    classified = classify(block.reply_code, block.enhanced, block.diagnostic)
    return NewReport(
        id=report_id,
        account_id=account_id,
        delivery_id=delivery_id,
        kind="dsn",
        action=block.action.value,
        code=block.reply_code,
        enhanced=block.enhanced,
        text=block.diagnostic,
        category=classified.category,
        immediate=block.action is Action.FAILED and classified.immediate,
        counted=block.action is Action.FAILED and classified.counted,
    )

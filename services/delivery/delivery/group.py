"""Which mails share a transaction: recipients of one message whose envelope is otherwise the same."""

from collections.abc import Iterable, Sequence

from delivery.prepare import Mail

_Key = tuple[int, str, bool, bool, tuple[tuple[str, str], ...]]


def grouped(mails: Iterable[Mail], most: int) -> list[Sequence[Mail]]:
    """Return the mails in groups of at most ``most``, in the order in which their first ones came.

    The mails of a group have one sender, one content and so one signature, ask the same of the server, and have been to the same addresses before. A return path with
    a from_id of its own is a sender of its own. An address that comes twice is a delivery of its own both times.
    """
    groups: list[dict[str, Mail]] = []
    filling: dict[_Key, dict[str, Mail]] = {}
    for mail in mails:
        # An address outside ASCII asks for SMTPUTF8 (RFC 6531 3.4); where it is missing, the others go all the same.
        key = (mail.message_id, mail.mail_from, mail.require_tls, mail.recipient.isascii(), mail.dialed)
        group = filling.get(key)
        if group is None or len(group) >= most or mail.recipient in group:
            group = filling[key] = {}
            groups.append(group)
        group[mail.recipient] = mail
    return [list(group.values()) for group in groups]

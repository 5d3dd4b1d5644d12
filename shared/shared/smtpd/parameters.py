"""What the core itself says about the arguments of MAIL and RCPT: extensions and their limits."""

import re
from collections.abc import Callable, Mapping

from shared.smtpd.config import SmtpdConfig
from shared.smtpd.grammar import PathArgument
from shared.smtpd.reply import NEEDS_SMTPUTF8, TOO_BIG, Reply

_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 6.1
_BAD_SIZE = Reply(501, "5.5.4", "SIZE takes the message's size in octets")
_BAD_BODY = Reply(555, "5.5.4", "BODY is 7BIT or 8BITMIME here")
_BAD_SMTPUTF8 = Reply(501, "5.5.4", "SMTPUTF8 takes no value")


def judge_mail(sender: PathArgument, config: SmtpdConfig) -> Reply | None:
    """Return why a sender and its parameters are refused, None where they are not."""
    for keyword, value in sender.parameters.items():
        judge = _MAIL.get(keyword)
        if judge is None or (keyword == "SMTPUTF8" and not config.smtputf8):
            refusal = None if keyword in config.mail_parameters else _unknown("MAIL", keyword)
        else:
            refusal = judge(value, config)
        if refusal is not None:
            return refusal
    if not sender.path.isascii() and "SMTPUTF8" not in sender.parameters:
        return NEEDS_SMTPUTF8
    return None


def judge_rcpt(recipient: PathArgument, config: SmtpdConfig, *, smtputf8: bool) -> Reply | None:
    """Return why a recipient and its parameters are refused, None where they are not."""
    for keyword in recipient.parameters:
        if keyword not in config.rcpt_parameters:
            return _unknown("RCPT", keyword)
    return None if smtputf8 or recipient.path.isascii() else NEEDS_SMTPUTF8


def _size(value: str | None, config: SmtpdConfig) -> Reply | None:
    if value is None or not _SIZE.fullmatch(value):
        return _BAD_SIZE
    return TOO_BIG if int(value) > config.max_size else None  # RFC 1870 6.1


def _body(value: str | None, _: SmtpdConfig) -> Reply | None:
    return None if (value or "").upper() in {"7BIT", "8BITMIME"} else _BAD_BODY  # RFC 6152 2


def _smtputf8(value: str | None, _: SmtpdConfig) -> Reply | None:
    return None if value is None else _BAD_SMTPUTF8  # RFC 6531 3.4


def _unknown(command: str, keyword: str) -> Reply:
    return Reply(555, "5.5.4", f"Parameter {keyword[:40]} of {command} is not supported")  # RFC 5321 4.1.1.11


_MAIL: Mapping[str, Callable[[str | None, SmtpdConfig], Reply | None]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
}

"""Making a mail fit a server that lacks an extension it was written for, without changing what its readers find."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from delivery.smtp.errors import SmtpEightBitError, SmtpError, SmtpSizeError, SmtpUtf8Error
from delivery.smtp.extensions import Extensions
from delivery.smtp.facts import Mail, body_start, has_eight_bit_body
from shared.errors import ValidationFailed
from shared.mail.mime import read
from shared.mail.seven_bit import seven_bit

_AT_ONCE = 262_144
"""Octets that are looked at between two turns of the event loop; more of them in a thread."""
_SIGNATURE = re.compile(rb"^(?:DKIM-Signature|ARC-Message-Signature)[ \t]*:", re.IGNORECASE | re.MULTILINE)

T = TypeVar("T")
Refuse = Callable[[type[SmtpError], str], SmtpError]


async def fitted(mail: Mail, offered: Extensions, refuse: Refuse) -> Mail:
    """Return the mail as it may go to a server that offers this.

    Args:
        mail: as it was written.
        offered: by the server.
        refuse: makes the error of a class and a text.

    Raises:
        SmtpUnsendableError: it cannot go there in any form.
    """
    _check_size(mail, offered, refuse)
    if mail.smtputf8 and not offered.smtputf8:
        if await _aside(needs_utf8, mail):
            raise refuse(SmtpUtf8Error, "the message needs SMTPUTF8, which the server does not offer")  # RFC 6531 3.2
        mail = replace(mail, smtputf8=False)
    if mail.body8bit and not offered.eight_bit_mime:  # RFC 6152 3
        lacking = "the message has octets over 127 and the server does not offer 8BITMIME"
        try:
            content = await _aside(in_seven_bits, mail)
        except ValidationFailed as error:
            raise refuse(SmtpEightBitError, f"{lacking}; it cannot be converted: {error.message}") from None
        mail = replace(mail, content=(content,), size=len(content), body8bit=False)
        _check_size(mail, offered, refuse)
    return mail


def needs_utf8(mail: Mail) -> bool:
    """Say whether an address or a header field, also that of a part, is not ASCII (RFC 6531 3.4, RFC 6532 3)."""
    if not all(address.isascii() for address in (mail.mail_from, *mail.recipients)):
        return True
    if not isinstance(mail.content, Sequence):
        return True  # a stream cannot be looked at without being used up
    content = b"".join(mail.content)
    if content.isascii():
        return False
    message = read(content)
    return message.truncated or any(not part.header_block.isascii() for part in message.walk())


def in_seven_bits(mail: Mail) -> bytes:
    """Return the content with the bodies that need eight bits in quoted-printable or base64 (RFC 6152 3).

    Raises:
        ValidationFailed: says why it cannot be done.
    """
    if not isinstance(mail.content, Sequence):
        raise ValidationFailed("it is sent as a stream")
    content = b"".join(mail.content)
    if _SIGNATURE.search(content[: body_start(content)]):
        # RFC 6376 5.3: a conversion on the way breaks the signature, and with it what the sender's policy asks for.
        raise ValidationFailed("it has a DKIM signature, which the conversion would break")
    converted = seven_bit(content)
    if has_eight_bit_body(converted):
        raise ValidationFailed("the header of a part has octets over 127")
    return converted


def _check_size(mail: Mail, offered: Extensions, refuse: Refuse) -> None:
    if offered.size is not None and mail.size > offered.size:  # RFC 1870 6.1
        raise refuse(SmtpSizeError, f"the message has {mail.size} octets, the server accepts {offered.size}")


async def _aside(work: Callable[[Mail], T], mail: Mail) -> T:
    return work(mail) if mail.size <= _AT_ONCE else await asyncio.to_thread(work, mail)

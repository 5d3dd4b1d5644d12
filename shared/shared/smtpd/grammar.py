"""Arguments of MAIL and RCPT (RFC 5321 4.1.2), parsed byte for byte and without policy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import BadInput
from shared.smtpd.reply import Reply

Parameters = Mapping[str, str | None]
"""ESMTP parameters: keyword in upper case, value as it was sent, None where it has none."""

_WIDE = "\u00a0-\U0010ffff"  # RFC 6531 3.3; C1 controls stay out
# Dots may stand anywhere in a local part: addresses with two in a row are in daily use, and refusing is policy.
_ATOMS = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~.{_WIDE}-]+"
_QUOTED = rf'"(?:[\x20\x21\x23-\x5b\x5d-\x7e{_WIDE}]|\\[\x20-\x7e])*"'
_DOMAIN = rf"[A-Za-z0-9_{_WIDE}](?:[A-Za-z0-9_.{_WIDE}-]*[A-Za-z0-9_{_WIDE}])?"
_LITERAL = r"\[[\x21-\x5a\x5e-\x7e]+\]"
_ROUTE = r"(?:@[^,:<>@\s]+(?:,@[^,:<>@\s]+)*:)?"  # RFC 5321 4.1.1.3: source routes are accepted and ignored
_MAILBOX = re.compile(rf"<{_ROUTE}((?:{_ATOMS}|{_QUOTED})@(?:{_DOMAIN}|{_LITERAL}))>")
_POSTMASTER = re.compile(r"<(postmaster)>", re.IGNORECASE)  # RFC 5321 4.5.1
_PARAMETER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e{_WIDE}]+))?")  # RFC 5321 4.1.2

_LOCAL_OCTETS = 64  # RFC 5321 4.5.3.1.1
_DOMAIN_OCTETS = 255  # RFC 5321 4.5.3.1.2
_PARAMETERS = 30

_SYNTAX_MAIL = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
_SYNTAX_RCPT = Reply(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
_BAD_SENDER = Reply(501, "5.1.7", "The sender is not an address; write it as <local@domain>, or <> for none")
_BAD_RECIPIENT = Reply(501, "5.1.3", "The recipient is not an address; write it as <local@domain>")
_BAD_PARAMETER = Reply(501, "5.5.4", "A parameter is not of the form KEYWORD or KEYWORD=value")
_DUPLICATE = Reply(501, "5.5.4", "A parameter is given twice")


class ArgumentRefused(BadInput):
    """The argument of a command is not what the grammar allows."""

    code = "smtp_argument"

    def __init__(self, reply: Reply) -> None:
        """Carry the reply that the peer gets."""
        super().__init__(reply.text)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class PathArgument:
    """A path without its angle brackets and source route, and the parameters behind it; empty for ``<>``."""

    path: str
    parameters: Parameters


def parse_mail(argument: str) -> PathArgument:
    """Read what follows ``MAIL``: ``FROM:<reverse-path> [parameters]`` (RFC 5321 4.1.1.2).

    Raises:
        ArgumentRefused: with the reply for the peer.
    """
    rest = _after(argument, "FROM:", _SYNTAX_MAIL)
    if rest.startswith("<>"):
        return PathArgument("", _parameters(rest[2:], _SYNTAX_MAIL))
    match = _MAILBOX.match(rest)
    if match is None or not _fits(match[1]):
        raise ArgumentRefused(_BAD_SENDER)
    return PathArgument(match[1], _parameters(rest[match.end() :], _SYNTAX_MAIL))


def parse_rcpt(argument: str) -> PathArgument:
    """Read what follows ``RCPT``: ``TO:<forward-path> [parameters]`` (RFC 5321 4.1.1.3).

    Raises:
        ArgumentRefused: with the reply for the peer.
    """
    rest = _after(argument, "TO:", _SYNTAX_RCPT)
    match = _MAILBOX.match(rest) or _POSTMASTER.match(rest)
    if match is None or not _fits(match[1]):
        raise ArgumentRefused(_BAD_RECIPIENT)
    return PathArgument(match[1], _parameters(rest[match.end() :], _SYNTAX_RCPT))


def _after(argument: str, keyword: str, syntax: Reply) -> str:
    if argument[: len(keyword)].upper() != keyword:
        raise ArgumentRefused(syntax)
    return argument[len(keyword) :].lstrip(" ")  # a space behind the colon is wrong, common and harmless


def _fits(mailbox: str) -> bool:
    local, _, domain = mailbox.rpartition("@")
    if mailbox.isascii():
        return len(local) <= _LOCAL_OCTETS and len(domain) <= _DOMAIN_OCTETS
    return len(local.encode()) <= _LOCAL_OCTETS and len(domain.encode()) <= _DOMAIN_OCTETS


def _parameters(rest: str, syntax: Reply) -> Parameters:
    if not rest:
        return {}
    if rest[0] != " ":
        raise ArgumentRefused(syntax)
    found: dict[str, str | None] = {}
    for word in rest.split(" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None or len(found) >= _PARAMETERS:
            raise ArgumentRefused(_BAD_PARAMETER)
        keyword = match[1].upper()  # RFC 5321 2.4: keywords are case-insensitive
        if keyword in found:
            raise ArgumentRefused(_DUPLICATE)
        found[keyword] = match[2]
    return found

"""What a failure is about: the recipient, our name, a rule of theirs, this message, the moment, or the way there.

A refusal because of our address or our content says nothing about the recipient, and must not suppress them, whatever
its code is; that is what the reply rules are for. They are data (``reply_rules.csv``): a pattern, a category, and the reply that
taught it. The first rule that matches counts, so the rows go from the unmistakable to the vague: what is wrong with the sender, with
the recipient in plain words, with our server; rates; authentication; content; policies; relaying; full mailboxes; then looser words
for recipients, for connections and for trouble that passes.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Final

from shared.errors import ConfigurationError
from shared.mail import status
from shared.mail.status import clean_text


class Category(StrEnum):
    """What a failure is about."""

    RECIPIENT = "recipient"  # the mailbox or its domain: does not exist, has moved, takes no mail
    REPUTATION = "reputation"  # our address, our name, what others say of us
    POLICY = "policy"  # a rule of theirs that we broke: authentication, who may write to whom
    CONTENT = "content"  # this message: spam, virus, size, form
    TRANSIENT = "transient"  # passes by itself: busy, greylisted, over a rate, mailbox full
    INFRASTRUCTURE = "infrastructure"  # the way there: connections, DNS, loops, relaying, protocol


@dataclass(frozen=True, slots=True)
class Classified:
    """What a failure is about, and what it says against the recipient."""

    category: Category
    immediate: bool
    """It alone is reason to suppress the recipient."""
    counted: bool
    """It is one of the failures in a row that together are."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of ``reply_rules.csv``: what replies that match the pattern are about."""

    pattern: re.Pattern[str]
    category: Category
    reply: str  # the one that taught it


# Any of these codes, or any 5xx with one of these enhanced codes, is final about the recipient, as mox has it.
_FINAL_CODES: Final = frozenset(
    {
        status.C521_HOST_ACCEPTS_NO_MAIL,
        status.C550_MAILBOX_UNAVAILABLE,
        status.C551_USER_NOT_LOCAL,
        status.C553_MAILBOX_NAME_NOT_ALLOWED,
        status.C556_DOMAIN_ACCEPTS_NO_MAIL,
    }
)
_FINAL_ENHANCED: Final = frozenset(
    {
        status.X1_1_BAD_MAILBOX,
        status.X1_2_BAD_SYSTEM,
        status.X1_3_BAD_MAILBOX_SYNTAX,
        status.X1_6_MAILBOX_MOVED,
        status.X2_1_MAILBOX_DISABLED,
        status.X7_1_NOT_AUTHORIZED,
    }
)
# What a rule knows to be about us, our message or the way there says nothing of the recipient, however often it is said.
_NOT_OF_RECIPIENT: Final = frozenset({Category.REPUTATION, Category.POLICY, Category.CONTENT, Category.INFRASTRUCTURE})


def classify(code: int, enhanced: str, text: str) -> Classified:
    """Return what a failed attempt or a report of failure is about, and what it says against the recipient.

    mox's lists say which codes suppress at once; a text that no rule knows leaves them in force. A text that a rule knows to be
    about anything but the recipient takes the force from them: a full mailbox still counts as one of several failures in a row,
    a block of our address does not count at all. Nor does a failure without a reply.

    Args:
        code: reply code, 0 where there was no reply.
        enhanced: enhanced status code such as `5.1.1`, "" where there was none.
        text: the reply, of one line or several, with its codes or without.
    """
    # The code may stand beside the text only, and rules know some codes.
    rule = find_rule(text if enhanced in text else f"{enhanced} {text}")
    known = rule.category if rule is not None else None
    final = code in _FINAL_CODES or (500 <= code <= 599 and enhanced[2:] in _FINAL_ENHANCED)
    return Classified(
        category=known or _by_codes(code, enhanced),
        immediate=final and known in (None, Category.RECIPIENT),
        counted=400 <= code <= 599 and known not in _NOT_OF_RECIPIENT,
    )


def find_rule(text: str) -> Rule | None:
    """Return the first reply rule that knows a text, None if none does. Addresses in it are not looked at."""
    words = _words(text)
    return next((rule for rule in RULES if rule.pattern.search(words)), None)


_LOOKED_AT: Final = 1000  # characters; a reply says what it is about first, and looking costs 2 us for each
_ADDRESS: Final = re.compile(r"[^\s<>@]{1,64}@[^\s<>]{1,255}")
_CONTINUED: Final = re.compile(r"(?<=\S)\s+[245]\d\d(?:-|\s)(?:[245]\.\d{1,3}\.\d{1,3}\s+)?")


def _words(text: str) -> str:
    """Return a text as rules see it: lower case, one line, without addresses, and without codes at the begin of further lines."""
    # `spam-filter@receiver.example: user unknown` is about no spam.
    plain = _ADDRESS.sub("", clean_text(text).lower())
    return " ".join(_CONTINUED.sub(" ", plain).split())[:_LOOKED_AT]


def without_addresses(text: str) -> str:
    """Return a text with every address in it replaced, for those whom it does not concern who wrote to whom."""
    return _ADDRESS.sub("[address]", text)


def _by_codes(code: int, enhanced: str) -> Category:
    """Return what the codes alone say (RFC 5321 section 4.2.3, RFC 3463 section 3)."""
    if code == 0:
        return Category.INFRASTRUCTURE
    if code < 500:
        return Category.TRANSIENT
    x = enhanced[2:]
    return _BY_ENHANCED.get(x) or _BY_SUBJECT.get(x.partition(".")[0]) or _BY_CODE.get(code, Category.POLICY)


_BY_ENHANCED: Final = {
    status.X1_7_BAD_SENDER_SYNTAX: Category.POLICY,
    status.X1_8_BAD_SENDER_SYSTEM: Category.POLICY,
    status.X2_2_MAILBOX_FULL: Category.TRANSIENT,
    status.X2_3_MESSAGE_TOO_LONG_FOR_MAILBOX: Category.CONTENT,
    status.X3_4_MESSAGE_TOO_BIG: Category.CONTENT,
    status.X4_7_DELIVERY_TIME_EXPIRED: Category.TRANSIENT,
    status.X7_25_REVERSE_DNS_FAILED: Category.REPUTATION,
}
_BY_SUBJECT: Final = {
    "1": Category.RECIPIENT,  # address
    "2": Category.RECIPIENT,  # mailbox
    "3": Category.INFRASTRUCTURE,  # mail system
    "4": Category.INFRASTRUCTURE,  # network and routing
    "5": Category.INFRASTRUCTURE,  # protocol
    "6": Category.CONTENT,  # content and media
    "7": Category.POLICY,  # security and policy
}
_BY_CODE: Final = {
    **dict.fromkeys(_FINAL_CODES, Category.RECIPIENT),
    **dict.fromkeys(
        range(status.C500_SYNTAX_ERROR, status.C504_PARAMETER_NOT_IMPLEMENTED + 1), Category.INFRASTRUCTURE
    ),
    status.C552_STORAGE_EXCEEDED: Category.TRANSIENT,
}


# Loading the rules, once.


def load_rules(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Read rules from the lines of a CSV with the columns pattern, category and reply.

    Patterns are regular expressions over the text in lower case. Each rule must know the reply that taught it, and be the first that does.

    Raises:
        ConfigurationError: names the row and what is wrong with it.
    """
    rules: list[Rule] = []
    rows = csv.reader(lines, strict=True)
    try:
        if next(rows, None) != ["pattern", "category", "reply"]:
            raise ConfigurationError("reply_rules.csv must begin with the line pattern,category,reply")
        for row in rows:
            rules.append(_rule(row, f"reply_rules.csv, line {rows.line_num}"))
            words = _words(rules[-1].reply)
            first = next((rule for rule in rules if rule.pattern.search(words)), None)
            if first is not rules[-1]:
                instead = "no rule" if first is None else f"the earlier rule {first.pattern.pattern!r}"
                raise ConfigurationError(
                    f"reply_rules.csv, line {rows.line_num}: {instead} knows its reply; change the pattern or the order"
                )
    except csv.Error as error:
        raise ConfigurationError(f"reply_rules.csv, line {rows.line_num}: {error}") from error
    return tuple(rules)


def _rule(row: list[str], where: str) -> Rule:
    if len(row) != 3:
        raise ConfigurationError(f"{where}: {len(row)} columns instead of 3; quote what has commas in it")
    pattern, category, reply = row
    if category not in {known.value for known in Category}:
        raise ConfigurationError(f"{where}: {category!r} is no category; take one of {', '.join(Category)}")
    if re.search(r"(?<!\\)[A-Z]", pattern) or pattern.strip() == "":
        raise ConfigurationError(f"{where}: a pattern is in lower case, as the text it is held against, and not empty")
    try:
        return Rule(re.compile(pattern), Category(category), reply)
    except re.error as error:
        raise ConfigurationError(f"{where}: the pattern is no regular expression: {error}") from error


RULES: Final = load_rules(files("shared.mail").joinpath("reply_rules.csv").read_text(encoding="utf-8").splitlines())

"""SMTP reply codes and enhanced status codes by name, and the one cleaner for text that comes from the network.

Reply codes are named by number and meaning, so that a reader of the RFC and a reader of the code both find them
(RFC 5321 section 4.2.3). Enhanced codes are named by subject and detail only: `X1_1` is `1.1`, which stands for `4.1.1`
and `5.1.1` alike (RFC 3463 section 2).
"""

import re
from typing import Final

C421_SERVICE_NOT_AVAILABLE: Final = 421
C450_MAILBOX_BUSY: Final = 450
C451_LOCAL_ERROR: Final = 451
C452_INSUFFICIENT_STORAGE: Final = 452
C500_SYNTAX_ERROR: Final = 500
C503_BAD_SEQUENCE: Final = 503
C504_PARAMETER_NOT_IMPLEMENTED: Final = 504
C521_HOST_ACCEPTS_NO_MAIL: Final = 521  # RFC 7504 section 3
C530_AUTHENTICATION_REQUIRED: Final = 530  # RFC 4954 section 6
C550_MAILBOX_UNAVAILABLE: Final = 550
C551_USER_NOT_LOCAL: Final = 551
C552_STORAGE_EXCEEDED: Final = 552
C553_MAILBOX_NAME_NOT_ALLOWED: Final = 553
C554_TRANSACTION_FAILED: Final = 554
C556_DOMAIN_ACCEPTS_NO_MAIL: Final = 556  # RFC 7504 section 4
C571_BLOCKED: Final = 571  # in no RFC; filters use it for a refusal by policy

X1_1_BAD_MAILBOX: Final = "1.1"
X1_2_BAD_SYSTEM: Final = "1.2"
X1_3_BAD_MAILBOX_SYNTAX: Final = "1.3"
X1_6_MAILBOX_MOVED: Final = "1.6"
X1_7_BAD_SENDER_SYNTAX: Final = "1.7"
X1_8_BAD_SENDER_SYSTEM: Final = "1.8"
X1_10_NULL_MX: Final = "1.10"  # RFC 7505 section 4.2
X2_1_MAILBOX_DISABLED: Final = "2.1"
X2_2_MAILBOX_FULL: Final = "2.2"
X2_3_MESSAGE_TOO_LONG_FOR_MAILBOX: Final = "2.3"
X3_4_MESSAGE_TOO_BIG: Final = "3.4"
X4_7_DELIVERY_TIME_EXPIRED: Final = "4.7"
X7_1_NOT_AUTHORIZED: Final = "7.1"
X7_25_REVERSE_DNS_FAILED: Final = "7.25"  # RFC 7372 section 3.3

TEXT_LIMIT: Final = 4096

# RFC 3463 section 2: class "." subject "." detail, subject and detail of one to three digits. Leading `#` and brackets are
# how qmail and IronPort write it. What follows may not make it an IP address or a version number.
_ENHANCED: Final = re.compile(r"[\s#(\[]*([245])\.(\d{1,3})\.(\d{1,3})(?![\d]|\.\d)")

# C0 and C1 controls and DEL other than tab and line feed; surrogates; and the bidirectional overrides, which show a reader
# another text than the bytes say (Unicode TR 36 section 2.5).
_UNPRINTABLE: Final = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def parse_enhanced(text: str) -> str | None:
    """Return the enhanced status code that text begins with, as `5.1.1`, or None.

    A `#` or an opening bracket before it and leading zeros are forgiven; `5.1.1.7` is an address, not a code.
    RFC 3463 section 2, RFC 2034 section 4.
    """
    if (found := _ENHANCED.match(text)) is None:
        return None
    return f"{found[1]}.{int(found[2])}.{int(found[3])}"


# Codes an SMTP server may send; 465 and 587, which texts name too, are ports.
_CODE: Final = r"[245][0-57]\d"
_AT_START: Final = re.compile(rf"[\s<\"'(\[]*({_CODE})(?=[\s\-:;,.#(]|$)")
_WITHIN: Final = (
    # the code with its enhanced code, or with the quoted text of the server, wherever they stand: ... error 550-'5.1.1 no such user'
    re.compile(rf"(?<![\w.\-@])({_CODE})(?=[ \-]+[#(\['\"]*[245]\.\d{{1,3}}\.\d|-['\"])"),
    # the code after the words that announce a server's answer: host mx.example[192.0.2.1] said: 550 no such user
    re.compile(
        rf"(?:said|says|respon\w+|reply|replied|returned|error|code|with|:)[\s:]+[\"'<(\[]*({_CODE})(?=[\s\-:])",
        re.IGNORECASE,
    ),
)
# An enhanced code later in the text, marked as one: 550 no such user (#5.1.1), or 550-no such user 550 5.1.1 try again
_MARKED: Final = re.compile(rf"(?:[#(\[]|(?<![\w.\-@]){_CODE}[ \-])(?=[245]\.\d{{1,3}}\.\d)")


def reply_codes(text: str) -> tuple[int, str]:
    """Return the reply code and the enhanced code that a report's text quotes, as (550, "5.1.1"); 0 and "" where it has none.

    Reads a reply as the server wrote it, on one line or several (`550-5.1.1 no 550 5.1.1 such user`), and a reply quoted in
    a sentence of the reporting system. RFC 5321 section 4.2, RFC 3463 section 2.
    """
    found = _AT_START.match(text) or next(filter(None, (form.search(text) for form in _WITHIN)), None)
    if found is None:
        return 0, parse_enhanced(text) or ""
    code = int(found[1])
    enhanced = parse_enhanced(text[found.end() :].lstrip(" -:;,'\"")) or parse_enhanced(text)
    for marked in _MARKED.finditer(text, found.end()):
        if enhanced is not None:
            break
        later = parse_enhanced(text[marked.end() : marked.end() + 16])
        enhanced = later if later is not None and later[0] == found[1][0] else None
    return code, enhanced or ""


def clean_text(text: str | bytes, limit: int = TEXT_LIMIT) -> str:
    """Return text from the network as text that may be stored, logged and shown.

    NUL is removed, CRLF becomes LF, invalid UTF-8, lone surrogates and controls become U+FFFD; tab and LF stay. The
    result is at most ``limit`` octets of UTF-8, cut between characters, without white space at either end.
    """
    # Four octets are the longest character, so a prefix of 4 x limit holds all that can remain; a gigabyte is not copied.
    # Twice that, because NUL and CR vanish: what they cost of the rest is an attacker's own loss.
    start = text[: 8 * limit]
    decoded = start.decode("utf-8", "replace") if isinstance(start, bytes) else start
    cleaned = _UNPRINTABLE.sub("\ufffd", decoded.replace("\0", "").replace("\r\n", "\n")).strip()
    if len(octets := cleaned.encode()) > limit:
        cleaned = octets[:limit].decode("utf-8", "ignore").rstrip()
    return cleaned

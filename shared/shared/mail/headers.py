"""Writing header fields: folding, encoded words, address lists, parameters, dates; nothing gets in that is not one field.

Every function here returns a whole field as bytes, with its CRLF. Lines are folded to at most 77 columns where there is a place
to fold (RFC 5322 section 2.1.1 asks for 78). Where the white space is content, as in Subject, the fold stands before it and
unfolding gives back the text; between tokens the continuation begins with a tab. ``utf8`` writes an internationalised
message (RFC 6532): raw UTF-8 where the syntax allows it, domains in U-labels.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.errors import ValidationFailed
from shared.mail.address import Address

COLUMNS = 77
_ENCODED_WORD = 75
"""RFC 2047 section 2."""
_LONGEST_WORD = 900
"""A word that leaves room for a field name in a line of 998 octets (RFC 5322 section 2.1.1)."""

_CRLF_TAB = "\r\n\t"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FTEXT = re.compile(r"[!-9;-~]{1,76}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")
_WORDS = re.compile(r"( *)([^ ]+)")
_Q_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q = tuple(chr(octet) if octet in _Q_SAFE else "_" if octet == 0x20 else f"={octet:02X}" for octet in range(256))
_ATTRIBUTE_CHAR = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")
_PERCENT = tuple(chr(octet) if octet in _ATTRIBUTE_CHAR else f"%{octet:02X}" for octet in range(256))


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with a display name, as it stands in From or To (RFC 5322 section 3.4)."""

    name: str
    """Empty where there is none."""
    address: Address


def check_text(text: str, *, what: str, field: str | None = None) -> None:
    """Refuse what could end a header field or hide in it: CR, LF, NUL, every other control character, lone surrogates.

    Raises:
        ValidationFailed: names what, and the character.
    """
    found = _FORBIDDEN.search(text)
    if found is None:
        return
    character = found.group()
    if character in "\r\n":
        raise ValidationFailed(f"{what} has a line break; it must be one line", field=field)
    raise ValidationFailed(f"{what} has the control character U+{ord(character):04X}; remove it", field=field)


def check_name(name: str, *, field: str | None = None) -> None:
    """Refuse a header name that is no RFC 5322 section 3.6.8 ftext, or longer than 76 characters.

    Raises:
        ValidationFailed: says what a name may hold.
    """
    if not _FTEXT.fullmatch(name):
        raise ValidationFailed(
            "a header name has 1 to 76 printable ASCII characters, without spaces and colons", field=field
        )


def unstructured(name: str, text: str, *, utf8: bool = False) -> bytes:
    """Return a field of plain text, such as Subject: words that are not ASCII become encoded words (RFC 2047).

    The text survives exactly, leading and double spaces included. It must have passed :func:`check_text`.
    """
    if text.isascii() and len(name) + 2 + len(text) <= COLUMNS and "=?" not in text and text == text.strip(" "):
        return f"{name}: {text}\r\n".encode("ascii") if text else f"{name}:\r\n".encode("ascii")
    folder = _Folder(name)
    for gap, words, encode in _runs(text, utf8=utf8):
        if encode:
            folder.add_encoded(gap or " ", words, fold=gap or None)
        else:
            folder.add(gap or " ", words, fold=gap or None)
    return folder.field()


def literal(name: str, value: str, *, utf8: bool = False, field: str | None = None) -> bytes:
    """Return a field whose value the caller wrote: ASCII stays as it is and is folded at its spaces, other words are encoded.

    White space around the value is not content and dropped. The value must have passed :func:`check_text`.

    Raises:
        ValidationFailed: it has a word too long for a line.
    """
    value = value.strip(" ")
    if not value.isascii():
        return unstructured(name, value, utf8=utf8)
    if len(name) + 2 + len(value) <= COLUMNS:
        return f"{name}: {value}\r\n".encode("ascii") if value else f"{name}:\r\n".encode("ascii")
    folder = _Folder(name)
    for gap, word in _WORDS.findall(value):
        if len(word) > _LONGEST_WORD:
            raise ValidationFailed(
                f"the header {name} has {len(word)} characters without a space; a line of mail has at most 998",
                field=field,
            )
        folder.add(gap or " ", word, fold=gap or None)
    return folder.field()


def address_list(name: str, mailboxes: Iterable[Mailbox], *, utf8: bool = False) -> bytes:
    """Return a field with one or more mailboxes, such as To. The names must have passed :func:`check_text`."""
    folder = _Folder(name)
    comma = ""
    for mailbox in mailboxes:
        text = mailbox.address.unicode_text if utf8 else mailbox.address.text
        if comma:
            folder.glue(comma)
        comma = ","
        if not mailbox.name:
            folder.add(" ", text, fold="\t")
            continue
        quoted = _quoted(mailbox.name)
        if mailbox.name.isascii() and "=?" not in mailbox.name and len(quoted) < COLUMNS - 12:
            folder.add(" ", quoted, fold="\t")
        else:
            folder.add_encoded(" ", mailbox.name, fold="\t")
        folder.add(" ", f"<{text}>", fold="\t")
    return folder.field()


def tokens(name: str, items: Sequence[str]) -> bytes:
    """Return a field of message ids or the like, one on a line (RFC 5322 section 3.6.4). They must have passed :func:`check_text`."""
    return f"{name}: {_CRLF_TAB.join(items)}\r\n".encode()


def with_parameters(name: str, value: str, parameters: Iterable[tuple[str, str]]) -> bytes:
    """Return a field such as Content-Disposition: value and parameters, not ASCII or long ones by RFC 2231.

    The values must have passed :func:`check_text`.
    """
    folder = _Folder(name)
    folder.add(" ", value)
    for attribute, text in parameters:
        for part in _parameter(attribute, text):
            folder.glue(";")
            folder.add(" ", part, fold="\t")
    return folder.field()


def date(moment: datetime) -> str:
    """Return an aware datetime as an RFC 5322 section 3.3 date-time with its weekday, zone offset kept.

    Raises:
        ValidationFailed: it has no zone, or a year before 1900.
    """
    offset = moment.utcoffset()
    if offset is None:
        raise ValidationFailed("a date needs a time zone", field="date")
    if moment.year < 1900:
        raise ValidationFailed("a mail cannot be dated before 1900", field="date")
    minutes = round(offset.total_seconds() / 60)
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day}, {moment.day} {month} {moment.year:04d} {moment.hour:02d}:{moment.minute:02d}:{moment.second:02d} {zone}"


def message_id(random: bytes, hostname: str) -> str:
    """Return a Message-ID with its angle brackets from 16 random bytes and our host name (RFC 5322 section 3.6.4)."""
    return f"<{base64.urlsafe_b64encode(random).decode('ascii').rstrip('=')}@{hostname}>"


class _Folder:
    """One field under construction; it knows the column."""

    __slots__ = ("_column", "_pieces", "_start")

    def __init__(self, name: str) -> None:
        self._pieces = [name, ":"]
        self._column = self._start = len(name) + 1

    def add(self, gap: str, token: str, *, fold: str | None = None) -> None:
        """Append a token after gap, or on a new line that begins with fold where it would pass the last column."""
        width = len(token) if token.isascii() else len(token.encode())
        # Nothing is folded straight after the name: readers exist that take such a field for empty.
        if fold is not None and self._column > self._start and self._column + len(gap) + width >= COLUMNS:
            self._pieces.append("\r\n")
            self._column, gap = 0, fold
        self._pieces += (gap, token)
        self._column += len(gap) + width

    def glue(self, token: str) -> None:
        """Append a token to the one before."""
        self._pieces.append(token)
        self._column += len(token)

    def add_encoded(self, gap: str, text: str, *, fold: str | None = None) -> None:
        """Append a text as encoded words (RFC 2047), as many as it needs."""
        room = COLUMNS - 1 - self._column - len(gap)
        needed = 12 + sum(len(_Q[octet]) for octet in text.encode())
        # One word rather than two where that is possible: readers exist that keep the space between two in a display name.
        if fold is not None and room < (needed if needed <= _ENCODED_WORD else 40) and self._column > self._start:
            self._pieces.append("\r\n")
            self._column, gap, room = 0, fold, _ENCODED_WORD
        for word in _encoded_words(text, min(max(room, 30), _ENCODED_WORD)):
            self.add(gap, word, fold=fold)
            gap, fold = " ", "\t"

    def field(self) -> bytes:
        """Return the field."""
        self._pieces.append("\r\n")
        return "".join(self._pieces).encode()


def _runs(text: str, *, utf8: bool) -> list[tuple[str, str, bool]]:
    """Split a text into (spaces before, words, whether they must be encoded).

    Neighbouring words to encode are one run: white space between encoded words is not content (RFC 2047 section 6.2). Spaces
    that a reader might drop, at the ends and doubled ones beside an encoded word, go into the encoded word.
    """
    runs: list[tuple[str, str, bool]] = []
    for gap, word in _WORDS.findall(text):
        encode = (
            "=?" in word or len(word) > _LONGEST_WORD // 4 or not (utf8 or word.isascii()) or (not runs and gap != "")
        )
        if encode and runs and runs[-1][2]:
            runs[-1] = (runs[-1][0], runs[-1][1] + gap + word, True)
        elif encode:
            runs.append((gap[:1], gap[1:] + word, True) if runs else ("", gap + word, True))
        elif runs and runs[-1][2]:
            runs[-1] = (runs[-1][0], runs[-1][1] + gap[1:], True)
            runs.append((" ", word, False))
        else:
            runs.append((gap, word, False))
    trailing = " " * (len(text) - len(text.rstrip(" ")))
    if trailing and runs:
        gap, words, _ = runs.pop()
        # Joined with a run to encode before it, where there is one; otherwise it becomes one.
        if runs and runs[-1][2]:
            before, earlier, _ = runs.pop()
            gap, words = before, earlier + gap + words
        runs.append((gap, words + trailing, True))
    elif trailing:
        runs.append(("", trailing, True))
    return runs


def _encoded_words(text: str, first: int) -> list[str]:
    """Encode a text as RFC 2047 words of at most 75 characters, the first of at most ``first``.

    Q, which people can read in the source, unless it needs several words and B would do with fewer than half the octets.
    """
    raw = text.encode()
    quoted = sum(len(_Q[octet]) for octet in raw)
    use_q = quoted <= first - 12 or quoted <= 2 * ((len(raw) + 2) // 3 * 4)
    prefix = "=?utf-8?q?" if use_q else "=?utf-8?b?"
    words: list[str] = []
    room = first - len(prefix) - 2
    start, width = 0, 0
    # RFC 2047 section 5: a character of several octets is never split between words.
    encoded = [character.encode() for character in text]
    for index, octets in enumerate(encoded):
        added = sum(len(_Q[octet]) for octet in octets) if use_q else len(octets)
        limit = room if use_q else room // 4 * 3
        if width + added > limit:
            words.append(prefix + _payload(b"".join(encoded[start:index]), use_q=use_q) + "?=")
            start, width, room = index, 0, _ENCODED_WORD - len(prefix) - 2
        width += added
    words.append(prefix + _payload(b"".join(encoded[start:]), use_q=use_q) + "?=")
    return words


def _payload(octets: bytes, *, use_q: bool) -> str:
    if use_q:
        return "".join([_Q[octet] for octet in octets])
    return binascii.b2a_base64(octets, newline=False).decode("ascii")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _parameter(attribute: str, text: str) -> list[str]:
    """Return one parameter, in sections (RFC 2231 section 3) where it would not fit a line."""
    room = COLUMNS - len(attribute) - 8
    if text.isascii():
        plain = text if _TOKEN.fullmatch(text) else _quoted(text)
        if len(plain) <= room:
            return [f"{attribute}={plain}"]
    # RFC 2231 section 4: charset'language'percent-encoded; a section may end within a character.
    pieces = [_PERCENT[octet] for octet in text.encode()]
    sections, section = [], "utf-8''"
    for piece in pieces:
        if len(section) + len(piece) > room:
            sections.append(section)
            section = ""
        section += piece
    sections.append(section)
    if len(sections) == 1:
        return [f"{attribute}*={section}"]
    return [f"{attribute}*{number}*={section}" for number, section in enumerate(sections)]

"""Reading what stands in header fields: charsets, encoded words, parameters, addresses with comments, dates.

Written for mail as it comes, not as it should be: nothing here raises, whatever the input, and every step is linear in
its length. What cannot be read is replaced by U+FFFD or left out. The writing side is ``shared.mail.headers``.
"""

import binascii
import codecs
import encodings
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from encodings.aliases import aliases
from typing import Final

from shared.mail.status import clean_text

# Only codecs that decode text, and in linear time: punycode and idna are quadratic, unicode_escape runs a little language,
# and a codec that does not exist would leave its name in Python's cache for ever.
_NOT_TEXT: Final = {
    "base64_codec",
    "bz2_codec",
    "hex_codec",
    "quopri_codec",
    "rot_13",
    "uu_codec",
    "zlib_codec",
    "mbcs",
}
_UNLISTED: Final = {"koi8_u", "koi8_t", "utf_8_sig", "cp720", "cp737", "cp856", "cp874", "cp1006"}
_CODECS: Final = (frozenset(aliases.values()) | _UNLISTED) - _NOT_TEXT

# What senders write, and the codec that reads it: a superset where senders are known to call it by the smaller name.
_SENDERS_NAMES: Final[Mapping[str, str]] = {
    "unicode_1_1_utf_7": "utf_7",
    "windows_874": "cp874",
    "iso_8859_8_i": "iso8859_8",
    "iso_8859_8_e": "iso8859_8",
    "x_sjis": "cp932",
    "shift_jis": "cp932",
    "sjis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x_gbk": "gb18030",
    "ks_c_5601_1987": "cp949",
    "euc_kr": "cp949",
    "x_mac_roman": "mac_roman",
    "macintosh": "mac_roman",
}


_SURROGATE: Final = re.compile("[\ud800-\udfff]")  # UTF-7 writes UTF-16 in base64, and so also halves of pairs


def _codec(charset: str) -> str | None:
    # RFC 2045 section 5.1: names of charsets are not case-sensitive.
    name = encodings.normalize_encoding(charset[:60]).lower() if charset.isascii() else ""
    name = _SENDERS_NAMES.get(name, name)
    name = aliases.get(name, name)
    return name if name in _CODECS else None


def decode_text(octets: bytes, charset: str = "") -> str:
    """Return octets as text, by their charset where that is known and tells the truth, otherwise as UTF-8.

    Text said to be US-ASCII, or in no or an unknown charset, is tried as UTF-8, which is what it then mostly is
    (RFC 6532 section 3.2). Octets that do not fit become U+FFFD.
    """
    codec = _codec(charset) if charset else None
    if codec is None or codec == "ascii":
        return octets.decode("utf-8", "replace")
    try:
        text = codecs.decode(octets, codec, "replace")
    except (UnicodeError, ValueError):  # some multibyte codecs raise in spite of "replace"
        return octets.decode("utf-8", "replace")
    return _SURROGATE.sub("\ufffd", text) if codec == "utf_7" else text


def decode_base64(octets: bytes) -> bytes:
    """Return what base64 octets encode; foreign characters, missing padding and a cut end are forgiven (RFC 2045 section 6.8)."""
    try:
        return binascii.a2b_base64(octets)
    except binascii.Error:
        letters = re.sub(rb"[^A-Za-z0-9+/]", b"", octets.split(b"=", 1)[0])
        if len(letters) % 4 == 1:  # six bits are no octet
            letters = letters[:-1]
        return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))


# RFC 2047 section 2 with the language of RFC 2231 section 5; senders leave spaces in the text, so only `?` ends it.
_WORD: Final = re.compile(r"=\?([\w.:+-]{1,60})(?:\*[\w-]{0,40})?\?([bBqQ])\?([^?]*)\?=")


def decode_words(text: str) -> str:
    """Return text with its encoded words decoded (RFC 2047).

    White space between two encoded words is dropped (section 6.2). Neighbours in one charset are decoded together, since
    many senders split a character between them, although section 5 forbids it.
    """
    if "=?" not in text:
        return text
    out: list[str] = []
    octets = bytearray()
    charset, position = "", 0
    for word in _WORD.finditer(text):
        gap = text[position : word.start()]
        apart = bool(gap.strip()) or not octets
        if octets and (apart or word[1].lower() != charset):
            out.append(decode_text(bytes(octets), charset))
            octets.clear()
        if apart:
            out.append(gap)
        charset, position = word[1].lower(), word.end()
        content = word[3].encode("utf-8", "replace")
        octets += decode_base64(content) if word[2] in "bB" else binascii.a2b_qp(content, header=True)
    out.extend((decode_text(bytes(octets), charset), text[position:]))
    return "".join(out)


def unfold(value: str) -> str:
    """Return a field's value on one line, without white space at its ends (RFC 5322 section 2.2.3)."""
    return re.sub(r"\r?\n(?=[ \t])", "", value).strip()


_LEXICAL: Final = re.compile(r'\\.?|["()]', re.DOTALL)


def without_comments(text: str) -> str:
    """Return text with each comment in parentheses made one space; quoted strings stay (RFC 5322 section 3.2.2).

    A parenthesis that is never closed begins no comment.
    """
    out: list[str] = []
    kept = opened = depth = 0
    quoted = False
    for token in _LEXICAL.finditer(text):
        match token[0]:
            case '"' if depth == 0:
                quoted = not quoted
            case "(" if not quoted:
                opened = token.start() if depth == 0 else opened
                depth += 1
            case ")" if depth > 0:
                depth -= 1
                if depth == 0:
                    out.extend((text[kept:opened], " "))
                    kept = token.end()
    out.append(text[kept:])
    return "".join(out).strip()


_PARAMETER: Final = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))', re.DOTALL)
_EXTENDED: Final = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?")


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """Return the value before the first `;`, and the parameters by their names in lower case.

    Quoted strings are unquoted, pieces and charsets joined and decoded (RFC 2045 section 5.1, RFC 2231 sections 3 and 4).
    Of two parameters of one name the first counts, of a plain and an extended one the extended.
    """
    main = value.partition(";")[0]
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for found in _PARAMETER.finditer(value, len(main)):
        quoted, bare = found[2], found[3]
        text = (
            re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
            if quoted is not None
            else re.sub(r"\s\(.*", "", bare, flags=re.DOTALL).strip()
        )
        name = _EXTENDED.fullmatch(found[1].lower())
        if name is None or (name[2] is None and name[3] is None):
            plain.setdefault(found[1].lower(), decode_words(text))
        else:
            pieces.setdefault(name[1], {}).setdefault(int(name[2] or 0), (text, name[3] is not None))
    return without_comments(main), plain | {name: _joined(numbered) for name, numbered in pieces.items()}


def _joined(numbered: Mapping[int, tuple[str, bool]]) -> str:
    charset = ""
    octets = bytearray()
    for number, (text, extended) in sorted(numbered.items()):
        piece = text
        if extended and number == min(numbered) and piece.count("'") >= 2:
            charset, _, piece = piece.split("'", 2)  # RFC 2231 section 4: charset'language'text
        raw = piece.encode("utf-8", "surrogatepass")
        octets += (
            re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), raw) if extended else raw
        )
    return decode_text(bytes(octets), charset)


_ZONE: Final = r"(?P<zone>[+-]\d{2}:?\d{2}|[A-Za-z]{1,5})"
_TIME: Final = r"(?P<hour>\d{1,2})[:-](?P<minute>\d{2})(?:[:-](?P<second>\d{2}))?(?:[.,]\d+)?"
_DATES: Final = (
    # RFC 5322 section 3.3, with or without weekday; dashes and names in full as some systems write them.
    re.compile(
        rf"(?:[A-Za-z]+\.?,?\s*)?(?P<day>\d{{1,2}})[\s-]+(?P<month>[A-Za-z]{{3}})[a-z]*[.,]?[\s-]+(?P<year>\d{{4}}|\d{{2}})[\s,]+{_TIME}\s*{_ZONE}?"
    ),
    # asctime of C, as `date` prints it: Thu Oct 16 17:53:03 UTC 2014
    re.compile(
        rf"(?:[A-Za-z]{{3}},?\s+)?(?P<month>[A-Za-z]{{3}})\s+(?P<day>\d{{1,2}}),?\s+{_TIME}\s+(?:{_ZONE}\s+)?(?P<year>\d{{4}})"
    ),
    # RFC 3339, and the variants of it that gateways write.
    re.compile(rf"(?P<year>\d{{4}})-(?P<month>\d{{2}})-(?P<day>\d{{2}})[Tt\s]\s*{_TIME}\s*{_ZONE}?"),
)
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_HOURS_EAST: Final = {
    "edt": -4,
    "est": -5,
    "cdt": -5,
    "cst": -6,
    "mdt": -6,
    "mst": -7,
    "pdt": -7,
    "pst": -8,
}  # RFC 5322 section 4.3
_MORE_HOURS_EAST: Final = {"jst": 9, "cet": 1, "cest": 2, "bst": 1, "msk": 3}  # not in the RFC, and seen alone


def read_date(text: str) -> datetime | None:
    """Return the moment a date field names, aware and in UTC, or None where it names none.

    Takes the forms of RFC 5322 section 3.3 and 4.3, with comments, of RFC 3339, and of C's asctime. A zone that is
    missing or unknown counts as UTC (section 4.3).
    """
    plain = without_comments(text[:200])
    for form in _DATES:
        if (found := form.match(plain)) is not None and (moment := _moment(found)) is not None:
            return moment
    return None


def _moment(found: re.Match[str]) -> datetime | None:
    month = found["month"].lower()
    year = int(found["year"])
    if len(found["year"]) == 2:
        year += 2000 if year < 50 else 1900  # RFC 5322 section 4.3
    try:
        local = datetime(
            year,
            int(month) if month.isdecimal() else _MONTHS[month],
            int(found["day"]),
            int(found["hour"]),
            int(found["minute"]),
            59 if found["second"] == "60" else int(found["second"] or 0),  # a leap second has no datetime
            tzinfo=UTC,
        )
        return local - _offset(found["zone"] or "")
    except (
        KeyError,
        ValueError,
        OverflowError,
    ):  # no such month, the 31st of June, or beyond the years a datetime holds
        return None


def _offset(zone: str) -> timedelta:
    if zone[:1] in {"+", "-"}:
        digits = zone[1:].replace(":", "")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        return -offset if zone[0] == "-" else offset
    name = zone.lower()
    return timedelta(hours=_HOURS_EAST.get(name, _MORE_HOURS_EAST.get(name, 0)))


_BRACKETED: Final = re.compile(r"<([^<>]*)>\s*$")


def address_text(value: str, limit: int = 998) -> str:
    """Return the address in a field's value without comments, angle brackets, route or display name; not checked further."""
    plain = without_comments(value)
    if (found := _BRACKETED.search(plain)) is not None:
        plain = found[1]
    plain = re.sub(r"^\s*@[^:\s]*:", "", plain)  # RFC 5321 section 4.1.2: a source route is ignored
    return clean_text(plain, limit)


_MESSAGE_ID: Final = re.compile(r"<[^<>\s]{1,996}>")


def message_id_text(value: str) -> str | None:
    """Return the first Message-ID in a field's value with its angle brackets, the bare value where it has none, or None if empty."""
    if (found := _MESSAGE_ID.search(value)) is not None:
        return clean_text(found[0], 998)
    return clean_text(value, 998) or None

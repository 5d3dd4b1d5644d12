"""Mail addresses: one grammar for every door, and the keys under which an address is suppressed or looked up.

Grammar (RFC 5321 section 4.1.2, RFC 6531 section 3.3): ``local@domain``. The local part is atoms joined by dots, or a quoted string;
the domain is a name, never an address literal. Internationalised names go through UTS #46 (lookup), as browsers and mox do.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import idna

from shared.errors import AddressInvalid

LOCAL_OCTETS = 64
"""RFC 5321 section 4.5.3.1.1, counted as the local part is written on the wire."""
DOMAIN_OCTETS = 253
"""What fits into the 255 octets of a DNS name (RFC 1035 section 2.3.4)."""

_INPUT_CHARACTERS = 1_000
_ATEXT = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
_DOT_ATOM = rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_A_LABEL = r"(?![xX][nN]--)" + _LABEL

_PLAIN = re.compile(rf"({_DOT_ATOM})@((?:{_A_LABEL}\.)*(?![0-9]+\Z){_A_LABEL})")
_PLAIN_LOCAL = re.compile(rf"[{_ATEXT}\u0080-\U0010ffff]+(?:\.[{_ATEXT}\u0080-\U0010ffff]+)*")
_NOT_ATEXT = re.compile(rf"[^{_ATEXT}.\u0080-\U0010ffff]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"@(.*)')
_LDH_LABEL = re.compile(_LABEL)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox. Made by :func:`parse`; two spellings of one mailbox are equal except for the case of the local part."""

    local: str
    """NFC, case kept, without quotes or escapes."""
    domain: str
    """Lower-case A-labels, without a trailing dot."""

    @property
    def text(self) -> str:
        """The RFC 5321 Mailbox: the local part quoted where it must be. ASCII unless the local part is not."""
        return f"{quoted_local(self.local)}@{self.domain}"

    @property
    def domain_unicode(self) -> str:
        """The domain in U-labels, for people."""
        if "xn--" not in self.domain:
            return self.domain
        return ".".join(_u_label(label) for label in self.domain.split("."))

    @property
    def unicode_text(self) -> str:
        """The Mailbox with U-labels, for people and for headers of an internationalised message (RFC 6532)."""
        return f"{quoted_local(self.local)}@{self.domain_unicode}"

    @property
    def is_ascii(self) -> bool:
        """Whether the local part is ASCII; the address needs SMTPUTF8 (RFC 6531) where it is not."""
        return self.local.isascii()


def parse(text: str, *, field: str | None = None) -> Address:
    """Read one bare address, such as ``name@example.com``.

    Args:
        text: no display name, angle brackets, comments or spaces around it.
        field: where in the input it stands, for the error.

    Raises:
        AddressInvalid: says what is wrong with it.
    """
    plain = _PLAIN.fullmatch(text) if len(text) <= LOCAL_OCTETS + 1 + DOMAIN_OCTETS else None
    if plain is not None:
        local, domain = plain.groups()
        if len(local) <= LOCAL_OCTETS and len(domain) <= DOMAIN_OCTETS:
            return Address(local, domain.lower())
    _check_characters(text, field)
    local, domain = _split(unicodedata.normalize("NFC", text), field)
    if len(quoted_local(local).encode()) > LOCAL_OCTETS:
        raise AddressInvalid(f"the part before the @ is longer than {LOCAL_OCTETS} octets", field=field)
    return Address(local, parse_domain(domain, field=field))


def parse_domain(text: str, *, field: str | None = None) -> str:
    """Read a domain name and return it in lower-case A-labels; a single label such as ``localhost`` will do.

    Raises:
        AddressInvalid: says what is wrong with it.
    """
    _check_characters(text, field)
    if not text:
        raise AddressInvalid("the domain after the @ is missing", field=field)
    if text.startswith("["):
        raise AddressInvalid("address literals such as [192.0.2.1] are not accepted; use a domain name", field=field)
    if "@" in text:
        raise AddressInvalid(
            "there is more than one @; quote the part before the last one if it belongs there", field=field
        )
    if text.endswith("."):
        raise AddressInvalid("the domain ends with a dot; leave the dot out", field=field)
    mapped = text.lower()
    if not text.isascii():
        try:
            mapped = idna.uts46_remap(text, std3_rules=True, transitional=False)
        except idna.IDNAError:
            raise AddressInvalid("the domain holds a character that no domain name may have", field=field) from None
    labels = [_a_label(label, field) for label in mapped.split(".")]
    if labels[-1].isdecimal():
        # RFC 3696 section 2: a top-level name is never all digits; this is an IP address without its brackets.
        raise AddressInvalid(
            "the domain ends with a number; mail goes to domain names, not to IP addresses", field=field
        )
    domain = ".".join(labels)
    if len(domain) > DOMAIN_OCTETS:
        raise AddressInvalid(f"the domain is longer than {DOMAIN_OCTETS} octets", field=field)
    return domain


def quoted_local(local: str) -> str:
    """Return a local part as RFC 5321 section 4.1.2 writes it: as it is, or as a quoted string where it is no dot-string."""
    if _PLAIN_LOCAL.fullmatch(local):
        return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


def canonical(address: Address, separators: Sequence[str]) -> Address:
    """Return the address with its local part cut before the first of the catch-all separators, for the account lookup."""
    local, _, _ = cut(address.local, separators)
    return Address(local, address.domain)


def cut(local: str, separators: Sequence[str]) -> tuple[str, str, str]:
    """Split a local part at the separator that stands first in it: before, separator, after; the last two empty without one."""
    found = [
        (position, -len(separator), separator)
        for separator in separators
        if separator and (position := local.find(separator)) >= 0
    ]
    if not found:
        return local, "", ""
    position, _, separator = min(found)
    return local[:position], separator, local[position + len(separator) :]


def suppression_key(address: Address) -> str:
    """Return the key of the suppression list: +suffix cut, lower-case, A-labels."""
    local = address.local.partition("+")[0].lower()
    return f"{quoted_local(unicodedata.normalize('NFC', local))}@{address.domain}"


def mox_key(address: Address) -> str:
    """Return mox's base address (mox ``queue/suppression.go``): cut at the first ``+``, then ``-``, no dots, lower-case, U-labels."""
    local = address.local.partition("+")[0].partition("-")[0].replace(".", "").lower()
    return f"{quoted_local(unicodedata.normalize('NFC', local))}@{address.domain_unicode}"


def _check_characters(text: str, field: str | None) -> None:
    if len(text) > _INPUT_CHARACTERS:
        raise AddressInvalid(
            f"an address has at most {LOCAL_OCTETS + 1 + DOMAIN_OCTETS} octets; this one is far longer", field=field
        )
    found = _UNPRINTABLE.search(text)
    if found is not None:
        raise AddressInvalid(f"the character U+{ord(found.group()):04X} cannot be part of an address", field=field)


def _split(text: str, field: str | None) -> tuple[str, str]:
    """Return the local part, unquoted, and the domain as written."""
    if text != text.strip():
        raise AddressInvalid("remove the spaces around the address", field=field)
    if text.startswith("<") or text.endswith(">"):
        raise AddressInvalid("give the bare address, without < > and without a name", field=field)
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        if quoted is None:
            raise AddressInvalid(
                'the quoted part before the @ does not end; it has the form "some text"@example.com', field=field
            )
        local, domain = quoted.groups()
        return re.sub(r"\\(.)", r"\1", local), domain
    local, at, domain = text.partition("@")
    if not at:
        raise AddressInvalid("an address has the form name@example.com; this one has no @", field=field)
    if not local:
        raise AddressInvalid("the part before the @ is missing", field=field)
    if not _PLAIN_LOCAL.fullmatch(local):
        wrong = _NOT_ATEXT.search(local)
        if wrong is None:
            raise AddressInvalid(
                "the part before the @ begins or ends with a dot, or has two in a row; put it in double quotes if that is meant",
                field=field,
            )
        raise AddressInvalid(f"the part before the @ may hold {wrong.group()!r} only within double quotes", field=field)
    return local, domain


def _a_label(label: str, field: str | None) -> str:
    """Return the A-label of one label that UTS #46 has mapped already (section 4, validity criteria as in 4.1)."""
    if not label:
        raise AddressInvalid("the domain has an empty label: two dots in a row, or one at the start", field=field)
    try:
        if label.isascii() and not label.startswith("xn--"):
            result = label
        else:
            unicode_label = label[4:].encode("ascii").decode("punycode") if label.isascii() else label
            _check_u_label(unicode_label)
            result = "xn--" + unicode_label.encode("punycode").decode("ascii")
            if label.isascii() and result != label:
                raise AddressInvalid(f"{label!r} in the domain is no valid internationalised label", field=field)
    except (idna.IDNAError, UnicodeError, ValueError):
        raise AddressInvalid(f"{label!r} in the domain is no valid internationalised label", field=field) from None
    if len(result) > 63:
        raise AddressInvalid("a label of the domain is longer than 63 octets", field=field)  # RFC 1035 section 2.3.4
    if not _LDH_LABEL.fullmatch(result):
        raise AddressInvalid(
            f"{label!r} in the domain is no host name: letters, digits and hyphens inside are allowed", field=field
        )  # RFC 1123 section 2.1
    return result


def _check_u_label(label: str) -> None:
    if label.isascii() or idna.uts46_remap(label, std3_rules=True, transitional=False) != label or "." in label:
        raise idna.IDNAError("not in mapped form")
    idna.check_nfc(label)
    idna.check_hyphen_ok(label)
    idna.check_initial_combiner(label)
    idna.check_bidi(label)
    for position, character in enumerate(label):
        if character in "\u200c\u200d" and not idna.valid_contextj(label, position):
            raise idna.IDNAError("joiner without its context")


def _u_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return label

"""Reading a list of mailboxes strictly, as To or From of a message that somebody hands in to be sent.

``shared.mail.fields`` reads what comes from elsewhere and forgives; here a wrong guess would send mail to the wrong person, so
what is no list is refused. RFC 5322 sections 3.4 and 4.4: names, comments, groups, routes, empty elements.
"""

import re
from collections.abc import Iterator
from typing import Final

from shared.errors import ValidationFailed
from shared.mail.address import parse
from shared.mail.fields import decode_words, without_comments
from shared.mail.headers import Mailbox
from shared.mail.status import clean_text

_TOKEN: Final = re.compile(
    r"""(?P<quoted>"(?:[^"\\]|\\.)*")"""
    r"""|<(?P<angle>(?:[^<>"]|"(?:[^"\\]|\\.)*")*)>"""
    r"""|(?P<mark>[,;:])"""
    r"""|(?P<bare>[^",;:<>]+)""",
    re.DOTALL,
)
_ROUTE: Final = re.compile(r"\s*@[^,:@\s]+(?:\s*,\s*@[^,:@\s]+)*\s*:")
_NAME_OCTETS: Final = 998


def read_mailboxes(value: str, *, field: str) -> tuple[Mailbox, ...]:
    """Return the mailboxes of a field's unfolded value, those of groups too, in their order.

    Args:
        value: internationalised addresses as they are (RFC 6532).
        field: names the field in errors.

    Raises:
        AddressInvalid: something in the place of an address is none.
        ValidationFailed: the value is no list of addresses.
    """
    return tuple(Mailbox(name, parse(address, field=field)) for name, address in _elements(value, field))


def _elements(value: str, field: str) -> Iterator[tuple[str, str]]:
    """Yield name and address of each mailbox; of what is none, an address that will be found wrong."""
    element = _Element()
    text, position, group = without_comments(value), 0, False
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValidationFailed(
                f"there is an unpaired {text[position]} in {field}; addresses look like Name <name@example.com>, separated by commas",
                field=field,
            )
        position = token.end()
        match token["mark"]:
            case None:
                element.add(token, field)
            case ":" if not group and element.is_phrase:
                element, group = _Element(), True  # the name of a group is nobody's address
            case ":":
                raise ValidationFailed(f"there is a colon in {field} that begins no group", field=field)
            case ";" if not group:
                raise ValidationFailed(f"separate the addresses in {field} by commas, not by semicolons", field=field)
            case mark:
                yield from element.mailbox()
                element, group = _Element(), group and mark == ","
    yield from element.mailbox()


class _Element:
    """One member of the list, while it is read."""

    __slots__ = ("_angle", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._angle: str | None = None

    @property
    def is_phrase(self) -> bool:
        """Whether it can be the name of a group."""
        text = "".join(self._pieces).strip()
        return self._angle is None and text != "" and "@" not in text

    def add(self, token: re.Match[str], field: str) -> None:
        if self._angle is not None:
            if token[0].strip():
                raise ValidationFailed(f"there is no comma between two addresses in {field}", field=field)
        elif token["angle"] is not None:
            self._angle = token["angle"]
        else:
            self._pieces.append(token[0])

    def mailbox(self) -> Iterator[tuple[str, str]]:
        """Yield name and address, nothing where the element is empty (RFC 5322 section 4.4, obs-addr-list)."""
        text = "".join(self._pieces)
        if self._angle is not None:
            route = _ROUTE.match(self._angle)  # RFC 5321 section 4.1.2: a source route is ignored
            yield self._name(), self._angle[route.end() if route is not None else 0 :].strip()
        elif text.strip():
            yield "", text.strip()

    def _name(self) -> str:
        words = [
            re.sub(r"\\(.)", r"\1", piece[1:-1], flags=re.DOTALL) if piece.startswith('"') else decode_words(piece)
            for piece in self._pieces
        ]
        return clean_text(" ".join("".join(words).split()), _NAME_OCTETS)

"""What customers may hand to a query: ids that fit, text that Postgres can hold, pages of a bounded size."""

from shared.errors import NotFound, ValidationFailed

LARGEST_PAGE = 200
_LARGEST_ID = 2**63 - 1


def row_id(value: int, what: str) -> int:
    """Return an id that may exist.

    Raises:
        NotFound: no bigint column holds this number; ``what`` names the kind of row.
    """
    if not 0 <= value <= _LARGEST_ID:
        raise NotFound(f"there is no {what} {value} in this account")
    return value


def page_size(limit: int) -> int:
    """Return the number of rows asked for.

    Raises:
        ValidationFailed: not between 1 and 200.
    """
    if not 1 <= limit <= LARGEST_PAGE:
        raise ValidationFailed(f"limit is between 1 and {LARGEST_PAGE}, not {limit}", field="limit")
    return limit


def text(value: str, *, field: str, longest: int, empty: bool = True) -> str:
    """Return text that can be stored.

    Raises:
        ValidationFailed: too long, empty where it may not be, or with U+0000 or a lone surrogate, which Postgres refuses.
    """
    if len(value) > longest:
        raise ValidationFailed(f"{field} has at most {longest} characters, not {len(value)}", field=field)
    if not value and not empty:
        raise ValidationFailed(f"{field} is empty", field=field)
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValidationFailed(f"{field} holds U+0000 or half of a surrogate pair; remove it", field=field)
    return value

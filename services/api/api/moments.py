"""Times as callers write them."""

import re
from datetime import UTC, datetime
from typing import Final

# RFC 3339 5.6; the zone is part of it, because a time without one is a guess.
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


def read_moment(text: str) -> datetime | None:
    """Return an aware time; None where the text does not have the form of one.

    Raises:
        ValueError: it has the form, and there is no such time.
    """
    if not _RFC3339.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from None
    return moment

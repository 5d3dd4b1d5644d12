"""Addresses as people write them: ``Ada <ada@example.com>``, ``"Lovelace, Ada" <ada@example.com>``, ``ada@example.com``."""

import re

_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


def split_mailbox(text: str) -> tuple[str, str]:
    """Return name and address of a mailbox (RFC 5322 3.4: name-addr or addr-spec); nothing of it is checked.

    Text without angle brackets at its end is all address, so that what is wrong with it is said of the whole.
    """
    stripped = text.strip(" \t")
    if not stripped.endswith(">"):
        return "", stripped
    # The address itself may be quoted and hold "<", so the bracket that counts is the first one after the name.
    quoted = _QUOTED_NAME.match(stripped)
    begin = stripped.find("<", quoted.end() if quoted is not None else 0)
    if begin < 0:
        return "", stripped
    before, address = stripped[:begin].strip(" \t"), stripped[begin + 1 : -1].strip(" \t")
    if quoted is None:
        return before, address
    if quoted.group() != before:
        return before, address  # quotes within a name are part of it, whatever the RFC would call them
    return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), address

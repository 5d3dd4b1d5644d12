"""What a lookup can end in besides an answer."""

from shared.errors import NotFound, Unavailable


class DnsTemporary(Unavailable):
    """DNS does not answer for now; the same question may be answered later."""


class DnsNotFound(NotFound):
    """DNS says that there is nothing under this name."""

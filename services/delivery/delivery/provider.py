"""Who runs a mail host, as far as its name tells."""

from functools import cache
from ipaddress import ip_address

from publicsuffixlist import PublicSuffixList


def provider_of(host: str) -> str:
    """Return the registrable domain of a mail host, by the public suffix list; the host itself where it has none.

    Args:
        host: lower-case, without a trailing dot.
    """
    try:
        ip_address(host)
    except ValueError:
        return _suffixes().privatesuffix(host) or host
    return host


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()  # 40 ms and 3 MB: when it is first asked

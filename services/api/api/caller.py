"""Who is asking: what authentication found out, and all that the rest of the service knows of it."""

from dataclasses import dataclass
from typing import Literal

CredentialKind = Literal["api_key", "login"]


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a valid credential."""

    credential_id: int
    account_id: int | None
    """None for an operator."""
    kind: CredentialKind
    uses_from_ids: bool
    """Whether mail handed in with it gets a from_id in MAIL FROM."""
    login: str | None = None
    """The address that was given as user name, as it was spelled; None for an API key."""


@dataclass(frozen=True, slots=True)
class AccountCaller:
    """A caller that belongs to an account, and sees only that."""

    credential_id: int
    account_id: int
    kind: CredentialKind
    uses_from_ids: bool
    login: str | None = None
    """As of :class:`Caller`."""

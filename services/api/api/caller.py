"""Who is asking: what authentication found out, and all that the rest of the service knows of it."""

from dataclasses import dataclass
from typing import Literal

from shared.db.accept import TEST_STREAM

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
    is_test: bool
    """A sandbox key: nothing that is handed in with it leaves the house."""
    login: str | None = None
    """The address that was given as user name, as it was spelled; None for an API key."""

    @property
    def stream(self) -> str | None:
        """As of :class:`AccountCaller`; None for an operator, who sees all."""
        return None if self.account_id is None else TEST_STREAM if self.is_test else ""


@dataclass(frozen=True, slots=True)
class AccountCaller:
    """A caller that belongs to an account, and sees only that; the rest as of :class:`Caller`."""

    credential_id: int
    account_id: int
    kind: CredentialKind
    uses_from_ids: bool
    is_test: bool
    login: str | None = None

    @property
    def stream(self) -> str:
        """The stream it acts in, and sees: mail and suppressions of a sandbox key are apart from all others of its account."""
        return TEST_STREAM if self.is_test else ""

    @classmethod
    def of(cls, caller: Caller, account_id: int) -> "AccountCaller":
        """Return a caller that is known to belong to an account."""
        return cls(caller.credential_id, account_id, caller.kind, caller.uses_from_ids, caller.is_test, caller.login)

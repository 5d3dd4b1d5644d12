"""Every error Posthouse raises on purpose, in one tree.

::

    PosthouseError
    |-- BadInput                   the caller can mend it
    |   |-- ValidationFailed
    |   |-- AddressInvalid
    |   |-- NoRecipients
    |   |-- TooLarge
    |   |-- FromNotAllowed
    |   |-- Unauthenticated
    |   |-- Forbidden
    |   |-- NotFound
    |   |-- Conflict
    |   |   |-- IdempotencyConflict
    |   |   `-- FromIdTaken
    |   `-- NotAvailableYet
    |-- LimitReached               the account may go on later
    |   |-- MessageLimitReached
    |   |-- RecipientLimitReached
    |   `-- RateLimited
    |-- Unavailable                try again later
    |   |-- Overloaded
    |   `-- DatabaseUnavailable
    |-- ConfigurationError         an operator mends it; the process stops with its text
    `-- SecretUnreadable           a sealed value that no configured key opens

The docstring of a class is its default message; ``code`` is stable and part of the public API. Only
``shared.web.problems`` maps a code to an HTTP status.
"""

from collections.abc import Mapping
from typing import ClassVar


class PosthouseError(Exception):
    """Something went wrong inside Posthouse."""

    code: ClassVar[str] = "internal"

    def __init__(
        self, message: str | None = None, *, field: str | None = None, facts: Mapping[str, object] | None = None
    ) -> None:
        """Take what was wrong and what to do about it.

        Args:
            message: for a person; the docstring of the class where it is None.
            field: where in the input it was wrong, as a path such as ``to[1].address``.
            facts: further machine-readable members for the problem document.
        """
        self.message = message if message is not None else (type(self).__doc__ or "").strip().splitlines()[0]
        self.field = field
        self.facts = dict(facts or {})
        super().__init__(self.message)


class BadInput(PosthouseError):
    """The request cannot be carried out as it is."""

    code = "bad_input"


class ValidationFailed(BadInput):
    """The request does not have the documented form."""

    code = "validation_failed"


class AddressInvalid(BadInput):
    """This is not an address that mail can be sent to."""

    code = "address_invalid"


class NoRecipients(BadInput):
    """A message needs at least one recipient in to, cc or bcc."""

    code = "no_recipients"


class TooLarge(BadInput):
    """The request is larger than allowed."""

    code = "too_large"


class FromNotAllowed(BadInput):
    """The address in From does not belong to this account."""

    code = "from_not_allowed"


class Unauthenticated(BadInput):
    """A valid API key or login is needed."""

    code = "unauthenticated"


class Forbidden(BadInput):
    """This credential may not do that."""

    code = "forbidden"


class NotFound(BadInput):
    """There is nothing with this id in this account."""

    code = "not_found"


class Conflict(BadInput):
    """This exists already."""

    code = "conflict"


class IdempotencyConflict(Conflict):
    """This idempotency key was used for another message; use a new key for a new message."""

    code = "idempotency_conflict"


class FromIdTaken(Conflict):
    """This from_id names another delivery; choose one that was never used, or let one be made."""

    code = "from_id_taken"


class NotAvailableYet(BadInput):
    """This version of Posthouse does not do that yet."""

    code = "not_available_yet"


class LimitReached(PosthouseError):
    """The account has used up what it may do for now.

    The fact ``retry_after`` says in how many seconds it may go on; it is missing where waiting does not help.
    """

    code = "limit_reached"


class MessageLimitReached(LimitReached):
    """The account has used up its messages for a day."""

    code = "message_limit_reached"


class RecipientLimitReached(LimitReached):
    """The account has used up its first-time recipients for a day."""

    code = "recipient_limit_reached"


class RateLimited(LimitReached):
    """The account sends faster than it may."""

    code = "rate_limited"


class Unavailable(PosthouseError):
    """The service cannot do this right now; try again later."""

    code = "unavailable"


class Overloaded(Unavailable):
    """More work is waiting than this process takes on; try again in a moment."""

    code = "overloaded"


class DatabaseUnavailable(Unavailable):
    """The database does not answer; nothing was accepted, try again in a moment."""

    code = "database_unavailable"


class ConfigurationError(PosthouseError):
    """A setting is missing or wrong."""

    code = "configuration"


class SecretUnreadable(PosthouseError):
    """None of the configured secret keys opens this sealed value."""

    code = "secret_unreadable"

"""The errors that a route may answer with, for the OpenAPI document."""

from shared.errors import (
    AddressInvalid,
    Conflict,
    DatabaseUnavailable,
    Forbidden,
    NotFound,
    PosthouseError,
    Unauthenticated,
    ValidationFailed,
)
from shared.web.problems import responses

_ALWAYS: tuple[type[PosthouseError], ...] = (Unauthenticated, Forbidden, ValidationFailed, DatabaseUnavailable)

LIST = responses(*_ALWAYS)
READ = responses(*_ALWAYS, NotFound)
CREATE = responses(*_ALWAYS, NotFound, AddressInvalid, Conflict)
UPDATE = responses(*_ALWAYS, NotFound, Conflict)
REMOVE = READ
